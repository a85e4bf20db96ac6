//! Attribute values: what metadata, parameters and callers' context are made of.

use super::{Span, Timestamp};

/// One attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON's null.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; never NaN.
    Double(f64),
    /// Text.
    Str(Box<str>),
    /// An instant.
    Time(Timestamp),
    /// A length of time.
    Span(Span),
    /// Values in order.
    List(Box<[Self]>),
    /// Named values, sorted by name; names are unique.
    Map(Box<[(Box<str>, Self)]>),
    /// A value of the attribute catalogue: one place for each of its fields, empty if absent.
    Record(Box<[Option<Self>]>),
}

/// A borrowed value, as conditions pass it around.
#[derive(Clone, Copy, Debug)]
pub enum Ref<'a> {
    /// JSON's null.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Double(f64),
    /// Text.
    Str(&'a str),
    /// An instant.
    Time(Timestamp),
    /// A length of time.
    Span(Span),
    /// Values in order.
    List(&'a [Value]),
    /// Named values, sorted by name.
    Map(&'a [(Box<str>, Value)]),
    /// Fields of a catalogue record.
    Record(&'a [Option<Value>]),
}

impl Value {
    /// Text.
    pub fn str(text: &str) -> Self {
        Self::Str(text.into())
    }

    /// A map; of two entries with one name the later is kept.
    pub fn map(entries: impl IntoIterator<Item = (Box<str>, Self)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.reverse();
        entries.dedup_by(|later, kept| later.0 == kept.0);
        entries.reverse();
        Self::Map(entries.into())
    }

    /// The value borrowed.
    pub fn as_ref(&self) -> Ref<'_> {
        match self {
            Self::Null => Ref::Null,
            Self::Bool(b) => Ref::Bool(*b),
            Self::Int(i) => Ref::Int(*i),
            Self::Double(d) => Ref::Double(*d),
            Self::Str(s) => Ref::Str(s),
            Self::Time(t) => Ref::Time(*t),
            Self::Span(s) => Ref::Span(*s),
            Self::List(items) => Ref::List(items),
            Self::Map(entries) => Ref::Map(entries),
            Self::Record(fields) => Ref::Record(fields),
        }
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(s) = self {
            Some(s)
        } else {
            None
        }
    }

    /// The value under `name`, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        if let Self::Map(entries) = self {
            lookup(entries, name)
        } else {
            None
        }
    }
}

/// The value under `name` in sorted entries.
pub(crate) fn lookup<'a>(entries: &'a [(Box<str>, Value)], name: &str) -> Option<&'a Value> {
    let at = entries
        .binary_search_by(|(key, _)| (**key).cmp(name))
        .ok()?;
    entries.get(at).map(|(_, value)| value)
}

impl Ref<'_> {
    /// What kind of value it is, in CEL's words.
    pub fn kind(self) -> &'static str {
        match self {
            Ref::Null => "null",
            Ref::Bool(_) => "bool",
            Ref::Int(_) => "int",
            Ref::Double(_) => "double",
            Ref::Str(_) => "string",
            Ref::Time(_) => "timestamp",
            Ref::Span(_) => "duration",
            Ref::List(_) => "list",
            Ref::Map(_) | Ref::Record(_) => "map",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_entries_stays() {
        let map = Value::map([
            ("b".into(), Value::Int(1)),
            ("a".into(), Value::Int(2)),
            ("b".into(), Value::Int(3)),
        ]);
        assert_eq!(map.get("b"), Some(&Value::Int(3)));
        assert_eq!(map.get("a"), Some(&Value::Int(2)));
        assert_eq!(map.get("c"), None);
    }
}
