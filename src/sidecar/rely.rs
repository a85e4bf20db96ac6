//! Answers that rest on an exception: no record, no allow (E1). What is limited is reserved, the
//! use is made durable, and what was taken back in the meantime is looked at again (D3).

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant as Deadline, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        Digest, Evidenced, ExceptionId, Outcome, Question, Trace, Usage, UsageKind, UsageLimits,
    },
    engine::usage::{Recorded, kind, usages},
    runtime::clock::Instant,
    telemetry::otlp::Used,
    wire::usage::usage_record,
};

use super::{
    decider::{Based, Decided, Decider},
    evidence::{Entry, Limits, Unkept},
    follow::Following,
    record::{Kept, written},
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
    /// The decision, once everything it rests on is recorded; another where that cannot be done
    /// before `deadline`.
    pub(super) async fn rely(
        &self,
        mut decided: Decided,
        question: &Question,
        call: &Call,
        arrived: Instant,
        deadline: Deadline,
        following: Option<&Following>,
    ) -> Decided {
        let mut tries = 0_u32;
        // A registry that does not answer leaves time for an answer of ours.
        let now = Deadline::now();
        let patience = now + deadline.saturating_duration_since(now) / 2;
        loop {
            if !decided.wanted.is_empty() {
                tries = tries.saturating_add(1);
                if let Some(following) = following {
                    for exception in &decided.wanted {
                        if !following.reserve(exception, patience).await {
                            tries = TRIES;
                        }
                    }
                }
                let Decided { mark, from, at, .. } = decided;
                decided = self.settled(mark, question, from, at, tries >= TRIES);
                continue;
            }
            if decided.decision.outcome != Outcome::AllowByException {
                return decided;
            }
            let ordinal = self.next_ordinal();
            let mut uses = Self::uses(&decided, question, call, ordinal);
            let repeated = |usage: &Usage| {
                let same = |(id, revision): &(ExceptionId, u64)| {
                    *id == usage.exception && *revision == usage.revision
                };
                decided.mark.free.iter().any(same)
            };
            uses.retain(|usage| usage.kind == UsageKind::ReliedOn && !repeated(usage));
            let kept = if uses.is_empty() {
                None
            } else {
                match self
                    .spool
                    .keep(self.entries(&decided, &uses), deadline)
                    .await
                {
                    Ok(first) => Some((first, uses)),
                    Err(unkept) => {
                        match unkept {
                            Unkept::Refused => self.give_back(&decided),
                            // It may yet be written.
                            Unkept::Late => self.withdraw(&decided, None, uses),
                        }
                        let Decided {
                            mark, from, mut at, ..
                        } = decided;
                        at.now.evidence = Evidenced::Lost;
                        return self.settled(mark, question, from, at, true);
                    }
                }
            };
            // Nothing is allowed on the strength of what was taken back before the answer (D3).
            let Some((now, newer)) = self.newer(&decided.from) else {
                return decided;
            };
            if !newer {
                if let (Some(request), Some((_, uses))) = (&call.request, &kept) {
                    let by = uses
                        .iter()
                        .map(|usage| (usage.exception.clone(), usage.revision));
                    let (subject, elapsed) = (&question.subject, self.clock.elapsed());
                    self.repeats
                        .note(subject, request, &call.digest, by.collect(), elapsed);
                }
                decided.kept = kept;
                decided.pinned = Some(now);
                return decided;
            }
            // It was not answered: what was recorded is taken back, and says so.
            if let Some((first, uses)) = kept {
                self.withdraw(&decided, Some(first), uses);
            }
            let mut at = now.at(arrived);
            at.now.evidence = self.spool.evidenced();
            decided = self.settled(decided.mark, question, Based::on(&now), at, false);
        }
    }

    /// Takes back what was recorded of an answer that is not given after all.
    pub(super) fn unanswered(&self, decided: &mut Decided) {
        self.recent
            .keep(decided.mark.number.get(), Kept::unanswered);
        if let Some((first, uses)) = decided.kept.take() {
            self.withdraw(decided, Some(first), uses);
        }
    }

    /// What became of the exceptions in a decision, the `ordinal`-th that rests on one.
    fn uses(decided: &Decided, question: &Question, call: &Call, ordinal: u64) -> Vec<Usage> {
        let recorded = Recorded {
            id: &written(decided.mark.id),
            now: decided.at.now,
            question: &call.digest,
            request: call.request.as_deref(),
            ordinal,
            trace: call.trace,
        };
        let snapshot = &decided.from.snapshot;
        usages(&decided.decision, question, snapshot, &recorded)
    }

    fn entries(&self, decided: &Decided, usages: &[Usage]) -> Vec<Entry> {
        let here = matches!(self.limits, Limits::Here(_));
        let limited = |usage: &Usage| {
            let mut relied = decided.decision.relied_on();
            relied.any(|e| e.id == usage.exception && e.usage_limits != UsageLimits::default())
        };
        let entry = |usage: &Usage| Entry {
            record: usage_record(usage, self.start),
            spent: (here && usage.kind == UsageKind::ReliedOn && limited(usage))
                .then(|| (usage.exception.clone(), usage.time)),
        };
        usages.iter().map(entry).collect()
    }

    /// Records that answers were not given after all.
    fn withdraw(&self, decided: &Decided, first: Option<u64>, uses: Vec<Usage>) {
        let withdrawn: Vec<Usage> = (0_u64..)
            .zip(uses)
            .map(|(place, usage)| Usage {
                kind: UsageKind::Withdrawn,
                withdraws: first.map(|first| first.saturating_add(place)),
                ordinal: 0,
                ..usage
            })
            .collect();
        self.export(decided, &withdrawn);
        self.spool.note(self.entries(decided, &withdrawn));
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
            self.export(decided, &told);
            self.spool.note(self.entries(decided, &told));
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
            if let Some(exporter) = &self.exporter {
                for usage in &idle {
                    exporter.usage(None, &Used::of(usage));
                }
            }
            let record = |usage: &Usage| Entry {
                record: usage_record(usage, self.start),
                spent: None,
            };
            let entries: Vec<_> = idle.iter().map(record).collect();
            let count = entries.len() as u64;
            if count > 0
                && self
                    .spool
                    .keep(entries, Deadline::now() + SOON)
                    .await
                    .is_err()
            {
                self.metrics.usage_dropped("failing", count);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, pin_mut};

    use super::*;
    use crate::{
        domain::{Act, Cause, Reason, Removal, Span, Target},
        engine::{Change, Removed},
        runtime::{clock::Clock, publish::Published},
        sidecar::{
            decider::Loaded,
            evidence::{Counts, Keeping, Spool},
        },
        telemetry::Metrics,
        testing,
    };

    fn loaded(snapshot: crate::engine::Snapshot) -> Arc<Loaded> {
        Arc::new(Loaded {
            snapshot: Arc::new(snapshot),
            confirmed: Span::ZERO,
            earlier: Vec::new(),
            contact: None,
        })
    }

    #[tokio::test]
    async fn d3_what_is_taken_back_while_a_use_is_recorded_is_not_allowed() {
        for taken_back in [true, false] {
            let scratch = tempfile::tempdir().unwrap();
            let (folder, metrics) = (scratch.path().to_owned(), Metrics::new());
            let spool = Spool::open(folder, Keeping::Newest, 1 << 20, metrics.clone()).await;
            let spool = Arc::new(spool);
            let subject = testing::subject("agent");
            let exception = testing::exception("EX-1", &["CT-1"], "agent");
            let target = Target::Exception(exception.id.clone());
            let snapshot = testing::snapshot(vec![
                Change::PutControl(testing::control("CT-1", "true")),
                Change::PutSubject(subject),
                Change::PutException(exception),
            ]);
            let published: Arc<Published<Loaded>> = Arc::default();
            published.publish(loaded(snapshot.clone()));
            let decider = Decider::new(
                Arc::clone(&published),
                Clock::manual(testing::noon()),
                (metrics, None),
                Arc::clone(&spool),
                Limits::Here(Counts::default()),
                (None, 7),
            );
            let question = testing::question("agent");
            let arrived = decider.clock.look();
            let before = published.get().unwrap();
            let decided = decider.decide(&question, &before, arrived, Vec::new());
            assert_eq!(decided.decision.outcome, Outcome::AllowByException);
            let call = Call {
                digest: Digest::parse("sha256:question").unwrap(),
                request: None,
                trace: None,
            };
            let deadline = Deadline::now() + Duration::from_mins(1);
            let relying = decider.rely(decided, &question, &call, arrived, deadline, None);
            pin_mut!(relying);
            // Nobody writes yet: the use is on its way.
            assert!((&mut relying).now_or_never().is_none());
            if taken_back {
                let mut removed = Removed::default();
                removed.add(
                    0,
                    &Removal {
                        sequence: 1,
                        act: Act::Revoke,
                        target,
                        cause: Cause::Admin,
                        note: "".into(),
                        initiator: "o".into(),
                        time: testing::noon(),
                    },
                );
                published.publish(loaded(snapshot.removing(Arc::new(removed))));
            }
            #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
            let writing = tokio::spawn(Arc::clone(&spool).write());
            let answer = relying.await;
            let (outcome, reasons) = (answer.decision.outcome, &answer.decision.reasons);
            if taken_back {
                assert_eq!(outcome, Outcome::Deny);
                assert!(reasons.contains(&Reason::ExcRevoked), "{reasons:?}");
            } else {
                assert_eq!(outcome, Outcome::AllowByException, "{reasons:?}");
            }
            writing.abort();
        }
    }
}
