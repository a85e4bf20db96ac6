//! Decisions and what came of exceptions, as spans and events. Names, codes and digests only: no
//! argument, prompt or secret.

use crate::{
    domain::{
        ControlId, Decision, Digest, Exception, NextAction, Outcome, Question, Span, Subject,
        Timestamp, Trace, Usage, UsageKind,
    },
    telemetry::names::{attribute as own, event, otel},
};

use super::proto::{Value, Writer};

/// Where a record belongs: its trace, itself, and who called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
    /// Whether its span is kept.
    pub(super) kept: bool,
}

/// A decision that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Its id, as it was told.
    pub id: &'a str,
    /// What was decided.
    pub decision: &'a Decision,
    /// What was asked.
    pub question: &'a Question,
    /// Who is governed under the question's subject.
    pub subject: Option<&'a Subject>,
    /// The provider and the name of its governed model.
    pub model: Option<(&'a str, &'a str)>,
    /// When the question arrived.
    pub time: Timestamp,
    /// How long the answer took.
    pub took: Span,
    /// The gRPC method, without a leading slash.
    pub method: &'static str,
    /// The way the question came in.
    pub surface: &'static str,
    /// Where the call belongs, if its caller says.
    pub trace: Option<Trace>,
    /// The snapshot's digest, its revision, and how old it was, in seconds.
    pub snapshot: (&'a str, u64, f64),
    /// The number of the first record it rests on.
    pub recorded: Option<u64>,
    /// How often the first exception it rests on was relied on here since the start, this time
    /// counted in.
    pub used: Option<u64>,
}

/// What became of an exception.
#[derive(Clone, Debug)]
pub struct Used<'a> {
    /// As it is recorded.
    pub usage: &'a Usage,
    /// The digest of the exception's scope, where one decision is told of.
    pub scope: Option<Digest>,
    /// How often the exception may be used yet, as far as is known here; nothing without a limit.
    pub remaining: Option<u64>,
    /// When the exception ends, where it is at hand.
    pub expires: Option<Timestamp>,
}

impl<'a> Used<'a> {
    /// What its record says and nothing else.
    pub fn of(usage: &'a Usage) -> Self {
        Self {
            usage,
            scope: None,
            remaining: None,
            expires: None,
        }
    }
}

/// A call that had no decision.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// The kind of error.
    pub kind: &'static str,
    /// The status it was answered with, as gRPC and as HTTP says it.
    pub status: (&'static str, u16),
    /// When the call arrived.
    pub time: Timestamp,
    /// How long it took.
    pub took: Span,
    /// The gRPC method, without a leading slash; of HTTP the verb and the route.
    pub method: &'static str,
    /// Where the call belongs, if its caller says.
    pub trace: Option<Trace>,
}

/// Numbers of OTLP's enumerations.
const SERVER: u64 = 2;
const ERROR: u64 = 2;
const SAMPLED: u32 = 1;
/// Whether the parent is somebody else's is known.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// How grave an event is.
#[derive(Clone, Copy, Debug)]
enum Severity {
    Info,
    Warn,
    Error,
}

pub(super) fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.micros())
        .unwrap_or(0)
        .saturating_mul(1_000)
}

/// The attributes of one record: the key of their list differs between spans and events.
struct Attributes<'a, 'b>(&'a mut Writer<'b>, u32);

