//! What makes a control deny less than it did: that needs the people a HIGH exception needs, or it
//! would be the way round asking for one (R42).

use std::collections::BTreeSet;

use crate::domain::{
    ApproverRole, Control, ControlId, Domain, DomainId, EvidenceNeed, OnError, Principal,
    PrincipalKind, Reach, Set, Stage, Target, Tier, TierRules,
};

use super::{
    Directory, Snapshot,
    condition::{on_deep_stack, only_adds},
    emergency::with,
    quorum::satisfiable,
    rounds::runs_by_itself,
};

/// Who has to decide at least, whatever a tier's policy says: two persons in two roles.
const AT_LEAST: [ApproverRole; 2] = [ApproverRole::ControlOwner, ApproverRole::RiskOfficer];

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

fn names_officers(domain: &Domain) -> bool {
    let mut roles = domain.approvers.iter().map(|(role, _)| *role);
    roles.any(|role| role == ApproverRole::RiskOfficer)
}

/// Who decides about a control itself: whom what tier HIGH demands at the top asks for, and at least
/// a control owner and a risk officer. In each role they are whom a domain at the top names; the
/// control's owner is a control owner too, and who owns a domain at the top that names risk officers
/// is a domain owner. Nobody, where none names a risk officer: then there is nobody but its
/// administrators yet.
#[derive(Clone, Debug)]
pub struct Deciders<'a> {
    directory: &'a Directory,
    stages: Vec<(Stage, BTreeSet<&'a Principal>)>,
}

impl<'a> Deciders<'a> {
    /// Whether there is anybody to decide: a domain at the top names risk officers.
    pub fn named(snapshot: &Snapshot) -> bool {
        Self::tops(snapshot).any(names_officers)
    }

    fn tops(snapshot: &Snapshot) -> impl Iterator<Item = &Domain> {
        let domains = snapshot.domains.values();
        domains.filter(|domain| domain.parent.is_none())
    }

    /// What tier HIGH demands at the top, of every domain there.
    pub(super) fn rules(snapshot: &Snapshot) -> TierRules {
        let tops: Vec<&DomainId> = Self::tops(snapshot).map(|domain| &domain.id).collect();
        snapshot.rules(Tier::High, &tops)
    }

    /// Who decides about `control` in a snapshot; nothing where there is nobody yet.
    pub fn of(snapshot: &'a Snapshot, control: &ControlId) -> Option<Self> {
        if !Self::named(snapshot) {
            return None;
        }
        let directory = snapshot.directory();
        let may = |who: &&Principal| {
            let revoked = Target::Principal((*who).clone());
            who.kind() == PrincipalKind::Human
                && directory.is_active(who)
                && !snapshot.removed().revokes(&revoked)
        };
        let tops: Vec<_> = Self::tops(snapshot).collect();
        let people = |stage: Stage| {
            let named = tops.iter().flat_map(|domain| &domain.approvers);
            let groups = named.filter(|(role, _)| *role == stage.role);
            let members = groups.flat_map(|(_, group)| directory.members(group));
            let owns = snapshot.control(control).map(|control| &control.owner);
            let owns = owns.filter(|_| stage.role == ApproverRole::ControlOwner);
            let heads = tops.iter().filter(|domain| names_officers(domain));
            let heads = heads.map(|domain| &domain.owner);
            let heads = heads.filter(|_| stage.role == ApproverRole::DomainOwner);
            let all = members.chain(owns).chain(heads).filter(may);
            (stage, all.collect())
        };
        let demanded = Self::rules(snapshot).approval.stages;
        Some(Self {
            directory,
            stages: with(&demanded, &AT_LEAST).into_iter().map(people).collect(),
        })
    }

    /// The role of each person who has to agree.
    pub fn places(&self) -> Vec<ApproverRole> {
        let each = self.stages.iter().flat_map(|(stage, _)| {
            std::iter::repeat_n(stage.role, usize::from(stage.quorum.get()))
        });
        each.collect()
    }

    /// Which roles `who` may decide in.
    pub fn roles(&self, who: &Principal) -> Vec<ApproverRole> {
        let fits = self.stages.iter();
        let fits = fits.filter(|(_, people)| people.contains(who));
        fits.map(|(stage, _)| stage.role).collect()
    }

    /// Whether distinct persons can take all of `places`, none of them of `out`.
    pub(super) fn fill(&self, places: &[ApproverRole], out: &BTreeSet<&str>) -> bool {
        let persons = |role: &ApproverRole| {
            let of = self.stages.iter().find(|(stage, _)| stage.role == *role);
            let people = of.into_iter().flat_map(|(_, people)| people);
            let persons = people.map(|who| self.directory.person(who));
            (1, persons.filter(|person| !out.contains(person)).collect())
        };
        satisfiable(&places.iter().map(persons).collect::<Vec<_>>())
    }
}
