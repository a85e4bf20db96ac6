//! `CheckRequest` → question, decision → `Decision`.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{Struct, value::Kind};

use crate::{
    domain::{
        Control, ControlResult, Decision, Digest, Effect, ExceptionResult, Facet, Fingerprint,
        Invalid, NextAction, Outcome, Question, Reason, Resource, SeenTool, SubjectId, Timestamp,
        Value, Verdict,
    },
    engine::{Clause, Explanation, NearMiss},
};

use super::{status::Fault, v1};

// reliability §9.3.
const MAX_TEXT: usize = 8 << 10;
const MAX_LIST: usize = 1_000;
const MAX_TOOLS: usize = 1_000;
const MAX_REQUEST_ID: usize = 128;
const MAX_DEPTH: usize = 16;
const MAX_ATTRIBUTES: usize = 256;

/// The question a request asks for the verified `subject`, and whether it wants everything named.
///
/// # Errors
///
/// What is missing, malformed or too large, with its field path.
pub fn question(mut request: v1::CheckRequest, subject: SubjectId) -> Result<Question, Invalid> {
    // Named in the order of the message.
    text(&request.action, true).map_err(|e| e.under("action"))?;
    let mut attributes = 0;
    let resource = request.resource.take();
    let resource =
        resource.ok_or_else(|| Invalid::new("resource", "is missing", "say what is acted upon"))?;
    let resource = described(resource, &mut attributes).map_err(|e| e.under("resource"))?;
    read(request, subject, resource, attributes)
}

/// The question a request without a resource asks about `resource`.
///
/// # Errors
///
/// What is missing, malformed or too large, with its field path.
pub fn about(
    request: v1::CheckRequest,
    subject: SubjectId,
    resource: Resource,
) -> Result<Question, Invalid> {
    read(request, subject, resource, 0)
}

fn read(
    request: v1::CheckRequest,
    subject: SubjectId,
    resource: Resource,
    mut attributes: usize,
) -> Result<Question, Invalid> {
    let v1::CheckRequest {
        subject: _,
        action,
        resource: _,
        context,
        observed,
        explain: _,
        request_id,
        seen_tools,
    } = request;
    if request_id.len() > MAX_REQUEST_ID {
        return Err(Invalid::new(
            "request_id",
            format!("is {} bytes long", request_id.len()),
            format!("use at most {MAX_REQUEST_ID}"),
        ));
    }
    text(&action, true).map_err(|e| e.under("action"))?;
    let mut context = context.unwrap_or_default();
    let mut taken = |name: &str| match context.fields.remove(name).and_then(|value| value.kind) {
        None => Ok(None),
        Some(Kind::StringValue(said)) => text(&said, true)
            .map(|()| Some(said))
            .map_err(|e| e.under(&format!("context.{name}"))),
        Some(_) => Err(Invalid::new(
            format!("context.{name}"),
            "is not text",
            "give a name",
        )),
    };
    let (purpose, actor_kind) = (taken("purpose")?, taken("actor_kind")?);
    let context = entries(Some(context), &mut attributes, 1).map_err(|e| e.under("context"))?;
    let mut digests = Vec::with_capacity(observed.len());
    for (facet, digest) in &observed {
        let under = |error: Invalid| error.under(&format!("observed.{facet}"));
        digests.push((
            Facet::parse_bindable(facet).map_err(under)?,
            Digest::parse(digest).map_err(under)?,
        ));
    }
    Ok(Question {
        subject,
        action,
        resource,
        purpose,
        actor_kind,
        context,
        observed: Fingerprint::new(digests),
        tools: tools(seen_tools)?,
    })
}

/// What is acted upon.
///
/// # Errors
///
/// What is missing, malformed or too large, with its field path.
pub fn resource(resource: v1::Resource) -> Result<Resource, Invalid> {
    described(resource, &mut 0)
}

