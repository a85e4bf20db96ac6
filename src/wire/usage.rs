//! Usage records, both ways.

use prost::Message as _;
use prost_types::{Struct, value};
use sha2::{Digest as _, Sha256};

use crate::domain::{
    ClassId, ControlId, Digest, Dimension, ExceptionId, Invalid, Lease, Sensitivity, Span,
    SubjectId, Tier, Trace, Usage, UsageKind,
};

use super::{
    encoded,
    sync::{stamp, time},
    v1,
};

fn kind_message(kind: UsageKind) -> v1::UsageKind {
    match kind {
        UsageKind::ReliedOn => v1::UsageKind::ReliedOn,
        UsageKind::NotNeeded => v1::UsageKind::NotNeeded,
        UsageKind::OutOfScope => v1::UsageKind::OutOfScope,
        UsageKind::Ineffective => v1::UsageKind::Ineffective,
        UsageKind::Withdrawn => v1::UsageKind::Withdrawn,
    }
}

/// Most decisions that one record stands for.
const MOST: u64 = 1_000_000_000;

/// A record's bytes, of one start of a sidecar.
pub fn usage_record(usage: &Usage, start: u64) -> Vec<u8> {
    encoded(&usage_message(usage, start))
}

fn usage_message(usage: &Usage, start: u64) -> v1::UsageRecord {
    let text = |text: &str| text.to_owned();
    let micros = |span: Span| u64::try_from(span.micros()).unwrap_or(0);
    let (removals, state) = match usage.lease {
        Lease::Local => (None, None),
        Lease::Follows { removals, state } => (Some(micros(removals)), Some(micros(state))),
    };
    v1::UsageRecord {
        time: Some(stamp(usage.time)),
        decision_id: text(&usage.decision),
        kind: kind_message(usage.kind).into(),
        count: usage.count,
        exception_id: usage.exception.to_string(),
        exception_revision: usage.revision,
        tier: text(usage.tier.name()),
        control_ids: usage.controls.iter().map(ToString::to_string).collect(),
        dimension: usage.dimension.map_or_else(String::new, |d| text(d.name())),
        reason: text(&usage.reason),
        subject: usage.subject.to_string(),
        class_id: usage
            .class
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        action: text(&usage.action),
        resource_type: text(&usage.resource_type),
        resource_id: text(&usage.resource),
        environment: text(&usage.environment),
        purpose: usage.purpose.as_deref().map(text),
        data_sensitivity: text(usage.sensitivity.name()),
        fingerprint: usage.fingerprint.to_string(),
        question_digest: usage.question.to_string(),
        request_id: usage.request.as_deref().map(text),
        snapshot_revision: usage.snapshot_revision,
        snapshot_digest: usage.snapshot.to_string(),
        start,
        ordinal: usage.ordinal,
        trace_id: usage.trace.map_or_else(Vec::new, |t| t.trace.to_vec()),
        span_id: usage.trace.map_or_else(Vec::new, |t| t.span.to_vec()),
        withdraws: usage.withdraws,
        clock_uncertainty_micros: micros(usage.uncertainty),
        removals_age_micros: removals,
        state_age_micros: state,
    }
}

