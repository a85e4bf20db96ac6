//! The one way from a question to its answer, whichever surface it came by.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::Instant as Deadline;
use tonic::{Status, metadata::MetadataMap};

use crate::{
    config::Identity,
    domain::{
        Decision, Digest, Invalid, NextAction, Now, Outcome, Question, Resource, Span, Trace,
    },
    engine::{
        Snapshot, as_seen,
        catalogue::at,
        explain, may_speak, reasons,
        search::{Standing, standing},
    },
    runtime::{clock::Instant, simulated::aside},
    telemetry::{
        Surface,
        otlp::{Answered, Exporter, Failed},
    },
    wire::{Detail, Fault, ON_BEHALF, Stamp, about, answer, keep, question, signed::sha256, v1},
};

use super::{
    decider::{Decided, Decider, Loaded},
    follow::Following,
    identity::Caller,
    record::{spending, written},
    rely::Call,
};

/// Longest a call may take, whatever its caller would wait (reliability §9.3).
pub(super) const DEADLINE: Span = Span::from_secs(1);

/// Decides and answers.
#[derive(Clone, Debug)]
pub(super) struct Answering {
    pub(super) decider: Arc<Decider>,
    pub(super) identity: Arc<Identity>,
    /// The registry, if one is followed.
    pub(super) following: Option<Arc<Following>>,
}

impl Answering {
    /// Decides one question that arrived at `arrived`, and answers it within `patience`, unless the
    /// answer is to rest on an exception: then there is something to be done first.
    pub(super) fn begin(
        &self,
        request: v1::CheckRequest,
        bytes: &[u8],
        Caller {
            subject, verified, ..
        }: Caller,
        loaded: &Loaded,
        (arrived, patience, called): (Instant, Span, Called),
    ) -> Result<Begun, Fault> {
        let wanted = Wanted {
            verified,
            all: request.explain,
        };
        let request_id = Some(&request.request_id)
            .filter(|id| !id.is_empty())
            .cloned();
        let question = as_seen(question(request, subject)?, &loaded.snapshot);
        let mut at = loaded.at(arrived);
        at.now.evidence = self.decider.spool.evidenced();
        let free = match &request_id {
            Some(id) => {
                let now = arrived.elapsed;
                let repeats = &self.decider.repeats;
                repeats.used(&question.subject, id, || digest(bytes), now)
            }
            None => Vec::new(),
        };
        let mut decided = self.decider.decide(&question, loaded, at, free);
        let asked = Asked {
            question,
            wanted,
            arrived,
            patience,
            called,
        };
        let call = || Call {
            digest: digest(bytes),
            request: request_id,
            trace: called.trace,
        };
        if decided.decision.outcome == Outcome::AllowByException {
            return Ok(Begun::Owes(Box::new((asked, decided, call()))));
        }
        self.answer(&asked, &mut decided, bytes, call)
            .map(Begun::Answered)
    }

    /// Whether somebody may say at all what is no question: they are known, and neither frozen nor
    /// out of use.
    pub(super) fn may_speak(&self, who: &Caller) -> Result<(), Fault> {
        let loaded = self.decider.snapshot.load();
        let loaded = loaded.as_ref().ok_or(Fault::NotReady)?;
        if may_speak(&who.subject, &loaded.snapshot) {
            return Ok(());
        }
        let why = format!("`{}` is not known, frozen or out of use", who.subject);
        Err(Fault::Forbidden(why))
    }

    /// How whoever asks stands to each of some resources now; nothing stands to what is no question.
    /// Nothing is recorded of it, and nothing used up.
    pub(super) async fn sift(
        &self,
        check: v1::CheckRequest,
        resources: Vec<Option<Resource>>,
        who: Caller,
        (arrived, patience): (Instant, Span),
    ) -> Result<Vec<Standing>, Fault> {
        self.may_speak(&who)?;
        let check = who.says(check);
        let loaded = self.decider.snapshot.get().ok_or(Fault::NotReady)?;
        let mut at = loaded.at(self.decider.clock.look());
        at.now.evidence = self.decider.spool.evidenced();
        let Some(first) = resources.iter().flatten().next().cloned() else {
            return Ok(vec![Standing::Denied; resources.len()]);
        };
        // Read once for all, and what was seen of tools looked at once: as a question about none.
        let nothing = Resource {
            kind: String::new(),
            ..first
        };
        let mut asked = as_seen(about(check, who.subject, nothing)?, &loaded.snapshot);
        let clock = self.decider.clock.clone();
        let standings = aside(move || {
            let mut standings = Vec::with_capacity(resources.len());
            for item in resources {
                in_time(arrived, clock.elapsed(), patience)?;
                standings.push(item.map_or(Standing::Denied, |item| {
                    asked.resource = item;
                    standing(&asked, &loaded.snapshot, at.now)
                }));
            }
            Ok(standings)
        });
        standings.await.map_err(Fault::Unavailable)?
    }

