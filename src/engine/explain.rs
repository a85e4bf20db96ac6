//! Why: the clauses of failed conditions with actual values, and the exception that came nearest.

use crate::domain::{
    ControlResult, Decision, Dimension, Effect, ExceptionResult, Lease, Now, Question, Ref,
    Selector, Set, Span, Tier, TierRules, Timestamp, Trouble, TroubleKind, Value, Verdict,
};

use super::{
    catalogue::{self, Shape},
    condition::Frame,
    decide::{applies, decide, frame, judge, known, slots},
    index::Rule,
    snapshot::Snapshot,
    world::describe,
};

/// Longest value shown, in characters.
const SHOWN: usize = 120;

/// One clause of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The clause as text.
    pub text: String,
    /// Whether it holds; nothing if that cannot be told.
    pub holds: Option<bool>,
    /// The attributes it reads.
    pub reads: Vec<Read>,
}

/// An attribute with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The attribute.
    pub path: String,
    /// Its value, or what is in the way.
    pub value: String,
}

/// What one control said, and on what grounds.
#[derive(Clone, Debug)]
pub struct ControlClauses {
    /// The control and its verdict.
    pub result: ControlResult,
    /// The clauses of its condition.
    pub clauses: Vec<Clause>,
}

/// The exception that came nearest to covering what failed.
#[derive(Clone, Debug)]
pub struct NearMiss {
    /// The exception and what stood against it.
    pub result: ExceptionResult,
    /// What it holds for, where it missed.
    pub wanted: String,
    /// What was met there.
    pub met: String,
}

/// A decision with the steps that led to it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// Every control that applied, in the order of their ids.
    pub controls: Vec<ControlClauses>,
    /// The exception that came nearest, if the answer is no.
    pub nearest: Option<NearMiss>,
    /// Every exception that is not honoured as the registry was not heard lately enough: the budget
    /// of its tier, and the last contact.
    pub stale: Vec<NearMiss>,
}

/// The decision with every control's clauses.
pub fn explain(question: &Question, snapshot: &Snapshot, now: Now) -> Explanation {
    let decision = decide(question, snapshot, now);
    let controls = walk(question, snapshot, now, &|_| true);
    let nearest = nearest(&decision, question, snapshot, now);
    let lapsed = decision.exceptions.iter();
    let lapsed = lapsed.filter(|result| result.effect == Effect::LeaseLapsed);
    let stale = lapsed.filter_map(|result| against(result, question, snapshot, now));
    let stale = stale.collect();
    Explanation {
        decision,
        controls,
        nearest,
        stale,
    }
}

/// The decisive clauses of every control that did not pass, and the nearest exception.
pub fn reasons(
    decision: &Decision,
    question: &Question,
    snapshot: &Snapshot,
    now: Now,
) -> (Vec<ControlClauses>, Option<NearMiss>) {
    let failed = |rule: &Rule| {
        decision
            .failed
            .iter()
            .any(|result| result.control.id == rule.control.id)
    };
    let mut controls = walk(question, snapshot, now, &failed);
    for control in &mut controls {
        control.clauses.retain(|clause| clause.holds != Some(false));
    }
    (controls, nearest(decision, question, snapshot, now))
}

fn walk(
    question: &Question,
    snapshot: &Snapshot,
    now: Now,
    keep: &dyn Fn(&Rule) -> bool,
) -> Vec<ControlClauses> {
    let Some((subject, _)) = known(question, snapshot) else {
        return Vec::new();
    };
    let slots = slots(question, snapshot);
    let frame = frame(question, subject, snapshot, &slots, now);
    snapshot
        .rules
        .for_action(&question.action)
        .filter(|rule| keep(rule) && applies(rule, question, &frame))
        .map(|rule| {
            let verdict = judge(rule, subject, &frame, now);
            ControlClauses {
                result: ControlResult {
                    control: std::sync::Arc::clone(&rule.control),
                    verdict,
                },
                clauses: clauses(rule, verdict, &frame),
            }
        })
        .collect()
}

