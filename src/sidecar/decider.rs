//! The five steps every surface takes: load, decide, count uses, record, hand out.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use uuid::Uuid;

use crate::{
    domain::{Decision, Now, Outcome, Question, Span},
    engine::{Snapshot, decide},
    runtime::{clock::Clock, publish::Published, ring::Ring},
    telemetry::Metrics,
    wire::Fault,
};

use super::{
    record::{Kept, Record, decision_id, number_of},
    uses::Uses,
};

/// Decisions kept for Explain.
const KEPT: usize = 10_000;

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
}

/// A decision with what it was made from.
pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) record: Record,
    pub(super) age: Span,
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

    /// The snapshot a call decides from, to its end.
    pub(super) fn load(&self) -> Result<Arc<Loaded>, Fault> {
        self.snapshot.get().ok_or(Fault::NotReady)
    }

    /// Decides `question`, which arrived at `arrived` in the form of `request`.
    pub(super) fn decide(
        &self,
        question: Question,
        request: &[u8],
        loaded: &Loaded,
        arrived: Span,
    ) -> Decided {
        let now = self.clock.now();
        let (decision, snapshot) = self.settle(&question, &loaded.snapshot, now);
        let elapsed = self.clock.elapsed();
        let took = Span::from_micros(elapsed.micros().saturating_sub(arrived.micros()));
        let age = Span::from_micros(elapsed.micros().saturating_sub(loaded.confirmed.micros()));
        self.metrics.decided(&decision, took);
        let number = self.recent.number();
        let id = decision_id(now, number, self.salt);
        self.recent.keep(number, |kept| {
            kept.rewrite(id, &question.subject, request, &snapshot, now, took);
        });
        Decided {
            decision,
            record: Record {
                id,
                question,
                snapshot,
                now,
                took,
            },
            age,
        }
    }

    /// The decision after every exception it rests on had a use left to count.
    fn settle(
        &self,
        question: &Question,
        snapshot: &Arc<Snapshot>,
        now: Now,
    ) -> (Decision, Arc<Snapshot>) {
        let mut snapshot = Arc::clone(snapshot);
        loop {
            let decision = decide(question, &snapshot, now);
            if decision.outcome != Outcome::AllowByException {
                return (decision, snapshot);
            }
            let at = self.clock.elapsed();
            let mut taken = Vec::new();
            let spent = decision.relied_on().find(|exception| {
                let counted = self.uses.take(exception, at);
                if counted {
                    taken.push(Arc::clone(exception));
                }
                !counted
            });
            let Some(spent) = spent else {
                return (decision, snapshot);
            };
            for exception in &taken {
                self.uses.give_back(exception);
            }
            snapshot = Arc::new(snapshot.exhausting(&spent.id));
        }
    }

    /// The record of a decision, if it is among the last.
    pub(super) fn find(&self, id: Uuid) -> Option<Record> {
        let record = self.recent.read(number_of(id), Kept::recall)?;
        record.filter(|record| record.id == id)
    }
}
