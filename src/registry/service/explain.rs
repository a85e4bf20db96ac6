//! A recorded decision as of its moment (R13): what it rested on as that was, who had approved it on
//! what, and whether it comes out again.

use std::sync::Arc;

use tokio::sync::Mutex;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    domain::{
        Act, Evidenced, Invalid, Kind, Name, Now, Outcome, Question, Reason, Removal, Resource,
        Span, SpoolId, Target, Timestamp, Usage, UsageKind, Value,
    },
    engine::{
        Explanation, explain,
        usage::{Standing, kind},
    },
    registry::{core::Registry, reconstruct::as_of, store::KeptRow, usage::Usages, view::View},
    wire::{
        Detail, Fault, Received, Stamp, answer, decoded,
        usage::{is_whole, usage},
        v1,
    },
};

use super::{
    exceptions, objects, opened,
    usage::{kept, stored},
};

/// How far a record's time may be from the instant in its decision's id: it is decided anew where
/// something was taken back in between, by a clock that was set in between.
const NEAR: Span = Span::from_secs(5);

/// The instant that a decision's id carries.
fn instant(id: &str) -> Result<Timestamp, Fault> {
    let wrong = || {
        Fault::Invalid(Invalid::new(
            "decision_id",
            "is not a decision's id",
            "use the `id` of a decision, such as dec_019…",
        ))
    };
    let uuid = id
        .strip_prefix("dec_")
        .and_then(|id| Uuid::try_parse(id).ok());
    let time = uuid.and_then(|id| id.get_timestamp()).ok_or_else(wrong)?;
    let (seconds, nanos) = time.to_unix();
    let micros = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000_000))
        .and_then(|micros| micros.checked_add(i64::from(nanos / 1_000)));
    micros.map(Timestamp::from_micros).ok_or_else(wrong)
}

/// The question, as far as it is recorded.
fn question(usage: &Usage) -> Question {
    Question {
        subject: usage.subject.clone(),
        action: usage.action.to_string(),
        resource: Resource {
            kind: usage.resource_type.to_string(),
            id: usage.resource.to_string(),
            properties: Value::map([]),
        },
        purpose: usage.purpose.as_deref().map(ToOwned::to_owned),
        actor_kind: None,
        context: Value::map([]),
        observed: crate::domain::Fingerprint::default(),
        tools: Vec::new(),
    }
}

/// What speaks of a recorded decision.
struct Heard {
    rows: Vec<KeptRow>,
    usages: Vec<Usage>,
    /// Others tell of the same decision, and are not believed.
    others: bool,
}

/// Whether what comes out again is what was recorded.
fn agrees(usages: &[Usage], again: &Explanation) -> bool {
    let relied = usages.iter().any(|usage| usage.kind == UsageKind::ReliedOn);
    if relied && again.decision.outcome != Outcome::AllowByException {
        return false;
    }
    usages.iter().all(|usage| {
        again.decision.exceptions.iter().any(|result| {
            let reason = result.effect.reason().map_or("", Reason::name);
            result.exception.id == usage.exception
                && result.exception.revision == usage.revision
                && kind(result.effect) == usage.kind
                && (usage.kind != UsageKind::Ineffective || *reason == *usage.reason)
        })
    })
}

/// What else is to be said of it.
fn remark(usages: &[Usage], then: &View, current: &View) -> String {
    let mut said = Vec::new();
    if usages
        .iter()
        .any(|usage| usage.kind == UsageKind::Withdrawn)
    {
        said.push("the answer that was to rest on an exception was not given".to_owned());
    }
    for usage in usages {
        let known = then.snapshot.subject(usage.subject.as_str());
        if known.is_some_and(|subject| subject.combined != usage.fingerprint) {
            said.push(format!(
                "the governed facets of {} are not the ones that are recorded",
                usage.subject
            ));
        }
        let back = current.removals.iter().find(|removal| {
            removal.act == Act::Revoke
                && match &removal.target {
                    Target::Exception(id) => *id == usage.exception,
                    _ => current
                        .snapshot
                        .would_take_back(usage.exception.as_str(), removal),
                }
        });
        if usage.kind == UsageKind::ReliedOn
            && let Some(back) = back
        {
            said.push(if back.time <= usage.time {
                format!(
                    "{} had been taken back at {}, which had not reached the sidecar",
                    usage.exception, back.time
                )
            } else {
                format!("{} was taken back later, at {}", usage.exception, back.time)
            });
        }
    }
    said.dedup();
    said.join("; ")
}

