//! On which terms a request may be granted: what was frozen, which tier, and who has to decide.

use std::{collections::BTreeSet, sync::Arc};

use crate::domain::{
    ApprovalRules, ApproverRole, Control, ControlId, Deviation, Digest, DomainId, Evidence,
    ExceptionId, Fingerprint, Invalid, Principal, Request, Seat, Span, Subject, SubjectId, Terms,
    Tier, TierInput, TierRules, Timestamp, Value,
};

use super::{
    Snapshot, catalogue,
    coverage::{Cases, Past},
    effective::AHEAD,
    emergency::{Emergency, emergency, late, with},
    failing::fails,
    parties::{NOBODY, accountable, anchors, consents, controls, owner_of, scoped, subjects},
    quorum::{Electorate, satisfiable},
    sprawl::redesign,
    stakes::stakes,
    tiering::tier,
};

/// How long a decision may take where the tier says nothing and somebody has to decide all the same.
const DECIDE: Span = Span::from_hours(72);
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
    /// The terms it was granted on, if it was: what came before it then stays so.
    pub granted: Option<&'a Terms>,
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
        granted,
    } = asked;
    accountable(requester, request, snapshot, now)?;
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
    let (renewal_count, lineage) = match granted {
        Some(terms) => (terms.renewal_count, Some(&terms.lineage)),
        None => past.renewals(request),
    };
    let percent = |control: &ControlId| past.percent(control, request, window, now);
    let used = request.controls.iter().map(percent).max().unwrap_or(0);
    let mut stakes = stakes(request, &controls, &subjects, renewal_count);
    let (first, _) = tier(&stakes);
    let domains = reached(request, &subjects);
    let rules_of = |tier| snapshot.rules(tier, &domains);
    let cap = |tier| u32::from(rules_of(tier).approval.max_coverage);
    stakes.coverage = used.saturating_mul(100) / cap(first).max(1);
    let overrides = request.deviation == Deviation::IncidentOverride;
    let (mut tier, mut inputs) = if overrides {
        (Tier::Incident, vec![during(request)])
    } else {
        tier(&stakes)
    };
    let mut raise = |tier: &mut Tier, what: &str, value: String| {
        *tier = tier.higher();
        inputs.push(TierInput {
            what: what.into(),
            value: value.into(),
            tier: *tier,
        });
    };
    let mut once_more = false;
    while !overrides && renewal_count > rules_of(tier).approval.max_renewals {
        if tier == Tier::High {
            once_more = true;
            break;
        }
        raise(&mut tier, "max_renewals", renewal_count.to_string());
    }
    if rules_of(tier).approval.stages.is_empty() {
        // Nobody else would hear of it.
        if !consents(asked, snapshot) {
            raise(&mut tier, "owner", "has not asked".into());
        } else if !within_budget(past, request, &rules_of(tier), now) {
            raise(&mut tier, "auto_budget", "used up".into());
        } else if granted.is_none() && late(past, &domains, now).is_some() {
            raise(&mut tier, "closure", "is overdue".into());
        }
    }
    let rules = &rules_of(tier);
    if used > cap(tier) {
        return Err(Invalid::new(
            "window.duration",
            format!(
                "brings a subject to {used}% of a year excepted from a control, and tier {tier} permits {}%",
                cap(tier)
            ),
            "remedy the cause; a new request does not begin anew",
        ));
    }
    if request.preemptive && !rules.approval.preemptive {
        return Err(Invalid::new(
            "preemptive",
            format!("is true, and tier {tier} permits none before its control fails"),
            "ask when it does",
        ));
    }
    within(request, rules, tier, now)?;
    let (seats, after) = if overrides {
        let Emergency { seats, after } =
            emergency(asked, &domains, renewal_count, past, rules, now)?;
        (seats, after)
    } else {
        let mut more = Vec::new();
        if request.deviation == Deviation::FalsePositive {
            more.push(ApproverRole::ControlOwner);
        }
        // Where exceptions are the rule the control is what is to change (R42).
        // Of one that was granted nobody more is asked than then.
        let is_rule = |id: &ControlId| redesign(id, cases, snapshot, now).is_some();
        let has = |terms: &Terms, role: ApproverRole| {
            let mut seats = terms.seats.iter();
            seats.any(|seat| seat.stage.role == role)
        };
        let owner = match granted {
            Some(terms) => has(terms, ApproverRole::DomainOwner),
            None => request.controls.iter().any(is_rule),
        };
        if once_more || owner {
            more.push(ApproverRole::DomainOwner);
        }
        // Where an override's closure is overdue nothing passes in its place by one person (R37).
        let twice = match granted {
            Some(terms) => has(terms, ApproverRole::RiskOfficer),
            None => late(past, &domains, now).is_some(),
        };
        if twice && !(rules.approval.stages.is_empty() && more.is_empty()) {
            more.push(ApproverRole::RiskOfficer);
        }
        (seats(&rules.approval, &more, &domains), Vec::new())
    };
    let deadline = rules
        .approval
        .deadline
        .or((!seats.is_empty()).then_some(DECIDE));
    decidable(asked, snapshot, tier, &seats, &after)?;
    Ok(Terms {
        digest: Digest::parse("sha256:0")?,
        submitted: now,
        tier,
        inputs,
        seats,
        after,
        review_evidence: rules.approval.review_evidence,
        deadline: deadline.map(|deadline| now + deadline),
        controls: controls
            .iter()
            .map(|control| (control.id.clone(), control.revision))
            .collect(),
        meanings: meanings(&controls),
        bound: bound(request, rules, &anchors(request, snapshot))?,
        revalidation: rules.revalidation_interval,
        on_change: rules.approval.on_change,
        lineage: lineage.unwrap_or(id).clone(),
        renewal_count,
        latest: latest(request, &subjects, now)?,
        owners: owners(request, snapshot),
        policies: Vec::new(),
    })
}

