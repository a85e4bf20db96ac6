//! What sidecars recorded of exceptions: taken once, held against the exception as it was granted,
//! and entered in the ledger.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        Chained, Edit, Exception, ExceptionId, Hash, Invalid, Kind, Name, Selector, Span, SpoolId,
        SubjectId, Timestamp, Usage, UsageKind,
    },
    engine::{
        Change,
        usage::{Forked, Standing, accept, standing},
    },
    manifest::change,
    wire::{Fault, decoded, usage::usage, v1},
};

use super::{
    authn::Guests,
    core::{Error, Registry},
    scope::Scope,
    store::{Gap, KnownSpool, UsageFile, UsageRow},
    view::View,
};

/// Most records of one message.
const MOST: usize = 5_000;
/// Most spools of one sidecar: one is begun where there is none, or a broken one.
const SPOOLS: usize = 1_000;
/// No spool has so many records.
const FARTHEST: u64 = 1 << 60;
/// Most messages that are committed together.
const TOGETHER: usize = 64;
/// Most messages that wait.
const WAITING: usize = 256;
/// Most revisions of exceptions that are remembered.
const REMEMBERED: usize = 10_000;

type Key = (Box<str>, SpoolId);
type Revisions = HashMap<(ExceptionId, u64), Option<Arc<Exception>>>;

enum Job {
    /// Records that came.
    Take(Came),
    /// Spools that are spoken of.
    Begin(Vec<KnownSpool>, oneshot::Sender<Result<(), String>>),
}

struct Came {
    sidecar: Box<str>,
    scope: Arc<Scope>,
    batch: v1::UsageBatch,
    answer: oneshot::Sender<Result<v1::UsageReceipt, Fault>>,
}

/// Usage records of a registry.
#[derive(Debug)]
pub(super) struct Usages {
    pub(super) registry: Arc<Registry>,
    pub(super) guests: Arc<Guests>,
    pub(super) file: UsageFile,
    jobs: mpsc::Sender<Job>,
    incoming: Mutex<Option<mpsc::Receiver<Job>>>,
    spools: Mutex<HashMap<Key, KnownSpool>>,
    pub(super) gaps: Mutex<Vec<Gap>>,
    revisions: Mutex<Revisions>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// What a message comes to.
struct Prepared {
    spool: KnownSpool,
    rows: Vec<UsageRow>,
    gaps: Vec<Gap>,
}

impl Usages {
    /// Opens the records beside a registry's store.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened or read.
    pub(super) async fn open(
        registry: &Arc<Registry>,
        guests: &Arc<Guests>,
        path: &Path,
    ) -> Result<Self, Error> {
        let file = UsageFile::open_file(path).await.map_err(Error::Store)?;
        let (jobs, incoming) = mpsc::channel(WAITING);
        let spools = file.spools().await.map_err(Error::Store)?;
        let gaps = file.gaps().await.map_err(Error::Store)?;
        let uses = &registry.uses;
        let now = registry.clock.now().latest;
        let since = now + Span::from_days(-2);
        for row in file.recent(since).await.map_err(Error::Store)? {
            uses.count(&row, row.time.min(now));
        }
        uses.begin();
        let by_key = |spool: KnownSpool| ((spool.sidecar.clone(), spool.spool), spool);
        Ok(Self {
            registry: Arc::clone(registry),
            guests: Arc::clone(guests),
            file,
            jobs,
            incoming: Mutex::new(Some(incoming)),
            spools: Mutex::new(spools.into_iter().map(by_key).collect()),
            gaps: Mutex::new(gaps),
            revisions: Mutex::default(),
        })
    }

    pub(super) fn spools(&self) -> MutexGuard<'_, HashMap<Key, KnownSpool>> {
        self.spools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every gap there is.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        self.gaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The spools, by number.
    pub(super) fn known(&self) -> Vec<KnownSpool> {
        let mut known: Vec<_> = self.spools().values().cloned().collect();
        known.sort_by_key(|spool| spool.number);
        known
    }

    /// Takes records of a sidecar; answered once they are kept for good.
    pub(super) async fn take(
        &self,
        sidecar: &str,
        scope: &Arc<Scope>,
        batch: v1::UsageBatch,
    ) -> Result<v1::UsageReceipt, Fault> {
        if batch.records.is_empty() || batch.records.len() > MOST {
            let count = batch.records.len();
            let fix = format!("send 1 to {MOST}");
            let invalid = Invalid::new("usage.records", format!("has {count} items"), fix);
            return Err(Fault::Invalid(invalid));
        }
        let gone = || Fault::Unavailable("the registry stops".into());
        let (answer, taken) = oneshot::channel();
        let job = Job::Take(Came {
            sidecar: sidecar.into(),
            scope: Arc::clone(scope),
            batch,
            answer,
        });
        self.jobs.send(job).await.map_err(|_| gone())?;
        taken.await.map_err(|_| gone())?
    }

