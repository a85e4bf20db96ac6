//! What sidecars say of their spools, held against what came: what is missing is found, and the
//! ledger is told how far each has come.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Chained, ExceptionId, Span, SpoolId, Timestamp},
    wire::{signed::hex, v1},
};

use super::{
    core::Error,
    store::{Gap, KnownSpool},
    usage::Usages,
    uses::Told,
};

/// How often the ledger is told, and spools are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long records may take to come (reliability §7).
const LATE: Span = Span::from_secs(300);
/// Most spools of one sidecar that it is believed to speak of at a time.
const TOLD: usize = 8;
/// Most spools that one entry of the ledger tells of.
const NOTED: usize = 200;
/// In whose name.
const SYSTEM: &str = "service:registry";
/// How the row of the log says that usage records came.
const NOTING: &str = "usage\n";
/// How a line of it begins that tells of records that never came, and of the chain after them.
const MISSING: &str = "missing ";

impl Usages {
    /// Notes what a sidecar says of its spool.
    pub(super) fn told(&self, sidecar: &str, boot: &[u8], ping: &v1::Ping) {
        let Some(spool) = SpoolId::from_slice(&ping.spool_id) else {
            return;
        };
        let received = {
            let spools = self.spools();
            let known = spools.get(&(sidecar.into(), spool));
            known.map_or(0, |known| known.received.sequence)
        };
        let time = self.registry.clock.now().latest;
        let start = boot.first_chunk::<8>().copied().unwrap_or_default();
        let mut told = self.registry.uses.told();
        let mine = told
            .iter()
            .filter(|((of, id), _)| **of == *sidecar && *id != spool);
        if mine.clone().count() >= TOLD
            && let Some(oldest) = mine
                .min_by_key(|(_, told)| told.time)
                .map(|(key, _)| key.clone())
        {
            told.remove(&oldest);
        }
        let entry = told.entry((sidecar.into(), spool)).or_insert(Told {
            written: 0,
            start: 0,
            allows: 0,
            passes: 0,
            time,
            behind: None,
        });
        let behind = entry.behind.or(Some(time));
        *entry = Told {
            written: ping.spooled,
            start: u64::from_be_bytes(start),
            allows: ping.allows_by_exception,
            passes: ping.allows_by_controls,
            time,
            behind: behind.filter(|_| ping.spooled > received),
        };
    }

