//! How the registry is seen, for decisions and for people.

use crate::{
    domain::{Lease, Now, Span, Tier, TierRules, Timestamp},
    telemetry::Seen,
};

use super::keeper::Keeper;

impl Keeper {
    /// The time, as the registry tells it.
    pub(super) fn now(&self) -> Now {
        self.contact().now(self.clock.now(), self.clock.elapsed())
    }

    /// The shortest lease of any tier in any domain.
    pub(super) fn shortest_lease(&self) -> std::time::Duration {
        let held = self.held();
        let standard = || {
            let leases = Tier::ALL.map(|tier| TierRules::standard(tier).lease());
            leases.into_iter().min().unwrap_or(Span::ZERO)
        };
        let shortest = held
            .as_ref()
            .map_or_else(standard, |held| held.snapshot.shortest_lease())
            .micros();
        std::time::Duration::from_micros(u64::try_from(shortest).unwrap_or(0))
    }

    /// Tells the metrics how the registry is seen.
    pub(in crate::sidecar) fn tell(&self) {
        let elapsed = self.clock.elapsed();
        let contact = self.contact();
        let (removals, state) = match contact.lease(elapsed) {
            Lease::Follows { removals, state } => (removals, state),
            Lease::Local => (Span::ZERO, Span::ZERO),
        };
        let held = self.held();
        let leases = Tier::ALL.map(|tier| {
            let standard = TierRules::standard(tier);
            let rules = held
                .as_ref()
                .map_or(&standard, |held| held.snapshot.tier(tier));
            let left = rules.lease().saturating_sub(removals);
            let left = left.min(rules.max_staleness.saturating_sub(state));
            (left.max(Span::ZERO), rules.lease().min(rules.max_staleness))
        });
        let fetched = held.as_ref().map_or(0, |held| held.fetched.len());
        self.metrics.fetched(fetched);
        let age = self.age();
        self.metrics.follows(&Seen {
            age,
            last_contact: age.map(|age| {
                let now = self.clock.now().latest.micros();
                Timestamp::from_micros(now.saturating_sub(age.micros()))
            }),
            sequence: self.exposed().sequence,
            leases,
            distrusted: self.distrusted(),
        });
    }

    /// How long ago everything was last known to be current, at most.
    pub(in crate::sidecar) fn age(&self) -> Option<Span> {
        let anchor = self.contact().anchor()?;
        Some(self.clock.elapsed().saturating_sub(anchor))
    }
}
