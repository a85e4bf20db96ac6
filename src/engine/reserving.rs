//! How many uses of a limited exception are set aside for a sidecar: all of them together are never
//! more than its limits permit (A10).

use crate::domain::{Span, Timestamp, UsageLimits};

/// How long a reservation holds from when it was asked for; what is not used by then goes back.
pub const HOLDS: Span = Span::from_secs(60);
/// By how much clocks may differ, and an answer be late, before an hour is counted too short.
const SLACK: Span = Span::from_secs(60);

/// What is set aside or used by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// In all.
    pub total: u64,
    /// Since [`Reserved::window`].
    pub lately: u64,
}

impl Reserved {
    /// From when on reservations count for the hour: what was set aside then may be used until now.
    pub fn window(now: Timestamp) -> Timestamp {
        let hour = Span::from_hours(1).micros();
        let reach = hour
            .saturating_add(HOLDS.micros())
            .saturating_add(SLACK.micros());
        Timestamp::from_micros(now.micros().saturating_sub(reach))
    }
}

/// How many of `wanted` uses are set aside, at the most `share`.
pub fn granted(limits: UsageLimits, reserved: Reserved, wanted: u64, share: u64) -> u64 {
    let left =
        |most: Option<u64>, taken: u64| most.map_or(u64::MAX, |most| most.saturating_sub(taken));
    let in_all = left(limits.max_uses, reserved.total);
    let in_hour = left(limits.max_uses_per_hour.map(u64::from), reserved.lately);
    wanted.min(share.max(1)).min(in_all).min(in_hour)
}