/// Answers about decisions that are over.
#[derive(Clone, Debug)]
pub(crate) struct ExplanationCalls {
    pub(in crate::registry) registry: Arc<Registry>,
    pub(in crate::registry) usages: Arc<Usages>,
    /// Held by whoever reads the log again: it is long.
    folding: Arc<Mutex<()>>,
}

impl ExplanationCalls {
    pub(in crate::registry) fn new(registry: Arc<Registry>, usages: Arc<Usages>) -> Self {
        Self {
            registry,
            usages,
            folding: Arc::default(),
        }
    }

    async fn recorded(&self, id: &str) -> Result<Heard, Fault> {
        let at = instant(id)?;
        let file = &self.usages.file;
        let first = Timestamp::from_micros(at.micros().saturating_sub(NEAR.micros()));
        let near = file.decided(id, first, at + NEAR).await.map_err(stored)?;
        let mut heard = Heard {
            rows: Vec::new(),
            usages: Vec::new(),
            others: false,
        };
        let mut of: Option<SpoolId> = None;
        for row in near {
            let read = decoded(&row.2.record)
                .ok()
                .and_then(|record| usage(record).ok());
            let Some(usage) = read.filter(|usage| *usage.decision == *id) else {
                continue;
            };
            // Who does not stand for the subject is not believed; and one sidecar answered.
            if row.2.standing == Standing::Foreign || *of.get_or_insert(row.1) != row.1 {
                heard.others = true;
                continue;
            }
            heard.usages.push(usage);
            heard.rows.push(row);
        }
        if heard.rows.is_empty() {
            return Err(Fault::NotFound(format!(
                "no exception is recorded to have been considered in {id}; ask the sidecar that answered it"
            )));
        }
        Ok(heard)
    }

