//! The steps every surface takes from one loaded snapshot: decide, count uses, hand out, record.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use crate::{
    domain::{Decision, Exception, ExceptionId, Outcome, Question, Span, SubjectId, Usage},
    engine::{Snapshot, decide, follow::Contact},
    runtime::{
        clock::{Clock, Instant},
        publish::Published,
        ring::Ring,
    },
    telemetry::{Metrics, otlp::Exporter},
};

use super::{
    answering::Called,
    evidence::{Idle, Limits, Repeats, Spool, Take},
    record::{Kept, Record, SMALL, decision_id, number_of, spending},
    told::Tally,
};

/// A number that no two starts share.
pub(super) fn salt() -> u64 {
    // The standard library seeds its hashers from the operating system.
    RandomState::new().build_hasher().finish()
}

/// Decisions kept for Explain.
const KEPT: usize = 10_000;
/// Most bytes that all requests longer than [`SMALL`] may take; beyond it the oldest go early.
const LARGE: usize = 32 << 20;
/// Snapshots kept behind the one in force, each read anew and sharing nothing with the others.
pub(super) const APART: usize = 4;
/// Snapshots kept behind the one in force, each a change of the one before: they share the rest.
pub(super) const CHANGED: usize = 64;

/// Decides from the published snapshot.
#[derive(Debug)]
pub(super) struct Decider {
    pub(super) snapshot: Arc<Published<Loaded>>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    /// Where decisions are told of, if anybody wants to know.
    pub(super) exporter: Option<Arc<Exporter>>,
    pub(super) recent: Arc<Ring<Kept>>,
    large: Large,
    /// Where uses of exceptions are recorded before an answer leaves.
    pub(super) spool: Arc<Spool>,
    pub(super) limits: Limits,
    pub(super) repeats: Repeats,
    pub(super) idle: Idle,
    pub(super) tally: Tally,
    /// Decisions that rest on an exception, since the start.
    ordinal: AtomicU64,
    /// Made at the start: no two starts share one.
    salt: u64,
    /// What a registry knows this start by.
    pub(super) start: u64,
}

/// Kept requests that are not [`SMALL`], oldest first: in all they take a bounded number of bytes.
#[derive(Debug, Default)]
struct Large(Mutex<(VecDeque<(u64, usize)>, usize)>);

impl Large {
    /// Counts in the request of `number`; the ones to be forgotten for it.
    fn add(&self, number: u64, bytes: usize) -> Vec<u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, total) = &mut *known;
        kept.push_back((number, bytes));
        *total = total.saturating_add(bytes);
        let mut forgotten = Vec::new();
        while *total > LARGE
            && let Some((number, bytes)) = kept.pop_front()
        {
            *total = total.saturating_sub(bytes);
            forgotten.push(number);
        }
        forgotten
    }
}

/// A snapshot and since when, by elapsed time, it is known to be current.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) confirmed: Span,
    /// The few before it, so that recent decisions can still be explained.
    pub(super) earlier: Vec<Arc<Snapshot>>,
    /// How the registry is seen, if one is followed.
    pub(super) contact: Option<Contact>,
}

impl Loaded {
    /// `snapshot` in succession to `before`, with at `most` so many of those before it.
    pub(super) fn after(
        before: Option<&Self>,
        snapshot: Arc<Snapshot>,
        confirmed: Span,
        most: usize,
    ) -> Self {
        let known = before
            .into_iter()
            .flat_map(|before| [&before.snapshot].into_iter().chain(&before.earlier));
        let earlier = known
            .filter(|earlier| !Arc::ptr_eq(earlier, &snapshot))
            .take(most)
            .cloned()
            .collect();
        Self {
            snapshot,
            confirmed,
            earlier,
            contact: None,
        }
    }

    /// `look` as decisions from this see it.
    pub(super) fn at(&self, look: Instant) -> Instant {
        match &self.contact {
            Some(contact) => Instant {
                now: contact.now(look.now, look.elapsed),
                ..look
            },
            None => look,
        }
    }
}

/// A decision's number, until it is kept: one that never is answered is said to be none, so that
/// nobody waits for it.
#[derive(Debug)]
pub(super) struct Numbered {
    ring: Arc<Ring<Kept>>,
    number: u64,
    kept: AtomicBool,
}

impl Numbered {
    pub(super) fn get(&self) -> u64 {
        self.number
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        if !*self.kept.get_mut() {
            self.ring.keep(self.number, Kept::unanswered);
        }
    }
}

/// Which decision it is.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) id: Uuid,
    pub(super) number: Numbered,
    /// Exceptions that the same call was allowed by before, and their revisions: it is no other
    /// use.
    pub(super) free: Vec<(ExceptionId, u64)>,
}

impl Mark {
    pub(super) fn is_free(&self, exception: &Exception) -> bool {
        let same = |(id, revision): &(ExceptionId, u64)| {
            *id == exception.id && *revision == exception.revision
        };
        self.free.iter().any(same)
    }
}

/// What a decision was made from. It pins nothing: who waits for a record holds up no removal.
#[derive(Clone, Debug)]
pub(super) struct Based {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) confirmed: Span,
}

impl Based {
    pub(super) fn on(loaded: &Loaded) -> Self {
        Self {
            snapshot: Arc::clone(&loaded.snapshot),
            confirmed: loaded.confirmed,
        }
    }
}

/// A decision that is not recorded yet.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) mark: Mark,
    pub(super) decision: Decision,
    /// Exceptions taken for used up; there were none left to count.
    pub(super) spent: Vec<ExceptionId>,
    /// Exceptions of which uses are to be reserved first: until then it is no answer.
    pub(super) wanted: Vec<ExceptionId>,
    /// What it was made from.
    pub(super) from: Based,
    /// When.
    pub(super) at: Instant,
    /// The records it rests on: the number of the first, and what they say.
    pub(super) kept: Option<(u64, Vec<Usage>)>,
    /// What was in force when it was last looked at, until its answer is written (S2).
    pub(super) pinned: Option<Arc<Loaded>>,
}

