//! What is told of exceptions beside their records: how often each was used, and how often it may
//! be yet.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::{ExceptionId, Usage},
    engine::usage::scope_digest,
    telemetry::otlp::Used,
};

use super::decider::{Decided, Decider};

/// Answers that rest on each exception, since the start.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<HashMap<ExceptionId, u64>>);

impl Tally {
    fn known(&self) -> MutexGuard<'_, HashMap<ExceptionId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more.
    pub(super) fn add(&self, exception: &ExceptionId) {
        let mut known = self.known();
        match known.get_mut(exception) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(known.insert(exception.clone(), 1)),
        }
    }

    /// How many there are.
    pub(super) fn of(&self, exception: &ExceptionId) -> u64 {
        self.known().get(exception).copied().unwrap_or(0)
    }
}

impl Decider {
    /// Tells whoever wants to know what became of exceptions in a decision.
    pub(super) fn export(&self, decided: &Decided, usages: &[Usage]) {
        let Some(exporter) = &self.exporter else {
            return;
        };
        for usage in usages {
            let considered = decided.decision.exceptions.iter();
            let exception = considered
                .map(|result| &result.exception)
                .find(|it| it.id == usage.exception && it.revision == usage.revision);
            exporter.usage(
                Some(decided.mark.number.get()),
                &Used {
                    usage,
                    scope: exception.map(|it| scope_digest(&it.scope)),
                    remaining: exception.and_then(|it| self.limits.remaining(it)),
                    expires: exception.map(|it| it.expire_time),
                },
            );
        }
    }
}
