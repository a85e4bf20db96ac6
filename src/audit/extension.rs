//! Whether what is signed now goes on from what was signed before, by a proof of a few digests.

use super::{
    Broken, Key, Note,
    tree::{Sum, extended},
};

/// Checks that the ledger of `now` begins with that of `before`.
///
/// # Errors
///
/// What does not hold.
pub fn extends(before: &Note, now: &Note, path: &[Vec<u8>], keys: &[Key]) -> Result<(), Broken> {
    let broken = |what: &str| Broken {
        line: 0,
        what: what.to_owned(),
    };
    before.signed_by(keys)?;
    now.signed_by(keys)?;
    if before.log != now.log {
        return Err(broken("the two checkpoints are of different ledgers"));
    }
    if before.size > now.size || before.epoch > now.epoch {
        return Err(broken("less is signed now than was before"));
    }
    if before.size == 0 {
        return Ok(());
    }
    let path: Option<Vec<Sum>> = path
        .iter()
        .map(|step| step.as_slice().try_into().ok())
        .collect();
    let holds = if before.size == now.size {
        before.root == now.root
    } else {
        path.is_some_and(|path| {
            let roots = extended(before.size, now.size, before.root, &path);
            roots == Some((before.root, now.root))
        })
    };
    if holds {
        return Ok(());
    }
    Err(broken(
        "what is signed now does not go on from what was signed before",
    ))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::audit::tree::{Growing, leaf, sum};

    /// What was signed of the first `size` leaves, `changed` in the first of them.
    fn signed(size: u64, log: &str, changed: &str) -> Note {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let mut tree = Growing::default();
        for n in 0..size {
            let what = if n == 0 { changed } else { "" };
            tree.push(leaf(format!("leaf {n}{what}").as_bytes()));
        }
        let origin = format!("exeat/{log}/1");
        let text = format!("{origin}\n{size}\n{}\n", STANDARD.encode(tree.root()));
        let key = pair.public_key().as_ref();
        let id = sum(&[origin.as_bytes(), b"\n\x01", key]);
        let signature = [&id[..4], pair.sign(text.as_bytes()).as_ref()].concat();
        let signature = STANDARD.encode(signature);
        Note::read(&format!("{text}\n\u{2014} {origin} {signature}\n")).unwrap()
    }

    #[test]
    fn what_was_cut_off_or_written_anew_does_not_go_on() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let digits = pair.public_key().as_ref().iter();
        let digits: String = digits.map(|byte| format!("{byte:02x}")).collect();
        let pin = format!("ed25519:{digits}");
        let keys = [Key::parse(&pin).unwrap()];
        let says = |before: &Note, now: &Note, path: &[Vec<u8>]| {
            extends(before, now, path, &keys).map_err(|broken| broken.what)
        };
        let (one, two) = (signed(1, "a", ""), signed(2, "a", ""));
        let step = vec![leaf(b"leaf 1").to_vec()];
        assert_eq!(says(&one, &two, &step), Ok(()));
        assert_eq!(says(&two, &two, &[]), Ok(()));
        assert_eq!(says(&signed(0, "a", ""), &two, &[]), Ok(()));
        let other = "what is signed now does not go on from what was signed before";
        for (before, now, path) in [
            (&one, &signed(2, "a", " changed"), &step[..]),
            (&two, &signed(2, "a", " changed"), &[]),
            (&one, &two, &[]),
            (&one, &two, &[vec![0; 31]]),
        ] {
            assert_eq!(says(before, now, path), Err(other.into()));
        }
        let less = "less is signed now than was before";
        assert_eq!(says(&two, &one, &[]), Err(less.into()));
        let strange = "the two checkpoints are of different ledgers";
        assert_eq!(says(&one, &signed(2, "b", ""), &step), Err(strange.into()));
    }
}
