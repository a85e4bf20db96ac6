//! What makes a control deny less than it did: that needs the people a HIGH exception needs, or it
//! would be the way round asking for one (R42).

use std::collections::BTreeSet;

use crate::domain::{
    ApproverRole, Control, ControlId, Domain, DomainId, EvidenceNeed, OnError, Principal,
    PrincipalKind, Reach, Set, Target,
};

use super::{
    Snapshot,
    condition::{on_deep_stack, only_adds},
    rounds::runs_by_itself,
};

/// How a control that was in force in `before` denies less in `after`, in words; nothing if it
/// denies what it did, or was not in force.
pub fn weakened(before: &Snapshot, after: &Snapshot, id: &ControlId) -> Option<String> {
    let was = before.rules.find(id)?;
    if !was.control.state.in_force() {
        return None;
    }
    let Some(is) = after.rules.find(id) else {
        return Some("it is removed".into());
    };
    let (old, new) = (&was.control, &is.control);
    if !new.state.in_force() {
        return Some("it is no longer in force".into());
    }
    let lower = |what: &str, from: &dyn std::fmt::Debug, to: &dyn std::fmt::Debug| {
        Some(format!("{what} goes from {from:?} to {to:?}"))
    };
    if new.enforcement < old.enforcement {
        return lower("enforcement", &old.enforcement, &new.enforcement);
    }
    if new.severity < old.severity {
        return lower("severity", &old.severity, &new.severity);
    }
    if old.baseline_gate && !new.baseline_gate {
        return Some("it is no longer a baseline gate".into());
    }
    if old.on_error == OnError::Fail && new.on_error != OnError::Fail {
        return Some("what it cannot tell no longer fails".into());
    }
    if old.runtime && !new.runtime {
        return Some("it is no longer held against questions".into());
    }
    if old.schedule.is_some() && new.schedule != old.schedule {
        return Some("its schedule changes".into());
    }
    if narrower(&old.applies_to, &new.applies_to) {
        return Some("it no longer applies to all that it did".into());
    }
    if demands_less(old, new) {
        return Some("it demands less evidence".into());
    }
    if runs_by_itself(id, before) && !runs_by_itself(id, after) {
        return Some("it no longer runs by itself".into());
    }
    let kept = new.failure_condition == old.failure_condition
        || on_deep_stack(|| only_adds(&old.failure_condition, &new.failure_condition))
            .unwrap_or(false);
    // Vectors are points: whoever writes them chooses them, and between them a condition may say
    // anything.
    (!kept || new.params != old.params).then(|| {
        "its condition or its params change: only `(what it was) || (more)` is known to fail for all that it did".into()
    })
}

fn within<T: PartialEq>(old: &Set<T>, new: &Set<T>) -> bool {
    match (old, new) {
        (_, Set::Any) => true,
        (Set::Any, Set::Of(_)) => false,
        (Set::Of(old), Set::Of(new)) => old.iter().all(|item| new.contains(item)),
    }
}

fn narrower(old: &Reach, new: &Reach) -> bool {
    let wide = within(&old.actions, &new.actions)
        && within(&old.resource_types, &new.resource_types)
        && within(&old.resources, &new.resources)
        && (new.condition.is_none() || new.condition == old.condition);
    !wide
}

fn demands_less(old: &Control, new: &Control) -> bool {
    let holds = |wanted: &EvidenceNeed, facet, need: &EvidenceNeed| {
        let young = match (wanted.max_age, need.max_age) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wanted), Some(now)) => now <= wanted,
        };
        need.facets.contains(facet) && young && (need.complete || !wanted.complete)
    };
    old.evidence.iter().any(|wanted| {
        let kept = |facet| new.evidence.iter().any(|need| holds(wanted, facet, need));
        !wanted.facets.iter().all(kept)
    })
}

/// Who decides about a control itself, distinct persons for each role: its owner or whom a domain
/// at the top names as control owner, and whom one names as risk officer. Nobody, where no domain
/// at the top names a risk officer: then there is nobody but its administrators yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deciders<'a> {
    owners: BTreeSet<&'a Principal>,
    officers: BTreeSet<&'a Principal>,
}

impl<'a> Deciders<'a> {
    /// Whether there is anybody to decide: a domain at the top names risk officers.
    pub fn named(snapshot: &Snapshot) -> bool {
        !Self::domains(snapshot).is_empty()
    }

    /// The domains whose people decide: those at the top that name risk officers.
    pub(super) fn domains(snapshot: &Snapshot) -> Vec<&DomainId> {
        let officers = |domain: &&Domain| {
            let mut roles = domain.approvers.iter().map(|(role, _)| *role);
            domain.parent.is_none() && roles.any(|role| role == ApproverRole::RiskOfficer)
        };
        let tops = snapshot.domains.values().filter(officers);
        tops.map(|domain| &domain.id).collect()
    }

    /// Who decides about `control` in a snapshot; nothing where there is nobody yet.
    pub fn of(snapshot: &'a Snapshot, control: &ControlId) -> Option<Self> {
        let named = |role: ApproverRole| -> Vec<_> {
            let tops = snapshot
                .domains
                .values()
                .filter(|domain| domain.parent.is_none());
            let groups = tops.flat_map(|domain| &domain.approvers);
            groups
                .filter(|(known, _)| *known == role)
                .map(|(_, group)| group)
                .collect()
        };
        let people = |groups: Vec<_>| -> BTreeSet<_> {
            let directory = snapshot.directory();
            let members = groups
                .into_iter()
                .flat_map(|group| directory.members(group));
            members
                .filter(|who| {
                    who.kind() == PrincipalKind::Human
                        && directory.is_active(who)
                        && !snapshot
                            .removed()
                            .revokes(&Target::Principal((*who).clone()))
                })
                .collect()
        };
        let officers = named(ApproverRole::RiskOfficer);
        if officers.is_empty() {
            return None;
        }
        let mut owners = people(named(ApproverRole::ControlOwner));
        let owner = snapshot.control(control).map(|control| &control.owner);
        owners.extend(owner.filter(|owner| {
            let revoked = Target::Principal((*owner).clone());
            snapshot.directory().is_active(owner) && !snapshot.removed().revokes(&revoked)
        }));
        Some(Self {
            owners,
            officers: people(officers),
        })
    }

    /// Who may decide in a role.
    pub(super) fn of_role(&self, role: ApproverRole) -> impl Iterator<Item = &'a Principal> {
        let people = if role == ApproverRole::RiskOfficer {
            &self.officers
        } else {
            &self.owners
        };
        people.iter().copied()
    }

    /// Which roles `who` may decide in.
    pub fn roles(&self, who: &Principal) -> Vec<ApproverRole> {
        let all = [
            (ApproverRole::ControlOwner, &self.owners),
            (ApproverRole::RiskOfficer, &self.officers),
        ];
        let fits = all.into_iter().filter(|(_, people)| people.contains(who));
        fits.map(|(role, _)| role).collect()
    }
}
