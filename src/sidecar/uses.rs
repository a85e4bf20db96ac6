//! How often exceptions with a limit were used, in this process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use crate::domain::{Exception, ExceptionId, Span};

/// Counts of uses, by exception.
#[derive(Debug, Default)]
pub(super) struct Uses {
    counts: Mutex<HashMap<ExceptionId, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    total: u64,
    last_hour: VecDeque<Span>,
}

impl Uses {
    /// Counts one use at `now` (elapsed time); false if there is none left to count.
    pub(super) fn take(&self, exception: &Exception, now: Span) -> bool {
        let limits = exception.usage_limits;
        if limits.max_uses.is_none() && limits.max_uses_per_hour.is_none() {
            return true;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(exception.id.clone()).or_default();
        let hour_ago = now.micros().saturating_sub(Span::from_hours(1).micros());
        while count
            .last_hour
            .front()
            .is_some_and(|use_| use_.micros() <= hour_ago)
        {
            count.last_hour.pop_front();
        }
        let spent = limits.max_uses.is_some_and(|most| count.total >= most)
            || limits
                .max_uses_per_hour
                .is_some_and(|most| count.last_hour.len() as u64 >= u64::from(most));
        if spent {
            return false;
        }
        count.total = count.total.saturating_add(1);
        if limits.max_uses_per_hour.is_some() {
            count.last_hour.push_back(now);
        }
        true
    }

    /// Gives back a use that was counted and then not relied on.
    pub(super) fn give_back(&self, exception: &Exception) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&exception.id) {
            count.total = count.total.saturating_sub(1);
            count.last_hour.pop_back();
        }
    }
}
