//! Reports, made from what there is now.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value as Json;

use crate::{
    domain::{
        Control, ControlState, DomainId, ExceptionId, ExceptionState, Finding, Timestamp, Verdict,
    },
    engine::{
        report::{About, Counted, Scene, report},
        rounds::{disposition, is_about_a_control, runs_by_itself, said_of},
    },
    manifest::{
        Beside,
        oscal::{Assessed, Failing, assessment_results, plan_of_action},
        write_report,
    },
};

use super::{coverage::coverage, view::View};

/// Findings that are not remedied, of what a report is about.
fn open<'a>(view: &'a View, about: &About) -> Vec<&'a Arc<Finding>> {
    let mut open: Vec<_> = view
        .findings
        .values()
        .filter(|finding| finding.satisfied.is_none())
        // Those of a control are its owner's, and no control's.
        .filter(|finding| !is_about_a_control(&finding.control))
        .filter(|finding| {
            within(view, about, domain_of(view, finding))
        })
        .filter(|finding| {
            let control = view.snapshot.control(&finding.control);
            about.framework.is_none() || control.is_some_and(|known| answers(about, known))
        })
        .collect();
    open.sort_by(|a, b| (&a.control, &a.subject).cmp(&(&b.control, &b.subject)));
    open
}

/// The domain of what a finding is about: a subject, or an exception.
fn domain_of<'a>(view: &'a View, finding: &Finding) -> Option<&'a DomainId> {
    let id = finding.subject.as_str();
    match view.snapshot.subject(id) {
        Some(subject) => subject.domain.as_ref(),
        None => view.snapshot.exception(id)?.domain.as_ref(),
    }
}

fn within(view: &View, about: &About, domain: Option<&DomainId>) -> bool {
    about.domain.as_ref().is_none_or(|wanted| {
        let mut above = domain
            .into_iter()
            .flat_map(|id| view.snapshot.domains_above(id));
        above.any(|above| above.id == *wanted)
    })
}

fn answers(about: &About, control: &Control) -> bool {
    about.framework.as_ref().is_none_or(|wanted| {
        let mut ids = control.frameworks.iter();
        ids.any(|id| id.framework == *wanted)
    })
}

/// The report of GV.OV as JSON.
pub(super) fn governance(
    view: &View,
    about: &About,
    beside: Beside,
    used: Option<&BTreeMap<Box<str>, Counted>>,
    now: Timestamp,
) -> String {
    let findings: Vec<_> = view.findings.values().collect();
    let scene = Scene {
        snapshot: &view.snapshot,
        cases: &view.cases,
        findings: &findings,
        used,
    };
    let made = report(scene, about, now);
    let mut frameworks: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for covered in coverage(view, about.framework.as_deref(), now) {
        let (answered, of) = frameworks.entry(covered.framework).or_default();
        *answered = answered.saturating_add(usize::from(!covered.controls.is_empty()));
        *of = of.saturating_add(1);
    }
    let frameworks = frameworks.into_iter();
    let beside = Beside {
        revision: view.head.revision,
        frameworks: frameworks
            .map(|(name, (answered, of))| (name.into(), answered, of))
            .collect(),
        ..beside
    };
    write_report(&made, about, &beside, now)
}

/// Which OSCAL document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oscal {
    /// What runs found.
    AssessmentResults,
    /// What is to be remedied.
    PlanOfAction,
}

/// An OSCAL document; nothing where there would be nothing in it.
pub(super) fn oscal(view: &View, about: &About, which: Oscal, now: Timestamp) -> Option<Json> {
    let pending = view.cases.values();
    let pending: Vec<_> = pending
        .filter(|case| case.state == ExceptionState::Pending)
        .collect();
    let open = open(view, about);
    let failing = open.iter().map(|finding| {
        let disposition = disposition(finding, &view.snapshot, &pending, now);
        let case = disposition.exception().map(ExceptionId::as_str);
        let case = case.and_then(|id| view.cases.get(id));
        Failing {
            finding,
            control: view
                .snapshot
                .control(&finding.control)
                .map(|known| &**known),
            subject: view
                .snapshot
                .subject(finding.subject.as_str())
                .map(|known| &**known),
            case: case.map(|case| &**case),
            disposition,
        }
    });
    let failing: Vec<Failing<'_>> = failing.collect();
    let mut controls: Vec<&Control> = view
        .snapshot
        .controls()
        .map(|control| &**control)
        .filter(|control| {
            matches!(
                control.state,
                ControlState::Active | ControlState::Deprecated
            )
        })
        .filter(|control| runs_by_itself(&control.id, &view.snapshot) && answers(about, control))
        .collect();
    controls.sort_by(|a, b| a.id.cmp(&b.id));
    let fails = |control: &Control| open.iter().any(|finding| finding.control == control.id);
    let passing = controls.iter().filter(|control| !fails(control));
    let subjects: Vec<_> = view.snapshot.subjects().collect();
    let subjects = || {
        let all = subjects.iter();
        all.filter(|subject| within(view, about, subject.domain.as_ref()))
    };
    // Of which nothing is found, which fails for nobody now, and which says something of somebody.
    let passing = passing.filter_map(|control| {
        let mut passes = 0_usize;
        for subject in subjects() {
            match said_of(&control.id, subject, &view.snapshot, now) {
                None => {}
                Some(Verdict::Pass) => passes = passes.saturating_add(1),
                Some(Verdict::Fail | Verdict::Indeterminate(_)) => return None,
            }
        }
        (passes > 0).then_some((*control, passes))
    });
    let passing: Vec<_> = if which == Oscal::AssessmentResults {
        passing.collect()
    } else {
        Vec::new()
    };
    let log = view.beginning.era.log.to_string();
    let assessed = Assessed {
        log: &log,
        revision: view.head.revision,
        now,
        about: [
            about.domain.as_ref().map(DomainId::as_str),
            about.framework.as_deref(),
        ],
        controls: &controls,
        failing: &failing,
        passing: &passing,
    };
    match which {
        Oscal::AssessmentResults => (!controls.is_empty()).then(|| assessment_results(&assessed)),
        Oscal::PlanOfAction => plan_of_action(&assessed),
    }
}
