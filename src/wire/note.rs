//! Checkpoints of the ledger: signed notes as in C2SP `signed-note` and `tlog-checkpoint`.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::domain::{Era, Hash, LogId};

use super::signed::{Signer, hex, sha256};

/// What is signed about the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log, and in which epoch: a registry that was put back from a copy and went on is
    /// another log from there.
    pub era: Era,
    /// How many leaves.
    pub size: u64,
    /// The digest of them all.
    pub root: Hash,
}

/// The name of the log, and of whoever signs for it.
fn origin(era: Era) -> String {
    // No other statement of ours begins so: those go on with `v1/`.
    format!("exeat/{}/{}", hex(&era.log.0), era.epoch)
}

/// A checkpoint as a signed note.
pub fn write(checkpoint: &Checkpoint, signer: &Signer) -> String {
    let Checkpoint { era, size, root } = checkpoint;
    let origin = origin(*era);
    let text = format!("{origin}\n{size}\n{}\n", STANDARD.encode(root));
    // The signature's type 1 is Ed25519.
    let id = sha256(&[origin.as_bytes(), b"\n\x01", signer.pin().bytes()].concat());
    let id = id.get(..4).unwrap_or_default();
    let signature = STANDARD.encode([id, &signer.raw(text.as_bytes())].concat());
    format!("{text}\n\u{2014} {origin} {signature}\n")
}

/// What a note says; its signature is not looked at. Nothing if it is no checkpoint.
pub fn read(note: &str) -> Option<Checkpoint> {
    let mut lines = note.lines();
    let (log, epoch) = lines.next()?.strip_prefix("exeat/")?.split_once('/')?;
    let mut bytes = [0_u8; 16];
    for (byte, at) in bytes.iter_mut().zip((0..32_usize).step_by(2)) {
        *byte = u8::from_str_radix(log.get(at..at.saturating_add(2))?, 16).ok()?;
    }
    let era = Era {
        log: LogId(bytes),
        epoch: epoch.parse().ok()?,
    };
    Some(Checkpoint {
        era,
        size: lines.next()?.parse().ok()?,
        root: STANDARD.decode(lines.next()?).ok()?.try_into().ok()?,
    })
}
