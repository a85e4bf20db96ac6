//! How long it takes until nobody can honour what was taken back: every sidecar has acknowledged it,
//! or its lease is over.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::domain::{Act, Removal, Span};

use super::core::Registry;

/// Removals whose time is remembered, and most that are waited for.
const LATEST: usize = 1_000;
/// How soon and how seldom one is looked at.
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_secs(10);

/// What was taken back since the start.
#[derive(Debug, Default)]
pub(super) struct Completions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: VecDeque<Open>,
    took: VecDeque<Span>,
    untimed: u64,
}

/// One that somebody may still honour.
#[derive(Debug)]
struct Open {
    removal: Arc<Removal>,
    /// By the registry's elapsed time.
    began: Span,
    since: Instant,
    /// When it is looked at again: later and later, by a tenth of its age.
    next: Instant,
}

/// What there is to report.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// How many are waited for.
    pub open: usize,
    /// How many are not, because there are too many.
    pub untimed: u64,
    /// How long the latest of the others took.
    pub took: Vec<Span>,
}

impl Completions {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn told(&self) -> Told {
        let inner = self.inner();
        Told {
            open: inner.open.len(),
            untimed: inner.untimed,
            took: inner.took.iter().copied().collect(),
        }
    }

    /// Waits for what was taken back after `seen`; tells the last of it.
    fn begin(&self, registry: &Registry, seen: u64) -> u64 {
        let view = registry.view();
        let new = view.removals.iter().rev();
        let new: Vec<_> = new
            .take_while(|removal| removal.sequence > seen)
            .filter(|removal| removal.act != Act::Thaw)
            .cloned()
            .collect();
        let (began, since) = (registry.clock.elapsed(), Instant::now());
        let mut inner = self.inner();
        for removal in new.into_iter().rev() {
            if inner.open.len() >= LATEST {
                inner.untimed = inner.untimed.saturating_add(1);
                continue;
            }
            inner.open.push_back(Open {
                removal,
                began,
                since,
                next: since,
            });
        }
        view.head.sequence
    }

    /// Looks at those whose turn it is; tells when the next one's is.
    fn look(&self, registry: &Registry) -> Option<Instant> {
        let (now, elapsed) = (Instant::now(), registry.clock.elapsed());
        let due: Vec<_> = {
            let inner = self.inner();
            let due = inner.open.iter().filter(|open| open.next <= now);
            due.map(|open| Arc::clone(&open.removal)).collect()
        };
        // In the order of their sequence, as they are kept.
        let over = registry.over(&due);
        let mut inner = self.inner();
        let Inner { open, took, .. } = &mut *inner;
        open.retain_mut(|open| {
            if over.binary_search(&open.removal.sequence).is_ok() {
                took.push_back(elapsed.saturating_sub(open.began));
                return false;
            }
            if open.next <= now {
                let age = now.saturating_duration_since(open.since);
                open.next = now + (age / 10).clamp(OFTEN, SELDOM);
            }
            true
        });
        let beyond = took.len().saturating_sub(LATEST);
        took.drain(..beyond);
        open.iter().map(|open| open.next).min()
    }
}

/// Notes, until stopped, how long what is taken back takes: within a tenth of it, or ten milliseconds.
pub(super) async fn completions(
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut changes = registry.changes();
    let mut seen = registry.view().head.sequence;
    loop {
        let completions = &registry.completions;
        seen = completions.begin(&registry, seen);
        let next = completions.look(&registry);
        let turn = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = changes.changed() => {}
            () = turn => {}
        }
    }
}
