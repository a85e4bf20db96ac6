//! Watching: a snapshot, then what changes.

use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::SubjectId,
    engine::follow::{Resync, Take},
    runtime::simulated::aside,
    wire::{
        sync::era_message,
        v1::{self, watch_response},
    },
};

use super::{
    disk::Draft,
    fetch::Afresh,
    intake::{Arriving, Delta, Held, Nacks, Wrong},
    keeper::{Broken, Came, Turn},
    lanes::{Backoff, Following, SLOW, SOON, told},
};

/// Chunks that may be wrong before the transfer begins again.
const WRONG: u32 = 3;

impl Following {
    /// Watches until told to stop.
    pub(in crate::sidecar) async fn watch(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let keeper = Arc::clone(&self.keeper);
        aside(move || keeper.read_rest()).await?;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = self.entered.notified() => {}
        }
        let mut backoff = Backoff::new();
        let mut said = String::new();
        let mut transfer = Transfer::default();
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ended = self.watch_once(&mut backoff, &mut transfer) => ended,
            };
            self.keeper.metrics.disconnected("watch");
            let why = ended
                .err()
                .unwrap_or_else(|| "the registry closed it".into());
            if why != said {
                tracing::warn!(registry = self.registry.address, why, "not watching");
                said = why;
            }
            backoff.wait_or_hear(&self.entered, &stop).await;
        }
        Ok(())
    }

    async fn watch_once(
        &self,
        backoff: &mut Backoff,
        transfer: &mut Transfer,
    ) -> Result<(), String> {
        let mut client = self.connect().await?;
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
            scope: held.map_or_else(String::new, |held| held.scope.to_string()),
        };
        let answer = timeout(SLOW, client.watch(request))
            .await
            .map_err(|_| "no answer".to_owned())?;
        let mut events = answer.map_err(|status| told(&status))?.into_inner();
        keeper.metrics.connected("watch", true);
        // Fetches go with the stream that tells when what they bring holds no longer.
        let _fetching = self.lend(client);
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
                if let Some(held) = keeper.held().filter(|held| arriving.scope != held.scope) {
                    keeper.metrics.resync("scope");
                    tracing::info!(before = %held.scope, scope = %arriving.scope, "another scope");
                }
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
                    Ok(Came::Held(due, names, nacks)) => {
                        self.settled(names);
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
                        keeper.dispute();
                        self.again.notify_one();
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
        let turn = keeper.turn().await;
        // It was asked for at the state of then, and nothing goes back behind what came since (S1).
        keeper
            .welcome(&arriving)
            .map_err(|resync| self.resync(resync))?;
        let made = aside(move || arriving.finish()).await?;
        let (held, nacks) = made.map_err(|error| self.wrong(&error))?;
        let (held, more) = self.refetched(&turn, held).await?;
        let revision = held.revision;
        let (controls, subjects, exceptions) = held.snapshot.counts();
        keeper
            .take(&turn, held, move |disk| disk.replace(draft))
            .await
            .map_err(|broken| match broken {
                Broken::Disk(fault) => self.unkept(&fault),
                broken @ (Broken::Resync(_) | Broken::Wrong(_)) => broken.to_string(),
            })?;
        *transfer = Transfer::default();
        self.all_settled();
        self.complain(nacks);
        self.complain(more);
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
        let turn = keeper.turn().await;
        let held = keeper.held().ok_or(Broken::Resync(Resync::Gap))?;
        let stale = held.stale(&delta);
        self.demand.news(&delta);
        let Afresh { arrived, gone } = self.afresh(&turn, &held, stale, delta.through).await;
        let names = delta.objects.iter().map(|edit| edit.name.clone()).collect();
        let (held, nacks) = aside(move || {
            let (held, mut nacks) = delta.applied(&held)?;
            if arrived.is_empty() && gone.is_empty() {
                return Ok((held, nacks));
            }
            let (held, more) = held.forgetting(&gone)?.taking(arrived)?;
            nacks.extend(more);
            Ok((held, nacks))
        })
        .await
        .map_err(|_| Broken::Wrong(Wrong::Sum))?
        .map_err(Broken::Wrong)?;
        let due = keeper
            .take(&turn, held, move |disk| disk.delta(&signed))
            .await?;
        Ok(Came::Held(due, names, nacks))
    }

    /// A new state with what had been fetched beside the one before, fetched anew. What cannot be
    /// is fetched once somebody asks about it.
    async fn refetched(&self, turn: &Turn<'_>, held: Held) -> Result<(Held, Nacks), String> {
        let before = self.keeper.held();
        let ids: Vec<SubjectId> = before
            .iter()
            .flat_map(|before| before.fetched.entries())
            .map(|(id, _)| id.clone())
            .collect();
        let Afresh { arrived, .. } = self.afresh(turn, &held, ids, held.revision).await;
        held.taking(arrived).map_err(|wrong| self.wrong(&wrong))
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
