//! `exeat.v1.IncidentService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{DomainId, Incident, IncidentId, Invalid},
    registry::{authn::Caller, core::Registry, incidents::Declares, view::View},
    wire::{Fault, Received, sync::stamp, v1},
};

use super::{opened, short};

/// Longest title, in bytes.
const TITLE: usize = 512;

/// Answers for incidents.
#[derive(Clone, Debug)]
pub(crate) struct IncidentCalls(pub(in crate::registry) Arc<Registry>);

fn id(text: &str) -> Result<IncidentId, Fault> {
    let text = short("id", text.to_owned())?;
    IncidentId::parse(&text).map_err(|error| Fault::Invalid(error.under("id")))
}

fn message(view: &View, incident: &Incident) -> v1::Incident {
    let of = view
        .cases
        .values()
        .filter(|case| case.request.incident.as_deref() == Some(incident.id.as_str()));
    let mut exceptions: Vec<_> = of.map(|case| case.id.to_string()).collect();
    exceptions.sort_unstable();
    let resolved = incident.resolved.as_ref();
    v1::Incident {
        id: incident.id.to_string(),
        domain: incident.domain.to_string(),
        title: incident.title.to_string(),
        opened_by: incident.opened_by.to_string(),
        opened: Some(stamp(incident.opened)),
        resolved_by: resolved.map_or(String::new(), |(by, _)| by.to_string()),
        resolved: resolved.map(|(_, at)| stamp(*at)),
        exceptions,
    }
}

impl IncidentCalls {
    async fn declared(
        &self,
        caller: &Caller,
        id: &IncidentId,
        declares: Declares,
    ) -> Result<Option<v1::Incident>, Fault> {
        let incident = self.0.declare(caller, id, declares, None).await?;
        Ok(Some(message(&self.0.view(), &incident)))
    }

    async fn begun(
        &self,
        request: Request<Received<v1::OpenIncidentRequest>>,
    ) -> Result<v1::OpenIncidentResponse, Fault> {
        let (caller, message) = opened(request)?;
        let v1::OpenIncidentRequest {
            id: text,
            domain,
            title,
        } = message;
        let wrong = |what: &str| {
            let fix = "say in a few words what happens";
            Fault::Invalid(Invalid::new("title", what, fix))
        };
        if title.trim().is_empty() {
            return Err(wrong("is empty"));
        }
        if title.len() > TITLE {
            return Err(wrong("is longer than 512 bytes"));
        }
        let domain = DomainId::parse(&domain).map_err(|e| Fault::Invalid(e.under("domain")))?;
        let declares = Declares::Opened(domain, short("title", title)?);
        Ok(v1::OpenIncidentResponse {
            incident: self.declared(&caller, &id(&text)?, declares).await?,
        })
    }
}

#[tonic::async_trait]
impl v1::incident_service_server::IncidentService for IncidentCalls {
    async fn open_incident(
        &self,
        request: Request<Received<v1::OpenIncidentRequest>>,
    ) -> Result<Response<v1::OpenIncidentResponse>, Status> {
        Ok(Response::new(self.begun(request).await?))
    }

    async fn resolve_incident(
        &self,
        request: Request<Received<v1::ResolveIncidentRequest>>,
    ) -> Result<Response<v1::ResolveIncidentResponse>, Status> {
        let (caller, v1::ResolveIncidentRequest { id: text }) = opened(request)?;
        let incident = self
            .declared(&caller, &id(&text)?, Declares::Resolved)
            .await?;
        Ok(Response::new(v1::ResolveIncidentResponse { incident }))
    }

    async fn list_incidents(
        &self,
        request: Request<Received<v1::ListIncidentsRequest>>,
    ) -> Result<Response<v1::ListIncidentsResponse>, Status> {
        let (_, v1::ListIncidentsRequest { all }) = opened(request)?;
        let view = self.0.view();
        let mut found: Vec<_> = view
            .snapshot
            .directory()
            .incidents()
            .filter(|incident| all || incident.is_open())
            .collect();
        found.sort_by(|a, b| (b.opened, &b.id).cmp(&(a.opened, &a.id)));
        let incidents = found.into_iter().map(|incident| message(&view, incident));
        Ok(Response::new(v1::ListIncidentsResponse {
            incidents: incidents.collect(),
        }))
    }
}
