//! What operators and functions do to values.

use chrono::{Datelike, TimeZone, Timelike};

use crate::domain::{Ref, Span, Timestamp, Trouble, TroubleKind, Value, lookup};

use super::{
    eval::{Answer, trouble},
    node::{Convert, Part, Sum},
};

/// Equality of single values as CEL has it: across numbers by value, across other kinds never.
pub(super) fn equal(left: Ref<'_>, right: Ref<'_>) -> bool {
    match (left, right) {
        (Ref::Null, Ref::Null) => true,
        (Ref::Bool(a), Ref::Bool(b)) => a == b,
        (Ref::Str(a), Ref::Str(b)) => a == b,
        (Ref::Time(a), Ref::Time(b)) => a == b,
        (Ref::Span(a), Ref::Span(b)) => a == b,
        (Ref::Int(a), Ref::Int(b)) => a == b,
        (Ref::Int(_) | Ref::Double(_), Ref::Int(_) | Ref::Double(_)) => {
            numbers(left, right) == Some(std::cmp::Ordering::Equal)
        }
        _ => false,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of two kinds compare as doubles, as in CEL"
)]
fn numbers(left: Ref<'_>, right: Ref<'_>) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Ref::Int(a), Ref::Int(b)) => Some(a.cmp(&b)),
        (Ref::Double(a), Ref::Double(b)) => a.partial_cmp(&b),
        (Ref::Int(a), Ref::Double(b)) => (a as f64).partial_cmp(&b),
        (Ref::Double(a), Ref::Int(b)) => a.partial_cmp(&(b as f64)),
        _ => None,
    }
}

pub(super) fn compare(
    left: Ref<'_>,
    right: Ref<'_>,
    at: u32,
) -> Result<Option<std::cmp::Ordering>, Trouble> {
    match (left, right) {
        (Ref::Int(_) | Ref::Double(_), Ref::Int(_) | Ref::Double(_)) => Ok(numbers(left, right)),
        (Ref::Str(a), Ref::Str(b)) => Ok(Some(a.cmp(b))),
        (Ref::Time(a), Ref::Time(b)) => Ok(Some(a.cmp(&b))),
        (Ref::Span(a), Ref::Span(b)) => Ok(Some(a.cmp(&b))),
        (Ref::Bool(a), Ref::Bool(b)) => Ok(Some(a.cmp(&b))),
        _ => trouble(TroubleKind::WrongKind, at),
    }
}

pub(super) fn index_into<'a>(of: Ref<'a>, index: Ref<'a>, at: u32) -> Answer<'a> {
    let missing = Trouble {
        kind: TroubleKind::NoSuchKey,
        at,
    };
    match (of, index) {
        (Ref::List(items), Ref::Int(i)) => usize::try_from(i)
            .ok()
            .and_then(|i| items.get(i))
            .map(Value::as_ref)
            .ok_or(missing),
        (Ref::Map(entries), Ref::Str(key)) => {
            lookup(entries, key).map(Value::as_ref).ok_or(missing)
        }
        _ => trouble(TroubleKind::WrongKind, at),
    }
}

