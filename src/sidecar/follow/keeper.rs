//! The one writer of what decisions are made from, and of how the registry is seen.
//!
//! Two connections hand in what they heard; each step here is short, and none waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    domain::{Era, Head, Name, Span, Timestamp},
    engine::{
        Removed,
        follow::{
            Beginning, Contact, FUTURE, Follower, Heartbeat, Nonce, Refused, Resync, Step, Take,
            delta_steps, removal_steps,
        },
    },
    runtime::{clock::Clock, publish::Published, simulated::aside},
    telemetry::Metrics,
    wire::{signed::Trust, v1},
};

use super::{
    disk::Disk,
    draining::Draining,
    floor::Floor,
    intake::{Arriving, Batch, Delta, Held, MAX_PROOF, Nacks, Proof, Wrong},
    recall::Unread,
};
use crate::sidecar::decider::{CHANGED, Loaded};

/// What is said once two histories were seen.
pub(super) const DISTRUST: &str = "DISTRUST: the registry has told two histories; no exception is honoured until an operator has looked at it, removed the file `distrust` from this sidecar's data and started it anew";
/// How often the registry's time is kept (reliability §6).
const TIME_KEPT: Span = Span::from_secs(10);
/// Bytes of removals given back in one message.
const MAX_GIVE_BACK: usize = 256 << 10;

/// Holds what is followed.
#[derive(Debug)]
pub(in crate::sidecar) struct Keeper {
    published: Arc<Published<Loaded>>,
    /// When this process began to follow.
    begun: Timestamp,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) disk: Disk,
    inner: Mutex<Inner>,
    /// What is on disk and not read yet.
    pub(super) unread: Mutex<Option<Unread>>,
    /// One writer of the state at a time.
    writing: tokio::sync::Mutex<()>,
}

/// The turn of who changes the state: from reading what is held to putting in force what comes of
/// it.
pub(super) type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) follower: Follower,
    pub(super) held: Option<Arc<Held>>,
    pub(super) removed: Arc<Removed>,
    /// Removals as they were signed, with their epoch, to give back.
    pub(super) signed: Vec<(u64, v1::Signed)>,
    trust: Trust,
    /// The last heartbeat that was believed, as it was signed.
    heartbeat: Option<v1::Signed>,
    /// The registry's time as it was last heard, and as it was last kept.
    heard_time: Option<Timestamp>,
    kept_time: Option<Timestamp>,
    /// Whether it was told that the registry's time is before what it was.
    told_earlier: bool,
    /// What proved the state before one that came out differently, until the registry was greeted
    /// with it.
    disputed: Option<Arc<Proof>>,
    /// What was last published.
    shown: Option<Arc<Held>>,
    /// What decisions may still run on, and the durable removals that wait for it.
    draining: Draining<Loaded>,
}

/// What came of a delta.
pub(super) enum Came {
    /// It is held, and durable; whether a fresh snapshot is due, which objects it was about, and
    /// which of them could not be taken.
    Held(bool, Vec<Name>, Nacks),
    /// It was known.
    Known,
}

/// Why the state is to be fetched anew, or the connection given up.
#[derive(Debug)]
pub(super) enum Broken {
    /// The intervals do not fit.
    Resync(Resync),
    /// It is not to be believed.
    Wrong(Wrong),
    /// It cannot be kept.
    Disk(super::disk::Fault),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Resync(why) => write!(f, "it does not fit what is held: {}", why.name()),
            Self::Wrong(why) => why.fmt(f),
            Self::Disk(fault) => write!(f, "it cannot be kept: {fault}"),
        }
    }
}

