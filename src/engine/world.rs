//! Worlds: made-up attributes a control is tried on before it may be in force (R19).

use crate::domain::{
    Exception, Fingerprint, Invalid, Question, Resource, SubjectId, Timestamp, TroubleKind, Value,
    Vector, Verdict,
};

use super::{
    catalogue::{EXCEPTION, REQUEST, SUBJECT, Type, conform},
    change::Refusal,
    condition::{Condition, Frame, Names, Said},
    decide::{Slots, fields},
    index::Rule,
};

/// Attributes for one evaluation of one condition.
#[derive(Clone, Debug)]
pub struct World {
    now: Timestamp,
    subject: Option<Value>,
    resource: Option<Value>,
    exception: Option<Value>,
    question: Option<Question>,
}

/// Why a world cannot be used.
pub type WorldError = Invalid;

impl World {
    /// Reads a world with the keys `now_time`, `subject`, `resource`, `exception` and `request`.
    pub fn parse(world: &Value) -> Result<Self, Invalid> {
        let Value::Map(entries) = world else {
            return Err(Invalid::new(
                "",
                "is not a world",
                "give now_time, subject and request",
            ));
        };
        let (mut now, mut subject, mut resource, mut exception, mut question) =
            (None, None, None, None, None);
        for (name, value) in entries {
            let typed = |shape| {
                conform(value.clone(), Type::Record(shape))
                    .map(Some)
                    .map_err(|e| e.under(name))
            };
            match &**name {
                "now_time" => {
                    now = value
                        .as_str()
                        .map(Timestamp::parse)
                        .transpose()
                        .map_err(|e| e.under(name))?;
                }
                "subject" => subject = typed(&SUBJECT)?,
                "resource" => resource = typed(&SUBJECT)?,
                "exception" => exception = typed(&EXCEPTION)?,
                "request" => {
                    typed(&REQUEST)?;
                    question = Some(request(value).map_err(|e| e.under(name))?);
                }
                _ => {
                    return Err(Invalid::new(
                        &**name,
                        "is no part of a world",
                        "use now_time, subject, resource, exception or request",
                    ));
                }
            }
        }
        let now = now.ok_or_else(|| {
            Invalid::new(
                "now_time",
                "is missing",
                "say when it is, such as `2026-11-22T12:00:00Z`",
            )
        })?;
        Ok(Self {
            now,
            subject,
            resource,
            exception,
            question,
        })
    }

    /// What a condition says here.
    pub fn judge(&self, condition: &Condition, names: &Names) -> Verdict {
        let slots = self
            .question
            .as_ref()
            .map(|question| slots(question, names))
            .unwrap_or_default();
        let mut frame = Frame::new(self.now);
        frame.subject = self.subject.as_ref().and_then(fields);
        frame.resource = self.resource.as_ref().and_then(fields);
        frame.exception = self.exception.as_ref().and_then(fields);
        frame.question = self.question.as_ref();
        frame.tool = self
            .question
            .as_ref()
            .and_then(|question| question.resource.tool());
        frame.slots = &slots;
        match condition.holds(&frame) {
            Ok(false) => Verdict::Pass,
            Ok(true) => Verdict::Fail,
            Err(trouble) => Verdict::Indeterminate(trouble),
        }
    }
}

/// A question from a world's `request`; its tool is a resource of type `tool`.
fn request(value: &Value) -> Result<Question, Invalid> {
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let tool = value.get("tool");
    let said = value.get("resource");
    let resource = match (tool, said) {
        (Some(tool), _) => Resource {
            kind: "tool".into(),
            id: format!(
                "{}/{}",
                text(tool, "server").unwrap_or_default(),
                text(tool, "name").unwrap_or_default()
            ),
            properties: tool.clone(),
        },
        (None, said) => Resource {
            kind: said.and_then(|said| text(said, "type")).unwrap_or_default(),
            id: said.and_then(|said| text(said, "id")).unwrap_or_default(),
            properties: said
                .and_then(|said| said.get("properties"))
                .cloned()
                .unwrap_or_else(|| Value::map([])),
        },
    };
    Ok(Question {
        subject: SubjectId::parse("world")?,
        action: text(value, "action").unwrap_or_default(),
        resource,
        purpose: text(value, "purpose"),
        actor_kind: text(value, "actor_kind"),
        context: value
            .get("context")
            .cloned()
            .unwrap_or_else(|| Value::map([])),
        observed: Fingerprint::default(),
        tools: Vec::new(),
    })
}

