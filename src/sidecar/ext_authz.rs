//! `envoy.service.auth.v3.Authorization`: meshes and gateways ask whether a call may go on.

use std::sync::Arc;

use envoy_types::ext_authz::v3::pb::{Authorization, CheckRequest, CheckResponse};
use tonic::{Request, Response, Status};

use crate::{
    config::{Proxy, TokenSource},
    telemetry::Surface,
    wire::{
        Fault,
        envoy::{answered, asked, forbidden, malformed, passed, unknown},
    },
};

use super::{
    answering::{Answering, Called, patience},
    identity::behind,
};

const METHOD: &str = "envoy.service.auth.v3.Authorization/Check";

/// Answers Envoy.
#[derive(Clone, Debug)]
pub(super) struct ExtAuthz {
    pub(super) answering: Answering,
    /// Who may speak for others.
    pub(super) proxies: Arc<[Proxy]>,
    /// Whose tokens count that they have verified.
    pub(super) tokens: Arc<[TokenSource]>,
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    /// An answer has a status, which is zero for a yes alone. What is our own fault is no answer: the
    /// call fails, and Envoy does as it was told for that.
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let answering = &self.answering;
        let arrived = answering.decider.clock.look();
        let (metadata, connection, message) = request.into_parts();
        let mut called = Called {
            surface: Surface::ExtAuthz,
            ..Called::of(METHOD, &metadata)
        };
        let decided = async {
            let patience = patience(&metadata)?;
            let asking = asked(&message, &self.tokens)?;
            called.trace = asking.trace.or(called.trace);
            let (identity, proxies) = (&answering.identity, &self.proxies);
            let who = behind(identity, proxies, &connection, asking.principal)?;
            let Some(question) = asking.request else {
                return answering.may_speak(&who).map(|()| None);
            };
            let when = (arrived, patience, called);
            answering.ask(question, who, when).await.map(Some)
        };
        let decided = decided.await;
        if let Err(fault) = &decided {
            answering.tell_failed(fault, arrived, called);
        }
        let answer = match decided {
            Ok(Some(decision)) => answered(&decision),
            Ok(None) => passed(),
            Err(Fault::Invalid(invalid)) => malformed(&invalid),
            Err(Fault::Unauthenticated(why)) => unknown(&why),
            Err(Fault::Forbidden(why)) => forbidden(&why),
            Err(fault) => return Err(fault.into()),
        };
        Ok(Response::new(answer))
    }
}
