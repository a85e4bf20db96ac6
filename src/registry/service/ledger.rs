//! `exeat.v1.LedgerService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{Invalid, Kind, Name, Principal},
    manifest::payloads,
    registry::{core::Registry, store::Entered},
    wire::{Fault, Message as _, Received, sync::kind, v1},
};

use super::{opened, page};

/// Most bytes of an answer with several leaves.
const LARGE: usize = 16 << 20;

/// Answers about the ledger.
#[derive(Clone, Debug)]
pub(crate) struct LedgerCalls(pub(in crate::registry) Arc<Registry>);

fn leaf_message(entered: Entered) -> v1::Leaf {
    let payloads = payloads(&entered.transaction, &entered.erased);
    let leaf = entered.leaf;
    let salts = leaf.as_ref().map_or(&[][..], |leaf| &leaf.salts);
    let entries = salts
        .iter()
        .zip(payloads)
        .map(|(salt, payload)| match payload {
            Some(payload) => v1::Entry {
                salt: salt.to_vec(),
                payload,
                erased: false,
            },
            None => v1::Entry {
                erased: true,
                ..v1::Entry::default()
            },
        });
    v1::Leaf {
        position: leaf.as_ref().map_or(0, |leaf| leaf.position),
        revision: entered.transaction.revision,
        entries: entries.collect(),
        text: leaf.map_or_else(String::new, |leaf| leaf.text.into()),
    }
}

fn hashes(path: Vec<crate::domain::Hash>) -> Vec<Vec<u8>> {
    path.into_iter().map(Into::into).collect()
}

impl LedgerCalls {
    async fn listed(
        &self,
        request: Request<Received<v1::ListLeavesRequest>>,
    ) -> Result<v1::ListLeavesResponse, Fault> {
        let (_, message) = opened(request)?;
        let v1::ListLeavesRequest {
            after_revision,
            page_size,
            last,
        } = message;
        let after = match last {
            0 => after_revision,
            last => self.0.before_the_last(last).await?,
        };
        let rows = self.0.entered(after, page(page_size)).await?;
        let (mut leaves, mut bytes) = (Vec::new(), 0_usize);
        for row in rows {
            let leaf = leaf_message(row);
            bytes = bytes.saturating_add(leaf.encoded_len());
            if bytes > LARGE && !leaves.is_empty() {
                break;
            }
            leaves.push(leaf);
        }
        Ok(v1::ListLeavesResponse { leaves })
    }

    async fn proved(
        &self,
        request: Request<Received<v1::ProveLeafRequest>>,
    ) -> Result<v1::ProveLeafResponse, Fault> {
        let (_, v1::ProveLeafRequest { which }) = opened(request)?;
        let missing = || Invalid::new("which", "is missing", "name a revision or an object");
        let revision = match which.ok_or_else(missing).map_err(Fault::Invalid)? {
            v1::prove_leaf_request::Which::Revision(revision) => revision,
            v1::prove_leaf_request::Which::Object(v1::ObjectName { kind: of, id }) => {
                let of = kind(of).map_err(|invalid| Fault::Invalid(invalid.under("object")))?;
                let name = Name::new(of, &id);
                let view = self.0.view();
                let known = view.objects.get(&name);
                known
                    .ok_or_else(|| Fault::NotFound(format!("there was never a {name}")))?
                    .log_revision
            }
        };
        let proof = self.0.proof(revision).await?;
        let proof = proof
            .ok_or_else(|| Fault::NotFound(format!("there is no change of revision {revision}")))?;
        Ok(v1::ProveLeafResponse {
            leaf: Some(leaf_message(proof.entered)),
            path: hashes(proof.path),
            checkpoint: proof.checkpoint.into(),
            key_pin: self.0.pin().to_string(),
        })
    }

    async fn extended(
        &self,
        request: Request<Received<v1::ProveExtensionRequest>>,
    ) -> Result<v1::ProveExtensionResponse, Fault> {
        let (_, message) = opened(request)?;
        let v1::ProveExtensionRequest {
            first_size,
            second_size,
        } = message;
        let path = self.0.extension(first_size, second_size).await?;
        let path = path.ok_or_else(|| {
            Fault::Invalid(Invalid::new(
                "first_size",
                format!("a ledger of {second_size} entries does not grow from one of {first_size}"),
                "ask from 1 on, up to the checkpoint's size",
            ))
        })?;
        Ok(v1::ProveExtensionResponse { path: hashes(path) })
    }

    async fn erased(
        &self,
        request: Request<Received<v1::EraseRequest>>,
    ) -> Result<v1::EraseResponse, Fault> {
        let (caller, v1::EraseRequest { person }) = opened(request)?;
        let id = Principal::parse(&person).map_err(|e| Fault::Invalid(e.under("person")))?;
        let name = Name::new(Kind::Person, id.as_str());
        let entries = self.0.erase(&caller.identity, &name).await?;
        Ok(v1::EraseResponse {
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
        })
    }
}

#[tonic::async_trait]
impl v1::ledger_service_server::LedgerService for LedgerCalls {
    async fn get_checkpoint(
        &self,
        _: Request<Received<v1::GetCheckpointRequest>>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let (_, checkpoint) = self.0.checkpoint().await.map_err(Fault::from)?;
        Ok(Response::new(v1::GetCheckpointResponse {
            checkpoint: checkpoint.into(),
            key_pin: self.0.pin().to_string(),
        }))
    }

    async fn list_leaves(
        &self,
        request: Request<Received<v1::ListLeavesRequest>>,
    ) -> Result<Response<v1::ListLeavesResponse>, Status> {
        Ok(Response::new(self.listed(request).await?))
    }

    async fn prove_leaf(
        &self,
        request: Request<Received<v1::ProveLeafRequest>>,
    ) -> Result<Response<v1::ProveLeafResponse>, Status> {
        Ok(Response::new(self.proved(request).await?))
    }

    async fn prove_extension(
        &self,
        request: Request<Received<v1::ProveExtensionRequest>>,
    ) -> Result<Response<v1::ProveExtensionResponse>, Status> {
        Ok(Response::new(self.extended(request).await?))
    }

    async fn erase(
        &self,
        request: Request<Received<v1::EraseRequest>>,
    ) -> Result<Response<v1::EraseResponse>, Status> {
        Ok(Response::new(self.erased(request).await?))
    }
}
