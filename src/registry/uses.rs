//! How exceptions were used lately, in memory: what findings, triggers and reports go by.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    domain::{SpoolId, Timestamp, UsageKind},
    engine::usage::{Figures, Standing},
};

use super::store::UsageRow;

const DAY: i64 = 86_400_000_000;
/// Attempts beyond the scope that are remembered by the instant: no limit is larger.
const ATTEMPTS: usize = 256;

/// What is known of uses.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Whether anything is: a registry without usage records tells of none.
    counts: AtomicBool,
    recent: Mutex<HashMap<Box<str>, Recent>>,
    told: Mutex<HashMap<(Box<str>, SpoolId), Told>>,
    /// Gaps that may hide uses of an exception: how many, and when the last was seen.
    gaps: Mutex<HashMap<Box<str>, (u64, Timestamp)>>,
}

/// How one exception was used.
#[derive(Debug, Default)]
struct Recent {
    /// Answers that rest on it, by day.
    days: BTreeMap<i64, u64>,
    /// Questions it did not reach, latest last.
    attempts: VecDeque<Timestamp>,
    last: Option<Timestamp>,
    /// When it was last relied on where it does not hold.
    beyond: Option<Timestamp>,
    uses: u64,
    /// Whether it was asked about and not needed since it was last relied on.
    unneeded: bool,
}

/// What a sidecar says of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Records ever written to it.
    pub written: u64,
    /// The sidecar's start.
    pub start: u64,
    /// Allows that rest on an exception since then.
    pub allows: u64,
    /// Allows that rest on none, since then.
    pub passes: u64,
    /// When it said so.
    pub time: Timestamp,
    /// Since when there are more than have come.
    pub behind: Option<Timestamp>,
}

impl Uses {
    /// From now on everything that is recorded is counted here.
    pub(super) fn begin(&self) {
        self.counts.store(true, Ordering::SeqCst);
    }

    fn recent(&self) -> MutexGuard<'_, HashMap<Box<str>, Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What sidecars say of their spools.
    pub(super) fn told(&self) -> MutexGuard<'_, HashMap<(Box<str>, SpoolId), Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what came, at a time by the registry's clock.
    pub(super) fn count(&self, row: &UsageRow, came: Timestamp) {
        // At a revision that is not known nothing can be said: a restore may have lost it.
        if row.kind == Some(UsageKind::ReliedOn)
            && matches!(row.standing, Standing::Outside | Standing::Untimely)
        {
            let mut recent = self.recent();
            let known = recent.entry(row.exception.clone()).or_default();
            known.beyond = known.beyond.max(Some(came));
        }
        let relied = match (row.kind, row.standing) {
            (_, Standing::Foreign | Standing::Withdrawn | Standing::Unknown)
            | (Some(UsageKind::Ineffective) | None, _) => return,
            (Some(UsageKind::NotNeeded), _) => {
                let mut recent = self.recent();
                let known = recent.entry(row.exception.clone()).or_default();
                known.unneeded = true;
                return;
            }
            (Some(UsageKind::ReliedOn), _) => true,
            (Some(UsageKind::OutOfScope), _) => false,
            (Some(UsageKind::Withdrawn), _) => {
                if let Some(known) = self.recent().get_mut(&row.exception) {
                    known.uses = known.uses.saturating_sub(1);
                }
                return;
            }
        };
        let mut recent = self.recent();
        let known = recent.entry(row.exception.clone()).or_default();
        if relied {
            known.uses = known.uses.saturating_add(row.count);
            let day = known
                .days
                .entry(row.time.micros().div_euclid(DAY))
                .or_default();
            *day = day.saturating_add(row.count);
            known.last = known.last.max(Some(row.time));
            known.unneeded = false;
        } else {
            known.attempts.push_back(row.time);
            if known.attempts.len() > ATTEMPTS {
                known.attempts.pop_front();
            }
        }
    }

    /// Answers that allow and rest on no exception, since the starts of the sidecars that were heard.
    pub(super) fn allowed(&self) -> u64 {
        let told = self.told();
        let mut latest: HashMap<&str, &Told> = HashMap::new();
        for ((sidecar, _), told) in &*told {
            let known = latest.entry(sidecar).or_insert(told);
            if known.time < told.time {
                *known = told;
            }
        }
        let passes = latest.values().map(|told| told.passes);
        passes.fold(0, u64::saturating_add)
    }

    /// Notes which exceptions' uses gaps may hide.
    pub(super) fn hidden(&self, gaps: HashMap<Box<str>, (u64, Timestamp)>) {
        *self.gaps.lock().unwrap_or_else(PoisonError::into_inner) = gaps;
    }

    /// When an exception was last needed where it does not hold, `since` it holds.
    pub(super) fn tried(&self, exception: &str, since: Timestamp) -> Option<Timestamp> {
        let recent = self.recent();
        let last = recent.get(exception)?.attempts.back().copied();
        last.filter(|last| *last > since)
    }

    /// How an exception was used until `now`, and tried beyond its scope `since`; nothing where
    /// nobody counts.
    pub(super) fn of(
        &self,
        exception: &str,
        now: Timestamp,
        since: Option<Timestamp>,
    ) -> Option<Figures> {
        if !self.counts.load(Ordering::SeqCst) {
            return None;
        }
        let gaps = {
            let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
            gaps.get(exception).copied()
        };
        let figures = Figures {
            gaps: gaps.map_or(0, |(count, _)| count),
            gap: gaps.map(|(_, last)| last),
            ..Figures::default()
        };
        let today = now.micros().div_euclid(DAY);
        let mut recent = self.recent();
        let Some(known) = recent.get_mut(exception) else {
            return Some(figures);
        };
        known.days.retain(|day, _| *day > today.saturating_sub(31));
        let yesterday = Timestamp::from_micros(now.micros().saturating_sub(DAY));
        let after = since.map_or(yesterday, |since| since.max(yesterday));
        let attempts = known.attempts.iter().filter(|time| **time > after);
        Some(Figures {
            uses: known.uses,
            relied_on: known.days.values().sum(),
            out_of_scope: attempts.count() as u64,
            last: known.last,
            beyond: known.beyond,
            unneeded: known.unneeded,
            ..figures
        })
    }
}
