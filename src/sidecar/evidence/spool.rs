//! The spool: records that are durable before an answer leaves. One task writes; whatever waits for
//! it is committed together.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Chained, Evidenced, ExceptionId, SpoolId, Timestamp},
    telemetry::Metrics,
    wire::v1,
};

use super::file::{self, File, Keeping, Place, Spent, Wrong, copy_back};

/// Most records of one commit.
const MOST: usize = 1_024;
/// Most bytes of one commit, but for a record that is larger.
const GROUP: usize = 512 << 10;
/// Most records that wait to be written, and most bytes of them.
const WAITING: usize = 8_192;
const WAITING_BYTES: u64 = 16 << 20;
/// How long until a spool that failed is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the write-ahead log is copied back.
const COPY: Duration = Duration::from_secs(1);
/// How much is read for the registry at once.
const BATCH: usize = 1 << 20;

/// Something that is to be written.
#[derive(Debug)]
pub(in crate::sidecar) struct Entry {
    /// The record.
    pub(in crate::sidecar) record: Vec<u8>,
    /// The exception and when, if its uses are counted here.
    pub(in crate::sidecar) spent: Option<(ExceptionId, Timestamp)>,
}

/// Why records are not known to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Unkept {
    /// They are not written, and will not be.
    Refused,
    /// It took too long; they may yet be.
    Late,
}

type Kept = Result<u64, Unkept>;

#[derive(Debug)]
enum Job {
    /// Write this; who waits is told the record's number once it is durable.
    Write(Vec<Entry>, Option<oneshot::Sender<Kept>>),
    /// Read the oldest records.
    Read(oneshot::Sender<Option<v1::UsageBatch>>),
    /// The registry has everything up to a record.
    Taken(SpoolId, u64),
}

/// What the writer begins with: what is handed in, and the file if it could be opened.
type Begun = (mpsc::Receiver<Job>, Option<(Place, File)>);

/// Records on their way to the disk, and from there to the registry.
#[derive(Debug)]
pub(in crate::sidecar) struct Spool {
    folder: PathBuf,
    keeping: Keeping,
    most: u64,
    jobs: mpsc::Sender<Job>,
    begun: Mutex<Option<Begun>>,
    state: AtomicU8,
    waiting: AtomicU64,
    /// Allows that were answered and recorded.
    answers: AtomicU64,
    /// What was used before, once it is known and until somebody asks.
    spent: Mutex<Option<Spent>>,
    reserve: AtomicBool,
    /// Whether it was said to be filling.
    filling: AtomicBool,
    at: Mutex<(Option<SpoolId>, u64)>,
    path: Mutex<Option<PathBuf>>,
    /// There is something new to be reported.
    pub(in crate::sidecar) news: Notify,
    metrics: Metrics,
}

fn evidenced(state: u8) -> Evidenced {
    match state {
        0 => Evidenced::Kept,
        1 => Evidenced::Scarce,
        _ => Evidenced::Lost,
    }
}

impl Spool {
    /// Opens a folder's spool of at `most` so many bytes. One that cannot be opened is tried again
    /// once the spool runs: until then no exception grants anything.
    pub(in crate::sidecar) async fn open(
        folder: PathBuf,
        keeping: Keeping,
        most: u64,
        metrics: Metrics,
    ) -> Self {
        let (jobs, incoming) = mpsc::channel(WAITING);
        let spool = Self {
            folder,
            keeping,
            most,
            jobs,
            begun: Mutex::default(),
            state: AtomicU8::new(2),
            waiting: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            spent: Mutex::default(),
            reserve: AtomicBool::new(false),
            filling: AtomicBool::new(false),
            at: Mutex::default(),
            path: Mutex::default(),
            news: Notify::new(),
            metrics,
        };
        let opened = match spool.anew(None, None).await {
            Ok((place, file)) => {
                spool.tell(&file);
                Some((place, file))
            }
            Err((_, why)) => {
                spool.fail(&why);
                None
            }
        };
        *spool.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some((incoming, opened));
        spool
    }

