//! Controls that run by themselves: when they are due, over everybody, and what they find.

use std::{collections::HashMap, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        Control, ControlId, Fault, Finding, Kind, Name, Run, Schedule, Span, SubjectId, Timestamp,
        remedy_within,
    },
    engine::{
        Change,
        rounds::{
            MISSED, REDESIGN, Seen, covering, found, is_about_a_control, is_there, round,
            runs_by_itself,
        },
        schedule::{due, jitter},
        sprawl::redesigns,
    },
    manifest::read_json,
    runtime::simulated::aside,
};

use super::{
    beat::Beat,
    core::{Draft, Error, Planned, Registry},
    ledger::bare,
    shifts,
    store::{StoreError, Stored},
    uncovered::put_findings,
    view::View,
    workflow::Refused,
};

/// How often it is looked where exceptions are the rule.
const HOUR: Span = Span::from_hours(1);
/// For how long a run that is due may be tried again before that is a finding.
const OVERDUE: Span = Span::from_secs(600);
/// How many edits back it is looked since when a schedule is what it is.
const EDITS: usize = 100;
/// In whose name.
const SYSTEM: &str = "service:registry";

/// How a control's run went.
#[derive(Debug)]
pub(super) struct Ran {
    /// What is kept of it.
    pub run: Run,
    /// What is found that was not, or is no more.
    pub changed: Vec<Finding>,
    /// On how old evidence.
    pub seen: Vec<Seen>,
}

/// The times of all controls that run by themselves.
#[derive(Debug, Default)]
struct Timetable {
    /// When each was last due and was run.
    last: HashMap<ControlId, Timestamp>,
    /// The schedule of each, and since when it is that: what else of a control is edited moves no run.
    since: HashMap<ControlId, (Schedule, Timestamp)>,
    /// When each is to run.
    next: HashMap<ControlId, Timestamp>,
}

impl Timetable {
    /// Takes in what controls there are.
    fn read(&mut self, view: &View) {
        let (mut next, mut since) = (HashMap::new(), HashMap::new());
        for control in view.snapshot.controls() {
            let Some(schedule) = control.schedule.as_ref() else {
                continue;
            };
            if !runs_by_itself(&control.id, &view.snapshot) {
                continue;
            }
            let same = self.since.get(&control.id);
            let same = same.filter(|(known, _)| known == schedule);
            let began = same.map_or_else(
                || {
                    let name = Name::new(Kind::Control, control.id.as_str());
                    let stored = view.objects.get(&name);
                    stored.map_or(view.time, |stored| stored.time)
                },
                |(_, since)| *since,
            );
            let known = self.next.get(&control.id).filter(|_| same.is_some());
            since.insert(control.id.clone(), (schedule.clone(), began));
            if let Some(known) = known {
                next.insert(control.id.clone(), *known);
                continue;
            }
            // What it was due by before its schedule changed is over.
            let last = self.last.get(&control.id);
            let last = last.map_or(began, |last| began.max(*last));
            if let Some((time, _)) = due(&control.id, schedule, last, last) {
                let time = time + jitter(&control.id, schedule);
                next.insert(control.id.clone(), time);
            }
        }
        (self.next, self.since) = (next, since);
    }

    /// The controls that are due, in the order in which they are.
    fn due(&self, now: Timestamp) -> Vec<ControlId> {
        let mut due: Vec<_> = self.next.iter().filter(|(_, next)| **next <= now).collect();
        due.sort_by(|(a, first), (b, second)| (*first, *a).cmp(&(*second, *b)));
        due.into_iter().map(|(id, _)| id.clone()).collect()
    }

    fn ran(&mut self, control: &ControlId, time: Timestamp) {
        self.last.insert(control.clone(), time);
        // Read anew from there.
        self.next.remove(control);
    }
}

/// Findings in a transaction.
fn with_findings(view: &View, draft: Draft, findings: Vec<Finding>, action: &str) -> Planned {
    let mut planned = bare(view, draft, SYSTEM, action);
    put_findings(view, findings, &mut planned);
    planned
}

