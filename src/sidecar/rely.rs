//! Answers that rest on an exception: no record, no allow (E1). What is limited is reserved, the
//! use is made durable, and what was taken back in the meantime is looked at again (D3).

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Digest, Evidenced, Outcome, Question, Span, Trace, Usage, UsageKind},
    engine::usage::{Recorded, kind, usages},
    runtime::clock::Instant,
    wire::usage::usage_record,
};

use super::{
    decider::{Decided, Decider, Loaded},
    evidence::{Entry, Limits, Unkept},
    follow::Following,
    record::written,
};

/// How often uses are reserved for one answer: others may take what was.
const TRIES: u32 = 3;
/// How often is told how often exceptions were not needed.
const IDLE: Duration = Duration::from_mins(1);
/// How long the last of it may take.
const SOON: Duration = Duration::from_secs(1);

/// What of a call is recorded beside its question.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The digest of the question as it was sent.
    pub(super) digest: Digest,
    /// The id its caller gave it.
    pub(super) request: Option<String>,
    /// Where it belongs.
    pub(super) trace: Option<Trace>,
}

impl Decider {
    /// The decision, once everything it rests on is recorded; another where that cannot be done.
    pub(super) async fn rely(
        &self,
        mut decided: Decided,
        question: &Question,
        call: &Call,
        arrived: Instant,
        patience: Span,
        following: Option<&Following>,
    ) -> Decided {
        let patience = Duration::from_micros(patience.micros().unsigned_abs());
        let mut tries = 0_u32;
        let settled = |decided: Decided, from: Arc<Loaded>, at: Instant, last: bool| {
            self.settled(decided.mark, question, from, at, last)
        };
        loop {
            let (from, at) = (Arc::clone(&decided.from), decided.at);
            if !decided.wanted.is_empty() {
                tries = tries.saturating_add(1);
                if let Some(following) = following {
                    for exception in &decided.wanted {
                        following.reserve(exception, patience).await;
                    }
                }
                decided = settled(decided, from, at, tries >= TRIES);
                continue;
            }
            if decided.decision.outcome != Outcome::AllowByException {
                return decided;
            }
            let repeated = |usage: &Usage| decided.mark.free.contains(&usage.exception);
            let ordinal = self.next_ordinal();
            let mut uses = Self::uses(&decided, question, call, ordinal);
            uses.retain(|usage| usage.kind == UsageKind::ReliedOn && !repeated(usage));
            if uses.is_empty() {
                return decided;
            }
            match self.spool.keep(self.entries(&uses), patience).await {
                Ok(first) => {
                    let Some(after) = self.removed_since(&decided.from) else {
                        if let Some(request) = &call.request {
                            let relied = decided.decision.relied_on().map(|e| e.id.clone());
                            let subject = &question.subject;
                            self.repeats
                                .note(subject, request, &call.digest, relied.collect());
                        }
                        return decided;
                    };
                    // It was not answered: what was recorded is taken back, and says so.
                    self.withdraw(uses, Some(first));
                    let at = after.at(arrived);
                    decided = settled(decided, after, at, false);
                }
                Err(unkept) => {
                    match unkept {
                        Unkept::Refused => self.give_back(&decided),
                        // It may yet be written.
                        Unkept::Late => self.withdraw(uses, None),
                    }
                    let mut at = at;
                    at.now.evidence = Evidenced::Lost;
                    decided = settled(decided, from, at, true);
                }
            }
        }
    }

    /// What became of the exceptions in a decision, the `ordinal`-th that rests on one.
    fn uses(decided: &Decided, question: &Question, call: &Call, ordinal: u64) -> Vec<Usage> {
        let recorded = Recorded {
            id: &written(decided.mark.id),
            time: decided.at.now.latest,
            question: &call.digest,
            request: call.request.as_deref(),
            ordinal,
            trace: call.trace,
        };
        let snapshot = &decided.from.snapshot;
        usages(&decided.decision, question, snapshot, &recorded)
    }

    fn entries(&self, usages: &[Usage]) -> Vec<Entry> {
        let counted = matches!(self.limits, Limits::Here(_));
        let entry = |usage: &Usage| Entry {
            record: usage_record(usage, self.salt),
            spent: (counted && usage.kind == UsageKind::ReliedOn)
                .then(|| (usage.exception.clone(), usage.time)),
        };
        usages.iter().map(entry).collect()
    }

    /// Records that answers were not given after all.
    fn withdraw(&self, uses: Vec<Usage>, first: Option<u64>) {
        let withdrawn: Vec<Usage> = (0_u64..)
            .zip(uses)
            .map(|(place, usage)| Usage {
                kind: UsageKind::Withdrawn,
                withdraws: first.map(|first| first.saturating_add(place)),
                ordinal: 0,
                ..usage
            })
            .collect();
        self.spool.note(self.entries(&withdrawn));
    }

    /// Records what became of exceptions that the answer does not rest on: nobody waits for it, and
    /// of those that were not needed only how often is told.
    pub(super) fn note(&self, decided: &Decided, question: &Question, call: impl FnOnce() -> Call) {
        let mut news = false;
        for result in &decided.decision.exceptions {
            news |= match kind(result.effect) {
                UsageKind::NotNeeded => {
                    let now = decided.at.now.latest;
                    !self.idle.count(&result.exception, now)
                }
                UsageKind::OutOfScope | UsageKind::Ineffective => true,
                UsageKind::ReliedOn | UsageKind::Withdrawn => false,
            };
        }
        if !news {
            return;
        }
        let mut uses = Self::uses(decided, question, &call(), 0);
        uses.retain(|usage| usage.kind != UsageKind::ReliedOn);
        let (idle, told): (Vec<_>, Vec<_>) = uses
            .into_iter()
            .partition(|usage| usage.kind == UsageKind::NotNeeded);
        for usage in idle {
            self.idle.begin(usage);
        }
        if !told.is_empty() {
            self.spool.note(self.entries(&told));
        }
    }

    /// Tells, until stopped and then once more, how often exceptions were not needed.
    pub(super) async fn tell_idle(self: Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sleep(IDLE) => {}
            }
            let idle = self.idle.take();
            if !idle.is_empty() {
                // One that cannot be written is counted as dropped.
                let _ = self.spool.keep(self.entries(&idle), SOON).await;
            }
        }
        Ok(())
    }
}
