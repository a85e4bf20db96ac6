//! Checkpoints of the ledger: signed notes as in C2SP `signed-note` and `tlog-checkpoint`.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::domain::{Era, Hash, LogId};

use super::signed::{Pin, Signer, hex, sha256, unhex};

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

/// What a signature line calls a key: type 1 is Ed25519.
fn key_id(origin: &str, pin: &Pin) -> Vec<u8> {
    let id = sha256(&[origin.as_bytes(), b"\n\x01", pin.bytes()].concat());
    id.get(..4).unwrap_or_default().to_vec()
}

/// A checkpoint as a note, signed by each of `signers`.
pub fn write(checkpoint: &Checkpoint, signers: &[&Signer]) -> String {
    let Checkpoint { era, size, root } = checkpoint;
    let origin = origin(*era);
    let text = format!("{origin}\n{size}\n{}\n", STANDARD.encode(root));
    let mut note = format!("{text}\n");
    for signer in signers {
        let id = key_id(&origin, signer.pin());
        let signature = STANDARD.encode([id, signer.raw(text.as_bytes())].concat());
        // Writing to a string does not fail.
        let _ = writeln!(note, "\u{2014} {origin} {signature}");
    }
    note
}

/// What a note says that the key behind `pin` signed; nothing if it did not.
pub fn vouched(note: &str, pin: &Pin) -> Option<Checkpoint> {
    let (text, signatures) = note.split_once("\n\n")?;
    let text = format!("{text}\n");
    let said = read(&text)?;
    let origin = origin(said.era);
    let id = key_id(&origin, pin);
    let signed = signatures.lines().any(|line| {
        let signature = line
            .strip_prefix("\u{2014} ")
            .and_then(|line| line.strip_prefix(&origin)?.strip_prefix(' '))
            .and_then(|signature| STANDARD.decode(signature).ok());
        let signature = signature
            .as_deref()
            .and_then(|bytes| bytes.strip_prefix(&*id));
        signature.is_some_and(|signature| pin.vouches(text.as_bytes(), signature))
    });
    signed.then_some(said)
}

/// What a note says; its signature is not looked at. Nothing if it is no checkpoint.
fn read(note: &str) -> Option<Checkpoint> {
    let mut lines = note.lines();
    let (log, epoch) = lines.next()?.strip_prefix("exeat/")?.split_once('/')?;
    let era = Era {
        log: LogId(unhex(log)?),
        epoch: epoch.parse().ok()?,
    };
    Some(Checkpoint {
        era,
        size: lines.next()?.parse().ok()?,
        root: STANDARD.decode(lines.next()?).ok()?.try_into().ok()?,
    })
}
