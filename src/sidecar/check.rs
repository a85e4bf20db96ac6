//! `exeat.v1.CheckService`.

use std::borrow::Cow;

use futures_util::future::join_all;
use tonic::{Extensions, Request, Response, Status};
use uuid::Uuid;

use crate::{
    domain::Invalid,
    engine::{model_of, search::Standing},
    wire::{Fault, Received, Stamp, batch_item, keep, resource, v1},
};

use super::{
    answering::{Answering, Begun, Called, Wanted, in_time, patience, tell},
    identity::caller,
    record::written,
};

/// Most questions in a batch.
const BATCH: usize = 100;
/// Most resources that are sifted at once.
const RESOURCES: usize = 1_000;

fn stands(standing: Standing) -> v1::Standing {
    match standing {
        Standing::Permitted => v1::Standing::Permitted,
        Standing::Requestable => v1::Standing::Requestable,
        Standing::Denied => v1::Standing::Denied,
    }
}

/// Answers checks.
#[derive(Clone, Debug)]
pub(super) struct CheckService(pub(super) Answering);

#[tonic::async_trait]
impl v1::check_service_server::CheckService for CheckService {
    async fn check(
        &self,
        request: Request<Received<v1::CheckRequest>>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        let arrived = self.0.decider.clock.look();
        let (metadata, connection, received) = request.into_parts();
        let Received { message, mut bytes } = received;
        let called = Called::of("exeat.v1.CheckService/Check", &metadata);
        let begun = (|| {
            let patience = patience(&metadata)?;
            let loaded = self.0.decider.snapshot.load();
            let loaded = loaded.as_ref().ok_or(Fault::NotReady)?;
            let when = (arrived, patience, called);
            let mut message = message?;
            let who = caller(&self.0.identity, &connection, &message.subject)?;
            if who.acts.is_some() {
                message = who.says(message);
                bytes = keep(&message).into();
            }
            self.0.begin(message, &bytes, who, loaded, when)
        })();
        let decided = match begun {
            Ok(Begun::Answered(decision)) => Ok(decision),
            Ok(Begun::Owes(owed)) => Box::pin(self.0.finish(*owed, &bytes)).await,
            Err(fault) => Err(fault),
        };
        match decided {
            Ok(decision) => Ok(Response::new(v1::CheckResponse {
                decision: Some(decision),
            })),
            Err(fault) => Err(self.0.failed(fault, arrived, called)),
        }
    }

    async fn batch_check(
        &self,
        request: Request<Received<v1::BatchCheckRequest>>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        let arrived = self.0.decider.clock.look();
        let (metadata, connection, received) = request.into_parts();
        let called = Called::of("exeat.v1.CheckService/BatchCheck", &metadata);
        let decided = async {
            let patience = patience(&metadata)?;
            // Held until the batch is answered: what came into force meanwhile is acknowledged only
            // once no answer of it rests on what was before (S2).
            let loaded = self.0.decider.snapshot.get().ok_or(Fault::NotReady)?;
            let asked = received.message?.items;
            let count = asked.len();
            if count == 0 || count > BATCH {
                return Err(Fault::Invalid(Invalid::new(
                    "items",
                    format!("has {count} items"),
                    format!("send 1 to {BATCH}"),
                )));
            }
            let mut items = Vec::with_capacity(count);
            for item in asked {
                let look = self.0.decider.clock.look();
                in_time(arrived, look.elapsed, patience)?;
                let who = caller(&self.0.identity, &connection, &item.subject);
                let item = match &who {
                    Ok(who) => who.says(item),
                    Err(_) => item,
                };
                let bytes = keep(&item);
                let begun = who.and_then(|who| {
                    self.0
                        .begin(item, &bytes, who, &loaded, (look, patience, called))
                });
                // What they rest on is recorded together.
                items.push(async move {
                    match begun? {
                        Begun::Answered(decision) => Ok(decision),
                        Begun::Owes(owed) => self.0.finish(*owed, &bytes).await,
                    }
                });
            }
            let decided = Box::pin(join_all(items)).await;
            let told = |item: Result<v1::Decision, Fault>| {
                if let Err(fault) = &item {
                    self.0.tell_failed(fault, arrived, called);
                }
                batch_item(item)
            };
            // Of a batch that comes too late that alone is told.
            in_time(arrived, self.0.decider.clock.elapsed(), patience)?;
            Ok(decided.into_iter().map(told).collect())
        }
        .await;
        match decided {
            Ok(items) => Ok(Response::new(v1::BatchCheckResponse { items })),
            Err(fault) => Err(self.0.failed(fault, arrived, called)),
        }
    }

