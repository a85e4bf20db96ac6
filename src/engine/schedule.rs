//! When a control runs by itself.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

use crate::domain::{ControlId, Schedule, Span, Timestamp};

/// Most missed times that are counted.
const MANY: u64 = 10_000;

/// A schedule that was read.
#[derive(Clone, Debug)]
struct Read {
    cron: Cron,
    zone: Tz,
}

fn read(schedule: &Schedule) -> Option<Read> {
    let cron = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(&schedule.cron)
        .ok()?;
    Some(Read {
        cron,
        zone: schedule.time_zone.parse().ok()?,
    })
}

impl Read {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let from = DateTime::<Utc>::from_timestamp_micros(after.micros())?;
        let next = self
            .cron
            .find_next_occurrence(&from.with_timezone(&self.zone), false)
            .ok()?;
        Some(Timestamp::from_micros(next.timestamp_micros()))
    }
}

impl Read {
    /// The latest time that is over at `now`, with `late` more.
    fn latest(&self, now: Timestamp, late: Span) -> Option<Timestamp> {
        let until = now.micros().saturating_sub(late.micros());
        let until = DateTime::<Utc>::from_timestamp_micros(until)?;
        let latest = self
            .cron
            .find_previous_occurrence(&until.with_timezone(&self.zone), true)
            .ok()?;
        Some(Timestamp::from_micros(latest.timestamp_micros()))
    }
}

/// When a control is due after `last`, whatever of that is over by `now` counted as one; and how
/// many times before that were missed. Nothing for a schedule that never comes.
///
/// The latest of the times that are over, so that what was missed is caught up once.
pub fn due(
    control: &ControlId,
    schedule: &Schedule,
    last: Timestamp,
    now: Timestamp,
) -> Option<(Timestamp, u64)> {
    due_late(schedule, jitter(control, schedule), last, now)
}

/// The same of what is nobody's but the schedule's, `late` after it.
pub fn due_late(
    schedule: &Schedule,
    late: Span,
    last: Timestamp,
    now: Timestamp,
) -> Option<(Timestamp, u64)> {
    let read = read(schedule)?;
    let mut time = read.next(last)?;
    let mut missed = 0_u64;
    while missed < MANY
        && let Some(later) = read.next(time)
        && later + late <= now
    {
        time = later;
        missed = missed.saturating_add(1);
    }
    if missed >= MANY
        && let Some(latest) = read.latest(now, late)
    {
        time = time.max(latest);
    }
    Some((time, missed))
}

/// How much later a control runs than its schedule says: always the same, and spread over controls.
pub fn jitter(control: &ControlId, schedule: &Schedule) -> Span {
    let most = schedule.jitter.micros();
    if most <= 0 {
        return Span::ZERO;
    }
    // FNV-1a: the same on every machine.
    let hash = control
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let share = hash.checked_rem(most.unsigned_abs()).unwrap_or(0);
    Span::from_micros(i64::try_from(share).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule {
            cron: cron.into(),
            time_zone: zone.into(),
            jitter: Span::ZERO,
        }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn told(schedule: &Schedule, last: &str, now: &str) -> (String, u64) {
        let control = ControlId::parse("CT-A").unwrap();
        let (time, missed) = due(&control, schedule, at(last), at(now)).unwrap();
        (time.to_string(), missed)
    }

    #[test]
    fn what_was_missed_is_caught_up_once() {
        let hourly = schedule("0 * * * *", "UTC");
        let last = "2026-11-22T12:00:00Z";
        let next = ("2026-11-22T13:00:00Z".to_owned(), 0);
        assert_eq!(told(&hourly, last, last), next);
        assert_eq!(told(&hourly, last, "2026-11-22T13:59:59Z"), next);
        let late = ("2026-11-22T17:00:00Z".to_owned(), 4);
        assert_eq!(told(&hourly, last, "2026-11-22T17:30:00Z"), late);
    }

    #[test]
    fn a_time_zone_moves_with_its_summer() {
        let berlin = schedule("30 6 * * *", "Europe/Berlin");
        let winter = ("2026-03-28T05:30:00Z".to_owned(), 0);
        let summer = ("2026-03-29T04:30:00Z".to_owned(), 0);
        assert_eq!(
            told(&berlin, "2026-03-28T00:00:00Z", "2026-03-28T00:00:00Z"),
            winter
        );
        assert_eq!(
            told(&berlin, "2026-03-28T12:00:00Z", "2026-03-28T12:00:00Z"),
            summer
        );
    }

    #[test]
    fn jitter_is_the_same_each_time_and_below_its_most() {
        let spread = Schedule {
            jitter: Span::from_secs(60),
            ..schedule("0 * * * *", "UTC")
        };
        let of = |id: &str| jitter(&ControlId::parse(id).unwrap(), &spread);
        assert_eq!(of("CT-A"), of("CT-A"));
        assert!(of("CT-A") < Span::from_secs(60) && of("CT-A") != of("CT-B"));
    }
}
