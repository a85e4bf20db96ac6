//! Attending: nonces up, heartbeats and removals down.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    domain::Head,
    engine::follow::Refused,
    wire::{
        is_fenced,
        signed::{Purpose, random},
        sync::{beginning, era_message, head, head_message, heartbeat},
        v1::{self, attend_request, attend_response},
    },
};

use super::{
    intake::Batch,
    keeper::Broken,
    lanes::{Backoff, Following, LATE, SLOW, half_or_more, told},
};

/// Nonces that go unanswered before the connection is given up.
const MISSED: u32 = 3;
/// Nonces to the shortest lease, and the shortest time between two.
const LEASE_PINGS: u32 = 4;
const OFTEN: Duration = Duration::from_millis(100);
/// How often to look whether decisions still rest on what was before a removal.
const LOOK: Duration = Duration::from_millis(1);

impl Following {
    /// Attends until told to stop.
    pub(in crate::sidecar) async fn attend(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let mut backoff = Backoff::new();
        let mut said = String::new();
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ended = self.attend_once(&mut backoff) => ended,
            };
            self.keeper.metrics.disconnected("attend");
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
        let mut client = self.connect().await?;
        let (up, outgoing) = mpsc::channel(16);
        let era = self.keeper.era();
        self.keeper.drained();
        let held = self.keeper.acknowledged();
        let hello = v1::Hello {
            boot_nonce: self.boot.to_vec(),
            era: era.map(era_message),
            held: Some(head_message(held)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            proof: Some(self.keeper.proof()),
            over: self.over.iter().map(|start| start.to_vec()).collect(),
            denial_key: self.access.key().bytes().to_vec(),
        };
        send(&up, attend_request::Event::Hello(hello)).await?;
        let answer = timeout(SLOW, client.attend(ReceiverStream::new(outgoing)))
            .await
            .map_err(|_| "no answer".to_owned())?;
        let mut down = answer
            .map_err(|status| self.answered(&status))?
            .into_inner();
        let Some(attend_response::Event::Welcome(welcome)) = self.next(&mut down, SLOW).await?
        else {
            return Err("the registry does not greet".into());
        };
        self.welcomed(&welcome, &up).await?;
        if welcome.fenced {
            self.keeper.fence();
            self.keeper.settle();
            return self.listen(&mut down).await;
        }
        let known = head(welcome.acknowledged.as_ref()).unwrap_or_default();
        // Of an earlier epoch, or of nothing at all, less is held for good reason.
        if era == self.keeper.era() && held != Head::default() && known.exceeds(held) {
            self.keeper.damaged("floor", &"the registry knows this sidecar to have held more: an older copy of its data was put back, or another sidecar has its identity");
        }
        self.keeper.settle();
        let ping = Duration::from_millis(u64::from(welcome.ping_ms.clamp(100, 60_000)));
        backoff.worked(Duration::from_millis(u64::from(welcome.jitter_ms)));
        self.keeper.metrics.connected("attend", true);
        tracing::info!(
            registry = self.registry.address,
            scope = welcome.scope,
            "attending"
        );
        let mut next_ping = Instant::now();
        let spread = Duration::from_millis(u64::from(welcome.acknowledge_ms.min(1_000)));
        let mut owed: Option<Instant> = None;
        let mut look: Option<Instant> = None;
        let mut unanswered = 0_u32;
        // A registry that was away knows nothing of what was wrong.
        self.complaints.news.notify_one();
        loop {
            tokio::select! {
               biased;
                event = self.next(&mut down, LATE.saturating_mul(6)) => {
                    let Some(event) = event? else { return Ok(()) };
                    let heartbeat = matches!(event, attend_response::Event::Heartbeat(_));
                    self.hear(event).await?;
                    if heartbeat {
                        unanswered = 0;
                    } else {
                        look = Some(Instant::now());
                    }
                }
                () = sleep_until(look.unwrap_or(next_ping)), if look.is_some() => {
                    let now = Instant::now();
                    look = (!self.keeper.drained()).then(|| now + LOOK);
                    if look.is_none() {
                        // Whoever takes something back waits for this; until others have heard
                        // of it too, the registry has better to do.
                        owed = owed.or_else(|| Some(now + half_or_more(spread)));
                    }
                }
                () = sleep_until(owed.unwrap_or(next_ping)), if owed.is_some() => {
                    owed = None;
                    self.acknowledge(Vec::new(), &up).await?;
                }
                () = self.again.notified() => {
                    return Err("a change did not come to what it should; greeting again".into());
                }
                () = self.complaints.news.notified() => {
                    let nacks: Vec<_> = self.complaints.known().values().cloned().collect();
                    for nack in nacks {
                        send(&up, attend_request::Event::Nack(nack)).await?;
                    }
                }
                () = sleep_until(next_ping) => {
                    if unanswered >= MISSED {
                        return Err(format!("{unanswered} nonces were not answered"));
                    }
                    unanswered = unanswered.saturating_add(1);
                    owed = None;
                    self.ping(&up).await?;
                    // Several to a lease, however short the shortest is.
                    let often = self.keeper.shortest_lease() / LEASE_PINGS;
                    next_ping = Instant::now() + ping.min(often.max(OFTEN));
                }
            }
        }
    }

