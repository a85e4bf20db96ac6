//! `exeat.v1.ReportService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{DomainId, Invalid},
    engine::report::About,
    manifest::FRAMEWORKS,
    registry::{
        attendants::Attendants,
        core::{Error, Registry},
        ledger::bare,
        reports::{Oscal, governance, oscal},
        role::Role,
    },
    runtime::simulated::aside,
    wire::{
        Fault, Received,
        signed::{hex, sha256},
        v1,
    },
};

use super::opened;

/// Answers for reports.
#[derive(Clone, Debug)]
pub(in crate::registry) struct ReportCalls {
    /// The registry.
    pub registry: Arc<Registry>,
    /// The sidecars.
    pub attendants: Arc<Attendants>,
}

impl ReportCalls {
    fn about(&self, domain: &str, framework: &str) -> Result<About, Fault> {
        let view = self.registry.view();
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

    /// Sidecars that are connected, those that are gone, and objects that one could not take.
    fn sidecars(&self) -> (usize, usize, usize) {
        let known = self.attendants.known();
        let gone = known
            .values()
            .filter(|known| known.connection.is_cancelled());
        let gone = gone.count();
        let nacks = known.values().map(|known| known.nacks.len()).sum();
        (known.len().saturating_sub(gone), gone, nacks)
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
        let (_, checkpoint) = self.registry.checkpoint().await?;
        let sidecars = self.sidecars();
        let (view, now) = (self.registry.view(), self.registry.clock.now().latest);
        // Every control over every subject: aside, where nobody's call waits for it.
        let made = aside(move || match format {
            v1::ReportFormat::Unspecified | v1::ReportFormat::Json => {
                Some(governance(&view, &about, &checkpoint, sidecars, now))
            }
            v1::ReportFormat::OscalAssessmentResults => {
                oscal(&view, &about, Oscal::AssessmentResults, now).map(|made| made.to_string())
            }
            v1::ReportFormat::OscalPoam => {
                oscal(&view, &about, Oscal::PlanOfAction, now).map(|made| made.to_string())
            }
        });
        let made = made.await.map_err(Error::Unfit)?;
        let report = made.ok_or_else(|| {
            Fault::NotFound(match format {
                v1::ReportFormat::OscalPoam => {
                    "nothing is to be remedied there, and OSCAL knows no empty plan".into()
                }
                _ => "no control in force runs by itself there".into(),
            })
        })?;
        let digest = format!("sha256:{}", hex(&sha256(report.as_bytes())));
        let mut recorded_revision = 0;
        if record {
            let action = format!("report {digest}");
            let by = &caller.identity;
            let noted = self
                .registry
                .write(|view, draft| Ok((Some(bare(view, draft, by, &action)), draft.revision)));
            recorded_revision = noted.await?;
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
}