/// The request's context matched once against what conditions read of it.
pub(super) fn slots<'a>(question: &'a Question, names: &Names) -> Slots<'a> {
    let of = |said: &Said| match said {
        Said::Context => &question.context,
        Said::Property => &question.resource.properties,
    };
    names
        .entries
        .iter()
        .map(|(said, name)| of(said).get(name))
        .collect()
}

/// Tries a control on each of its worlds.
pub(super) fn check_vectors(rule: &Rule, names: &Names) -> Result<(), Refusal> {
    for (at, vector) in rule.control.vectors.iter().enumerate() {
        let verdict = run_vector(vector, &rule.fails, names)
            .map_err(|e| e.under(&format!("test_vectors[{at}].world")))?;
        let (wanted, fits) = if vector.pass {
            ("PASS", verdict == Verdict::Pass)
        } else {
            ("FAIL", verdict == Verdict::Fail)
        };
        if !fits {
            let got = match verdict {
                Verdict::Pass => "PASS".to_owned(),
                Verdict::Fail => "FAIL".to_owned(),
                Verdict::Indeterminate(trouble) => format!(
                    "neither: {}",
                    describe(trouble.kind, rule.fails.source(), trouble.at)
                ),
            };
            let path = format!("test_vectors[{at}].expect");
            return Err(Invalid::new(
                path,
                format!(
                    "`{}` expects {wanted}, the condition says {got}",
                    vector.name
                ),
                "correct the condition or the world",
            )
            .into());
        }
    }
    Ok(())
}

/// What a condition says about one world of its control.
pub fn run_vector(
    vector: &Vector,
    condition: &Condition,
    names: &Names,
) -> Result<Verdict, Invalid> {
    Ok(World::parse(&vector.world)?.judge(condition, names))
}

/// A trouble with the place it points to.
pub(super) fn describe(kind: TroubleKind, source: &str, at: u32) -> String {
    let rest = source.get(at as usize..).unwrap_or_default();
    let end = rest
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.')))
        .unwrap_or(rest.len());
    match rest.get(..end) {
        Some(near) if !near.is_empty() => format!("{} at `{near}`", kind.describe()),
        Some(_) | None => kind.describe(),
    }
}

/// What an exception's own conditions read as `exception`.
pub(super) fn exception_record(exception: &Exception) -> Value {
    let text = |text: &str| Some(Value::str(text));
    let places = EXCEPTION.fields.iter().map(|field| match field.name {
        "id" => text(exception.id.as_str()),
        "tier" => text(exception.tier.name()),
        "deviation_type" => text(exception.deviation.name()),
        "domain" => exception
            .domain
            .as_ref()
            .and_then(|domain| text(domain.as_str())),
        "effective_time" => Some(Value::Time(exception.effective_time)),
        "expire_time" => Some(Value::Time(exception.expire_time)),
        "owner" => Some(Value::Record([text(exception.owner.as_str()), None].into())),
        "evidence" => Some(Value::List(
            exception
                .evidence
                .iter()
                .map(|evidence| Value::Str(evidence.id.clone()))
                .collect(),
        )),
        "renewal_count" => Some(Value::Int(i64::from(exception.renewal_count))),
        // Counters and closure belong to scheduled runs; here they are not known.
        _ => None,
    });
    Value::Record(places.collect())
}