/// Says in the log what is found.
fn tell(finding: &Finding) {
    tracing::warn!(control = %finding.control, subject = %finding.subject, severity = ?finding.severity, owner = %finding.owner, due = %finding.due, message = &*finding.message, "a finding");
}

/// The finding on a control's owner that its runs were missed, or that one is due and cannot be done:
/// seen from when it was due.
fn overdue(view: &View, control: &ControlId, due: Timestamp, why: &str) -> Option<Finding> {
    let known = view.snapshot.control(control)?;
    Some(Finding {
        control: ControlId::parse(MISSED).ok()?,
        control_revision: known.revision,
        subject: SubjectId::parse(control.as_str()).ok()?,
        fault: Fault::CannotTell,
        message: why.into(),
        severity: known.severity,
        owner: known.owner.clone(),
        first_seen: due,
        due: due + remedy_within(known.severity),
        satisfied: None,
        covered: false,
        told: None,
        remedy: None,
    })
}

/// The finding that runs were missed, which one run catches up: open until that is kept. Nothing where
/// it is open already, or was ended by a run since then.
fn missed(view: &View, run: &Run, now: Timestamp) -> Option<Finding> {
    let due = run.due.filter(|_| run.missed >= 2)?;
    let over = |known: &Arc<Finding>| known.satisfied.is_none_or(|over| over >= due);
    if overdue_of(view, &run.control).is_some_and(over) {
        return None;
    }
    let (control, missed) = (&run.control, run.missed);
    let why = format!(
        "{missed} runs of {control} were missed before {due}; one makes up for them, and if it cannot be done the registry's log says why"
    );
    Some(Finding {
        told: Some(now),
        ..overdue(view, control, due, &why)?
    })
}

/// The finding that a control's run is overdue, open or over.
fn overdue_of<'v>(view: &'v View, control: &ControlId) -> Option<&'v Arc<Finding>> {
    let key = Finding::key(
        &ControlId::parse(MISSED).ok()?,
        &SubjectId::parse(control.as_str()).ok()?,
    );
    view.findings.get(&key)
}

/// That finding, while it is open.
fn known_overdue(view: &View, control: &ControlId) -> Option<Arc<Finding>> {
    let open = |known: &&Arc<Finding>| known.satisfied.is_none();
    overdue_of(view, control).filter(open).cloned()
}

/// The finding on a control's owner that exceptions from it are the rule.
fn to_be_redesigned(
    view: &View,
    control: &ControlId,
    why: String,
    now: Timestamp,
) -> Option<Finding> {
    let known = view.snapshot.control(control)?;
    Some(Finding {
        control: ControlId::parse(REDESIGN).ok()?,
        control_revision: known.revision,
        subject: SubjectId::parse(control.as_str()).ok()?,
        fault: Fault::Fails,
        message: why.into(),
        severity: known.severity,
        owner: known.owner.clone(),
        first_seen: now,
        due: now + remedy_within(known.severity),
        satisfied: None,
        covered: false,
        told: Some(now),
        remedy: None,
    })
}

