//! The only reader of system time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

use crate::domain::{Evidenced, Lease, Now, Span, Timestamp};

/// What time it is, as an interval.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    /// Wall time, with what was the furthest ahead of elapsed time as the later end: a clock set
    /// back never brings back what has ended (T2).
    System { furthest: Arc<AtomicI64> },
    /// Time that stands until it is moved.
    Manual(Arc<AtomicI64>),
}

/// One look at the clocks: the present, and elapsed time at the same instant.
#[derive(Clone, Copy, Debug)]
pub struct Instant {
    /// The present.
    pub now: Now,
    /// Time that only passes; see [`Clock::elapsed`].
    pub elapsed: Span,
}

/// Steps smaller than this are slewing, not a clock that was set.
const SLEW: i64 = 50_000;

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        let furthest = Arc::new(AtomicI64::new(wall().saturating_sub(elapsed())));
        Self(Source::System { furthest })
    }

    /// A clock that stands at `now`.
    pub fn manual(now: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now.micros()))))
    }

    /// Moves a manual clock; the machine's clocks cannot be moved.
    pub fn advance(&self, span: Span) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(span.micros(), Ordering::SeqCst);
        }
    }

    /// Sets a manual clock; the machine's clocks cannot be set.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(now) = &self.0 {
            now.store(to.micros(), Ordering::SeqCst);
        }
    }

    /// The present.
    pub fn now(&self) -> Now {
        self.look().now
    }

    /// The present and elapsed time, of one instant.
    pub fn look(&self) -> Instant {
        let (earliest, latest, elapsed) = match &self.0 {
            Source::Manual(now) => {
                let now = now.load(Ordering::SeqCst);
                (now, now, now)
            }
            Source::System { furthest } => {
                let (wall, elapsed) = (wall(), elapsed());
                let offset = wall.saturating_sub(elapsed);
                let known = furthest.load(Ordering::Relaxed);
                if offset > known.saturating_add(SLEW) {
                    furthest.fetch_max(offset, Ordering::Relaxed);
                }
                let guarded = elapsed.saturating_add(known);
                // Within slewing the two are one time, and wall time is what people compare with.
                if wall.abs_diff(guarded) <= SLEW.unsigned_abs() {
                    (wall, wall.max(guarded), elapsed)
                } else {
                    (wall.min(guarded), wall.max(guarded), elapsed)
                }
            }
        };
        Instant {
            now: Now {
                earliest: Timestamp::from_micros(earliest),
                latest: Timestamp::from_micros(latest),
                lease: Lease::Local,
                evidence: Evidenced::Kept,
            },
            elapsed: Span::from_micros(elapsed),
        }
    }

    /// The wall clock as it is, set back or not.
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::Manual(now) => Timestamp::from_micros(now.load(Ordering::SeqCst)),
            Source::System { .. } => Timestamp::from_micros(wall()),
        }
    }

    /// Time that only passes, for measuring; its origin means nothing.
    pub fn elapsed(&self) -> Span {
        match &self.0 {
            Source::Manual(now) => Span::from_micros(now.load(Ordering::SeqCst)),
            Source::System { .. } => Span::from_micros(elapsed()),
        }
    }
}

/// By the C library, as whoever moves a program's clock from outside expects.
#[expect(
    clippy::disallowed_methods,
    reason = "here is the only reader of system time"
)]
fn wall() -> i64 {
    let signed = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => signed(since),
        Err(before) => -signed(before.duration()),
    }
}

/// Counts through suspension, and is never set.
fn elapsed() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(time.tv_nsec / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t2_a_clock_set_back_leaves_the_later_end_where_it_was() {
        let clock = Clock::system();
        let Source::System { furthest } = &clock.0 else {
            panic!("a system clock")
        };
        let before = clock.now();
        assert!(before.uncertainty() <= Span::from_micros(SLEW));
        // As if wall time had once been an hour ahead of where it is now.
        furthest.fetch_add(3_600_000_000, Ordering::Relaxed);
        let after = clock.now();
        assert!(after.latest - before.latest >= Span::from_secs(3_599));
        assert!(
            after.uncertainty() >= Span::from_secs(3_599),
            "and exceptions know that time is in doubt"
        );
    }
}
