//! What is known of a client and a server: who waits for which answer, and what was seen of tools.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value as Json;
use tokio::sync::oneshot;

use crate::wire::mcp::List;

/// Most requests that may wait for an answer.
const WAITING: usize = 10_000;

/// What somebody waits for.
#[derive(Debug)]
pub(super) enum Waits {
    /// The answer, as it comes.
    Plain,
    /// A list, sifted; and whether from its beginning.
    List(&'static List, bool),
    /// The answer, with a note.
    Note(Json),
    /// We do.
    Us(oneshot::Sender<Json>),
}

/// What is known of those on both sides.
#[derive(Debug, Default)]
pub(super) struct Sides(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    waiting: HashMap<String, Waits>,
    seen: BTreeMap<String, String>,
}

impl Sides {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for somebody else who waits for an answer: one that was forgotten would
    /// come unlooked at.
    pub(super) fn waits(&self, key: String, what: Waits) -> bool {
        let mut known = self.known();
        if known.waiting.len() >= WAITING {
            return false;
        }
        known.waiting.insert(key, what);
        true
    }

    /// Who waits for an answer; an answer is told once.
    pub(super) fn waited(&self, key: &str) -> Option<Waits> {
        self.known().waiting.remove(key)
    }

    /// Tools as they were seen; a list that begins is all there is.
    pub(super) fn saw(&self, tools: BTreeMap<String, String>, begins: bool) {
        let mut known = self.known();
        if begins {
            known.seen.clear();
        }
        known.seen.extend(tools);
    }

    /// Tools that only we have seen: what the client saw of one before counts.
    pub(super) fn learned(&self, tools: BTreeMap<String, String>) {
        let mut known = self.known();
        for (name, digest) in tools {
            known.seen.entry(name).or_insert(digest);
        }
    }

    pub(super) fn has_seen(&self, tool: &str) -> bool {
        self.known().seen.contains_key(tool)
    }

    pub(super) fn seen(&self) -> BTreeMap<String, String> {
        self.known().seen.clone()
    }
}
