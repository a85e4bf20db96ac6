//! Whether an exception holds now: the only place in the program that says so (design §3).

use crate::domain::{
    Effect, Evidenced, Exception, ExceptionState, Facet, Fingerprint, Lease, Now, Span, Subject,
    TierRules, Timestamp,
};

/// What else bears on an exception at the moment of a decision.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// It, its subject, its control or its domain has been revoked.
    pub revoked: bool,
    /// A baseline gate of the subject fails.
    pub baseline_failing: bool,
    /// It has been used as often as it may.
    pub exhausted: bool,
}

/// Nothing if `exception` holds for `subject` now, else what stands against it (governance §7.4).
///
/// Time, drift and revocations only ever take away: none of them turns an answer into "holds".
pub fn effective(
    exception: &Exception,
    rules: &TierRules,
    subject: &Subject,
    observed: &Fingerprint,
    now: Now,
    standing: Standing,
) -> Option<Effect> {
    if exception.state != ExceptionState::Approved {
        return Some(Effect::NotInForce(exception.state));
    }
    // Half-open, and every doubt about the time counts against it (R14, T5).
    if now.earliest < exception.effective_time {
        return Some(Effect::Scheduled);
    }
    if now.latest >= exception.expire_time {
        return Some(Effect::Expired);
    }
    if exception
        .next_revalidation_time
        .is_some_and(|due| now.latest >= due)
    {
        return Some(Effect::RevalidationOverdue);
    }
    if exception
        .evidence
        .iter()
        .any(|evidence| evidence.required && now.latest >= evidence.expire_time)
    {
        return Some(Effect::EvidenceExpired);
    }
    if standing.revoked {
        return Some(Effect::Revoked);
    }
    // Removals are confirmed up to one instant, everything else up to another.
    if let Lease::Follows { removals, state } = now.lease
        && (removals >= rules.lease() || state >= rules.max_staleness)
    {
        return Some(Effect::LeaseLapsed);
    }
    if subject
        .lease_expire_time
        .is_some_and(|end| now.latest >= end)
    {
        return Some(Effect::LeaseLapsed);
    }
    if now.uncertainty() > rules.max_clock_skew {
        return Some(Effect::ClockSkew);
    }
    if let Some((facet, _)) = exception
        .bound
        .iter()
        .find(|(facet, bound)| current(*facet, rules, subject, observed, now) != Some(bound))
    {
        return Some(Effect::ContextChanged(facet));
    }
    if standing.baseline_failing {
        return Some(Effect::BaselineBreach);
    }
    if standing.exhausted {
        return Some(Effect::BudgetExhausted);
    }
    if match now.evidence {
        Evidenced::Kept => false,
        Evidenced::Scarce => !rules.usage_required,
        Evidenced::Lost => true,
    } {
        return Some(Effect::EvidenceUnavailable);
    }
    None
}

/// How far ahead of us a reporter's clock may be.
pub(super) const AHEAD: Span = Span::from_secs(300);

/// Whether something observed at `observed` is recent; what was observed in the future was not.
pub(super) fn fresh(observed: Timestamp, now: Now, max_age: Span) -> bool {
    let age = now.latest - observed;
    age <= max_age && observed - now.latest <= AHEAD
}

/// The digest of `facet` now: what the caller saw, else what is governed while it is fresh. What
/// is not known counts as changed.
fn current<'a>(
    facet: Facet,
    rules: &TierRules,
    subject: &'a Subject,
    observed: &'a Fingerprint,
    now: Now,
) -> Option<&'a crate::domain::Digest> {
    observed.get(facet).or_else(|| {
        let fresh = !rules.observed_required
            && subject
                .facet(facet)
                .is_some_and(|state| fresh(state.observed_time, now, rules.facet_max_age));
        if fresh {
            subject.fingerprint.get(facet)
        } else {
            None
        }
    })
}

/// The instants at which [`effective`] may change its answer because of time alone.
pub(super) fn edges<'a>(
    exception: &'a Exception,
    rules: &'a TierRules,
    subject: &'a Subject,
    now: Now,
) -> impl Iterator<Item = Timestamp> + 'a {
    let lease = match now.lease {
        Lease::Local => None,
        Lease::Follows { removals, state } => {
            let left = rules.lease().saturating_sub(removals);
            Some(now.latest + left.min(rules.max_staleness.saturating_sub(state)))
        }
    };
    let facets = exception.bound.iter().filter_map(|(facet, _)| {
        Some(subject.facet(facet)?.observed_time + rules.facet_max_age + Span::from_micros(1))
    });
    [
        Some(exception.effective_time),
        Some(exception.expire_time),
        exception.next_revalidation_time,
        subject.lease_expire_time,
        lease,
    ]
    .into_iter()
    .flatten()
    .chain(
        exception
            .evidence
            .iter()
            .filter(|evidence| evidence.required)
            .map(|evidence| evidence.expire_time),
    )
    .chain(facets)
    .filter(move |edge| *edge > now.earliest)
}