    /// What was used before, as it is counted here; told once, when it is known.
    pub(in crate::sidecar) fn spent(&self) -> Option<Spent> {
        self.spent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Counts an answer that rests on what is recorded.
    pub(in crate::sidecar) fn answered(&self, recorded: bool) {
        if recorded {
            self.answers.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How many answers rest on what is recorded, since the start.
    pub(in crate::sidecar) fn answers(&self) -> u64 {
        self.answers.load(Ordering::SeqCst)
    }

    /// Whether uses can be recorded.
    pub(in crate::sidecar) fn evidenced(&self) -> Evidenced {
        evidenced(self.state.load(Ordering::Relaxed))
    }

    /// The spool, and how many records were ever written to it.
    pub(in crate::sidecar) fn written(&self) -> (Option<SpoolId>, u64) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, why: &Wrong) {
        if self.state.swap(2, Ordering::SeqCst) != 2 {
            self.metrics.usage_failed();
        }
        tracing::error!(%why, folder = %self.folder.display(), "uses of exceptions cannot be recorded; no exception is honoured until they can, and other calls go on");
    }

    /// Tells how full it is: a tenth is for what is not an allow, and of the rest tiers that may do
    /// without a record go first (reliability §7).
    fn tell(&self, file: &File) {
        let usable = self.most / 10 * 9;
        let at = |part: u64| file.bytes >= usable / 100 * part;
        let state = match self.keeping {
            Keeping::UntilTaken if at(100) => 2,
            Keeping::UntilTaken if at(95) => 1,
            Keeping::UntilTaken | Keeping::Newest => 0,
        };
        let before = self.state.swap(state, Ordering::SeqCst);
        let (folder, bytes) = (self.folder.display(), file.bytes);
        let filling = matches!(self.keeping, Keeping::UntilTaken) && at(80);
        if self.filling.swap(filling, Ordering::Relaxed) != filling && filling && state == 0 {
            tracing::warn!(%folder, bytes, limit = self.most, "the spool of usage records is filling: the registry takes none, or too few");
        }
        match state {
            same if same == before => {}
            0 => tracing::info!(%folder, "uses of exceptions are recorded"),
            1 => {
                tracing::warn!(%folder, bytes, "the spool of usage records is nearly full: exceptions of tier LOW are not honoured until the registry has taken some");
            }
            _ => {
                tracing::error!(%folder, bytes, "the spool of usage records is full: no exception is honoured until the registry has taken some");
            }
        }
        self.reserve
            .store(file.bytes >= self.most, Ordering::Relaxed);
        self.metrics
            .usage_spool((file.records, file.bytes), self.most, evidenced(state));
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) =
            (Some(file.id), file.end.sequence);
    }

    /// Hands records in; false if there is no room.
    fn submit(&self, entries: Vec<Entry>, done: Option<oneshot::Sender<Kept>>) -> bool {
        let bytes: u64 = entries.iter().map(|entry| entry.record.len() as u64).sum();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= WAITING_BYTES;
        if fits && self.jobs.try_send(Job::Write(entries, done)).is_ok() {
            return true;
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    /// Writes records and waits until they are durable; tells the number of the first.
    pub(in crate::sidecar) async fn keep(
        &self,
        entries: Vec<Entry>,
        deadline: Instant,
    ) -> Result<u64, Unkept> {
        let (done, kept) = oneshot::channel();
        if !self.submit(entries, Some(done)) {
            return Err(Unkept::Refused);
        }
        match timeout_at(deadline, kept).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) | Err(_) => Err(Unkept::Late),
        }
    }

    /// Writes records of decisions that nobody waits for. What there is no room for is counted.
    pub(in crate::sidecar) fn note(&self, entries: Vec<Entry>) {
        let count = entries.len() as u64;
        if self.evidenced() == Evidenced::Lost && self.reserve.load(Ordering::Relaxed) {
            self.metrics.usage_dropped("full", count);
        } else if !self.submit(entries, None) {
            self.metrics.usage_dropped("overload", count);
        }
    }

    /// The oldest records that the registry has not taken.
    pub(in crate::sidecar) async fn unsent(&self) -> Option<v1::UsageBatch> {
        let (answer, read) = oneshot::channel();
        self.jobs.send(Job::Read(answer)).await.ok()?;
        read.await.ok()?
    }

    /// The registry has everything of a spool up to a record.
    pub(in crate::sidecar) async fn taken(&self, spool: SpoolId, through: u64) {
        let _ = self.jobs.send(Job::Taken(spool, through)).await;
    }

    /// Copies the write-ahead log back while there is something new in it.
    pub(in crate::sidecar) async fn copy(
        self: std::sync::Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let mut known = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep(COPY) => {}
            }
            let path = self
                .path
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let (_, written) = self.written();
            if let Some(path) = path
                && written != known
            {
                known = written;
                // What cannot be copied stays where it is.
                if let Err(why) = copy_back(&path).await {
                    tracing::debug!(%why, "the spool's log is not copied back");
                }
            }
        }
    }

    /// Writes for as long as somebody may hand something in.
    pub(in crate::sidecar) async fn write(self: std::sync::Arc<Self>) -> Result<(), String> {
        let begun = self
            .begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((mut jobs, mut opened)) = begun else {
            return Err("it runs already".into());
        };
        let mut known: Option<(SpoolId, Chained)> = None;
        let mut held: Option<Place> = None;
        let mut again = Instant::now() + AGAIN;
        loop {
            let Some((_, file)) = &mut opened else {
                // Whoever asks in the meantime is refused, and does not wait.
                tokio::select! {
                    biased;
                    () = sleep_until(again) => again = Instant::now() + AGAIN,
                    job = jobs.recv() => {
                        let Some(job) = job else { return Ok(()) };
                        self.refuse(job);
                        continue;
                    }
                }
                match self.anew(held.take(), known).await {
                    Ok((place, file)) => {
                        self.tell(&file);
                        opened = Some((place, file));
                    }
                    Err((place, why)) => {
                        held = place;
                        self.fail(&why);
                    }
                }
                continue;
            };
            known = Some((file.id, file.end));
            let Some(first) = jobs.recv().await else {
                return Ok(());
            };
            if let Err(why) = self.work(file, first, &mut jobs).await {
                self.fail(&why);
                // What a failed sync left nobody knows: nothing more is written to it as it is.
                if let Some((place, file)) = opened.take() {
                    // What was committed was told: it stays.
                    known = Some((file.id, file.end));
                    held = Some(place);
                    file.close().await;
                    again = Instant::now() + AGAIN;
                }
            }
        }
    }

    /// Opens the spool anew, and does not believe what was said to have failed.
    async fn anew(
        &self,
        place: Option<Place>,
        known: Option<(SpoolId, Chained)>,
    ) -> Result<(Place, File), (Option<Place>, Wrong)> {
        let place = match place {
            Some(place) => place,
            None => Place::hold(&self.folder, self.keeping).map_err(|why| (None, why))?,
        };
        let mut file = match file::open(&place).await {
            Ok(file) => file,
            Err(why) => return Err((Some(place), why)),
        };
        for (first, last) in &file.broken {
            tracing::error!(
                first,
                last,
                "usage records are damaged and put aside, into the table `damaged`; the registry will miss them"
            );
            let lost = last.saturating_sub(*first).saturating_add(1);
            self.metrics.usage_dropped("damaged", lost);
        }
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.path.clone());
        let checked = async {
            if let Some((id, end)) = known
                && id == file.id
                && file.end != end
            {
                file.forget_beyond(end).await?;
            }
            if known.is_none() && self.keeping == Keeping::Newest {
                let spent = file.spent().await?;
                *self.spent.lock().unwrap_or_else(PoisonError::into_inner) = Some(spent);
            }
            // What was left from before is to be reported, too.
            self.news.notify_one();
            file.probe().await
        }
        .await;
        match checked {
            Ok(()) => Ok((place, file)),
            Err(why) => {
                file.close().await;
                Err((Some(place), why))
            }
        }
    }

    fn refuse(&self, job: Job) {
        if let Job::Write(entries, done) = job {
            self.written_off(&entries);
            if let Some(done) = done {
                let _ = done.send(Err(Unkept::Refused));
            } else {
                self.metrics.usage_dropped("failing", entries.len() as u64);
            }
        }
    }

    fn written_off(&self, entries: &[Entry]) {
        let bytes = entries.iter().map(|entry| entry.record.len() as u64).sum();
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Appends records in groups that one message to the registry holds.
    async fn append(
        &self,
        file: &mut File,
        records: Vec<Vec<u8>>,
        mut spent: Vec<(ExceptionId, Timestamp)>,
    ) -> Result<(), Wrong> {
        let (mut group, mut bytes) = (Vec::new(), 0_usize);
        for record in records {
            let full = bytes.saturating_add(record.len()) > GROUP || group.len() >= MOST;
            if full && !group.is_empty() {
                file.append(std::mem::take(&mut group), &std::mem::take(&mut spent))
                    .await?;
                bytes = 0;
            }
            bytes = bytes.saturating_add(record.len());
            group.push(record);
        }
        file.append(group, &spent).await?;
        self.tell(file);
        Ok(())
    }

    /// Does a job, and with one that writes every other that is waiting to.
    async fn work(
        &self,
        file: &mut File,
        first: Job,
        jobs: &mut mpsc::Receiver<Job>,
    ) -> Result<(), Wrong> {
        let (mut records, mut spent, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0_usize;
        let mut next = Some(first);
        let mut other = None;
        while let Some(job) = next.take() {
            match job {
                Job::Write(entries, done) => {
                    self.written_off(&entries);
                    waiting.push((records.len() as u64, entries.len() as u64, done));
                    for entry in entries {
                        bytes = bytes.saturating_add(entry.record.len());
                        records.push(entry.record);
                        spent.extend(entry.spent);
                    }
                    if records.len() < MOST && bytes < GROUP {
                        next = jobs.try_recv().ok();
                    }
                }
                job @ (Job::Read(..) | Job::Taken(..)) => other = Some(job),
            }
        }
        if !records.is_empty() {
            let before = file.end.sequence;
            let appended = self.append(file, records, spent).await;
            let reached = file.end.sequence.saturating_sub(before);
            for (place, count, done) in waiting {
                let kept = if place.saturating_add(count) <= reached {
                    Ok(before.saturating_add(place).saturating_add(1))
                } else if place < reached {
                    Err(Unkept::Late)
                } else {
                    Err(Unkept::Refused)
                };
                match done {
                    Some(done) => drop(done.send(kept)),
                    None if kept.is_err() => self.metrics.usage_dropped("failing", count),
                    None => {}
                }
            }
            if let Err(why) = appended {
                if let Some(job) = other {
                    self.refuse(job);
                }
                return Err(why);
            }
            self.news.notify_one();
        }
        match other {
            Some(Job::Read(answer)) => {
                let _ = answer.send(file.oldest(BATCH).await?);
            }
            Some(Job::Taken(spool, through)) if spool == file.id => {
                file.drop_through(through).await?;
                self.tell(file);
            }
            Some(Job::Taken(..) | Job::Write(..)) | None => {}
        }
        if self.keeping == Keeping::Newest && file.bytes > self.most {
            let dropped = file.drop_oldest(self.most / 10 * 9).await?;
            tracing::info!(
                dropped,
                "the oldest usage records make room; nobody collects them"
            );
            self.tell(file);
        }
        Ok(())
    }
}
