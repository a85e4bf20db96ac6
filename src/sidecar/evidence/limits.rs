//! How often exceptions with a limit may still be used: counted here, where nobody else counts, or
//! reserved at the registry before they are used.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::{Exception, ExceptionId, Span, Timestamp, UsageLimits};

const HOUR: Span = Span::from_hours(1);
/// How long nobody asks again for uses that were not to be had.
const REFUSED: Span = Span::from_secs(1);
/// Uses that are reserved at first, and at the most.
const FIRST: u64 = 100;
const MOST: u64 = 1_000;

/// What became of a use that was to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Take {
    /// It is counted.
    Counted,
    /// There is none left.
    Spent,
    /// None is reserved; one may be.
    Wanted,
}

/// Who counts.
#[derive(Debug)]
pub(in crate::sidecar) enum Limits {
    /// This sidecar alone.
    Here(Counts),
    /// The registry, for all sidecars together (A10).
    Reserved(Arc<Purse>),
}

impl Limits {
    /// This sidecar counts, from what it has `spent` before.
    pub(in crate::sidecar) fn here(
        spent: HashMap<ExceptionId, Vec<(Timestamp, u64)>>,
        now: Timestamp,
        elapsed: Span,
    ) -> Self {
        let ago = |time: Timestamp| Span::from_micros((now - time).micros().max(0));
        let count = |used: Vec<(Timestamp, u64)>| Count {
            total: used.iter().map(|(_, uses)| uses).sum(),
            lately: used
                .into_iter()
                .filter(|(time, _)| ago(*time) < HOUR)
                .map(|(time, uses)| (elapsed.saturating_sub(ago(time)), uses))
                .collect(),
        };
        let spent = spent.into_iter().map(|(id, used)| (id, count(used)));
        Self::Here(Counts(Mutex::new(spent.collect())))
    }

    /// Counts one use at `now` (elapsed time).
    pub(in crate::sidecar) fn take(&self, exception: &Exception, now: Span) -> Take {
        if exception.usage_limits == UsageLimits::default() {
            return Take::Counted;
        }
        match self {
            Self::Here(counts) => counts.take(exception, now),
            Self::Reserved(purse) => purse.take(exception, now),
        }
    }

    /// Gives back a use that was counted and that nothing was recorded of.
    pub(in crate::sidecar) fn give_back(&self, exception: &Exception, now: Span) {
        if exception.usage_limits != UsageLimits::default() {
            match self {
                Self::Here(counts) => counts.give_back(exception),
                Self::Reserved(purse) => purse.give_back(exception, now),
            }
        }
    }
}

/// Counts of uses, by exception.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Counts(Mutex<HashMap<ExceptionId, Count>>);

#[derive(Debug, Default)]
struct Count {
    total: u64,
    /// When, by elapsed time, and how many.
    lately: VecDeque<(Span, u64)>,
}

impl Counts {
    fn known(&self) -> MutexGuard<'_, HashMap<ExceptionId, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, exception: &Exception, now: Span) -> Take {
        let limits = exception.usage_limits;
        let mut counts = self.known();
        let count = counts.entry(exception.id.clone()).or_default();
        let over = |(time, _): &(Span, u64)| now.saturating_sub(*time) >= HOUR;
        while count.lately.front().is_some_and(over) {
            count.lately.pop_front();
        }
        let lately: u64 = count.lately.iter().map(|(_, uses)| uses).sum();
        let spent = limits.max_uses.is_some_and(|most| count.total >= most)
            || limits
                .max_uses_per_hour
                .is_some_and(|most| lately >= u64::from(most));
        if spent {
            return Take::Spent;
        }
        count.total = count.total.saturating_add(1);
        if limits.max_uses_per_hour.is_some() {
            match count.lately.back_mut() {
                Some((time, uses)) if *time == now => *uses = uses.saturating_add(1),
                Some(_) | None => count.lately.push_back((now, 1)),
            }
        }
        Take::Counted
    }

    fn give_back(&self, exception: &Exception) {
        if let Some(count) = self.known().get_mut(&exception.id) {
            count.total = count.total.saturating_sub(1);
            if let Some((_, uses)) = count.lately.back_mut() {
                *uses = uses.saturating_sub(1);
            }
        }
    }
}

/// A reservation's id.
pub(in crate::sidecar) type ReservationId = [u8; 16];

/// Uses that the registry has set aside for this sidecar. They are in memory alone: with the
/// process goes what it had left, and nobody uses it a second time.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Purse(Mutex<HashMap<ExceptionId, Slice>>);

