//! What is kept of a decision: what it was made from. Everything else is made again when asked
//! for, since the same inputs give the same answer (D8).

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use serde::Serialize;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::{
    domain::{Decision, ExceptionId, Now, Question, Ref, Span, SubjectId, Trace, Value},
    engine::{Snapshot, as_seen, decide},
    telemetry::Surface,
    wire::kept,
};

use super::answering::Called;

/// Requests up to this many bytes are kept in memory that stays.
pub(super) const SMALL: usize = 2 << 10;

/// The inputs of one decision, in the form that is kept: the request as bytes, so that keeping it
/// writes a few lines of memory that are already there.
#[derive(Debug, Default)]
pub(super) struct Kept {
    id: Uuid,
    subject: Option<SubjectId>,
    request: Vec<u8>,
    /// Weak: what is no longer in force may go, and its decisions with it.
    snapshot: Weak<Snapshot>,
    spent: Vec<ExceptionId>,
    now: Option<Now>,
    took: Span,
    surface: Option<Surface>,
    trace: Option<Trace>,
    /// Nobody was told of it: its caller went away, or waited no longer.
    unanswered: bool,
}

/// The inputs of one decision.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: Uuid,
    pub(super) question: Question,
    pub(super) snapshot: Snapshot,
    pub(super) now: Now,
    pub(super) took: Span,
    /// By which protocol it was asked, and the trace the call belonged to.
    pub(super) surface: Option<Surface>,
    pub(super) trace: Option<Trace>,
}

impl Kept {
    /// Takes in the inputs of another decision.
    pub(super) fn rewrite(
        &mut self,
        id: Uuid,
        subject: &SubjectId,
        request: &[u8],
        (snapshot, spent): (&Arc<Snapshot>, &[ExceptionId]),
        now: Now,
        (called, took): (Called, Span),
    ) {
        (self.id, self.now, self.took) = (id, Some(now), took);
        (self.surface, self.trace) = (Some(called.surface), called.trace);
        self.unanswered = false;
        if self.subject.as_ref() != Some(subject) {
            self.subject = Some(subject.clone());
        }
        if !std::ptr::eq(self.snapshot.as_ptr(), Arc::as_ptr(snapshot)) {
            self.snapshot = Arc::downgrade(snapshot);
        }
        self.spent.clear();
        self.spent.extend_from_slice(spent);
        if self.request.capacity() > SMALL {
            self.request = Vec::new();
        }
        self.request.clear();
        self.request.extend_from_slice(request);
    }

    /// What nobody was told of is no decision.
    pub(super) fn unanswered(&mut self) {
        *self = Self {
            unanswered: true,
            ..Self::default()
        };
    }

    /// Whether anybody was told of it.
    pub(super) fn is_answered(&self) -> bool {
        !self.unanswered
    }

    /// Gives its memory back; there is nothing to recall any more.
    pub(super) fn forget(&mut self) {
        *self = Self {
            unanswered: self.unanswered,
            ..Self::default()
        };
    }

    /// The inputs, ready to be decided again.
    pub(super) fn recall(&self) -> Option<Record> {
        let snapshot = spending(&self.snapshot.upgrade()?, &self.spent).into_owned();
        let question = kept(&self.request, self.subject.clone()?)?;
        Some(Record {
            id: self.id,
            question: as_seen(question, &snapshot),
            snapshot,
            now: self.now?,
            took: self.took,
            surface: self.surface,
            trace: self.trace,
        })
    }
}

impl Record {
    pub(super) fn decide(&self) -> Decision {
        decide(&self.question, &self.snapshot, self.now)
    }
}

/// The snapshot as it was decided from, with exceptions that had no use left.
pub(super) fn spending<'a>(
    snapshot: &'a Arc<Snapshot>,
    spent: &[ExceptionId],
) -> Cow<'a, Snapshot> {
    spent.iter().fold(Cow::Borrowed(snapshot), |seen, id| {
        Cow::Owned(seen.exhausting(id))
    })
}

/// The id of a decision: a UUIDv7 that carries the record's number, so that it is found without
/// a search, and the start's `salt`, so that no two sidecars or starts share one.
pub(super) fn decision_id(now: Now, number: u64, salt: u64) -> Uuid {
    let millis = u64::try_from(now.latest.micros() / 1_000).unwrap_or(0);
    let salted = salt.to_be_bytes();
    let counted = number.to_be_bytes();
    let [s0, s1, s2, s3, s4, ..] = salted;
    let [.., n3, n4, n5, n6, n7] = counted;
    uuid::Builder::from_unix_timestamp_millis(millis, &[s0, s1, s2, s3, s4, n3, n4, n5, n6, n7])
        .into_uuid()
}

/// The number a decision's id carries.
pub(super) fn number_of(id: Uuid) -> u64 {
    let [.., n3, n4, n5, n6, n7] = id.into_bytes();
    u64::from_be_bytes([0, 0, 0, n3, n4, n5, n6, n7])
}

/// `dec_` and the UUID.
pub(super) fn written(id: Uuid) -> String {
    let mut text = String::with_capacity(40);
    text.push_str("dec_");
    text.push_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    text
}

