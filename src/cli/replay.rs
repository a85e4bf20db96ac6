//! `exeat replay`: what a new bundle would newly deny or allow, of what was decided before.
//!
//! The decision log leaves out what callers said beside names, unless a setting lists it. A question
//! whose answer may hang on what was left out is not answered a second time: it cannot be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::{
    domain::{Decision, Now, Question, Reason, Span, SubjectId, Timestamp},
    engine::{Snapshot, decide},
    manifest::Bundle,
    runtime::clock::Clock,
    sidecar::earlier_log,
    wire::{question, v1},
};

use super::{
    args::{Output, Replay},
    ask::fields,
    lint::invalid,
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
};

/// Most files of one log; no more can be set.
const MOST: usize = 1_000;

/// A decision as it was logged.
#[derive(Debug, Deserialize)]
struct Logged {
    #[serde(rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    missed: Option<u64>,
    #[serde(flatten)]
    made: Option<Made>,
}

#[derive(Debug, Deserialize)]
struct Made {
    time: String,
    id: String,
    outcome: String,
    reasons: Vec<String>,
    subject: String,
    action: String,
    resource_type: String,
    resource: String,
    purpose: Option<String>,
    actor_kind: Option<String>,
    #[serde(default)]
    observed: BTreeMap<String, String>,
    #[serde(default)]
    context: Map<String, Json>,
    #[serde(default)]
    properties: Map<String, Json>,
    #[serde(default)]
    masked: Vec<String>,
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    NewlyDenied,
    NewlyAllowed,
    /// Allowed before and now, but by an exception only now.
    NeedsException,
    /// Allowed before and now, but by an exception only before.
    NeedsNoException,
    Untold,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::NewlyDenied => "newly denied",
            Self::NewlyAllowed => "newly allowed",
            Self::NeedsException => "needs an exception",
            Self::NeedsNoException => "needs no exception",
            Self::Untold => "cannot be told",
        }
    }

    fn mark(self) -> String {
        match self {
            Self::NewlyDenied | Self::NeedsException => styled(BAD, "✗"),
            Self::NewlyAllowed | Self::NeedsNoException => styled(GOOD, "✓"),
            Self::Untold => styled(DIM, "?"),
        }
    }
}

/// Decisions that changed alike.
#[derive(Debug)]
struct Alike {
    count: u64,
    first: String,
}

/// Who, what, and why now: of decisions that changed alike.
type Group = (Change, String, String, String);

#[derive(Debug, Default)]
struct Replayed {
    decisions: u64,
    same: u64,
    missed: u64,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    groups: BTreeMap<Group, Alike>,
}

pub(super) fn replay(args: &Replay, clock: &Clock, screen: &mut Screen) -> Result<Exit, Exit> {
    let now = clock.now().latest;
    let since = since(&args.since, now)?;
    let snapshot = Bundle::read(&args.against)
        .and_then(|bundle| bundle.snapshot(1))
        .map_err(|problems| invalid(&problems))?;
    let read = Words::of(&snapshot);
    let mut replayed = Replayed::default();
    for file in files(&args.log)? {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Exit::Invalid(format!("{}: {error}", file.display())))?;
        for (at, line) in text.split_inclusive('\n').enumerate() {
            // The last may still be being written.
            let Some(line) = line.strip_suffix('\n') else {
                continue;
            };
            let place = || format!("{}:{}", file.display(), at.saturating_add(1));
            let logged =
                logged(line).map_err(|why| Exit::Invalid(format!("{}: {why}", place())))?;
            replayed.missed = replayed.missed.saturating_add(logged.missed.unwrap_or(0));
            let Some(made) = logged.made else { continue };
            let time = Timestamp::parse(&made.time)
                .map_err(|error| Exit::Invalid(format!("{}: time: {error}", place())))?;
            if time < since {
                continue;
            }
            let asked = asked(&made).map_err(|why| Exit::Invalid(format!("{}: {why}", place())))?;
            replayed.add(&made, time, &asked, &snapshot, &read);
        }
    }
    tell(args, &replayed, &snapshot, screen)?;
    Ok(if replayed.groups.is_empty() {
        Exit::Done
    } else {
        Exit::No
    })
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp, Exit> {
    let wrong = || {
        Exit::Usage(format!(
            "--since: `{text}` is neither a length of time, such as `24h`, nor a time"
        ))
    };
    match Span::parse(text) {
        Ok(span) => now.checked_sub(span).ok_or_else(wrong),
        Err(_) => Timestamp::parse(text).map_err(|_| wrong()),
    }
}