    /// Takes in what comes until there is nobody left to send it.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        let incoming = {
            let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            incoming.take()
        };
        let Some(mut jobs) = incoming else {
            return Err("it runs already".into());
        };
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                job = jobs.recv() => job,
            };
            let Some(first) = first else { return Ok(()) };
            let mut together = vec![first];
            while together.len() < TOGETHER
                && let Ok(job) = jobs.try_recv()
            {
                together.push(job);
            }
            self.work(together).await;
        }
    }

    /// Notes spools that are spoken of, and of which nothing has come.
    pub(super) async fn begin(&self, fresh: Vec<KnownSpool>) -> Result<(), String> {
        let (done, noted) = oneshot::channel();
        let gone = |_| "the registry stops".to_owned();
        let job = Job::Begin(fresh, done);
        self.jobs
            .send(job)
            .await
            .map_err(|_| "the registry stops".to_owned())?;
        noted.await.map_err(gone)?
    }

    async fn begins(
        &self,
        mut fresh: Vec<KnownSpool>,
        together: &HashMap<Key, KnownSpool>,
    ) -> Result<(), String> {
        {
            let spools = self.spools();
            let known = |spool: &KnownSpool| {
                let key = (spool.sidecar.clone(), spool.spool);
                together.contains_key(&key) || spools.contains_key(&key)
            };
            fresh.retain(|spool| !known(spool));
            let numbers = spools.values().chain(together.values());
            let last = numbers.map(|spool| spool.number).max().unwrap_or(0);
            for (number, spool) in (last.saturating_add(1)..).zip(&mut fresh) {
                spool.number = number;
            }
        }
        let kept = self.file.take(&fresh, &[], &[]).await;
        kept.map_err(|error| error.to_string())?;
        let by_key = |spool: KnownSpool| ((spool.sidecar.clone(), spool.spool), spool);
        self.spools().extend(fresh.into_iter().map(by_key));
        Ok(())
    }

    async fn work(&self, jobs: Vec<Job>) {
        let mut spools: HashMap<Key, KnownSpool> = HashMap::new();
        let (mut rows, mut gaps, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            let job = match job {
                Job::Take(job) => job,
                Job::Begin(fresh, done) => {
                    let _ = done.send(self.begins(fresh, &spools).await);
                    continue;
                }
            };
            match self.prepared(&job, &spools).await {
                Ok(prepared) => {
                    let number = prepared.spool.number;
                    let receipt = v1::UsageReceipt {
                        spool_id: prepared.spool.spool.0.to_vec(),
                        acknowledged: prepared.spool.received.sequence,
                    };
                    let key = (prepared.spool.sidecar.clone(), prepared.spool.spool);
                    spools.insert(key, prepared.spool);
                    rows.extend(prepared.rows.into_iter().map(|row| (number, row)));
                    gaps.extend(prepared.gaps);
                    answers.push((job.answer, receipt));
                }
                Err(fault) => {
                    tracing::warn!(sidecar = %job.sidecar, ?fault, "usage records are not taken");
                    let _ = job.answer.send(Err(fault));
                }
            }
        }
        let known: Vec<_> = spools.values().cloned().collect();
        let taken = self.file.take(&known, &rows, &gaps).await;
        let now = self.registry.clock.now().latest;
        match &taken {
            Ok(()) => {
                for gap in &gaps {
                    tracing::error!(
                        spool = gap.spool,
                        first = gap.first,
                        last = gap.last,
                        reason = &*gap.reason,
                        "usage records are missing"
                    );
                }
                self.gaps
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(gaps);
                // After the gaps: whoever sees how far a spool has come sees what is missing of it.
                self.spools().extend(spools);
                for (_, row) in &rows {
                    if row.kind == Some(UsageKind::ReliedOn)
                        && matches!(row.standing, Standing::Outside | Standing::Untimely)
                    {
                        tracing::error!(
                            exception = &*row.exception,
                            standing = ?row.standing,
                            "it was relied on where it does not hold"
                        );
                    }
                    self.registry.uses.count(row, now);
                }
                let metrics = &self.registry.witness.metrics;
                metrics.recorded(rows.len() as u64);
            }
            Err(error) => tracing::error!(%error, "usage records cannot be kept"),
        }
        for (answer, receipt) in answers {
            let told = taken.clone().map(|()| receipt);
            let _ = answer.send(told.map_err(|error| Fault::from(Error::Store(error))));
        }
    }

    /// What a message comes to, after what is being taken with it.
    async fn prepared(
        &self,
        job: &Came,
        together: &HashMap<Key, KnownSpool>,
    ) -> Result<Prepared, Fault> {
        let wrong = |field: &str, what: &str| {
            Fault::Invalid(Invalid::new(field, what, "use a sidecar of this version"))
        };
        let batch = &job.batch;
        let id = SpoolId::from_slice(&batch.spool_id)
            .ok_or_else(|| wrong("usage.spool_id", "is not sixteen bytes"))?;
        let digest = Hash::try_from(batch.digest_before.as_slice())
            .map_err(|_| wrong("usage.digest_before", "is not thirty-two bytes"))?;
        if batch.after > FARTHEST {
            return Err(wrong("usage.after", "is beyond any record"));
        }
        let key = (job.sidecar.clone(), id);
        let now = self.registry.clock.now().latest;
        let known = {
            let spools = self.spools();
            let known = together.get(&key).or_else(|| spools.get(&key)).cloned();
            let of = |known: &&Key| known.0 == job.sidecar;
            if known.is_none() && spools.keys().filter(of).count() >= SPOOLS {
                return Err(Fault::Precondition(format!(
                    "`{}` has begun {SPOOLS} spools; look at its disk, and give it another name",
                    job.sidecar
                )));
            }
            known.unwrap_or_else(|| KnownSpool {
                number: spools
                    .values()
                    .chain(together.values())
                    .map(|spool| spool.number)
                    .max()
                    .unwrap_or(0)
                    .saturating_add(1),
                sidecar: job.sidecar.clone(),
                spool: id,
                received: Chained::default(),
                told: 0,
                heard: now,
                start: (0, 0),
                noted: 0,
            })
        };
        let after = Chained {
            sequence: batch.after,
            digest,
        };
        let accepted = match accept(known.received, after, &batch.records) {
            Ok(accepted) if self.same(&known, &accepted.end, batch).await? => accepted,
            Ok(_) | Err(Forked::Chain) => {
                return Err(Fault::Conflict(format!(
                    "these records do not follow on the {} that came before: two sidecars write as `{}`, or its spool was changed; remove the spool, and look into it",
                    known.received.sequence, job.sidecar
                )));
            }
        };
        let view = self.registry.view();
        let mut rows = Vec::with_capacity(batch.records.len());
        let mut start = known.start;
        let numbered = (batch.after.saturating_add(1)..).zip(&batch.records);
        let mut gaps = Vec::new();
        for (sequence, record) in numbered.skip(accepted.known) {
            let (row, ordinal) = self.row(sequence, record, &job.scope, &view, now).await?;
            if let Some((of, ordinal)) = ordinal {
                let before = if start.0 == of { start.1 } else { 0 };
                start = (of, before.max(ordinal));
            }
            if row.kind.is_none() {
                // Of whose use it tells nobody can say: it may be of any.
                let next = |gap: &&mut Gap| gap.last.saturating_add(1) == sequence;
                match gaps.last_mut().filter(next) {
                    Some(gap) => gap.last = sequence,
                    None => gaps.push(Gap {
                        spool: known.number,
                        first: sequence,
                        last: sequence,
                        time: now,
                        reason: "unreadable".into(),
                        digest: None,
                    }),
                }
            }
            rows.push(row);
        }
        gaps.extend(accepted.gap.map(|(first, last)| Gap {
            spool: known.number,
            first,
            last,
            time: now,
            reason: "lost".into(),
            digest: Some(digest),
        }));
        Ok(Prepared {
            spool: KnownSpool {
                received: accepted.end,
                told: known.told.max(accepted.end.sequence),
                heard: now,
                start,
                ..known
            },
            rows,
            gaps,
        })
    }

    /// Whether records that had all come before are the ones that came.
    async fn same(
        &self,
        known: &KnownSpool,
        end: &Chained,
        batch: &v1::UsageBatch,
    ) -> Result<bool, Fault> {
        let last = batch.after.saturating_add(batch.records.len() as u64);
        if *end != known.received || last == known.received.sequence {
            return Ok(true);
        }
        let kept = self.file.record(known.number, last).await;
        let kept = kept.map_err(|error| Fault::from(Error::Store(error)))?;
        Ok(kept.as_ref() == batch.records.last())
    }

    /// A record as it is kept, and its start and ordinal if it is a use.
    async fn row(
        &self,
        sequence: u64,
        record: &[u8],
        scope: &Scope,
        view: &View,
        now: Timestamp,
    ) -> Result<(UsageRow, Option<(u64, u64)>), Fault> {
        let read = decoded::<v1::UsageRecord>(record).and_then(|message| {
            let counted = (message.start, message.ordinal);
            Ok((usage(message).map_err(|error| error.to_string())?, counted))
        });
        let (usage, counted) = match read {
            Ok(read) => read,
            Err(why) => {
                tracing::error!(
                    why,
                    sequence,
                    "a usage record cannot be read; it is kept as it is"
                );
                let row = UsageRow {
                    sequence,
                    exception: "".into(),
                    kind: None,
                    standing: Standing::Unknown,
                    time: now,
                    count: 1,
                    dimension: None,
                    withdraws: None,
                    record: record.to_vec(),
                };
                return Ok((row, None));
            }
        };
        let exception = self
            .revision(&usage.exception, usage.revision, view)
            .await?;
        let foreign = !self.stands_for(scope, &usage, exception.as_deref(), view);
        let relied = usage.kind == UsageKind::ReliedOn;
        let row = UsageRow {
            sequence,
            exception: usage.exception.as_str().into(),
            kind: Some(usage.kind),
            standing: if foreign {
                Standing::Foreign
            } else {
                standing(&usage, exception.as_deref())
            },
            time: usage.time,
            count: usage.count,
            dimension: usage.dimension.map(|dimension| dimension.name().into()),
            withdraws: (usage.kind == UsageKind::Withdrawn).then(|| usage.decision.clone()),
            record: record.to_vec(),
        };
        Ok((row, relied.then_some(counted)))
    }

    /// Whether a sidecar may speak of a use: it stands for the subject, which the exception names.
    fn stands_for(
        &self,
        scope: &Scope,
        usage: &Usage,
        exception: Option<&Exception>,
        view: &View,
    ) -> bool {
        let id = usage.subject.as_str();
        let known = view.snapshot.subject(id);
        let kept = |id: &SubjectId| self.registry.kept_under(scope, id, view);
        // An instance whose registration is over by now is known by its class.
        let class = || {
            let class = SubjectId::parse(usage.class.as_ref()?.as_str()).ok()?;
            kept(&class)
        };
        let under = match known {
            Some(_) => kept(&usage.subject),
            None => kept(&usage.subject).or_else(class),
        };
        let Some(under) = under else {
            // Of who is gone for good only those speak that hold everything.
            return known.is_none() && scope.is_all();
        };
        match exception.map(|exception| &exception.scope.subjects) {
            None => true,
            Some(Selector::Ids(ids)) => ids.contains(&usage.subject),
            Some(Selector::Classes(classes)) => {
                let own = known.and_then(|subject| subject.class.as_ref());
                classes
                    .iter()
                    .any(|class| class.as_str() == under.as_str() || own == Some(class))
            }
        }
    }

    /// An exception as it was at a revision; nothing if it never was.
    async fn revision(
        &self,
        id: &ExceptionId,
        revision: u64,
        view: &View,
    ) -> Result<Option<Arc<Exception>>, Fault> {
        if let Some(present) = view.snapshot.exception(id.as_str())
            && present.revision == revision
        {
            return Ok(Some(Arc::clone(present)));
        }
        let key = (id.clone(), revision);
        {
            let known = self
                .revisions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = known.get(&key) {
                return Ok(known.clone());
            }
        }
        let name = Name::new(Kind::Exception, id.as_str());
        let past = self
            .registry
            .store
            .history(&name, u64::MAX >> 1, usize::MAX >> 1);
        let past = past
            .await
            .map_err(|error| Fault::from(Error::Store(error)))?;
        let stored = past.into_iter().find(|stored| stored.revision == revision);
        let found = stored.and_then(|stored| {
            let edit = Edit {
                name,
                revision,
                manifest: Some(stored.manifest?),
            };
            match change(&edit).ok()? {
                Change::PutException(exception) => Some(Arc::new(exception)),
                _ => None,
            }
        });
        let mut known = self
            .revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        // What is not there yet may come.
        if found.is_some() {
            known.insert(key, found.clone());
        }
        Ok(found)
    }
}
