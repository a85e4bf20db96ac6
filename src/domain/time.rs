//! Instants and spans at microsecond precision, and what is known of the present.

use std::{
    fmt,
    ops::{Add, Sub},
};

use chrono::{DateTime, SecondsFormat, Utc};

use super::Invalid;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A length of time in microseconds; may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(i64);

impl Timestamp {
    /// The last instant that can be named.
    pub const MAX: Self = Self(253_402_300_799_999_999);
    /// The first instant that can be named.
    pub const MIN: Self = Self(-62_135_596_800_000_000);

    /// From microseconds since the epoch, kept within the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Microseconds since the epoch.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339; digits beyond the microsecond are refused.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::new(
                "",
                format!("`{text}` is not a time"),
                "use RFC 3339, such as `2026-11-22T12:00:00Z`",
            )
        };
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| wrong())?;
        if time.timestamp_subsec_nanos() % 1_000 != 0 {
            return Err(Invalid::new(
                "",
                format!("`{text}` is finer than a microsecond"),
                "drop digits",
            ));
        }
        let micros = time.timestamp_micros();
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(wrong())
        }
    }

    /// The same instant as a calendar date and time in UTC.
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// `self + span`, or nothing when outside the years 1 to 9999.
    pub fn checked_add(self, span: Span) -> Option<Self> {
        let micros = self.0.checked_add(span.0)?;
        (Self::MIN.0..=Self::MAX.0)
            .contains(&micros)
            .then_some(Self(micros))
    }

    /// `self - span`, or nothing when outside the years 1 to 9999.
    pub fn checked_sub(self, span: Span) -> Option<Self> {
        self.checked_add(Span(span.0.checked_neg()?))
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self::from_micros(self.0.saturating_add(span.0))
    }
}

impl Sub for Timestamp {
    type Output = Span;
    fn sub(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl Span {
    /// The longest time that can be named.
    pub const MAX: Self = Self(i64::MAX);
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// From microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// From whole hours.
    pub const fn from_hours(hours: i64) -> Self {
        Self::from_secs(hours.saturating_mul(3_600))
    }

    /// From whole days of 24 hours.
    pub const fn from_days(days: i64) -> Self {
        Self::from_hours(days.saturating_mul(24))
    }

    /// Microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// What is left of it after `other`, as far as numbers go.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Seconds, with the fraction.
    #[expect(clippy::cast_precision_loss, reason = "for display and metrics only")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Parses a duration as CEL writes it (`90s`, `1h30m`, `250ms`, `-5m`).
    pub fn parse_cel(text: &str) -> Option<Self> {
        parse_units(text, false)
    }

    /// Parses a duration as people write it: CEL's form, and `d` for days.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        parse_units(text, true).ok_or_else(|| {
            Invalid::new(
                "",
                format!("`{text}` is not a duration"),
                "write numbers with units, such as `90d`, `36h`, `1h30m` or `250ms`",
            )
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut left = self.0.unsigned_abs();
        for (unit, micros) in [
            ("d", 86_400_000_000),
            ("h", 3_600_000_000),
            ("m", 60_000_000),
            ("s", 1_000_000),
            ("ms", 1_000),
            ("us", 1),
        ] {
            let count = left / micros;
            left %= micros;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

/// Numbers with units, as CEL's `duration()` reads them; nothing on a malformed or too long one.
fn parse_units(text: &str, days: bool) -> Option<Span> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Span(0));
    }
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    // Picoseconds keep every accepted fraction exact until the end.
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let (unit, tail) = tail.split_at_checked(
            tail.find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len()),
        )?;
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" if days => 86_400_000_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty()
            || part.contains('.')
            || whole.len() > 18
            || part.len() > 12
        {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(nanos)?.checked_mul(1_000)?)?;
        if !part.is_empty() {
            let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
            let part: i128 = part.parse().ok()?;
            total = total.checked_add(part.checked_mul(nanos)?.checked_mul(1_000)? / scale)?;
        }
        rest = tail;
    }
    let micros = i64::try_from(total / 1_000_000).ok()?;
    // CEL's range for durations: about ten thousand years.
    (micros <= 315_576_000_000_000_000).then_some(Span(if negative { -micros } else { micros }))
}

/// What is known of the present: an interval of wall time and the age of the lease.
///
/// Every ambiguity is resolved against the exception (T5): it is not yet effective until
/// `earliest` reaches its start, and has ended once `latest` reaches its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// No later than the true time.
    pub earliest: Timestamp,
    /// No earlier than the true time; what conditions read as `now`.
    pub latest: Timestamp,
    /// How recently revocations were confirmed.
    pub lease: Lease,
    /// Whether uses can be recorded durably (R16).
    pub evidence: Evidenced,
}

/// Whether uses can be recorded durably. No record, no allow (E1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidenced {
    /// They can.
    Kept,
    /// There is little room left: exceptions of tiers whose records are not required grant nothing
    /// any more.
    Scarce,
    /// They cannot: no exception grants anything.
    Lost,
}

impl Lease {
    /// A registry is followed that has not been heard yet.
    pub const UNHEARD: Self = Self::Follows {
        removals: Span::MAX,
        state: Span::MAX,
    };
}

impl Now {
    /// The present known exactly, with no registry to follow and evidence in order.
    pub fn exactly(now: Timestamp) -> Self {
        Self {
            earliest: now,
            latest: now,
            lease: Lease::Local,
            evidence: Evidenced::Kept,
        }
    }

    /// How far the clock may be off.
    pub fn uncertainty(self) -> Span {
        self.latest - self.earliest
    }
}

/// How recently the source of revocations was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The manifests on this machine are the source themselves: there is nobody to be cut off from.
    Local,
    /// A registry is followed. Both are elapsed times, by a clock that never steps, since a nonce
    /// was sent whose answer has been acted on in full.
    Follows {
        /// Up to when every removal is known.
        removals: Span,
        /// Up to when everything else is known too.
        state: Span,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_cel_writes_them() {
        for (text, micros) in [
            ("90s", 90_000_000),
            ("1h30m", 5_400_000_000),
            ("250ms", 250_000),
            ("-5m", -300_000_000),
            ("1.5s", 1_500_000),
            ("0", 0),
            (".5h", 1_800_000_000),
        ] {
            assert_eq!(Span::parse_cel(text), Some(Span(micros)), "{text}");
        }
        for text in [
            "",
            "90",
            "1d",
            "h",
            "1x",
            "1h-",
            "--1s",
            "1..5s",
            "99999999999999999h",
        ] {
            assert_eq!(Span::parse_cel(text), None, "{text}");
        }
        assert_eq!(Span::parse("90d"), Ok(Span::from_days(90)));
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(
            Timestamp::parse("2026-11-22T12:00:00+01:00").map(|t| t.to_string()),
            Ok("2026-11-22T11:00:00Z".to_owned())
        );
        assert!(Timestamp::parse("2026-11-22").is_err());
        assert!(Timestamp::parse("2026-11-22T12:00:00.0000001Z").is_err());
    }
}