impl Keeper {
    /// Takes hold of the folder and reads back what it proves.
    ///
    /// # Errors
    ///
    /// A folder that cannot be used at all.
    pub(in crate::sidecar) fn new(
        disk: Disk,
        mut trust: Trust,
        published: Arc<Published<Loaded>>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let keys = disk.keys();
        for key in keys.iter().flatten() {
            if let Err(error) = trust.rotate(key) {
                tracing::warn!(%error, "a kept statement about a key is not believed");
            }
        }
        let keeper = Self {
            published,
            begun: clock.now().latest,
            clock,
            metrics,
            disk,
            inner: Mutex::new(Inner {
                follower: Follower::default(),
                held: None,
                removed: Arc::default(),
                signed: Vec::new(),
                trust,
                heartbeat: None,
                heard_time: None,
                kept_time: None,
                told_earlier: false,
                disputed: None,
                shown: None,
                draining: Draining::default(),
            }),
            unread: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
        };
        if let Err(fault) = keys {
            keeper.damaged("trust", &fault);
        }
        keeper.read_back();
        keeper.read_time();
        if keeper.disk.distrusts() {
            tracing::error!(
                "DISTRUST: the registry once told two histories; no exception is honoured until an operator has looked at it and removed the file `distrust` from this sidecar's data"
            );
            keeper.inner().follower.distrust();
            keeper.publish();
        }
        keeper
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trust(&self) -> Trust {
        self.inner().trust.clone()
    }

    pub(super) fn era(&self) -> Option<Era> {
        self.inner().follower.era()
    }

    pub(super) fn acknowledged(&self) -> Head {
        self.inner().follower.acknowledged()
    }

    pub(super) fn exposed(&self) -> Head {
        self.inner().follower.exposed()
    }

    /// What is held, if it can be followed on.
    pub(super) fn held(&self) -> Option<Arc<Held>> {
        self.inner().held.clone().filter(|held| held.whole)
    }

    /// Removals of earlier epochs than `era`, as they were signed, in parts that fit a message.
    pub(super) fn signed_before(&self, era: Era) -> Vec<Vec<v1::Signed>> {
        let mut parts: Vec<Vec<v1::Signed>> = Vec::new();
        let mut size = MAX_GIVE_BACK;
        let inner = self.inner();
        let earlier = inner.signed.iter().filter(|(epoch, _)| *epoch < era.epoch);
        for (_, signed) in earlier {
            size = size
                .saturating_add(signed.statement.len())
                .saturating_add(128);
            if size > MAX_GIVE_BACK {
                parts.push(Vec::new());
                size = signed.statement.len();
            }
            if let Some(part) = parts.last_mut() {
                part.push(signed.clone());
            }
        }
        parts
    }

    /// How the registry is seen.
    pub(in crate::sidecar) fn contact(&self) -> Contact {
        self.inner().follower.contact()
    }

    /// Whether two histories of the registry were seen.
    pub(in crate::sidecar) fn distrusted(&self) -> bool {
        self.inner().follower.distrusted()
    }

    /// Makes decisions from what is held now; what was published before may still be in use.
    pub(super) fn publish(&self) {
        let mut inner = self.inner();
        self.publish_from(&mut inner);
    }

    fn publish_from(&self, inner: &mut Inner) {
        let Some(held) = &inner.held else { return };
        let before = self.published.get();
        let removed = &inner.removed;
        // What is fetched may change without a new revision or digest: a lease alone is renewed.
        let held_before = inner
            .shown
            .as_ref()
            .is_some_and(|shown| Arc::ptr_eq(shown, held));
        let same = before
            .as_ref()
            .filter(|before| held_before && Arc::ptr_eq(before.snapshot.removed(), removed));
        let snapshot = match same {
            Some(before) => Arc::clone(&before.snapshot),
            None => Arc::new(held.snapshot.removing(Arc::clone(removed))),
        };
        inner.shown = Some(Arc::clone(held));
        let contact = inner.follower.contact();
        let confirmed = contact.anchor().unwrap_or_else(|| {
            before
                .as_ref()
                .map_or_else(|| self.clock.elapsed(), |before| before.confirmed)
        });
        let mut loaded = Loaded::after(before.as_deref(), snapshot, confirmed, CHANGED);
        loaded.contact = Some(contact);
        self.published.publish(Arc::new(loaded));
        inner.draining.retire(before.as_ref());
    }

    /// Enters an epoch; tells whether everything is to be fetched.
    pub(super) fn enter(&self, beginning: &Beginning) -> Result<bool, Refused> {
        let mut inner = self.inner();
        let other = inner.follower.enter(beginning)?;
        if other {
            (inner.heard_time, inner.kept_time) = (None, None);
            inner.draining.forget();
        }
        self.publish_from(&mut inner);
        Ok(other)
    }

    /// Follows statements of key rotation, and keeps them.
    pub(super) fn rotate(&self, keys: &[v1::Signed]) {
        let mut trust = self.trust();
        let mut news = false;
        for key in keys {
            // Statements by keys from before the pin are of no use here.
            news |= trust.rotate(key).unwrap_or(false);
        }
        if news {
            if let Err(fault) = self.disk.keep_keys(keys) {
                self.damaged("trust", &fault);
            }
            let key = trust.newest().map(tracing::field::display);
            tracing::info!(key, "the registry has a new key");
            self.inner().trust = trust;
        }
    }

    /// Another has taken this sidecar's place: what the registry said here counts no more.
    pub(super) fn fence(&self) {
        let mut inner = self.inner();
        if inner.follower.fence() {
            self.metrics.refused("fenced");
            tracing::error!(
                "FENCED: another sidecar with this identity has come since; no exception is honoured here any more"
            );
            self.publish_from(&mut inner);
        }
    }

    /// Notes that a nonce is sent now.
    pub(super) fn ask(&self, nonce: Nonce) {
        let mut inner = self.inner();
        let (elapsed, wall) = (self.clock.elapsed(), self.clock.wall());
        if !inner.follower.ask(nonce, elapsed, wall) {
            self.metrics.clock_step();
            tracing::warn!("the clock was set, or time was lost: exceptions wait for the registry");
            self.publish_from(&mut inner);
        }
    }

    /// The registry's own words about what is held.
    pub(super) fn proof(&self) -> v1::HeldProof {
        let inner = self.inner();
        let removals = inner.signed.last().map(|(_, signed)| signed);
        let mut proof = v1::HeldProof {
            heartbeat: inner.heartbeat.clone(),
            removals: removals
                .filter(|signed| signed.statement.len() <= MAX_PROOF)
                .cloned(),
            ..v1::HeldProof::default()
        };
        let held = inner.held.as_ref().and_then(|held| held.proof.as_deref());
        match inner.disputed.as_deref().or(held) {
            Some(Proof::Snapshot(signed)) => proof.snapshot = Some(signed.clone()),
            Some(Proof::Delta(signed)) => proof.delta = Some(signed.clone()),
            None => {}
        }
        proof
    }

    /// A change did not come to what the registry says it comes to. Whatever replaces what is held,
    /// the registry is to see what it once said about it: there may be two histories.
    pub(super) fn dispute(&self) {
        let mut inner = self.inner();
        let proof = inner.held.as_ref().and_then(|held| held.proof.clone());
        if inner.disputed.is_none() {
            inner.disputed = proof;
        }
    }

    /// The registry has seen it, and found nothing wrong.
    pub(super) fn settle(&self) {
        self.inner().disputed = None;
    }

    /// Hears a heartbeat, which was `signed` so.
    pub(super) fn hear(&self, heartbeat: &Heartbeat, signed: v1::Signed) -> Result<(), Refused> {
        let mut inner = self.inner();
        let heard = inner.follower.hear(heartbeat, self.clock.elapsed());
        match heard {
            Ok(()) => {
                inner.heartbeat = Some(signed);
                inner.heard_time = Some(heartbeat.time);
                inner.told_earlier = false;
            }
            Err(Refused::EarlierTime) => {
                self.metrics.refused(Refused::EarlierTime.name());
                if !inner.told_earlier {
                    tracing::error!(
                        time = %heartbeat.time,
                        "the registry's time is before what it said it was: no exception is honoured until it has caught up; if it was ahead by mistake, run `exeat registry recover`, or remove the file `time` from this sidecar's data and start it anew"
                    );
                }
                inner.told_earlier = true;
            }
            Err(Refused::Forked) => {
                // Both are kept: together they prove it.
                let both: Vec<_> = inner.heartbeat.iter().cloned().chain([signed]).collect();
                if let Err(fault) = self.disk.keep_proof(&both) {
                    self.damaged("distrust", &fault);
                }
            }
            Err(_) => {}
        }
        self.publish_from(&mut inner);
        heard
    }

    /// Keeps the registry's time, now and then (T1); never one that is far ahead of ours.
    pub(super) async fn keep_time(self: &Arc<Self>) {
        let signed = {
            let mut inner = self.inner();
            let Some(time) = inner.heard_time else { return };
            let due = inner.kept_time.is_none_or(|kept| time - kept >= TIME_KEPT);
            if !due || time - self.clock.wall() > FUTURE {
                return;
            }
            inner.kept_time = Some(time);
            inner.heartbeat.clone()
        };
        let Some(signed) = signed else { return };
        let keeper = Arc::clone(self);
        let kept = aside(move || keeper.disk.keep_heartbeat(&signed)).await;
        if let Err(fault) = kept.unwrap_or_else(|error| Err(lost(error))) {
            self.metrics.disk_fault("time");
            tracing::error!(%fault, "the registry's time cannot be kept; a clock that is set back over a restart would not be noticed");
        }
    }

    /// Takes removals in: in force at once, durable when this returns, and told once
    /// [`drained`](Self::drained).
    pub(super) async fn remove(
        self: &Arc<Self>,
        batch: Batch,
        signed: v1::Signed,
    ) -> Result<(), Broken> {
        let take = {
            let mut inner = self.inner();
            // Another log's numbers mean nothing here, and what it gives back was never taken.
            if inner
                .follower
                .era()
                .is_some_and(|era| era.log != batch.era.log)
            {
                return Err(Broken::Resync(Resync::Era));
            }
            // What is removed is removed, whether or not the interval fits.
            let removed = Arc::make_mut(&mut inner.removed);
            let fresh: Vec<_> = batch
                .removals
                .iter()
                .filter(|removal| removed.add(batch.era.epoch, removal))
                .collect();
            if !fresh.is_empty() {
                self.publish_from(&mut inner);
            }
            // What was taken back before the start says nothing of how long it takes.
            let now = self.clock.now().latest;
            for removal in fresh.iter().filter(|removal| removal.time >= self.begun) {
                self.metrics.taken_back(now - removal.time);
            }
            inner
                .follower
                .removals(batch.era, batch.after, batch.through)
        };
        match take.map_err(Broken::Resync)? {
            Take::Known => return Ok(()),
            Take::Fresh => {}
        }
        for step in removal_steps() {
            match step {
                Step::Expose => {
                    let mut inner = self.inner();
                    inner.follower.expose_removals(batch.through);
                    self.publish_from(&mut inner);
                }
                Step::Persist => {
                    let keeper = Arc::clone(self);
                    let message = signed.clone();
                    let kept = aside(move || {
                        keeper.disk.removed(&message)?;
                        keeper.raise(|floor| floor.head.sequence = batch.through)
                    })
                    .await;
                    kept.unwrap_or_else(|error| Err(lost(error)))
                        .map_err(Broken::Disk)?;
                    let epoch = batch.era.epoch;
                    self.inner().signed.push((epoch, signed.clone()));
                }
                Step::Drain => self.inner().draining.wait(batch.through),
                // What waits is told once nothing is behind it.
                Step::Acknowledge if self.inner().draining.is_empty() => {
                    self.inner().follower.acknowledge_removals(batch.through);
                }
                Step::Acknowledge => drop(self.drained()),
            }
        }
        Ok(())
    }

    /// Acknowledges the removals that every answer under way rests on; tells whether none is left.
    pub(super) fn drained(&self) -> bool {
        let mut inner = self.inner();
        if let Some(through) = inner.draining.drained() {
            inner.follower.acknowledge_removals(through);
        }
        inner.draining.is_empty()
    }

    /// Whether a snapshot may replace what is held. One that says something else about the very same
    /// revision proves that there are two histories (S12).
    pub(super) fn welcome(&self, arriving: &Arriving) -> Result<Take, Resync> {
        let mut inner = self.inner();
        let take = inner.follower.snapshot(arriving.era, arriving.revision)?;
        let forked = inner.held.as_ref().is_some_and(|held| arriving.forks(held));
        if forked {
            let both = inner.held.as_ref().and_then(|held| held.proof.clone());
            let both: Vec<_> = [both, arriving.proof()].into_iter().flatten().collect();
            let both = both.iter().map(|proof| proof.signed().clone());
            if let Err(fault) = self.disk.keep_proof(&both.collect::<Vec<_>>()) {
                self.damaged("distrust", &fault);
            }
            self.metrics.refused(Refused::Forked.name());
            tracing::error!("{DISTRUST}");
            inner.follower.distrust();
            self.publish_from(&mut inner);
            return Err(Resync::Digest);
        }
        Ok(take)
    }

    /// Whether a delta follows on what is held.
    pub(super) fn fits(&self, delta: &Delta) -> Result<Take, Resync> {
        let inner = self.inner();
        inner.follower.delta(delta.era, delta.after, delta.through)
    }

    /// Waits for the turn to change the state.
    pub(super) async fn turn(&self) -> Turn<'_> {
        self.writing.lock().await
    }