    /// Decides a question of a surface that is not ours, and answers it.
    pub(super) async fn ask(
        &self,
        request: v1::CheckRequest,
        who: Caller,
        when: (Instant, Span, Called),
    ) -> Result<v1::Decision, Fault> {
        let request = who.says(request);
        let bytes = keep(&request);
        let begun = {
            let loaded = self.decider.snapshot.load();
            let loaded = loaded.as_ref().ok_or(Fault::NotReady)?;
            self.begin(request, &bytes, who, loaded, when)?
        };
        match begun {
            Begun::Answered(decision) => Ok(decision),
            Begun::Owes(owed) => Box::pin(self.finish(*owed, &bytes)).await,
        }
    }

    /// Answers what was begun, once what it rests on is recorded.
    pub(super) async fn finish(
        &self,
        (asked, decided, call): (Asked, Decided, Call),
        bytes: &[u8],
    ) -> Result<v1::Decision, Fault> {
        let waits = Duration::from_micros(asked.patience.micros().unsigned_abs());
        let deadline = Deadline::now() + waits;
        let (question, arrived) = (&asked.question, asked.arrived);
        let following = self.following.as_deref();
        let mut decided = self
            .decider
            .rely(decided, question, &call, arrived, deadline, following)
            .await;
        self.answer(&asked, &mut decided, bytes, || call)
    }

    /// The answer, which nothing stands in the way of.
    fn answer(
        &self,
        asked: &Asked,
        decided: &mut Decided,
        bytes: &[u8],
        call: impl FnOnce() -> Call,
    ) -> Result<v1::Decision, Fault> {
        let question = &asked.question;
        if !decided.decision.exceptions.is_empty() {
            self.decider.note(decided, question, call);
        }
        let (decision, from, at) = (&decided.decision, &decided.from, decided.at);
        if let Some(following) = &self.following {
            let verified = asked.wanted.verified;
            following
                .demand
                .note(question, decision, &from.snapshot, verified);
            if verified {
                following.sightings.note(question, decision, at.now.latest);
            }
        }
        let stamp = Stamp {
            id: written(decided.mark.id),
            time: at.now.latest,
            digest: from.snapshot.digest().as_str(),
            revision: from.snapshot.revision(),
            age: at.elapsed.saturating_sub(from.confirmed).as_secs_f64(),
        };
        let age = stamp.age;
        let mut told = tell(stamp, decision, asked.wanted, question, at.now, || {
            spending(&from.snapshot, &decided.spent)
        });
        if let (Some(following), NextAction::Request) = (&self.following, decision.next_action)
            && asked.wanted.verified
        {
            let subject = from.snapshot.subject(question.subject.as_str());
            // Of an instance the registry's people know the class alone.
            let subject = subject.filter(|of| of.lease_expire_time.is_none());
            told.access_request = subject.and_then(|of| {
                let access = &following.access;
                // Who shows it to nobody need not have it made.
                let ours = matches!(asked.called.surface, Surface::Grpc | Surface::Hook);
                let proof = asked.wanted.all || !ours;
                access.offer(&told, question, &of.environment, (at.now.latest, proof))
            });
        }
        let ended = self.decider.clock.elapsed();
        if let Err(late) = in_time(asked.arrived, ended, asked.patience) {
            self.decider.unanswered(decided);
            return Err(late);
        }
        let took = ended.saturating_sub(asked.arrived.elapsed);
        self.decider
            .record(decided, &question.subject, bytes, (asked.called, took));
        self.decider.spool.answered(decided.kept.is_some());
        if let Some(exporter) = &self.decider.exporter {
            self.exported(exporter, &told.id, asked, decided, age, took);
        }
        Ok(told)
    }

    /// Tells of a decision that was answered.
    fn exported(
        &self,
        exporter: &Exporter,
        id: &str,
        asked: &Asked,
        decided: &Decided,
        age: f64,
        took: Span,
    ) {
        let (question, snapshot) = (&asked.question, &decided.from.snapshot);
        let digest = snapshot.digest().as_str();
        let subject = snapshot.subject(question.subject.as_str());
        let subject = subject.map(AsRef::as_ref);
        let model = subject.and_then(|of| {
            let named = |field| at(&of.attributes, &["model", field])?.as_str();
            Some((named("provider").unwrap_or_default(), named("name")?))
        });
        let tally = &self.decider.tally;
        for usage in decided.kept.iter().flat_map(|(_, uses)| uses) {
            tally.add(&usage.exception);
        }
        let first = decided.decision.relied_on().next();
        let used = first.map(|exception| tally.of(&exception.id));
        exporter.decision(
            decided.mark.number.get(),
            &Answered {
                id,
                decision: &decided.decision,
                question,
                subject,
                model,
                time: asked.arrived.now.latest,
                took,
                method: asked.called.method,
                surface: asked.called.surface.name(),
                trace: asked.called.trace,
                snapshot: (digest, snapshot.revision(), age),
                recorded: decided.kept.as_ref().map(|(first, _)| *first),
                used,
            },
        );
        if let Some((_, uses)) = &decided.kept {
            self.decider.export(decided, uses);
        }
    }