impl Decider {
    pub(super) fn new(
        snapshot: Arc<Published<Loaded>>,
        clock: Clock,
        (metrics, exporter): (Metrics, Option<Arc<Exporter>>),
        spool: Arc<Spool>,
        limits: Limits,
        (start, salt): (Option<u64>, u64),
    ) -> Self {
        Self {
            snapshot,
            clock,
            metrics,
            exporter,
            recent: Arc::new(Ring::new(KEPT)),
            large: Large::default(),
            spool,
            limits,
            repeats: Repeats::default(),
            idle: Idle::default(),
            tally: Tally::default(),
            ordinal: AtomicU64::new(0),
            salt,
            start: start.unwrap_or(salt),
        }
    }

    /// Decides `question`, which arrived at `arrived`; what the same call was allowed by before is
    /// `free`. What rests on an exception is no answer before [`Self::rely`].
    pub(super) fn decide(
        &self,
        question: &Question,
        loaded: &Loaded,
        arrived: Instant,
        free: Vec<(ExceptionId, u64)>,
    ) -> Decided {
        let number = self.recent.number();
        let mark = Mark {
            id: decision_id(arrived.now, number, self.salt),
            number: Numbered {
                ring: Arc::clone(&self.recent),
                number,
                kept: AtomicBool::new(false),
            },
            free,
        };
        self.settled(mark, question, Based::on(loaded), arrived, false)
    }

    pub(super) fn next_ordinal(&self) -> u64 {
        self.ordinal
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// What is published now, and whether more is taken back in it than `based` knows of.
    pub(super) fn newer(&self, based: &Based) -> Option<(Arc<Loaded>, bool)> {
        let now = self.snapshot.get()?;
        let newer = !Arc::ptr_eq(now.snapshot.removed(), based.snapshot.removed());
        Some((now, newer))
    }

    /// Counts and keeps a decision whose answer `took` so long to be ready, with its `request` as it
    /// was sent.
    pub(super) fn record(
        &self,
        decided: &Decided,
        subject: &SubjectId,
        request: &[u8],
        (called, took): (Called, Span),
    ) {
        self.metrics
            .decided(&decided.decision, called.surface, took);
        let from = (&decided.from.snapshot, &*decided.spent);
        let Mark { id, ref number, .. } = decided.mark;
        number.kept.store(true, Ordering::Relaxed);
        let number = number.get();
        self.recent.keep(number, |kept| {
            kept.rewrite(id, subject, request, from, decided.at.now, (called, took));
        });
        if request.len() > SMALL {
            for number in self.large.add(number, request.len()) {
                self.recent.keep(number, Kept::forget);
            }
        }
    }

    /// The decision after every exception it rests on had a use left to count. Where uses have to
    /// be reserved first it tells of which; at the `last` attempt what is not reserved is spent.
    pub(super) fn settled(
        &self,
        mark: Mark,
        question: &Question,
        from: Based,
        at: Instant,
        last: bool,
    ) -> Decided {
        let mut decided = Decided {
            mark,
            decision: decide(question, &from.snapshot, at.now),
            spent: Vec::new(),
            wanted: Vec::new(),
            from,
            at,
            kept: None,
            pinned: None,
        };
        while decided.decision.outcome == Outcome::AllowByException {
            let mut taken = Vec::new();
            let mut lacking = None;
            for exception in decided.decision.relied_on() {
                if decided.mark.is_free(exception) {
                    continue;
                }
                match self.take(exception, at) {
                    Take::Counted => taken.push(Arc::clone(exception)),
                    Take::Wanted if !last => {
                        decided.wanted.push(exception.id.clone());
                        lacking = Some(exception.id.clone());
                    }
                    Take::Spent | Take::Wanted => lacking = Some(exception.id.clone()),
                }
                if lacking.is_some() {
                    break;
                }
            }
            let Some(lacking) = lacking else { break };
            for exception in &taken {
                self.limits.give_back(exception, at.elapsed);
            }
            if !decided.wanted.is_empty() {
                break;
            }
            decided.spent.push(lacking);
            let spending = spending(&decided.from.snapshot, &decided.spent);
            decided.decision = decide(question, &spending, at.now);
        }
        decided
    }

    /// Counts one use, once it is known how many there were before.
    fn take(&self, exception: &Exception, at: Instant) -> Take {
        if let Limits::Here(counts) = &self.limits
            && !counts.is_known()
            && let Some(spent) = self.spool.spent()
        {
            counts.know(spent, at.now.latest, at.elapsed);
        }
        self.limits.take(exception, at.elapsed)
    }

    /// Gives the uses back that a decision took and nothing was recorded of.
    pub(super) fn give_back(&self, decided: &Decided) {
        for exception in decided.decision.relied_on() {
            if !decided.mark.is_free(exception) {
                self.limits.give_back(exception, decided.at.elapsed);
            }
        }
    }

    /// The record of a decision, if it is among the last.
    pub(super) fn find(&self, id: Uuid) -> Option<Record> {
        let record = self.recent.read(number_of(id), Kept::recall)?;
        record.filter(|record| record.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_take_a_bounded_number_of_bytes() {
        let large = Large::default();
        let half = LARGE / 2;
        assert_eq!(large.add(1, half), Vec::<u64>::new());
        assert_eq!(large.add(2, half), Vec::<u64>::new());
        assert_eq!(large.add(3, 10), vec![1], "the oldest goes");
        assert_eq!(large.add(4, LARGE), vec![2, 3]);
    }
}
