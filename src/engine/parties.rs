//! Who and what a request is about: people who answer for it, controls, subjects and their domains.

use std::sync::Arc;

use crate::domain::{
    Control, DomainId, Enforcement, Invalid, Lifecycle, Principal, PrincipalKind, Request,
    Selector, Subject, Target, Timestamp,
};

use super::{
    Snapshot, catalogue,
    terms::{Asked, reached},
};

/// The subjects that a request names, or that are of the classes it names.
pub(super) fn scoped<'a>(
    snapshot: &'a Snapshot,
    request: &'a Request,
) -> Box<dyn Iterator<Item = &'a Arc<Subject>> + 'a> {
    match &request.scope.subjects {
        Selector::Ids(ids) => Box::new(ids.iter().filter_map(|id| snapshot.subject(id.as_str()))),
        Selector::Classes(classes) => Box::new(snapshot.subjects().filter(|subject| {
            let of = |class: &Arc<Subject>| class.id == subject.id;
            let itself = classes
                .iter()
                .filter_map(|class| snapshot.subject(class.as_str()))
                .any(of);
            itself
                || subject
                    .class
                    .as_ref()
                    .is_some_and(|class| classes.contains(class))
        })),
    }
}

/// Who answers for a subject that names nobody.
pub(super) const NOBODY: &str = "nobody";

/// The principal who answers for a subject, if one is named.
pub fn owner_of(subject: &Subject) -> Option<&str> {
    catalogue::at(&subject.attributes, &["owner", "principal"])?.as_str()
}

/// The model that a subject is governed to run on, as people say it; none where it has none.
pub fn model_of(subject: &Subject) -> Option<String> {
    let of = |name| catalogue::at(&subject.attributes, &["model", name])?.as_str();
    let (provider, name, version) = (of("provider")?, of("name")?, of("version")?);
    Some(format!("{provider}/{name} {version}"))
}

/// People answer for it (E13).
pub(super) fn accountable(
    requester: &Principal,
    request: &Request,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<(), Invalid> {
    let directory = snapshot.directory();
    if !directory.is_attested(&request.owner, now) {
        return Err(Invalid::new(
            "owner",
            format!("`{}` was not attested within 90 days", request.owner),
            "confirm it, and apply the Person with its `attest_time`; or name another owner",
        ));
    }
    let mut people = vec![("owner", &request.owner)];
    match (requester.kind(), &request.on_behalf_of) {
        (PrincipalKind::Human, behalf) => {
            people.push(("requester", requester));
            people.extend(behalf.iter().map(|person| ("on_behalf_of", person)));
        }
        (PrincipalKind::AiAgent | PrincipalKind::Service, Some(person)) => {
            people.push(("on_behalf_of", person));
        }
        (PrincipalKind::AiAgent | PrincipalKind::Service, None) => {
            return Err(Invalid::new(
                "on_behalf_of",
                format!("is missing, and `{requester}` is no person"),
                "name the person it is asked for",
            ));
        }
    }
    for (field, who) in people.into_iter().chain([("requester", requester)]) {
        let revoked = Target::Principal(who.clone());
        if snapshot.removed().revokes(&revoked) {
            let what = format!("`{who}` was revoked");
            return Err(Invalid::new(field, what, "name somebody else"));
        }
        if who.kind() == PrincipalKind::Human && !directory.is_active(who) {
            return Err(Invalid::new(
                field,
                format!("`{who}` is not an active person of the directory"),
                "apply a Person manifest, or name somebody else",
            ));
        }
    }
    Ok(())
}

/// Whether the owner asks, or their agent does: what nobody decides is nobody's to be given. For whom
/// an agent says that it asks, nobody confirms; who answers for the agent is governed.
pub(super) fn consents(asked: Asked<'_>, snapshot: &Snapshot) -> bool {
    let (directory, requester) = (snapshot.directory(), asked.requester);
    let owner = directory.person(&asked.request.owner);
    if requester.kind() == PrincipalKind::Human {
        return directory.person(requester) == owner;
    }
    // One that is out of use speaks for nobody.
    let agent = agent_called(requester, snapshot).filter(|agent| {
        let removed = snapshot.removed();
        agent.lock.is_none()
            && agent.lifecycle == Lifecycle::Active
            && !removed.locks(agent)
            && !removed.retires(agent)
    });
    let answers = agent.and_then(|agent| owner_of(agent));
    answers.is_some_and(|who| directory.person_called(who) == owner)
}

/// The governed agent that is called as `agent:NAME`, or by its SPIFFE id; one way only, so that
/// nobody puts another in its place.
pub(super) fn agent_called<'a>(
    who: &Principal,
    snapshot: &'a Snapshot,
) -> Option<&'a Arc<Subject>> {
    let id = who.as_str();
    let id = if id.starts_with("spiffe://") {
        id
    } else {
        id.strip_prefix("agent:")?
    };
    snapshot.subject(id)
}