/// By what controls decide, of those of which it is known.
fn meanings(controls: &[&Arc<Control>]) -> Vec<(ControlId, Digest)> {
    let known = controls.iter();
    known
        .filter_map(|control| Some((control.id.clone(), control.meaning.clone()?)))
        .collect()
}

/// Every domain whose rules a request is held to, outermost last.
pub fn governing<'a>(request: &'a Request, snapshot: &'a Snapshot) -> Vec<&'a DomainId> {
    let subjects: Vec<_> = scoped(snapshot, request).collect();
    let mut all: Vec<&DomainId> = Vec::new();
    for id in reached(request, &subjects) {
        for domain in snapshot.domains_above(id) {
            if !all.contains(&&domain.id) {
                all.push(&domain.id);
            }
        }
    }
    all
}

/// Who answers for the subjects that it is bound to.
fn owners(request: &Request, snapshot: &Snapshot) -> Vec<(SubjectId, Box<str>)> {
    let anchors = anchors(request, snapshot).into_iter();
    let owners = anchors.map(|subject| {
        let owner = owner_of(subject).unwrap_or(NOBODY);
        (subject.id.clone(), owner.into())
    });
    owners.collect()
}

/// The domains it reaches into: each has a say (M3).
pub(super) fn reached<'a>(
    request: &'a Request,
    subjects: &[&'a Arc<Subject>],
) -> Vec<&'a DomainId> {
    let of = subjects
        .iter()
        .filter_map(|subject| subject.domain.as_ref());
    let domains: BTreeSet<_> = of.chain(&request.domain).collect();
    domains.into_iter().collect()
}

