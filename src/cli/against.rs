//! What was asked before, asked again of something else.

use std::collections::BTreeSet;

use crate::{
    domain::{Decision, Exception, Now, Question, Reason},
    engine::{Snapshot, decide},
};

use super::logged::Made;

/// What a bundle's conditions read of what callers say beside names.
#[derive(Debug, Default)]
pub(super) struct Reads {
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
            reads.note_exception(exception);
        }
        reads
    }

    /// What the conditions of one exception read.
    pub(super) fn of_exception(exception: &Exception) -> Self {
        let mut reads = Self::default();
        reads.note_exception(exception);
        reads
    }

    fn note_exception(&mut self, exception: &Exception) {
        let scope = exception.scope.match_condition.as_deref();
        let conditions = exception.compensating_conditions.iter();
        for text in conditions.map(AsRef::as_ref).chain(scope) {
            self.note(text);
        }
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

/// What of a call's properties says which tool it is.
const TOOL: [&str; 3] = [
    "properties.server",
    "properties.name",
    "properties.definition_digest",
];

/// What is asked, and when.
#[derive(Debug)]
pub(super) struct Against {
    pub snapshot: Snapshot,
    reads: Reads,
    now: Now,
}

impl Against {
    pub(super) fn new(snapshot: Snapshot, now: Now) -> Self {
        let reads = Reads::of(&snapshot);
        Self::reading(snapshot, reads, now)
    }

    /// One of which nothing else than this is read.
    pub(super) fn reading(snapshot: Snapshot, reads: Reads, now: Now) -> Self {
        Self {
            snapshot,
            reads,
            now,
        }
    }

    /// What is decided now of a question, as this snapshot sees it.
    ///
    /// # Errors
    ///
    /// Why that cannot be told of what was logged.
    pub(super) fn decides(&self, made: &Made, asked: &Question) -> Result<Decision, String> {
        // Which tool it is may be read by other names than these.
        let tool = |path: &&String| made.resource_type == "tool" && TOOL.contains(&path.as_str());
        if let Some(path) = made.masked.iter().find(tool) {
            return Err(format!("the log leaves out {path}, which names the tool"));
        }
        if let Some(path) = self.reads.left_out(&made.masked) {
            return Err(format!(
                "the log leaves out {path}, which a condition may read"
            ));
        }
        if self.snapshot.subject(asked.subject.as_str()).is_none() {
            return Err("the subject is not known".into());
        }
        Ok(decide(asked, &self.snapshot, self.now))
    }
}

/// The reason of a denial that is not to be had of what is governed, if it has one.
pub(super) fn elsewhere(made: &Made) -> Option<&str> {
    let known = |reason: &&String| ELSEWHERE.iter().any(|it| it.name() == **reason);
    made.reasons.iter().find(known).map(String::as_str)
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
