//! What a caller may do beyond what their role says of calls: it depends on what is asked.

use crate::{
    domain::{
        Act, Cause, ClassId, ControlId, DomainId, Edit, ExceptionId, Finding, Kind, Name,
        Principal, PrincipalKind, Selector, Subject, SubjectId, Target,
    },
    engine::owner_of,
    manifest::differs,
};

use super::{
    authn::Caller,
    instances::class_of,
    role::Role,
    view::View,
    workflow::{Refused, Takes},
};

/// Whether an exception was requested: then votes and time change it, and nobody's manifest.
pub(super) fn is_requested(view: &View, name: &Name) -> bool {
    name.kind == Kind::Exception && view.cases.get(&*name.id).is_some()
}

/// What grants, and who decides about it, is an administrator's to apply.
pub(super) fn may_apply(
    caller: &Caller,
    view: &View,
    edits: &[Edit],
    applies_exceptions: bool,
) -> Result<(), Refused> {
    if let Some(edit) = edits.iter().find(|edit| is_requested(view, &edit.name)) {
        return Err(Refused::Precondition(format!(
            "{} was requested; see `exeat exception show {}`, and change it with `exeat exception`",
            edit.name, edit.name.id
        )));
    }
    // No granting but by a request, votes and their digest (R28).
    let grants = |edit: &&Edit| edit.name.kind == Kind::Exception && edit.manifest.is_some();
    if let Some(edit) = edits.iter().find(grants).filter(|_| !applies_exceptions) {
        return Err(Refused::Precondition(format!(
            "{}: exceptions are asked for with `exeat exception request`; an administrator applies them only where the registry is set to `exceptions: applied`",
            edit.name
        )));
    }
    // Approvals and leases go by the tier: another tier is another exception.
    let moved = |edit: &&Edit| {
        let known = view.object(&edit.name);
        let before = known.and_then(|stored| stored.manifest.as_deref());
        let both = before.zip(edit.manifest.as_deref());
        both.is_some_and(|(before, after)| differs(before, after, &["tier"]))
    };
    if let Some(edit) = edits.iter().filter(grants).find(moved) {
        return Err(Refused::Precondition(format!(
            "{}: the tier of an exception does not change; take it away and apply another under another id",
            edit.name
        )));
    }
    if caller.role == Role::Admin {
        return Ok(());
    }
    match edits.iter().find(|edit| says_who_decides(view, edit)) {
        Some(edit) => Err(Refused::Forbidden(format!(
            "{}: what grants, and who decides by which rules, needs role admin, and `{}` has role {}",
            edit.name, caller.identity, caller.role
        ))),
        None => Ok(()),
    }
}

/// Whether an edit grants, or says who decides about what is granted, or by which rules.
fn says_who_decides(view: &View, edit: &Edit) -> bool {
    let before = view
        .object(&edit.name)
        .and_then(|stored| stored.manifest.as_deref());
    let differ = |fields: &[&str]| match (before, edit.manifest.as_deref()) {
        (Some(before), Some(after)) => differs(before, after, fields),
        // Taken away and made anew it may be another's.
        (None, Some(_)) => view.objects.get(&edit.name).is_some(),
        (None | Some(_), None) => false,
    };
    match edit.name.kind {
        Kind::Exception
        | Kind::Case
        | Kind::Incident
        | Kind::Proposal
        | Kind::Finding
        | Kind::Person
        | Kind::Group
        | Kind::Domain
        | Kind::TierPolicy => true,
        // Its owner decides about exceptions from it, and the subject's owner does not about its. What
        // was excepted of a class counts for who is of it.
        Kind::Control => differ(&["owner"]),
        Kind::Subject => differ(&["domain", "owner", "class_id"]),
    }
}

/// Whether somebody answers for a finding: for its control, or for what it is about.
pub(super) fn answers_for_finding(identity: &str, view: &View, finding: &Finding) -> bool {
    let directory = view.snapshot.directory();
    let about = finding.subject.as_str();
    let exception = ExceptionId::parse(about).map(Target::Exception);
    let of = [
        Ok(Target::Control(finding.control.clone())),
        Ok(Target::Subject(finding.subject.clone())),
        exception,
    ];
    directory.person(&finding.owner) == directory.person_called(identity)
        || of
            .into_iter()
            .flatten()
            .any(|target| answers_for(identity, view, &target))
}

