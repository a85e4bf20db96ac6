//! What the connections to the registry share. Each goes on whatever becomes of the others (S14).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Registry,
    domain::Name,
    engine::{
        attendance::Start,
        follow::{Refused, Resync},
    },
    sidecar::{
        access::Access,
        evidence::{Purse, Spool},
    },
    wire::{jwt::Keys, signed::random, sync::kind_message, v1},
};

use super::{
    demand::{Demand, Wanted},
    intake::{Nacks, Wrong},
    keeper::{DISTRUST, Keeper},
    link::{Client, connect},
    report::Sightings,
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
    /// This start, and those before it that are over.
    pub(super) boot: Start,
    pub(super) over: Vec<Start>,
    /// The registry greets and its epoch is known: everything can be asked for.
    pub(super) entered: Notify,
    /// The registry is to be greeted again.
    pub(super) again: Notify,
    /// What could not be taken in, so that the registry's people hear of it at every greeting.
    pub(super) complaints: Complaints,
    /// Over which fetches go while the registry is watched.
    pub(super) bulk: Mutex<Option<Client>>,
    /// Where access is asked for.
    pub(in crate::sidecar) access: Access,
    /// What callers ask about that is not here.
    pub(in crate::sidecar) demand: Demand,
    /// What callers saw.
    pub(in crate::sidecar) sightings: Sightings,
    /// What became of exceptions; nothing in a simulation.
    pub(super) spool: Option<Arc<Spool>>,
    /// Uses that are set aside for this sidecar.
    pub(in crate::sidecar) purse: Arc<Purse>,
    /// One reservation at a time.
    pub(super) reserving: tokio::sync::Mutex<()>,
}

/// A part of a time, at random.
fn some_of(most: Duration) -> Duration {
    let dice = random::<4>().map_or(0, u32::from_be_bytes);
    most.mul_f64(f64::from(dice) / f64::from(u32::MAX))
}

/// Between half of a time and all of it, at random.
pub(super) fn half_or_more(most: Duration) -> Duration {
    let half = most / 2;
    half + some_of(half)
}

/// Most complaints that are kept.
const COMPLAINTS: usize = 256;

/// What could not be taken in, by kind and id.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    known: Mutex<BTreeMap<(i32, String), v1::Nack>>,
    pub(super) news: Notify,
}

impl Complaints {
    pub(super) fn known(&self) -> MutexGuard<'_, BTreeMap<(i32, String), v1::Nack>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that fetches may use.
#[derive(Debug)]
pub(super) struct Loan<'a>(&'a Following);

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let Self(Following { bulk, .. }) = self;
        *bulk.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
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
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sleep(some_of(most)) => {}
        }
        self.next = self.next.saturating_mul(2).min(LATE);
    }

    /// The same, unless another connection hears of the registry first.
    pub(super) async fn wait_or_hear(&mut self, heard: &Notify, stop: &CancellationToken) {
        let heard = tokio::select! {
            biased;
            () = self.wait(stop) => false,
            () = heard.notified() => true,
        };
        if heard {
            self.next = SOON;
        }
    }

    /// It worked: the registry says over how long many are to spread.
    pub(super) fn worked(&mut self, spread: Duration) {
        (self.next, self.spread) = (SOON, spread.min(LATE));
    }
}

impl Following {
    /// Follows with what `keeper` holds; what is to be fetched comes out of the receiver.
    pub(in crate::sidecar) fn new(
        registry: Registry,
        keeper: Arc<Keeper>,
        spool: Option<Arc<Spool>>,
    ) -> Result<(Self, mpsc::Receiver<Wanted>), String> {
        let (demand, wanted) = Demand::new(registry.entity_cache, keeper.clock.clone());
        let boot = random()?;
        let (over, fault) = keeper.disk.begin(&boot);
        if let Some(fault) = fault {
            keeper.damaged("starts", &fault);
        }
        let following = Self {
            registry,
            keeper,
            boot,
            over,
            entered: Notify::new(),
            again: Notify::new(),
            complaints: Complaints::default(),
            bulk: Mutex::default(),
            access: Access::new()?,
            demand,
            sightings: Sightings::default(),
            spool,
            purse: Arc::default(),
            reserving: tokio::sync::Mutex::default(),
        };
        Ok((following, wanted))
    }

    /// Lends a connection to fetches, for as long as the loan is kept.
    pub(super) fn lend(&self, client: Client) -> Loan<'_> {
        *self.bulk.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
        Loan(self)
    }

    /// What the registry signs with now.
    pub(in crate::sidecar) fn keys(&self) -> Keys {
        Keys::of(&self.keeper.trust().live().pins())
    }

    /// What the registry knows this start by.
    pub(in crate::sidecar) fn start(&self) -> u64 {
        let start = self.boot.first_chunk().copied();
        u64::from_be_bytes(start.unwrap_or_default())
    }

    /// The connection that is lent, if one is.
    pub(super) fn lent(&self) -> Option<Client> {
        let bulk = self.bulk.lock().unwrap_or_else(PoisonError::into_inner);
        bulk.clone()
    }

    pub(super) fn refused(&self, refused: Refused) -> String {
        self.keeper.metrics.refused(refused.name());
        if refused == Refused::Forked {
            tracing::error!("{DISTRUST}");
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
            Wrong::Invalid(_) | Wrong::Chunk | Wrong::Sum | Wrong::Answer => {
                self.keeper.metrics.refused("unreadable");
                wrong.to_string()
            }
        }
    }

    /// Says what could not be taken in, here and to the registry.
    pub(super) fn complain(&self, nacks: Nacks) {
        if nacks.is_empty() {
            return;
        }
        let mut known = self.complaints.known();
        for nack in nacks {
            tracing::error!(
                id = nack.id,
                reason = nack.reason,
                "an object cannot be taken in; it grants nothing"
            );
            // Enough for people to see what is wrong.
            if known.len() < COMPLAINTS {
                known.insert((nack.kind, nack.id.clone()), nack);
            }
        }
        drop(known);
        self.complaints.news.notify_one();
    }

    /// Objects that came anew: what was wrong with them before is no matter.
    pub(super) fn settled(&self, names: Vec<Name>) {
        let mut known = self.complaints.known();
        if !known.is_empty() {
            for name in names {
                known.remove(&(kind_message(name.kind), name.id.to_string()));
            }
        }
    }

    /// Everything came anew.
    pub(super) fn all_settled(&self) {
        self.complaints.known().clear();
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

impl Following {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Client, String> {
        connect(&self.registry, &self.boot).await
    }
}

/// What a call was answered, for the log.
pub(super) fn told(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn y1_who_hears_that_the_registry_is_there_again_waits_no_longer() {
        let (stop, heard) = (CancellationToken::new(), Notify::new());
        let mut backoff = Backoff::new();
        for _ in 0..8 {
            backoff.wait(&stop).await;
        }
        assert_eq!(backoff.next, LATE);
        heard.notify_one();
        let began = tokio::time::Instant::now();
        backoff.wait_or_hear(&heard, &stop).await;
        assert_eq!((began.elapsed(), backoff.next), (Duration::ZERO, SOON));
        // What was heard counts once: a registry that greets and is not watched is asked seldom.
        for _ in 0..8 {
            backoff.wait_or_hear(&heard, &stop).await;
        }
        assert_eq!(backoff.next, LATE);
        assert!(began.elapsed() > Duration::ZERO);
    }
}
