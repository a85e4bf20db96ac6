//! JSON as protobuf's own values.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Value as Json};

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

/// A JSON object as a protobuf struct.
pub fn fields(entries: Map<String, Json>) -> Struct {
    Struct {
        fields: entries
            .into_iter()
            .map(|(name, value)| (name, proto(value)))
            .collect(),
    }
}
