//! What a transaction gives to tell elsewhere: written with it, or not at all.

use std::collections::BTreeSet;

use crate::{
    domain::{DomainId, ExceptionId, Finding, Notice, Target},
    engine::{Change, Snapshot, notices, reaches_into},
};

use super::{core::Planned, store::Told, view::View};

/// The domains of what something is about: the subject's, or all that an exception reaches into.
fn domains_of(view: &View, planned: &Planned, notice: &Notice) -> Vec<DomainId> {
    let of = |id: &str| {
        let subject = |of: &Snapshot| of.subject(id).map(|subject| subject.domain.clone());
        let known = subject(&planned.snapshot).or_else(|| subject(&view.snapshot));
        known.flatten().into_iter().collect::<Vec<_>>()
    };
    let exception = |id: &str| {
        let mut cases = planned.cases.iter();
        let case = cases.find(|case| case.id.as_str() == id);
        if let Some(case) = case.or_else(|| view.cases.get(id)) {
            // Also who had a say in what is gone by now.
            let both = [&view.snapshot, &planned.snapshot];
            let both = both.map(|of| reaches_into(&case.request, of));
            let both: BTreeSet<DomainId> = both.into_iter().flatten().collect();
            return both.into_iter().collect();
        }
        let known = view.snapshot.exception(id);
        let domain = known.and_then(|known| known.domain.clone());
        domain.into_iter().collect()
    };
    let fact = |name: &str| {
        let known = notice.facts.iter().find(|(known, _)| &**known == name);
        known.map(|(_, value)| &**value)
    };
    match notice.news.subject() {
        "agent" => of(&notice.about),
        // Some are about an exception.
        "finding" => fact("subject").map_or_else(Vec::new, |id| {
            let domains = of(id);
            if domains.is_empty() {
                exception(id)
            } else {
                domains
            }
        }),
        "revocation" if fact("kind") == Some("subject") => of(&notice.about),
        "exception" => exception(&notice.about),
        _ => Vec::new(),
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
        let domains = domains_of(view, planned, notice);
        if !domains.is_empty() {
            notice.domains = domains;
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
