//! How often exceptions with a limit may still be used: counted here, where nobody else counts, or
//! reserved at the registry before they are used.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::domain::{Exception, ExceptionId, Span, Timestamp, UsageLimits};

use super::file::Spent;

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

    /// How often an exception may be used yet, as far as is known here; nothing without a limit.
    pub(in crate::sidecar) fn remaining(&self, exception: &Exception) -> Option<u64> {
        let most = exception.usage_limits.max_uses?;
        match self {
            Self::Here(counts) if !counts.is_known() => None,
            Self::Here(counts) => Some(most.saturating_sub(counts.total(&exception.id))),
            Self::Reserved(purse) => purse.remaining(&exception.id),
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

/// Counts of uses, by exception. Until it is known what was used before, none is left.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Counts {
    known: AtomicBool,
    counts: Mutex<HashMap<ExceptionId, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    total: u64,
    /// When, by elapsed time, and how many.
    lately: VecDeque<(Span, u64)>,
}

impl Counts {
    fn known(&self) -> MutexGuard<'_, HashMap<ExceptionId, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is known what was used before.
    pub(in crate::sidecar) fn is_known(&self) -> bool {
        self.known.load(Ordering::SeqCst)
    }

    /// Goes on from what was `spent` before.
    pub(in crate::sidecar) fn know(&self, spent: Spent, now: Timestamp, elapsed: Span) {
        let ago = |time: Timestamp| Span::from_micros((now - time).micros().max(0));
        let count = |used: Vec<(Timestamp, u64)>| Count {
            total: used.iter().map(|(_, uses)| uses).sum(),
            lately: used
                .into_iter()
                .filter(|(time, _)| ago(*time) < HOUR)
                .map(|(time, uses)| {
                    let at = elapsed.micros().saturating_sub(ago(time).micros());
                    (Span::from_micros(at), uses)
                })
                .collect(),
        };
        let mut counts = self.known();
        if !self.known.swap(true, Ordering::SeqCst) {
            *counts = spent
                .into_iter()
                .map(|(id, used)| (id, count(used)))
                .collect();
        }
    }

    fn take(&self, exception: &Exception, now: Span) -> Take {
        if !self.is_known() {
            return Take::Spent;
        }
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

    fn total(&self, exception: &ExceptionId) -> u64 {
        self.known().get(exception).map_or(0, |count| count.total)
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
    /// How many the registry had left beside these, when it was last asked.
    beside: Option<u64>,
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

    /// What is left here, and what the registry had left when it was last asked.
    fn remaining(&self, exception: &ExceptionId) -> Option<u64> {
        let slices = self.slices();
        let slice = slices.get(exception)?;
        Some(slice.left.saturating_add(slice.beside?))
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
        (uses, beside): (u64, Option<u64>),
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
        slice.beside = beside;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::reserving::{HOLDS, Reserved, granted},
        testing,
    };

    /// Numbers that a seed repeats.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % sides
        }
    }

    /// What a registry keeps of reservations.
    #[derive(Default)]
    struct Kept(HashMap<ReservationId, (u64, u64, i64)>);

    impl Kept {
        fn answer(&mut self, limits: UsageLimits, asked: &Asking, share: u64, now: i64) -> u64 {
            for (id, unused) in &asked.over {
                if let Some((uses, returned, _)) = self.0.get_mut(id)
                    && *returned == 0
                {
                    *returned = (*unused).min(*uses);
                }
            }
            if let Some((uses, ..)) = self.0.get(&asked.id) {
                return *uses;
            }
            let since = Reserved::window(Timestamp::from_micros(now)).micros();
            let sum = |from: i64| {
                let of = self.0.values().filter(move |(.., time)| *time > from);
                of.map(|(uses, returned, _)| uses - returned).sum()
            };
            let reserved = Reserved {
                total: sum(i64::MIN),
                lately: sum(since),
            };
            let uses = granted(limits, reserved, asked.uses, share);
            if uses > 0 {
                self.0.insert(asked.id, (uses, 0, now));
            }
            uses
        }
    }

    /// A10: whatever answers are lost, late or told twice, whoever starts anew, and whenever uses are
    /// given back, all together never use it oftener than it may be used, in all and in any hour.
    #[test]
    fn a10_all_sidecars_together_never_exceed_a_limit() {
        let mut denied = 0;
        for seed in 1..=2_000_u64 {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let mut exception = testing::exception("EX-1", &["CT-1"], "agent");
            exception.usage_limits = UsageLimits {
                max_uses: (dice.roll(3) > 0).then(|| 1 + dice.roll(60)),
                max_uses_per_hour: (dice.roll(2) > 0).then(|| 1 + dice.roll(20) as u32),
            };
            let limits = exception.usage_limits;
            let mut kept = Kept::default();
            let mut purses: Vec<Purse> = (0..3).map(|_| Purse::default()).collect();
            let (mut used, mut late) = (Vec::new(), Vec::new());
            let mut now = 0_i64;
            for step in 0..400_u64 {
                now += i64::try_from(dice.roll(240)).unwrap() * 1_000_000;
                let elapsed = Span::from_micros(now);
                let at = dice.roll(3) as usize;
                if dice.roll(40) == 0 {
                    // It is killed: what it had is gone.
                    purses[at] = Purse::default();
                }
                if let Some((of, asked, uses)) = late.pop()
                    && dice.roll(3) > 0
                {
                    // An answer that was on its way all the while, if anybody still waits for it.
                    let purse: &Purse = &purses[of];
                    purse.answered(&exception.id, &asked, (uses, None), HOLDS, elapsed);
                }
                let purse = &purses[at];
                match purse.take(&exception, elapsed) {
                    Take::Counted if dice.roll(10) == 0 => purse.give_back(&exception, elapsed),
                    Take::Counted => used.push(now),
                    Take::Spent => denied += 1,
                    Take::Wanted => {
                        let mut id = [0; 16];
                        id[..8].copy_from_slice(&step.to_be_bytes());
                        id[8] = at as u8;
                        let Some(asked) = purse.ask(&exception.id, elapsed, id) else {
                            continue;
                        };
                        let share = 1 + dice.roll(8);
                        let uses = kept.answer(limits, &asked, share, now);
                        match dice.roll(4) {
                            // Lost: it is asked for again under the same id.
                            0 => {}
                            1 => late.push((at, asked, uses)),
                            _ => {
                                purse.answered(&exception.id, &asked, (uses, None), HOLDS, elapsed)
                            }
                        }
                    }
                }
            }
            if let Some(most) = limits.max_uses {
                assert!(
                    used.len() as u64 <= most,
                    "seed {seed}: {} of {most}",
                    used.len()
                );
            }
            if let Some(most) = limits.max_uses_per_hour {
                for (place, time) in used.iter().enumerate() {
                    let hour = |other: &&i64| **other < time + 3_600_000_000;
                    let within = used[place..].iter().take_while(hour).count();
                    assert!(
                        within as u64 <= u64::from(most),
                        "seed {seed}: {within} of {most}"
                    );
                }
            }
        }
        assert!(denied > 1_000, "the limits were met: {denied}");
    }
}
