//! The five steps every surface takes: load, decide, count uses, record, hand out.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use uuid::Uuid;

use crate::{
    domain::{Decision, ExceptionId, Outcome, Question, Span},
    engine::{Snapshot, decide},
    runtime::{
        clock::{Clock, Instant},
        publish::Published,
        ring::Ring,
    },
    telemetry::Metrics,
};

use super::{
    record::{Kept, Record, decision_id, number_of, spending},
    uses::Uses,
};

/// Decisions kept for Explain.
const KEPT: usize = 10_000;
/// Snapshots kept behind the one in force.
const EARLIER: usize = 4;

/// Decides from the published snapshot.
#[derive(Debug)]
pub(super) struct Decider {
    pub(super) snapshot: Arc<Published<Loaded>>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) recent: Ring<Kept>,
    uses: Uses,
    salt: u64,
}

/// A snapshot and since when, by elapsed time, it is known to be current.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) confirmed: Span,
    /// The few before it, so that recent decisions can still be explained.
    pub(super) earlier: Vec<Arc<Snapshot>>,
}

impl Loaded {
    /// `snapshot` in succession to `before`.
    pub(super) fn after(before: Option<&Self>, snapshot: Arc<Snapshot>, confirmed: Span) -> Self {
        let known = before
            .into_iter()
            .flat_map(|before| [&before.snapshot].into_iter().chain(&before.earlier));
        let earlier = known
            .filter(|earlier| !Arc::ptr_eq(earlier, &snapshot))
            .take(EARLIER)
            .cloned()
            .collect();
        Self {
            snapshot,
            confirmed,
            earlier,
        }
    }
}

/// A decision as it was recorded.
pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) id: Uuid,
    /// Exceptions taken for used up; there were none left to count.
    pub(super) spent: Vec<ExceptionId>,
    /// How old the snapshot was.
    pub(super) age: Span,
    /// Elapsed time when it was done.
    pub(super) ended: Span,
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
            uses: Uses::default(),
            salt,
        }
    }

    /// Decides `question`, which arrived at `arrived` in the form of `request`.
    pub(super) fn decide(
        &self,
        question: &Question,
        request: &[u8],
        loaded: &Loaded,
        arrived: Instant,
    ) -> Decided {
        let now = arrived.now;
        let (decision, spent) = self.settle(question, &loaded.snapshot, arrived);
        let ended = self.clock.elapsed();
        let took = ended.saturating_sub(arrived.elapsed);
        self.metrics.decided(&decision, took);
        let number = self.recent.number();
        let id = decision_id(now, number, self.salt);
        let from = (&loaded.snapshot, &*spent);
        self.recent.keep(number, |kept| {
            kept.rewrite(id, &question.subject, request, from, now, took);
        });
        Decided {
            decision,
            id,
            spent,
            age: ended.saturating_sub(loaded.confirmed),
            ended,
        }
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