/// The clauses of the alternatives that decided: for a failure those that hold throughout.
fn clauses(rule: &Rule, verdict: Verdict, frame: &Frame<'_>) -> Vec<Clause> {
    if let Verdict::Indeterminate(Trouble {
        kind:
            kind @ (TroubleKind::FacetMissing(_)
            | TroubleKind::FacetStale(_)
            | TroubleKind::FacetIncomplete(_)
            | TroubleKind::NotRead),
        ..
    }) = verdict
    {
        return vec![Clause {
            text: kind.describe(),
            holds: None,
            reads: Vec::new(),
        }];
    }
    let terms = rule.fails.terms();
    let decided = |group: usize| match verdict {
        Verdict::Pass => true,
        Verdict::Fail => terms
            .iter()
            .filter(|term| term.group == group)
            .all(|term| term.holds(frame) == Ok(true)),
        Verdict::Indeterminate(_) => terms
            .iter()
            .any(|term| term.group == group && term.holds(frame).is_err()),
    };
    let shown: Vec<_> = terms.iter().filter(|term| decided(term.group)).collect();
    // A condition that is decided by no single alternative is shown whole.
    let shown = if shown.is_empty() {
        terms.iter().collect()
    } else {
        shown
    };
    shown
        .into_iter()
        .map(|term| {
            let mut reads: Vec<Read> = term
                .reads(frame)
                .map(|(path, value)| Read {
                    path: path.to_owned(),
                    value: value.map_or_else(|trouble| describe_trouble(trouble, rule), show),
                })
                .collect();
            if let Some((at, item)) = term.witness(frame) {
                reads.push(Read {
                    path: format!("element {at}"),
                    value: show(item),
                });
            }
            Clause {
                text: term.text.to_string(),
                holds: term.holds(frame).ok(),
                reads,
            }
        })
        .collect()
}

fn describe_trouble(trouble: Trouble, rule: &Rule) -> String {
    match trouble.kind {
        TroubleKind::MissingAttribute => "missing".into(),
        kind => describe(kind, rule.fails.source(), trouble.at),
    }
}

