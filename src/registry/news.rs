//! What a transaction gives to tell elsewhere: written with it, or not at all.

use crate::{
    domain::{DomainId, ExceptionId, Finding, Notice, Selector, Target},
    engine::{Change, notices},
};

use super::{core::Planned, store::Told, view::View};

/// The domain of the subject that something is about.
fn domain_of(view: &View, planned: &Planned, notice: &Notice) -> Option<DomainId> {
    let of = |id: &str| {
        let known = planned
            .snapshot
            .subject(id)
            .or_else(|| view.snapshot.subject(id));
        known?.domain.clone()
    };
    let fact = |name: &str| {
        let known = notice.facts.iter().find(|(known, _)| &**known == name);
        known.map(|(_, value)| &**value)
    };
    match notice.news.subject() {
        "agent" => of(&notice.about),
        "finding" => of(fact("subject")?),
        "revocation" if fact("kind") == Some("subject") => of(&notice.about),
        "exception" => {
            let case = planned
                .cases
                .iter()
                .find(|case| case.id.as_str() == &*notice.about);
            let asked = case.and_then(|case| match &case.request.scope.subjects {
                Selector::Ids(ids) => of(ids.first()?.as_str()),
                Selector::Classes(_) => None,
            });
            asked.or_else(|| view.snapshot.exception(&notice.about)?.domain.clone())
        }
        _ => None,
    }
}

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
    for notice in &mut news {
        if notice.domain.is_none() {
            notice.domain = domain_of(view, planned, notice);
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
