//! Exceptions that are the rule: where so many are in force, or the same is asked for so often, that
//! the control is what is to change (governance §9, R42, R44).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::domain::{
    Case, ClassId, ControlId, ExceptionState, Lifecycle, Selector, Span, Subject, SubjectId,
    Timestamp,
};

use super::{
    Snapshot,
    coverage::{Cases, Stretch, YEAR, covered},
    emergency::habitual,
    rounds::applies,
};

/// Over how long it has to be so.
pub const MONTH: Span = Span::from_days(30);
/// One in how many subjects is too many.
const ONE_IN: usize = 5;
/// How often the same is asked for before it is the rule.
const RECURS: usize = 3;

/// When subjects were excepted from one control.
pub(super) type Excepted = BTreeMap<SubjectId, Vec<Stretch>>;

/// Who is of which classes, looked up once.
struct Members<'a> {
    snapshot: &'a Snapshot,
    known: HashMap<&'a [ClassId], Vec<SubjectId>>,
}

impl<'a> Members<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            known: HashMap::new(),
        }
    }

    fn of(&mut self, selector: &'a Selector) -> &[SubjectId] {
        match selector {
            Selector::Ids(ids) => ids,
            Selector::Classes(classes) => {
                let snapshot = self.snapshot;
                self.known.entry(classes).or_insert_with(|| {
                    let of = |subject: &&Arc<Subject>| {
                        let class = subject.class.as_ref();
                        let itself = |class: &ClassId| class.as_str() == subject.id.as_str();
                        class.is_some_and(|class| classes.contains(class))
                            || classes.iter().any(itself)
                    };
                    let subjects = snapshot.subjects().filter(of);
                    subjects.map(|subject| subject.id.clone()).collect()
                })
            }
        }
    }
}

/// When a case excepted its subjects; one that is suspended does since it is no more.
fn stretch(case: &Case) -> Option<Stretch> {
    let (from, to) = case.window(case.granted?.effective)?;
    match case.state {
        ExceptionState::Suspended => Some((from, to.min(case.since))),
        _ => Some((from, to)),
    }
}

/// When which subjects were excepted from which of the controls that are `wanted`, whatever
/// exceptions it was.
pub(super) fn excepted(
    cases: &Cases,
    snapshot: &Snapshot,
    wanted: impl Fn(&ControlId) -> bool,
) -> BTreeMap<ControlId, Excepted> {
    let mut all: BTreeMap<ControlId, Excepted> = BTreeMap::new();
    let mut members = Members::new(snapshot);
    let mut note = |controls: &[ControlId], subjects: &[SubjectId], stretch: Stretch| {
        for control in controls.iter().filter(|control| wanted(control)) {
            let of = all.entry(control.clone()).or_default();
            for subject in subjects {
                of.entry(subject.clone()).or_default().push(stretch);
            }
        }
    };
    for case in cases.values() {
        let controls = &case.request.controls;
        if let Some(stretch) = stretch(case)
            && controls.iter().any(&wanted)
        {
            note(controls, members.of(&case.request.scope.subjects), stretch);
        }
    }
    // Those that an administrator applied.
    for exception in snapshot.exceptions() {
        let stands = exception.state == ExceptionState::Approved
            && cases.get(exception.id.as_str()).is_none()
            && !snapshot.takes_back(exception.id.as_str());
        if stands && exception.controls.iter().any(&wanted) {
            let stretch = (exception.effective_time, exception.expire_time);
            note(
                &exception.controls,
                members.of(&exception.scope.subjects),
                stretch,
            );
        }
    }
    all
}

/// How many were excepted at `time`.
fn at(excepted: &Excepted, time: Timestamp) -> usize {
    let within = |stretches: &&Vec<Stretch>| {
        let mut stretches = stretches.iter();
        stretches.any(|(from, to)| *from <= time && time < *to)
    };
    excepted.values().filter(within).count()
}

