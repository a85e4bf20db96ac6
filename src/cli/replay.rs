//! `exeat replay`: what a new bundle would newly deny or allow, of what was decided before.
//!
//! Every question is asked again, now, of the bundle. The decision log leaves out what callers said
//! beside names, unless a setting lists it; a question whose answer may hang on that, or on what a
//! registry alone knows, is not answered a second time: it cannot be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::{
    domain::{Decision, Now, Question, Reason, Span, SubjectId, Timestamp},
    engine::{Snapshot, as_seen, decide},
    manifest::Bundle,
    runtime::clock::Clock,
    sidecar::earlier_log,
    wire::{json::fields, question, v1},
};

use super::{
    args::{Output, Replay},
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
    #[serde(default)]
    exceptions: Vec<Considered>,
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

/// An exception that was considered.
#[derive(Debug, Deserialize)]
struct Considered {
    id: String,
    effect: String,
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
    /// Lines that cannot be read, and where the first is.
    torn: u64,
    first_torn: Option<String>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    groups: BTreeMap<Group, Alike>,
}

pub(super) fn replay(args: &Replay, clock: &Clock, screen: &mut Screen) -> Result<Exit, Exit> {
    let now = match &args.now {
        Some(text) => Now::exactly(
            Timestamp::parse(text).map_err(|error| Exit::Usage(format!("--now: {error}")))?,
        ),
        None => clock.now(),
    };
    let since = since(&args.since, now.latest)?;
    let snapshot = Bundle::read(&args.against)
        .and_then(|bundle| bundle.snapshot(1))
        .map_err(|problems| invalid(&problems))?;
    let against = Against {
        reads: Reads::of(&snapshot),
        snapshot,
        now,
    };
    let mut replayed = Replayed::default();
    for file in files(&args.log)? {
        let unreadable =
            |error: std::io::Error| Exit::Invalid(format!("{}: {error}", file.display()));
        let mut lines = BufReader::new(File::open(&file).map_err(unreadable)?);
        let (mut at, mut line) = (0_u64, Vec::new());
        loop {
            line.clear();
            lines.read_until(b'\n', &mut line).map_err(unreadable)?;
            // What has no end is still being written, or there is nothing more.
            if line.pop() != Some(b'\n') {
                break;
            }
            at = at.saturating_add(1);
            let place = || format!("{}:{at}", file.display());
            // One that a crash cut short is told and passed over.
            let Ok(json) = serde_json::from_slice::<Json>(&line) else {
                replayed.torn = replayed.torn.saturating_add(1);
                replayed.first_torn.get_or_insert_with(place);
                continue;
            };
            let logged =
                logged(json).map_err(|why| Exit::Invalid(format!("{}: {why}", place())))?;
            replayed.missed = replayed.missed.saturating_add(logged.missed.unwrap_or(0));
            let Some(made) = logged.made else { continue };
            let time = Timestamp::parse(&made.time)
                .map_err(|error| Exit::Invalid(format!("{}: time: {error}", place())))?;
            if time < since {
                continue;
            }
            let asked = asked(&made).map_err(|why| Exit::Invalid(format!("{}: {why}", place())))?;
            let asked = as_seen(asked, &against.snapshot);
            replayed.add(&made, time, against.change(&made, &asked));
        }
    }
    tell(args, &replayed, &against.snapshot, screen)?;
    Ok(if replayed.groups.is_empty() && replayed.torn == 0 {
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

fn logged(line: Json) -> Result<Logged, String> {
    let logged: Logged =
        serde_json::from_value(line).map_err(|error| format!("is no logged decision: {error}"))?;
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

/// What a bundle's conditions read of what callers say beside names.
#[derive(Debug, Default)]
struct Reads {
    names: BTreeSet<String>,
    /// Whether some condition may read what it does not name.
    any: bool,
}

impl Reads {
    fn of(snapshot: &Snapshot) -> Self {
        let mut reads = Self::default();
        for control in snapshot.controls() {
            reads.note(&control.failure_condition);
            if let Some(text) = &control.applies_to.condition {
                reads.note(text);
            }
        }
        for exception in snapshot.exceptions() {
            let scope = exception.scope.match_condition.as_deref();
            let conditions = exception.compensating_conditions.iter();
            for text in conditions.map(AsRef::as_ref).chain(scope) {
                reads.note(text);
            }
        }
        reads
    }

    /// Notes the names that follow `context.` and `properties.`; whatever else is done with either
    /// may read all of it.
    fn note(&mut self, text: &str) {
        for whole in ["context", "properties"] {
            for (at, found) in text.match_indices(whole) {
                let rest = text.get(at.saturating_add(found.len())..);
                let rest = rest.unwrap_or_default().trim_start();
                let named = rest.strip_prefix('.').map(str::trim_start);
                let name = named.map(|rest| {
                    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                    rest.split_at(end.unwrap_or(rest.len()))
                });
                match name {
                    Some((name, after))
                        if !name.is_empty() && !after.trim_start().starts_with('(') =>
                    {
                        self.names.insert(name.to_owned());
                    }
                    Some(_) | None => self.any = true,
                }
            }
        }
    }

    /// What was left out that a condition may read.
    fn left_out<'a>(&self, masked: &'a [String]) -> Option<&'a str> {
        masked.iter().map(String::as_str).find(|path| {
            let name = path.split_once('.').map_or(*path, |(_, name)| name);
            self.any || self.names.contains(name)
        })
    }
}

/// Reasons that lay in the sidecar's state then, or in what a registry alone knows: a bundle says
/// nothing of them.
const ELSEWHERE: [Reason; 9] = [
    Reason::SubjectUnknown,
    Reason::SubjectLocked,
    Reason::SubjectRetired,
    Reason::SnapshotStale,
    Reason::ClockSkew,
    Reason::ExcRevoked,
    Reason::ExcBudgetExhausted,
    Reason::ExcLeaseLapsed,
    Reason::ExcEvidenceUnavailable,
];

impl Replayed {
    fn add(&mut self, made: &Made, time: Timestamp, changed: Option<(Change, String)>) {
        self.decisions = self.decisions.saturating_add(1);
        self.from = Some(self.from.map_or(time, |from| from.min(time)));
        self.until = Some(self.until.map_or(time, |until| until.max(time)));
        let Some((change, why)) = changed else {
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

/// What of a call's properties says which tool it is.
const TOOL: [&str; 3] = [
    "properties.server",
    "properties.name",
    "properties.definition_digest",
];

/// A bundle, and when it is asked.
#[derive(Debug)]
struct Against {
    snapshot: Snapshot,
    reads: Reads,
    now: Now,
}

impl Against {
    /// How a decision would be another if it were asked of the bundle now, and why; nothing if it
    /// would not.
    fn change(&self, made: &Made, asked: &Question) -> Option<(Change, String)> {
        let untold = |why: String| Some((Change::Untold, why));
        // Which tool it is may be read by other names than these.
        let tool = |path: &&String| made.resource_type == "tool" && TOOL.contains(&path.as_str());
        if let Some(path) = made.masked.iter().find(tool) {
            return untold(format!("the log leaves out {path}, which names the tool"));
        }
        if let Some(path) = self.reads.left_out(&made.masked) {
            return untold(format!(
                "the log leaves out {path}, which a condition may read"
            ));
        }
        let snapshot = &self.snapshot;
        if snapshot.subject(asked.subject.as_str()).is_none() {
            return untold("the subject is not in the bundle".into());
        }
        let new = decide(asked, snapshot, self.now);
        let change = match (made.outcome.as_str(), new.outcome.name()) {
            (before, now) if before == now => return None,
            (_, "deny") => Change::NewlyDenied,
            ("deny", _) => Change::NewlyAllowed,
            ("allow", _) => Change::NeedsException,
            (_, _) => Change::NeedsNoException,
        };
        let elsewhere = |reason: &&String| ELSEWHERE.iter().any(|it| it.name() == **reason);
        if let (Change::NewlyAllowed, Some(reason)) = (change, made.reasons.iter().find(elsewhere))
        {
            return untold(format!("it was {reason}, of which the bundle says nothing"));
        }
        let relied = made.exceptions.iter().filter(|it| it.effect == "RELIED_ON");
        let mut lacking = relied.filter(|it| snapshot.exception(&it.id).is_none());
        if let (Change::NewlyDenied, Some(exception)) = (change, lacking.next()) {
            return untold(format!("{} is not in the bundle", exception.id));
        }
        if change == Change::NewlyDenied
            && new.reasons.contains(&Reason::ControlError)
            && snapshot.resource(asked).is_none()
        {
            return untold(format!(
                "{} is not in the bundle, and a control cannot tell without it",
                made.resource
            ));
        }
        Some((change, ground(&new)))
    }
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
                "unreadable": replayed.torn,
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
            if let Some(place) = &replayed.first_torn {
                let torn = format!(
                    "{} lines cannot be read, the first is {place}",
                    replayed.torn
                );
                screen.say(&styled(BAD, &torn))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_may_be_read_of_a_question_is_seen() {
        let masked = ["context.args".to_owned()];
        for (text, found) in [
            ("request.context.args == 'x'", true),
            ("has(request . context . args)", true),
            ("request.context['args'] == 'x'", true),
            ("request.context.existsOne (k, k == 'args')", true),
            ("size(request.context) > 1", true),
            ("[request.context].exists(c, c.args == 1)", true),
            (
                "request.context.ticket == 'x' && subject.args == 'y'",
                false,
            ),
            ("request.resource.properties.rows > 3", false),
            ("subject.kind == 'AI_AGENT'", false),
        ] {
            let mut reads = Reads::default();
            reads.note(text);
            assert_eq!(reads.left_out(&masked).is_some(), found, "{text}");
        }
    }
}