    /// Hears what is taken back, and nothing else: another has taken this sidecar's place.
    async fn listen(&self, down: &mut Streaming<v1::AttendResponse>) -> Result<(), String> {
        loop {
            // However long it takes: a connection that is gone is noticed below this.
            let message = down.message().await;
            let message = message.map_err(|status| self.answered(&status))?;
            let Some(event) = message.and_then(|message| message.event) else {
                return Ok(());
            };
            self.hear(event).await?;
            self.keeper.drained();
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
        self.access.learn(&statement.access_url);
        if other && before.is_some() {
            tracing::warn!(era = %beginning.era, "the registry has begun a new epoch; giving back what was taken back");
            keeper.metrics.resync("epoch");
        }
        // At each greeting: nothing says that an earlier one arrived.
        for removals in keeper.signed_before(beginning.era) {
            let give_back = v1::GiveBack { removals };
            send(up, attend_request::Event::GiveBack(give_back)).await?;
        }
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
        // In this order: what was answered was written before.
        let answers = self.spool.as_ref().map_or(0, |spool| spool.answers());
        let (spool, spooled) = match &self.spool {
            Some(spool) => spool.written(),
            None => (None, 0),
        };
        let ping = v1::Ping {
            nonce,
            acknowledged: Some(head_message(self.keeper.acknowledged())),
            allows_by_exception: answers,
            allows_by_controls: self.keeper.metrics.allowed(),
            spool_id: spool.map_or_else(Vec::new, |id| id.0.to_vec()),
            spooled,
        };
        send(up, attend_request::Event::Ping(ping)).await
    }

    async fn next(
        &self,
        down: &mut Streaming<v1::AttendResponse>,
        patience: Duration,
    ) -> Result<Option<attend_response::Event>, String> {
        let message = timeout(patience, down.message())
            .await
            .map_err(|_| "the registry is silent".to_owned())?;
        Ok(message
            .map_err(|status| self.answered(&status))?
            .and_then(|message| message.event))
    }

    /// What the registry says instead of going on. If another has taken this sidecar's place, no
    /// exception is honoured here from now on.
    fn answered(&self, status: &Status) -> String {
        if is_fenced(status) {
            self.keeper.fence();
        }
        told(status)
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
                match keeper.hear(&heartbeat, signed) {
                    // Late answers and replicas that lag are ordinary; the lease sees to them, and
                    // to a clock that was set back. Greeting again would change nothing.
                    Ok(()) | Err(Refused::Unasked | Refused::Behind | Refused::EarlierTime) => {
                        Ok(())
                    }
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
