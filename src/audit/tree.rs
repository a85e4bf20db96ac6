//! Merkle trees as RFC 9162 checks them.

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256 digest.
pub(super) type Sum = [u8; 32];

/// The digest of some bytes, one after the other.
pub(super) fn sum(of: &[&[u8]]) -> Sum {
    let mut context = Context::new(&SHA256);
    for bytes in of {
        context.update(bytes);
    }
    let mut sum = Sum::default();
    sum.copy_from_slice(context.finish().as_ref());
    sum
}

/// The digest of a leaf.
pub(super) fn leaf(text: &[u8]) -> Sum {
    sum(&[&[0], text])
}

fn pair(left: &Sum, right: &Sum) -> Sum {
    sum(&[&[1], left, right])
}

/// A tree that grows: the peaks of it, each with its height.
#[derive(Clone, Debug, Default)]
pub(super) struct Growing(Vec<(u32, Sum)>);

impl Growing {
    /// Adds a leaf.
    pub(super) fn push(&mut self, leaf: Sum) {
        let mut top = (0, leaf);
        while let Some((height, left)) = self.0.pop() {
            if height != top.0 {
                self.0.push((height, left));
                break;
            }
            top = (height.saturating_add(1), pair(&left, &top.1));
        }
        self.0.push(top);
    }

    /// The digest of all of it.
    pub(super) fn root(&self) -> Sum {
        let mut peaks = self.0.iter().rev();
        match peaks.next() {
            None => sum(&[]),
            Some((_, last)) => peaks.fold(*last, |right, (_, left)| pair(left, &right)),
        }
    }
}

/// The root that `path` leads to from leaf `index` of `size` (RFC 9162 §2.1.3.2); nothing if the
/// path does not fit.
pub(super) fn climbed(mut index: u64, size: u64, leaf: Sum, path: &[Sum]) -> Option<Sum> {
    let mut last = size.checked_sub(1).filter(|last| index <= *last)?;
    let mut at = leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if index & 1 == 1 || index == last {
            at = pair(sibling, &at);
            while index & 1 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            at = pair(&at, sibling);
        }
        index >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(at)
}

/// The roots of the first `first` of `second` leaves and of all of them that `path` leads to, where
/// `old` is the first (RFC 9162 §2.1.4.2); nothing if the path does not fit.
pub(super) fn extended(first: u64, second: u64, old: Sum, path: &[Sum]) -> Option<(Sum, Sum)> {
    let (mut inner, mut last) = (first.checked_sub(1)?, second.checked_sub(1)?);
    if inner >= last {
        return None;
    }
    // A whole subtree is its own proof.
    let whole = first.is_power_of_two();
    let mut steps = whole.then_some(&old).into_iter().chain(path);
    let shift = inner.trailing_ones();
    inner = inner.checked_shr(shift).unwrap_or(0);
    last = last.checked_shr(shift).unwrap_or(0);
    let begin = *steps.next()?;
    let (mut before, mut after) = (begin, begin);
    for step in steps {
        if last == 0 {
            return None;
        }
        if inner & 1 == 1 || inner == last {
            before = pair(step, &before);
            after = pair(step, &after);
            while inner & 1 == 0 && inner != 0 {
                inner >>= 1;
                last >>= 1;
            }
        } else {
            after = pair(&after, step);
        }
        inner >>= 1;
        last >>= 1;
    }
    (last == 0).then_some((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ledger;

    /// Of any two sizes: the path that the one implementation makes is accepted, and no other.
    #[test]
    fn what_goes_on_from_what_was_is_told_from_what_does_not() {
        let (mut ours, mut theirs) = (Growing::default(), ledger::Tree::default());
        let mut whole = std::collections::BTreeMap::new();
        let mut roots = vec![ours.root()];
        for size in 1..70_u64 {
            let text = format!("leaf {size}");
            ours.push(leaf(text.as_bytes()));
            whole.extend(theirs.append(ledger::leaf_hash(&text)));
            roots.push(ours.root());
        }
        for second in 2..70_u64 {
            for first in 1..second {
                let path: Vec<Sum> = ledger::consistency(first, second)
                    .unwrap()
                    .iter()
                    .map(|range| {
                        let parts = ledger::parts(range);
                        ledger::folded(&parts.iter().map(|n| whole[n]).collect::<Vec<_>>())
                    })
                    .collect();
                let (old, new) = (roots[first as usize], roots[second as usize]);
                assert_eq!(extended(first, second, old, &path), Some((old, new)));
                let holds = |path: &[Sum]| extended(first, second, old, path) == Some((old, new));
                for at in 0..path.len() {
                    let mut wrong = path.clone();
                    wrong[at][at % 32] ^= 1;
                    assert!(!holds(&wrong), "{first} of {second}, step {at}");
                    wrong.remove(at);
                    assert!(!holds(&wrong), "{first} of {second} without {at}");
                }
                let mut longer = path.clone();
                longer.push(old);
                assert!(!holds(&longer), "{first} of {second} and one more");
                let other = roots[first as usize - 1];
                assert_ne!(extended(first, second, other, &path), Some((other, new)));
            }
        }
    }

    /// What the one implementation makes the other accepts, and nothing else.
    #[test]
    fn both_implementations_agree_and_every_flipped_bit_is_seen() {
        let (mut ours, mut theirs) = (Growing::default(), ledger::Tree::default());
        let mut whole = std::collections::BTreeMap::new();
        let mut leaves = Vec::new();
        for size in 1..40_u64 {
            let text = format!("leaf {size}");
            assert_eq!(leaf(text.as_bytes()), ledger::leaf_hash(&text));
            leaves.push(leaf(text.as_bytes()));
            ours.push(leaf(text.as_bytes()));
            whole.extend(theirs.append(ledger::leaf_hash(&text)));
            let root = ours.root();
            assert_eq!(root, theirs.root());
            for index in 0..size {
                let path: Vec<Sum> = ledger::inclusion(index, size)
                    .unwrap()
                    .iter()
                    .map(|range| {
                        let parts = ledger::parts(range);
                        ledger::folded(&parts.iter().map(|n| whole[n]).collect::<Vec<_>>())
                    })
                    .collect();
                let leaf = leaves[index as usize];
                assert_eq!(climbed(index, size, leaf, &path), Some(root));
                for at in 0..path.len() {
                    let mut wrong = path.clone();
                    wrong[at][at % 32] ^= 1;
                    assert_ne!(climbed(index, size, leaf, &wrong), Some(root));
                    wrong.remove(at);
                    assert_ne!(climbed(index, size, leaf, &wrong), Some(root));
                }
                for other in 0..size {
                    if other != index {
                        assert_ne!(climbed(other, size, leaf, &path), Some(root));
                    }
                }
            }
            assert_eq!(ledger::inclusion(size, size), None);
        }
    }
}
