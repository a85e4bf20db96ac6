//! What sidecars logged of their decisions, read again.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::{
    domain::{Question, Span, SubjectId, Timestamp},
    sidecar::earlier_log,
    wire::{json::fields, question, v1},
};

use super::{review::plain, run::Exit};

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
pub(super) struct Made {
    time: String,
    pub id: String,
    pub outcome: String,
    pub reasons: Vec<String>,
    #[serde(default)]
    pub controls: Vec<String>,
    #[serde(default)]
    pub exceptions: Vec<Considered>,
    pub subject: String,
    pub action: String,
    pub resource_type: String,
    pub resource: String,
    purpose: Option<String>,
    actor_kind: Option<String>,
    #[serde(default)]
    observed: BTreeMap<String, String>,
    #[serde(default)]
    context: Map<String, Json>,
    #[serde(default)]
    properties: Map<String, Json>,
    #[serde(default)]
    pub masked: Vec<String>,
}

/// An exception that was considered.
#[derive(Debug, Deserialize)]
pub(super) struct Considered {
    pub id: String,
    pub effect: String,
}

/// What a log holds beside decisions.
#[derive(Debug, Default)]
pub(super) struct Flaws {
    /// Decisions that were not logged.
    pub missed: u64,
    /// Lines that cannot be read, and where the first is.
    pub torn: u64,
    pub first_torn: Option<String>,
}

/// Reads a log and the files before it, and gives every decision since then with the question it
/// answered, as far as that was logged.
pub(super) fn each(
    log: &Path,
    since: Timestamp,
    mut take: impl FnMut(&Made, Timestamp, Question),
) -> Result<Flaws, Exit> {
    let mut flaws = Flaws::default();
    for file in files(log)? {
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
                flaws.torn = flaws.torn.saturating_add(1);
                flaws.first_torn.get_or_insert_with(place);
                continue;
            };
            let wrong = |why: String| Exit::Invalid(format!("{}: {}", place(), plain(&why)));
            let logged = logged(json).map_err(wrong)?;
            flaws.missed = flaws.missed.saturating_add(logged.missed.unwrap_or(0));
            let Some(made) = logged.made else { continue };
            let time = Timestamp::parse(&made.time);
            let time = time.map_err(|error| wrong(format!("time: {error}")))?;
            if time >= since {
                take(&made, time, asked(&made).map_err(wrong)?);
            }
        }
    }
    Ok(flaws)
}

/// From when on.
pub(super) fn since(text: &str, now: Timestamp) -> Result<Timestamp, Exit> {
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
