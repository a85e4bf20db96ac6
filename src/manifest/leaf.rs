//! A transaction as the ledger's leaf says it.

use std::fmt::Write as _;

use serde_json::json;

use crate::domain::{Edit, Era, Hash, Removal, Timestamp, Transaction};

/// What a transaction consists of, each part by itself: who did what first, then of each edit what
/// it is about and, if there is one, its manifest, then its removals. A leaf names them by their
/// commitments only. Of edits at the places in `erased` the manifest is not known any more.
pub fn payloads(transaction: &Transaction, erased: &[usize]) -> Vec<Option<String>> {
    let Transaction {
        revision: _,
        time: _,
        principal,
        action,
        edits,
        removals,
    } = transaction;
    let mut payloads = vec![json!({"action": action, "principal": principal}).to_string()]
        .into_iter()
        .map(Some)
        .collect::<Vec<_>>();
    for (place, edit) in edits.iter().enumerate() {
        let Edit {
            name,
            revision,
            manifest,
        } = edit;
        let gone = erased.contains(&place);
        let removed = manifest.is_none() && !gone;
        let about = json!({"kind": name.kind.name(), "id": name.id, "revision": revision, "removed": removed});
        payloads.push(Some(about.to_string()));
        if !removed {
            payloads.push(manifest.as_deref().map(ToOwned::to_owned));
        }
    }
    for Removal {
        sequence,
        act,
        target,
        cause,
        note,
        initiator,
        time,
    } in removals
    {
        let payload = json!({"sequence": sequence, "act": act.name(), "target": target.kind(), "id": target.id(), "cause": cause.name(), "note": note, "initiator": initiator, "time": time.micros()});
        payloads.push(Some(payload.to_string()));
    }
    payloads
}

/// A leaf's text: plain lines that any tool can read and hash.
pub fn leaf_text(era: Era, revision: u64, time: Timestamp, commitments: &[Hash]) -> String {
    let mut text = String::with_capacity(128 + commitments.len() * 71);
    let log = era.log.0.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let (epoch, micros) = (era.epoch, time.micros());
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "exeat/leaf/v1\nlog {log}\nepoch {epoch}\nrevision {revision}\ntime {micros}\n"
    );
    for commitment in commitments {
        text.push_str("entry ");
        for byte in commitment {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}
