//! Tools as whoever asks has seen them: a tool that is no longer what was governed changes the
//! subject's `tools` (R9, R36).

use std::{collections::HashMap, fmt::Write as _};

use sha2::{Digest as _, Sha256};

use crate::domain::{Digest, Facet, Fingerprint, Question, SeenTool, Subject, Value};

use super::{
    Snapshot,
    catalogue::{TOOL, at, field},
};

/// The question with what was seen of tools among what was observed.
///
/// The facet is what it would be if the subject's tools were registered as they were seen, so that it
/// is as governed again once they are. Of tools that are not the subject's nothing follows: what may
/// be done with them is for controls to say. Where all were seen as they are governed the facet was
/// observed, and where only some were it was not.
pub fn as_seen(mut question: Question, snapshot: &Snapshot) -> Question {
    if let Some(observed) = seen(&question, snapshot) {
        question.observed = observed;
    }
    question.tools.clear();
    question
}

/// What was observed, if more than the question says so far.
pub(super) fn seen(question: &Question, snapshot: &Snapshot) -> Option<Fingerprint> {
    let own = own(question);
    if own.is_none() && question.tools.is_empty() {
        return None;
    }
    let subject = snapshot.subject(question.subject.as_str())?;
    let governed = subject.fingerprint.get(Facet::Tools);
    let said = question.observed.get(Facet::Tools);
    // Whoever says that it differs is believed.
    if said.is_some() && said != governed {
        return None;
    }
    // What is said of the one that is asked about counts before a list.
    let all = question.tools.iter().rev().chain(&own);
    let all: HashMap<(&str, &str), &str> = all
        .map(|tool| ((&*tool.server, &*tool.name), &*tool.definition_digest))
        .collect();
    let of = |server: &str, name: &str| all.get(&(server, name)).copied();
    let digest = observed(subject, governed, of)?;
    let before = question.observed.iter();
    let before = before.map(|(facet, digest)| (facet, digest.clone()));
    Some(Fingerprint::new(before.chain([(Facet::Tools, digest)])))
}

/// The tool that is asked about, if its definition was seen.
fn own(question: &Question) -> Option<SeenTool> {
    let tool = question.resource.tool()?;
    Some(SeenTool {
        server: tool.server?.into(),
        name: tool.name?.into(),
        definition_digest: tool.definition_digest?.into(),
    })
}

/// The digest of the subject's tools as they were seen; nothing where too few were seen to tell.
fn observed<'a>(
    subject: &Subject,
    governed: Option<&Digest>,
    of: impl Fn(&str, &str) -> Option<&'a str>,
) -> Option<Digest> {
    let Some(Value::List(tools)) = at(&subject.attributes, &["tools"]) else {
        return None;
    };
    let seen = tools.iter().map(|tool| {
        let said = |name| field(tool, &TOOL, name).and_then(Value::as_str);
        let digest = of(said("server")?, said("name")?)?;
        Some((digest, said("definition_digest") == Some(digest)))
    });
    let seen: Vec<_> = seen.collect();
    if seen.iter().flatten().all(|(_, same)| *same) {
        let all = !seen.is_empty() && seen.iter().all(Option::is_some);
        return governed.filter(|_| all).cloned();
    }
    let mut parts: Vec<String> = tools
        .iter()
        .zip(&seen)
        .map(|(tool, seen)| part(tool, seen.map(|(digest, _)| digest)))
        .collect();
    parts.sort_unstable();
    let mut hash = Sha256::new();
    hash.update("[");
    for (at, part) in parts.iter().enumerate() {
        hash.update(if at > 0 { "," } else { "" });
        hash.update(part);
    }
    hash.update("]");
    Some(Digest::of_sha256(&hash.finalize().into()))
}

/// What the facet holds of one tool, in its canonical form (RFC 8785).
fn part(tool: &Value, seen: Option<&str>) -> String {
    let said = |name| field(tool, &TOOL, name).and_then(Value::as_str);
    let mut permissions: Vec<String> = match field(tool, &TOOL, "permissions") {
        Some(Value::List(list)) => list.iter().filter_map(Value::as_str).map(quoted).collect(),
        _ => Vec::new(),
    };
    permissions.sort_unstable();
    let names = [
        (
            "definition_digest",
            seen.or_else(|| said("definition_digest")),
        ),
        ("name", said("name")),
        ("server", said("server")),
    ];
    let names = names.map(|(name, said)| said.map(|said| format!("\"{name}\":{}", quoted(said))));
    let names: Vec<String> = names.into_iter().flatten().collect();
    format!(
        "{{\"permissions\":[{}],\"tool\":{{{}}}}}",
        permissions.join(","),
        names.join(",")
    )
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
