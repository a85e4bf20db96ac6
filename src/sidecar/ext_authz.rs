//! `envoy.service.auth.v3.Authorization`: meshes and gateways ask whether a call may go on.

use std::sync::Arc;

use envoy_types::ext_authz::v3::pb::{Authorization, CheckRequest, CheckResponse};
use http::Extensions;
use tonic::{Request, Response, Status};

use crate::{
    config::{Proxy, TokenSource},
    domain::Span,
    runtime::clock::Instant,
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
        let arrived = self.answering.decider.clock.look();
        let (metadata, connection, message) = request.into_parts();
        let called = Called {
            surface: Surface::ExtAuthz,
            ..Called::of(METHOD, &metadata)
        };
        let when = (arrived, patience(&metadata), called);
        Ok(Response::new(
            self.answer(&message, &connection, when).await?,
        ))
    }
}

impl ExtAuthz {
    /// What Envoy is told, over whichever protocol it asks.
    ///
    /// # Errors
    ///
    /// What is our own fault.
    pub(super) async fn answer(
        &self,
        message: &CheckRequest,
        connection: &Extensions,
        (arrived, patience, mut called): (Instant, Result<Span, Fault>, Called),
    ) -> Result<CheckResponse, Fault> {
        let answering = &self.answering;
        let decided = async {
            let patience = patience?;
            let asking = asked(message, &self.tokens)?;
            called.trace = asking.trace.or(called.trace);
            let (identity, proxies) = (&answering.identity, &self.proxies);
            let who = behind(identity, proxies, connection, asking.principal)?;
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
        match decided {
            Ok(Some(decision)) => Ok(answered(&decision)),
            Ok(None) => Ok(passed()),
            Err(Fault::Invalid(invalid)) => Ok(malformed(&invalid)),
            Err(Fault::Unauthenticated(why)) => Ok(unknown(&why)),
            Err(Fault::Forbidden(why)) => Ok(forbidden(&why)),
            Err(fault) => Err(fault),
        }
    }
}
