//! Fetching on demand: one at a time, everything that is waited for at once, never inside a
//! decision.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Span, SubjectId},
    runtime::simulated::aside,
    wire::{sync::era_message, v1},
};

use super::{
    demand::Wanted,
    entities::Arrived,
    intake::Held,
    keeper::Turn,
    lanes::{Following, told},
};

/// Most that are fetched with one call.
const MOST: usize = 100;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a fetch that was overtaken by changes is done again.
const AGAIN: u32 = 10;
/// How often is looked for what is no longer worth keeping, and what is to be renewed.
const TIDY: Duration = Duration::from_secs(1);

/// What came in the place of what a change made stale, and what did not.
#[derive(Debug, Default)]
pub(super) struct Afresh {
    pub(super) arrived: Vec<Arrived>,
    pub(super) gone: Vec<SubjectId>,
}

impl Following {
    /// Fetches what is wanted until told to stop.
    pub(in crate::sidecar) async fn fetch(
        self: Arc<Self>,
        mut wanted: mpsc::Receiver<Wanted>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let mut tidy = interval(TIDY);
        loop {
            let mut batch = BTreeSet::new();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                // Before what callers ask for: whoever asks without end does not let leases lapse.
                _ = tidy.tick() => batch.extend(self.tidied().await),
                Some(first) = wanted.recv() => {
                    batch.insert(first);
                    while batch.len() < MOST && let Ok(next) = wanted.try_recv() {
                        batch.insert(next);
                    }
                    // Others may have asked while it was on its way.
                    let held = self.keeper.held();
                    let here = |id: &SubjectId| held.as_ref().is_some_and(|held| held.fetched.get(id).is_some());
                    batch.retain(|wanted| !here(&wanted.id) && !self.demand.is_nothing(wanted));
                }
            }
            if batch.is_empty() {
                continue;
            }
            // Two who ask, one of them with proof: one is enough.
            let proven: BTreeSet<SubjectId> = batch
                .iter()
                .filter(|wanted| wanted.attested)
                .map(|wanted| wanted.id.clone())
                .collect();
            batch.retain(|wanted| wanted.attested || !proven.contains(&wanted.id));
            let batch: Vec<Wanted> = batch.into_iter().collect();
            match self.bring(&batch).await {
                Ok(()) => self.keeper.metrics.fetch("ok"),
                // Whoever asks again is heard again.
                Err(why) => {
                    self.keeper.metrics.fetch("failed");
                    tracing::debug!(why, count = batch.len(), "not fetched");
                }
            }
        }
    }

    /// Fetches a batch and puts it in force.
    async fn bring(&self, batch: &[Wanted]) -> Result<(), String> {
        for _ in 0..AGAIN {
            let held = self.keeper.held().ok_or("nothing is held yet")?;
            let (revision, arrived) = self.ask(&held, batch).await?;
            let turn = self.keeper.turn().await;
            let held = self.keeper.held().ok_or("nothing is held yet")?;
            // A change that came in the meantime may have touched what was fetched before it.
            if revision < held.revision {
                continue;
            }
            self.note(batch, &arrived);
            let taken = aside(move || (*held).clone().taking(arrived)).await?;
            let (held, nacks) = taken.map_err(|wrong| self.wrong(&wrong))?;
            self.keeper.hold(&turn, held);
            self.complain(nacks);
            return Ok(());
        }
        Err("changes overtake it".into())
    }

    /// What is fetched in the place of what a change makes stale, no older than that change; what
    /// cannot be is let go, and fetched once somebody asks about it: changes wait for nothing.
    pub(super) async fn afresh(
        &self,
        _: &Turn<'_>,
        held: &Held,
        stale: Vec<SubjectId>,
        through: u64,
    ) -> Afresh {
        let mut afresh = Afresh::default();
        let wanted: Vec<Wanted> = stale
            .into_iter()
            .map(|id| Wanted {
                attested: self.demand.attested(&id),
                id,
            })
            .collect();
        for batch in wanted.chunks(MOST) {
            let answer = if afresh.gone.is_empty() {
                self.ask(held, batch).await
            } else {
                Err("an earlier one failed".into())
            };
            match answer {
                Ok((revision, arrived)) if revision >= through => {
                    self.note(batch, &arrived);
                    afresh.arrived.extend(arrived);
                }
                Ok(_) | Err(_) => {
                    for Wanted { id, .. } in batch {
                        self.demand.forget(id);
                        afresh.gone.push(id.clone());
                    }
                }
            }
        }
        if !afresh.gone.is_empty() {
            tracing::warn!(
                count = afresh.gone.len(),
                "what was fetched on demand has changed and cannot be fetched again; it is let go"
            );
        }
        afresh
    }

    async fn ask(&self, held: &Held, batch: &[Wanted]) -> Result<(u64, Vec<Arrived>), String> {
        let client = self.lent();
        let mut client = client.ok_or("not connected")?;
        let asked = self.keeper.now().latest;
        let request = v1::FetchRequest {
            era: Some(era_message(held.era)),
            wanted: batch
                .iter()
                .map(|Wanted { id, attested }| v1::WantedEntity {
                    id: id.to_string(),
                    attested: *attested,
                })
                .collect(),
        };
        let answer = timeout(PATIENCE, client.fetch(request))
            .await
            .map_err(|_| "no answer".to_owned())?
            .map_err(|status| told(&status))?
            .into_inner();
        let trust = self.keeper.trust();
        let ids = batch.iter().map(|wanted| wanted.id.as_str()).collect();
        Arrived::open(&trust.live(), held, &ids, asked, answer.entities.as_ref())
            .map_err(|wrong| self.wrong(&wrong))
    }

    fn note(&self, batch: &[Wanted], arrived: &[Arrived]) {
        for wanted in batch {
            let came = arrived.iter().find(|arrived| arrived.id == wanted.id);
            let bytes = came.filter(|came| came.governed).map(Arrived::bytes);
            self.demand.came(wanted, bytes);
        }
    }

    /// Lets go of what is not worth keeping; tells what is to be registered again.
    async fn tidied(&self) -> Vec<Wanted> {
        let Some(held) = self.keeper.held().filter(|held| !held.fetched.is_empty()) else {
            return Vec::new();
        };
        let now = self.keeper.now();
        let mut gone = self.demand.evicted();
        let mut again = Vec::new();
        for (id, fetched) in held.fetched.entries() {
            let Some(lease) = fetched.lease else { continue };
            let left = lease - now.latest;
            if left > fetched.renew || again.len() >= MOST {
                continue;
            }
            if self.demand.was_used(id) {
                let id = id.clone();
                again.push(Wanted { id, attested: true });
            } else if left <= Span::ZERO {
                // Nobody has asked about it for half a lease, and it is over.
                self.demand.forget(id);
                gone.push(id.clone());
            }
        }
        if !gone.is_empty() {
            let turn = self.keeper.turn().await;
            if let Some(Ok(held)) = self
                .keeper
                .held()
                .map(|held| (*held).clone().forgetting(&gone))
            {
                self.keeper.hold(&turn, held);
            }
        }
        again
    }
}
