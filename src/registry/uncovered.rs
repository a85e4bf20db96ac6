//! Findings that were covered until an exception ended: whoever answers for the control is told with
//! the end, and not when the control runs next (F4, R5). What ended it may have remedied the finding,
//! or taken away what it is about; then there is nothing to tell.

use std::sync::Arc;

use crate::{
    domain::{
        Case, ControlId, Edit, ExceptionState, Finding, Kind, Lifecycle, Name, Timestamp, Verdict,
    },
    engine::{
        Snapshot,
        rounds::{covering, said_of},
    },
    manifest::write_finding,
};

use super::{core::Planned, view::View};

/// Adds to what is planned the findings that its cases leave uncovered, each once.
pub(super) fn uncover(view: &View, planned: &mut Planned, now: Timestamp) {
    let ended = |case: &&Arc<Case>| {
        let before = view.cases.get(case.id.as_str());
        case.state != ExceptionState::Approved
            && before.is_some_and(|before| before.state == ExceptionState::Approved)
    };
    let ended = planned.cases.iter().filter(ended);
    let controls: Vec<ControlId> = ended
        .flat_map(|case| case.request.controls.iter().cloned())
        .collect();
    if controls.is_empty() {
        return;
    }
    let bare = |finding: &&Arc<Finding>| {
        let Finding {
            control, subject, ..
        } = &***finding;
        let covered = |of: &Snapshot| covering(control, subject, of, now).is_some();
        let fails = |of: &Snapshot| {
            let known = of.subject(subject.as_str());
            let known = known.filter(|known| known.lifecycle != Lifecycle::Retired);
            let verdict = known.and_then(|known| said_of(control, known, of, now));
            verdict.is_some_and(|verdict| verdict != Verdict::Pass)
        };
        finding.satisfied.is_none()
            && controls.contains(control)
            && (finding.covered || covered(&view.snapshot))
            && !covered(&planned.snapshot)
            && fails(&planned.snapshot)
    };
    let known = |finding: &&Arc<Finding>| {
        let key = Finding::key(&finding.control, &finding.subject);
        !planned
            .findings
            .iter()
            .any(|of| Finding::key(&of.control, &of.subject) == key)
    };
    let left: Vec<Finding> = view
        .findings
        .values()
        .filter(bare)
        .filter(known)
        .map(|finding| Finding {
            covered: false,
            told: Some(now),
            ..(**finding).clone()
        })
        .collect();
    put_findings(view, left, planned);
}

/// Puts findings into a transaction.
pub(super) fn put_findings(view: &View, findings: Vec<Finding>, planned: &mut Planned) {
    for finding in findings {
        let key = Finding::key(&finding.control, &finding.subject);
        let name = Name::new(Kind::Finding, &key);
        let revision = view.objects.get(&name).map_or(0, |stored| stored.revision);
        planned.transaction.edits.push(Edit {
            name,
            revision: revision.saturating_add(1),
            manifest: Some(write_finding(&finding).into()),
        });
        planned.findings.push(Arc::new(finding));
    }
}
