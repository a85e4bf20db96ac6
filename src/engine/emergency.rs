//! What stands against an override during an incident, and who has to let it happen (R37, T9).

use std::{collections::BTreeSet, sync::Arc};

use crate::domain::{
    ApproverRole, Case, ControlId, DomainId, ExceptionId, Invalid, PrincipalKind, Request, Seat,
    Span, Stage, Tier, TierRules, Timestamp,
};

use super::{
    Snapshot,
    coverage::{Cases, Past},
    quorum::Electorate,
    sprawl::MONTH,
    terms::{Asked, seats},
};

/// Most overrides of a domain within [`MONTH`] that one person lets happen; one more, and overriding
/// is the normal path there (governance §5).
const MANY: usize = 3;

/// Who decides about an override, and who looks at it afterwards.
pub(super) struct Emergency {
    /// Before it begins; nobody where whoever is on call may begin it by themselves.
    pub(super) seats: Vec<Seat>,
    /// Within a day.
    pub(super) after: Vec<Seat>,
}

/// The incident it belongs to, which goes on and is of every domain it reaches into.
fn declared(request: &Request, domains: &[&DomainId], snapshot: &Snapshot) -> Result<(), Invalid> {
    let wrong = |what: String, fix: &str| Err(Invalid::new("incident_ref", what, fix));
    let Some(id) = &request.incident else {
        return wrong("is missing".into(), "name the incident");
    };
    let Some(incident) = snapshot.directory().incident(id) else {
        return wrong(
            format!("there is no incident `{id}`"),
            "declare it with `exeat incident open`",
        );
    };
    if !incident.is_open() {
        return wrong(
            format!("`{id}` is resolved"),
            "nothing is overridden for what is over",
        );
    }
    let mut subjects = super::parties::scoped(snapshot, request);
    if let Some(subject) = subjects.find(|subject| subject.domain.is_none()) {
        return Err(Invalid::new(
            "scope.subject_selector",
            format!("names `{}`, which is of no domain", subject.id),
            "an incident is of a domain, and so are those it touches",
        ));
    }
    if domains.is_empty() {
        return Err(Invalid::new(
            "domain",
            "is missing, and no subject has one",
            "an incident is of a domain",
        ));
    }
    let beyond = domains.iter().find(|domain| {
        let mut above = snapshot.domains_above(domain);
        !above.any(|known| known.id == incident.domain)
    });
    match beyond {
        Some(domain) => wrong(
            format!(
                "`{id}` is of domain `{}`, and the request reaches into `{domain}`",
                incident.domain
            ),
            "narrow the scope, or declare the incident where it is",
        ),
        None => Ok(()),
    }
}

/// An override in one of the domains that owes something for longer than it may, and what.
pub(super) fn late<'a>(
    past: Past<'a>,
    domains: &[&DomainId],
    now: Timestamp,
) -> Option<(&'a ExceptionId, &'static str)> {
    past.overrides(domains).find_map(|case| {
        let debt = case.debt.as_ref()?;
        Some((&case.id, debt.overdue(now)?))
    })
}

/// Nothing is overridden where something is owed.
fn owes_nothing(past: Past<'_>, domains: &[&DomainId], now: Timestamp) -> Result<(), Invalid> {
    match late(past, domains, now) {
        Some((id, what)) => Err(Invalid::new(
            "incident_ref",
            format!("{id} was overridden in this domain, and {what} is overdue"),
            format!(
                "see `exeat exception show {id}`; until then ask for a WAIVER, which a risk officer decides as well as its own people"
            ),
        )),
        None => Ok(()),
    }
}

/// Who decides about the override that is asked for.
///
/// # Errors
///
/// What stands against it.
pub(super) fn emergency(
    asked: Asked<'_>,
    domains: &[&DomainId],
    renewals: u32,
    past: Past<'_>,
    rules: &TierRules,
    now: Timestamp,
) -> Result<Emergency, Invalid> {
    let Asked {
        requester, request, ..
    } = asked;
    let snapshot = past.snapshot;
    declared(request, domains, snapshot)?;
    if asked.granted.is_none() {
        owes_nothing(past, domains, now)?;
        if renewals > rules.approval.max_renewals {
            return Err(Invalid::new(
                "scope",
                format!("was overridden {renewals} times already"),
                "what goes on is no emergency: ask for a WAIVER, which its own people decide",
            ));
        }
    }
    let dual = renewals > 0 || lately(past, domains, now).count() >= MANY;
    let more: &[ApproverRole] = if dual {
        &[ApproverRole::RiskOfficer]
    } else {
        &[]
    };
    let mut first = seats(&rules.approval, more, domains);
    let after = seats(&snapshot.rules(Tier::High, domains).approval, &[], domains);
    let electorate = Electorate::new(snapshot, requester, request, Tier::Incident);
    let human = requester.kind() == PrincipalKind::Human;
    let responds = human && first.iter().all(|seat| electorate.has(requester, seat));
    let alone = |domain: &&DomainId| {
        let said: BTreeSet<bool> = snapshot
            .domains_above(domain)
            .filter_map(|domain| domain.self_activation)
            .collect();
        said == BTreeSet::from([true])
    };
    // Whoever began it alone does not look at it again alone.
    if asked.granted.is_none() && !dual && responds && domains.iter().all(alone) {
        first.clear();
    }
    Ok(Emergency {
        seats: first,
        after,
    })
}

/// The overrides of `domains` that began within the month that ends `now`.
fn lately<'a>(
    past: Past<'a>,
    domains: &[&DomainId],
    now: Timestamp,
) -> impl Iterator<Item = &'a Arc<Case>> {
    let month = now + Span::from_micros(MONTH.micros().saturating_neg());
    past.overrides(domains).filter(move |case| {
        let began = case.granted.map(|granted| granted.effective);
        began.is_some_and(|began| began > month)
    })
}

/// The overrides within a month of a domain in which `control` is overridden, if they are so many
/// that they are the normal path there.
pub(super) fn habitual<'a>(
    control: &ControlId,
    cases: &'a Cases,
    snapshot: &'a Snapshot,
    now: Timestamp,
) -> Vec<&'a ExceptionId> {
    // Of each of its domains by itself: two that are few make no habit.
    let of = |case: &'a Arc<Case>| {
        let seats = case.debt.iter().flat_map(|debt| &debt.seats);
        seats.filter_map(move |seat| {
            let past = Past {
                cases,
                snapshot,
                own: &case.id,
            };
            // The one that is looked at is no other than itself.
            let domain = [seat.domain.as_ref()?];
            let all = lately(past, &domain, now).chain([case]);
            Some(all.map(|case| &case.id).collect::<BTreeSet<_>>())
        })
    };
    let month = now + Span::from_micros(MONTH.micros().saturating_neg());
    let began = |case: &&Arc<Case>| {
        case.granted
            .is_some_and(|granted| granted.effective > month)
    };
    let mine = cases.values().filter(began);
    let mine = mine.filter(|case| case.request.controls.contains(control));
    let most = mine.flat_map(of).max_by_key(BTreeSet::len);
    most.filter(|most| most.len() > MANY)
        .map(|most| most.into_iter().collect())
        .unwrap_or_default()
}

/// One person in each of `roles` in addition to `stages`, once.
pub(super) fn with(stages: &[Stage], roles: &[ApproverRole]) -> Vec<Stage> {
    let mut stages = stages.to_vec();
    for role in roles {
        if !stages.iter().any(|stage| stage.role == *role) {
            stages.push(Stage::one(*role));
        }
    }
    stages
}
