//! What ends or suspends an exception that was granted, as far as the registry can tell.

use std::sync::Arc;

use crate::domain::{
    Case, ControlId, ControlState, ExceptionState, Facet, Lifecycle, Request, Span, Subject, Terms,
    TierRules, Timestamp,
};

use super::{
    Snapshot,
    parties::{NOBODY, anchors, owner_of},
    rounds::breach,
    terms::deployed_until,
    usage::Figures,
};

/// A control that has changed since a request was submitted, in whatever way: approvers see it anew
/// (T4).
pub fn revised(terms: &Terms, snapshot: &Snapshot) -> Option<Against> {
    let mut controls = terms.controls.iter();
    let other = |(id, revision): &&(ControlId, u64)| {
        let known = snapshot.control(id);
        known.is_some_and(|control| control.revision != *revision)
    };
    let (id, _) = controls.find(other)?;
    Some(Against::Changed(format!("control {id} has changed")))
}

/// A control that decides by something else than it did: how it is told, who owns it, how it is tried
/// and when it runs by itself moves nothing that was granted.
fn redefined<'a>(
    (id, revision): &'a (ControlId, u64),
    terms: &Terms,
    snapshot: &Snapshot,
) -> Option<&'a ControlId> {
    let control = snapshot.control(id)?;
    let was = terms.meanings.iter().find(|(of, _)| of == id);
    let same = match (was, &control.meaning) {
        (Some((_, was)), Some(now)) => was == now,
        // What was granted before that was kept goes by the revision.
        _ => control.revision == *revision,
    };
    (!same).then_some(id)
}

/// What stands against a granted exception as things are now, if the registry can tell (governance
/// §7.3).
pub fn against(
    request: &Request,
    terms: &Terms,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Option<Against> {
    let directory = snapshot.directory();
    let subjects = anchors(request, snapshot);
    if subjects.is_empty() {
        return Some(Against::Ends("the subject is gone".into()));
    }
    // What ends it comes before what has it looked at again, and that before what only waits.
    let retired = |subject: &&Arc<Subject>| subject.lifecycle == Lifecycle::Retired;
    if let Some(subject) = subjects.iter().copied().find(retired) {
        return Some(Against::Ends(format!("{} is retired", subject.id)));
    }
    for (id, _) in &terms.controls {
        match snapshot.control(id) {
            None => return Some(Against::Ends(format!("control {id} is gone"))),
            Some(control) if control.state == ControlState::Retired => {
                return Some(Against::Ends(format!("control {id} is retired")));
            }
            Some(_) => {}
        }
    }
    for subject in subjects {
        if deployed_until(subject).is_some_and(|end| end <= now) {
            return Some(Against::Changed(format!(
                "{} has no current deployment approval",
                subject.id
            )));
        }
        let differs = terms
            .bound
            .iter()
            .find(|(facet, digest)| subject.fingerprint.get(*facet) != Some(*digest));
        if let Some((facet, _)) = differs {
            return Some(Against::Changed(drifted(facet, subject)));
        }
    }
    if let Some(id) = terms
        .controls
        .iter()
        .find_map(|of| redefined(of, terms, snapshot))
    {
        return Some(Against::Changed(format!("control {id} has changed")));
    }
    for (id, owner) in &terms.owners {
        let known = snapshot.subject(id.as_str());
        let other = known.map(|subject| owner_of(subject).unwrap_or(NOBODY));
        if let Some(other) = other.filter(|other| *other != &**owner) {
            return Some(Against::Changed(format!(
                "{other} answers for {id}, and {owner} did when this was approved"
            )));
        }
    }
    let evidence = request.evidence.iter();
    let mut stale = evidence.filter(|item| item.required && item.expire_time <= now);
    if let Some(item) = stale.next() {
        return Some(Against::Changed(format!(
            "evidence {} has expired",
            item.id
        )));
    }
    if !directory.is_active(&request.owner) {
        return Some(Against::Waits(format!(
            "owner {} is not active",
            request.owner
        )));
    }
    if !directory.is_attested(&request.owner, now) {
        return Some(Against::Waits(format!(
            "owner {} was not attested within 90 days; confirm it, apply the Person with its `attest_time`, and approve this again",
            request.owner
        )));
    }
    // Of several subjects it holds for the others: for whom a gate fails, sidecars honour nothing.
    let anchors = anchors(request, snapshot);
    let mut gates = anchors.iter().map(|of| breach(of, snapshot, now));
    let gate = gates.next()??;
    gates.all(|gate| gate.is_some()).then(|| {
        let of: Vec<_> = anchors.iter().map(|of| of.id.as_str()).collect();
        Against::Breaches(format!("baseline gate {gate} fails for {}", of.join(", ")))
    })
}

/// When something of it ends that an exception rests on, if nothing changes: the next of these after
/// `now`.
pub fn rests_until(request: &Request, snapshot: &Snapshot, now: Timestamp) -> Option<Timestamp> {
    let attested = snapshot.directory().attested_until(&request.owner);
    let evidence = request.evidence.iter().filter(|item| item.required);
    let subjects = anchors(request, snapshot);
    let deployed = subjects.into_iter().filter_map(|of| deployed_until(of));
    evidence
        .map(|item| item.expire_time)
        .chain(attested)
        .chain(deployed)
        .filter(|end| *end > now)
        .min()
}

/// How long after a bound facet was observed to differ an exception was suspended or revoked for it;
/// nothing if that is not what stands against it, or what differs was observed since.
pub(super) fn noticed_after(case: &Case, snapshot: &Snapshot) -> Option<Span> {
    if !matches!(
        case.state,
        ExceptionState::Suspended | ExceptionState::Revoked
    ) {
        return None;
    }
    let bound = &case.terms.as_ref()?.bound;
    for subject in anchors(&case.request, snapshot) {
        for (facet, digest) in bound.iter() {
            let differs = subject.fingerprint.get(facet) != Some(digest);
            if differs && *case.reason == *drifted(facet, subject) {
                let at = subject.facet(facet)?.observed_time;
                return (at <= case.since).then(|| case.since - at);
            }
        }
    }
    None
}

/// What is said of a subject that is no longer what was approved.
fn drifted(facet: Facet, subject: &Subject) -> String {
    format!("facet {facet} of {} has changed", subject.id)
}

/// What something does to an exception that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Against {
    /// It is over.
    Ends(String),
    /// Over, or suspended, as its tier says.
    Changed(String),
    /// Suspended.
    Waits(String),
    /// Suspended, and as its tier says no longer than that lasts.
    Breaches(String),
}

