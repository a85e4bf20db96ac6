//! On which terms a request may be granted: what was frozen, which tier, and who has to decide.

use std::{collections::BTreeSet, sync::Arc};

use crate::domain::{
    ApproverRole, Control, ControlId, Deviation, Digest, DomainId, Enforcement, ExceptionId,
    Fingerprint, Invalid, Now, Principal, PrincipalKind, Question, Request, Resource, Seat,
    Selector, Set, Span, Stage, Subject, Terms, Tier, TierRules, Timestamp, Value,
};

use super::{
    Snapshot, catalogue,
    coverage::{Cases, Past},
    decide,
    quorum::{Electorate, satisfiable},
    stakes::{listed, stakes},
    tiering::tier,
};

/// Most questions tried to see a control fail.
const TRIES: usize = 256;
/// Over how long automatic approvals of one control are counted.
const MONTH: Span = Span::from_days(30);

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The exception's id.
    pub id: &'a ExceptionId,
    /// Who.
    pub requester: &'a Principal,
    /// What.
    pub request: &'a Request,
    /// For when: the window it has, or would have now.
    pub window: (Timestamp, Timestamp),
    /// Since when it is asked for.
    pub created: Timestamp,
}

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

/// The terms on which what is asked may be granted as things are, but for their digest.
///
/// # Errors
///
/// The field that stands against it.
pub fn terms(
    asked: Asked<'_>,
    snapshot: &Snapshot,
    cases: &Cases,
    now: Timestamp,
) -> Result<Terms, Invalid> {
    let Asked {
        id,
        requester,
        request,
        window,
        created,
    } = asked;
    accountable(requester, request, snapshot)?;
    let controls = controls(request, snapshot)?;
    let subjects = subjects(request, snapshot)?;
    if !request.preemptive {
        for control in &controls {
            fails(control, &subjects, request, snapshot, now)?;
        }
    }
    let past = Past {
        cases,
        snapshot,
        own: id,
    };
    let parent = past.parent(request, created, now);
    let before = parent.and_then(|parent| Some((parent, parent.terms.as_ref()?)));
    let renewal_count = before.map_or(0, |(_, terms)| terms.renewal_count.saturating_add(1));
    let percent = |control: &ControlId| past.percent(control, request, window, now);
    let used = request.controls.iter().map(percent).max().unwrap_or(0);
    let mut stakes = stakes(request, &controls, &subjects, renewal_count);
    let (first, _) = tier(&stakes);
    let domains = reached(request, &subjects);
    let rules_of = |tier| snapshot.rules(tier, &domains);
    let cap = |tier| u32::from(rules_of(tier).approval.max_coverage);
    stakes.coverage = used.saturating_mul(100) / cap(first).max(1);
    let (mut tier, mut inputs) = tier(&stakes);
    let mut raise = |tier: &mut Tier, what: &str, value: String| {
        *tier = tier.higher();
        inputs.push(crate::domain::TierInput {
            what: what.into(),
            value: value.into(),
            tier: *tier,
        });
    };
    let mut once_more = false;
    while renewal_count > rules_of(tier).approval.max_renewals {
        if tier == Tier::High {
            once_more = true;
            break;
        }
        raise(&mut tier, "max_renewals", renewal_count.to_string());
    }
    if rules_of(tier).approval.stages.is_empty()
        && !within_budget(past, request, &rules_of(tier), now)
    {
        raise(&mut tier, "auto_budget", "used up".into());
    }
    let rules = &rules_of(tier);
    if used > cap(tier) {
        return Err(Invalid::new(
            "window.duration",
            format!(
                "brings a subject to {used}% of a year excepted from a control, and tier {tier} permits {}%",
                cap(tier)
            ),
            "remedy the cause; a new request does not begin anew (R35)",
        ));
    }
    within(request, rules, tier)?;
    let seats = seats(request, rules, &domains, once_more);
    let electorate = Electorate::new(snapshot, requester, request, tier);
    let persons: Vec<_> = seats
        .iter()
        .map(|seat| (seat.stage.quorum.get(), electorate.persons(seat)))
        .collect();
    if !satisfiable(&persons) {
        let wanted: Vec<_> = seats
            .iter()
            .zip(&persons)
            .map(|(seat, (_, persons))| {
                format!(
                    "{} {}: {} may",
                    seat.stage.quorum,
                    seat.stage.role,
                    persons.len()
                )
            })
            .collect();
        return Err(Invalid::new(
            "domain",
            format!(
                "has nobody to decide a {tier} request ({})",
                wanted.join("; ")
            ),
            "name groups as `approver_groups` of the Domain; who asks, owns or stands behind the subject does not count",
        ));
    }
    Ok(Terms {
        digest: Digest::parse("sha256:0")?,
        submitted: now,
        tier,
        inputs,
        seats,
        review_evidence: rules.approval.review_evidence,
        deadline: rules.approval.deadline.map(|deadline| now + deadline),
        controls: controls
            .iter()
            .map(|control| (control.id.clone(), control.revision))
            .collect(),
        bound: bound(request, rules, &subjects)?,
        revalidation: rules.revalidation_interval,
        on_change: rules.approval.on_change,
        lineage: before.map_or_else(|| id.clone(), |(_, terms)| terms.lineage.clone()),
        renewal_count,
        latest: latest(request, &subjects, now),
    })
}