/// The domains that a request reaches into, with those it names.
pub fn reaches_into(request: &Request, snapshot: &Snapshot) -> Vec<DomainId> {
    let subjects: Vec<_> = scoped(snapshot, request).collect();
    reached(request, &subjects).into_iter().cloned().collect()
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

/// What the tier demands of the window and of the evidence; the rest is held to its rules as the
/// exception it makes.
fn within(request: &Request, rules: &TierRules, tier: Tier, now: Timestamp) -> Result<(), Invalid> {
    if request.window.duration() > rules.max_duration {
        return Err(Invalid::new(
            "window.duration",
            format!("is more than {}", rules.max_duration),
            format!("tier {tier} permits no more"),
        ));
    }
    let counts = request.evidence.iter();
    let counts = counts.filter(|item| item.required && item.expire_time > now);
    let counts: BTreeSet<_> = counts.map(|item| item.digest.as_str()).collect();
    if counts.len() < rules.min_evidence {
        return Err(Invalid::new(
            "evidence",
            format!(
                "has {} items that are required and not expired",
                counts.len()
            ),
            format!(
                "tier {tier} needs {}: name more under `evidence`; for a request that was sent, `exeat evidence add`",
                rules.min_evidence
            ),
        ));
    }
    let late = now + AHEAD;
    let ahead = |item: &&Evidence| item.collect_time.is_some_and(|collected| collected > late);
    if let Some(item) = request.evidence.iter().find(ahead) {
        return Err(Invalid::new(
            "evidence",
            format!("`{}` was collected in the future", item.id),
            "say when it was collected",
        ));
    }
    let over = |item: &&Evidence| item.required && item.expire_time <= now;
    if let Some(item) = request.evidence.iter().find(over) {
        return Err(Invalid::new(
            "evidence",
            format!(
                "`{}` is required and proves nothing since {}",
                item.id, item.expire_time
            ),
            "show something that does, or say that it is not required",
        ));
    }
    Ok(())
}

/// That it is during an incident is all that its tier comes from.
fn during(request: &Request) -> TierInput {
    TierInput {
        what: "incident_ref".into(),
        value: request.incident.clone().unwrap_or_default(),
        tier: Tier::Incident,
    }
}

/// Whether there are distinct persons to decide, and others to look at it afterwards.
fn decidable(
    asked: Asked<'_>,
    snapshot: &Snapshot,
    tier: Tier,
    seats: &[Seat],
    after: &[Seat],
) -> Result<(), Invalid> {
    let electorate = |tier| Electorate::new(snapshot, asked.requester, asked.request, tier);
    // Who looks at it afterwards is held to what HIGH is.
    let (now, then) = (electorate(tier), electorate(Tier::High));
    let of_now = seats.iter().map(|seat| (seat, now.persons(seat)));
    let of_then = after.iter().map(|seat| (seat, then.persons(seat)));
    let persons: Vec<_> = of_now
        .chain(of_then)
        .map(|(seat, persons)| (seat.stage.quorum.get(), persons))
        .collect();
    if satisfiable(&persons) {
        return Ok(());
    }
    let wanted: Vec<_> = seats
        .iter()
        .chain(after)
        .zip(&persons)
        .map(|(seat, (_, persons))| {
            let (quorum, role) = (seat.stage.quorum, seat.stage.role);
            format!("{quorum} {role}: {} may", persons.len())
        })
        .collect();
    let places: u32 = persons.iter().map(|(quorum, _)| u32::from(*quorum)).sum();
    let all: BTreeSet<_> = persons.iter().flat_map(|(_, of)| of).collect();
    let what = format!(
        "has too few people to decide a request of tier {tier}: {places} different persons have to, and {} may at all ({})",
        all.len(),
        wanted.join("; ")
    );
    Err(Invalid::new(
        "domain",
        what,
        "name groups as `approver_groups` of the Domain; who asks, owns or stands behind the subject does not count",
    ))
}

/// Who has to decide: the persons of the rules' stages and one in each of `more`, in each domain
/// that it reaches into (M3).
pub(super) fn seats(
    rules: &ApprovalRules,
    more: &[ApproverRole],
    domains: &[&DomainId],
) -> Vec<Seat> {
    let stages = with(&rules.stages, more);
    let nowhere = domains.is_empty().then_some(None);
    let domains = domains.iter().map(|domain| Some((*domain).clone()));
    let each = domains.chain(nowhere).flat_map(|domain| {
        stages.iter().map(move |stage| Seat {
            stage: *stage,
            domain: domain.clone(),
            step_up: rules.step_up,
        })
    });
    each.collect()
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
                "register the subject in full",
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
fn latest(
    request: &Request,
    subjects: &[&Arc<Subject>],
    now: Timestamp,
) -> Result<Option<Timestamp>, Invalid> {
    let evidence = request.evidence.iter().filter(|item| item.required);
    let mut ends: Vec<_> = evidence.map(|item| item.expire_time).collect();
    for subject in subjects {
        if let Some(end) = deployed_until(subject) {
            if end <= now {
                return Err(Invalid::new(
                    "scope.subject_selector",
                    format!("`{}` has no current deployment approval", subject.id),
                    "have it approved again; no exception outlives that",
                ));
            }
            ends.push(end);
        }
    }
    Ok(ends.into_iter().min())
}

/// What a subject's last approved deployment was approved as, if that is not what it is now (R36).
pub fn approved_as(subject: &Subject) -> Option<&str> {
    let Some(Value::List(approvals)) = catalogue::at(&subject.attributes, &["approvals"]) else {
        return None;
    };
    let field = |approval, name| catalogue::field(approval, &catalogue::APPROVAL, name);
    let text = |approval, name| field(approval, name).and_then(Value::as_str);
    let from = |approval| match field(approval, "effective_time") {
        Some(Value::Time(from)) => *from,
        _ => Timestamp::MIN,
    };
    let last = approvals
        .iter()
        .filter(|approval| text(*approval, "kind") == Some("DEPLOYMENT"))
        .max_by_key(|approval| from(*approval))?;
    text(last, "fingerprint").filter(|approved| *approved != subject.combined.as_str())
}

/// Until when a subject's deployment is approved; none where nobody speaks of deployments.
pub(super) fn deployed_until(subject: &Subject) -> Option<Timestamp> {
    let Some(Value::List(approvals)) = catalogue::at(&subject.attributes, &["approvals"]) else {
        return None;
    };
    let field = |approval, name| catalogue::field(approval, &catalogue::APPROVAL, name);
    let deployments = approvals
        .iter()
        .filter(|approval| field(approval, "kind").and_then(Value::as_str) == Some("DEPLOYMENT"));
    let ends = deployments.filter_map(|approval| match field(approval, "expire_time") {
        Some(Value::Time(end)) => Some(*end),
        _ => None,
    });
    ends.max()
}
