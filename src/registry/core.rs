//! The one writer: every accepted change is one transaction, durable before it is seen.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Mutex as Turn;

use crate::{
    domain::{Case, Era, Finding, Head, LogId, Span, Timestamp, Transaction},
    engine::{
        Attendance, Change, Snapshot,
        attendance::{Entered, Start, bound, longest_lease},
        follow::Beginning,
    },
    runtime::{
        clock::Clock,
        publish::{Changes, Published},
    },
    wire::{
        decoded,
        signed::{Pin, Purpose, Signer, Trust, random},
        sync::stamp,
        v1,
    },
};

use super::{
    cohort::{Cohort, Window},
    completions::Completions,
    fsck,
    instances::Instances,
    leases::Leases,
    ledger, news,
    role::{EXPELLED, Role},
    scope::Scope,
    store::{Heard, Store, StoreError},
    uses::Uses,
    view::View,
    witness::{Moved, Witness},
    workflow::Refused,
};

/// How far behind its own log the clock may be at the start (T6).
pub(super) const BEHIND: Span = Span::from_secs(5);
/// How far beyond everything seen a new epoch begins.
const LEAP: u64 = 1_000_000;

/// Why a registry does not start, or does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The store failed.
    Store(StoreError),
    /// The clock is behind the log, or there are no random numbers.
    Unfit(String),
    /// Nothing may be changed, and why.
    ReadOnly(Box<str>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Unfit(why) => f.write_str(why),
            Self::ReadOnly(why) => write!(f, "the registry is read-only: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Starts of sidecars, and since when they fence the ones before.
type Unsaved = HashMap<(Box<str>, Start), Option<Timestamp>>;

/// A registry over its store.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) store: Arc<dyn Store>,
    pub(super) signer: Signer,
    pub(super) clock: Clock,
    view: Arc<Published<View>>,
    writing: Arc<Turn<()>>,
    /// Where what is signed about the ledger is kept beside the store.
    pub(super) kept_note: Option<PathBuf>,
    /// Held by whoever signs a checkpoint.
    pub(super) signing: Turn<()>,
    windows: Arc<Mutex<HashMap<Scope, Window>>>,
    /// Why the last change could not be written; nothing once one could.
    unwritten: Arc<Mutex<Option<Box<str>>>>,
    attendance: Mutex<Attendance>,
    /// Goes up when somebody is let in or shut out, or a start takes another's place.
    turnover: AtomicU64,
    /// Starts that are not in the store yet, and since when they fence the one before.
    unsaved: Mutex<Unsaved>,
    pub(super) instances: Instances,
    /// Whoever writes controls may have them deny less: one person's registry.
    pub(super) weakens_at_will: bool,
    /// What is told of all this.
    pub(super) witness: Arc<Witness>,
    /// How long it took to take something back.
    pub(super) completions: Completions,
    /// How exceptions were used lately.
    pub(super) uses: Arc<Uses>,
    /// Whether an administrator may apply exceptions that nobody asked for.
    pub(super) applies_exceptions: bool,
    /// Changes kept for sidecars that were away.
    kept: usize,
}

impl Registry {
    /// Opens the store and takes up where it was left.
    ///
    /// # Errors
    ///
    /// A store that cannot be read, or a clock behind the log.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        signer: Signer,
        clock: Clock,
        kept: usize,
    ) -> Result<Self, Error> {
        let fresh = Era {
            log: LogId(random().map_err(Error::Unfit)?),
            epoch: 1,
        };
        let found = store.open(fresh).await?;
        let now = clock.now().latest;
        if found.time - now > BEHIND {
            return Err(Error::Unfit(format!(
                "the clock says {now} and the log's last entry is of {}; set the clock right",
                found.time
            )));
        }
        let (objects, removals) = (store.objects().await?, store.removals(0).await?);
        let ledger = fsck::audited(&*store, &found, &signer, &objects, &removals).await?;
        let mut view = View::new(&found, objects, removals)?;
        view.ledger = ledger;
        view.leases = Leases::read(&*store).await?;
        if found.beginning.era.epoch > 1 {
            let before = found.beginning.base.revision.saturating_sub(1);
            let first = store.transactions(before, 1).await?;
            view.began = first.first().map(|transaction| transaction.time);
        }
        if found.copied {
            view.read_only = Some(
                "it was restored from a backup; run `exeat registry recover`, so that sidecars give back what was revoked since".into(),
            );
        }
        let registry = Self {
            store,
            signer,
            attendance: Mutex::new(Attendance::new(clock.elapsed())),
            turnover: AtomicU64::new(0),
            unsaved: Mutex::default(),
            instances: Instances::default(),
            clock,
            view: Arc::default(),
            writing: Arc::default(),
            kept_note: None,
            signing: Turn::default(),
            windows: Arc::default(),
            unwritten: Arc::default(),
            weakens_at_will: false,
            applies_exceptions: false,
            witness: Arc::default(),
            uses: Arc::default(),
            completions: Completions::default(),
            kept,
        };
        registry.view.publish(Arc::new(view));
        // Before anything is accepted something is signed: a file without it was changed.
        registry.checkpoint().await?;
        registry.begin_attendance().await?;
        // The sidecars of a small registry all hold everything.
        registry.cohort(&Scope::all()).await?;
        Ok(registry)
    }

    /// What the registry holds now.
    pub(super) fn view(&self) -> Arc<View> {
        // Published at opening, before anybody can ask.
        self.view.get().unwrap_or_else(unreachable_view)
    }

    /// Signals each change of [`Self::view`].
    pub(super) fn changes(&self) -> Changes {
        self.view.changes()
    }

    /// The same, to whoever lets those go first who send removals.
    pub(super) fn changes_later(&self) -> Changes {
        self.view.changes_later()
    }

    /// Lets them know.
    pub(super) fn pass_on(&self) {
        self.view.pass_on();
    }

    /// The key that statements are signed with.
    pub(super) fn pin(&self) -> &Pin {
        self.signer.pin()
    }

    /// The statement that `next` replaces the present key.
    pub(super) fn succession(&self, next: &Signer) -> v1::Signed {
        let statement = v1::KeyStatement {
            log_id: self.view().beginning.era.log.0.to_vec(),
            public_key: next.pin().bytes().to_vec(),
            time: Some(stamp(self.clock.now().latest)),
            previous_key: self.pin().bytes().to_vec(),
        };
        self.signer.seal(Purpose::Key, &statement)
    }

    /// The keys that statements were ever signed with.
    pub(super) async fn trust(&self) -> Result<Trust, Error> {
        let statements = self.key_statements().await?;
        let first = statements.first().and_then(|first| {
            let first: v1::KeyStatement = decoded(&first.statement).ok()?;
            Pin::from_slice(&first.previous_key)
        });
        let mut trust = Trust::new(first.unwrap_or_else(|| self.pin().clone()));
        for statement in &statements {
            // Our own store; a statement that does not fit proves nothing.
            let _ = trust.rotate(statement);
        }
        Ok(trust)
    }

    /// How each key was replaced by the next, oldest first.
    pub(super) async fn key_statements(&self) -> Result<Vec<v1::Signed>, Error> {
        let kept = self.store.keys().await?;
        kept.iter()
            .map(|statement| decoded(statement).map_err(Error::Unfit))
            .collect()
    }

    /// Who attends.
    pub(super) fn attendance(&self) -> MutexGuard<'_, Attendance> {
        self.attendance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The changes of a scope that are still kept.
    pub(super) fn windows(&self) -> MutexGuard<'_, HashMap<Scope, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cohort of `scope` in a view that has it; made if there is none.
    ///
    /// # Errors
    ///
    /// None at present; making one takes the writer's turn.
    pub(super) async fn cohort(&self, scope: &Scope) -> Result<(Arc<View>, Arc<Cohort>), Error> {
        let view = self.view();
        if let Some(cohort) = view.cohorts.get(scope) {
            let cohort = Arc::clone(cohort);
            return Ok((view, cohort));
        }
        let _turn = self.writing.lock().await;
        let view = self.view();
        if let Some(cohort) = view.cohorts.get(scope) {
            let cohort = Arc::clone(cohort);
            return Ok((view, cohort));
        }
        let cohort = Arc::new(Cohort::new(scope.clone(), &view.objects, &view.snapshot));
        let mut next = (*view).clone();
        next.cohorts.insert(scope.clone(), Arc::clone(&cohort));
        self.windows().insert(
            scope.clone(),
            Window::new(view.head.revision).keeping(self.kept),
        );
        let next = Arc::new(next);
        self.view.publish(Arc::clone(&next));
        Ok((next, cohort))
    }

    /// What a transaction on `view` would begin from.
    pub(super) fn blank(&self, view: &View) -> Draft {
        Draft {
            revision: view.head.revision.saturating_add(1),
            sequence: view.head.sequence.saturating_add(1),
            time: self.clock.now().latest.max(view.time),
        }
    }

    /// Takes the writer's turn; what `draft` makes of the view is committed and then seen.
    pub(super) async fn write<T>(
        &self,
        draft: impl FnOnce(&View, Draft) -> Drafted<T>,
    ) -> Result<T, Refused> {
        let turn = Arc::clone(&self.writing).lock_owned().await;
        let view = self.view();
        let (drafted, answer) = draft(&view, self.blank(&view))?;
        let Some(planned) = drafted else {
            return Ok(answer);
        };
        if let Some(why) = &view.read_only {
            return Err(Error::ReadOnly(why.clone()).into());
        }
        let told = news::told(&view, &planned);
        let moved = Moved::of(&view, &planned);
        let (mut next, intervals) = view.after(&planned);
        let transaction = planned.transaction;
        let mut sealed = ledger::seal(&mut next.ledger, view.beginning.era, &transaction)?;
        sealed.erases = ledger::erases(&view, &transaction);
        sealed.urgent = ledger::takes_back(&transaction);
        sealed.told = told;
        sealed.heard = planned.heard;
        let (store, windows) = (Arc::clone(&self.store), Arc::clone(&self.windows));
        let published = Arc::clone(&self.view);
        let witness = Arc::clone(&self.witness);
        let unwritten = Arc::clone(&self.unwritten);
        // To its end, whatever becomes of the caller: what is committed is also seen.
        #[expect(clippy::disallowed_methods, reason = "waited for right here")]
        let committed = tokio::spawn(async move {
            let _turn = turn;
            let written = store.commit(&transaction, &sealed).await;
            let why = written.as_ref().err().and_then(StoreError::lasting);
            let time = transaction.time;
            let why = why
                .map(|why| format!("the last one, at {time}, could not be written: {why}").into());
            // What takes something back is written where nothing else is.
            if why.is_some() || !sealed.urgent {
                *unwritten.lock().unwrap_or_else(PoisonError::into_inner) = why;
            }
            written?;
            let Head { revision, sequence } = next.head;
            tracing::debug!(revision, sequence, "committed");
            let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
            for (scope, interval) in intervals {
                if let Some(window) = windows.get_mut(&scope) {
                    window.push(interval);
                }
            }
            drop(windows);
            published.publish(Arc::new(next));
            witness.committed(&moved);
            Ok::<_, StoreError>(())
        });
        committed
            .await
            .map_err(|error| Error::Unfit(error.to_string()))?
            .map_err(Error::Store)?;
        Ok(answer)
    }

    /// Why nothing may be changed, or the last change could not be.
    pub(super) fn closed(&self) -> Option<Box<str>> {
        let unwritten = self.unwritten.lock();
        let unwritten = unwritten.unwrap_or_else(PoisonError::into_inner).clone();
        self.view().read_only.clone().or(unwritten)
    }

    /// Stops changes if `lost` says why, of what is committed and published; tells what it said.
    pub(super) async fn stop_writing_if(
        &self,
        lost: impl FnOnce(&View) -> Option<String>,
    ) -> Option<String> {
        // Whoever came between a commit and its publication is looked at again after it.
        let _turn = self.writing.lock().await;
        let view = self.view();
        let why = lost(&view)?;
        if view.read_only.is_none() {
            tracing::error!(why, "read-only from now on");
            self.witness.metrics.broken();
            let mut next = (*view).clone();
            next.read_only = Some(why.clone().into());
            self.view.publish(Arc::new(next));
        }
        Some(why)
    }

    /// Begins a new epoch, beyond `seen` and everything known, and writes again.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(super) async fn recover(&self, seen: u64) -> Result<Beginning, Error> {
        let _turn = self.writing.lock().await;
        let view = self.view();
        let beginning = Beginning {
            era: Era {
                epoch: view.beginning.era.epoch.saturating_add(1),
                ..view.beginning.era
            },
            base: Head {
                revision: view.head.revision.max(seen).saturating_add(LEAP),
                sequence: view.head.sequence,
            },
        };
        let time = self.clock.now().latest.max(view.time);
        let mut next = (*view).clone();
        let transaction = ledger::beginning(&beginning, time);
        let sealed = ledger::seal(&mut next.ledger, beginning.era, &transaction)?;
        self.store.begin(&beginning, time, &sealed).await?;
        next.beginning = beginning;
        next.began = Some(time);
        next.head.revision = beginning.base.revision;
        next.time = time;
        next.read_only = None;
        // Nothing of an earlier epoch can be resumed.
        for window in self.windows().values_mut() {
            *window = Window::new(beginning.base.revision).keeping(self.kept);
        }
        // What was acknowledged was numbered in the epoch before; and who came since the copy is not
        // known, nor whether in more than one start.
        self.begin_attendance().await?;
        {
            let mut attendance = self.attendance();
            let names: Vec<_> = attendance.names().map(ToOwned::to_owned).collect();
            for name in names {
                attendance.expect_another(&name);
            }
        }
        self.view.publish(Arc::new(next));
        Ok(beginning)
    }

    /// How often who is let in, or which of their starts counts, has changed, as of `view`: as long
    /// as this is the same, so is that.
    pub(super) fn turnover(&self, view: &View) -> u64 {
        self.turnover
            .load(Ordering::SeqCst)
            .saturating_add(view.shut_out)
    }

    /// Has every stream look again whether it is let in, and forgets what was for scopes that nobody
    /// has any more.
    pub(super) async fn look_again(&self, scopes: &BTreeSet<Scope>) {
        let _turn = self.writing.lock().await;
        let mut next = (*self.view()).clone();
        next.cohorts.retain(|scope, _| scopes.contains(scope));
        self.windows().retain(|scope, _| scopes.contains(scope));
        self.view.publish(Arc::new(next));
    }

    /// Says that it has changed; once it has.
    pub(super) fn turns_over(&self) {
        self.turnover.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that a start of a sidecar attends, for good, before it is told anything.
    pub(super) async fn attends(
        &self,
        sidecar: &str,
        start: Start,
        over: &[Start],
    ) -> Result<Entered, Error> {
        let key = (Box::<str>::from(sidecar), start);
        let (came, entered) = {
            let mut attendance = self.attendance();
            let entered = attendance.enter(sidecar, start, over);
            if matches!(entered, Entered::New | Entered::Fencing) {
                self.turns_over();
                let fencing = entered == Entered::Fencing;
                let fencing = fencing.then(|| self.clock.now().latest);
                self.unsaved().insert(key.clone(), fencing);
            }
            (attendance.came(sidecar), entered)
        };
        if entered == Entered::Fenced {
            return Ok(entered);
        }
        // Whoever gave up before it was written writes it at the next greeting.
        let unsaved = self.unsaved().get(&key).copied();
        if unsaved.is_some() || !came {
            let fencing = unsaved.flatten();
            self.store.attend(sidecar, &start, fencing).await?;
            self.unsaved().remove(&key);
        }
        Ok(entered)
    }

    fn unsaved(&self) -> MutexGuard<'_, Unsaved> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count who attends, with everybody who may follow, or might until lately.
    async fn begin_attendance(&self) -> Result<(), Error> {
        let attended = self.store.attended().await?;
        let access = self.store.access().await?;
        let (mut attendance, now) = (
            Attendance::new(self.clock.elapsed()),
            self.clock.now().latest,
        );
        let waited_out = bound(longest_lease());
        for (sidecar, start, fencing) in self.store.starts().await? {
            let fencing =
                fencing.is_some_and(|since| (now - since).saturating_sub(BEHIND) < waited_out);
            attendance.remember(&sidecar, start, fencing);
        }
        for access in access {
            let follows = [Role::Sidecar.name(), EXPELLED].contains(&&*access.role);
            if follows && !access.scope.is_empty() {
                let came = attended.binary_search(&access.identity).is_ok();
                attendance.expect(&access.identity, came);
            }
        }
        *self.attendance() = attendance;
        self.turns_over();
        Ok(())
    }

    /// An elapsed time as a time of day.
    pub(super) fn at(&self, elapsed: Span) -> Timestamp {
        let look = self.clock.look();
        look.now.latest + Span::from_micros(elapsed.micros().saturating_sub(look.elapsed.micros()))
    }
}

/// What is to be committed, with the snapshot it makes, and the answer; nothing to commit where
/// nothing changes.
pub(super) type Drafted<T> = Result<(Option<Planned>, T), Refused>;

/// A transaction with what it amounts to.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) transaction: Transaction,
    /// Its edits, read.
    pub(super) changes: Vec<Change>,
    /// What they make.
    pub(super) snapshot: Snapshot,
    /// Cases among its edits.
    pub(super) cases: Vec<Arc<Case>>,
    /// Findings among its edits.
    pub(super) findings: Vec<Arc<Finding>>,
    /// The event that asks for it, if one does.
    pub(super) heard: Option<Heard>,
}

/// What a transaction begins from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft {
    pub(super) revision: u64,
    /// The next removal's.
    pub(super) sequence: u64,
    pub(super) time: Timestamp,
}

#[expect(clippy::unreachable, reason = "a registry is handed out with a view")]
fn unreachable_view() -> Arc<View> {
    unreachable!("a registry is handed out with a view")
}
