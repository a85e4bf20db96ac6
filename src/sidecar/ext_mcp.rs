//! `agentgateway.dev.ext_mcp.ExtMcp`: a gateway asks about messages of the Model Context Protocol, and
//! shows of lists what may be used.

use std::sync::Arc;

use http::Extensions;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    config::{Identity, Proxy},
    engine::search::Standing,
    runtime::clock::Instant,
    telemetry::Surface,
    wire::{
        Fault, Received,
        agentgateway::{
            AuthorizationError, McpRequest, McpRequestResult, McpResponse, McpResponseResult,
            ext_mcp_server,
        },
        authzen::permits,
        ext_mcp::{Listing, answered, asked, forbidden, kept, listed, malformed, passed},
        principal::Principal,
        resource, v1,
    },
};

use super::{
    answering::{Answering, Called, patience},
    identity::{Caller, admitted, behind},
};

/// Answers agentgateway.
#[derive(Clone, Debug)]
pub(super) struct ExtMcp {
    pub(super) answering: Answering,
    /// Who may speak for others.
    pub(super) proxies: Arc<[Proxy]>,
}

/// A call, beside what it says.
struct Call<'a> {
    metadata: &'a MetadataMap,
    connection: &'a Extensions,
    arrived: Instant,
    called: Called,
}

impl<'a> Call<'a> {
    fn of(
        method: &'static str,
        metadata: &'a MetadataMap,
        connection: &'a Extensions,
        arrived: Instant,
    ) -> Self {
        Self {
            metadata,
            connection,
            arrived,
            called: Called {
                surface: Surface::ExtMcp,
                ..Called::of(method, metadata)
            },
        }
    }
}

impl ExtMcp {
    /// Who is behind a message. A gateway asks for others alone: where it says nobody, nobody asks.
    fn who(&self, connection: &Extensions, principal: Option<Principal>) -> Result<Caller, Fault> {
        let identity = &*self.answering.identity;
        if principal.is_none() && !matches!(identity, Identity::Bound(_)) {
            let why = "the gateway says nobody: have its `metadata` say who asks, as `subject`";
            return Err(Fault::Unauthenticated(why.into()));
        }
        behind(identity, &self.proxies, connection, principal)
    }

    /// Whether whoever is at the other end may ask at all, before anything of it is read.
    fn admitted(&self, connection: &Extensions) -> Result<(), Fault> {
        admitted(&self.answering.identity, &self.proxies, connection)
    }

    /// The first denial, else the last decision; none where there is nothing to decide.
    async fn decide(
        &self,
        message: McpRequest,
        call: &mut Call<'_>,
    ) -> Result<Option<v1::Decision>, Fault> {
        let patience = patience(call.metadata)?;
        self.admitted(call.connection)?;
        let asking = asked(message).map_err(Fault::Invalid)?;
        call.called.trace = asking.trace.or(call.called.trace);
        let who = self.who(call.connection, asking.principal.clone())?;
        if asking.questions.is_empty() {
            self.answering.may_speak(&who)?;
        }
        // Held until all is answered, as a batch is (S2).
        let _held = self.answering.decider.snapshot.get();
        let mut last = None;
        for asked in &asking.questions {
            let (request, when) = (asking.request(asked), (call.arrived, patience, call.called));
            let told = self.answering.ask(request, who.clone(), when).await?;
            let goes_on = permits(&told);
            last = Some(told);
            if !goes_on {
                break;
            }
        }
        Ok(last)
    }

    /// A list with what may be used of it now. Nothing is recorded of that, and nothing used up.
    async fn hold_back(
        &self,
        mut listing: Listing,
        call: &Call<'_>,
    ) -> Result<McpResponseResult, Fault> {
        let patience = patience(call.metadata)?;
        let who = self.who(call.connection, listing.principal.clone())?;
        let (check, items) = listing.asks();
        // What is no question is nothing that may be used.
        let items = items.into_iter().map(|item| resource(item?).ok()).collect();
        let when = (call.arrived, patience);
        let standings = self.answering.sift(check, items, who, when).await?;
        let may: Vec<bool> = standings
            .iter()
            .map(|of| *of == Standing::Permitted)
            .collect();
        Ok(listing.of_those(&may))
    }

    /// What went wrong, as the gateway has it: what is somebody else's fault is an answer, and what is
    /// ours a call that fails.
    fn told<T: From<AuthorizationError>>(
        &self,
        decided: Result<T, Fault>,
        call: &Call<'_>,
    ) -> Result<Response<T>, Status> {
        if let Err(fault) = &decided {
            self.answering.tell_failed(fault, call.arrived, call.called);
        }
        let answer = match decided {
            Ok(answer) => answer,
            Err(Fault::Invalid(invalid)) => malformed(&invalid).into(),
            Err(Fault::Unauthenticated(why) | Fault::Forbidden(why)) => forbidden(&why).into(),
            Err(fault) => return Err(fault.into()),
        };
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl ext_mcp_server::ExtMcp for ExtMcp {
    async fn check_request(
        &self,
        request: Request<Received<McpRequest>>,
    ) -> Result<Response<McpRequestResult>, Status> {
        let arrived = self.answering.decider.clock.look();
        let (metadata, connection, Received { message, .. }) = request.into_parts();
        let method = "agentgateway.dev.ext_mcp.ExtMcp/CheckRequest";
        let mut call = Call::of(method, &metadata, &connection, arrived);
        let decided = match message {
            Ok(message) => self.decide(message, &mut call).await,
            Err(invalid) => Err(Fault::Invalid(invalid)),
        };
        let decided = decided.map(|told| told.as_ref().map_or_else(passed, answered));
        self.told(decided, &call)
    }

    async fn check_response(
        &self,
        request: Request<Received<McpResponse>>,
    ) -> Result<Response<McpResponseResult>, Status> {
        let arrived = self.answering.decider.clock.look();
        let (metadata, connection, Received { message, .. }) = request.into_parts();
        let method = "agentgateway.dev.ext_mcp.ExtMcp/CheckResponse";
        let call = Call::of(method, &metadata, &connection, arrived);
        let decided = async {
            self.admitted(&connection)?;
            match message.and_then(listed).map_err(Fault::Invalid)? {
                Some(listing) => self.hold_back(listing, &call).await,
                None => Ok(kept()),
            }
        };
        let decided = decided.await;
        self.told(decided, &call)
    }
}
