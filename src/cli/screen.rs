//! What people see: decisions and explanations, with colour where it is wanted.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde_json::{Value as Json, json};

use crate::wire::{signed::hex, v1};

use super::review::plain;

/// Standard output and standard error.
#[derive(Debug)]
pub(super) struct Screen {
    out: AutoStream<io::Stdout>,
    err: AutoStream<io::Stderr>,
}

pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const BOLD: Style = Style::new().bold();

/// `text` in a style.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

impl Screen {
    pub(super) fn new(choice: ColorChoice) -> Self {
        Self {
            out: AutoStream::new(io::stdout(), choice),
            err: AutoStream::new(io::stderr(), choice),
        }
    }

    /// A line of data.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// A line of progress or advice.
    pub(super) fn hint(&mut self, line: &str) {
        // With standard error gone there is nobody to tell.
        let _ = writeln!(self.err, "{line}");
    }

    /// What went wrong.
    pub(super) fn complain(&mut self, text: &str) {
        self.hint(&format!("{} {text}", styled(BAD, "error:")));
    }

    /// The screen of a decision.
    pub(super) fn decision(&mut self, decision: &v1::Decision) -> io::Result<()> {
        self.say(&headline(decision))?;
        for line in grounds(decision) {
            self.say(&line)?;
        }
        if decision.outcome() == v1::Outcome::Deny {
            self.say(&format!("  {:<9} exeat explain {}", "why", decision.id))?;
        }
        Ok(())
    }

    /// The screen of an explanation.
    pub(super) fn explanation(&mut self, explained: &v1::ExplainResponse) -> io::Result<()> {
        let Some(decision) = &explained.decision else {
            return Ok(());
        };
        self.question(explained, decision)?;
        self.say("")?;
        self.say(&format!(" controls   {} applied", decision.controls.len()))?;
        for control in &decision.controls {
            self.say(&format!(
                "   {} {:<14} {}",
                mark(control.outcome()),
                control.control_id,
                control.title
            ))?;
            for clause in &control.clauses {
                self.say(&format!("       {} {}", clause_mark(clause), clause.text))?;
                for read in &clause.reads {
                    self.say(&format!(
                        "           {} = {}",
                        styled(DIM, &read.path),
                        read.value
                    ))?;
                }
            }
        }
        if !decision.exceptions.is_empty() {
            self.say(&format!(
                " exceptions {} considered",
                decision.exceptions.len()
            ))?;
        }
        for exception in &decision.exceptions {
            let effect = short(exception.effect().as_str_name(), "EXCEPTION_EFFECT_");
            let why = if exception.dimension.is_empty() {
                code(exception.reason())
            } else {
                exception.dimension.clone()
            };
            let why = if effect == "RELIED_ON" || effect == "NOT_NEEDED" {
                String::new()
            } else {
                why
            };
            self.say(&format!(
                "   {:<12} {effect:<12} {why}",
                exception.exception_id
            ))?;
        }
        self.say(&format!(
            " result     {}  {}",
            short(decision.outcome().as_str_name(), "OUTCOME_"),
            codes(decision)
        ))?;
        for line in advice(decision) {
            self.say(&line)?;
        }
        Ok(())
    }

