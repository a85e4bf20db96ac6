//! `exeat.v1.CheckService`.

use std::{sync::Arc, time::Duration};

use tonic::{Extensions, Request, Response, Status, metadata::MetadataMap};
use uuid::Uuid;

use crate::{
    config::Identity,
    domain::{Decision, Invalid, Span},
    engine::{explain, reasons},
    wire::{Detail, Fault, Stamp, answer, batch_item, keep, question, v1},
};

use super::{
    decider::{Decided, Decider, Loaded},
    identity::{Caller, caller},
    record::{Record, written},
};

/// Most questions in a batch.
const BATCH: usize = 100;
/// Longest a call may take, whatever its caller would wait (reliability §9.3).
const DEADLINE: Span = Span::from_secs(1);

/// Answers checks.
#[derive(Clone, Debug)]
pub(super) struct CheckService {
    pub(super) decider: Arc<Decider>,
    pub(super) identity: Arc<Identity>,
}

impl CheckService {
    fn decide(
        &self,
        request: v1::CheckRequest,
        connection: &Extensions,
        loaded: &Loaded,
        arrived: Span,
    ) -> Result<v1::Decision, Fault> {
        let caller = caller(&self.identity, connection, &request.subject)?;
        let wants_all = request.explain;
        let bytes = keep(&request);
        let question = question(request, caller.subject.clone())?;
        let Decided {
            decision,
            record,
            age,
        } = self.decider.decide(question, &bytes, loaded, arrived);
        Ok(tell(&decision, &record, age, &caller, wants_all))
    }

    fn failed(&self, fault: Fault) -> Status {
        self.decider.metrics.failed(fault.reason());
        fault.into()
    }
}

/// The answer, with as much of the why as the caller may know and wants.
fn tell(
    decision: &Decision,
    record: &Record,
    age: Span,
    caller: &Caller,
    wants_all: bool,
) -> v1::Decision {
    let stamp = Stamp {
        id: written(record.id),
        time: record.now.latest,
        digest: record.snapshot.digest().as_str(),
        revision: record.snapshot.revision(),
        age: age.as_secs_f64(),
    };
    if !caller.verified {
        return answer(stamp, decision, &Detail::Codes);
    }
    if wants_all {
        return answer(
            stamp,
            decision,
            &Detail::Full(&explain(&record.question, &record.snapshot, record.now)),
        );
    }
    if decision.allows() && decision.failed.is_empty() {
        return answer(stamp, decision, &Detail::Reasons(&[], None));
    }
    let (controls, near) = reasons(decision, &record.question, &record.snapshot, record.now);
    answer(stamp, decision, &Detail::Reasons(&controls, near.as_ref()))
}

#[tonic::async_trait]
impl v1::check_service_server::CheckService for CheckService {
    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        let arrived = self.decider.clock.elapsed();
        let (metadata, connection, message) = request.into_parts();
        let decided = (|| {
            let patience = patience(&metadata)?;
            let loaded = self.decider.load()?;
            let decision = self.decide(message, &connection, &loaded, arrived)?;
            self.in_time(arrived, patience)?;
            Ok(decision)
        })();
        match decided {
            Ok(decision) => Ok(Response::new(v1::CheckResponse {
                decision: Some(decision),
            })),
            Err(fault) => Err(self.failed(fault)),
        }
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        let arrived = self.decider.clock.elapsed();
        let (metadata, connection, message) = request.into_parts();
        let decided = (|| {
            let patience = patience(&metadata)?;
            let loaded = self.decider.load()?;
            let count = message.items.len();
            if count == 0 || count > BATCH {
                return Err(Fault::Invalid(Invalid::new(
                    "items",
                    format!("has {count} items"),
                    format!("send 1 to {BATCH}"),
                )));
            }
            let mut items = Vec::with_capacity(count);
            for item in message.items {
                self.in_time(arrived, patience)?;
                let began = self.decider.clock.elapsed();
                items.push(batch_item(self.decide(item, &connection, &loaded, began)));
            }
            Ok(items)
        })();
        match decided {
            Ok(items) => Ok(Response::new(v1::BatchCheckResponse { items })),
            Err(fault) => Err(self.failed(fault)),
        }
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let (_, connection, message) = request.into_parts();
        self.explained(&message.decision_id, &connection)
            .map(Response::new)
            .map_err(|fault| self.failed(fault))
    }
}

impl CheckService {
    fn explained(&self, id: &str, connection: &Extensions) -> Result<v1::ExplainResponse, Fault> {
        let malformed = || {
            Fault::Invalid(Invalid::new(
                "decision_id",
                "is not a decision's id",
                "use the `id` of a decision, such as dec_019…",
            ))
        };
        let uuid = id
            .strip_prefix("dec_")
            .and_then(|id| Uuid::try_parse(id).ok())
            .ok_or_else(malformed)?;
        let gone =
            || Fault::NotFound("no such decision among the last 10,000 of this sidecar".into());
        let record = self.decider.find(uuid).ok_or_else(gone)?;
        // Whose decision it is stays unsaid to others.
        let caller = caller(&self.identity, connection, record.question.subject.as_str()).map_err(
            |fault| match fault {
                Fault::Forbidden(_) => gone(),
                other => other,
            },
        )?;
        let decision = record.decide();
        let resource = &record.question.resource;
        Ok(v1::ExplainResponse {
            decision: Some(tell(&decision, &record, Span::ZERO, &caller, true)),
            subject: record.question.subject.to_string(),
            action: record.question.action.clone(),
            resource: Some(v1::Resource {
                r#type: resource.kind.clone(),
                id: resource.id.clone(),
                properties: None,
            }),
        })
    }

    /// Whether the caller still waits.
    fn in_time(&self, arrived: Span, patience: Span) -> Result<(), Fault> {
        let waited = self
            .decider
            .clock
            .elapsed()
            .micros()
            .saturating_sub(arrived.micros());
        if waited > patience.micros() {
            Err(Fault::DeadlineExceeded)
        } else {
            Ok(())
        }
    }
}

/// How long the caller waits, by `grpc-timeout`, and no longer than [`DEADLINE`].
fn patience(metadata: &MetadataMap) -> Result<Span, Fault> {
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
