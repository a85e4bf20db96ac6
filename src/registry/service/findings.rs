//! `exeat.v1.FindingService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{
        Case, ControlId, Disposition, ExceptionState, Finding, Invalid, Run, SubjectId, Timestamp,
    },
    engine::rounds::{Seen, covering, disposition},
    manifest::FRAMEWORKS,
    registry::{
        core::{Error, Registry},
        coverage::coverage,
        rounds::Ran,
        view::View,
    },
    wire::{
        Fault, Received,
        sync::{stamp, time},
        v1,
    },
};

use super::{opened, page, paging::paged, short};

/// Answers for findings.
#[derive(Clone, Debug)]
pub(crate) struct FindingCalls(pub(in crate::registry) Arc<Registry>);

fn control(text: &str) -> Result<ControlId, Fault> {
    ControlId::parse(text).map_err(|error| Fault::Invalid(error.under("control_id")))
}

fn run_message(run: &Run) -> v1::ControlRun {
    v1::ControlRun {
        control_id: run.control.to_string(),
        control_revision: run.control_revision,
        due: run.due.map(stamp),
        time: Some(stamp(run.time)),
        revision: run.revision,
        passed: run.passed,
        failed: run.failed,
        untold: run.untold,
        elsewhere: run.elsewhere,
        took_micros: u64::try_from(run.took.micros()).unwrap_or(0),
        missed: run.missed,
    }
}

fn evidence_message(seen: &Seen) -> v1::EvidenceAge {
    v1::EvidenceAge {
        subject: seen.subject.to_string(),
        facet: seen.facet.name().into(),
        observed: seen.observed.map(stamp),
    }
}

/// How a finding is disposed of now; of what is satisfied not at all.
pub(super) fn disposed(
    view: &View,
    pending: &[&Arc<Case>],
    finding: &Finding,
    now: Timestamp,
) -> Disposition {
    disposition(finding, &view.snapshot, pending, now)
}

/// The cases that wait for a decision, looked up once for all findings.
pub(super) fn pending(view: &View) -> Vec<&Arc<Case>> {
    let cases = view.cases.values();
    cases
        .filter(|case| case.state == ExceptionState::Pending)
        .collect()
}

fn message(finding: &Finding, disposition: &Disposition) -> v1::Finding {
    let exception = disposition.exception();
    v1::Finding {
        control_id: finding.control.to_string(),
        subject: finding.subject.to_string(),
        result: finding.fault.name().to_owned(),
        state: if finding.satisfied.is_some() {
            "SATISFIED".to_owned()
        } else {
            "NOT_SATISFIED".to_owned()
        },
        disposition: disposition.name().to_owned(),
        exception: exception.map_or(String::new(), ToString::to_string),
        severity: finding.severity.name().to_owned(),
        owner: finding.owner.to_string(),
        message: finding.message.to_string(),
        first_seen: Some(stamp(finding.first_seen)),
        due: Some(stamp(finding.due)),
        satisfied: finding.satisfied.map(stamp),
        told: finding.told.map(stamp),
        remedy: finding.remedy.as_ref().map(|remedy| v1::Remedy {
            principal: remedy.by.to_string(),
            plan: remedy.plan.to_string(),
            until: Some(stamp(remedy.until)),
            time: Some(stamp(remedy.time)),
        }),
    }
}

impl FindingCalls {
    async fn ran(
        &self,
        request: Request<Received<v1::RunControlRequest>>,
    ) -> Result<v1::RunControlResponse, Fault> {
        let (_, message_) = opened(request)?;
        let v1::RunControlRequest {
            control_id,
            dry_run,
        } = message_;
        let control = control(&control_id)?;
        let Ran { run, changed, seen } = self.0.run_control(&control, None, dry_run).await?;
        let (view, now) = (self.0.view(), self.0.clock.now().latest);
        let pending = pending(&view);
        Ok(v1::RunControlResponse {
            run: Some(run_message(&run)),
            changed: changed
                .iter()
                .map(|finding| message(finding, &disposed(&view, &pending, finding, now)))
                .collect(),
            evidence: seen.iter().map(evidence_message).collect(),
        })
    }

    async fn runs(
        &self,
        request: Request<Received<v1::ListRunsRequest>>,
    ) -> Result<v1::ListRunsResponse, Fault> {
        let (_, message_) = opened(request)?;
        let v1::ListRunsRequest {
            control_id,
            page_size,
        } = message_;
        let store = &self.0.store;
        let mut found = Vec::new();
        if control_id.is_empty() {
            let view = self.0.view();
            for known in view.snapshot.controls() {
                let latest = store.runs(&known.id, 1).await.map_err(Error::Store)?;
                found.extend(latest);
            }
        } else {
            let most = u32::try_from(page(page_size)).unwrap_or(u32::MAX);
            let control = control(&control_id)?;
            found = store.runs(&control, most).await.map_err(Error::Store)?;
        }
        Ok(v1::ListRunsResponse {
            runs: found.iter().map(run_message).collect(),
        })
    }