    pub(super) fn failed(&self, fault: Fault, arrived: Instant, called: Called) -> Status {
        self.tell_failed(&fault, arrived, called);
        fault.into()
    }

    /// Counts and tells of a question that has no decision.
    pub(super) fn tell_failed(&self, fault: &Fault, arrived: Instant, called: Called) {
        self.decider.metrics.failed(fault.reason());
        if let Some(exporter) = &self.decider.exporter {
            let ended = self.decider.clock.elapsed();
            exporter.failed(&Failed {
                kind: fault.reason(),
                status: (fault.status(), fault.http()),
                time: arrived.now.latest,
                took: ended.saturating_sub(arrived.elapsed),
                method: called.method,
                trace: called.trace,
            });
        }
    }
}

/// Which method was called, and where the call belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called {
    pub(super) method: &'static str,
    /// Which surface it came by.
    pub(super) surface: Surface,
    pub(super) trace: Option<Trace>,
}

impl Called {
    /// A call of our own contract. Our own commands say for whom they make it.
    pub(super) fn of(method: &'static str, metadata: &MetadataMap) -> Self {
        let on_behalf = metadata.get(ON_BEHALF).map(AsRef::as_ref);
        Self {
            method,
            surface: match on_behalf {
                Some(b"hook") => Surface::Hook,
                Some(b"mcp") => Surface::Mcp,
                _ => Surface::Grpc,
            },
            trace: trace(metadata),
        }
    }
}

/// A question that was decided.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every call is answered at once, and a box would be allocated for each"
)]
#[derive(Debug)]
pub(super) enum Begun {
    /// It is answered.
    Answered(v1::Decision),
    /// It is no answer before its use is recorded.
    Owes(Box<(Asked, Decided, Call)>),
}

/// A question, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    question: Question,
    wanted: Wanted,
    arrived: Instant,
    patience: Span,
    called: Called,
}

/// How much of the why a caller may know and wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) verified: bool,
    pub(super) all: bool,
}

/// The answer, with as much of the why as is wanted; `snapshot` is what it was made from.
pub(super) fn tell<'a>(
    stamp: Stamp<'_>,
    decision: &Decision,
    wanted: Wanted,
    question: &Question,
    now: Now,
    snapshot: impl FnOnce() -> Cow<'a, Snapshot>,
) -> v1::Decision {
    if !wanted.verified {
        return answer(stamp, decision, &Detail::Codes);
    }
    if wanted.all {
        let explanation = explain(question, &snapshot(), now);
        return answer(stamp, decision, &Detail::Full(&explanation));
    }
    if decision.allows() && decision.failed.is_empty() {
        return answer(stamp, decision, &Detail::Reasons(&[], None));
    }
    let (controls, near) = reasons(decision, question, &snapshot(), now);
    answer(stamp, decision, &Detail::Reasons(&controls, near.as_ref()))
}

/// The digest of a request as it was sent.
fn digest(bytes: &[u8]) -> Digest {
    Digest::of_sha256(&sha256(bytes))
}

/// Where a call belongs, as its metadata says.
pub(super) fn trace(metadata: &MetadataMap) -> Option<Trace> {
    Trace::parse(metadata.get("traceparent")?.to_str().ok()?)
}

/// Whether a caller who waits for `patience` is still there.
pub(super) fn in_time(arrived: Instant, ended: Span, patience: Span) -> Result<(), Fault> {
    if ended.saturating_sub(arrived.elapsed) > patience {
        Err(Fault::DeadlineExceeded)
    } else {
        Ok(())
    }
}

/// How long the caller waits, by `grpc-timeout`, and no longer than [`DEADLINE`].
pub(super) fn patience(metadata: &MetadataMap) -> Result<Span, Fault> {
    let Some(header) = metadata.get("grpc-timeout") else {
        return Ok(DEADLINE);
    };
    let wrong = || {
        Fault::Invalid(Invalid::new(
            "grpc-timeout",
            "is not a timeout",
            "send up to eight digits and one of H, M, S, m, u, n",
        ))
    };
    let text = header.to_str().map_err(|_| wrong())?;
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 8 {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let waits = match unit {
        "H" => Duration::from_secs(count.saturating_mul(3_600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(wrong()),
    };
    Ok(Span::from_micros(i64::try_from(waits.as_micros()).unwrap_or(i64::MAX)).min(DEADLINE))
}
