//! The two connections: attending for removals and heartbeats, watching for everything else.
//! Each goes on whatever becomes of the other (S14).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::{
    config::Registry,
    engine::follow::{Refused, Resync, Take},
    wire::{
        signed::{Purpose, random},
        sync::{beginning, era_message, head_message, heartbeat},
        v1::{self, attend_request, attend_response, watch_response},
    },
};

use super::{
    disk::Draft,
    intake::{Arriving, Delta, Nacks, Wrong},
    keeper::{Batch, Broken, Came, Keeper},
    link::connect,
};

/// Nonces that go unanswered before the connection is given up.
const MISSED: u32 = 3;
/// Nonces to the shortest lease, and the shortest time between two.
const LEASE_PINGS: u32 = 4;
const OFTEN: Duration = Duration::from_millis(100);
/// How long a chunk or the next message of a snapshot may take (reliability §4.6).
const SLOW: Duration = Duration::from_secs(10);
/// How long to wait before the first new attempt, and at most.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(10);
/// Chunks that may be wrong before the transfer begins again.
const WRONG: u32 = 3;

/// Follows a registry.
#[derive(Debug)]
pub(in crate::sidecar) struct Following {
    registry: Registry,
    keeper: Arc<Keeper>,
    boot: [u8; 16],
    /// The epoch is known: everything can be asked for.
    entered: Notify,
    nacks: (
        mpsc::Sender<v1::Nack>,
        tokio::sync::Mutex<mpsc::Receiver<v1::Nack>>,
    ),
}