fn described(resource: v1::Resource, attributes: &mut usize) -> Result<Resource, Invalid> {
    let v1::Resource {
        r#type,
        id,
        properties,
    } = resource;
    text(&r#type, true).map_err(|e| e.under("type"))?;
    text(&id, true).map_err(|e| e.under("id"))?;
    let properties = entries(properties, attributes, 1).map_err(|e| e.under("properties"))?;
    if r#type == "tool"
        && let Some((server, name)) = id.rsplit_once('/')
    {
        for (field, told) in [("server", server), ("name", name)] {
            if properties
                .get(field)
                .is_some_and(|said| said.as_str() != Some(told))
            {
                return Err(Invalid::new(
                    format!("properties.{field}"),
                    "is not what resource.id says",
                    "name one tool, in resource.id",
                ));
            }
        }
    }
    Ok(Resource {
        kind: r#type,
        id,
        properties,
    })
}

/// What was seen of tools, each once.
fn tools(seen: Vec<v1::SeenTool>) -> Result<Vec<SeenTool>, Invalid> {
    if seen.len() > MAX_TOOLS {
        return Err(Invalid::new(
            "seen_tools",
            format!("has {} items", seen.len()),
            format!("send at most {MAX_TOOLS}"),
        ));
    }
    let mut known = BTreeSet::new();
    for (at, tool) in seen.iter().enumerate() {
        let under = |error: Invalid| error.under(&format!("seen_tools[{at}]"));
        text(&tool.server, true).map_err(|e| under(e.under("server")))?;
        text(&tool.name, true).map_err(|e| under(e.under("name")))?;
        Digest::parse(&tool.definition_digest).map_err(|e| under(e.under("definition_digest")))?;
        if !known.insert((&tool.server, &tool.name)) {
            let fix = "say of each tool what it is, once";
            return Err(under(Invalid::new("name", "is there twice", fix)));
        }
    }
    let seen = seen.into_iter().map(|tool| SeenTool {
        server: tool.server.into(),
        name: tool.name.into(),
        definition_digest: tool.definition_digest.into(),
    });
    Ok(seen.collect())
}

/// An item of a batch in the form that is kept of it; a single request is kept as it was sent.
pub fn keep(request: &v1::CheckRequest) -> Vec<u8> {
    request.encode_to_vec()
}

/// The question of a request that was kept.
pub fn kept(bytes: &[u8], subject: SubjectId) -> Option<Question> {
    question(v1::CheckRequest::decode(bytes).ok()?, subject).ok()
}

fn text(text: &str, needed: bool) -> Result<(), Invalid> {
    if needed && text.is_empty() {
        return Err(Invalid::new("", "is missing", "give a name"));
    }
    if text.len() > MAX_TEXT {
        return Err(Invalid::new(
            "",
            format!("is {} bytes long", text.len()),
            format!("use at most {MAX_TEXT}"),
        ));
    }
    Ok(())
}

fn entries(fields: Option<Struct>, attributes: &mut usize, depth: usize) -> Result<Value, Invalid> {
    let Some(Struct { fields }) = fields else {
        return Ok(Value::Map(Box::default()));
    };
    let entries: Result<Vec<_>, Invalid> = fields
        .into_iter()
        .map(|(name, given)| {
            *attributes = attributes.saturating_add(1);
            if *attributes > MAX_ATTRIBUTES {
                return Err(Invalid::new(
                    "",
                    "holds too many attributes",
                    format!("send at most {MAX_ATTRIBUTES}"),
                ));
            }
            text(&name, false)?;
            match value(given, attributes, depth) {
                Ok(value) => Ok((name.into_boxed_str(), value)),
                Err(error) => Err(error.under(&name)),
            }
        })
        .collect();
    // A protobuf map arrives sorted, which is the form a map of ours has.
    Ok(Value::Map(entries?.into()))
}

fn value(
    value_: prost_types::Value,
    attributes: &mut usize,
    depth: usize,
) -> Result<Value, Invalid> {
    if depth > MAX_DEPTH {
        return Err(Invalid::new(
            "",
            "is nested too deeply",
            format!("nest at most {MAX_DEPTH} levels"),
        ));
    }
    let deeper = depth.saturating_add(1);
    match value_.kind {
        None => Err(Invalid::new(
            "",
            "holds no value",
            "set one of the kinds of google.protobuf.Value",
        )),
        Some(Kind::NullValue(_)) => Ok(Value::Null),
        Some(Kind::BoolValue(b)) => Ok(Value::Bool(b)),
        Some(Kind::NumberValue(d)) => number(d),
        Some(Kind::StringValue(said)) => {
            text(&said, false).map(|()| Value::Str(said.into_boxed_str()))
        }
        Some(Kind::StructValue(fields)) => entries(Some(fields), attributes, deeper),
        Some(Kind::ListValue(list)) => {
            if list.values.len() > MAX_LIST {
                return Err(Invalid::new(
                    "",
                    format!("has {} items", list.values.len()),
                    format!("send at most {MAX_LIST}"),
                ));
            }
            let items: Result<Vec<_>, Invalid> = list
                .values
                .into_iter()
                .enumerate()
                .map(|(at, item)| {
                    value(item, attributes, deeper).map_err(|e| e.under(&format!("[{at}]")))
                })
                .collect();
            Ok(Value::List(items?.into()))
        }
    }
}

/// JSON tells no whole numbers from others; conditions do.
#[expect(
    clippy::cast_possible_truncation,
    reason = "only whole numbers that a double holds exactly are converted"
)]
fn number(d: f64) -> Result<Value, Invalid> {
    if !d.is_finite() {
        return Err(Invalid::new("", "is not a finite number", "send a number"));
    }
    let whole = d.fract() == 0.0 && d.abs() <= 9_007_199_254_740_992.0;
    Ok(if whole {
        Value::Int(d as i64)
    } else {
        Value::Double(d)
    })
}

