//! Signed notes (C2SP `signed-note` and `tlog-checkpoint`).

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Broken,
    tree::{Sum, sum},
};

/// A public key that checkpoints are believed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// Parses `ed25519:` and 64 hex digits.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.strip_prefix("ed25519:")
            .and_then(hex)
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is no key; use `ed25519:` and 64 hex digits, as `exeat status` prints it")
            })
    }
}

/// Reads as many bytes as there are to be from hex in lower case.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let digits = text.as_bytes();
    if digits.len() != N.checked_mul(2)? {
        return None;
    }
    // One spelling each: a changed bit is never read as if it were none.
    let digit = |c: u8| match c {
        b'0'..=b'9' => c.checked_sub(b'0'),
        b'a'..=b'f' => c.checked_sub(b'a' - 10),
        _ => None,
    };
    for (byte, two) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = two else { return None };
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

/// A checkpoint that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The log's id, in hex.
    pub log: String,
    /// The epoch it was signed in.
    pub epoch: u64,
    /// How many leaves it is about.
    pub size: u64,
    /// Their root.
    pub root: [u8; 32],
    origin: String,
    text: String,
    signatures: Vec<(String, Vec<u8>)>,
}

impl Note {
    /// Reads a note. Who signed it is looked at by [`Self::signed_by`].
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(note: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("the checkpoint {what}");
        let end = note
            .rfind("\n\n")
            .ok_or_else(|| wrong("is no signed note"))?;
        let (text, rest) = note.split_at(end.saturating_add(1));
        let mut lines = text.lines();
        let origin = lines.next().unwrap_or_default().to_owned();
        let (log, epoch) = origin
            .strip_prefix("exeat/")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| wrong("is not of a registry of exeat"))?;
        let epoch = epoch.parse().map_err(|_| wrong("names no epoch"))?;
        let size = lines.next().and_then(|line| line.parse().ok());
        let root = lines
            .next()
            .and_then(|line| STANDARD.decode(line).ok())
            .and_then(|root| Sum::try_from(root).ok());
        let mut signatures = Vec::new();
        for line in rest.lines().filter(|line| !line.is_empty()) {
            let signature = line
                .strip_prefix("\u{2014} ")
                .and_then(|line| line.split_once(' '))
                .and_then(|(name, of)| Some((name.to_owned(), STANDARD.decode(of).ok()?)));
            signatures.push(signature.ok_or_else(|| wrong("has a signature that is none"))?);
        }
        Ok(Self {
            log: log.to_owned(),
            epoch,
            size: size.ok_or_else(|| wrong("names no size"))?,
            root: root.ok_or_else(|| wrong("names no root"))?,
            text: text.to_owned(),
            signatures,
            origin,
        })
    }

    /// Whether one of `keys` signed it.
    ///
    /// # Errors
    ///
    /// None of them did.
    pub fn signed_by(&self, keys: &[Key]) -> Result<(), Broken> {
        let signed = keys.iter().any(|Key(key)| {
            let id = sum(&[self.origin.as_bytes(), b"\n\x01", key]);
            self.signatures.iter().any(|(name, signature)| {
                let Some((of, signature)) = signature.split_at_checked(4) else {
                    return false;
                };
                let key = UnparsedPublicKey::new(&ED25519, key);
                *name == self.origin
                    && id.starts_with(of)
                    && key.verify(self.text.as_bytes(), signature).is_ok()
            })
        });
        if signed {
            return Ok(());
        }
        Err(Broken {
            line: 0,
            what: "the checkpoint is not signed with a key that is trusted".into(),
        })
    }
}