impl Registry {
    /// Runs a control over everybody, keeps how it went, and what it found where that changes;
    /// tells both. With `dry_run` nothing is kept.
    ///
    /// # Errors
    ///
    /// A control that does not run by itself, or a store that fails.
    pub(super) async fn run_control(
        &self,
        control: &ControlId,
        due: Option<(Timestamp, u64)>,
        dry_run: bool,
    ) -> Result<Ran, Refused> {
        let view = self.view();
        let now = self.clock.now().latest;
        let began = self.clock.elapsed();
        let (id, at) = (control.clone(), Arc::clone(&view));
        let uses = Arc::clone(&self.uses);
        let said = aside(move || {
            let figures = |id: &str| uses.of(id, now, None);
            round(&id, &at.snapshot, &at.cases, &figures, now)
        })
        .await
        .map_err(|why| Refused::Failed(Error::Unfit(why)))?;
        let mut said = said.ok_or_else(|| {
            if view.snapshot.control(control).is_none() {
                Refused::NotFound(format!("there is no control `{control}`"))
            } else {
                Refused::Precondition(format!(
                    "`{control}` does not run by itself: it is not in force, has no schedule, or reads a request"
                ))
            }
        })?;
        let shifts = self.shifts(control, &said, &view).await;
        let shifts = shifts.map_err(Error::Store)?;
        shifts::name(&shifts, &mut said);
        let seen = std::mem::take(&mut said.seen);
        let took = self.clock.elapsed().saturating_sub(began);
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let failed = said
            .faults
            .iter()
            .filter(|(_, fault, _)| *fault == Fault::Fails);
        let failed = count(failed.count());
        let run = Run {
            control: control.clone(),
            control_revision: view
                .snapshot
                .control(control)
                .map_or(0, |known| known.revision),
            due: due.map(|(due, _)| due),
            time: now,
            revision: view.head.revision,
            passed: said.passed,
            failed,
            untold: count(said.faults.len()).saturating_sub(failed),
            elsewhere: said.elsewhere,
            took,
            missed: due.map_or(0, |(_, missed)| missed),
        };
        let compare = |view: &View, said: &crate::engine::rounds::Round, now: Timestamp| {
            let of = view.findings.values();
            let of: Vec<_> = of
                .filter(|known| known.control == *control)
                .cloned()
                .collect();
            let covered =
                |subject: &SubjectId| covering(control, subject, &view.snapshot, now).is_some();
            found(control, said, &of, &view.snapshot, covered, now)
        };
        if dry_run {
            let changed = compare(&view, &said, now);
            return Ok(Ran { run, changed, seen });
        }
        let (mut changed, at) = self
            .write(|view, draft| {
                // What it was worked out from may have changed: then it is worked out anew.
                let same = view.head.revision == run.revision;
                let now = draft.time;
                let figures = |id: &str| self.uses.of(id, now, None);
                let anew = || round(control, &view.snapshot, &view.cases, &figures, now);
                let anew = || {
                    let mut said = anew()?;
                    shifts::name(&shifts, &mut said);
                    Some(said)
                };
                let Some(said) = (if same { Some(said) } else { anew() }) else {
                    return Ok((None, (Vec::new(), now)));
                };
                let mut changed = compare(view, &said, now);
                changed.extend(missed(view, &run, now));
                if changed.is_empty() {
                    return Ok((None, (changed, now)));
                }
                let planned = with_findings(view, draft, changed.clone(), "control run");
                Ok((Some(planned), (changed, now)))
            })
            .await?;
        let fresh = |finding: &&Finding| finding.told == Some(at);
        changed.iter().filter(fresh).for_each(tell);
        self.store.keep_run(&run).await.map_err(Error::Store)?;
        // Not before: a run that is not kept is done again, and overdue until then.
        let over = self
            .write(|view, draft| {
                let over = known_overdue(view, control).map(|known| Finding {
                    satisfied: Some(draft.time),
                    ..(*known).clone()
                });
                let planned = over
                    .clone()
                    .map(|over| with_findings(view, draft, vec![over], "control run"));
                Ok((planned, over))
            })
            .await?;
        if let Some(over) = over {
            changed.retain(|found| found.control != over.control);
            changed.push(over);
        }
        self.witness.ran(&run);
        Ok(Ran { run, changed, seen })
    }

