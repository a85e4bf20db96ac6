//! One control over everybody: the same compiled control that questions are held against (R4).

use std::sync::Arc;

use crate::domain::{
    Case, ControlId, Deviation, Disposition, Evidenced, Exception, ExceptionState, Facet, Fault,
    Finding, Now, Remedy, Selector, Subject, SubjectId, Timestamp, Trouble, Value, Verdict,
    remedy_within,
};

use super::{
    Snapshot,
    catalogue::EXCEPTION,
    condition::Frame,
    coverage::{Cases, Past},
    decide::{fields, judge},
    effective::{Standing, effective},
    index::Rule,
    usage::Figures,
    world::{describe, exception_record},
};

/// How an exception was used, by its id; nothing where nobody counts.
pub type Used<'a> = &'a dyn Fn(&str) -> Option<Figures>;

/// Most subjects of one run whose evidence is told of.
const AGES: usize = 1_000;

/// The oldest of what a control rests on, of one subject (R20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The subject.
    pub subject: SubjectId,
    /// The facet.
    pub facet: Facet,
    /// When it was observed; nothing where nobody did.
    pub observed: Option<Timestamp>,
}

/// What a control says of everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// How many it passes for.
    pub passed: u64,
    /// How many it does not apply to.
    pub elsewhere: u64,
    /// For whom it does not pass, why, and in words.
    pub faults: Vec<(SubjectId, Fault, String)>,
    /// The oldest evidence of those it applies to: oldest first, and no more than a thousand.
    pub seen: Vec<Seen>,
}

/// Runs a control over every subject or, if it reads one, over every exception; nothing if there is
/// no such control, or it does not run by itself.
pub fn round(
    control: &ControlId,
    snapshot: &Snapshot,
    cases: &Cases,
    used: Used<'_>,
    now: Timestamp,
) -> Option<Round> {
    let rule = snapshot.rules.find(control)?;
    if !runs(rule) {
        return None;
    }
    let mut round = Round::default();
    if rule.fails.reads_exception() {
        for exception in snapshot.exceptions() {
            let Some(record) = living(rule, exception, snapshot, cases, used, now) else {
                continue;
            };
            let mut frame = Frame::new(now);
            frame.exception = fields(&record);
            let verdict = match rule.fails.holds(&frame) {
                Ok(false) => Verdict::Pass,
                Ok(true) => Verdict::Fail,
                Err(trouble) => Verdict::Indeterminate(trouble),
            };
            if let Ok(id) = SubjectId::parse(exception.id.as_str()) {
                round.count(rule, &id, Some(verdict));
            }
        }
    } else {
        let now = Now::exactly(now);
        let mut seen = Vec::new();
        for subject in snapshot.subjects() {
            let verdict = said(rule, subject, now);
            if verdict.is_some()
                && let Some((observed, facet)) = oldest(rule, subject)
            {
                seen.push((observed, &subject.id, facet));
            }
            round.count(rule, &subject.id, verdict);
        }
        // What was never observed comes before everything.
        seen.sort_unstable();
        let told = seen.into_iter().take(AGES);
        let told = told.map(|(observed, subject, facet)| Seen {
            subject: subject.clone(),
            facet,
            observed,
        });
        round.seen = told.collect();
    }
    round.faults.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Some(round)
}

/// The oldest of what a control rests on.
fn oldest(rule: &Rule, subject: &Subject) -> Option<(Option<Timestamp>, Facet)> {
    let observed = |facet| subject.facet(facet).map(|state| state.observed_time);
    let needs = rule.needs.iter();
    needs.map(|need| (observed(need.facet), need.facet)).min()
}

impl Round {
    fn count(&mut self, rule: &Rule, of: &SubjectId, verdict: Option<Verdict>) {
        match verdict {
            None => self.elsewhere = self.elsewhere.saturating_add(1),
            Some(Verdict::Pass) => self.passed = self.passed.saturating_add(1),
            Some(Verdict::Fail) => {
                let words: Vec<_> = rule.fails.source().split_whitespace().collect();
                let why = format!("`{}` holds", words.join(" "));
                self.faults.push((of.clone(), Fault::Fails, why));
            }
            Some(Verdict::Indeterminate(Trouble { kind, at })) => {
                let why = describe(kind, rule.fails.source(), at);
                self.faults.push((of.clone(), Fault::CannotTell, why));
            }
        }
    }
}