/// What stamps a decision: its id, its time and what it was made from.
#[derive(Clone, Debug)]
pub struct Stamp<'a> {
    /// `dec_` and a UUIDv7.
    pub id: String,
    /// When it was made.
    pub time: Timestamp,
    /// The digest of the snapshot.
    pub digest: &'a str,
    /// Its revision.
    pub revision: u64,
    /// Seconds since the snapshot was confirmed to be current.
    pub age: f64,
}

/// How much of the why is told.
#[derive(Debug)]
pub enum Detail<'a> {
    /// Codes alone: the caller's identity is not verified.
    Codes,
    /// What did not pass and why, for a denial.
    Reasons(&'a [crate::engine::ControlClauses], Option<&'a NearMiss>),
    /// Everything.
    Full(&'a Explanation),
}

/// The decision as a message.
pub fn answer(stamp: Stamp<'_>, decision: &Decision, detail: &Detail<'_>) -> v1::Decision {
    let controls = match detail {
        Detail::Codes => decision
            .failed
            .iter()
            .map(|result| control(result, &[], false))
            .collect(),
        Detail::Reasons(controls, _) if !controls.is_empty() => controls
            .iter()
            .map(|c| control(&c.result, &c.clauses, true))
            .collect(),
        Detail::Reasons(..) => decision
            .failed
            .iter()
            .map(|result| control(result, &[], true))
            .collect(),
        Detail::Full(explanation) => explanation
            .controls
            .iter()
            .map(|c| control(&c.result, &c.clauses, true))
            .collect(),
    };
    let near = match detail {
        Detail::Codes => None,
        Detail::Reasons(_, near) => *near,
        Detail::Full(explanation) => explanation.nearest.as_ref(),
    };
    let blocking = || {
        decision
            .failed
            .iter()
            .filter(|result| result.blocks() && !decision.allows())
    };
    let requestable = if decision.next_action == NextAction::Request {
        blocking()
            .map(|result| result.control.id.to_string())
            .collect()
    } else {
        Vec::new()
    };
    v1::Decision {
        id: stamp.id,
        outcome: match decision.outcome {
            Outcome::Allow => v1::Outcome::Allow,
            Outcome::AllowByException => v1::Outcome::AllowByException,
            Outcome::Deny => v1::Outcome::Deny,
        }
        .into(),
        reasons: decision.reasons.iter().map(|r| reason(*r).into()).collect(),
        time: Some(time(stamp.time)),
        valid_until: (decision.valid_until < Timestamp::MAX).then(|| time(decision.valid_until)),
        snapshot: Some(v1::SnapshotPosition {
            digest: stamp.digest.to_owned(),
            revision: stamp.revision,
            age_seconds: stamp.age,
        }),
        controls_passed: decision.passed,
        controls,
        exceptions: decision.exceptions.iter().map(exception).collect(),
        drift: decision.drift.iter().map(ToString::to_string).collect(),
        next_action: match decision.next_action {
            NextAction::None => v1::NextAction::None,
            NextAction::Request => v1::NextAction::Request,
            NextAction::Retry => v1::NextAction::Retry,
        }
        .into(),
        remedy: blocking()
            .map(|result| &*result.control.remediation)
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_owned(),
        requestable_control_ids: requestable,
        nearest: near.map(nearest),
        // Whoever answers adds it where requests are taken.
        access_request: None,
        stale: match detail {
            Detail::Full(explanation) => explanation.stale.iter().map(nearest).collect(),
            Detail::Codes | Detail::Reasons(..) => Vec::new(),
        },
    }
}

/// A decision or a fault as an item of a batch.
pub fn batch_item(result: Result<v1::Decision, Fault>) -> v1::BatchCheckItem {
    use v1::batch_check_item::Result as Item;
    let result = match result {
        Ok(decision) => Item::Decision(decision),
        Err(fault) => Item::Error(v1::ItemError {
            code: fault.code().into(),
            message: fault.to_string(),
            field: if let Fault::Invalid(invalid) = &fault {
                invalid.path().to_owned()
            } else {
                String::new()
            },
        }),
    };
    v1::BatchCheckItem {
        result: Some(result),
    }
}

