//! How a decision sees the registry: how long ago it was heard, and what time it is there.

use crate::domain::{Lease, Now, Span, Timestamp};

/// Assumed drift of elapsed time, in parts per million (reliability §2).
pub const DRIFT: i64 = 500;

/// Two lines between which the registry's time lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bounds {
    /// It was no earlier than this, then.
    pub(super) earliest: (Timestamp, Span),
    /// It was no later than this, then.
    pub(super) latest: (Timestamp, Span),
}

/// How a decision sees the registry: published, and read at every decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Contact {
    pub(super) removals: Option<Span>,
    pub(super) state: Option<Span>,
    pub(super) time: Option<Bounds>,
    /// What the registry said the time was, to an earlier start of this installation.
    pub(super) floor: Option<Timestamp>,
}

impl Contact {
    /// The lease at `elapsed`.
    pub fn lease(&self, elapsed: Span) -> Lease {
        let age = |anchor: Option<Span>| {
            anchor.map_or(Span::MAX, |anchor| {
                stretched(elapsed.saturating_sub(anchor))
            })
        };
        Lease::Follows {
            removals: age(self.removals),
            state: age(self.state),
        }
    }

    /// `now` as this contact knows it: registry time where it was heard, and the lease.
    #[must_use]
    pub fn now(&self, now: Now, elapsed: Span) -> Now {
        let lease = self.lease(elapsed);
        let floor = self.floor.unwrap_or(Timestamp::MIN);
        let Some(Bounds { earliest, latest }) = self.time else {
            return Now {
                earliest: now.earliest.max(floor),
                latest: now.latest.max(floor),
                lease,
                ..now
            };
        };
        let since = |(time, at): (Timestamp, Span)| (time, elapsed.saturating_sub(at));
        let ((lower, passed), (upper, most)) = (since(earliest), since(latest));
        let rest = Span::from_micros(passed.micros().saturating_sub(drift(passed)));
        Now {
            earliest: (lower + rest).max(floor),
            latest: (upper + stretched(most)).max(floor),
            lease,
            ..now
        }
    }

    /// Elapsed time at which the last nonce was sent that was answered in full.
    pub fn anchor(&self) -> Option<Span> {
        self.removals.min(self.state)
    }
}

/// A time by a clock that may be slow.
pub(super) fn stretched(span: Span) -> Span {
    Span::from_micros(span.micros().saturating_add(drift(span)))
}

pub(super) fn drift(span: Span) -> i64 {
    (span.micros() / 1_000_000)
        .saturating_mul(DRIFT)
        .saturating_add(1)
}
