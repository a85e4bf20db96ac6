//! Who decides about a proposal, and what becomes of it: as many persons, in as many roles, as a HIGH
//! exception needs, none of whom proposed it, while the control is what it was.

use std::collections::BTreeSet;

use crate::domain::{
    ApproverRole, Assurance, Principal, Proposal, ProposalState, Timestamp, Voice,
};

use super::{Snapshot, weakening::Deciders};

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
    Deciders::rules(snapshot).approval.step_up
}

/// Who has agreed and still may, by the role they did it in.
fn agreed<'a>(
    proposal: &'a Proposal,
    deciders: &Deciders<'_>,
    snapshot: &'a Snapshot,
) -> Vec<(&'a str, ApproverRole)> {
    let asks = asks_step_up(snapshot);
    let directory = snapshot.directory();
    let proposer = directory.person(&proposal.proposer);
    let mut agreed: Vec<(&str, ApproverRole)> = Vec::new();
    for voice in proposal.voices.iter().filter(|voice| voice.approves) {
        let person = directory.person(&voice.approver);
        let strong = voice.assurance.as_ref().is_some_and(|said| said.stepped_up);
        let may = deciders.roles(&voice.approver).contains(&voice.role) && (strong || !asks);
        let counted = agreed.iter().any(|(known, _)| *known == person);
        if may && person != proposer && !counted {
            agreed.push((person, voice.role));
        }
    }
    agreed
}

/// The roles in which somebody who still may has yet to agree, each as often as persons are wanted
/// in it. Nobody can, where nobody is named any more.
pub fn wanted(proposal: &Proposal, snapshot: &Snapshot) -> Option<Vec<ApproverRole>> {
    let deciders = Deciders::of(snapshot, &proposal.control)?;
    let agreed = agreed(proposal, &deciders, snapshot);
    Some(open(&deciders, &agreed))
}

/// The places that nobody has taken.
fn open(deciders: &Deciders<'_>, agreed: &[(&str, ApproverRole)]) -> Vec<ApproverRole> {
    let mut open = deciders.places();
    for (_, taken) in agreed {
        if let Some(at) = open.iter().position(|role| role == taken) {
            open.remove(at);
        }
    }
    open
}

/// Whether there are distinct persons to decide what `proposer` proposes.
///
/// # Errors
///
/// Who is wanted and is not there.
pub fn decidable(
    proposer: &Principal,
    deciders: &Deciders<'_>,
    snapshot: &Snapshot,
) -> Result<(), String> {
    let places = deciders.places();
    let out = BTreeSet::from([snapshot.directory().person(proposer)]);
    if deciders.fill(&places, &out) {
        return Ok(());
    }
    Err(format!(
        "there are not enough people to decide about it, distinct ones for each and not who proposes it: {}; name them as `approver_groups` of a domain at the top",
        named(&places)
    ))
}

fn named(roles: &[ApproverRole]) -> String {
    let names: Vec<_> = roles.iter().map(ToString::to_string).collect();
    names.join(", ")
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
    let Some(deciders) = Deciders::of(snapshot, &proposal.control) else {
        return Err(Stands::Settled(
            "no domain at the top names a risk officer, and nobody decides about controls".into(),
        ));
    };
    let roles = deciders.roles(who);
    let Some(first) = roles.first() else {
        return Err(Stands::Forbidden(format!(
            "`{who}` has none of the roles that decide about {}: {}",
            proposal.control,
            named(&deciders.places())
        )));
    };
    if person == directory.person(&proposal.proposer) {
        return Err(Stands::Forbidden(format!(
            "`{who}` proposed it, and does not decide about it"
        )));
    }
    let agreed = agreed(proposal, &deciders, snapshot);
    // A vote that does not count any more stands in nobody's way.
    let twice = agreed.iter().any(|(known, _)| *known == person);
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
    let open = open(&deciders, &agreed);
    let role = if approves {
        // The one that leaves the others to others.
        let mut out: BTreeSet<_> = agreed.iter().map(|(person, _)| *person).collect();
        out.extend([person, directory.person(&proposal.proposer)]);
        let leaves = |at: usize| {
            let mut rest = open.clone();
            rest.remove(at);
            deciders.fill(&rest, &out)
        };
        let fits = open.iter().enumerate();
        let fits: Vec<_> = fits.filter(|(_, role)| roles.contains(role)).collect();
        let best = fits.iter().find(|(at, _)| leaves(*at)).or(fits.first());
        let role = best.map(|(_, role)| **role);
        role.ok_or_else(|| {
            Stands::Forbidden(format!("nobody in a role of `{who}` is wanted any more"))
        })?
    } else {
        // Who may decide may say no, whatever is still wanted.
        *open
            .iter()
            .find(|role| roles.contains(role))
            .unwrap_or(first)
    };
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
    } else if wanted(&next, snapshot).is_some_and(|open| open.is_empty()) {
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
