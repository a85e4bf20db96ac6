//! What is told of exceptions beside their records: how often each was used, and how often it may
//! be yet.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
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
    /// Counts `uses` more; how many there are by now.
    pub(super) fn add(&self, exception: &ExceptionId, uses: u64) -> u64 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get_mut(exception) {
            *count = count.saturating_add(uses);
            return *count;
        }
        known.insert(exception.clone(), uses);
        uses
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
                },
            );
        }
    }
}
