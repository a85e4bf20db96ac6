//! What the connections to the registry share. Each goes on whatever becomes of the others (S14).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Registry,
    engine::follow::{Refused, Resync},
    wire::{signed::random, v1},
};

use super::{
    intake::{Nacks, Wrong},
    keeper::Keeper,
};

/// How long a chunk or the next message of a snapshot may take (reliability §4.6).
pub(super) const SLOW: Duration = Duration::from_secs(10);
/// How long to wait before the first new attempt, and at most.
pub(super) const SOON: Duration = Duration::from_millis(100);
pub(super) const LATE: Duration = Duration::from_secs(10);

/// Follows a registry.
#[derive(Debug)]
pub(in crate::sidecar) struct Following {
    pub(super) registry: Registry,
    pub(super) keeper: Arc<Keeper>,
    pub(super) boot: [u8; 16],
    /// The epoch is known: everything can be asked for.
    pub(super) entered: Notify,
    pub(super) nacks: (
        mpsc::Sender<v1::Nack>,
        tokio::sync::Mutex<mpsc::Receiver<v1::Nack>>,
    ),
}

/// How long to wait before connecting again: longer each time, and never all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    spread: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self {
            next: SOON,
            spread: SOON,
        }
    }

    pub(super) async fn wait(&mut self, stop: &CancellationToken) {
        let most = self.next.max(self.spread);
        let dice = random::<4>().map_or(0, u32::from_be_bytes);
        let part = f64::from(dice) / f64::from(u32::MAX);
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(most.mul_f64(part)) => {}
        }
        self.next = self.next.saturating_mul(2).min(LATE);
    }

    /// It worked: the registry says over how long many are to spread.
    pub(super) fn worked(&mut self, spread: Duration) {
        (self.next, self.spread) = (SOON, spread.min(LATE));
    }
}

impl Following {
    pub(in crate::sidecar) fn new(registry: Registry, keeper: Arc<Keeper>) -> Result<Self, String> {
        let (sender, receiver) = mpsc::channel(256);
        Ok(Self {
            registry,
            keeper,
            boot: random()?,
            entered: Notify::new(),
            nacks: (sender, tokio::sync::Mutex::new(receiver)),
        })
    }

    pub(super) fn refused(&self, refused: Refused) -> String {
        self.keeper.metrics.refused(refused.name());
        if refused == Refused::Forked {
            tracing::error!(
                "DISTRUST: the registry has told two histories; no exception is honoured until an operator looks at it and starts this sidecar anew"
            );
        }
        format!("the registry is not believed: {}", refused.name())
    }

    pub(super) fn untrusted(&self, error: &crate::wire::signed::Untrusted) -> String {
        self.keeper.metrics.refused("signature");
        tracing::error!(%error, "the registry is not believed; compliant calls go on from what was last known");
        error.to_string()
    }

    pub(super) fn wrong(&self, wrong: &Wrong) -> String {
        match wrong {
            Wrong::Untrusted(error) => self.untrusted(error),
            Wrong::Invalid(_) | Wrong::Chunk | Wrong::Sum => {
                self.keeper.metrics.refused("unreadable");
                wrong.to_string()
            }
        }
    }

    pub(super) fn complain(&self, nacks: Nacks) {
        for nack in nacks {
            tracing::error!(
                id = nack.id,
                reason = nack.reason,
                "an object cannot be taken in; it grants nothing"
            );
            // A full queue holds enough for people to see what is wrong.
            let _ = self.nacks.0.try_send(nack);
        }
    }

    pub(super) fn resync(&self, resync: Resync) -> String {
        self.keeper.metrics.resync(resync.name());
        format!("everything is fetched anew: {}", resync.name())
    }

    pub(super) fn unkept(&self, fault: &super::disk::Fault) -> String {
        self.keeper.metrics.disk_fault(fault.what);
        self.keeper.disk.discard();
        tracing::error!(%fault, "a change cannot be kept, so it is not put in force; what was last known goes on");
        format!("a change cannot be kept: {fault}")
    }
}

/// What a call was answered, for the log.
pub(super) fn told(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