    /// Finds, on a control's owner, that its run is due and cannot be done: once it is for so long that
    /// trying again has not helped.
    async fn not_run(
        &self,
        control: &ControlId,
        (due, missed): (Timestamp, u64),
    ) -> Result<(), Refused> {
        self.write(|view, draft| {
            let late = missed >= 2 || draft.time - due >= OVERDUE;
            if !late || known_overdue(view, control).is_some() {
                return Ok((None, ()));
            }
            let why = format!(
                "a run of {control} was due at {due} and cannot be done; the registry's log says why"
            );
            let Some(found) = overdue(view, control, due, &why) else {
                return Ok((None, ()));
            };
            let found = Finding {
                told: Some(draft.time),
                ..found
            };
            tell(&found);
            let planned = with_findings(view, draft, vec![found], "control run");
            Ok((Some(planned), ()))
        })
        .await
    }

    /// Finds the controls from which exceptions are the rule, on their owners; and ends that where
    /// they no longer are.
    async fn sprawl(&self) -> Result<(), Refused> {
        let changed = |view: &View, now: Timestamp| -> Vec<Finding> {
            let why = redesigns(&view.cases, &view.snapshot, now);
            let known = view.findings.values();
            let mut known: HashMap<_, _> = known
                .filter(|known| known.control.as_str() == REDESIGN && known.satisfied.is_none())
                .map(|known| (known.subject.as_str().to_owned(), known))
                .collect();
            let mut changed = Vec::new();
            for (control, why) in why {
                let Some(found) = to_be_redesigned(view, &control, why, now) else {
                    continue;
                };
                match known.remove(control.as_str()) {
                    None => changed.push(found),
                    Some(known) => {
                        let found = Finding {
                            first_seen: known.first_seen,
                            due: known.due,
                            told: known.told,
                            remedy: known.remedy.clone(),
                            ..found
                        };
                        changed.extend((found != **known).then_some(found));
                    }
                }
            }
            changed.extend(known.into_values().map(|known| Finding {
                satisfied: Some(now),
                ..(**known).clone()
            }));
            changed
        };
        let (view, now) = (self.view(), self.clock.now().latest);
        // Aside, since every case is looked at; and nobody's turn is taken to find nothing.
        let first = aside(move || changed(&view, now)).await;
        let first = first.map_err(|why| Refused::Failed(Error::Unfit(why)))?;
        if first.is_empty() {
            return Ok(());
        }
        let found = self
            .write(|view, draft| {
                let found = changed(view, draft.time);
                if found.is_empty() {
                    return Ok((None, found));
                }
                let planned = with_findings(view, draft, found.clone(), "control redesign");
                Ok((Some(planned), found))
            })
            .await?;
        let fresh = |finding: &&Finding| {
            finding.satisfied.is_none() && finding.told == Some(finding.first_seen)
        };
        for finding in found.iter().filter(fresh) {
            tracing::warn!(control = %finding.subject, owner = %finding.owner, message = &*finding.message, "a control is to be redesigned");
        }
        Ok(())
    }

    /// Ends findings whose control or subject is no more; and those of an overdue run that was kept after
    /// all, before the process ended.
    async fn tidy(&self, timetable: &Timetable) -> Result<(), Refused> {
        let ran = |finding: &Finding| {
            let last = timetable.last.iter();
            finding.control.as_str() == MISSED
                && last
                    .filter(|(control, _)| control.as_str() == finding.subject.as_str())
                    .any(|(_, last)| *last >= finding.first_seen)
        };
        let stale = |view: &View, finding: &Finding| {
            finding.satisfied.is_none()
                && (ran(finding)
                    || !is_there(&finding.control, &finding.subject, &view.snapshot)
                    || !(is_about_a_control(&finding.control)
                        || runs_by_itself(&finding.control, &view.snapshot)))
        };
        let view = self.view();
        if !view.findings.values().any(|finding| stale(&view, finding)) {
            return Ok(());
        }
        self.write(|view, draft| {
            let ended: Vec<_> = view
                .findings
                .values()
                .filter(|finding| stale(view, finding))
                .map(|finding| Finding {
                    satisfied: Some(draft.time),
                    covered: false,
                    ..(**finding).clone()
                })
                .collect();
            if ended.is_empty() {
                return Ok((None, ()));
            }
            Ok((
                Some(with_findings(view, draft, ended, "control retire")),
                (),
            ))
        })
        .await
    }

