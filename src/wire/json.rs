//! JSON as it is read from others, and as protobuf's own values.

use std::{collections::HashSet, fmt};

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use crate::domain::Invalid;

/// Whether a content type says that it is JSON.
pub(super) fn is_json(kind: &[u8]) -> bool {
    let first = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    first.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// The JSON that somebody sent, and said to be that.
///
/// # Errors
///
/// What it is not.
pub fn sent(kind: Option<&[u8]>, body: &[u8]) -> Result<Json, Invalid> {
    if !kind.is_some_and(is_json) {
        let fix = "send JSON, and say so";
        return Err(Invalid::new("Content-Type", "is not application/json", fix));
    }
    strict(body)
        .map_err(|error| Invalid::new("", format!("the body is no JSON: {error}"), "send JSON"))
}

/// JSON in which no name is said twice: of two values readers do not take the same one (I-JSON).
struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<Json, E> {
        Ok(b.into())
    }

    fn visit_i64<E: Error>(self, i: i64) -> Result<Json, E> {
        Ok(i.into())
    }

    fn visit_u64<E: Error>(self, u: u64) -> Result<Json, E> {
        Ok(u.into())
    }

    fn visit_f64<E: Error>(self, d: f64) -> Result<Json, E> {
        Ok(d.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let (mut map, mut seen) = (Map::new(), HashSet::new());
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            // Some readers take names that differ in case alone for one.
            if !seen.insert(folded(&name)) {
                return Err(A::Error::custom(format!("`{name}` is said twice")));
            }
            map.insert(name, value);
        }
        Ok(map.into())
    }
}

/// A name as it is for those who take no heed of case.
fn folded(name: &str) -> String {
    let long = |c: char| if c == 'ſ' { 's' } else { c };
    name.chars()
        .map(long)
        .flat_map(char::to_lowercase)
        .collect()
}

/// The JSON of some bytes.
///
/// # Errors
///
/// Bytes that are none, or say a name twice.
pub fn strict(bytes: &[u8]) -> Result<Json, String> {
    serde_json::from_slice(bytes)
        .map(|Strict(json)| json)
        .map_err(|error| error.to_string())
}

/// JSON as a protobuf value.
pub fn proto(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(b),
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => Kind::ListValue(ListValue {
            values: items.into_iter().map(proto).collect(),
        }),
        Json::Object(entries) => Kind::StructValue(fields(entries)),
    };
    Value { kind: Some(kind) }
}

/// A protobuf value as JSON.
pub fn json(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(b)) => (*b).into(),
        Some(Kind::NumberValue(n)) => (*n).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Kind::StructValue(of)) => {
            let entries = of.fields.iter();
            entries
                .map(|(name, value)| (name.clone(), json(value)))
                .collect()
        }
    }
}

/// A JSON object as a protobuf struct.
pub fn fields(entries: Map<String, Json>) -> Struct {
    Struct {
        fields: entries
            .into_iter()
            .map(|(name, value)| (name, proto(value)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_said_once() {
        let read = strict(br#"{"a": [1, {"b": null}], "c": -2.5, "d": "x", "e": true}"#);
        let wanted = json!({"a": [1, {"b": null}], "c": -2.5, "d": "x", "e": true});
        assert_eq!(read, Ok(wanted));
        for twice in [
            r#"{"a":1,"a":2}"#,
            r#"{"x":[{"a":{},"b":1,"a":{}}]}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"rows":1,"Rows":2}"#,
            r#"{"params":1,"paramſ":2}"#,
            "{\"task\":1,\"tas\u{212a}\":2}",
        ] {
            let refused = strict(twice.as_bytes()).unwrap_err();
            assert!(refused.contains("said twice"), "{refused}");
        }
    }
}