/// People answer for it (E13).
fn accountable(
    requester: &Principal,
    request: &Request,
    snapshot: &Snapshot,
) -> Result<(), Invalid> {
    let directory = snapshot.directory();
    let mut people = vec![("owner", &request.owner)];
    match (requester.kind(), &request.on_behalf_of) {
        (_, Some(person)) => people.push(("on_behalf_of", person)),
        (PrincipalKind::Human, None) => {}
        (PrincipalKind::AiAgent | PrincipalKind::Service, None) => {
            return Err(Invalid::new(
                "on_behalf_of",
                format!("is missing, and `{requester}` is no person"),
                "name the person it is asked for",
            ));
        }
    }
    for (field, who) in people {
        if !directory.is_active(who) {
            return Err(Invalid::new(
                field,
                format!("`{who}` is not an active person of the directory"),
                "apply a Person manifest, or name somebody else (E13)",
            ));
        }
    }
    Ok(())
}

fn controls<'a>(
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
                "remedy the cause instead (E2)",
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

fn subjects<'a>(
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
    let subjects: Vec<_> = scoped(snapshot, request).collect();
    if subjects.is_empty() {
        return Err(Invalid::new(
            "scope.subject_selector.class_ids",
            "name a class of which nothing is known",
            "register the class as a subject",
        ));
    }
    let removed = snapshot.removed();
    let gone = |subject: &&&Arc<Subject>| {
        subject.lifecycle == crate::domain::Lifecycle::Retired
            || removed.retires(subject)
            || removed.locks(subject)
    };
    if let Some(subject) = subjects.iter().find(gone) {
        return Err(Invalid::new(
            "scope.subject_selector",
            format!("`{}` is retired, revoked or frozen", subject.id),
            "no exception helps it",
        ));
    }
    Ok(subjects)
}