    fn coverage(
        &self,
        request: Request<Received<v1::GetCoverageRequest>>,
    ) -> Result<v1::GetCoverageResponse, Fault> {
        let (_, v1::GetCoverageRequest { framework }) = opened(request)?;
        if !framework.is_empty() && !FRAMEWORKS.contains(&framework.as_str()) {
            let what = format!("`{framework}` is not a known framework");
            let fix = format!("use one of {}", FRAMEWORKS.join(", "));
            return Err(Fault::Invalid(Invalid::new("framework", what, fix)));
        }
        let one = (!framework.is_empty()).then_some(framework.as_str());
        let names = |ids: &[ControlId]| ids.iter().map(ToString::to_string).collect();
        let covered = coverage(&self.0.view(), one, self.0.clock.now().latest);
        Ok(v1::GetCoverageResponse {
            coverage: covered
                .into_iter()
                .map(|covered| v1::FrameworkCoverage {
                    framework: covered.framework.into(),
                    controls: names(&covered.controls),
                    drafts: names(&covered.drafts),
                    id: covered.id,
                    failing: covered.failing,
                    excepted: covered.excepted,
                })
                .collect(),
        })
    }

    async fn remedied(
        &self,
        request: Request<Received<v1::RemedyFindingRequest>>,
    ) -> Result<v1::RemedyFindingResponse, Fault> {
        let (caller, message_) = opened(request)?;
        let v1::RemedyFindingRequest {
            control_id,
            subject,
            plan,
            until,
        } = message_;
        let control = control(&control_id)?;
        let subject = SubjectId::parse(&subject);
        let subject = subject.map_err(|error| Fault::Invalid(error.under("subject")))?;
        let plan = short("plan", plan)?;
        let until = time("until", until).map_err(Fault::Invalid)?;
        let finding = self.0.remedy(&caller, &control, &subject, &plan, until);
        let finding = finding.await?;
        let (view, now) = (self.0.view(), self.0.clock.now().latest);
        let disposed = disposed(&view, &pending(&view), &finding, now);
        Ok(v1::RemedyFindingResponse {
            finding: Some(message(&finding, &disposed)),
        })
    }

    fn listed(
        &self,
        request: Request<Received<v1::ListFindingsRequest>>,
    ) -> Result<v1::ListFindingsResponse, Fault> {
        let (_, message_) = opened(request)?;
        let v1::ListFindingsRequest {
            control_id,
            subject,
            all,
            uncovered,
            page_size,
            page_token,
        } = message_;
        let (view, now) = (self.0.view(), self.0.clock.now().latest);
        let found = view
            .findings
            .values()
            .filter(|finding| all || finding.satisfied.is_none())
            .filter(|finding| control_id.is_empty() || finding.control.as_str() == control_id)
            .filter(|finding| subject.is_empty() || finding.subject.as_str() == subject)
            .filter(|finding| {
                !uncovered
                    || covering(&finding.control, &finding.subject, &view.snapshot, now).is_none()
            })
            .map(|finding| {
                let key = Finding::key(&finding.control, &finding.subject);
                ((finding.satisfied.is_some(), finding.due, key), finding)
            });
        // What is due first comes first.
        let page = paged(found.collect(), Ord::cmp, (page_size, &page_token))?;
        let waiting = pending(&view);
        let shown = page.items.into_iter();
        Ok(v1::ListFindingsResponse {
            findings: shown
                .map(|finding| message(finding, &disposed(&view, &waiting, finding, now)))
                .collect(),
            next_page_token: page.next,
        })
    }
}

#[tonic::async_trait]
impl v1::finding_service_server::FindingService for FindingCalls {
    async fn run_control(
        &self,
        request: Request<Received<v1::RunControlRequest>>,
    ) -> Result<Response<v1::RunControlResponse>, Status> {
        Ok(Response::new(self.ran(request).await?))
    }

    async fn list_runs(
        &self,
        request: Request<Received<v1::ListRunsRequest>>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        Ok(Response::new(self.runs(request).await?))
    }

    async fn get_coverage(
        &self,
        request: Request<Received<v1::GetCoverageRequest>>,
    ) -> Result<Response<v1::GetCoverageResponse>, Status> {
        Ok(Response::new(self.coverage(request)?))
    }

    async fn remedy_finding(
        &self,
        request: Request<Received<v1::RemedyFindingRequest>>,
    ) -> Result<Response<v1::RemedyFindingResponse>, Status> {
        Ok(Response::new(self.remedied(request).await?))
    }

    async fn list_findings(
        &self,
        request: Request<Received<v1::ListFindingsRequest>>,
    ) -> Result<Response<v1::ListFindingsResponse>, Status> {
        Ok(Response::new(self.listed(request)?))
    }
}
