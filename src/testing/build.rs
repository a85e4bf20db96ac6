//! Short builders: each makes the plainest valid value of its kind, for tests to change.

use crate::{
    domain::{
        Case, Completeness, Control, ControlId, ControlState, Deviation, Digest, Enforcement,
        EvidenceNeed, Exception, ExceptionId, ExceptionState, Facet, FacetState, Fingerprint,
        Justification, Lifecycle, OnError, Principal, Question, Reach, Request, Resource, Scope,
        Selector, Sensitivity, Set, Severity, Span, Subject, SubjectId, Tier, Timestamp,
        UsageLimits, Value, Window,
    },
    engine::{Change, Snapshot, catalogue},
};

/// Noon of 2026-11-22, when everything in tests happens.
pub fn noon() -> Timestamp {
    Timestamp::from_micros(1_795_348_800_000_000)
}

fn digest(text: &str) -> Digest {
    parsed(Digest::parse(text))
}

#[expect(clippy::panic, reason = "a builder's own constants are valid")]
fn parsed<T>(value: Result<T, crate::domain::Invalid>) -> T {
    match value {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// A `SOFT_MANDATORY` control held against every question.
pub fn control(id: &str, failure_condition: &str) -> Control {
    Control {
        id: parsed(ControlId::parse(id)),
        revision: 1,
        meaning: None,
        title: "made for a test".into(),
        description: "".into(),
        remediation: "mend it".into(),
        failure_condition: failure_condition.into(),
        applies_to: Reach::default(),
        params: Value::map([]),
        runtime: true,
        schedule: None,
        owner: parsed(Principal::parse("user:owner")),
        owner_role: "".into(),
        stands_in: false,
        evidence: vec![EvidenceNeed {
            source: "a test".into(),
            facets: vec![],
            max_age: None,
            complete: true,
        }],
        severity: Severity::Medium,
        enforcement: Enforcement::SoftMandatory,
        baseline_gate: false,
        on_error: OnError::Fail,
        frameworks: vec![],
        vectors: vec![],
        // In force, and needs no vectors.
        state: ControlState::Deprecated,
    }
}

/// An ACTIVE agent in `prod` of HIGH risk whose facets were all observed an hour before noon.
pub fn subject(id: &str) -> Subject {
    let text = |text: &str| Value::str(text);
    let attributes = Value::map([
        ("id".into(), text(id)),
        ("kind".into(), text("AI_AGENT")),
        ("environment".into(), text("prod")),
        ("risk_tier".into(), text("HIGH")),
        ("data_sensitivity".into(), text("INTERNAL")),
        ("lifecycle_state".into(), text("ACTIVE")),
    ]);
    let state = FacetState {
        source: "a test".into(),
        observed_time: Timestamp::from_micros(
            noon().micros().saturating_sub(Span::from_hours(1).micros()),
        ),
        completeness: Completeness::Complete,
    };
    Subject {
        id: parsed(SubjectId::parse(id)),
        class: None,
        domain: None,
        lifecycle: Lifecycle::Active,
        risk_tier: Tier::High,
        data_sensitivity: Sensitivity::Internal,
        environment: "prod".into(),
        lock: None,
        facets: Facet::ALL
            .into_iter()
            .map(|facet| (facet, state.clone()))
            .collect(),
        fingerprint: Fingerprint::new(
            Facet::BINDABLE
                .into_iter()
                .map(|facet| (facet, digest(&format!("sha256:{facet}")))),
        ),
        combined: digest("sha256:all"),
        instances: None,
        lease_expire_time: None,
        attributes: parsed(catalogue::conform(
            attributes,
            catalogue::Type::Record(&catalogue::SUBJECT),
        )),
    }
}

/// An APPROVED LOW exception of `subject` from `controls`, from an hour before noon to an hour after.
pub fn exception(id: &str, controls: &[&str], subject: &str) -> Exception {
    let hour = Span::from_hours(1);
    Exception {
        id: parsed(ExceptionId::parse(id)),
        revision: 1,
        controls: controls
            .iter()
            .map(|id| parsed(ControlId::parse(id)))
            .collect(),
        deviation: Deviation::Waiver,
        justification: Some(Box::new(Justification {
            business_need: "made for a test, and long enough to be accepted".into(),
            risk_statement: "made for a test, and long enough to be accepted".into(),
            remediation_plan: "the test ends some time".into(),
            ticket_ref: "T-1".into(),
        })),
        scope: Scope {
            subjects: Selector::Ids([parsed(SubjectId::parse(subject))].into()),
            actions: Set::Of(["tools/call".into()].into()),
            resources: Set::Any,
            environments: Set::Of(["prod".into()].into()),
            purposes: Set::Of(["testing".into()].into()),
            data_sensitivity_max: None,
            match_condition: None,
        },
        bound: Fingerprint::new(
            [Facet::Model, Facet::Tools, Facet::Purpose]
                .map(|facet| (facet, digest(&format!("sha256:{facet}")))),
        ),
        compensating_conditions: vec![],
        usage_limits: UsageLimits::default(),
        effective_time: Timestamp::from_micros(noon().micros().saturating_sub(hour.micros())),
        expire_time: noon() + hour,
        next_revalidation_time: None,
        revalidated_time: None,
        owner: parsed(Principal::parse("user:owner")),
        requester: parsed(Principal::parse("agent:asker")),
        domain: None,
        tier: Tier::Low,
        evidence: vec![],
        incident: None,
        defect: None,
        renewal_count: 0,
        approval: None,
        state: ExceptionState::Approved,
    }
}

/// `subject` wants to call the tool `mcp://crm/search` for testing.
pub fn question(subject: &str) -> Question {
    Question {
        subject: parsed(SubjectId::parse(subject)),
        action: "tools/call".into(),
        resource: Resource {
            kind: "tool".into(),
            id: "mcp://crm/search".into(),
            properties: Value::map([]),
        },
        purpose: Some("testing".into()),
        actor_kind: None,
        context: Value::map([]),
        observed: Fingerprint::default(),
        tools: Vec::new(),
    }
}

/// A snapshot of exactly these.
///
/// # Panics
///
/// If they may not exist.
#[expect(
    clippy::panic,
    reason = "a test that builds what may not exist should hear of it"
)]
pub fn snapshot(changes: Vec<Change>) -> Snapshot {
    match Snapshot::empty(digest("sha256:empty")).after(changes, digest("sha256:test"), 1) {
        Ok(snapshot) => snapshot,
        Err(errors) => panic!(
            "{}",
            errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        ),
    }
}

