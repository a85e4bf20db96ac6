//! What a transaction gives to tell elsewhere: written with it, or not at all.

use crate::{
    domain::{ExceptionId, Finding, Notice, Target},
    engine::{Change, notices},
};

use super::{core::Planned, store::Told, view::View};

/// What there is to tell of what is planned, each under an id that follows from its place in the
/// log.
pub(super) fn told(view: &View, planned: &Planned) -> Vec<Told> {
    let transaction = &planned.transaction;
    let time = transaction.time;
    let mut news: Vec<Notice> = Vec::new();
    for case in &planned.cases {
        let before = view.cases.get(case.id.as_str());
        news.extend(notices::of_case(before.map(|case| &**case), case, time));
    }
    for finding in &planned.findings {
        let key = Finding::key(&finding.control, &finding.subject);
        let before = view.findings.get(&key);
        news.extend(notices::of_finding(
            before.map(|known| &**known),
            finding,
            time,
        ));
    }
    for removal in &transaction.removals {
        let has_case = |id: &ExceptionId| view.cases.get(id.as_str()).is_some();
        let known = matches!(&removal.target, Target::Exception(id) if has_case(id));
        news.extend(notices::of_removal(removal, known));
    }
    for change in &planned.changes {
        if let Change::PutIncident(incident) = change {
            news.push(notices::of_incident(incident, time));
        }
        if let Change::PutProposal(proposal) = change {
            news.extend(notices::of_proposal(proposal, time));
        }
    }
    let era = view.beginning.era;
    let log = era.log.to_string();
    let log = log.get(..8).unwrap_or(&log).to_owned();
    news.into_iter()
        .enumerate()
        .map(|(place, notice)| Told {
            id: format!("msg_{log}_{}_{}_{place}", era.epoch, transaction.revision).into(),
            notice,
        })
        .collect()
}