    /// Looks, until stopped, at what sidecars say of their spools, and tells the ledger what came.
    pub(super) async fn look(self: Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sleep(LOOK) => {}
            }
            if let Err(why) = self.looked().await {
                tracing::error!(why, "what is recorded of exceptions cannot be looked at");
            }
        }
        Ok(())
    }

    async fn looked(&self) -> Result<(), String> {
        let now = self.registry.clock.now().latest;
        let told = self.registry.uses.told().clone();
        self.begun(&told).await?;
        let (mut changed, mut gaps) = (Vec::new(), Vec::new());
        let known = self.known();
        for spool in &known {
            let said = told.get(&(spool.sidecar.clone(), spool.spool));
            let mut next = spool.clone();
            if let Some(said) = said {
                next.told = next.told.max(said.written);
                next.heard = next.heard.max(said.time);
            }
            let newer = known.iter().any(|other| {
                other.sidecar == spool.sidecar
                    && other.number != spool.number
                    && other.heard > next.heard
            });
            let received = spool.received.sequence;
            let mut gap = |first: u64, last: u64, reason: &str| {
                gaps.push(Gap {
                    spool: spool.number,
                    first,
                    last,
                    time: now,
                    reason: reason.into(),
                    digest: None,
                });
            };
            if newer && next.told > received && now - next.heard > LATE {
                gap(received.saturating_add(1), next.told, "abandoned");
                next.told = received;
            }
            // All it wrote is here, and it answered more than it recorded (E5).
            let (start, ordinal) = spool.start;
            if let Some(said) = said
                && said.behind.is_none()
                && start == said.start
                && said.allows > ordinal
            {
                gap(ordinal.saturating_add(1), said.allows, "unrecorded");
            }
            if next != *spool {
                changed.push(next);
            }
        }
        let known = self.gaps();
        gaps.retain(|gap| {
            let same = |known: &Gap| {
                (known.spool, known.first, &known.reason) == (gap.spool, gap.first, &gap.reason)
            };
            !known.iter().any(same)
        });
        if !changed.is_empty() || !gaps.is_empty() {
            self.keep(changed, gaps).await?;
        }
        self.hidden().await?;
        self.note().await
    }

    /// Notes which exceptions' uses the gaps may hide.
    async fn hidden(&self) -> Result<(), String> {
        let gaps = self.gaps();
        if gaps.is_empty() {
            return Ok(());
        }
        let view = self.registry.view();
        let mut hidden: HashMap<Box<str>, (u64, Timestamp)> = HashMap::new();
        for spool in self.known() {
            let gaps = gaps.iter().filter(|gap| gap.spool == spool.number);
            let times: Vec<_> = gaps.map(|gap| gap.time).collect();
            if times.is_empty() {
                continue;
            }
            let scope = self.guests.scope_of(&spool.sidecar);
            let telling = self.file.exceptions_of(spool.number).await;
            let telling = telling.map_err(|error| error.to_string())?;
            for exception in view.snapshot.exceptions() {
                let held = scope.as_ref().is_some_and(|scope| {
                    scope.holds_selector(&exception.scope.subjects, &view.snapshot)
                });
                if !held && !telling.iter().any(|id| **id == *exception.id.as_str()) {
                    continue;
                }
                let lived = |time: &&Timestamp| **time >= exception.effective_time;
                for time in times.iter().filter(lived) {
                    let known = hidden.entry(exception.id.as_str().into());
                    let known = known.or_insert((0, *time));
                    *known = (known.0.saturating_add(1), known.1.max(*time));
                }
            }
        }
        self.registry.uses.hidden(hidden);
        Ok(())
    }

    /// Spools that are spoken of, and of which nothing has come yet.
    async fn begun(&self, told: &HashMap<(Box<str>, SpoolId), Told>) -> Result<(), String> {
        let fresh: Vec<KnownSpool> = {
            let spools = self.spools();
            let numbers = spools.values().map(|spool| spool.number);
            let last = numbers.max().unwrap_or(0);
            let unknown = told.iter().filter(|(key, _)| !spools.contains_key(*key));
            (last.saturating_add(1)..)
                .zip(unknown)
                .map(|(number, ((sidecar, spool), said))| KnownSpool {
                    number,
                    sidecar: sidecar.clone(),
                    spool: *spool,
                    received: Chained::default(),
                    told: said.written,
                    heard: said.time,
                    start: (0, 0),
                    noted: 0,
                })
                .collect()
        };
        if fresh.is_empty() {
            return Ok(());
        }
        self.begin(fresh).await
    }

    async fn keep(&self, changed: Vec<KnownSpool>, gaps: Vec<Gap>) -> Result<(), String> {
        // What came in between goes on from where it is.
        let merged: Vec<KnownSpool> = {
            let spools = self.spools();
            let with = |changed: KnownSpool| {
                let key = (changed.sidecar.clone(), changed.spool);
                let present = spools.get(&key);
                present.map_or(changed.clone(), |present| KnownSpool {
                    told: changed.told.max(present.received.sequence),
                    heard: changed.heard.max(present.heard),
                    noted: changed.noted.max(present.noted),
                    ..present.clone()
                })
            };
            changed.into_iter().map(with).collect()
        };
        let kept = self.file.mark(&merged, &gaps).await;
        kept.map_err(|error| error.to_string())?;
        let mut spools = self.spools();
        for marked in merged {
            if let Some(known) = spools.get_mut(&(marked.sidecar.clone(), marked.spool)) {
                (known.told, known.heard, known.noted) = (marked.told, marked.heard, marked.noted);
            }
        }
        drop(spools);
        self.gaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(gaps);
        Ok(())
    }

    /// Enters in the ledger how far each spool has come.
    async fn note(&self) -> Result<(), String> {
        if self.registry.view().read_only.is_some() {
            return Ok(());
        }
        let news: Vec<KnownSpool> = self
            .known()
            .into_iter()
            .filter(|spool| spool.received.sequence > spool.noted)
            .collect();
        // Those that wait the longest: no spool keeps another from the ledger.
        let mut news = news;
        news.sort_by_key(|spool| spool.heard);
        news.truncate(NOTED);
        if news.is_empty() {
            return Ok(());
        }
        let gaps = self.gaps();
        let mut action = NOTING.to_owned();
        for spool in &news {
            let first = spool.noted.saturating_add(1);
            let Chained { sequence, digest } = spool.received;
            // Writing to a string does not fail.
            let _ = writeln!(
                action,
                "{} {} {first}-{sequence} sha256:{}",
                spool.sidecar,
                spool.spool,
                hex(&digest)
            );
            // What never came is said too: without it an export could leave out what did.
            let of = |gap: &&Gap| {
                gap.spool == spool.number && gap.first >= first && gap.last <= sequence
            };
            for gap in gaps.iter().filter(of) {
                if let Some(digest) = &gap.digest {
                    let _ = writeln!(
                        action,
                        "{MISSING}{} {} {}-{} sha256:{}",
                        spool.sidecar,
                        spool.spool,
                        gap.first,
                        gap.last,
                        hex(digest)
                    );
                }
            }
        }
        let noted = self.registry.note(SYSTEM, action.trim_end()).await;
        noted.map_err(|refused| format!("{refused:?}"))?;
        let marked = news.into_iter().map(|spool| KnownSpool {
            noted: spool.received.sequence,
            ..spool
        });
        self.keep(marked.collect(), Vec::new()).await
    }

    /// The spools where an exception may have been used: of sidecars that may hold it, and those that
    /// tell of it.
    pub(super) async fn sources(&self, exception: &ExceptionId) -> Result<Vec<KnownSpool>, Error> {
        let telling = self.file.spools_of(exception).await.map_err(Error::Store)?;
        let view = self.registry.view();
        let held = view.snapshot.exception(exception.as_str());
        let may = |spool: &KnownSpool| {
            let scope = self.guests.scope_of(&spool.sidecar);
            let (Some(scope), Some(exception)) = (scope, held) else {
                return false;
            };
            spool.heard >= exception.effective_time
                && scope.holds_selector(&exception.scope.subjects, &view.snapshot)
        };
        // From the file, as what they told is: memory follows it.
        let mut sources = self.file.spools().await.map_err(Error::Store)?;
        {
            let told = self.registry.uses.told();
            for spool in &mut sources {
                if let Some(said) = told.get(&(spool.sidecar.clone(), spool.spool)) {
                    spool.told = spool.told.max(said.written);
                    spool.heard = spool.heard.max(said.time);
                }
            }
        }
        sources.retain(|spool| telling.contains(&spool.number) || may(spool));
        Ok(sources)
    }
}