/// What a record says.
///
/// # Errors
///
/// The field that is wrong.
pub fn usage(message: v1::UsageRecord) -> Result<Usage, Invalid> {
    let fix = "use a sidecar of this version";
    let wrong = |path: &str| Invalid::new(path, "is not known", fix);
    let kind = match message.kind() {
        v1::UsageKind::ReliedOn => UsageKind::ReliedOn,
        v1::UsageKind::NotNeeded => UsageKind::NotNeeded,
        v1::UsageKind::OutOfScope => UsageKind::OutOfScope,
        v1::UsageKind::Ineffective => UsageKind::Ineffective,
        v1::UsageKind::Withdrawn => UsageKind::Withdrawn,
        v1::UsageKind::Unspecified => return Err(wrong("kind")),
    };
    let most = if kind == UsageKind::NotNeeded {
        MOST
    } else {
        1
    };
    if message.count == 0 || message.count > most {
        return Err(Invalid::new("count", "is not how many it stands for", fix));
    }
    let dimension = match &*message.dimension {
        "" => None,
        name => {
            let mut all = Dimension::ALL.into_iter();
            let known = all.find(|dimension| dimension.name() == name);
            Some(known.ok_or_else(|| wrong("dimension"))?)
        }
    };
    let class = Some(&*message.class_id).filter(|class| !class.is_empty());
    let trace = match (&*message.trace_id, &*message.span_id) {
        ([], []) => None,
        (trace, span) => Some(Trace {
            trace: trace.try_into().map_err(|_| wrong("trace_id"))?,
            span: span.try_into().map_err(|_| wrong("span_id"))?,
            sampled: false,
        }),
    };
    let span = |micros: u64| Span::from_micros(i64::try_from(micros).unwrap_or(i64::MAX));
    let lease = match (message.removals_age_micros, message.state_age_micros) {
        (None, None) => Lease::Local,
        (removals, state) => Lease::Follows {
            removals: removals.map_or(Span::MAX, span),
            state: state.map_or(Span::MAX, span),
        },
    };
    let controls = message.control_ids.iter();
    Ok(Usage {
        time: time("time", message.time)?,
        decision: message.decision_id.into(),
        kind,
        count: message.count,
        exception: ExceptionId::parse(&message.exception_id)
            .map_err(|e| e.under("exception_id"))?,
        revision: message.exception_revision,
        tier: Tier::parse(&message.tier).ok_or_else(|| wrong("tier"))?,
        controls: controls
            .map(|id| ControlId::parse(id).map_err(|e| e.under("control_ids")))
            .collect::<Result<_, _>>()?,
        dimension,
        reason: message.reason.into(),
        subject: SubjectId::parse(&message.subject).map_err(|e| e.under("subject"))?,
        class: class
            .map(ClassId::parse)
            .transpose()
            .map_err(|e| e.under("class_id"))?,
        action: message.action.into(),
        resource_type: message.resource_type.into(),
        resource: message.resource_id.into(),
        environment: message.environment.into(),
        purpose: message.purpose.map(Into::into),
        sensitivity: Sensitivity::parse(&message.data_sensitivity)
            .ok_or_else(|| wrong("data_sensitivity"))?,
        fingerprint: Digest::parse(&message.fingerprint).map_err(|e| e.under("fingerprint"))?,
        question: Digest::parse(&message.question_digest)
            .map_err(|e| e.under("question_digest"))?,
        request: message.request_id.map(Into::into),
        snapshot_revision: message.snapshot_revision,
        snapshot: Digest::parse(&message.snapshot_digest)
            .map_err(|e| e.under("snapshot_digest"))?,
        uncertainty: span(message.clock_uncertainty_micros),
        lease,
        ordinal: message.ordinal,
        trace,
        withdraws: message.withdraws,
    })
}

/// Whether the question held no more than is recorded: one that is written from the record has the
/// digest of the one that was sent.
pub fn is_whole(usage: &Usage) -> bool {
    let purpose = usage.purpose.as_deref().map(|purpose| Struct {
        fields: [(
            "purpose".to_owned(),
            prost_types::Value {
                kind: Some(value::Kind::StringValue(purpose.to_owned())),
            },
        )]
        .into(),
    });
    let contexts: &[Option<Struct>] = match purpose {
        Some(purpose) => &[Some(purpose)],
        None => &[None, Some(Struct::default())],
    };
    let written = |subject: &str, properties, context: &Option<Struct>, explain| {
        let request = v1::CheckRequest {
            subject: subject.to_owned(),
            action: usage.action.to_string(),
            resource: Some(v1::Resource {
                r#type: usage.resource_type.to_string(),
                id: usage.resource.to_string(),
                properties,
            }),
            context: context.clone(),
            observed: std::collections::BTreeMap::default(),
            explain,
            request_id: usage.request.as_deref().unwrap_or_default().to_owned(),
            ..v1::CheckRequest::default()
        };
        let sum: [u8; 32] = Sha256::digest(request.encode_to_vec()).into();
        Digest::of_sha256(&sum) == usage.question
    };
    [usage.subject.as_str(), ""].into_iter().any(|subject| {
        [None, Some(Struct::default())]
            .into_iter()
            .any(|properties| {
                contexts.iter().any(|context| {
                    [false, true]
                        .into_iter()
                        .any(|explain| written(subject, properties.clone(), context, explain))
                })
            })
    })
}