/// The finding on a control's owner that its runs were missed (R2).
pub const MISSED: &str = "EXG-RUN";
/// The finding on a control's owner that exceptions from it are the rule (R18, R42, R44).
pub const REDESIGN: &str = "EXG-REDESIGN";

/// Whether a finding is about a control itself, and no control's.
pub fn is_about_a_control(control: &ControlId) -> bool {
    [MISSED, REDESIGN].contains(&control.as_str())
}

/// Whether what a finding of a control is about is still there.
pub fn is_there(control: &ControlId, of: &SubjectId, snapshot: &Snapshot) -> bool {
    if is_about_a_control(control) {
        let known = ControlId::parse(of.as_str()).ok();
        return known.is_some_and(|id| match control.as_str() {
            MISSED => runs_by_itself(&id, snapshot),
            _ => snapshot.control(&id).is_some(),
        });
    }
    let reads = |rule: &Arc<Rule>| rule.fails.reads_exception();
    if snapshot.rules.find(control).is_some_and(reads) {
        snapshot.exception(of.as_str()).is_some()
    } else {
        snapshot.subject(of.as_str()).is_some()
    }
}

/// What controls read of an exception: one that may still hold, or that still owes something.
fn living(
    rule: &Rule,
    exception: &Exception,
    snapshot: &Snapshot,
    cases: &Cases,
    used: Used<'_>,
    now: Timestamp,
) -> Option<Value> {
    let case = cases.get(exception.id.as_str());
    let debt = case.and_then(|case| case.debt.as_ref());
    if exception.state.is_final() && debt.is_none() {
        return None;
    }
    let Value::Record(known) = exception_record(exception) else {
        return None;
    };
    let past = Past {
        cases,
        snapshot,
        own: &exception.id,
    };
    let window = (exception.effective_time, exception.expire_time);
    let reads = rule.fails.source().contains("coverage_ratio_365d");
    let share = case.filter(|_| reads).map(|case| {
        let of = |control| past.percent(control, &case.request, window, now);
        f64::from(case.request.controls.iter().map(of).max().unwrap_or(0)) / 100.0
    });
    let effective = match exception.state {
        ExceptionState::Approved if now < exception.effective_time => "SCHEDULED",
        ExceptionState::Approved if now >= exception.expire_time => "EXPIRED",
        ExceptionState::Approved => "ACTIVE",
        other => other.name(),
    };
    let owed = debt.map(|debt| {
        let look = debt.looked.is_none().then_some(debt.look_due);
        let closure = debt.closure.is_none().then_some(debt.closure_due);
        [look, closure].into_iter().flatten().min()
    });
    let closure = match owed {
        None => "NOT_REQUIRED",
        Some(None) => "COMPLETE",
        Some(Some(_)) => "OPEN",
    };
    let figures = used(exception.id.as_str());
    let figure = |of: fn(Figures) -> u64| {
        let n = figures.map(of)?;
        Some(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))
    };
    let fields = EXCEPTION.fields.iter().zip(known);
    let fields = fields.map(|(field, known)| match field.name {
        "effective_state" => Some(Value::str(effective)),
        "coverage_ratio_365d" => share.map(Value::Double),
        "closure_state" => Some(Value::str(closure)),
        "closure_due_time" => owed.flatten().map(Value::Time),
        "relied_on_count_30d" => figure(|figures| figures.relied_on),
        "out_of_scope_attempts_24h" => figure(|figures| figures.out_of_scope),
        "usage_gap_count" => figure(|figures| figures.gaps),
        _ => known,
    });
    Some(Value::Record(fields.collect()))
}