    /// A recorded decision as of its moment.
    async fn explained(
        &self,
        request: Request<Received<v1::ExplainDecisionRequest>>,
    ) -> Result<v1::ExplainDecisionResponse, Fault> {
        let (_, v1::ExplainDecisionRequest { decision_id }) = opened(request)?;
        let Heard {
            rows,
            usages,
            others,
        } = self.recorded(&decision_id).await?;
        // What was withdrawn is no answer; where another was given in its place, that is the one.
        let stands = |(row, usage): &(&KeptRow, &Usage)| {
            row.2.standing != Standing::Withdrawn && usage.kind != UsageKind::Withdrawn
        };
        let answers: Vec<Usage> = rows
            .iter()
            .zip(&usages)
            .filter(stands)
            .map(|(_, usage)| usage.clone())
            .collect();
        let given = !answers.is_empty();
        let usages = if given { answers } else { usages };
        let mut told = v1::ExplainDecisionResponse {
            decision_id,
            records: rows.into_iter().map(kept).collect(),
            agreement: v1::Agreement::Untold.into(),
            ..v1::ExplainDecisionResponse::default()
        };
        let Some(first) = usages.first() else {
            return Ok(told);
        };
        let revoked = |usage: &Usage| *usage.reason == *Reason::ExcRevoked.name();
        let removals = usages.iter().any(revoked).then_some(first.time);
        let turn = self.folding.lock().await;
        let then = as_of(&self.registry, first.snapshot_revision, removals).await;
        drop(turn);
        let Some(then) = then.map_err(Fault::from)? else {
            told.remark = format!(
                "it was decided from revision {}, which this registry has never had",
                first.snapshot_revision
            );
            return Ok(told);
        };
        told.remark = remark(&usages, &then, &self.registry.view());
        for usage in &usages {
            if let Some(case) = then.cases.get(&usage.exception) {
                told.cases
                    .push(exceptions::message(&then, case, usage.time));
            }
        }
        let mut names: Vec<Name> = Vec::new();
        names.push(Name::new(Kind::Subject, first.subject.as_str()));
        names.extend(usages.iter().flat_map(|usage| {
            [
                Name::new(Kind::Exception, usage.exception.as_str()),
                Name::new(Kind::TierPolicy, usage.tier.name()),
            ]
        }));
        if then.snapshot.subject(first.subject.as_str()).is_some() {
            let question = question(first);
            let now = Now {
                earliest: Timestamp::from_micros(
                    first
                        .time
                        .micros()
                        .saturating_sub(first.uncertainty.micros()),
                ),
                latest: first.time,
                lease: first.lease,
                evidence: Evidenced::Kept,
            };
            let again = explain(&question, &then.snapshot, now);
            let applied = again.controls.iter();
            names.extend(applied.map(|c| Name::new(Kind::Control, c.result.control.id.as_str())));
            let withdrawn = !given
                && usages
                    .iter()
                    .any(|usage| usage.kind == UsageKind::Withdrawn);
            let meanwhile = meanwhile(&usages, &then, &self.registry.view());
            told.agreement = match (agrees(&usages, &again), is_whole(first)) {
                _ if withdrawn => v1::Agreement::Untold,
                (true, true) => v1::Agreement::Same,
                (true, false) => v1::Agreement::SameAsRecorded,
                (false, true) if !beyond(&usages) && !meanwhile => v1::Agreement::Different,
                (false, _) => v1::Agreement::Untold,
            }
            .into();
            let stamp = Stamp {
                id: told.decision_id.clone(),
                time: first.time,
                digest: &first.snapshot.to_string(),
                revision: first.snapshot_revision,
                age: 0.0,
            };
            told.again = Some(answer(stamp, &again.decision, &Detail::Full(&again)));
        } else {
            let why = format!(
                "{} registered itself, and what it said of itself is not kept",
                first.subject
            );
            told.remark = [why, told.remark].join("; ");
        }
        if others {
            told.remark = [
                &*told.remark,
                "others tell of the same decision, and are not believed",
            ]
            .join("; ");
        }
        told.remark = told.remark.trim_matches([';', ' ']).to_owned();
        names.sort();
        names.dedup();
        told.objects = names
            .iter()
            .filter_map(|name| Some(objects::message(then.object(name)?, &then)))
            .collect();
        Ok(told)
    }
}

/// Whether something was taken back about then: whether the sidecar knew it is not recorded.
fn meanwhile(usages: &[Usage], then: &View, current: &View) -> bool {
    let about = |removal: &Removal| {
        removal.act == Act::Revoke
            && usages.iter().any(|usage| {
                removal.time >= then.time
                    && removal.time <= usage.time + NEAR
                    && match &removal.target {
                        Target::Exception(id) => *id == usage.exception,
                        _ => current
                            .snapshot
                            .would_take_back(usage.exception.as_str(), removal),
                    }
            })
    };
    current.removals.iter().any(|removal| about(removal))
}

/// Whether something stood against an exception that is the sidecar's own: its disk, or its part of
/// a limit.
fn beyond(usages: &[Usage]) -> bool {
    let own = [Reason::ExcEvidenceUnavailable, Reason::ExcBudgetExhausted];
    usages
        .iter()
        .any(|usage| own.iter().any(|reason| *reason.name() == *usage.reason))
}

#[tonic::async_trait]
impl v1::explanation_service_server::ExplanationService for ExplanationCalls {
    async fn explain_decision(
        &self,
        request: Request<Received<v1::ExplainDecisionRequest>>,
    ) -> Result<Response<v1::ExplainDecisionResponse>, Status> {
        Ok(Response::new(Box::pin(self.explained(request)).await?))
    }
}