    /// Who asked what, how and when, and of which state.
    fn question(
        &mut self,
        explained: &v1::ExplainResponse,
        decision: &v1::Decision,
    ) -> io::Result<()> {
        let snapshot = decision.snapshot.clone().unwrap_or_default();
        let resource = explained.resource.clone().unwrap_or_default();
        let time = decision.time.map(|time| written(&time)).unwrap_or_default();
        self.say(&format!(" decision   {}  {time}", decision.id))?;
        let trace = &explained.trace_id;
        let came: Vec<_> = [
            (!explained.surface.is_empty()).then(|| format!("by {}", explained.surface)),
            (!trace.is_empty()).then(|| format!("trace {}", hex(trace))),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !came.is_empty() {
            self.say(&format!(" came       {}", came.join("  ")))?;
        }
        // Callers choose these words.
        let words = |parts: &[&str]| {
            let parts = parts.iter().filter(|it| !it.is_empty());
            parts.map(|it| plain(it)).collect::<Vec<_>>().join("  ")
        };
        let subject = [
            &*explained.subject,
            &explained.environment,
            &explained.model,
        ];
        self.say(&format!(" subject    {}", words(&subject)))?;
        let thing = format!("{} {}", resource.r#type, resource.id);
        let purpose = if explained.purpose.is_empty() {
            String::new()
        } else {
            format!("for {}", explained.purpose)
        };
        let asked = words(&[&explained.action, &thing, &purpose]);
        self.say(&format!(" asked      {asked}"))?;
        self.say(&format!(
            " snapshot   revision {}  {}",
            snapshot.revision, snapshot.digest
        ))?;
        Ok(())
    }
}

fn mark(outcome: v1::ControlOutcome) -> String {
    match outcome {
        v1::ControlOutcome::Pass => styled(GOOD, "✓"),
        v1::ControlOutcome::Fail => styled(BAD, "✗"),
        v1::ControlOutcome::Indeterminate | v1::ControlOutcome::Unspecified => styled(BAD, "?"),
    }
}

fn clause_mark(clause: &v1::Clause) -> &'static str {
    match clause.holds {
        Some(true) => "true ",
        Some(false) => "false",
        None => "?    ",
    }
}

/// Outcome, id and the control that decided.
pub(super) fn headline(decision: &v1::Decision) -> String {
    let (style, word) = match decision.outcome() {
        v1::Outcome::Allow => (GOOD, "✓ ALLOWED"),
        v1::Outcome::AllowByException => (GOOD, "✓ ALLOWED by exception"),
        v1::Outcome::Deny | v1::Outcome::Unspecified => (BAD, "✗ DENIED"),
    };
    let about = match decision.outcome() {
        v1::Outcome::AllowByException => relied(decision)
            .map(|e| e.exception_id.clone())
            .unwrap_or_default(),
        v1::Outcome::Allow => format!("{} controls passed", decision.controls_passed),
        v1::Outcome::Deny | v1::Outcome::Unspecified => match blocking(decision) {
            Some(control) => format!("control {} (rev {})", control.control_id, control.revision),
            None => codes(decision),
        },
    };
    format!(
        "{}  {about}  {}",
        styled(style, word),
        styled(DIM, &decision.id)
    )
}

fn relied(decision: &v1::Decision) -> Option<&v1::ExceptionResult> {
    decision
        .exceptions
        .iter()
        .find(|e| e.effect() == v1::ExceptionEffect::ReliedOn)
}

fn blocking(decision: &v1::Decision) -> Option<&v1::ControlResult> {
    decision.controls.iter().find(|control| {
        control.outcome() != v1::ControlOutcome::Pass && control.enforcement != "ADVISORY"
    })
}

/// Why, what to do and what to type next.
pub(super) fn grounds(decision: &v1::Decision) -> Vec<String> {
    let mut lines = Vec::new();
    let mut row = |name: &str, text: String| lines.push(format!("  {name:<9} {text}"));
    if let Some(exception) = relied(decision) {
        row(
            "until",
            exception
                .expire_time
                .map(|time| written(&time))
                .unwrap_or_default(),
        );
    }
    for control in decision
        .controls
        .iter()
        .filter(|control| control.outcome() != v1::ControlOutcome::Pass)
    {
        for clause in &control.clauses {
            let reads: Vec<_> = clause
                .reads
                .iter()
                .map(|read| format!("{} = {}", read.path, read.value))
                .collect();
            let reads = if reads.is_empty() {
                String::new()
            } else {
                format!("   {}", styled(DIM, &format!("({})", reads.join(", "))))
            };
            row(
                "because",
                format!("{}: {}{reads}", control.control_id, clause.text),
            );
        }
        if !control.owner.is_empty() {
            let refs = if control.framework_refs.is_empty() {
                String::new()
            } else {
                format!(" · {}", control.framework_refs.join(" "))
            };
            row("owner", format!("{}{refs}", control.owner));
        }
    }
    lines.extend(advice(decision));
    lines
}

fn advice(decision: &v1::Decision) -> Vec<String> {
    let mut lines = Vec::new();
    let mut row = |name: &str, text: String| lines.push(format!("  {name:<9} {text}"));
    if !decision.drift.is_empty() {
        row(
            "drift",
            format!(
                "you see another {} than is governed",
                decision.drift.join(", ")
            ),
        );
    }
    if !decision.remedy.is_empty() {
        row("remedy", decision.remedy.clone());
    }
    if let Some(near) = &decision.nearest {
        let what = if near.dimension.is_empty() {
            code(near.reason())
        } else {
            near.dimension.clone()
        };
        let gap = if near.wanted.is_empty() {
            String::new()
        } else {
            format!(": {} ≠ {}", near.wanted, near.met)
        };
        row(
            "nearest",
            format!("{} — would match, but {what}{gap}", near.exception_id),
        );
    }
    let told = decision.nearest.as_ref().map(|near| &*near.exception_id);
    for stale in &decision.stale {
        // Once is enough.
        if told != Some(&stale.exception_id) {
            row(
                "stale",
                format!("{}: {} ≠ {}", stale.exception_id, stale.wanted, stale.met),
            );
        }
    }
    match decision.next_action() {
        v1::NextAction::Request => row(
            "next",
            format!(
                "an exception from {} can be requested: exeat exception draft {}",
                decision.requestable_control_ids.join(", "),
                decision.id
            ),
        ),
        v1::NextAction::Retry => row(
            "next",
            "ask again: what was missing may have arrived".into(),
        ),
        v1::NextAction::None | v1::NextAction::Unspecified => {}
    }
    lines
}

fn codes(decision: &v1::Decision) -> String {
    decision.reasons().map(code).collect::<Vec<_>>().join(", ")
}

fn code(reason: v1::Reason) -> String {
    short(reason.as_str_name(), "REASON_")
}

fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn written(time: &prost_types::Timestamp) -> String {
    crate::domain::Timestamp::from_micros(
        time.seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(time.nanos) / 1_000),
    )
    .to_string()
}