/// A log's files, the oldest first.
fn files(log: &Path) -> Result<Vec<PathBuf>, Exit> {
    let mut files: Vec<PathBuf> = (1..=MOST)
        .map(|n| earlier_log(log, n))
        .take_while(|path| matches!(path.try_exists(), Ok(true)))
        .collect();
    files.reverse();
    if !matches!(log.try_exists(), Ok(true)) && files.is_empty() {
        return Err(Exit::Invalid(format!(
            "{}: there is no such file; a sidecar writes one with `decision_log: FILE`",
            log.display()
        )));
    }
    files.push(log.to_owned());
    Ok(files)
}

fn logged(line: &str) -> Result<Logged, String> {
    let logged: Logged =
        serde_json::from_str(line).map_err(|error| format!("is no logged decision: {error}"))?;
    if logged.api_version != "exeat/v1" {
        return Err(format!(
            "apiVersion: `{}` is not exeat/v1; replay it with the version that wrote it",
            logged.api_version
        ));
    }
    if logged.made.is_none() && logged.missed.is_none() {
        return Err("is no logged decision: a field is missing; use the files of `decision_log` as they were written".into());
    }
    Ok(logged)
}

/// The question as far as it was logged.
fn asked(made: &Made) -> Result<Question, String> {
    let mut context = made.context.clone();
    for (name, said) in [("purpose", &made.purpose), ("actor_kind", &made.actor_kind)] {
        if let Some(said) = said {
            context.insert(name.into(), said.as_str().into());
        }
    }
    let request = v1::CheckRequest {
        subject: made.subject.clone(),
        action: made.action.clone(),
        resource: Some(v1::Resource {
            r#type: made.resource_type.clone(),
            id: made.resource.clone(),
            properties: Some(fields(made.properties.clone())),
        }),
        context: Some(fields(context)),
        observed: made.observed.clone().into_iter().collect(),
        ..v1::CheckRequest::default()
    };
    let subject = SubjectId::parse(&made.subject).map_err(|e| e.under("subject").to_string())?;
    question(request, subject).map_err(|error| error.to_string())
}

/// The words in a bundle's conditions: what a condition reads by name is among them.
#[derive(Debug)]
struct Words {
    all: BTreeSet<String>,
    /// Whether some condition may read what it does not name.
    any: bool,
}

impl Words {
    fn of(snapshot: &Snapshot) -> Self {
        let mut texts: Vec<&str> = Vec::new();
        for control in snapshot.controls() {
            texts.push(&control.failure_condition);
            texts.extend(control.applies_to.condition.as_deref());
        }
        for exception in snapshot.exceptions() {
            texts.extend(exception.scope.match_condition.as_deref());
            let conditions = exception.compensating_conditions.iter();
            texts.extend(conditions.map(AsRef::as_ref));
        }
        let word = |c: char| !(c.is_alphanumeric() || c == '_');
        let mut all = BTreeSet::new();
        let mut any = false;
        for text in texts {
            all.extend(text.split(word).map(str::to_owned));
            // By a name that is computed, or all of them in turn.
            for whole in ["context", "properties"] {
                let mut uses = text.match_indices(whole);
                any |= uses.any(|(at, found)| {
                    let rest = text.get(at.saturating_add(found.len())..);
                    let rest = rest.unwrap_or_default().trim_start();
                    let named = rest.strip_prefix('.').map(str::trim_start);
                    let loops = ["all(", "exists(", "exists_one(", "map(", "filter(", "size("];
                    named.is_none_or(|rest| loops.iter().any(|it| rest.starts_with(it)))
                });
            }
        }
        Self { all, any }
    }

    /// What was left out that a condition may read.
    fn read<'a>(&self, masked: &'a [String]) -> Option<&'a str> {
        masked.iter().map(String::as_str).find(|path| {
            let name = path.split_once('.').map_or(*path, |(_, name)| name);
            self.any || self.all.contains(name)
        })
    }
}

/// Reasons that lay in the sidecar's own state then, and not in what was asked or governed.
const PASSING: [Reason; 5] = [
    Reason::SnapshotStale,
    Reason::ClockSkew,
    Reason::ExcBudgetExhausted,
    Reason::ExcLeaseLapsed,
    Reason::ExcEvidenceUnavailable,
];