/// Whether somebody answers for something: asked for an exception, owns or approved it, or owns one of
/// its controls or a domain that it reaches into; owns a subject, control or domain, or a domain above
/// it.
fn answers_for(identity: &str, view: &View, target: &Target) -> bool {
    let snapshot = &view.snapshot;
    let directory = snapshot.directory();
    let person = directory.person_called(identity);
    let is = |who: &Principal| directory.person(who) == person;
    let owns = |id: &DomainId| snapshot.domains_above(id).any(|domain| is(&domain.owner));
    let controls = |id: &ControlId| snapshot.control(id).is_some_and(|it| is(&it.owner));
    let within = |subject: &Subject| subject.domain.as_ref().is_some_and(owns);
    match target {
        Target::Exception(id) => {
            let approved = view.cases.get(id.as_str()).is_some_and(|case| {
                let mut votes = case.votes.iter();
                votes.any(|vote| vote.approves && is(&vote.approver))
            });
            let known = snapshot.exception(id.as_str());
            approved
                || known.is_some_and(|exception| {
                    let named: Vec<&str> = match &exception.scope.subjects {
                        Selector::Ids(ids) => ids.iter().map(SubjectId::as_str).collect(),
                        Selector::Classes(ids) => ids.iter().map(ClassId::as_str).collect(),
                    };
                    let mut subjects = named.into_iter().filter_map(|id| snapshot.subject(id));
                    is(&exception.owner)
                        || is(&exception.requester)
                        || exception.controls.iter().any(controls)
                        || exception.domain.as_ref().is_some_and(owns)
                        || subjects.any(|subject| within(subject))
                })
        }
        Target::Subject(id) => snapshot.subject(id.as_str()).is_some_and(|subject| {
            let owner = owner_of(subject).map(|owner| directory.person_called(owner));
            owner == Some(person) || within(subject)
        }),
        Target::Control(id) => controls(id),
        Target::Domain(id) => owns(id),
        Target::Credential(_) | Target::Principal(_) => false,
    }
}

/// Whoever may take an exception back may have it looked at again instead.
pub(super) fn may_suspend(caller: &Caller, view: &View, id: &ExceptionId) -> Result<(), Refused> {
    let takes = Takes {
        act: Act::Revoke,
        target: Target::Exception(id.clone()),
        cause: Cause::Admin,
        note: "".into(),
        heard: None,
    };
    may_take_back(caller, view, &takes)
}

/// Many may grant, one may take back (V2).
pub(super) fn may_take_back(caller: &Caller, view: &View, takes: &Takes) -> Result<(), Refused> {
    let missing = |what: &str, id: &str| {
        Refused::NotFound(format!("there is no {what} `{id}`, and there never was"))
    };
    let ever = |kind: Kind, id: &str| view.objects.get(&Name::new(kind, id)).is_some();
    match &takes.target {
        Target::Exception(id) if !ever(Kind::Exception, id.as_str()) => {
            let case = view.cases.get(id.as_str());
            return Err(case.map_or_else(
                || missing("exception", id.as_str()),
                |case| {
                    Refused::Precondition(format!(
                        "{id} is {}, and nothing was granted that a revocation takes back; withdraw or deny it",
                        case.state
                    ))
                },
            ));
        }
        // A workload that comes and goes was never governed one by one, and is stopped by itself.
        Target::Subject(id)
            if !ever(Kind::Subject, id.as_str())
                && !view.snapshot.removed().freezes(id)
                && class_of(id, view.classes.iter().map(AsRef::as_ref), &view.snapshot)
                    .is_none() =>
        {
            return Err(missing("subject", id.as_str()));
        }
        Target::Control(id) if !ever(Kind::Control, id.as_str()) => {
            return Err(missing("control", id.as_str()));
        }
        Target::Domain(id) if !ever(Kind::Domain, id.as_str()) => {
            return Err(missing("domain", id.as_str()));
        }
        Target::Exception(_)
        | Target::Subject(_)
        | Target::Control(_)
        | Target::Domain(_)
        | Target::Credential(_)
        | Target::Principal(_) => {}
    }
    if let Target::Principal(who) = &takes.target {
        if who.as_str() == &*caller.identity {
            return Err(Refused::Precondition("nobody revokes themselves".into()));
        }
        // It shuts them out of the registry for good, and nobody is to do that to its
        // administrators but one of them.
        if who.kind() == PrincipalKind::Human && caller.role != Role::Admin {
            return Err(Refused::Forbidden(format!(
                "revoking a person needs role admin, and `{}` has role {}",
                caller.identity, caller.role
            )));
        }
    }
    match caller.role {
        // A thaw gives authority back.
        Role::Admin => Ok(()),
        Role::Author | Role::Approver if takes.act != Act::Thaw => Ok(()),
        Role::Author | Role::Approver | Role::Viewer | Role::Integration | Role::Sidecar => {
            let person = caller.role != Role::Sidecar && takes.act != Act::Thaw;
            if person && answers_for(&caller.identity, view, &takes.target) {
                return Ok(());
            }
            Err(Refused::Forbidden(format!(
                "this needs role {}, and `{}` has role {}",
                if takes.act == Act::Thaw {
                    "admin"
                } else {
                    "approver, author or admin, or to answer for it: as its requester, its owner, who approved it, or the owner of its control or domain"
                },
                caller.identity,
                caller.role
            )))
        }
    }
}