impl Attributes<'_, '_> {
    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.0.attribute(self.1, name, Value::Text(text));
        }
    }

    fn count(&mut self, name: &str, n: u64) {
        self.0.attribute(self.1, name, Value::Count(n));
    }

    fn flag(&mut self, name: &str, flag: bool) {
        self.0.attribute(self.1, name, Value::Flag(flag));
    }

    fn real(&mut self, name: &str, n: f64) {
        self.0.attribute(self.1, name, Value::Real(n));
    }

    fn texts<'t, I: Iterator<Item = &'t str>>(&mut self, name: &str, texts: I) {
        let texts: Vec<&str> = texts.collect();
        if !texts.is_empty() {
            self.0.attribute(self.1, name, Value::Texts(&texts));
        }
    }

    fn exception(&mut self, exception: &Exception) {
        self.text(own::EXCEPTION, exception.id.as_str());
        self.count(own::EXCEPTION_REVISION, exception.revision);
        self.text(own::EXCEPTION_TIER, exception.tier.name());
        self.text(own::EXCEPTION_EXPIRES, &exception.expire_time.to_string());
        self.flag(own::EXCEPTION_IN_SCOPE, true);
    }

    /// Attributes that were written before, under whatever key.
    fn written(&mut self, list: &[u8]) {
        self.0.copied(self.1, list);
    }

    fn decision(&mut self, told: &Answered<'_>) {
        let Answered {
            decision, question, ..
        } = told;
        self.text(own::DECISION, told.id);
        self.text(own::OUTCOME, decision.outcome.name());
        self.text(own::REASON, decision.reason().name());
        if decision.reasons.len() > 1 {
            self.texts(own::REASONS, decision.reasons.iter().map(|it| it.name()));
        }
        if decision.outcome == Outcome::Deny {
            let requestable = decision.next_action == NextAction::Request;
            self.flag(own::REQUESTABLE, requestable);
        }
        self.text(own::MODE, "enforce");
        self.text(otel::AGENT, question.subject.as_str());
        if let Some((provider, name)) = told.model {
            self.text(otel::PROVIDER, provider);
            self.text(otel::MODEL, name);
        }
        self.text(own::ACTION, &question.action);
        if let Some(name) = question.resource.tool().and_then(|tool| tool.name) {
            self.text(otel::OPERATION, "execute_tool");
            self.text(otel::TOOL, name);
        }
        if let Some(session) = session(question) {
            self.text(otel::SESSION, session);
            self.text(otel::CONVERSATION, session);
        }
        if let Some(result) = decision.failed.iter().find(|failed| failed.blocks()) {
            self.text(own::CONTROL, result.control.id.as_str());
            self.count(own::CONTROL_REVISION, result.control.revision);
        }
        let failed = decision.failed.iter();
        self.texts(
            own::CONTROLS_FAILED,
            failed.map(|it| it.control.id.as_str()),
        );
        if let Some(exception) = decision.relied_on().next() {
            self.exception(exception);
            if let Some(uses) = told.used {
                self.count(own::EXCEPTION_USES, uses);
            }
        }
        if let Some(number) = told.recorded {
            self.count(own::USAGE_SEQUENCE, number);
        }
        if let Some(subject) = told.subject {
            self.text(own::FINGERPRINT, subject.combined.as_str());
        }
        self.texts(own::CHANGED, decision.drift.iter().map(|it| it.name()));
        let (digest, revision, age) = told.snapshot;
        self.text(own::SNAPSHOT, digest);
        self.count(own::SNAPSHOT_REVISION, revision);
        self.real(own::SNAPSHOT_AGE, age);
        self.text(own::SURFACE, told.surface);
    }
}

/// Longest id of a session, in bytes.
const SESSION: usize = 128;

/// The session a question belongs to, if its caller says so as hooks do: an id, and nothing that could be
/// a text.
fn session(question: &Question) -> Option<&str> {
    let said = question.context.get("session_id")?.as_str()?;
    let is_id = said.len() <= SESSION && said.bytes().all(|byte| byte.is_ascii_graphic());
    is_id.then_some(said)
}

/// How it was called, by the conventions of gRPC or, where a verb comes first, of HTTP.
fn called(list: &mut Attributes<'_, '_>, method: &str, (status, code): (&str, u16)) {
    if let Some((verb, route)) = method.split_once(' ') {
        list.text(otel::HTTP_METHOD, verb);
        list.text(otel::HTTP_ROUTE, route);
        list.count(otel::HTTP_STATUS, u64::from(code));
        return;
    }
    list.text(otel::RPC_SYSTEM, "grpc");
    list.text(otel::RPC_METHOD, method);
    list.text(otel::RPC_STATUS, status);
}

/// What every span of ours has, before its attributes.
fn span(
    span: &mut Writer<'_>,
    place: Place,
    method: &str,
    (time, took): (Timestamp, Span),
    approval: Option<Trace>,
    attributes: impl FnOnce(&mut Attributes<'_, '_>),
) {
    span.bytes(1, &place.trace);
    span.bytes(2, &place.span);
    if let Some(parent) = place.parent {
        span.bytes(4, &parent);
    }
    span.text(5, method);
    span.uint(6, SERVER);
    span.fixed64(7, nanos(time));
    span.fixed64(8, nanos(time + took));
    let mut list = Attributes(span, 9);
    attributes(&mut list);
    if let Some(trace) = approval {
        span.message(13, |link| {
            link.bytes(1, &trace.trace);
            link.bytes(2, &trace.span);
            link.fixed32(6, u32::from(trace.sampled) | HAS_IS_REMOTE | IS_REMOTE);
        });
    }
    span.fixed32(
        16,
        SAMPLED | HAS_IS_REMOTE | if place.parent.is_some() { IS_REMOTE } else { 0 },
    );
}

