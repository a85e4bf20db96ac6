//! How long it takes until nobody can honour what was taken back: every sidecar has acknowledged it,
//! or its lease is over.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::domain::{Act, Removal, Span};

use super::core::Registry;

/// Removals whose time is remembered, and most that are waited for.
const LATEST: usize = 1_000;
/// How often it is looked while one is young, and at the most.
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_secs(1);

/// What was taken back since the start.
#[derive(Debug, Default)]
pub(super) struct Completions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: VecDeque<Arc<Removal>>,
    took: VecDeque<Span>,
}

impl Completions {
    /// How many are waited for, and how long the latest of the others took.
    pub(super) fn told(&self) -> (usize, Vec<Span>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.open.len(), inner.took.iter().copied().collect())
    }

    /// Waits for what was taken back after `seen`; tells the last of it.
    fn begin(&self, registry: &Registry, seen: u64) -> u64 {
        let view = registry.view();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = view.removals.iter().rev();
        let new: Vec<_> = new
            .take_while(|removal| removal.sequence > seen)
            .take(LATEST)
            .filter(|removal| removal.act != Act::Thaw)
            .cloned()
            .collect();
        inner.open.extend(new.into_iter().rev());
        let beyond = inner.open.len().saturating_sub(LATEST);
        inner.open.drain(..beyond);
        view.head.sequence
    }

    /// Notes what is over by now; tells how old the youngest is that is not.
    fn look(&self, registry: &Registry) -> Option<Span> {
        let open: Vec<_> = {
            let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            inner.open.iter().cloned().collect()
        };
        let over: Vec<_> = open
            .iter()
            .filter(|removal| registry.is_over(removal))
            .map(|removal| removal.sequence)
            .collect();
        let now = registry.clock.now().latest;
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { open, took } = &mut *inner;
        open.retain(|removal| {
            let done = over.binary_search(&removal.sequence).is_ok();
            if done {
                took.push_back(now.max(removal.time) - removal.time);
            }
            !done
        });
        let beyond = took.len().saturating_sub(LATEST);
        took.drain(..beyond);
        let last = open.back()?;
        Some(now.max(last.time) - last.time)
    }
}

/// Notes, until stopped, how long what is taken back takes: within a tenth of it, or ten milliseconds.
pub(super) async fn completions(
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut changes = registry.changes_later();
    let mut seen = registry.view().head.sequence;
    loop {
        let completions = &registry.completions;
        seen = completions.begin(&registry, seen);
        let pause = completions.look(&registry).map(|age| {
            let age = Duration::from_micros(age.micros().unsigned_abs());
            (age / 10).clamp(OFTEN, SELDOM)
        });
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = changes.changed() => {}
            () = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}