    /// Runs everything that is due.
    async fn rounds(&self, timetable: &mut Timetable) -> Result<(), Refused> {
        let mut failed = Ok(());
        for control in timetable.due(self.clock.now().latest) {
            let view = self.view();
            let Some(known) = view.snapshot.control(&control) else {
                continue;
            };
            let Some(schedule) = &known.schedule else {
                continue;
            };
            let Some((_, since)) = timetable.since.get(&control) else {
                continue;
            };
            let last = timetable.last.get(&control);
            let last = last.map_or(*since, |last| *since.max(last));
            let now = self.clock.now().latest;
            let Some((time, missed)) = due(&control, schedule, last, now) else {
                continue;
            };
            match self
                .run_control(&control, Some((time, missed)), false)
                .await
            {
                // One that no longer runs by itself is not waited for.
                Ok(_) | Err(Refused::Precondition(_) | Refused::NotFound(_)) => {
                    timetable.ran(&control, time);
                }
                // The others do not wait for it.
                Err(refused) => {
                    failed = Err(refused);
                    if let Err(refused) = self.not_run(&control, (time, missed)).await {
                        tracing::error!(?refused, %control, "that it is overdue cannot be kept");
                    }
                }
            }
        }
        failed
    }
}

/// Since when each control that runs by itself has the schedule it has: what else of it was edited since
/// then moves no run, also over a restart.
async fn since(
    registry: &Registry,
) -> Result<HashMap<ControlId, (Schedule, Timestamp)>, StoreError> {
    let view = registry.view();
    let mut since = HashMap::new();
    for control in view.snapshot.controls() {
        let Some(schedule) = &control.schedule else {
            continue;
        };
        let name = Name::new(Kind::Control, control.id.as_str());
        let was = registry.store.history(&name, u64::MAX, EDITS).await?;
        let same = |stored: &Stored| {
            let manifest = stored.manifest.as_deref()?;
            let Ok(Change::PutControl(was)) = read_json(Kind::Control, 1, manifest) else {
                return None;
            };
            let asks = |of: &Control| {
                ["request.", "resource."].map(|root| of.failure_condition.contains(root))
            };
            let same = was.schedule.as_ref() == Some(schedule)
                && was.state.in_force()
                && asks(&was) == asks(control);
            same.then_some(stored.time)
        };
        if let Some(began) = was.iter().map_while(same).last() {
            since.insert(control.id.clone(), (schedule.clone(), began));
        }
    }
    Ok(since)
}

/// Runs controls when they are due, until stopped.
pub(super) async fn scheduled(
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> Result<(), String> {
    let last = registry
        .store
        .last_due()
        .await
        .map_err(|error| error.to_string())?;
    let mut timetable = Timetable {
        last: last.into_iter().collect(),
        since: since(&registry).await.map_err(|error| error.to_string())?,
        ..Timetable::default()
    };
    let mut beat = Beat::new(&registry, &stop);
    let mut looked = None;
    loop {
        let now = registry.clock.now().latest;
        // It takes a month to come about.
        if looked.is_none_or(|at| now - at >= HOUR) {
            looked = Some(now);
            if let Err(refused) = registry.sprawl().await {
                tracing::error!(?refused, "it cannot be told which controls are to change");
                looked = None;
                beat.failed();
            }
        }
        let due = timetable.next.values().any(|next| *next <= now);
        if beat.looks(due) {
            timetable.read(&registry.view());
            let ran = registry.rounds(&mut timetable).await;
            let done = registry.tidy(&timetable).await.and(ran);
            timetable.read(&registry.view());
            if let Err(refused) = done {
                tracing::error!(?refused, "controls cannot be run; they are caught up");
                beat.failed();
            }
        }
        if !beat.next().await {
            return Ok(());
        }
    }
}