#[derive(Clone, Debug, Default)]
struct Slice {
    id: Option<ReservationId>,
    left: u64,
    /// By elapsed time.
    until: Span,
    /// How many to ask for next.
    next: u64,
    /// Asked for, and not answered yet: the same is asked for again.
    asking: Option<Asking>,
    /// None were to be had before this.
    refused_until: Span,
    /// Reservations whose time is over, and what is left of them.
    over: Vec<(ReservationId, u64)>,
}

/// What is asked of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) struct Asking {
    pub(in crate::sidecar) id: ReservationId,
    pub(in crate::sidecar) uses: u64,
    /// When it was first asked for, by elapsed time: it holds from then.
    pub(in crate::sidecar) since: Span,
    /// What goes back with it.
    pub(in crate::sidecar) over: Vec<(ReservationId, u64)>,
}

impl Slice {
    /// What is left of a reservation whose time is over goes back.
    fn settle(&mut self, now: Span) {
        if now >= self.until
            && let Some(id) = self.id.take()
        {
            let left = std::mem::take(&mut self.left);
            if left > 0 {
                self.over.push((id, left));
            }
            self.next = FIRST;
        }
    }
}

impl Purse {
    fn slices(&self) -> MutexGuard<'_, HashMap<ExceptionId, Slice>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, exception: &Exception, now: Span) -> Take {
        let mut slices = self.slices();
        let slice = slices.entry(exception.id.clone()).or_default();
        slice.settle(now);
        if slice.left > 0 {
            slice.left = slice.left.saturating_sub(1);
            Take::Counted
        } else if now < slice.refused_until {
            Take::Spent
        } else {
            Take::Wanted
        }
    }

    fn give_back(&self, exception: &Exception, now: Span) {
        let mut slices = self.slices();
        if let Some(slice) = slices.get_mut(&exception.id) {
            slice.settle(now);
            // Of one that has gone back by now, this one is lost.
            if slice.id.is_some() {
                slice.left = slice.left.saturating_add(1);
            }
        }
    }

    /// What is to be asked for; nothing where there are uses by now. `id` names it if it is new.
    pub(in crate::sidecar) fn ask(
        &self,
        exception: &ExceptionId,
        now: Span,
        id: ReservationId,
    ) -> Option<Asking> {
        let mut slices = self.slices();
        let slice = slices.entry(exception.clone()).or_default();
        slice.settle(now);
        if slice.left > 0 || now < slice.refused_until {
            return None;
        }
        if slice.asking.is_none() {
            // One that is used up has nothing to give back.
            slice.id = None;
            slice.asking = Some(Asking {
                id,
                uses: slice.next.clamp(FIRST, MOST),
                since: now,
                over: Vec::new(),
            });
        }
        let over = slice.over.clone();
        slice.asking.clone().map(|asking| Asking { over, ..asking })
    }

    /// What the registry answered: so many, for so long from when they were first asked for.
    pub(in crate::sidecar) fn answered(
        &self,
        exception: &ExceptionId,
        asked: &Asking,
        uses: u64,
        valid: Span,
        now: Span,
    ) {
        let mut slices = self.slices();
        let Some(slice) = slices.get_mut(exception) else {
            return;
        };
        if slice
            .asking
            .as_ref()
            .is_none_or(|asking| asking.id != asked.id)
        {
            return;
        }
        slice.asking = None;
        slice.over.retain(|over| !asked.over.contains(over));
        slice.id = Some(asked.id);
        slice.left = uses.min(asked.uses);
        slice.until = Span::from_micros(asked.since.micros().saturating_add(valid.micros()));
        if uses == 0 {
            slice.refused_until = Span::from_micros(now.micros().saturating_add(REFUSED.micros()));
            slice.next = FIRST;
        } else {
            slice.next = asked.uses.saturating_mul(2).min(MOST);
        }
    }

    /// What is to go back although nobody asks for more.
    pub(in crate::sidecar) fn overdue(
        &self,
        now: Span,
    ) -> Vec<(ExceptionId, Vec<(ReservationId, u64)>)> {
        let mut slices = self.slices();
        let mut overdue = Vec::new();
        for (exception, slice) in slices.iter_mut() {
            slice.settle(now);
            if slice.asking.is_none() && !slice.over.is_empty() {
                overdue.push((exception.clone(), slice.over.clone()));
            }
        }
        overdue
    }

    /// The registry has taken it back.
    pub(in crate::sidecar) fn returned(
        &self,
        exception: &ExceptionId,
        gone: &[(ReservationId, u64)],
    ) {
        let mut slices = self.slices();
        if let Some(slice) = slices.get_mut(exception) {
            slice.over.retain(|over| !gone.contains(over));
            let idle = slice.id.is_none() && slice.asking.is_none() && slice.over.is_empty();
            if idle {
                slices.remove(exception);
            }
        }
    }
}
