//! Who decides about a proposal, and what becomes of it: two persons in two roles, neither of whom
//! proposed it, while the control is what it was.

use crate::domain::{
    ApproverRole, Assurance, Principal, Proposal, ProposalState, Tier, Timestamp, Voice,
};

use super::{Snapshot, weakening::Deciders};

/// In which roles somebody has to decide.
const ROLES: [ApproverRole; 2] = [ApproverRole::ControlOwner, ApproverRole::RiskOfficer];
/// Shortest comment.
const COMMENT: usize = 10;

/// Why a proposal cannot be decided any more; nothing while it can.
pub fn settled(proposal: &Proposal, snapshot: &Snapshot, now: Timestamp) -> Option<String> {
    if proposal.state != ProposalState::Pending {
        return Some(format!("is {}", proposal.state.name()));
    }
    if now >= proposal.deadline() {
        return Some("was not decided in time; propose it anew".into());
    }
    let current = snapshot.control(&proposal.control);
    let same = current.is_some_and(|control| control.revision == proposal.base);
    (!same).then(|| "is about a control that has changed since; propose it anew".into())
}

/// Whether whoever agrees has to have signed in with a step-up: what weakens a control needs what an
/// exception of tier HIGH needs (R42).
fn asks_step_up(snapshot: &Snapshot) -> bool {
    let domains = Deciders::domains(snapshot);
    snapshot.rules(Tier::High, &domains).approval.step_up
}

/// The roles in which nobody who still may has agreed.
pub fn wanted(proposal: &Proposal, snapshot: &Snapshot) -> Vec<ApproverRole> {
    let Some(deciders) = Deciders::of(snapshot, &proposal.control) else {
        return ROLES.to_vec();
    };
    let asks = asks_step_up(snapshot);
    let directory = snapshot.directory();
    let proposer = directory.person(&proposal.proposer);
    let mut persons = Vec::new();
    let mut open = ROLES.to_vec();
    for voice in proposal.voices.iter().filter(|voice| voice.approves) {
        let person = directory.person(&voice.approver);
        let strong = voice.assurance.as_ref().is_some_and(|said| said.stepped_up);
        let may = deciders.roles(&voice.approver).contains(&voice.role) && (strong || !asks);
        if may && person != proposer && !persons.contains(&person) {
            persons.push(person);
            open.retain(|role| *role != voice.role);
        }
    }
    open
}

/// The proposal after `who` decided. It is decided once no role is wanted any more; whoever runs
/// this then makes the control so, or leaves the proposal as it was.
///
/// # Errors
///
/// What stands against it, in words.
pub fn decided(
    proposal: &Proposal,
    who: &Principal,
    approves: bool,
    (comment, assurance): (&str, Option<&Assurance>),
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<Proposal, Stands> {
    if let Some(why) = settled(proposal, snapshot, now) {
        return Err(Stands::Settled(format!("{} {why}", proposal.id)));
    }
    if comment.trim().chars().count() < COMMENT {
        return Err(Stands::Settled(format!(
            "`comment` is shorter than {COMMENT} characters; say why"
        )));
    }
    let directory = snapshot.directory();
    let person = directory.person(who);
    let deciders = Deciders::of(snapshot, &proposal.control);
    let roles = deciders
        .as_ref()
        .map_or(Vec::new(), |deciders| deciders.roles(who));
    if roles.is_empty() {
        return Err(Stands::Forbidden(format!(
            "`{who}` is neither control owner nor risk officer for {}",
            proposal.control
        )));
    }
    if person == directory.person(&proposal.proposer) {
        return Err(Stands::Forbidden(format!(
            "`{who}` proposed it, and does not decide about it"
        )));
    }
    let twice = proposal
        .voices
        .iter()
        .any(|voice| voice.approves && directory.person(&voice.approver) == person);
    if twice && approves {
        return Err(Stands::Settled(format!(
            "`{who}` has decided already; one person counts once"
        )));
    }
    let has = assurance.is_some_and(|assurance| assurance.stepped_up);
    if approves && asks_step_up(snapshot) && !has {
        return Err(Stands::Settled(
            "whoever approves this signs in with a step-up: `exeat login --step-up`, then approve again".into(),
        ));
    }
    let open = wanted(proposal, snapshot);
    let may_fill = open.iter().find(|role| roles.contains(role));
    // Who may decide may say no, whatever is still wanted.
    let role = match (may_fill, approves) {
        (Some(_), true) if open.len() == ROLES.len() && roles.len() == ROLES.len() => {
            let others = |role: ApproverRole| {
                let of = deciders
                    .as_ref()
                    .into_iter()
                    .flat_map(|deciders| deciders.of_role(role));
                of.map(|other| directory.person(other))
                    .any(|other| other != person && other != directory.person(&proposal.proposer))
            };
            // The one that leaves the other to others.
            let both = ROLES.into_iter();
            let kept = both.zip(ROLES.into_iter().rev());
            kept.filter(|(_, other)| others(*other))
                .map(|(role, _)| role)
                .next()
        }
        (Some(role), _) => Some(*role),
        (None, false) => roles.first().copied(),
        (None, true) => None,
    };
    let role = role.ok_or_else(|| {
        Stands::Forbidden(format!("nobody in a role of `{who}` is wanted any more"))
    })?;
    let mut next = proposal.clone();
    next.voices.push(Voice {
        approver: who.clone(),
        person: person.into(),
        role,
        approves,
        comment: comment.into(),
        time: now,
        assurance: assurance.cloned(),
    });
    if !approves {
        next.state = ProposalState::Denied;
        next.since = now;
    } else if wanted(&next, snapshot).is_empty() {
        next.state = ProposalState::Applied;
        next.since = now;
    }
    Ok(next)
}

/// What stands against a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Whoever decides may not.
    Forbidden(String),
    /// There is nothing to decide so.
    Settled(String),
}