/// How long to wait before connecting again: longer each time, and never all at once.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    spread: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self {
            next: SOON,
            spread: SOON,
        }
    }

    async fn wait(&mut self, stop: &CancellationToken) {
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
    fn worked(&mut self, spread: Duration) {
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

    /// Attends until told to stop.
    pub(in crate::sidecar) async fn attend(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let mut backoff = Backoff::new();
        let mut said = String::new();
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.attend_once(&mut backoff) => ended,
            };
            self.keeper.metrics.connected("attend", false);
            let why = ended
                .err()
                .unwrap_or_else(|| "the registry closed it".into());
            // Said once, not at every attempt.
            if why != said {
                tracing::warn!(registry = self.registry.address, why, "not attending");
                said = why;
            }
            backoff.wait(&stop).await;
        }
        Ok(())
    }

    async fn attend_once(&self, backoff: &mut Backoff) -> Result<(), String> {
        let mut client = connect(&self.registry).await?;
        let (up, outgoing) = mpsc::channel(16);
        let era = self.keeper.era();
        let hello = v1::Hello {
            boot_nonce: self.boot.to_vec(),
            era: era.map(era_message),
            held: Some(head_message(self.keeper.acknowledged())),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        send(&up, attend_request::Event::Hello(hello)).await?;
        let answer = timeout(SLOW, client.attend(ReceiverStream::new(outgoing)))
            .await
            .map_err(|_| "no answer".to_owned())?;
        let mut down = answer.map_err(|status| told(&status))?.into_inner();
        let Some(attend_response::Event::Welcome(welcome)) = next(&mut down, SLOW).await? else {
            return Err("the registry does not greet".into());
        };
        self.welcomed(&welcome, &up).await?;
        let ping = Duration::from_millis(u64::from(welcome.ping_ms.clamp(100, 60_000)));
        backoff.worked(Duration::from_millis(u64::from(welcome.jitter_ms)));
        self.keeper.metrics.connected("attend", true);
        tracing::info!(
            registry = self.registry.address,
            scope = welcome.scope,
            "attending"
        );
        let mut next_ping = Instant::now();
        let mut unanswered = 0_u32;
        let mut nacks = self.nacks.1.lock().await;
        loop {
            tokio::select! {
                biased;
                event = next(&mut down, LATE.saturating_mul(6)) => {
                    let Some(event) = event? else { return Ok(()) };
                    let heartbeat = matches!(event, attend_response::Event::Heartbeat(_));
                    self.hear(event).await?;
                    if heartbeat {
                        unanswered = 0;
                    } else {
                        // Whoever takes something back waits for this.
                        self.acknowledge(Vec::new(), &up).await?;
                    }
                }
                Some(nack) = nacks.recv() => send(&up, attend_request::Event::Nack(nack)).await?,
                () = sleep_until(next_ping) => {
                    if unanswered >= MISSED {
                        return Err(format!("{unanswered} nonces were not answered"));
                    }
                    unanswered = unanswered.saturating_add(1);
                    self.ping(&up).await?;
                    // Several to a lease, however short the shortest is.
                    let often = self.keeper.shortest_lease() / LEASE_PINGS;
                    next_ping = Instant::now() + ping.min(often.max(OFTEN));
                }
            }
        }
    }

    async fn welcomed(
        &self,
        welcome: &v1::Welcome,
        up: &mpsc::Sender<v1::AttendRequest>,
    ) -> Result<(), String> {
        let keeper = &self.keeper;
        keeper.rotate(&welcome.keys);
        let statement: v1::EpochStatement = keeper
            .trust()
            .live()
            .open(Purpose::Epoch, welcome.epoch.as_ref())
            .map_err(|error| self.untrusted(&error))?;
        let beginning = beginning(&statement).map_err(|error| error.to_string())?;
        let before = keeper.era();
        let other = keeper
            .enter(&beginning)
            .map_err(|refused| self.refused(refused))?;
        if other && before.is_some() {
            tracing::warn!(era = %beginning.era, "the registry has begun a new epoch; giving back what was taken back");
            keeper.metrics.resync("epoch");
        }
        // At each greeting: nothing says that an earlier one arrived.
        for removals in keeper.signed_before(beginning.era) {
            let give_back = v1::GiveBack { removals };
            send(up, attend_request::Event::GiveBack(give_back)).await?;
        }
        self.entered.notify_waiters();
        self.entered.notify_one();
        Ok(())
    }

    async fn ping(&self, up: &mpsc::Sender<v1::AttendRequest>) -> Result<(), String> {
        let nonce = random::<16>()?;
        self.keeper.ask(nonce);
        self.acknowledge(nonce.to_vec(), up).await
    }

    async fn acknowledge(
        &self,
        nonce: Vec<u8>,
        up: &mpsc::Sender<v1::AttendRequest>,
    ) -> Result<(), String> {
        let ping = v1::Ping {
            nonce,
            acknowledged: Some(head_message(self.keeper.acknowledged())),
            allows_by_exception: self.keeper.metrics.allows_by_exception(),
        };
        send(up, attend_request::Event::Ping(ping)).await
    }

    async fn hear(&self, event: attend_response::Event) -> Result<(), String> {
        let keeper = &self.keeper;
        match event {
            attend_response::Event::Heartbeat(signed) => {
                let statement: v1::HeartbeatStatement = keeper
                    .trust()
                    .live()
                    .open(Purpose::Heartbeat, Some(&signed))
                    .map_err(|error| self.untrusted(&error))?;
                let heartbeat = heartbeat(&statement).map_err(|error| error.to_string())?;
                match keeper.hear(&heartbeat) {
                    // Late answers and replicas that lag are ordinary; the lease sees to them.
                    Ok(()) | Err(Refused::Unasked | Refused::Behind) => Ok(()),
                    Err(refused) => Err(self.refused(refused)),
                }
            }
            attend_response::Event::Removals(signed) => {
                let batch = Batch::open(&keeper.trust().live(), &signed)
                    .map_err(|error| self.wrong(&error))?;
                let sequence = batch.through;
                match keeper.remove(batch, signed).await {
                    Ok(()) => {
                        tracing::info!(sequence, "removals are in force");
                        Ok(())
                    }
                    Err(Broken::Disk(fault)) => {
                        keeper.metrics.disk_fault("removals");
                        tracing::error!(%fault, "removals are in force and cannot be kept; they are not acknowledged");
                        Err("removals cannot be kept".into())
                    }
                    Err(broken) => Err(format!("removals cannot be taken: {broken}")),
                }
            }
            attend_response::Event::Welcome(_) => Err("the registry greets twice".into()),
        }
    }

    fn refused(&self, refused: Refused) -> String {
        self.keeper.metrics.refused(refused.name());
        if refused == Refused::Forked {
            tracing::error!(
                "DISTRUST: the registry has told two histories; no exception is honoured until an operator looks at it and starts this sidecar anew"
            );
        }
        format!("the registry is not believed: {}", refused.name())
    }

    fn untrusted(&self, error: &crate::wire::signed::Untrusted) -> String {
        self.keeper.metrics.refused("signature");
        tracing::error!(%error, "the registry is not believed; compliant calls go on from what was last known");
        error.to_string()
    }

    fn wrong(&self, wrong: &Wrong) -> String {
        match wrong {
            Wrong::Untrusted(error) => self.untrusted(error),
            Wrong::Invalid(_) | Wrong::Chunk | Wrong::Sum => {
                self.keeper.metrics.refused("unreadable");
                wrong.to_string()
            }
        }
    }

    /// Watches until told to stop.
    pub(in crate::sidecar) async fn watch(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = self.entered.notified() => {}
        }
        let mut backoff = Backoff::new();
        let mut said = String::new();
        let mut transfer = Transfer::default();
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.watch_once(&mut backoff, &mut transfer) => ended,
            };
            self.keeper.metrics.connected("watch", false);
            let why = ended
                .err()
                .unwrap_or_else(|| "the registry closed it".into());
            if why != said {
                tracing::warn!(registry = self.registry.address, why, "not watching");
                said = why;
            }
            backoff.wait(&stop).await;
        }
        Ok(())
    }

    async fn watch_once(
        &self,
        backoff: &mut Backoff,
        transfer: &mut Transfer,
    ) -> Result<(), String> {
        let mut client = connect(&self.registry).await?;
        let keeper = &self.keeper;
        let era = keeper.era();
        let held = keeper
            .held()
            .filter(|held| Some(held.era) == era && !transfer.anew);
        let cut = transfer.arriving.as_ref().map(|(arriving, _)| arriving);
        let request = v1::WatchRequest {
            era: held.as_ref().map(|held| era_message(held.era)),
            revision: held.as_ref().map_or(0, |held| held.revision),
            snapshot_digest: cut.map(|cut| cut.digest.to_vec()).unwrap_or_default(),
            next_chunk: cut.map_or(0, Arriving::next),
            at_least: keeper.exposed().revision,
        };
        let answer = timeout(SLOW, client.watch(request))
            .await
            .map_err(|_| "no answer".to_owned())?;
        let mut events = answer.map_err(|status| told(&status))?.into_inner();
        keeper.metrics.connected("watch", true);
        loop {
            let event = if transfer.arriving.is_some() {
                // Who sends a snapshot is to get on with it.
                timeout(SLOW, events.message())
                    .await
                    .map_err(|_| "a snapshot's next chunk did not come".to_owned())?
            } else {
                events.message().await
            };
            let event = event.map_err(|status| told(&status))?;
            let Some(event) = event.and_then(|message| message.event) else {
                return Ok(());
            };
            if self.take(event, transfer).await? {
                backoff.worked(SOON);
            }
        }
    }

    /// Takes in an event; tells whether something new is in force.
    async fn take(
        &self,
        event: watch_response::Event,
        transfer: &mut Transfer,
    ) -> Result<bool, String> {
        let keeper = &self.keeper;
        match event {
            watch_response::Event::Snapshot(signed) => {
                let arriving = Arriving::begin(&keeper.trust().live(), &signed)
                    .map_err(|error| self.wrong(&error))?;
                if transfer
                    .arriving
                    .as_ref()
                    .is_some_and(|(known, _)| known.digest == arriving.digest)
                {
                    return Ok(false);
                }
                keeper
                    .welcome(&arriving)
                    .map_err(|resync| self.resync(resync))?;
                let draft = keeper
                    .disk
                    .draft(&signed)
                    .map_err(|fault| self.unkept(&fault))?;
                transfer.arriving = Some((arriving, draft));
                self.whole(transfer).await
            }
            watch_response::Event::Chunk(chunk) => {
                let Some((arriving, draft)) = &mut transfer.arriving else {
                    return Err("a chunk of no snapshot".into());
                };
                if let Err(wrong) = arriving.chunk(&chunk) {
                    transfer.wrong = transfer.wrong.saturating_add(1);
                    if transfer.wrong >= WRONG {
                        *transfer = Transfer::default();
                    }
                    return Err(self.wrong(&wrong));
                }
                if let Err(fault) = draft.chunk(&chunk) {
                    transfer.arriving = None;
                    return Err(self.unkept(&fault));
                }
                self.whole(transfer).await
            }
            watch_response::Event::Delta(signed) => {
                match self.delta(signed).await {
                    Ok(Came::Known) => Ok(false),
                    Ok(Came::Held(due, nacks)) => {
                        self.complain(nacks);
                        if due {
                            transfer.anew = true;
                            return Err("a fresh snapshot is due".into());
                        }
                        Ok(true)
                    }
                    Err(Broken::Resync(resync)) => {
                        transfer.anew = true;
                        Err(self.resync(resync))
                    }
                    Err(Broken::Wrong(Wrong::Sum)) => {
                        transfer.anew = true;
                        Err(self.resync(Resync::Digest))
                    }
                    Err(Broken::Wrong(wrong)) => Err(self.wrong(&wrong)),
                    Err(Broken::Disk(fault)) => {
                        // What a failed write left behind is not appended to.
                        transfer.anew = true;
                        Err(self.unkept(&fault))
                    }
                }
            }
        }
    }

    /// Puts a snapshot in force once all of it has come.
    async fn whole(&self, transfer: &mut Transfer) -> Result<bool, String> {
        let whole = transfer
            .arriving
            .as_ref()
            .is_some_and(|(arriving, _)| arriving.is_whole());
        if !whole {
            return Ok(false);
        }
        let Some((arriving, draft)) = transfer.arriving.take() else {
            return Ok(false);
        };
        // Until it is in force and kept, nothing that is held can be gone on from.
        transfer.anew = true;
        let keeper = &self.keeper;
        let made = tokio::task::spawn_blocking(move || arriving.finish())
            .await
            .map_err(|error| error.to_string())?;
        let (held, nacks) = made.map_err(|error| self.wrong(&error))?;
        let revision = held.revision;
        let (controls, subjects, exceptions) = held.snapshot.counts();
        keeper
            .take(held, move |disk| disk.replace(draft))
            .await
            .map_err(|broken| match broken {
                Broken::Disk(fault) => self.unkept(&fault),
                broken @ (Broken::Resync(_) | Broken::Wrong(_)) => broken.to_string(),
            })?;
        *transfer = Transfer::default();
        self.complain(nacks);
        tracing::info!(
            revision,
            controls,
            subjects,
            exceptions,
            "snapshot in force"
        );
        Ok(true)
    }

    async fn delta(&self, signed: v1::Signed) -> Result<Came, Broken> {
        let keeper = &self.keeper;
        let delta = Delta::open(&keeper.trust().live(), &signed).map_err(Broken::Wrong)?;
        match keeper.fits(&delta).map_err(Broken::Resync)? {
            Take::Known => return Ok(Came::Known),
            Take::Fresh => {}
        }
        let held = keeper.held().ok_or(Broken::Resync(Resync::Gap))?;
        let (held, nacks) = tokio::task::spawn_blocking(move || delta.applied(&held))
            .await
            .map_err(|_| Broken::Wrong(Wrong::Sum))?
            .map_err(Broken::Wrong)?;
        let due = keeper.take(held, move |disk| disk.delta(&signed)).await?;
        Ok(Came::Held(due, nacks))
    }

    fn complain(&self, nacks: Nacks) {
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

    fn resync(&self, resync: Resync) -> String {
        self.keeper.metrics.resync(resync.name());
        format!("everything is fetched anew: {}", resync.name())
    }

    fn unkept(&self, fault: &super::disk::Fault) -> String {
        self.keeper.metrics.disk_fault(fault.what);
        self.keeper.disk.discard();
        tracing::error!(%fault, "a change cannot be kept, so it is not put in force; what was last known goes on");
        format!("a change cannot be kept: {fault}")
    }
}

/// A snapshot on its way, over as many connections as it takes.
#[derive(Debug, Default)]
struct Transfer {
    arriving: Option<(Arriving, Draft)>,
    wrong: u32,
    /// What is held is of no use to go on from.
    anew: bool,
}

async fn send(
    up: &mpsc::Sender<v1::AttendRequest>,
    event: attend_request::Event,
) -> Result<(), String> {
    let message = v1::AttendRequest { event: Some(event) };
    up.send(message)
        .await
        .map_err(|_| "the connection is gone".to_owned())
}

async fn next(
    down: &mut Streaming<v1::AttendResponse>,
    patience: Duration,
) -> Result<Option<attend_response::Event>, String> {
    let message = timeout(patience, down.message())
        .await
        .map_err(|_| "the registry is silent".to_owned())?;
    Ok(message
        .map_err(|status| told(&status))?
        .and_then(|message| message.event))
}

fn told(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