/// What how it was used does to an exception that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByUse {
    /// It is no longer needed, or there is nothing left of it.
    Closes(String),
    /// It waits for revalidation.
    Suspends(String),
}

/// What stands against a granted exception by how it was used, of which `figures` tell since it came
/// to be as it is (governance §7.3).
pub fn by_use(case: &Case, rules: &TierRules, figures: &Figures, now: Timestamp) -> Option<ByUse> {
    let approval = &rules.approval;
    if let Some(most) = case.request.usage_limits.max_uses
        && figures.uses >= most
    {
        return Some(ByUse::Closes(format!(
            "used {most} times, as often as it may be"
        )));
    }
    if case.state != ExceptionState::Approved {
        return None;
    }
    if figures.out_of_scope > u64::from(approval.out_of_scope_limit) {
        return Some(ByUse::Suspends(format!(
            "needed {} times within a day where it does not hold; its tier permits {}",
            figures.out_of_scope, approval.out_of_scope_limit
        )));
    }
    // No sidecar that works allows that: once is once too often.
    if figures.beyond.is_some_and(|beyond| beyond > case.since) {
        return Some(ByUse::Suspends(
            "relied on where it does not hold, as is recorded of it: look at that sidecar".into(),
        ));
    }
    if rules.usage_required && figures.gap.is_some_and(|gap| gap > case.since) {
        return Some(ByUse::Suspends("records of its use are missing".into()));
    }
    let idle = unused_from(case, rules, figures)?;
    let after = approval.unused_after?;
    (idle <= now).then(|| {
        ByUse::Closes(if figures.unneeded {
            format!("not needed for {after}: its controls held whenever it was asked about")
        } else {
            format!("not used for {after}")
        })
    })
}

/// From when on an exception counts as unused; nothing where that does not end it.
pub fn unused_from(case: &Case, rules: &TierRules, figures: &Figures) -> Option<Timestamp> {
    let granted = case.granted.as_ref()?;
    let since = figures
        .last
        .map_or(granted.effective, |last| last.max(granted.effective));
    Some(since + rules.approval.unused_after?)
}