/// What its span and its event say of a decision alike, written once for both.
pub(super) fn alike(out: &mut Vec<u8>, told: &Answered<'_>) {
    Attributes(&mut Writer(out), 6).decision(told);
}

/// The span of a decision, in a list of spans. A denial is no error: its status is not set.
pub(super) fn decision_span(
    out: &mut Vec<u8>,
    place: Place,
    (told, alike): (&Answered<'_>, &[u8]),
) {
    Writer(out).message(2, |writer| {
        let when = (told.time, told.took);
        // From a use to the approval it rests on.
        let used = told.decision.relied_on().next();
        let approval = used.and_then(|exception| exception.approval);
        span(writer, place, told.method, when, approval, |list| {
            called(list, told.method, ("OK", 200));
            list.written(alike);
        });
    });
}

/// The span of a call that had no decision.
pub(super) fn failed_span(out: &mut Vec<u8>, place: Place, failed: &Failed) {
    Writer(out).message(2, |writer| {
        let when = (failed.time, failed.took);
        span(writer, place, failed.method, when, None, |list| {
            called(list, failed.method, failed.status);
            list.text(otel::ERROR_TYPE, failed.kind);
            list.text(own::OUTCOME, "error");
        });
        // By HTTP what the caller did wrong is no error of the server's.
        let (http, (_, code)) = (failed.method.contains(' '), failed.status);
        if !http || code >= 500 {
            writer.message(15, |status| status.uint(3, ERROR));
        }
    });
}

/// The event of a call that had no decision.
pub(super) fn failed_event(out: &mut Vec<u8>, place: Place, failed: &Failed) {
    let what = (event::DECISION, Severity::Error, failed.time);
    event(out, what, Some(place), "error", |list| {
        list.text(own::OUTCOME, "error");
        called(list, failed.method, failed.status);
        list.text(otel::ERROR_TYPE, failed.kind);
    });
}

/// An event, in a list of log records.
fn event(
    out: &mut Vec<u8>,
    (name, severity, time): (&str, Severity, Timestamp),
    place: Option<Place>,
    body: &str,
    attributes: impl FnOnce(&mut Attributes<'_, '_>),
) {
    Writer(out).message(2, |record| {
        record.fixed64(1, nanos(time));
        let (number, text) = match severity {
            Severity::Info => (9, "INFO"),
            Severity::Warn => (13, "WARN"),
            Severity::Error => (17, "ERROR"),
        };
        record.uint(2, number);
        record.text(3, text);
        record.message(5, |any| any.value(Value::Text(body)));
        attributes(&mut Attributes(record, 6));
        if let Some(place) = place {
            record.fixed32(8, if place.kept { SAMPLED } else { 0 });
            record.bytes(9, &place.trace);
            record.bytes(10, &place.span);
        }
        record.fixed64(11, nanos(time));
        record.text(12, name);
    });
}

/// The event of a decision.
pub(super) fn decision_event(
    out: &mut Vec<u8>,
    place: Place,
    (told, alike): (&Answered<'_>, &[u8]),
) {
    let decision = told.decision;
    let severity = match decision.outcome {
        Outcome::Allow | Outcome::AllowByException => Severity::Info,
        Outcome::Deny => Severity::Warn,
    };
    let what = (event::DECISION, severity, told.time);
    event(out, what, Some(place), decision.outcome.name(), |list| {
        list.written(alike);
        let denies = decision.failed.iter().find(|failed| failed.blocks());
        if let Some(result) = denies.filter(|_| decision.outcome == Outcome::Deny) {
            let control = &result.control;
            list.text(otel::RULE, control.id.as_str());
            list.text(otel::RULE_NAME, &control.title);
            list.text(otel::RULE_VERSION, &control.revision.to_string());
            list.text(otel::RULE_SET, told.snapshot.0);
            list.text(otel::RULE_CATEGORY, "exeat.control");
            let answers_to = control.frameworks.iter();
            let answers_to: Vec<_> = answers_to
                .map(|of| format!("{}:{}", of.framework, of.id))
                .collect();
            list.text(otel::RULE_REFERENCE, &answers_to.join(" "));
        }
    });
}

/// The event of facets that a caller saw differ.
pub(super) fn context_event(out: &mut Vec<u8>, place: Place, told: &Answered<'_>) {
    let what = (event::CONTEXT_CHANGED, Severity::Warn, told.time);
    let body = "what the caller sees differs from what is governed";
    event(out, what, Some(place), body, |list| {
        list.text(otel::AGENT, told.question.subject.as_str());
        list.text(own::DECISION, told.id);
        let drift = told.decision.drift.iter();
        list.texts(own::CHANGED, drift.map(|it| it.name()));
        if let Some(subject) = told.subject {
            list.text(own::FINGERPRINT, subject.combined.as_str());
        }
    });
}

/// The event of what became of an exception.
pub(super) fn usage_event(out: &mut Vec<u8>, place: Option<Place>, used: &Used<'_>) {
    let usage = used.usage;
    let severity = match usage.kind {
        UsageKind::ReliedOn | UsageKind::NotNeeded | UsageKind::Withdrawn => Severity::Info,
        UsageKind::OutOfScope | UsageKind::Ineffective => Severity::Warn,
    };
    let what = (event::USAGE, severity, usage.time);
    event(out, what, place, usage.kind.name(), |list| {
        list.text(own::USAGE_KIND, usage.kind.name());
        list.text(own::DECISION, &usage.decision);
        list.text(own::EXCEPTION, usage.exception.as_str());
        list.count(own::EXCEPTION_REVISION, usage.revision);
        list.text(own::EXCEPTION_TIER, usage.tier.name());
        match usage.kind {
            UsageKind::ReliedOn | UsageKind::NotNeeded => list.flag(own::EXCEPTION_IN_SCOPE, true),
            UsageKind::OutOfScope => list.flag(own::EXCEPTION_IN_SCOPE, false),
            // Something else stood against it first: nobody has looked.
            UsageKind::Ineffective | UsageKind::Withdrawn => {}
        }
        if let Some(dimension) = usage.dimension {
            list.text(own::EXCEPTION_DIMENSION, dimension.name());
        }
        if let Some(scope) = &used.scope {
            list.text(own::EXCEPTION_SCOPE, scope.as_str());
        }
        if let Some(expires) = used.expires {
            list.text(own::EXCEPTION_EXPIRES, &expires.to_string());
        }
        if let Some(remaining) = used.remaining {
            list.count(own::EXCEPTION_REMAINING, remaining);
        }
        list.text(own::USAGE_REASON, &usage.reason);
        list.texts(
            own::CONTROLS_FAILED,
            usage.controls.iter().map(ControlId::as_str),
        );
        list.text(otel::AGENT, usage.subject.as_str());
        list.text(own::ACTION, &usage.action);
        list.text(own::FINGERPRINT, usage.fingerprint.as_str());
        list.text(own::SNAPSHOT, usage.snapshot.as_str());
        list.count(own::SNAPSHOT_REVISION, usage.snapshot_revision);
    });
}

/// The event of an exception that goes from one state to another; whoever did it is told by an
/// opaque reference.
pub(super) fn state_event(out: &mut Vec<u8>, time: Timestamp, change: &StateChange<'_>) {
    let what = (event::STATE_CHANGED, Severity::Info, time);
    event(out, what, None, change.to, |list| {
        list.text(own::EXCEPTION, change.exception);
        list.count(own::EXCEPTION_REVISION, change.revision);
        list.text(own::EXCEPTION_TIER, change.tier);
        list.text(own::EXCEPTION_FROM, change.from);
        list.text(own::EXCEPTION_TO, change.to);
        list.text(own::ACTOR, change.actor);
    });
}

/// An exception that went from one state to another.
#[derive(Clone, Copy, Debug)]
pub struct StateChange<'a> {
    /// Its id.
    pub exception: &'a str,
    /// Its revision since.
    pub revision: u64,
    /// Its tier.
    pub tier: &'a str,
    /// The state before; empty for a new one.
    pub from: &'a str,
    /// The state since.
    pub to: &'a str,
    /// Who did it, as an opaque reference.
    pub actor: &'a str,
}

/// A control that ran.
#[derive(Clone, Copy, Debug)]
pub struct ControlRun<'a> {
    /// Its id.
    pub control: &'a str,
    /// Its revision.
    pub revision: u64,
    /// How many subjects passed, failed and could not be told.
    pub counts: (u64, u64, u64),
}

/// The event of a control that ran.
pub(super) fn run_event(out: &mut Vec<u8>, time: Timestamp, run: &ControlRun<'_>) {
    let (passed, failed, untold) = run.counts;
    let (severity, result) = if failed + untold > 0 {
        (Severity::Warn, "failing")
    } else {
        (Severity::Info, "passing")
    };
    let body = format!("{passed} pass, {failed} fail, {untold} could not be told");
    event(
        out,
        (event::CONTROL_RUN, severity, time),
        None,
        &body,
        |list| {
            list.text(own::CONTROL, run.control);
            list.count(own::CONTROL_REVISION, run.revision);
            list.text(own::CONTROL_RESULT, result);
        },
    );
}