/// Whether a control runs by itself: it is in force, has a schedule, and reads no request.
fn runs(rule: &Rule) -> bool {
    let control = &rule.control;
    let asks = rule.fails.reads_request() || rule.fails.reads_resource();
    control.state.in_force() && control.schedule.is_some() && !asks
}

/// Whether a control runs by itself.
pub fn runs_by_itself(control: &ControlId, snapshot: &Snapshot) -> bool {
    snapshot.rules.find(control).is_some_and(|rule| runs(rule))
}

/// What a control says of a subject by itself; nothing if it does not apply to it.
fn said(rule: &Rule, subject: &Subject, now: Now) -> Option<Verdict> {
    let mut frame = Frame::new(now.latest);
    frame.subject = fields(&subject.attributes);
    let applies = rule
        .reach
        .as_ref()
        .is_none_or(|reach| reach.holds(&frame) != Ok(false));
    applies.then(|| judge(rule, subject, &frame, now))
}

/// Whether a control looks at what a subject is as a whole.
pub fn reads_fingerprint(control: &ControlId, snapshot: &Snapshot) -> bool {
    let rule = snapshot.rules.find(control);
    rule.is_some_and(|rule| rule.fails.reads_fingerprint())
}

/// The first baseline gate that fails for a subject, whatever is asked. One that cannot be told fails
/// at its sidecars, for as long as that lasts, and moves nothing here.
pub(super) fn breach<'a>(
    subject: &Subject,
    snapshot: &'a Snapshot,
    now: Timestamp,
) -> Option<&'a ControlId> {
    let asks = |rule: &Rule| {
        let of = std::iter::once(&rule.fails).chain(rule.reach.as_ref());
        of.into_iter()
            .any(|of| of.reads_request() || of.reads_resource() || of.reads_exception())
    };
    let mut gates = snapshot.rules.gates().filter(|rule| !asks(rule));
    let fails = gates.find(|rule| said(rule, subject, Now::exactly(now)) == Some(Verdict::Fail));
    fails.map(|rule| &rule.control.id)
}

/// What a control that runs by itself says of a subject; nothing if it does not, or does not apply.
pub fn said_of(
    control: &ControlId,
    subject: &Subject,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Option<Verdict> {
    let rule = snapshot.rules.find(control)?;
    let by_itself = runs(rule) && !rule.fails.reads_exception();
    by_itself.then(|| said(rule, subject, Now::exactly(now)))?
}

/// Whether a control applies to a subject, as far as that can be told without a request.
pub(super) fn applies(
    control: &ControlId,
    subject: &Subject,
    snapshot: &Snapshot,
    now: Timestamp,
) -> bool {
    let Some(rule) = snapshot.rules.find(control) else {
        return false;
    };
    let mut frame = Frame::new(now);
    frame.subject = fields(&subject.attributes);
    let reach = rule.reach.as_ref();
    reach.is_none_or(|reach| reach.holds(&frame) != Ok(false))
}

/// The exception that covers a subject's failing of a control at `now`, as far as what is governed
/// tells; the first by id.
pub fn covering<'a>(
    control: &ControlId,
    subject: &SubjectId,
    snapshot: &'a Snapshot,
    now: Timestamp,
) -> Option<&'a Arc<Exception>> {
    let known = snapshot.subject(subject.as_str())?;
    let holds = |exception: &&Arc<Exception>| {
        let standing = Standing {
            revoked: snapshot.takes_back(exception.id.as_str()),
            ..Standing::default()
        };
        // Nobody asks: what is governed is what is seen.
        let rules = snapshot.tier_within(exception.tier, known.domain.as_ref());
        let seen = &known.fingerprint;
        exception.controls.contains(control)
            && effective(exception, rules, known, seen, governed(now), standing).is_none()
    };
    let of_class = known
        .class
        .iter()
        .filter_map(|class| snapshot.class_grants(class))
        .flat_map(super::index::Grants::all)
        .map(|grant| &grant.exception);
    let of = snapshot.exceptions_of(subject.as_str()).into_iter();
    of.chain(of_class)
        .filter(holds)
        .min_by(|a, b| a.id.cmp(&b.id))
}