/// What `agent:asker` asks for on behalf of `user:asker`: an hour's waiver of `controls` for
/// `subject`, from the approval on.
pub fn request(controls: &[&str], subject: &str) -> Request {
    let Exception {
        controls,
        deviation,
        justification,
        scope,
        owner,
        ..
    } = exception("EX-0", controls, subject);
    Request {
        controls,
        deviation,
        justification: justification.map_or_else(
            || parsed(Err(crate::domain::Invalid::new("", "is missing", ""))),
            |justification| *justification,
        ),
        scope,
        compensating_conditions: vec![],
        usage_limits: UsageLimits::default(),
        bound_facets: vec![],
        window: Window::OnApproval {
            duration: Span::from_hours(1),
        },
        owner,
        on_behalf_of: Some(parsed(Principal::parse("user:asker"))),
        domain: None,
        evidence: vec![],
        incident: None,
        defect: None,
        renews: None,
        preemptive: false,
        decision: None,
        text: "{}".into(),
    }
}

/// A draft of that request.
pub fn case(id: &str, controls: &[&str], subject: &str) -> Case {
    Case {
        id: parsed(ExceptionId::parse(id)),
        requester: parsed(Principal::parse("agent:asker")),
        request: request(controls, subject),
        state: ExceptionState::Draft,
        reason: "being written".into(),
        since: noon(),
        created: noon(),
        terms: None,
        again: None,
        votes: vec![],
        granted: None,
        debt: None,
        paused: None,
        anew: None,
    }
}
