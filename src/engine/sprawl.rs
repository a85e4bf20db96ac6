//! Exceptions that are the rule: where so many are in force, or the same is asked for so often, that
//! the control is what is to change (governance §9, R42, R44).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::domain::{
    Case, ControlId, ExceptionState, Selector, Span, Subject, SubjectId, Timestamp,
};

use super::{
    Snapshot,
    coverage::{Cases, Stretch, YEAR, covered},
    parties::scoped,
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

/// When which subjects were excepted from which control, whatever exceptions it was.
pub(super) fn excepted(cases: &Cases, snapshot: &Snapshot) -> BTreeMap<ControlId, Excepted> {
    let mut all: BTreeMap<ControlId, Excepted> = BTreeMap::new();
    let mut note = |controls: &[ControlId], subjects: &[SubjectId], stretch: Stretch| {
        for control in controls {
            let of = all.entry(control.clone()).or_default();
            for subject in subjects {
                of.entry(subject.clone()).or_default().push(stretch);
            }
        }
    };
    for case in cases.values() {
        let granted = case
            .granted
            .and_then(|granted| case.window(granted.effective));
        if let Some(stretch) = granted {
            let subjects: Vec<_> = scoped(snapshot, &case.request)
                .map(|subject| subject.id.clone())
                .collect();
            note(&case.request.controls, &subjects, stretch);
        }
    }
    // Those that an administrator applied.
    for exception in snapshot.exceptions() {
        let state = matches!(
            exception.state,
            ExceptionState::Approved | ExceptionState::Suspended
        );
        if state && cases.get(exception.id.as_str()).is_none() {
            let stretch = (exception.effective_time, exception.expire_time);
            note(
                &exception.controls,
                &named(&exception.scope.subjects, snapshot),
                stretch,
            );
        }
    }
    all
}

/// The subjects that a selector names.
fn named(selector: &Selector, snapshot: &Snapshot) -> Vec<SubjectId> {
    match selector {
        Selector::Ids(ids) => ids.to_vec(),
        Selector::Classes(classes) => {
            let of = |subject: &&Arc<Subject>| {
                let class = subject.class.as_ref();
                class.is_some_and(|class| classes.contains(class))
                    || classes
                        .iter()
                        .any(|class| class.as_str() == subject.id.as_str())
            };
            let subjects = snapshot.subjects().filter(of);
            subjects.map(|subject| subject.id.clone()).collect()
        }
    }
}

/// How many were excepted at `time`.
fn at(excepted: &Excepted, time: Timestamp) -> usize {
    let within = |stretches: &&Vec<Stretch>| {
        let mut stretches = stretches.iter();
        stretches.any(|(from, to)| *from <= time && time < *to)
    };
    excepted.values().filter(within).count()
}

/// The fewest that were excepted at any time of the last month.
fn least(excepted: &Excepted, now: Timestamp) -> usize {
    let begin = now + Span::from_micros(MONTH.micros().saturating_neg());
    // Fewer there are only where a stretch ends.
    let ends = excepted.values().flatten().map(|(_, to)| *to);
    let times = ends.filter(|end| begin < *end && *end <= now);
    let times = times.chain([begin, now]);
    times.map(|time| at(excepted, time)).min().unwrap_or(0)
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
    let subjects = snapshot.subjects().filter(|subject| wanted(subject));
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
    let mut same: BTreeMap<(SubjectId, &str, &str), Vec<&Arc<Case>>> = BTreeMap::new();
    let lately = |case: &&Arc<Case>| {
        let granted = case
            .granted
            .is_some_and(|granted| granted.effective > since);
        granted && case.request.controls.contains(control)
    };
    for case in cases.values().filter(lately) {
        let words = &case.request.justification;
        for subject in scoped(snapshot, &case.request) {
            let key = (
                subject.id.clone(),
                &*words.business_need,
                &*words.risk_statement,
            );
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
    let all = excepted(cases, snapshot);
    why(control, all.get(control)?, cases, snapshot, now)
}

/// The same of every control, each looked at once.
pub fn redesigns(cases: &Cases, snapshot: &Snapshot, now: Timestamp) -> Vec<(ControlId, String)> {
    let all = excepted(cases, snapshot).into_iter();
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
            let Density { applies, least, .. } = density;
            return Some(format!(
                "{least} or more of the {applies} it applies to were excepted at any time of the last 30 days"
            ));
        }
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
