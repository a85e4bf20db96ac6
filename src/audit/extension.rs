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
