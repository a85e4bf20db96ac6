//! The attribute catalogue: the names conditions may read, their types and how many there may be.

use crate::domain::{Invalid, Span, Timestamp, Value};

/// The type of an attribute or expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// Any other number.
    Double,
    /// Text.
    Str,
    /// An instant.
    Time,
    /// A length of time.
    Span,
    /// JSON's null.
    Null,
    /// Known only when a question is asked.
    Dyn,
    /// A list of at most so many items.
    List(&'static Self, u32),
    /// A map from text.
    Map(&'static Self),
    /// A record of the catalogue.
    Record(&'static Shape),
}

/// A record of the catalogue.
#[derive(Debug)]
pub struct Shape {
    /// What it is called in messages.
    pub name: &'static str,
    /// Its fields; their order is the order of a record's places.
    pub fields: &'static [Field],
}

/// One field of a record.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
}

// The address tells shapes apart; their contents are compile-time constants.
impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Shape {
    /// The place of the field called `name`.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

impl Type {
    /// The type in CEL's words.
    pub fn name(self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int => "int".into(),
            Self::Double => "double".into(),
            Self::Str => "string".into(),
            Self::Time => "timestamp".into(),
            Self::Span => "duration".into(),
            Self::Null => "null".into(),
            Self::Dyn => "dyn".into(),
            Self::List(of, _) => format!("list({})", of.name()),
            Self::Map(of) => format!("map(string, {})", of.name()),
            Self::Record(shape) => shape.name.into(),
        }
    }
}

/// What stands at a path of names below `value`, a subject's attributes.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let mut shape = &SUBJECT;
    let mut found = value;
    for (depth, name) in path.iter().enumerate() {
        found = field(found, shape, name)?;
        if depth.saturating_add(1) < path.len() {
            let place = shape.place(name)?;
            let Record(inner) = shape.fields.get(place)?.kind else {
                return None;
            };
            shape = inner;
        }
    }
    Some(found)
}

/// The field called `name` of a record of `shape`.
pub fn field<'a>(value: &'a Value, shape: &Shape, name: &str) -> Option<&'a Value> {
    match value {
        Value::Record(fields) => fields.get(shape.place(name)?)?.as_ref(),
        _ => None,
    }
}

