//! What is known of a client and a server: who waits for which answer, and what was seen of tools.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value as Json, json};
use tokio::{sync::oneshot, time::Instant};

use crate::{manifest::definition, wire::mcp::List};

/// Most requests that may wait for an answer, and most tools of a server.
const WAITING: usize = 10_000;
pub(super) const TOOLS: usize = 1_000;
/// How long a definition counts that was seen, where nobody can say who sees which.
const COUNTS: Duration = Duration::from_hours(1);

/// What somebody waits for.
#[derive(Debug)]
pub(super) enum Waits {
    /// A decision, before anything goes on.
    Decision,
    /// The answer, as it comes.
    Plain,
    /// A list, sifted.
    List(&'static List),
    /// The answer, with a note.
    Note(Json),
    /// We do.
    Us(oneshot::Sender<Json>),
}

/// What is known of those on both sides.
#[derive(Debug)]
pub(super) struct Sides {
    /// Whether one client alone is meant: what it sees now is all that it sees.
    one: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    waiting: HashMap<String, Waits>,
    /// The digests of each tool's definitions, and when each was last seen.
    seen: BTreeMap<String, Vec<(String, Instant)>>,
}

impl Sides {
    pub(super) fn new(one: bool) -> Self {
        Self {
            one,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits for an answer.
    ///
    /// # Errors
    ///
    /// Why not: an answer that was taken for another's would come unlooked at.
    pub(super) fn waits(&self, key: &str, what: Waits) -> Result<(), &'static str> {
        let mut known = self.known();
        if known.waiting.len() >= WAITING {
            return Err("the server owes too many answers");
        }
        match known.waiting.entry(key.to_owned()) {
            Entry::Occupied(_) => Err("`id` is that of a request that is not answered yet"),
            Entry::Vacant(place) => {
                place.insert(what);
                Ok(())
            }
        }
    }

    /// What was waited for until now is something else; not if nobody waits any more.
    pub(super) fn goes_on(&self, key: &str, what: Waits) -> bool {
        let mut known = self.known();
        let waiting = known.waiting.get_mut(key);
        waiting.map(|waiting| *waiting = what).is_some()
    }

    /// Who waits for an answer; an answer is told once.
    pub(super) fn waited(&self, key: &str) -> Option<Waits> {
        self.known().waiting.remove(key)
    }

    /// A client begins to look anew at all that there is.
    pub(super) fn looks(&self) {
        if self.one {
            self.known().seen.clear();
        }
    }

    /// Tools as a client saw them. One that it sees in two ways counts as neither.
    pub(super) fn saw(&self, tools: BTreeMap<String, String>) {
        let now = Instant::now();
        let mut known = self.known();
        for (name, digest) in tools {
            if known.seen.len() > TOOLS {
                return;
            }
            let seen = known.seen.entry(name).or_default();
            seen.retain(|(of, last)| *of != digest && now.duration_since(*last) < COUNTS);
            // Two are as good as more.
            seen.truncate(1);
            seen.push((digest, now));
        }
    }

    /// Tools that only we have seen: what a client saw of one before counts.
    pub(super) fn learned(&self, tools: BTreeMap<String, String>) {
        let unseen = |name: &String| !self.has_seen(name);
        self.saw(tools.into_iter().filter(|(name, _)| unseen(name)).collect());
    }

    pub(super) fn has_seen(&self, tool: &str) -> bool {
        self.known().seen.contains_key(tool)
    }

    /// The digests of the tools, by name.
    pub(super) fn seen(&self) -> BTreeMap<String, String> {
        let known = self.known();
        let seen = known.seen.iter().filter_map(|(name, seen)| {
            let digest = match seen.as_slice() {
                [(only, _)] => only.clone(),
                several => {
                    let several: Vec<_> = several.iter().map(|(digest, _)| digest).collect();
                    definition("", &json!({ "several": several }))
                        .ok()?
                        .to_string()
                }
            };
            Some((name.clone(), digest))
        });
        seen.collect()
    }
}

/// An answer that is waited for no longer than this is there.
#[derive(Debug)]
pub(super) struct Waiting<'a>(pub(super) &'a Sides, pub(super) String);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waited(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        let of = of.iter();
        of.map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned()))
            .collect()
    }

    #[test]
    fn a_tool_that_is_shown_in_two_ways_is_neither() {
        let shared = Sides::new(false);
        shared.saw(tools(&[
            ("wipe", "sha256:poisoned"),
            ("search", "sha256:s"),
        ]));
        // Another client is shown what was approved.
        shared.looks();
        shared.saw(tools(&[("wipe", "sha256:w"), ("search", "sha256:s")]));
        let seen = shared.seen();
        assert_eq!(seen["search"], "sha256:s");
        assert!(!["sha256:poisoned", "sha256:w"].contains(&seen["wipe"].as_str()));
        // One client alone sees what it was shown last, and we no more than it has not.
        let one = Sides::new(true);
        one.saw(tools(&[("wipe", "sha256:poisoned")]));
        one.learned(tools(&[("wipe", "sha256:w"), ("search", "sha256:s")]));
        assert_eq!(
            one.seen(),
            tools(&[("wipe", "sha256:poisoned"), ("search", "sha256:s")])
        );
        one.looks();
        one.saw(tools(&[("wipe", "sha256:w")]));
        assert_eq!(one.seen(), tools(&[("wipe", "sha256:w")]));
    }

    #[test]
    fn an_id_waits_once() {
        let sides = Sides::new(true);
        sides.waits("1", Waits::Decision).unwrap();
        assert!(sides.waits("1", Waits::Plain).is_err());
        assert!(sides.goes_on("1", Waits::Plain));
        assert!(sides.waited("1").is_some() && sides.waited("1").is_none());
        assert!(!sides.goes_on("1", Waits::Plain), "cancelled meanwhile");
        drop(Waiting(&sides, "1".into()));
        sides.waits("1", Waits::Plain).unwrap();
        drop(Waiting(&sides, "1".into()));
        assert!(sides.waited("1").is_none());
    }
}
