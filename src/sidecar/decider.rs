//! The steps every surface takes from one loaded snapshot: decide, count uses, hand out, record.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use uuid::Uuid;

use crate::{
    domain::{Decision, ExceptionId, Outcome, Question, Span, SubjectId},
    engine::{Snapshot, decide, follow::Contact},
    runtime::{
        clock::{Clock, Instant},
        publish::Published,
        ring::Ring,
    },
    telemetry::Metrics,
};

use super::{
    record::{Kept, Record, SMALL, decision_id, number_of, spending},
    uses::Uses,
};

/// Decisions kept for Explain.
const KEPT: usize = 10_000;
/// Most bytes that all requests longer than [`SMALL`] may take; beyond it the oldest go early.
const LARGE: usize = 32 << 20;
/// Snapshots kept behind the one in force, each read anew and sharing nothing with the others.
pub(super) const APART: usize = 4;
/// Snapshots kept behind the one in force, each a change of the one before: they share the rest.
pub(super) const CHANGED: usize = 64;

/// Decides from the published snapshot.
#[derive(Debug)]
pub(super) struct Decider {
    pub(super) snapshot: Arc<Published<Loaded>>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) recent: Ring<Kept>,
    large: Large,
    uses: Uses,
    salt: u64,
}

/// Kept requests that are not [`SMALL`], oldest first: in all they take a bounded number of bytes.
#[derive(Debug, Default)]
struct Large(Mutex<(VecDeque<(u64, usize)>, usize)>);

impl Large {
    /// Counts in the request of `number`; the ones to be forgotten for it.
    fn add(&self, number: u64, bytes: usize) -> Vec<u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, total) = &mut *known;
        kept.push_back((number, bytes));
        *total = total.saturating_add(bytes);
        let mut forgotten = Vec::new();
        while *total > LARGE
            && let Some((number, bytes)) = kept.pop_front()
        {
            *total = total.saturating_sub(bytes);
            forgotten.push(number);
        }
        forgotten
    }
}

/// A snapshot and since when, by elapsed time, it is known to be current.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) confirmed: Span,
    /// The few before it, so that recent decisions can still be explained.
    pub(super) earlier: Vec<Arc<Snapshot>>,
    /// How the registry is seen, if one is followed.
    pub(super) contact: Option<Contact>,
}

impl Loaded {
    /// `snapshot` in succession to `before`, with at `most` so many of those before it.
    pub(super) fn after(
        before: Option<&Self>,
        snapshot: Arc<Snapshot>,
        confirmed: Span,
        most: usize,
    ) -> Self {
        let known = before
            .into_iter()
            .flat_map(|before| [&before.snapshot].into_iter().chain(&before.earlier));
        let earlier = known
            .filter(|earlier| !Arc::ptr_eq(earlier, &snapshot))
            .take(most)
            .cloned()
            .collect();
        Self {
            snapshot,
            confirmed,
            earlier,
            contact: None,
        }
    }

    /// `look` as decisions from this see it.
    pub(super) fn at(&self, look: Instant) -> Instant {
        match &self.contact {
            Some(contact) => Instant {
                now: contact.now(look.now, look.elapsed),
                ..look
            },
            None => look,
        }
    }
}

/// A decision that is not recorded yet.
pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) id: Uuid,
    /// Exceptions taken for used up; there were none left to count.
    pub(super) spent: Vec<ExceptionId>,
    /// What it was made from, if something was taken back in the meantime.
    pub(super) newer: Option<Arc<Loaded>>,
    number: u64,
}

impl Decider {
    pub(super) fn new(snapshot: Arc<Published<Loaded>>, clock: Clock, metrics: Metrics) -> Self {
        // The standard library seeds its hashers from the operating system.
        let salt = std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish();
        Self {
            snapshot,
            clock,
            metrics,
            recent: Ring::new(KEPT),
            large: Large::default(),
            uses: Uses::default(),
            salt,
        }
    }

    /// Decides `question`, which arrived at `arrived`.
    pub(super) fn decide(&self, question: &Question, loaded: &Loaded, arrived: Instant) -> Decided {
        let (mut decision, mut spent) = self.settle(question, &loaded.snapshot, arrived);
        let mut newer: Option<Arc<Loaded>> = None;
        // Nothing is allowed on the strength of what was taken back before the answer (D3).
        while decision.outcome == Outcome::AllowByException {
            let before = newer.as_deref().unwrap_or(loaded);
            let Some(after) = self.removed_since(before) else {
                break;
            };
            for exception in decision.relied_on() {
                self.uses.give_back(exception);
            }
            (decision, spent) = self.settle(question, &after.snapshot, after.at(arrived));
            newer = Some(after);
        }
        let number = self.recent.number();
        Decided {
            decision,
            id: decision_id(arrived.now, number, self.salt),
            spent,
            newer,
            number,
        }
    }

    /// What is published now, if more is taken back in it than in `loaded`.
    fn removed_since(&self, loaded: &Loaded) -> Option<Arc<Loaded>> {
        let now = self.snapshot.load();
        let removed = now.as_ref()?.snapshot.removed();
        (!Arc::ptr_eq(removed, loaded.snapshot.removed())).then(|| self.snapshot.get())?
    }

    /// Counts and keeps a decision whose answer is ready, with its `request` as it was sent; tells
    /// when that was, by elapsed time.
    pub(super) fn record(
        &self,
        decided: &Decided,
        subject: &SubjectId,
        request: &[u8],
        loaded: &Loaded,
        arrived: Instant,
    ) -> Span {
        let ended = self.clock.elapsed();
        let took = ended.saturating_sub(arrived.elapsed);
        self.metrics.decided(&decided.decision, took);
        let from = (&loaded.snapshot, &*decided.spent);
        self.recent.keep(decided.number, |kept| {
            kept.rewrite(decided.id, subject, request, from, arrived.now, took);
        });
        if request.len() > SMALL {
            for number in self.large.add(decided.number, request.len()) {
                self.recent.keep(number, Kept::forget);
            }
        }
        ended
    }

    /// The decision after every exception it rests on had a use left to count, and those that had
    /// none.
    fn settle(
        &self,
        question: &Question,
        snapshot: &Arc<Snapshot>,
        at: Instant,
    ) -> (Decision, Vec<ExceptionId>) {
        let mut exhausted = Vec::new();
        loop {
            let decision = decide(question, &spending(snapshot, &exhausted), at.now);
            if decision.outcome != Outcome::AllowByException {
                return (decision, exhausted);
            }
            let mut taken = Vec::new();
            let spent = decision.relied_on().find(|exception| {
                let counted = self.uses.take(exception, at.elapsed);
                if counted {
                    taken.push(Arc::clone(exception));
                }
                !counted
            });
            let Some(spent) = spent else {
                return (decision, exhausted);
            };
            for exception in &taken {
                self.uses.give_back(exception);
            }
            exhausted.push(spent.id.clone());
        }
    }

    /// The record of a decision, if it is among the last.
    pub(super) fn find(&self, id: Uuid) -> Option<Record> {
        let record = self.recent.read(number_of(id), Kept::recall)?;
        record.filter(|record| record.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_take_a_bounded_number_of_bytes() {
        let large = Large::default();
        let half = LARGE / 2;
        assert_eq!(large.add(1, half), Vec::<u64>::new());
        assert_eq!(large.add(2, half), Vec::<u64>::new());
        assert_eq!(large.add(3, 10), vec![1], "the oldest goes");
        assert_eq!(large.add(4, LARGE), vec![2, 3]);
    }
}
