//! Which subjects and resources callers ask about that are not here, and which of those that were
//! fetched are worth keeping.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use moka::{notification::RemovalCause, sync::Cache};
use tokio::sync::mpsc;

use crate::{
    domain::{Decision, Kind, Question, Reason, Span, SubjectId},
    engine::Snapshot,
    runtime::clock::Clock,
    wire::sync::ALL_TOUCHED,
};

use super::intake::Delta;

/// Most that wait to be fetched; who asks beyond that asks again.
const WAITING: usize = 1_024;
/// How long it is taken for granted that nothing is governed under an id.
const NOTHING: Span = Span::from_secs(10);
/// Bytes that an id takes under which nothing is governed.
const SMALL: u32 = 256;

/// Something that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sidecar) struct Wanted {
    pub(super) id: SubjectId,
    /// The caller has proven that it is this one.
    pub(super) attested: bool,
}

/// What is known of an id that was asked about.
#[derive(Debug)]
struct Known {
    bytes: u32,
    /// Nothing is governed under it, as of then by elapsed time.
    nothing: Option<Span>,
    attested: bool,
    /// Asked about since it was last looked at.
    used: AtomicBool,
}

/// Keeps what is asked about, up to a number of bytes.
#[derive(Debug)]
pub(in crate::sidecar) struct Demand {
    known: Cache<SubjectId, Arc<Known>>,
    evicted: Arc<Mutex<Vec<SubjectId>>>,
    waiting: mpsc::Sender<Wanted>,
    /// Anything was ever fetched: until then a decision has nothing to note.
    any: AtomicBool,
    clock: Clock,
}

impl Demand {
    /// Keeps at most `bytes`; what is to be fetched comes out of the receiver.
    pub(super) fn new(bytes: u64, clock: Clock) -> (Self, mpsc::Receiver<Wanted>) {
        let (waiting, wanted) = mpsc::channel(WAITING);
        let evicted: Arc<Mutex<Vec<SubjectId>>> = Arc::default();
        let out = Arc::clone(&evicted);
        let known = Cache::builder()
            .max_capacity(bytes)
            .weigher(|id: &SubjectId, known: &Arc<Known>| {
                let id = u32::try_from(id.as_str().len()).unwrap_or(u32::MAX);
                known.bytes.saturating_add(id)
            })
            .eviction_listener(move |id: Arc<SubjectId>, known: Arc<Known>, cause| {
                if cause == RemovalCause::Size && known.nothing.is_none() {
                    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                    out.push((*id).clone());
                }
            })
            .build();
        let demand = Self {
            known,
            evicted,
            waiting,
            any: AtomicBool::new(false),
            clock,
        };
        (demand, wanted)
    }

    /// Notes what a decision was asked about: what was fetched is worth keeping, and what is not
    /// here is fetched, so that the next time it can be told. `attested` says that the caller has
    /// proven who it is.
    pub(in crate::sidecar) fn note(
        &self,
        question: &Question,
        decision: &Decision,
        snapshot: &Snapshot,
        attested: bool,
    ) {
        let any = self.any.load(Ordering::Relaxed);
        if decision.reasons.contains(&Reason::SubjectUnknown) {
            self.want(&question.subject, attested);
            return;
        }
        if any {
            self.used(&question.subject, attested);
        }
        if !snapshot.fetches() || !snapshot.reads_resource() {
            return;
        }
        if let Some(resource) = snapshot.resource(question) {
            if any {
                self.used(&resource.id, false);
            }
            return;
        }
        let server = question.resource.tool().and_then(|tool| tool.server);
        let ids = [Some(question.resource.id.as_str()), server];
        for id in ids.into_iter().flatten() {
            if let Ok(id) = SubjectId::parse(id) {
                self.want(&id, false);
            }
        }
    }

    /// Whoever has proof and asks keeps its registration alive; being asked about does not.
    fn used(&self, id: &SubjectId, proven: bool) {
        if let Some(known) = self.known.get(id)
            && proven
        {
            known.used.store(true, Ordering::Relaxed);
        }
    }

    /// Where nothing was governed there may be something now.
    pub(super) fn news(&self, delta: &Delta) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        // Whose instance somebody may be, or what belongs to a domain, may have changed for anybody.
        if delta.classes || delta.touched.iter().any(|id| id == ALL_TOUCHED) {
            for (id, known) in &self.known {
                if known.nothing.is_some() {
                    self.known.invalidate(&*id);
                }
            }
            return;
        }
        let edits = delta.objects.iter();
        let subjects = edits.filter(|edit| edit.name.kind == Kind::Subject);
        let ids = subjects.map(|edit| &*edit.name.id);
        for id in ids.chain(delta.touched.iter().map(String::as_str)) {
            let nothing = self
                .known
                .get(id)
                .is_some_and(|known| known.nothing.is_some());
            if nothing {
                self.known.invalidate(id);
            }
        }
    }

    fn want(&self, id: &SubjectId, attested: bool) {
        let id = id.clone();
        let wanted = Wanted { id, attested };
        if !self.is_nothing(&wanted) {
            // If it is full, whoever asks again is heard again.
            let _ = self.waiting.try_send(wanted);
        }
    }

    /// Whether it was lately found that nothing is governed under the id. Who has proof now may
    /// get more than who had none.
    pub(super) fn is_nothing(&self, wanted: &Wanted) -> bool {
        let lately = |since| self.clock.elapsed().saturating_sub(since) < NOTHING;
        let known = self.known.get(&wanted.id);
        known.is_some_and(|known| {
            known.nothing.is_some_and(lately) && known.attested >= wanted.attested
        })
    }

    /// Notes that something was fetched; `bytes` of it, if anything is governed under its id.
    pub(super) fn came(&self, wanted: &Wanted, bytes: Option<u32>) {
        self.any.store(true, Ordering::Relaxed);
        let known = Known {
            bytes: bytes.unwrap_or(SMALL),
            nothing: bytes.is_none().then(|| self.clock.elapsed()),
            attested: wanted.attested,
            used: AtomicBool::new(false),
        };
        self.known.insert(wanted.id.clone(), Arc::new(known));
    }

    /// Whether `id` was fetched with proof.
    pub(super) fn attested(&self, id: &SubjectId) -> bool {
        self.known.get(id).is_some_and(|known| known.attested)
    }

    /// Whether `id` was asked about since this was last looked at.
    pub(super) fn was_used(&self, id: &SubjectId) -> bool {
        let known = self.known.get(id);
        known.is_some_and(|known| known.used.swap(false, Ordering::Relaxed))
    }

    /// Forgets `id`.
    pub(super) fn forget(&self, id: &SubjectId) {
        self.known.invalidate(id);
    }

    /// What had to go for want of room, since this was last asked.
    pub(super) fn evicted(&self) -> Vec<SubjectId> {
        self.known.run_pending_tasks();
        let mut gone = {
            let mut out = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *out)
        };
        // What came again in the meantime stays.
        gone.retain(|id| !self.known.contains_key(id));
        gone
    }
}