    /// Puts in force what was fetched; it is not kept, as it can be fetched again.
    pub(super) fn hold(&self, _: &Turn<'_>, held: Held) {
        let mut inner = self.inner();
        inner.held = Some(Arc::new(held));
        self.publish_from(&mut inner);
    }

    /// Takes in a new state, once `persist` has made it durable.
    pub(super) async fn take<T: Send + 'static>(
        self: &Arc<Self>,
        _: &Turn<'_>,
        held: Held,
        persist: impl FnOnce(&Disk) -> Result<T, super::disk::Fault> + Send + 'static,
    ) -> Result<T, Broken> {
        let revision = held.revision;
        let (mut persist, mut held, mut kept) = (Some(persist), Some(held), None);
        for step in delta_steps() {
            match step {
                Step::Persist => {
                    let Some(persist) = persist.take() else {
                        continue;
                    };
                    let keeper = Arc::clone(self);
                    let done = aside(move || {
                        let kept = persist(&keeper.disk)?;
                        keeper.raise(|floor| floor.head.revision = revision)?;
                        Ok(kept)
                    })
                    .await;
                    let done = done.unwrap_or_else(|error| Err(lost(error)));
                    kept = Some(done.map_err(Broken::Disk)?);
                }
                Step::Expose => {
                    let mut inner = self.inner();
                    inner.held = held.take().map(Arc::new);
                    inner.follower.expose_state(revision);
                    self.publish_from(&mut inner);
                }
                Step::Acknowledge => self.inner().follower.acknowledge_state(revision),
                Step::Drain => {}
            }
        }
        kept.ok_or(Broken::Resync(Resync::Gap))
    }

    /// Raises the floor to what is acknowledged and what `change` adds.
    fn raise(&self, change: impl FnOnce(&mut Floor)) -> Result<(), super::disk::Fault> {
        let floor = {
            let inner = self.inner();
            let Some(era) = inner.follower.era() else {
                return Ok(());
            };
            let mut floor = Floor {
                era,
                head: inner.follower.acknowledged(),
            };
            change(&mut floor);
            floor
        };
        self.disk.raise(&floor)
    }
}

fn lost(error: String) -> super::disk::Fault {
    super::disk::Fault {
        what: "writing",
        error: std::io::Error::other(error),
    }
}