/// The stretches of one subject between `begin` and `end`, without overlaps.
fn merged(stretches: &[Stretch], begin: Timestamp, end: Timestamp) -> Vec<Stretch> {
    let within = |(from, to): &Stretch| ((*from).max(begin), (*to).min(end));
    let mut clipped: Vec<_> = stretches.iter().map(within).collect();
    clipped.retain(|(from, to)| from < to);
    clipped.sort_unstable();
    let mut merged: Vec<Stretch> = Vec::new();
    for (from, to) in clipped {
        match merged.last_mut() {
            Some((_, reached)) if from <= *reached => *reached = to.max(*reached),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// The fewest that were excepted at any time of the last month.
fn least(excepted: &Excepted, now: Timestamp) -> usize {
    let begin = now + Span::from_micros(MONTH.micros().saturating_neg());
    let end = now + Span::from_micros(1);
    let mut steps: BTreeMap<Timestamp, isize> = BTreeMap::new();
    let mut step = |time: Timestamp, by: isize| {
        let step = steps.entry(time).or_default();
        *step = step.saturating_add(by);
    };
    for stretches in excepted.values() {
        for (from, to) in merged(stretches, begin, end) {
            step(from, 1);
            step(to, -1);
        }
    }
    let mut count = steps.remove(&begin).unwrap_or(0);
    let mut least = count;
    for by in steps.range(..end).map(|(_, by)| *by) {
        count = count.saturating_add(by);
        least = least.min(count);
    }
    usize::try_from(least).unwrap_or(0)
}

/// How many of those whom a control applies to are excepted from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Density {
    /// How many it applies to.
    pub applies: usize,
    /// How many of them are excepted now.
    pub excepted: usize,
    /// The fewest that were at any time of the last month.
    pub least: usize,
}

impl Density {
    /// Whether more than one in five were excepted all month.
    pub fn is_high(&self) -> bool {
        self.least.saturating_mul(ONE_IN) > self.applies && self.applies > 0
    }
}

/// The density of a control's exceptions, of `excepted` from it; among the subjects that `wanted`
/// holds for.
pub(super) fn density(
    control: &ControlId,
    excepted: &Excepted,
    snapshot: &Snapshot,
    now: Timestamp,
    wanted: impl Fn(&Subject) -> bool,
) -> Density {
    let gone = |subject: &Subject| {
        subject.lifecycle == Lifecycle::Retired || snapshot.removed().retires(subject)
    };
    let subjects = snapshot.subjects();
    let subjects = subjects.filter(|subject| wanted(subject) && !gone(subject));
    let applied = subjects.filter(|subject| applies(control, subject, snapshot, now));
    let applied: BTreeSet<&SubjectId> = applied.map(|subject| &subject.id).collect();
    let excepted: Excepted = excepted
        .iter()
        .filter(|(subject, _)| applied.contains(subject))
        .map(|(subject, stretches)| (subject.clone(), stretches.clone()))
        .collect();
    Density {
        applies: applied.len(),
        excepted: at(&excepted, now),
        least: least(&excepted, now),
    }
}

/// How much of the last year a subject was excepted, in thousandths, rounded up.
pub(super) fn share(stretches: &[Stretch], now: Timestamp) -> u32 {
    let year = YEAR.micros();
    let begin = now + Span::from_micros(year.saturating_neg());
    let micros = covered(stretches.to_vec(), begin, now);
    let share = micros.saturating_mul(1_000).saturating_add(year - 1) / year;
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// The exceptions from a control, granted within a year, that say the same of the same subject, if
/// there are so many that they are the rule.
fn recurring<'a>(
    control: &ControlId,
    cases: &'a Cases,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Vec<&'a Arc<Case>> {
    let since = now + Span::from_micros(YEAR.micros().saturating_neg());
    // The same words however they are spaced and capitalised.
    let folded = |words: &str| -> String {
        let words: Vec<_> = words.split_whitespace().map(str::to_lowercase).collect();
        words.join(" ")
    };
    let mut same: BTreeMap<(SubjectId, String, String), Vec<&Arc<Case>>> = BTreeMap::new();
    let mut members = Members::new(snapshot);
    let lately = |case: &&Arc<Case>| {
        let granted = case
            .granted
            .is_some_and(|granted| granted.effective > since);
        granted && case.request.controls.contains(control)
    };
    for case in cases.values().filter(lately) {
        let words = &case.request.justification;
        let words = (folded(&words.business_need), folded(&words.risk_statement));
        for subject in members.of(&case.request.scope.subjects) {
            let key = (subject.clone(), words.0.clone(), words.1.clone());
            same.entry(key).or_default().push(case);
        }
    }
    let mut most = same.into_values().max_by_key(Vec::len).unwrap_or_default();
    if most.len() < RECURS {
        return Vec::new();
    }
    most.sort_by(|a, b| a.id.cmp(&b.id));
    most
}

/// Why a control, and not another exception from it, is what is to change; in words, or nothing.
pub fn redesign(
    control: &ControlId,
    cases: &Cases,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Option<String> {
    let all = excepted(cases, snapshot, |other| other == control);
    let none = Excepted::new();
    let excepted = all.get(control).unwrap_or(&none);
    why(control, excepted, cases, snapshot, now)
}

/// The same of every control, each looked at once.
pub fn redesigns(cases: &Cases, snapshot: &Snapshot, now: Timestamp) -> Vec<(ControlId, String)> {
    let all = excepted(cases, snapshot, |_| true).into_iter();
    all.filter_map(|(control, excepted)| {
        let why = why(&control, &excepted, cases, snapshot, now)?;
        Some((control, why))
    })
    .collect()
}

fn why(
    control: &ControlId,
    excepted: &Excepted,
    cases: &Cases,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Option<String> {
    let known = snapshot.control(control)?;
    if !known.state.in_force() {
        return None;
    }
    // Most controls have none in force, and then nobody is counted.
    if least(excepted, now) > 0 {
        let density = density(control, excepted, snapshot, now, |_| true);
        if density.is_high() {
            return Some(
                "more than one in five of those it applies to were excepted at any time of the last 30 days".into(),
            );
        }
    }
    let habitual = habitual(control, cases, snapshot, now);
    if !habitual.is_empty() {
        let ids: Vec<_> = habitual.iter().map(|id| id.as_str()).collect();
        return Some(format!(
            "it was overridden in a domain with {} overrides within 30 days, which is no emergency any more: {}",
            ids.len(),
            ids.join(", ")
        ));
    }
    let same = recurring(control, cases, snapshot, now);
    let ids: Vec<_> = same.iter().map(|case| case.id.as_str()).collect();
    (!ids.is_empty()).then(|| {
        format!(
            "the same was granted {} times within a year, in the same words: {}",
            ids.len(),
            ids.join(", ")
        )
    })
}
