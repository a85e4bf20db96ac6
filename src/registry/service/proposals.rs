//! `exeat.v1.ControlService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{ControlId, Digest, Invalid, Kind, Name, Proposal},
    engine::proposals::{settled, wanted},
    manifest::write_proposal,
    registry::{
        core::Registry,
        proposals::{Proposes, Says, standing_of},
    },
    wire::{Fault, Received, sync::stamp, v1},
};

use super::{opened, short};

/// Answers for controls that are to deny less.
#[derive(Clone, Debug)]
pub(crate) struct ControlCalls(pub(in crate::registry) Arc<Registry>);

impl ControlCalls {
    fn message(&self, proposal: &Proposal) -> v1::Proposal {
        let (view, now) = (self.0.view(), self.0.clock.now().latest);
        let open = if settled(proposal, &view.snapshot, now).is_none() {
            wanted(proposal, &view.snapshot).unwrap_or_default()
        } else {
            Vec::new()
        };
        let name = Name::new(Kind::Control, proposal.control.as_str());
        let before = view
            .object(&name)
            .and_then(|stored| stored.manifest.clone());
        v1::Proposal {
            id: proposal.id.to_string(),
            control_id: proposal.control.to_string(),
            state: standing_of(&view, proposal, now).to_owned(),
            weakens: proposal.weakens.to_string(),
            reason: proposal.reason.to_string(),
            proposer: proposal.proposer.to_string(),
            created: Some(stamp(proposal.created)),
            deadline: Some(stamp(proposal.deadline())),
            digest: proposal.digest.to_string(),
            open_roles: open.iter().map(ToString::to_string).collect(),
            before: before.map_or(String::new(), |text| text.to_string()),
            after: proposal
                .manifest
                .as_deref()
                .map_or(String::new(), ToOwned::to_owned),
            record: write_proposal(proposal),
        }
    }

    async fn proposed(
        &self,
        request: Request<Received<v1::ProposeControlRequest>>,
    ) -> Result<v1::ProposeControlResponse, Fault> {
        let (caller, message) = opened(request)?;
        let v1::ProposeControlRequest {
            file,
            remove,
            reason,
        } = message;
        let proposes = match (file, remove.is_empty()) {
            (Some(v1::ManifestFile { name, content }), true) => Proposes::Changed(name, content),
            (None, false) => Proposes::Removed(
                ControlId::parse(&remove).map_err(|e| Fault::Invalid(e.under("remove")))?,
            ),
            _ => {
                let fix = "send a control, or the id of one to remove";
                let what = "is missing, or given with `remove`";
                return Err(Fault::Invalid(Invalid::new("file", what, fix)));
            }
        };
        let reason = short("reason", reason)?;
        let proposal = self.0.propose(&caller, proposes, &reason).await?;
        Ok(v1::ProposeControlResponse {
            proposal: Some(self.message(&proposal)),
        })
    }

    fn listed(
        &self,
        request: Request<Received<v1::ListProposalsRequest>>,
    ) -> Result<v1::ListProposalsResponse, Fault> {
        let (_, v1::ListProposalsRequest { id, all }) = opened(request)?;
        let (view, now) = (self.0.view(), self.0.clock.now().latest);
        let mut found: Vec<_> = view
            .snapshot
            .directory()
            .proposals()
            .filter(|proposal| {
                let open = || settled(proposal, &view.snapshot, now).is_none();
                if id.is_empty() {
                    all || open()
                } else {
                    *proposal.id == *id
                }
            })
            .collect();
        if found.is_empty() && !id.is_empty() {
            return Err(Fault::NotFound(format!("there is no proposal `{id}`")));
        }
        found.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        let proposals = found.into_iter().map(|proposal| self.message(proposal));
        Ok(v1::ListProposalsResponse {
            proposals: proposals.collect(),
        })
    }

    async fn decided(
        &self,
        request: Request<Received<v1::DecideProposalRequest>>,
    ) -> Result<v1::DecideProposalResponse, Fault> {
        let (caller, message) = opened(request)?;
        let v1::DecideProposalRequest {
            id,
            approve,
            comment,
            digest,
        } = message;
        let digest = Digest::parse(&digest).map_err(|_| {
            let fix = "send the digest of what you looked at";
            Fault::Invalid(Invalid::new("digest", "is missing", fix))
        })?;
        let says = Says::Decides {
            approves: approve,
            comment: short("comment", comment)?.into(),
            digest,
        };
        let proposal = self.0.say(&caller, &id, says).await?;
        Ok(v1::DecideProposalResponse {
            proposal: Some(self.message(&proposal)),
        })
    }
}

#[tonic::async_trait]
impl v1::control_service_server::ControlService for ControlCalls {
    async fn propose_control(
        &self,
        request: Request<Received<v1::ProposeControlRequest>>,
    ) -> Result<Response<v1::ProposeControlResponse>, Status> {
        Ok(Response::new(self.proposed(request).await?))
    }

    async fn list_proposals(
        &self,
        request: Request<Received<v1::ListProposalsRequest>>,
    ) -> Result<Response<v1::ListProposalsResponse>, Status> {
        Ok(Response::new(self.listed(request)?))
    }

    async fn decide_proposal(
        &self,
        request: Request<Received<v1::DecideProposalRequest>>,
    ) -> Result<Response<v1::DecideProposalResponse>, Status> {
        Ok(Response::new(self.decided(request).await?))
    }

    async fn withdraw_proposal(
        &self,
        request: Request<Received<v1::WithdrawProposalRequest>>,
    ) -> Result<Response<v1::WithdrawProposalResponse>, Status> {
        let (caller, v1::WithdrawProposalRequest { id }) = opened(request)?;
        let said = self.0.say(&caller, &id, Says::Withdraws).await;
        let proposal = said.map_err(Fault::from)?;
        Ok(Response::new(v1::WithdrawProposalResponse {
            proposal: Some(self.message(&proposal)),
        }))
    }
}
