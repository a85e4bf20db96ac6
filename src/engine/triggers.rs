//! What ends or suspends an exception that was granted, as far as the registry can tell.

use crate::domain::{ControlState, Lifecycle, Request, Terms, Timestamp};

use super::{Snapshot, parties::anchors, terms::deployed_until};

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
    for subject in subjects {
        if deployed_until(subject).is_some_and(|end| end <= now) {
            return Some(Against::Changed(format!(
                "{} has no current deployment approval",
                subject.id
            )));
        }
        if subject.lifecycle == Lifecycle::Retired {
            return Some(Against::Ends(format!("{} is retired", subject.id)));
        }
        let differs = terms
            .bound
            .iter()
            .find(|(facet, digest)| subject.fingerprint.get(*facet) != Some(*digest));
        if let Some((facet, _)) = differs {
            return Some(Against::Changed(format!(
                "facet {facet} of {} has changed",
                subject.id
            )));
        }
    }
    for (id, revision) in &terms.controls {
        let control = snapshot.control(id);
        match control {
            None => return Some(Against::Ends(format!("control {id} is gone"))),
            Some(control) if control.state == ControlState::Retired => {
                return Some(Against::Ends(format!("control {id} is retired")));
            }
            Some(control) if control.revision != *revision => {
                return Some(Against::Changed(format!("control {id} has changed")));
            }
            Some(_) => {}
        }
    }
    if !directory.is_active(&request.owner) {
        return Some(Against::Waits(format!(
            "owner {} is not active",
            request.owner
        )));
    }
    let evidence = request.evidence.iter();
    let mut stale = evidence.filter(|item| item.required && item.expire_time <= now);
    stale
        .next()
        .map(|item| Against::Changed(format!("evidence {} has expired", item.id)))
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
}