pub(super) fn compute<'a>(sum: Sum, left: Ref<'a>, right: Ref<'a>, at: u32) -> Answer<'a> {
    let range = Trouble {
        kind: TroubleKind::OutOfRange,
        at,
    };
    match (left, right) {
        (Ref::Int(a), Ref::Int(b)) => match sum {
            Sum::Add => a.checked_add(b).map(Ref::Int).ok_or(range),
            Sum::Subtract => a.checked_sub(b).map(Ref::Int).ok_or(range),
            Sum::Multiply => a.checked_mul(b).map(Ref::Int).ok_or(range),
            Sum::Divide | Sum::Remainder if b == 0 => trouble(TroubleKind::DividedByZero, at),
            Sum::Divide => a.checked_div(b).map(Ref::Int).ok_or(range),
            Sum::Remainder => a.checked_rem(b).map(Ref::Int).ok_or(range),
        },
        (Ref::Double(a), Ref::Double(b)) => {
            let result = match sum {
                Sum::Add => a + b,
                Sum::Subtract => a - b,
                Sum::Multiply => a * b,
                Sum::Divide => a / b,
                Sum::Remainder => return trouble(TroubleKind::WrongKind, at),
            };
            // With infinities and NaN comparisons would say no where nothing can be said.
            if result.is_finite() {
                Ok(Ref::Double(result))
            } else {
                Err(range)
            }
        }
        (Ref::Time(t), Ref::Span(s)) if sum == Sum::Add => {
            t.checked_add(s).map(Ref::Time).ok_or(range)
        }
        (Ref::Span(s), Ref::Time(t)) if sum == Sum::Add => {
            t.checked_add(s).map(Ref::Time).ok_or(range)
        }
        (Ref::Time(t), Ref::Span(s)) if sum == Sum::Subtract => {
            t.checked_sub(s).map(Ref::Time).ok_or(range)
        }
        (Ref::Time(a), Ref::Time(b)) if sum == Sum::Subtract => Ok(Ref::Span(a - b)),
        (Ref::Span(a), Ref::Span(b)) if sum == Sum::Add => a
            .micros()
            .checked_add(b.micros())
            .map(|m| Ref::Span(Span::from_micros(m)))
            .ok_or(range),
        (Ref::Span(a), Ref::Span(b)) if sum == Sum::Subtract => a
            .micros()
            .checked_sub(b.micros())
            .map(|m| Ref::Span(Span::from_micros(m)))
            .ok_or(range),
        _ => trouble(TroubleKind::WrongKind, at),
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "conversions round and are range-checked, as in CEL"
)]
pub(super) fn convert_to(convert: Convert, of: Ref<'_>, at: u32) -> Answer<'static> {
    let unreadable = Trouble {
        kind: TroubleKind::Unreadable,
        at,
    };
    match (convert, of) {
        (Convert::Int, Ref::Int(i)) => Ok(Ref::Int(i)),
        (Convert::Int, Ref::Double(d)) if d.is_finite() && d.abs() < 9.223_372_036_854_775e18 => {
            Ok(Ref::Int(d as i64))
        }
        (Convert::Int, Ref::Double(_)) => trouble(TroubleKind::OutOfRange, at),
        (Convert::Int, Ref::Str(text)) => text.parse().map(Ref::Int).map_err(|_| unreadable),
        (Convert::Int, Ref::Time(t)) => Ok(Ref::Int(t.micros().div_euclid(1_000_000))),
        (Convert::Double, Ref::Double(d)) => Ok(Ref::Double(d)),
        (Convert::Double, Ref::Int(i)) => Ok(Ref::Double(i as f64)),
        (Convert::Double, Ref::Str(text)) => match text.parse::<f64>() {
            Ok(d) if d.is_finite() => Ok(Ref::Double(d)),
            Ok(_) | Err(_) => Err(unreadable),
        },
        (Convert::Time, Ref::Str(text)) => Timestamp::parse(text)
            .map(Ref::Time)
            .map_err(|_| unreadable),
        (Convert::Time, Ref::Time(t)) => Ok(Ref::Time(t)),
        (Convert::Span, Ref::Str(text)) => Span::parse_cel(text).map(Ref::Span).ok_or(unreadable),
        (Convert::Span, Ref::Span(s)) => Ok(Ref::Span(s)),
        _ => trouble(TroubleKind::WrongKind, at),
    }
}

pub(super) fn take_part(
    part: Part,
    of: Ref<'_>,
    zone: Option<chrono_tz::Tz>,
    at: u32,
) -> Answer<'static> {
    let time = match of {
        Ref::Time(time) => time.to_utc(),
        Ref::Span(span) => {
            let micros = span.micros();
            return match part {
                Part::Hours => Ok(Ref::Int(micros / 3_600_000_000)),
                Part::Minutes => Ok(Ref::Int(micros / 60_000_000)),
                Part::Seconds => Ok(Ref::Int(micros / 1_000_000)),
                Part::Milliseconds => Ok(Ref::Int(micros / 1_000)),
                Part::FullYear
                | Part::Month
                | Part::DayOfYear
                | Part::DayOfMonth
                | Part::Date
                | Part::DayOfWeek => trouble(TroubleKind::WrongKind, at),
            };
        }
        _ => return trouble(TroubleKind::WrongKind, at),
    };
    let zone = zone.unwrap_or(chrono_tz::UTC);
    let local = zone.from_utc_datetime(&time.naive_utc());
    Ok(Ref::Int(match part {
        Part::FullYear => i64::from(local.year()),
        Part::Month => i64::from(local.month0()),
        Part::DayOfYear => i64::from(local.ordinal0()),
        Part::DayOfMonth => i64::from(local.day0()),
        Part::Date => i64::from(local.day()),
        Part::DayOfWeek => i64::from(local.weekday().num_days_from_sunday()),
        Part::Hours => i64::from(local.hour()),
        Part::Minutes => i64::from(local.minute()),
        Part::Seconds => i64::from(local.second()),
        Part::Milliseconds => i64::from(local.nanosecond() / 1_000_000),
    }))
}

/// The value no longer borrowed.
pub(super) fn owned(value: Ref<'_>) -> Value {
    match value {
        Ref::Null => Value::Null,
        Ref::Bool(b) => Value::Bool(b),
        Ref::Int(i) => Value::Int(i),
        Ref::Double(d) => Value::Double(d),
        Ref::Str(s) => Value::str(s),
        Ref::Time(t) => Value::Time(t),
        Ref::Span(s) => Value::Span(s),
        Ref::List(items) => Value::List(items.into()),
        Ref::Map(entries) => Value::Map(entries.into()),
        Ref::Record(fields) => Value::Record(fields.into()),
    }
}
