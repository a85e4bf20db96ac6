//! `exeat.v1.RevocationService`.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tonic::{Request, Response, Status};

use crate::{
    domain::{Act, Cause, Invalid, Removal, Span, SubjectId, Target},
    engine::Receipt,
    registry::{core::Registry, workflow::Takes},
    wire::{
        Fault, Received,
        sync::{removal_message, stamp, target},
        v1,
    },
};

use super::{opened, page, short};

/// How often a waiter looks whether anything has changed.
const LOOK: Duration = Duration::from_millis(20);
/// Longest a call waits.
const PATIENCE: Duration = Duration::from_mins(10);

/// Answers for removals.
#[derive(Clone, Debug)]
pub(crate) struct Revocations(pub(in crate::registry) Arc<Registry>);

impl Revocations {
    fn message(&self, removal: &Removal, receipt: Receipt) -> v1::RemovalReceipt {
        let now = self.0.clock.elapsed();
        let completion = match (receipt.complete(now), receipt.lapsed) {
            (false, _) => v1::Completion::Pending,
            (true, 0) => v1::Completion::Complete,
            (true, _) => v1::Completion::Bounded,
        };
        let outstanding = receipt.outstanding.into_iter();
        v1::RemovalReceipt {
            removal: Some(removal_message(removal)),
            acknowledged: receipt.acknowledged.into_iter().map(Into::into).collect(),
            outstanding: outstanding
                .map(|(sidecar, until)| v1::OutstandingSidecar {
                    sidecar: sidecar.into(),
                    lease_until: (until != Span::MAX).then(|| stamp(self.0.at(until))),
                })
                .collect(),
            effective_by: receipt.effective.map(|at| stamp(self.0.at(at))),
            completion: completion.into(),
        }
    }

    async fn taken(
        &self,
        caller: &crate::registry::authn::Caller,
        takes: Takes,
    ) -> Result<Option<v1::RemovalReceipt>, Fault> {
        let (removal, receipt) = self.0.take_back(caller, takes).await?;
        Ok(Some(self.message(&removal, receipt)))
    }

    async fn revoked(
        &self,
        request: Request<Received<v1::RevokeRequest>>,
    ) -> Result<v1::RevokeResponse, Fault> {
        let (caller, message) = opened(request)?;
        let v1::RevokeRequest {
            target: of,
            reason,
            note: text,
        } = message;
        let cause = if reason.is_empty() {
            Cause::Admin
        } else {
            Cause::parse(&reason).map_err(|error| Fault::Invalid(error.under("reason")))?
        };
        let takes = Takes {
            act: Act::Revoke,
            target: target(of).map_err(Fault::Invalid)?,
            cause,
            note: short("note", text)?,
            heard: None,
        };
        Ok(v1::RevokeResponse {
            receipt: self.taken(&caller, takes).await?,
        })
    }

    async fn found(
        &self,
        request: Request<Received<v1::GetRevocationRequest>>,
    ) -> Result<v1::GetRevocationResponse, Fault> {
        let (_, v1::GetRevocationRequest { sequence, wait }) = opened(request)?;
        let at = sequence
            .checked_sub(1)
            .and_then(|at| usize::try_from(at).ok());
        let removal = at
            .and_then(|at| self.0.view().removals.get(at).cloned())
            .ok_or_else(|| Fault::NotFound(format!("there is no removal {sequence}")))?;
        let end = Instant::now() + PATIENCE;
        loop {
            let receipt = self.0.receipt(&removal);
            let told = self.message(&removal, receipt);
            let pending = told.completion() == v1::Completion::Pending;
            if !wait || !pending || Instant::now() >= end {
                return Ok(v1::GetRevocationResponse {
                    receipt: Some(told),
                });
            }
            sleep_until(Instant::now() + LOOK).await;
        }
    }

    fn listed(
        &self,
        request: Request<Received<v1::ListRevocationsRequest>>,
    ) -> Result<v1::ListRevocationsResponse, Fault> {
        let (_, message) = opened(request)?;
        let v1::ListRevocationsRequest {
            page_size,
            page_token,
        } = message;
        let before = if page_token.is_empty() {
            u64::MAX
        } else {
            page_token.parse().map_err(|_| {
                let fix = "send what the last answer said";
                Fault::Invalid(Invalid::new("page_token", "is no page", fix))
            })?
        };
        let view = self.0.view();
        let size = page(page_size);
        let all = view.removals.iter().rev();
        let found: Vec<_> = all
            .filter(|removal| removal.sequence < before)
            .take(size)
            .collect();
        let last = found.last().map(|removal| removal.sequence);
        Ok(v1::ListRevocationsResponse {
            removals: found
                .iter()
                .map(|removal| removal_message(removal))
                .collect(),
            next_page_token: last
                .filter(|last| *last > 1 && found.len() == size)
                .map(|last| last.to_string())
                .unwrap_or_default(),
        })
    }
}

fn frozen(act: Act, subject: &str, text: String) -> Result<Takes, Fault> {
    let subject =
        SubjectId::parse(subject).map_err(|error| Fault::Invalid(error.under("subject")))?;
    Ok(Takes {
        act,
        target: Target::Subject(subject),
        cause: Cause::Admin,
        note: short("note", text)?,
        heard: None,
    })
}

#[tonic::async_trait]
impl v1::revocation_service_server::RevocationService for Revocations {
    async fn revoke(
        &self,
        request: Request<Received<v1::RevokeRequest>>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        Ok(Response::new(self.revoked(request).await?))
    }

    async fn freeze(
        &self,
        request: Request<Received<v1::FreezeRequest>>,
    ) -> Result<Response<v1::FreezeResponse>, Status> {
        let (caller, v1::FreezeRequest { subject, note }) = opened(request)?;
        let takes = frozen(Act::Freeze, &subject, note)?;
        let receipt = self.taken(&caller, takes).await?;
        Ok(Response::new(v1::FreezeResponse { receipt }))
    }

    async fn thaw(
        &self,
        request: Request<Received<v1::ThawRequest>>,
    ) -> Result<Response<v1::ThawResponse>, Status> {
        let (caller, v1::ThawRequest { subject, note }) = opened(request)?;
        let revoked = |target: Target| self.0.view().snapshot.removed().revokes(&target);
        if SubjectId::parse(&subject).is_ok_and(|id| revoked(Target::Subject(id))) {
            let why = format!("`{subject}` was revoked, and that is for good; it cannot be thawed");
            return Err(Fault::Precondition(why).into());
        }
        let takes = frozen(Act::Thaw, &subject, note)?;
        let receipt = self.taken(&caller, takes).await?;
        Ok(Response::new(v1::ThawResponse { receipt }))
    }

    async fn get_revocation(
        &self,
        request: Request<Received<v1::GetRevocationRequest>>,
    ) -> Result<Response<v1::GetRevocationResponse>, Status> {
        Ok(Response::new(self.found(request).await?))
    }

    async fn list_revocations(
        &self,
        request: Request<Received<v1::ListRevocationsRequest>>,
    ) -> Result<Response<v1::ListRevocationsResponse>, Status> {
        Ok(Response::new(self.listed(request)?))
    }
}
