//! `exeat.v1.ReportService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{DomainId, Invalid},
    engine::report::About,
    manifest::FRAMEWORKS,
    registry::{
        reporting::{Reporting, digest_of},
        role::Role,
    },
    runtime::simulated::aside,
    wire::{Fault, Received, v1},
};

use super::{opened, queue::queue};

/// Answers for reports.
#[derive(Clone, Debug)]
pub(in crate::registry) struct ReportCalls {
    /// Who makes them.
    pub reporting: Arc<Reporting>,
}

impl ReportCalls {
    fn about(&self, domain: &str, framework: &str) -> Result<About, Fault> {
        let view = self.reporting.registry.view();
        let domain = (!domain.is_empty())
            .then(|| {
                let id = DomainId::parse(domain).map_err(|e| Fault::Invalid(e.under("domain")))?;
                if view.snapshot.domains_above(&id).next().is_none() {
                    return Err(Fault::NotFound(format!("there is no domain `{id}`")));
                }
                Ok(id)
            })
            .transpose()?;
        if !framework.is_empty() && !FRAMEWORKS.contains(&framework) {
            let what = format!("`{framework}` is not known");
            let fix = format!("use one of {}", FRAMEWORKS.join(", "));
            return Err(Fault::Invalid(Invalid::new("framework", what, fix)));
        }
        Ok(About {
            domain,
            framework: (!framework.is_empty()).then(|| framework.into()),
        })
    }

    async fn got(
        &self,
        request: Request<Received<v1::GetReportRequest>>,
    ) -> Result<v1::GetReportResponse, Fault> {
        let (caller, message) = opened(request)?;
        let format = v1::ReportFormat::try_from(message.format).map_err(|_| {
            let what = format!("{} is not known", message.format);
            Fault::Invalid(Invalid::new("format", what, "use one of ReportFormat"))
        })?;
        let v1::GetReportRequest {
            domain,
            framework,
            record,
            ..
        } = message;
        if record && !matches!(caller.role, Role::Admin | Role::Author | Role::Approver) {
            return Err(Fault::Forbidden(format!(
                "recording a report needs role admin, author or approver, and `{}` has role {}",
                caller.identity, caller.role
            )));
        }
        let about = self.about(&domain, &framework)?;
        let made = self.reporting.made(about, format).await?;
        let report = made.ok_or_else(|| {
            Fault::NotFound(match format {
                v1::ReportFormat::OscalPoam => {
                    "nothing is to be remedied there, and OSCAL knows no empty plan".into()
                }
                _ => "no control in force runs by itself there".into(),
            })
        })?;
        let digest = digest_of(&report);
        let mut recorded_revision = 0;
        if record {
            recorded_revision = self.reporting.record(&caller.identity, &digest).await?;
        }
        Ok(v1::GetReportResponse {
            report,
            digest,
            recorded_revision,
        })
    }
}

#[tonic::async_trait]
impl v1::report_service_server::ReportService for ReportCalls {
    async fn get_report(
        &self,
        request: Request<Received<v1::GetReportRequest>>,
    ) -> Result<Response<v1::GetReportResponse>, Status> {
        Ok(Response::new(self.got(request).await?))
    }

    async fn list_queue(
        &self,
        request: Request<Received<v1::ListQueueRequest>>,
    ) -> Result<Response<v1::ListQueueResponse>, Status> {
        let (_, asks) = opened(request)?;
        let registry = Arc::clone(&self.reporting.registry);
        // Every case and finding is looked at.
        let found = aside(move || queue(&registry, &asks)).await;
        Ok(Response::new(found.map_err(Fault::Unavailable)??))
    }
}
