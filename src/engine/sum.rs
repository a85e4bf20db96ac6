//! A digest of a set of objects that a change updates by what changed.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The sum, modulo 2^256, of the digests of a set's members: equal for equal sets, in whatever
/// order they were put together. Only what is signed is summed, so it guards against divergence,
/// not against an adversary who may choose members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum([u64; 4]);

/// The digest of one member.
pub type Part = [u64; 4];

/// The digest of the object of `kind` called `id`, at `revision`, with this `manifest`.
pub fn part(kind: u8, id: &str, revision: u64, manifest: &str) -> Part {
    let mut hash = Sha256::new();
    hash.update([kind]);
    for text in [id, manifest] {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text);
    }
    hash.update(revision.to_be_bytes());
    let bytes: [u8; 32] = hash.finalize().into();
    limbs(bytes)
}

fn limbs(bytes: [u8; 32]) -> [u64; 4] {
    let mut limbs = [0_u64; 4];
    for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
        *limb = chunk
            .iter()
            .fold(0, |limb, byte| (limb << 8) | u64::from(*byte));
    }
    limbs
}

impl Sum {
    /// Puts a member in.
    pub fn add(&mut self, part: &Part) {
        let mut carry = false;
        for (limb, more) in self.0.iter_mut().zip(part) {
            let (sum, over) = limb.overflowing_add(*more);
            let (sum, again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || again);
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, part: &Part) {
        let mut borrow = false;
        for (limb, less) in self.0.iter_mut().zip(part) {
            let (rest, under) = limb.overflowing_sub(*less);
            let (rest, again) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, under || again);
        }
    }

    /// Puts in every member of another set.
    pub fn merge(&mut self, other: &Self) {
        self.add(&other.0);
    }

    /// The sum as bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }

    /// Reads thirty-two bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(limbs(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_taking_out_undoes_putting_in() {
        let parts: Vec<Part> = (0..50)
            .map(|n| part(1, &format!("id-{n}"), n, "text"))
            .collect();
        let (mut there, mut back) = (Sum::default(), Sum::default());
        parts.iter().for_each(|part| there.add(part));
        parts.iter().rev().for_each(|part| back.add(part));
        assert_eq!(there, back);
        assert_eq!(Sum::from_slice(&there.to_bytes()), Some(there));
        parts[..49].iter().for_each(|part| there.remove(part));
        let mut last = Sum::default();
        last.add(&parts[49]);
        assert_eq!(there, last);
        assert_ne!(part(1, "a", 1, "b"), part(1, "ab", 1, ""));
    }
}
