//! What several tests share.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::allow_attributes,
    missing_docs,
    unreachable_pub,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "test support"
)]

pub mod authority;
pub mod cases;
pub mod collector;
pub mod governed;
pub mod http;
pub mod issuer;
pub mod liar;
pub mod memory;
pub mod ports;
pub mod processes;
pub mod receiver;
pub mod reports;
pub mod stage;
pub mod wire;

use std::collections::HashMap;

use cel::{Context, Program};
use exeat::domain::{Span, Timestamp};
use serde_json::Value as Json;

/// A small, seeded source of choices; the seed is printed by whoever uses it.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The seed of this run: `EXEAT_SEED`, or always the same.
    pub fn seed() -> u64 {
        std::env::vars()
            .find(|(name, _)| name == "EXEAT_SEED")
            .and_then(|(_, seed)| seed.parse().ok())
            .unwrap_or(20_261_122)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % u64::try_from(sides.max(1)).unwrap()).unwrap()
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }

    pub fn often(&mut self, of_a_hundred: usize) -> bool {
        self.roll(100) < of_a_hundred
    }
}

/// JSON as the interpreter's value; keys that end in `_time` are timestamps.
pub fn cel_value(json: &Json, timed: bool) -> cel::Value {
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(b) => cel::Value::Bool(*b),
        Json::Number(n) => n
            .as_i64()
            .map_or_else(|| cel::Value::Float(n.as_f64().unwrap()), cel::Value::Int),
        Json::String(text) if timed => {
            cel::Value::Timestamp(chrono::DateTime::parse_from_rfc3339(text).expect("a time"))
        }
        Json::String(text) => cel::Value::String(text.clone().into()),
        Json::Array(items) => cel::Value::List(
            items
                .iter()
                .map(|item| cel_value(item, false))
                .collect::<Vec<_>>()
                .into(),
        ),
        Json::Object(entries) => {
            let map: HashMap<String, cel::Value> = entries
                .iter()
                .map(|(name, value)| (name.clone(), cel_value(value, name.ends_with("_time"))))
                .collect();
            cel::Value::Map(map.into())
        }
    }
}

/// A world as the interpreter's variables: `now_time` is `now`.
pub fn cel_world(world: &Json) -> Vec<(String, cel::Value)> {
    world
        .as_object()
        .expect("a map")
        .iter()
        .map(|(name, value)| {
            if name == "now_time" {
                ("now".to_owned(), cel_value(value, true))
            } else {
                (name.clone(), cel_value(value, false))
            }
        })
        .collect()
}

/// What the crate's own interpreter says; nothing for an error or what is not true or false.
pub fn interpret(source: &str, variables: &[(String, cel::Value)]) -> Option<bool> {
    let program = Program::compile(source).expect("the interpreter reads it");
    let mut context = Context::default();
    for (name, value) in variables {
        context.add_variable_from_value(name.clone(), value.clone());
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(b)) => Some(b),
        Ok(_) | Err(_) => None,
    }
}

pub fn minutes(n: i64) -> Span {
    Span::from_secs(n * 60)
}

pub fn before(at: Timestamp, span: Span) -> Timestamp {
    Timestamp::from_micros(at.micros() - span.micros())
}