/// One decision as a line of JSON. Names and codes, and of arguments only what a setting lists.
#[derive(Clone, Debug, Serialize)]
pub struct DecisionLine {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: &'static str,
    /// When it was made.
    pub time: String,
    /// Its id.
    pub id: String,
    /// `allow`, `allow_by_exception` or `deny`.
    pub outcome: &'static str,
    /// The codes, weightiest first.
    pub reasons: Vec<&'static str>,
    /// Who asked.
    pub subject: String,
    /// For which action.
    pub action: String,
    /// On a resource of which type.
    pub resource_type: String,
    /// On which resource.
    pub resource: String,
    /// What for, if said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Who is really acting, if said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_kind: Option<String>,
    /// Digests of facets that the caller has seen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub observed: BTreeMap<&'static str, String>,
    /// What of the context may be shown.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub context: Map<String, Json>,
    /// What of the resource's properties may be shown.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub properties: Map<String, Json>,
    /// What else was said, by name alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<String>,
    /// The controls that did not pass.
    pub controls: Vec<String>,
    /// The exceptions considered, with their effects.
    pub exceptions: Vec<ExceptionLine>,
    /// Facets seen to differ from what is governed.
    pub drift: Vec<&'static str>,
    /// The snapshot it was made from.
    pub snapshot: String,
    /// How long it took.
    pub micros: i64,
}

/// An exception in a [`DecisionLine`].
#[derive(Clone, Debug, Serialize)]
pub struct ExceptionLine {
    /// Its id.
    pub id: String,
    /// `RELIED_ON`, `NOT_NEEDED`, `OUT_OF_SCOPE` or `INEFFECTIVE`.
    pub effect: &'static str,
    /// The code of what stood against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// What of a resource's properties is no argument: the names and the digest of a tool.
const NAMES: [&str; 3] = ["server", "name", "definition_digest"];
/// Longest of them, in bytes: what is longer is no name.
const LONGEST: usize = 512;

/// The entries of a map that may be shown; the others' names are added to `masked`.
fn shown(
    map: &Value,
    root: &str,
    masked: &mut Vec<String>,
    shown: impl Fn(&str, &str, &Value) -> bool,
) -> Map<String, Json> {
    let Ref::Map(entries) = map.as_ref() else {
        return Map::new();
    };
    let mut told = Map::new();
    for (name, value) in entries {
        let path = format!("{root}.{name}");
        if shown(name, &path, value) {
            told.insert(name.to_string(), json(value));
        } else {
            masked.push(path);
        }
    }
    told
}

fn json(value: &Value) -> Json {
    match value {
        // Of the latter no caller sends one.
        Value::Null | Value::Record(_) => Json::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Int(n) => (*n).into(),
        Value::Double(n) => (*n).into(),
        Value::Str(text) => text.to_string().into(),
        Value::Time(time) => time.to_string().into(),
        Value::Span(span) => span.to_string().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let pairs = entries.iter();
            Json::Object(
                pairs
                    .map(|(name, value)| (name.to_string(), json(value)))
                    .collect(),
            )
        }
    }
}

impl DecisionLine {
    /// The line of a decision, with what of its question is called as one of `values`, such as
    /// `context.ticket`.
    pub(super) fn of(record: &Record, values: &[Box<str>]) -> Self {
        let decision = record.decide();
        let question = &record.question;
        let listed = |path: &str| values.iter().any(|value| **value == *path);
        let mut masked = Vec::new();
        let context = shown(&question.context, "context", &mut masked, |_, path, _| {
            listed(path)
        });
        let tool = question.resource.kind == "tool";
        let short = |value: &Value| value.as_str().is_some_and(|text| text.len() <= LONGEST);
        let named = |name: &str, path: &str, value: &Value| {
            listed(path) || (tool && NAMES.contains(&name) && short(value))
        };
        let properties = shown(
            &question.resource.properties,
            "properties",
            &mut masked,
            named,
        );
        let observed = question.observed.iter();
        let observed = observed.map(|(facet, digest)| (facet.name(), digest.to_string()));
        Self {
            purpose: question.purpose.clone(),
            actor_kind: question.actor_kind.clone(),
            observed: observed.collect(),
            context,
            properties,
            masked,
            api_version: "exeat/v1",
            time: record.now.latest.to_string(),
            id: written(record.id),
            outcome: decision.outcome.name(),
            reasons: decision
                .reasons
                .iter()
                .map(|reason| reason.name())
                .collect(),
            subject: record.question.subject.to_string(),
            action: record.question.action.clone(),
            resource_type: record.question.resource.kind.clone(),
            resource: record.question.resource.id.clone(),
            controls: decision
                .failed
                .iter()
                .map(|result| result.control.id.to_string())
                .collect(),
            exceptions: decision
                .exceptions
                .iter()
                .map(|result| ExceptionLine {
                    id: result.exception.id.to_string(),
                    effect: result.effect.name(),
                    reason: result.effect.reason().map(crate::domain::Reason::name),
                })
                .collect(),
            drift: decision.drift.iter().map(|facet| facet.name()).collect(),
            snapshot: record.snapshot.digest().to_string(),
            micros: record.took.micros(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn an_id_is_a_uuid_of_version_7_that_carries_its_number() {
        let now = Now::exactly(Timestamp::parse("2026-11-22T12:00:00Z").unwrap());
        let id = decision_id(now, 81_234, 0x0123_4567_89ab_cdef);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(number_of(id), 81_234);
        assert_ne!(id, decision_id(now, 81_234, 7));
        assert_eq!(written(id).len(), 40);
    }
}