macro_rules! shape {
    ($(#[$doc:meta])* $id:ident, $name:literal, { $($field:ident: $kind:expr,)* }) => {
        $(#[$doc])*
        pub static $id: Shape = Shape {
            name: $name,
            fields: &[$(Field { name: stringify!($field), kind: $kind },)*],
        };
    };
}

/// A list of short texts.
const fn texts(most: u32) -> Type {
    Type::List(&Str, most)
}

/// A list of records.
macro_rules! records {
    ($shape:ident, $most:literal) => {
        Type::List(&Type::Record(&$shape), $most)
    };
}

use Type::{Bool, Double, Int, Record, Str, Time};

shape!(
    /// `subject.owner`.
    OWNER, "owner", { principal: Str, active: Bool, attest_time: Time, }
);
shape!(
    /// `subject.purpose`.
    PURPOSE, "purpose", { permitted_ids: texts(64), statement: Str, }
);
shape!(
    /// `subject.model`.
    MODEL, "model", { provider: Str, name: Str, version: Str, digest: Str, deprecated: Bool, }
);
shape!(
    /// `subject.lineage.datasets[]`.
    DATASET, "dataset", { id: Str, digest: Str, sensitivity: Str, provenance_verified: Bool, }
);
shape!(
    /// `subject.lineage`.
    LINEAGE, "lineage", { complete: Bool, base_model: Str, datasets: records!(DATASET, 256), }
);
shape!(
    /// `subject.tools[]`.
    TOOL, "tool", {
        server: Str, name: Str, definition_digest: Str, permissions: texts(32), third_party: Bool,
        approved: Bool, review_time: Time, last_used_time: Time,
    }
);
shape!(
    /// `subject.prompts[]`.
    PROMPT, "prompt", { id: Str, digest: Str, }
);
shape!(
    /// `subject.data_sources[]`.
    DATA_SOURCE, "data source", { id: Str, sensitivity: Str, approved: Bool, }
);
shape!(
    /// `subject.credentials[]`; ids, kinds, times and flags, never a secret's value (R21).
    CREDENTIAL, "credential", {
        id: Str, kind: Str, state: Str, issue_time: Time, expire_time: Time, last_used_time: Time,
        scopes: texts(32), environments: texts(8), bound_subjects: texts(32), store: Str,
        exposed: Bool,
    }
);
shape!(
    /// `subject.approvals[]`.
    APPROVAL, "approval", {
        kind: Str, model_digest: Str, fingerprint: Str, requester: Str, approvers: texts(8),
        effective_time: Time, expire_time: Time,
    }
);
shape!(
    /// `subject.fingerprint`.
    FINGERPRINT, "fingerprint", {
        combined: Str, model: Str, tools: Str, prompts: Str, data_sources: Str, permissions: Str,
        credentials_scopes: Str, environment: Str, purpose: Str,
    }
);
shape!(
    /// `subject` and `resource`: what is governed about either.
    SUBJECT, "subject", {
        id: Str, kind: Str, class_id: Str, domain: Str, region: Str, environment: Str,
        owner: Record(&OWNER), backup_owner: Str, purpose: Record(&PURPOSE), risk_tier: Str,
        data_sensitivity: Str, lifecycle_state: Str, model: Record(&MODEL),
        lineage: Record(&LINEAGE), tools: records!(TOOL, 256), prompts: records!(PROMPT, 256),
        data_sources: records!(DATA_SOURCE, 128), credentials: records!(CREDENTIAL, 64),
        approvals: records!(APPROVAL, 16), fingerprint: Record(&FINGERPRINT),
        metadata_update_time: Time, heartbeat_time: Time,
    }
);
shape!(
    /// `exception.owner`.
    EXCEPTION_OWNER, "owner", { principal: Str, active: Bool, }
);
shape!(
    /// `exception`: known in scheduled runs over exceptions and in an exception's own conditions.
    EXCEPTION, "exception", {
        id: Str, tier: Str, deviation_type: Str, domain: Str, effective_state: Str, effective_time: Time,
        expire_time: Time, owner: Record(&EXCEPTION_OWNER), evidence: texts(32), renewal_count: Int,
        coverage_ratio_365d: Double, closure_state: Str, closure_due_time: Time,
        relied_on_count_30d: Int, out_of_scope_attempts_24h: Int, usage_gap_count: Int,
    }
);
shape!(
    /// `request.tool`.
    REQUEST_TOOL, "tool", { server: Str, name: Str, definition_digest: Str, }
);
shape!(
    /// `request.resource`.
    REQUEST_RESOURCE, "resource", { type: Str, id: Str, properties: Type::Map(&Type::Dyn), }
);
shape!(
    /// `request`: what the caller asserts.
    REQUEST, "request", {
        action: Str, tool: Record(&REQUEST_TOOL), purpose: Str, actor_kind: Str,
        resource: Record(&REQUEST_RESOURCE), context: Type::Map(&Type::Dyn),
    }
);

/// Longest text of a catalogue attribute, in bytes.
pub const LONGEST_TEXT: usize = 512;

/// The value in the form the catalogue gives it: texts become times and records, and what is
/// unknown, of another type or too long is refused with its path.
pub fn conform(value: Value, kind: Type) -> Result<Value, Invalid> {
    let wrong = |value: &Value| {
        Err(Invalid::new(
            "",
            format!(
                "is {} where {} belongs",
                article(value.as_ref().kind()),
                kind.name()
            ),
            "",
        ))
    };
    match (kind, value) {
        (Type::Dyn, value)
        | (Bool, value @ Value::Bool(_))
        | (Int, value @ Value::Int(_))
        | (Double, value @ Value::Double(_))
        | (Time, value @ Value::Time(_))
        | (Type::Span, value @ Value::Span(_))
        | (Type::Null, value @ Value::Null) => Ok(value),
        #[expect(
            clippy::cast_precision_loss,
            reason = "CEL's double(int) rounds as well"
        )]
        (Double, Value::Int(i)) => Ok(Value::Double(i as f64)),
        (Str, Value::Str(text)) => {
            if text.len() > LONGEST_TEXT {
                return Err(Invalid::new(
                    "",
                    format!("is {} bytes long", text.len()),
                    "use at most 512 bytes",
                ));
            }
            Ok(Value::Str(text))
        }
        (Time, Value::Str(text)) => Timestamp::parse(&text).map(Value::Time),
        (Type::Span, Value::Str(text)) => Span::parse(&text).map(Value::Span),
        (Type::List(of, most), Value::List(items)) => {
            if items.len() > most as usize {
                return Err(Invalid::new(
                    "",
                    format!("has {} items", items.len()),
                    format!("use at most {most}"),
                ));
            }
            let items: Result<Vec<_>, _> = items
                .into_iter()
                .enumerate()
                .map(|(at, item)| conform(item, *of).map_err(|e| e.under(&format!("[{at}]"))))
                .collect();
            Ok(Value::List(items?.into()))
        }
        (Type::Map(of), Value::Map(entries)) => {
            let entries: Result<Vec<_>, _> = entries
                .into_iter()
                .map(|(name, value)| match conform(value, *of) {
                    Ok(value) => Ok((name, value)),
                    Err(error) => Err(error.under(&name)),
                })
                .collect();
            Ok(Value::Map(entries?.into()))
        }
        (Record(shape), Value::Map(entries)) => {
            let mut places: Vec<Option<Value>> = shape.fields.iter().map(|_| None).collect();
            for (name, value) in entries {
                let field = shape
                    .place(&name)
                    .and_then(|at| Some((shape.fields.get(at)?, places.get_mut(at)?)));
                let Some((field, place)) = field else {
                    let known: Vec<_> = shape.fields.iter().map(|field| field.name).collect();
                    return Err(Invalid::new(
                        &*name,
                        format!("is no attribute of {}", shape.name),
                        format!("use one of {}", known.join(", ")),
                    ));
                };
                *place = match value {
                    // An attribute that is null is an attribute that is not there.
                    Value::Null => None,
                    value => Some(conform(value, field.kind).map_err(|e| e.under(&name))?),
                };
            }
            Ok(Value::Record(places.into()))
        }
        (
            Bool
            | Int
            | Double
            | Str
            | Time
            | Type::Span
            | Type::Null
            | Type::List(..)
            | Type::Map(_)
            | Record(_),
            value,
        ) => wrong(&value),
    }
}