/// A value as people read it.
fn show(value: Ref<'_>) -> String {
    let text = match value {
        Ref::Null => "null".into(),
        Ref::Bool(b) => b.to_string(),
        Ref::Int(i) => i.to_string(),
        Ref::Double(d) => d.to_string(),
        Ref::Str(s) => format!("'{}'", s.escape_debug()),
        Ref::Time(t) => t.to_string(),
        Ref::Span(s) => s.to_string(),
        Ref::List(items) => {
            let first: Vec<_> = items
                .iter()
                .take(4)
                .map(|item| show(item.as_ref()))
                .collect();
            let more = if items.len() > 4 {
                format!(", … {} in all", items.len())
            } else {
                String::new()
            };
            format!("[{}{more}]", first.join(", "))
        }
        Ref::Map(entries) => format!(
            "{{{}}}",
            entries
                .iter()
                .take(6)
                .map(|(k, v)| format!("{k}: {}", show(v.as_ref())))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Ref::Record(fields) => record(fields),
    };
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// A record by the fields that tell it apart.
fn record(fields: &[Option<Value>]) -> String {
    let shapes: [&Shape; 5] = [
        &catalogue::CREDENTIAL,
        &catalogue::TOOL,
        &catalogue::APPROVAL,
        &catalogue::DATA_SOURCE,
        &catalogue::DATASET,
    ];
    let Some(shape) = shapes
        .into_iter()
        .find(|shape| shape.fields.len() == fields.len())
    else {
        return "…".into();
    };
    let said: Vec<_> = shape
        .fields
        .iter()
        .zip(fields)
        .filter_map(|(field, value)| {
            value
                .as_ref()
                .map(|value| format!("{}: {}", field.name, show(value.as_ref())))
        })
        .take(4)
        .collect();
    format!("{{{}}}", said.join(", "))
}

/// The tier's budgets, and how long ago the registry was heard and everything was current.
fn lapsed(rules: &TierRules, tier: Tier, now: Now) -> (String, String) {
    let wanted = format!(
        "tier {tier}: the registry heard within {}, everything current within {}",
        rules.lease(),
        rules.max_staleness
    );
    let ago = |age: Span| {
        if age == Span::MAX {
            "never since the start".to_owned()
        } else {
            let at = Timestamp::from_micros(now.latest.micros().saturating_sub(age.micros()));
            format!("{:.1} s ago ({at})", age.as_secs_f64())
        }
    };
    let met = match now.lease {
        Lease::Local => String::new(),
        Lease::Follows { removals, state } => {
            format!("heard {}, current {}", ago(removals), ago(state))
        }
    };
    (wanted, met)
}

/// Of the exceptions considered for what failed, the one with the least against it.
fn nearest(
    decision: &Decision,
    question: &Question,
    snapshot: &Snapshot,
    now: Now,
) -> Option<NearMiss> {
    if decision.allows() {
        return None;
    }
    let far = |result: &&ExceptionResult| match result.effect {
        Effect::OutOfScope(dimension) => Some((0_u8, u8::MAX.saturating_sub(dimension as u8))),
        Effect::ContextChanged(_) | Effect::CompensationFailed(_) => Some((1, 0)),
        Effect::Scheduled
        | Effect::RevalidationOverdue
        | Effect::EvidenceExpired
        | Effect::LeaseLapsed
        | Effect::ClockSkew
        | Effect::BaselineBreach
        | Effect::BudgetExhausted
        | Effect::EvidenceUnavailable => Some((2, 0)),
        Effect::Expired | Effect::NotInForce(_) | Effect::Revoked => Some((3, 0)),
        Effect::ReliedOn | Effect::NotNeeded => None,
    };
    let result = decision
        .exceptions
        .iter()
        .filter(|result| far(result).is_some())
        .min_by_key(far)?;
    against(result, question, snapshot, now)
}

/// What stood against an exception.
fn against(
    result: &ExceptionResult,
    question: &Question,
    snapshot: &Snapshot,
    now: Now,
) -> Option<NearMiss> {
    let (subject, _) = known(question, snapshot)?;
    let exception = &result.exception;
    let (wanted, met) = match result.effect {
        Effect::OutOfScope(dimension) => {
            let scope = &exception.scope;
            let any = |set: &Set<Box<str>>| match set {
                Set::Any => "ANY".to_owned(),
                Set::Of(items) => items.join(" | "),
            };
            match dimension {
                Dimension::Subject => (
                    match &scope.subjects {
                        Selector::Ids(ids) => ids
                            .iter()
                            .map(crate::domain::SubjectId::as_str)
                            .collect::<Vec<_>>()
                            .join(" | "),
                        Selector::Classes(classes) => classes
                            .iter()
                            .map(crate::domain::ClassId::as_str)
                            .collect::<Vec<_>>()
                            .join(" | "),
                    },
                    subject.id.to_string(),
                ),
                Dimension::Action => (any(&scope.actions), question.action.clone()),
                Dimension::Resource => (
                    match &scope.resources {
                        Set::Any => "ANY".to_owned(),
                        Set::Of(items) => items
                            .iter()
                            .map(crate::domain::Pattern::as_str)
                            .collect::<Vec<_>>()
                            .join(" | "),
                    },
                    question.resource.id.clone(),
                ),
                Dimension::Environment => {
                    (any(&scope.environments), subject.environment.to_string())
                }
                Dimension::Purpose => (
                    any(&scope.purposes),
                    question.purpose.clone().unwrap_or_else(|| "none".into()),
                ),
                Dimension::DataSensitivity => (
                    scope
                        .data_sensitivity_max
                        .map_or_else(String::new, |most| format!("at most {most}")),
                    subject.data_sensitivity.to_string(),
                ),
                Dimension::Condition => (
                    scope
                        .match_condition
                        .as_deref()
                        .unwrap_or_default()
                        .to_owned(),
                    "not so".into(),
                ),
            }
        }
        Effect::ContextChanged(facet) => (
            exception
                .bound
                .get(facet)
                .map(ToString::to_string)
                .unwrap_or_default(),
            question
                .observed
                .get(facet)
                .or_else(|| subject.fingerprint.get(facet))
                .map_or_else(|| "unknown".into(), ToString::to_string),
        ),
        Effect::Scheduled => (
            format!("from {}", exception.effective_time),
            now.earliest.to_string(),
        ),
        Effect::Expired => (
            format!("until {}", exception.expire_time),
            now.latest.to_string(),
        ),
        Effect::RevalidationOverdue => (
            format!(
                "revalidated by {}",
                exception
                    .next_revalidation_time
                    .map(|t| t.to_string())
                    .unwrap_or_default()
            ),
            now.latest.to_string(),
        ),
        Effect::CompensationFailed(at) => (
            exception
                .compensating_conditions
                .get(usize::from(at))
                .map(ToString::to_string)
                .unwrap_or_default(),
            "not so".into(),
        ),
        Effect::NotInForce(state) => ("APPROVED".into(), state.name().into()),
        Effect::LeaseLapsed => match subject.lease_expire_time {
            Some(end) if now.latest >= end => {
                (format!("registered until {end}"), now.latest.to_string())
            }
            Some(_) | None => {
                let rules = snapshot.tier_within(exception.tier, subject.domain.as_ref());
                lapsed(rules, exception.tier, now)
            }
        },
        Effect::ReliedOn
        | Effect::NotNeeded
        | Effect::EvidenceExpired
        | Effect::Revoked
        | Effect::ClockSkew
        | Effect::BaselineBreach
        | Effect::BudgetExhausted
        | Effect::EvidenceUnavailable => (String::new(), String::new()),
    };
    Some(NearMiss {
        result: result.clone(),
        wanted,
        met,
    })
}