impl Replayed {
    fn add(
        &mut self,
        made: &Made,
        time: Timestamp,
        asked: &Question,
        snapshot: &Snapshot,
        read: &Words,
    ) {
        self.decisions = self.decisions.saturating_add(1);
        self.from = Some(self.from.map_or(time, |from| from.min(time)));
        self.until = Some(self.until.map_or(time, |until| until.max(time)));
        let Some((change, why)) = change(made, time, asked, snapshot, read) else {
            self.same = self.same.saturating_add(1);
            return;
        };
        let what = format!("{} {}", made.action, made.resource);
        let alike = self
            .groups
            .entry((change, made.subject.clone(), what, why))
            .or_insert_with(|| Alike {
                count: 0,
                first: made.id.clone(),
            });
        alike.count = alike.count.saturating_add(1);
    }
}

/// How a decision would be another, and why; nothing if it would not.
fn change(
    made: &Made,
    time: Timestamp,
    asked: &Question,
    snapshot: &Snapshot,
    read: &Words,
) -> Option<(Change, String)> {
    if let Some(path) = read.read(&made.masked) {
        let why = format!("the log leaves out {path}, which a condition may read");
        return Some((Change::Untold, why));
    }
    let passing = |reason: &String| PASSING.iter().any(|it| it.name() == reason);
    if let Some(reason) = made.reasons.iter().find(|reason| passing(reason)) {
        let why = format!("it was {reason}, which lay in the sidecar's state");
        return Some((Change::Untold, why));
    }
    if snapshot.subject(asked.subject.as_str()).is_none() {
        let why = "the subject is not in the bundle".to_owned();
        return Some((Change::Untold, why));
    }
    let new = decide(asked, snapshot, Now::exactly(time));
    let before = made.outcome.as_str();
    let change = match (before, new.outcome.name()) {
        (before, now) if before == now => return None,
        (_, "deny") => Change::NewlyDenied,
        ("deny", _) => Change::NewlyAllowed,
        ("allow", _) => Change::NeedsException,
        (_, _) => Change::NeedsNoException,
    };
    Some((change, ground(&new)))
}

/// Why a decision is what it is, in codes and ids.
fn ground(decision: &Decision) -> String {
    let reasons = decision
        .reasons
        .iter()
        .map(|reason| reason.name().to_owned());
    let failed = decision.failed.iter().filter(|failed| failed.blocks());
    let controls = failed.map(|failed| failed.control.id.to_string());
    let exceptions = decision.relied_on().map(|it| it.id.to_string());
    let words: Vec<_> = reasons.chain(controls).chain(exceptions).collect();
    words.join(" ")
}

fn tell(
    args: &Replay,
    replayed: &Replayed,
    snapshot: &Snapshot,
    screen: &mut Screen,
) -> Result<(), Exit> {
    let written = |time: Option<Timestamp>| time.map(|time| time.to_string());
    match args.output {
        Output::Json => {
            let groups = replayed.groups.iter();
            let changes = groups.map(|((change, subject, what, why), alike)| {
                json!({"change": change.name(), "subject": subject, "what": what, "why": why, "count": alike.count, "first": alike.first})
            });
            let told = json!({
                "apiVersion": "exeat/v1",
                "decisions": replayed.decisions,
                "same": replayed.same,
                "missed": replayed.missed,
                "from": written(replayed.from),
                "until": written(replayed.until),
                "against": snapshot.digest().to_string(),
                "changes": changes.collect::<Json>(),
            });
            screen.say(&told.to_string())?;
        }
        Output::Table => {
            let span = match (written(replayed.from), written(replayed.until)) {
                (Some(from), Some(until)) => format!(" from {from} to {until}"),
                (None, _) | (_, None) => String::new(),
            };
            screen.say(&format!(
                "{} decisions{span}, against {}",
                replayed.decisions,
                args.against.display()
            ))?;
            if replayed.missed > 0 {
                let missed = format!("{} were not logged", replayed.missed);
                screen.say(&styled(DIM, &missed))?;
            }
            screen.say(&format!("{} stay as they are", replayed.same))?;
            for ((change, subject, what, why), alike) in &replayed.groups {
                screen.say(&format!(
                    "{} {:>6} {}  {subject}  {what}  {why}  {}",
                    change.mark(),
                    alike.count,
                    change.name(),
                    styled(DIM, &format!("first {}", alike.first))
                ))?;
            }
        }
        Output::Junit => return Err(Exit::Usage("junit is for `exeat test`".into())),
    }
    Ok(())
}