fn article(kind: &str) -> String {
    if kind.starts_with(['a', 'e', 'i', 'o']) {
        format!("an {kind}")
    } else {
        format!("a {kind}")
    }
}

/// The type of a constant; a list or map of unlike values holds `dyn`.
pub fn type_of(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Bool,
        Value::Int(_) => Int,
        Value::Double(_) => Double,
        Value::Str(_) => Str,
        Value::Time(_) => Time,
        Value::Span(_) => Type::Span,
        Value::List(items) => Type::List(
            common(items.iter().map(type_of)),
            u32::try_from(items.len()).unwrap_or(u32::MAX),
        ),
        Value::Map(entries) => Type::Map(common(entries.iter().map(|(_, value)| type_of(value)))),
        Value::Record(_) => Type::Dyn,
    }
}

/// The one type of several, or `dyn`.
pub(crate) fn common(mut kinds: impl Iterator<Item = Type>) -> &'static Type {
    let Some(first) = kinds.next() else {
        return &Type::Dyn;
    };
    if kinds.all(|kind| kind == first) {
        lasting(first)
    } else {
        &Type::Dyn
    }
}

/// The same type with static life; nested lists and maps of constants are known only as `dyn`.
pub(crate) fn lasting(kind: Type) -> &'static Type {
    match kind {
        Bool => &Bool,
        Int => &Int,
        Double => &Double,
        Str => &Str,
        Time => &Time,
        Type::Span => &Type::Span,
        Type::Null => &Type::Null,
        Type::Dyn | Type::List(..) | Type::Map(_) | Record(_) => &Type::Dyn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::map(
            entries
                .iter()
                .map(|(name, value)| ((*name).into(), value.clone())),
        )
    }

    #[test]
    fn what_does_not_conform_is_named_by_its_path() {
        let wrong = map(&[(
            "credentials",
            Value::List([map(&[("issue_time", Value::str("soon"))])].into()),
        )]);
        let error = conform(wrong, Record(&SUBJECT)).expect_err("no such time");
        assert_eq!(error.path(), "credentials[0].issue_time");
        let unknown = map(&[("modle", Value::str("x"))]);
        assert_eq!(
            conform(unknown, Record(&SUBJECT))
                .expect_err("unknown")
                .path(),
            "modle"
        );
        let typed = map(&[("owner", map(&[("active", Value::str("yes"))]))]);
        assert_eq!(
            conform(typed, Record(&SUBJECT)).expect_err("typed").path(),
            "owner.active"
        );
    }
}