fn control(result: &ControlResult, clauses: &[Clause], told: bool) -> v1::ControlResult {
    let control: &Control = &result.control;
    v1::ControlResult {
        control_id: control.id.to_string(),
        revision: control.revision,
        outcome: match result.verdict {
            Verdict::Pass => v1::ControlOutcome::Pass,
            Verdict::Fail => v1::ControlOutcome::Fail,
            Verdict::Indeterminate(_) => v1::ControlOutcome::Indeterminate,
        }
        .into(),
        title: control.title.to_string(),
        enforcement: control.enforcement.name().to_owned(),
        owner: if told {
            control.owner.to_string()
        } else {
            String::new()
        },
        framework_refs: control
            .frameworks
            .iter()
            .map(|f| format!("{}:{}", f.framework, f.id))
            .collect(),
        clauses: clauses
            .iter()
            .map(|clause| v1::Clause {
                text: clause.text.clone(),
                holds: clause.holds,
                reads: clause
                    .reads
                    .iter()
                    .map(|read| v1::AttributeValue {
                        path: read.path.clone(),
                        value: read.value.clone(),
                    })
                    .collect(),
            })
            .collect(),
        remedy: control.remediation.to_string(),
    }
}

fn exception(result: &ExceptionResult) -> v1::ExceptionResult {
    let exception = &result.exception;
    v1::ExceptionResult {
        exception_id: exception.id.to_string(),
        revision: exception.revision,
        effect: match result.effect.name() {
            "RELIED_ON" => v1::ExceptionEffect::ReliedOn,
            "NOT_NEEDED" => v1::ExceptionEffect::NotNeeded,
            "OUT_OF_SCOPE" => v1::ExceptionEffect::OutOfScope,
            _ => v1::ExceptionEffect::Ineffective,
        }
        .into(),
        reason: result
            .effect
            .reason()
            .map_or(v1::Reason::Unspecified, reason)
            .into(),
        dimension: dimension(result.effect),
        tier: exception.tier.name().to_owned(),
        expire_time: Some(time(exception.expire_time)),
    }
}

fn nearest(near: &NearMiss) -> v1::NearestException {
    v1::NearestException {
        exception_id: near.result.exception.id.to_string(),
        reason: near
            .result
            .effect
            .reason()
            .map_or(v1::Reason::Unspecified, reason)
            .into(),
        dimension: dimension(near.result.effect),
        wanted: near.wanted.clone(),
        met: near.met.clone(),
    }
}

fn dimension(effect: Effect) -> String {
    match effect {
        Effect::OutOfScope(dimension) => dimension.name().to_owned(),
        Effect::ContextChanged(facet) => facet.name().to_owned(),
        Effect::CompensationFailed(at) => format!("compensating_conditions[{at}]"),
        _ => String::new(),
    }
}

fn reason(reason: Reason) -> v1::Reason {
    match reason {
        Reason::Ok => v1::Reason::Ok,
        Reason::ControlFailed => v1::Reason::ControlFailed,
        Reason::ControlError => v1::Reason::ControlError,
        Reason::HardMandatory => v1::Reason::HardMandatory,
        Reason::BaselineBreach => v1::Reason::BaselineBreach,
        Reason::NoControl => v1::Reason::NoControl,
        Reason::SubjectUnknown => v1::Reason::SubjectUnknown,
        Reason::SubjectLocked => v1::Reason::SubjectLocked,
        Reason::SubjectRetired => v1::Reason::SubjectRetired,
        Reason::SnapshotStale => v1::Reason::SnapshotStale,
        Reason::ClockSkew => v1::Reason::ClockSkew,
        Reason::ExcExpired => v1::Reason::ExcExpired,
        Reason::ExcNotYetEffective => v1::Reason::ExcNotYetEffective,
        Reason::ExcSuspended => v1::Reason::ExcSuspended,
        Reason::ExcRevoked => v1::Reason::ExcRevoked,
        Reason::ExcContextChanged => v1::Reason::ExcContextChanged,
        Reason::ExcOutOfScope => v1::Reason::ExcOutOfScope,
        Reason::ExcBudgetExhausted => v1::Reason::ExcBudgetExhausted,
        Reason::ExcCompensationFailed => v1::Reason::ExcCompensationFailed,
        Reason::ExcLeaseLapsed => v1::Reason::ExcLeaseLapsed,
        Reason::ExcEvidenceUnavailable => v1::Reason::ExcEvidenceUnavailable,
    }
}

fn time(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000))
            .unwrap_or(0)
            .saturating_mul(1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_code() {
        let mut codes: Vec<i32> = Reason::ALL.iter().map(|r| reason(*r).into()).collect();
        for code in Reason::ALL {
            assert_eq!(
                reason(*code).as_str_name(),
                format!("REASON_{}", code.name())
            );
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn whole_numbers_are_whole() {
        assert_eq!(number(48_210.0), Ok(Value::Int(48_210)));
        assert_eq!(number(0.5), Ok(Value::Double(0.5)));
        assert!(number(f64::NAN).is_err());
    }
}
