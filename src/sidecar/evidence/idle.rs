//! Exceptions that stood ready and were not needed: counted, and told of once in a while.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::{Exception, ExceptionId, Timestamp, Usage};

/// How often each was not needed since it was last told.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Idle(Mutex<HashMap<ExceptionId, Usage>>);

impl Idle {
    fn known(&self) -> MutexGuard<'_, HashMap<ExceptionId, Usage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts once more; false if nothing was counted of it yet.
    pub(in crate::sidecar) fn count(&self, exception: &Exception, now: Timestamp) -> bool {
        let mut known = self.known();
        let Some(usage) = known.get_mut(&exception.id) else {
            return false;
        };
        usage.count = usage.count.saturating_add(1);
        usage.time = usage.time.max(now);
        usage.revision = usage.revision.max(exception.revision);
        true
    }

    /// Begins to count; what is counted already stays as it is.
    pub(in crate::sidecar) fn begin(&self, usage: Usage) {
        self.known().entry(usage.exception.clone()).or_insert(usage);
    }

    /// Everything counted, to be told.
    pub(in crate::sidecar) fn take(&self) -> Vec<Usage> {
        std::mem::take(&mut *self.known()).into_values().collect()
    }
}
