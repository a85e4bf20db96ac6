//! Removals go first: what else has changed is told to sidecars once those are out.

use std::{mem::replace, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{authn::Guests, core::Registry};

/// Acknowledgements of one removal in a millisecond; nobody acknowledges in the first half of the
/// time that all take.
const ACKNOWLEDGEMENTS: usize = 10;

/// How long all take to acknowledge one removal.
pub(super) fn acknowledge_ms(guests: &Guests) -> u32 {
    u32::try_from(guests.sidecars() / ACKNOWLEDGEMENTS).unwrap_or(u32::MAX)
}

/// How long what is not a removal waits for one to go out to everybody: while nobody acknowledges
/// it. Nothing in a small fleet.
fn way(guests: &Guests) -> Duration {
    Duration::from_millis(u64::from(acknowledge_ms(guests).min(1_000) / 2))
}

/// Passes on, until stopped, what has changed. One waits in place of a thousand streams, each of
/// which would be woken twice.
pub(super) async fn make_way(
    registry: Arc<Registry>,
    guests: Arc<Guests>,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut changes = registry.changes();
    // Whatever came before this began.
    let mut sequence = 0;
    loop {
        let removed = registry.view().head.sequence;
        let wait = if replace(&mut sequence, removed) < removed {
            way(&guests)
        } else {
            Duration::ZERO
        };
        let next = async {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            registry.pass_on();
            changes.changed().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = next => {}
        }
    }
}