/// The controls that are deviated from, each one that may be.
pub(super) fn controls<'a>(
    request: &Request,
    snapshot: &'a Snapshot,
) -> Result<Vec<&'a Arc<Control>>, Invalid> {
    let mut found = Vec::new();
    for (at, id) in request.controls.iter().enumerate() {
        let wrong =
            |what: String, fix: &str| Err(Invalid::new(format!("control_ids[{at}]"), what, fix));
        let Some(control) = snapshot.control(id) else {
            return wrong(
                format!("there is no control `{id}`"),
                "see `exeat get controls`",
            );
        };
        if control.enforcement == Enforcement::HardMandatory || control.baseline_gate {
            return wrong(
                format!("`{id}` cannot be waived"),
                "remedy the cause instead",
            );
        }
        if snapshot.removed().revokes(&Target::Control(id.clone())) {
            return wrong(
                format!("`{id}` was revoked"),
                "no exception from it is honoured",
            );
        }
        if !control.state.in_force() {
            return wrong(
                format!("`{id}` is not in force"),
                "nothing needs an exception from it",
            );
        }
        found.push(control);
    }
    Ok(found)
}

/// Those it is for, each one whom an exception may help.
pub(super) fn subjects<'a>(
    request: &'a Request,
    snapshot: &'a Snapshot,
) -> Result<Vec<&'a Arc<Subject>>, Invalid> {
    if let Selector::Ids(ids) = &request.scope.subjects
        && let Some(id) = ids
            .iter()
            .find(|id| snapshot.subject(id.as_str()).is_none())
    {
        return Err(Invalid::new(
            "scope.subject_selector.ids",
            format!("there is no subject `{id}`"),
            "register it first",
        ));
    }
    let retired = |subject: &Subject| subject.lifecycle == Lifecycle::Retired;
    let by_class = matches!(request.scope.subjects, Selector::Classes(_));
    let mut subjects: Vec<_> = scoped(snapshot, request).collect();
    // A member that retires takes nothing from its class.
    subjects.retain(|subject| !(by_class && subject.class.is_some() && retired(subject)));
    if subjects.is_empty() {
        return Err(Invalid::new(
            "scope.subject_selector.class_ids",
            "name a class of which nothing is known",
            "register the class as a subject",
        ));
    }
    let removed = snapshot.removed();
    let gone = |subject: &&&Arc<Subject>| {
        retired(subject) || removed.retires(subject) || removed.locks(subject)
    };
    if let Some(subject) = subjects.iter().find(gone) {
        return Err(Invalid::new(
            "scope.subject_selector",
            format!("`{}` is retired, revoked or frozen", subject.id),
            "no exception helps it",
        ));
    }
    if let Some(domain) = &request.domain {
        let own = subjects
            .iter()
            .filter_map(|subject| subject.domain.as_ref());
        let mut above = own.flat_map(|id| snapshot.domains_above(id));
        if !above.any(|known| known.id == *domain) {
            return Err(Invalid::new(
                "domain",
                format!("no subject in the scope belongs to `{domain}`"),
                "leave it out: the subjects' domains decide",
            ));
        }
    }
    let taken_back = |id: &DomainId| {
        let mut above = snapshot.domains_above(id);
        above.any(|domain| removed.revokes(&Target::Domain(domain.id.clone())))
    };
    if let Some(id) = reached(request, &subjects)
        .into_iter()
        .find(|id| taken_back(id))
    {
        return Err(Invalid::new(
            "domain",
            format!("`{id}`, or what it is part of, was revoked"),
            "no exception is honoured there",
        ));
    }
    Ok(subjects)
}

/// The subjects that what is asked for is bound to: those named, and of a class the class itself,
/// where it is known; each member is looked at as it asks.
pub(super) fn anchors<'a>(request: &'a Request, snapshot: &'a Snapshot) -> Vec<&'a Arc<Subject>> {
    let all = || scoped(snapshot, request);
    let Selector::Classes(classes) = &request.scope.subjects else {
        return all().collect();
    };
    let known = classes
        .iter()
        .filter_map(|class| snapshot.subject(class.as_str()));
    let known: Vec<_> = known.collect();
    if known.is_empty() {
        all()
            .filter(|subject| subject.lifecycle != Lifecycle::Retired)
            .collect()
    } else {
        known
    }
}
