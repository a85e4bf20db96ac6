//! A transaction as the ledger's leaf says it.

use std::fmt::Write as _;

use serde_json::json;

use crate::domain::{Edit, Era, Hash, Removal, Timestamp, Transaction};

/// What a transaction consists of, each part by itself: who did what first, then its edits, then
/// its removals. A leaf names them by their commitments only.
pub fn payloads(transaction: &Transaction) -> Vec<String> {
    let Transaction {
        revision: _,
        time: _,
        principal,
        action,
        edits,
        removals,
    } = transaction;
    let mut payloads = Vec::with_capacity(1 + edits.len() + removals.len());
    payloads.push(json!({"action": action, "principal": principal}).to_string());
    for Edit {
        name,
        revision,
        manifest,
    } in edits
    {
        let payload = json!({"kind": name.kind.name(), "id": name.id, "revision": revision, "manifest": manifest.as_deref()});
        payloads.push(payload.to_string());
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
        payloads.push(payload.to_string());
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