    async fn filter_resources(
        &self,
        request: Request<Received<v1::FilterResourcesRequest>>,
    ) -> Result<Response<v1::FilterResourcesResponse>, Status> {
        let arrived = self.0.decider.clock.look();
        let (metadata, connection, received) = request.into_parts();
        let sifted = async {
            let patience = patience(&metadata)?;
            let v1::FilterResourcesRequest { check, resources } = received.message?;
            let check = check.unwrap_or_default();
            let wrong = |path: &str, what: String, fix: String| {
                Err(Fault::Invalid(Invalid::new(path, what, fix)))
            };
            if check.resource.is_some() {
                let fix = "name what it is about in `resources`";
                return wrong("check.resource", "is there".into(), fix.into());
            }
            if resources.len() > RESOURCES {
                let what = format!("has {} items", resources.len());
                return wrong("resources", what, format!("send at most {RESOURCES}"));
            }
            let read = |(at, item)| {
                let read = resource(item).map(Some);
                read.map_err(|e| Fault::Invalid(e.under(&format!("resources[{at}]"))))
            };
            let resources: Result<_, Fault> = resources.into_iter().enumerate().map(read).collect();
            let resources = resources?;
            let who = caller(&self.0.identity, &connection, &check.subject)?;
            self.0
                .sift(check, resources, who, (arrived, patience))
                .await
        };
        match sifted.await {
            Ok(standings) => Ok(Response::new(v1::FilterResourcesResponse {
                standings: standings.into_iter().map(|of| stands(of).into()).collect(),
            })),
            Err(fault) => {
                let called = Called::of("exeat.v1.CheckService/FilterResources", &metadata);
                Err(self.0.failed(fault, arrived, called))
            }
        }
    }

    async fn explain(
        &self,
        request: Request<Received<v1::ExplainRequest>>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let arrived = self.0.decider.clock.look();
        let (metadata, connection, received) = request.into_parts();
        received
            .message
            .map_err(Fault::Invalid)
            .and_then(|message| self.explained(&message.decision_id, &connection))
            .map(Response::new)
            .map_err(|fault| {
                let called = Called::of("exeat.v1.CheckService/Explain", &metadata);
                self.0.failed(fault, arrived, called)
            })
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
        let record = self.0.decider.find(uuid).ok_or_else(gone)?;
        // Whose decision it is stays unsaid to others.
        let caller = caller(
            &self.0.identity,
            connection,
            record.question.subject.as_str(),
        )
        .map_err(|fault| match fault {
            Fault::Forbidden(_) => gone(),
            other => other,
        })?;
        let stamp = Stamp {
            id: written(record.id),
            time: record.now.latest,
            digest: record.snapshot.digest().as_str(),
            revision: record.snapshot.revision(),
            age: 0.0,
        };
        let wanted = Wanted {
            verified: caller.verified,
            all: true,
        };
        let told = tell(
            stamp,
            &record.decide(),
            wanted,
            &record.question,
            record.now,
            || Cow::Borrowed(&record.snapshot),
        );
        let resource = &record.question.resource;
        let subject = record.snapshot.subject(record.question.subject.as_str());
        Ok(v1::ExplainResponse {
            decision: Some(told),
            subject: record.question.subject.to_string(),
            action: record.question.action.clone(),
            resource: Some(v1::Resource {
                r#type: resource.kind.clone(),
                id: resource.id.clone(),
                properties: None,
            }),
            environment: subject.map_or_else(String::new, |of| of.environment.to_string()),
            purpose: record.question.purpose.clone().unwrap_or_default(),
            surface: record
                .surface
                .map_or_else(String::new, |of| of.name().into()),
            trace_id: record.trace.map_or_else(Vec::new, |of| of.trace.into()),
            model: subject.and_then(|of| model_of(of)).unwrap_or_default(),
        })
    }
}
