//! Incidents, and what overrides during one owe: declared, resolved, looked at and written down.

use std::sync::Arc;

use crate::{
    domain::{
        ApproverRole, Ballot, Case, Cause, Closure, DomainId, Edit, ExceptionId, ExceptionState,
        Incident, IncidentId, Invalid, Kind, Name, Principal, Seat, Stage, Tier, Timestamp, Vote,
    },
    engine::{
        Change, Electorate,
        lifecycle::{Event, owed, step},
    },
    manifest::write_incident,
};

use super::{
    asking::{Decides, known, principal},
    authn::Caller,
    cases::{nobody, planned, put, removal, standing, terms_of},
    core::{Draft, Planned, Registry},
    role::Role,
    store::Heard,
    view::View,
    workflow::Refused,
};

/// What somebody says of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Declares {
    /// It began, in a domain, and is called so.
    Opened(DomainId, Box<str>),
    /// It is over.
    Resolved,
}

/// Whether a caller may say what of an incident in `domain`: an administrator, the system that
/// incidents are dealt with in, and whoever is on call there.
fn may_declare(caller: &Caller, view: &View, domain: &DomainId) -> Result<(), Refused> {
    if matches!(caller.role, Role::Admin | Role::Integration) {
        return Ok(());
    }
    let seat = Seat {
        stage: Stage::one(ApproverRole::OnCall),
        domain: Some(domain.clone()),
        step_up: false,
    };
    let on_call = Principal::parse(&caller.identity)
        .is_ok_and(|who| Electorate::serves(&view.snapshot, &who, &seat));
    if on_call {
        return Ok(());
    }
    Err(Refused::Forbidden(format!(
        "an incident of `{domain}` is declared by who is on call there, an administrator or an integration, and `{}` is none",
        caller.identity
    )))
}

impl Registry {
    /// Notes that an incident began or is over; saying it again changes nothing. With the end of an
    /// incident its overrides end, in the same transaction.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub(super) async fn declare(
        &self,
        caller: &Caller,
        id: &IncidentId,
        declares: Declares,
        heard: Option<Heard>,
    ) -> Result<Incident, Refused> {
        self.write(|view, draft| {
            let known = view.snapshot.directory().incident(id.as_str());
            let (incident, action) = match (&declares, known) {
                (Declares::Opened(domain, title), None) => {
                    may_declare(caller, view, domain)?;
                    if view.snapshot.domains_above(domain).next().is_none() {
                        let what = format!("there is no domain `{domain}`");
                        let fix = "see `exeat get domains`";
                        return Err(Refused::Invalid(Invalid::new("domain", what, fix)));
                    }
                    let incident = Incident {
                        id: id.clone(),
                        domain: domain.clone(),
                        title: title.clone(),
                        opened_by: caller.identity.clone(),
                        opened: draft.time,
                        resolved: None,
                    };
                    (incident, "incident open")
                }
                (Declares::Opened(domain, _), Some(known)) => {
                    may_declare(caller, view, &known.domain)?;
                    if known.is_open() && known.domain == *domain {
                        return Ok((None, known.clone()));
                    }
                    return Err(Refused::Precondition(format!(
                        "`{id}` was an incident of `{}` already{}; declare a new one under a new id",
                        known.domain,
                        if known.is_open() { "" } else { ", and is resolved" }
                    )));
                }
                (Declares::Resolved, None) => {
                    return Err(Refused::NotFound(format!("there is no incident `{id}`")));
                }
                (Declares::Resolved, Some(known)) => {
                    may_declare(caller, view, &known.domain)?;
                    if !known.is_open() {
                        return Ok((None, known.clone()));
                    }
                    let incident = Incident {
                        resolved: Some((caller.identity.clone(), draft.time)),
                        ..known.clone()
                    };
                    (incident, "incident resolve")
                }
            };
            let mut planned = recorded(view, draft, caller, action, &incident)?;
            planned.heard = heard;
            Ok((Some(planned), incident))
        })
        .await
    }

    /// Writes down how an override was undone, and closes it if it is in force.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub(super) async fn close_override(
        &self,
        caller: &Caller,
        id: &ExceptionId,
        [relaxed, restored, lessons]: [Box<str>; 3],
    ) -> Result<Arc<Case>, Refused> {
        let who = principal(caller)?;
        self.write(|view, draft| {
            let case = known(view, id)?;
            let own = [&case.requester, &case.request.owner].contains(&&who);
            if !own && caller.role != Role::Admin {
                return Err(Refused::Forbidden(format!(
                    "how {id} was undone is written down by its requester, its owner or an administrator, and `{who}` is none"
                )));
            }
            let closure = Closure {
                by: who.clone(),
                time: draft.time,
                relaxed,
                restored,
                lessons,
            };
            let next = step(case, Event::Record(closure), draft.time, nobody)?;
            let closed = case.state != next.state;
            let why = Cause::ExpiredEarlyByOwner;
            let removal = removal(draft, 0, &next, why, &caller.identity);
            let removals = closed.then_some(removal).into_iter().collect();
            let told = Arc::new(next.clone());
            let by = &caller.identity;
            let planned = planned(view, draft, by, "incident close", vec![next], removals)?;
            Ok((Some(planned), told))
        })
        .await
    }
}