/// A time at the registry, which needs no lease of itself and keeps what is used.
fn governed(now: Timestamp) -> Now {
    Now {
        evidence: Evidenced::Kept,
        ..Now::exactly(now)
    }
}

/// How a finding is disposed of at `now`: an exception covers it, or is asked for by one of the
/// `pending` cases, or somebody is about to remedy it. Of what is satisfied not at all.
pub fn disposition(
    finding: &Finding,
    snapshot: &Snapshot,
    pending: &[&Arc<Case>],
    now: Timestamp,
) -> Disposition {
    if finding.satisfied.is_some() {
        return Disposition::None;
    }
    let (control, subject) = (&finding.control, &finding.subject);
    if let Some(exception) = covering(control, subject, snapshot, now) {
        let id = exception.id.clone();
        return match exception.deviation {
            Deviation::FalsePositive => Disposition::FalsePositive(id),
            Deviation::Waiver | Deviation::Mitigated | Deviation::IncidentOverride => {
                Disposition::Approved(id)
            }
        };
    }
    let of = snapshot.subject(subject.as_str());
    let named = |selector: &Selector| match selector {
        Selector::Ids(ids) => ids.contains(subject),
        Selector::Classes(classes) => classes.iter().any(|class| {
            class.as_str() == subject.as_str()
                || of.is_some_and(|of| of.class.as_ref() == Some(class))
        }),
    };
    let asked = |case: &&Arc<Case>| {
        case.request.controls.contains(control) && named(&case.request.scope.subjects)
    };
    let asking = pending.iter().copied().filter(asked);
    match asking.min_by(|a, b| a.id.cmp(&b.id)) {
        Some(case) => Disposition::Requested(case.id.clone()),
        None => match &finding.remedy {
            Some(remedy) if remedy.until > now => Disposition::Remediating,
            Some(_) | None => Disposition::None,
        },
    }
}

/// What becomes of the findings of a control with what a round says: only those that change, and
/// which of them somebody is to be told of: new, and covered no longer (F4, R5).
pub fn found(
    control: &ControlId,
    round: &Round,
    known: &[Arc<Finding>],
    snapshot: &Snapshot,
    covered: impl Fn(&SubjectId) -> bool,
    now: Timestamp,
) -> Vec<Finding> {
    let Some(rule) = snapshot.control(control) else {
        return Vec::new();
    };
    let mut known: std::collections::BTreeMap<_, _> = known
        .iter()
        .map(|finding| (&finding.subject, finding))
        .collect();
    let mut changed = Vec::new();
    for (subject, fault, message) in &round.faults {
        let covered = covered(subject);
        let before = known
            .remove(subject)
            .filter(|known| known.satisfied.is_none());
        let Some(before) = before else {
            changed.push(Finding {
                control: control.clone(),
                control_revision: rule.revision,
                subject: subject.clone(),
                fault: *fault,
                message: message.as_str().into(),
                severity: rule.severity,
                owner: rule.owner.clone(),
                first_seen: now,
                due: now + remedy_within(rule.severity),
                satisfied: None,
                covered,
                told: (!covered).then_some(now),
                remedy: None,
            });
            continue;
        };
        let uncovered = before.covered && !covered;
        // What was to be remedied by now, and was not.
        let late = |remedy: &Remedy| remedy.until <= now && before.told < Some(remedy.until);
        let lapsed = !covered && before.remedy.as_ref().is_some_and(late);
        let next = Finding {
            control_revision: rule.revision,
            fault: *fault,
            message: message.as_str().into(),
            severity: rule.severity,
            owner: rule.owner.clone(),
            covered,
            told: if uncovered || lapsed {
                Some(now)
            } else {
                before.told
            },
            ..(**before).clone()
        };
        if next != **before {
            changed.push(next);
        }
    }
    // Of whom nothing was found any more.
    let rest = known
        .into_values()
        .filter(|known| known.satisfied.is_none());
    changed.extend(rest.map(|known| Finding {
        satisfied: Some(now),
        covered: false,
        ..(**known).clone()
    }));
    changed
}