/// Whether a control fails for somebody in the scope: there is nothing to except otherwise.
fn fails(
    control: &Control,
    subjects: &[&Arc<Subject>],
    request: &Request,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<(), Invalid> {
    let reach = &control.applies_to;
    let actions = some_of(
        [listed(&request.scope.actions), listed(&reach.actions)],
        "any",
    );
    let patterns = |set: &Set<crate::domain::Pattern>| match set {
        Set::Any => Vec::new(),
        Set::Of(patterns) => patterns
            .iter()
            .map(|pattern| match pattern.as_str().strip_suffix('/') {
                Some(_) => format!("{}any", pattern.as_str()),
                None => pattern.as_str().to_owned(),
            })
            .collect(),
    };
    let resources = some_of(
        [
            patterns(&request.scope.resources),
            patterns(&reach.resources),
        ],
        "any",
    );
    let kinds = some_of([listed(&reach.resource_types), Vec::new()], "tool");
    let purposes = some_of([listed(&request.scope.purposes), Vec::new()], "");
    let questions = subjects.iter().flat_map(|subject| {
        let (resources, kinds, purposes) = (&resources, &kinds, &purposes);
        actions.iter().flat_map(move |action| {
            resources.iter().flat_map(move |resource| {
                kinds.iter().flat_map(move |kind| {
                    purposes.iter().map(move |purpose| Question {
                        subject: subject.id.clone(),
                        action: action.clone(),
                        resource: Resource {
                            kind: kind.clone(),
                            id: resource.clone(),
                            properties: Value::Map(Box::default()),
                        },
                        purpose: Some(purpose.clone()).filter(|purpose| !purpose.is_empty()),
                        actor_kind: None,
                        context: Value::Map(Box::default()),
                        observed: Fingerprint::default(),
                    })
                })
            })
        })
    });
    let failing = questions.take(TRIES).any(|question| {
        let decision = decide(&question, snapshot, Now::exactly(now));
        decision
            .failed
            .iter()
            .any(|result| result.control.id == control.id)
    });
    if failing {
        return Ok(());
    }
    Err(Invalid::new(
        "control_ids",
        format!("`{}` does not fail for anybody in the scope", control.id),
        "ask when it does, or say `preemptive: true`",
    ))
}

/// The first of the lists that is not empty, else one item.
fn some_of(lists: [Vec<String>; 2], else_: &str) -> Vec<String> {
    let mut lists = lists.into_iter();
    lists
        .find(|list| !list.is_empty())
        .unwrap_or_else(|| vec![else_.to_owned()])
}

/// The domains it reaches into: each has a say (M3).
fn reached<'a>(request: &'a Request, subjects: &[&'a Arc<Subject>]) -> Vec<&'a DomainId> {
    let of = subjects
        .iter()
        .filter_map(|subject| subject.domain.as_ref());
    let domains: BTreeSet<_> = of.chain(&request.domain).collect();
    domains.into_iter().collect()
}

/// The rules that a request is held to at a tier: the tier's, with those of every domain that it
/// reaches into.
pub fn rules_for(request: &Request, tier: Tier, snapshot: &Snapshot) -> TierRules {
    let subjects: Vec<_> = scoped(snapshot, request).collect();
    snapshot.rules(tier, &reached(request, &subjects))
}

/// Whether nobody has to decide yet.
fn within_budget(past: Past<'_>, request: &Request, rules: &TierRules, now: Timestamp) -> bool {
    let Some(budget) = rules.approval.auto else {
        return false;
    };
    let since = now + Span::from_micros(MONTH.micros().saturating_neg());
    let (owner, subject, control) = past.load(request, since);
    let below = |count: usize, most: u32| u32::try_from(count).is_ok_and(|count| count < most);
    below(owner, budget.per_owner)
        && below(subject, budget.per_subject)
        && below(control, budget.per_control)
}

/// What the tier demands of the window; the rest is held to its rules as the exception it makes.
fn within(request: &Request, rules: &TierRules, tier: Tier) -> Result<(), Invalid> {
    if request.window.duration() > rules.max_duration {
        return Err(Invalid::new(
            "window.duration",
            format!("is more than {}", rules.max_duration),
            format!("tier {tier} permits no more (E9)"),
        ));
    }
    Ok(())
}

/// Who has to decide: in each domain that it reaches those who answer for the controls.
fn seats(
    request: &Request,
    rules: &TierRules,
    domains: &[&DomainId],
    once_more: bool,
) -> Vec<Seat> {
    let mut stages = rules.approval.stages.clone();
    let mut add = |role| {
        if !stages.iter().any(|stage| stage.role == role) {
            stages.push(Stage::one(role));
        }
    };
    if request.deviation == Deviation::FalsePositive {
        add(ApproverRole::ControlOwner);
    }
    if once_more {
        add(ApproverRole::DomainOwner);
    }
    let home = request.domain.as_ref().or(domains.first().copied());
    let mut seats = Vec::new();
    for stage in stages {
        let everywhere = stage.role == ApproverRole::ControlOwner && !domains.is_empty();
        let of: Vec<Option<DomainId>> = if everywhere {
            domains.iter().map(|id| Some((*id).clone())).collect()
        } else {
            vec![home.cloned()]
        };
        seats.extend(of.into_iter().map(|domain| Seat { stage, domain }));
    }
    seats
}

/// The facets it stands and falls with, as they are now, of all subjects alike (E6, E7).
fn bound(
    request: &Request,
    rules: &TierRules,
    subjects: &[&Arc<Subject>],
) -> Result<Fingerprint, Invalid> {
    let mut bound = Vec::new();
    let facets: BTreeSet<_> = rules
        .bound_facets
        .iter()
        .chain(&request.bound_facets)
        .collect();
    for facet in facets {
        let mut digests = subjects
            .iter()
            .map(|subject| subject.fingerprint.get(*facet));
        let first = digests.next().flatten().ok_or_else(|| {
            Invalid::new(
                "scope.subject_selector",
                format!("facet `{facet}` of a subject is not known"),
                "register the subject in full (E6)",
            )
        })?;
        if digests.any(|digest| digest != Some(first)) {
            return Err(Invalid::new(
                "scope.subject_selector",
                format!("names subjects whose facet `{facet}` differs"),
                "file one request for each",
            ));
        }
        bound.push((*facet, first.clone()));
    }
    Ok(Fingerprint::new(bound))
}

/// Until when what it rests on lasts: required evidence, and the subjects' deployments (E10).
fn latest(request: &Request, subjects: &[&Arc<Subject>], now: Timestamp) -> Option<Timestamp> {
    let evidence = request.evidence.iter().filter(|item| item.required);
    let evidence = evidence.map(|item| item.expire_time);
    let deployed = subjects.iter().filter_map(|subject| {
        let Some(Value::List(approvals)) = catalogue::at(&subject.attributes, &["approvals"])
        else {
            return None;
        };
        let field = |approval, name| catalogue::field(approval, &catalogue::APPROVAL, name);
        let deployments = approvals.iter().filter(|approval| {
            field(approval, "kind").and_then(Value::as_str) == Some("DEPLOYMENT")
        });
        let ends = deployments.filter_map(|approval| match field(approval, "expire_time") {
            Some(Value::Time(end)) => Some(*end),
            _ => None,
        });
        ends.filter(|end| *end > now).max()
    });
    evidence.chain(deployed).min()
}