/// An incident in a transaction, with the end of every override that belongs to it once it is over.
fn recorded(
    view: &View,
    draft: Draft,
    caller: &Caller,
    action: &str,
    incident: &Incident,
) -> Result<Planned, Refused> {
    let name = Name::new(Kind::Incident, incident.id.as_str());
    let revision = view.objects.get(&name).map_or(0, |stored| stored.revision);
    let (mut cases, mut removals) = (Vec::new(), Vec::new());
    if !incident.is_open() {
        let of = |case: &&Arc<Case>| case.request.incident.as_deref() == Some(incident.id.as_str());
        for case in view.cases.values().filter(of) {
            let over = || "the incident is resolved".into();
            let event = if case.state == ExceptionState::Pending {
                Event::Outdate(over())
            } else {
                Event::Revoke(over())
            };
            // What is over already stays as it is.
            if let Ok(next) = step(case, event, draft.time, nobody) {
                if next.state == ExceptionState::Revoked {
                    let why = Cause::IncidentResolved;
                    let place = removals.len();
                    removals.push(removal(draft, place, &next, why, &caller.identity));
                }
                cases.push(next);
            }
        }
    }
    let by = &caller.identity;
    let mut planned = planned(view, draft, by, action, Vec::new(), removals)?;
    planned.changes.push(Change::PutIncident(incident.clone()));
    planned.transaction.edits.push(Edit {
        name,
        revision: revision.saturating_add(1),
        manifest: Some(write_incident(incident).into()),
    });
    put(view, draft, cases, &mut planned)?;
    Ok(planned)
}

/// The override after `approver` has looked at it afterwards; nothing if that is not what they may
/// still do.
pub(super) fn looked_back(
    view: &View,
    case: &Case,
    approver: &Principal,
    decides: &Decides,
    now: Timestamp,
) -> Result<Option<Case>, Refused> {
    let still = standing(view, case);
    let open = owed(case, &still);
    if open.is_empty() {
        return Ok(None);
    }
    let electorate = Electorate::new(&view.snapshot, &case.requester, &case.request, Tier::High);
    let directory = view.snapshot.directory();
    let person = directory.person(approver);
    let began = case
        .votes
        .iter()
        .any(|vote| vote.approves && directory.person(&vote.approver) == person);
    if began && decides.approves && !case.state.is_final() {
        // Whoever let it begin may still say that it holds.
        return Ok(None);
    }
    // Who may look at it may say no, though others have filled the seat.
    let all = case.debt.iter().flat_map(|debt| &debt.seats);
    let open = if decides.approves {
        open
    } else {
        all.collect()
    };
    let seat = match electorate.seat(approver, &open) {
        Ok(seat) => seat,
        Err(Some(why)) if case.state.is_final() => return Err(Refused::Forbidden(why)),
        Err(_) => return Ok(None),
    };
    let Some(terms) = case.terms.clone() else {
        return Ok(None);
    };
    // What is shown of one in force are its terms as they are now; the vote is about what began.
    let now_shown = terms_of(view, case, now).is_ok_and(|shown| shown.digest == decides.digest);
    let digest = if now_shown {
        terms.digest.clone()
    } else {
        decides.digest.clone()
    };
    let vote = Vote {
        approver: approver.clone(),
        person: view.snapshot.directory().person(approver).into(),
        role: seat.stage.role,
        domain: seat.domain.clone(),
        approves: decides.approves,
        comment: decides.comment.clone(),
        reviewed: decides.reviewed.clone(),
        digest,
        time: now,
        viewed: decides.viewed,
        assurance: decides.assurance.clone(),
        trace: decides.trace,
        ballot: Ballot::Retroactive,
    };
    Ok(Some(step(case, Event::Vote(vote, terms), now, still)?))
}