/// The decision as JSON; names as in the protocol, codes without their prefixes.
pub(super) fn json(decision: &v1::Decision) -> Json {
    let control = |c: &v1::ControlResult| {
        json!({
            "id": c.control_id, "revision": c.revision, "outcome": short(c.outcome().as_str_name(), "CONTROL_OUTCOME_"), "title": c.title,
            "enforcement": c.enforcement, "owner": c.owner, "framework_refs": c.framework_refs, "remedy": c.remedy,
            "clauses": c.clauses.iter().map(|clause| json!({
                "text": clause.text, "holds": clause.holds,
                "reads": clause.reads.iter().map(|read| (read.path.clone(), read.value.clone().into())).collect::<serde_json::Map<_, _>>(),
            })).collect::<Vec<_>>(),
        })
    };
    let exception = |e: &v1::ExceptionResult| {
        json!({
            "id": e.exception_id, "revision": e.revision, "effect": short(e.effect().as_str_name(), "EXCEPTION_EFFECT_"),
            "reason": if e.reason() == v1::Reason::Unspecified { Json::Null } else { code(e.reason()).into() },
            "dimension": e.dimension, "tier": e.tier, "expire_time": e.expire_time.as_ref().map(written),
        })
    };
    let near = |near: &v1::NearestException| json!({"exception": near.exception_id, "reason": code(near.reason()), "dimension": near.dimension, "wanted": near.wanted, "met": near.met});
    let snapshot = decision.snapshot.clone().unwrap_or_default();
    json!({
        "apiVersion": "exeat/v1", "id": decision.id, "outcome": short(decision.outcome().as_str_name(), "OUTCOME_").to_ascii_lowercase(),
        "reasons": decision.reasons().map(code).collect::<Vec<_>>(), "time": decision.time.as_ref().map(written), "valid_until": decision.valid_until.as_ref().map(written),
        "snapshot": {"digest": snapshot.digest, "revision": snapshot.revision, "age_seconds": snapshot.age_seconds},
        "controls_passed": decision.controls_passed, "controls": decision.controls.iter().map(control).collect::<Vec<_>>(),
        "exceptions": decision.exceptions.iter().map(exception).collect::<Vec<_>>(), "drift": decision.drift,
        "next_action": short(decision.next_action().as_str_name(), "NEXT_ACTION_").to_ascii_lowercase(), "remedy": decision.remedy,
        "requestable_control_ids": decision.requestable_control_ids,
        "nearest": decision.nearest.as_ref().map(near),
        "stale": decision.stale.iter().map(near).collect::<Vec<_>>(),
    })
}
