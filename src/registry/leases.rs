//! How long exceptions of a tier may be honoured by who has not heard of a shorter lease.

use crate::{
    domain::{Edit, Kind, Name, Span, Tier, TierRules, Timestamp},
    engine::{Change, attendance::bound},
    manifest::change,
};

use super::store::{Store, StoreError, Stored};

/// Most versions of a tier's rules that are looked at.
const VERSIONS: usize = 1_000;

/// Leases that were longer than those in force, until nobody can go by them any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    past: Vec<(Tier, Span, Timestamp)>,
}

impl Leases {
    /// The leases that were in force before the present ones.
    ///
    /// # Errors
    ///
    /// A store that cannot be read.
    pub(super) async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut leases = Self::default();
        for tier in Tier::ALL {
            let name = Name::new(Kind::TierPolicy, tier.name());
            let history = store.history(&name, u64::MAX, VERSIONS).await?;
            for pair in history.windows(2).rev() {
                let [newer, older] = pair else { continue };
                if of(older, tier) > of(newer, tier) {
                    leases.replaced(tier, of(older, tier), newer.time);
                }
            }
        }
        Ok(leases)
    }

    /// Notes that rules with `lease` were replaced at `time`. Whoever does not hear of what replaced
    /// them goes by them until their own staleness ends it.
    pub(super) fn replaced(&mut self, tier: Tier, lease: Span, time: Timestamp) {
        self.past.retain(|(_, _, until)| *until > time);
        self.past.push((tier, lease, time + bound(lease)));
    }

    /// The longest lease anybody may go by at `now`, with `rules` in force. Before it has heard of
    /// any rules a sidecar goes by the standard ones.
    pub(super) fn longest(&self, tier: Tier, rules: &TierRules, now: Timestamp) -> Span {
        let past = self.past.iter();
        let past = past.filter(|(of, _, until)| *of == tier && *until > now);
        past.map(|(_, lease, _)| *lease)
            .fold(rules.lease(), Span::max)
            .max(TierRules::standard(tier).lease())
    }
}

/// The lease of one version of a tier's rules.
fn of(stored: &Stored, tier: Tier) -> Span {
    let edit = Edit {
        name: stored.name.clone(),
        revision: stored.revision,
        manifest: stored.manifest.clone(),
    };
    match change(&edit) {
        Ok(Change::PutTier(_, rules)) => rules.lease(),
        // Taken away, or not to be read by now: the standard's.
        Ok(_) | Err(_) => TierRules::standard(tier).lease(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_a_lease_that_was_shortened_is_waited_out_once_more() {
        let at = |seconds| Timestamp::from_micros(0) + Span::from_secs(seconds);
        let standard = TierRules::standard(Tier::Low);
        let mut leases = Leases::default();
        let longest = |leases: &Leases, now| leases.longest(Tier::Low, &standard, at(now));
        assert_eq!(longest(&leases, 0), standard.lease());
        leases.replaced(Tier::Low, Span::from_secs(3_600), at(100));
        assert_eq!(longest(&leases, 100), Span::from_secs(3_600));
        assert_eq!(longest(&leases, 3_700), Span::from_secs(3_600));
        assert_eq!(longest(&leases, 3_800), standard.lease());
        let other = TierRules::standard(Tier::High);
        assert_eq!(leases.longest(Tier::High, &other, at(100)), other.lease());
        leases.replaced(Tier::High, Span::from_secs(30), at(9_000));
        assert_eq!(leases.past.len(), 1, "what is over is forgotten");
    }
}
