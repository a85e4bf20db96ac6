//! Who may go on with what was taken back, and until when.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    domain::{Act, Kind, Name, Removal, Span, Timestamp},
    engine::{
        Receipt,
        attendance::{bound, longest_lease},
    },
};

use super::{
    core::{BEHIND, Registry},
    permission::is_requested,
    view::View,
};

impl Registry {
    /// How far a removal has come.
    pub(super) fn receipt(&self, removal: &Removal) -> Receipt {
        let lease = honoured(&self.view(), removal, self.clock.now().latest);
        let elapsed = self.clock.elapsed();
        self.attendance().receipt(removal.sequence, lease, elapsed)
    }

    /// Who may go on with something that was taken back, and until when, by elapsed time: as the
    /// receipts say it, also of who has not come since the start, and of starts that others have taken
    /// the place of.
    pub(super) fn owing(&self) -> BTreeMap<Box<str>, Span> {
        let (view, now) = (self.view(), self.clock.now().latest);
        let elapsed = self.clock.elapsed();
        let unbounded = |removal: &&Arc<Removal>| {
            removal.act != Act::Thaw && honoured(&view, removal, now).is_none()
        };
        let last = view.removals.iter().rev().find(unbounded);
        let lease = Some(longest(&view, now));
        let attendance = self.attendance();
        let bounded = attendance.receipt(view.head.sequence, lease, elapsed);
        let unbounded = last.map(|last| attendance.receipt(last.sequence, None, elapsed));
        let unbounded = unbounded
            .into_iter()
            .flat_map(|receipt| receipt.outstanding);
        bounded.outstanding.into_iter().chain(unbounded).collect()
    }

    /// Of some removals the sequences of those that nobody can honour any more what they took back.
    pub(super) fn over(&self, removals: &[Arc<Removal>]) -> Vec<u64> {
        let (view, now) = (self.view(), self.clock.now().latest);
        let leases = removals.iter().map(|removal| honoured(&view, removal, now));
        let leases: Vec<_> = leases.collect();
        let elapsed = self.clock.elapsed();
        let attendance = self.attendance();
        let both = removals.iter().zip(leases);
        both.filter(|(removal, lease)| attendance.is_over(removal.sequence, *lease, elapsed))
            .map(|(removal, _)| removal.sequence)
            .collect()
    }
}

/// What a history that was lost said of tiers and leases nobody knows.
fn lost(view: &View, now: Timestamp) -> bool {
    view.began
        .is_some_and(|began| (now - began).saturating_sub(BEHIND) < bound(longest_lease()))
}

/// The longest lease that anything is honoured for.
fn longest(view: &View, now: Timestamp) -> Span {
    let known = view.longest_lease(now);
    if lost(view, now) {
        known.max(longest_lease())
    } else {
        known
    }
}

/// How long what was removed is honoured at the most by who does not hear of it; none if nothing
/// bounds it: calls that need no exception go on without the registry.
fn honoured(view: &View, removal: &Removal, now: Timestamp) -> Option<Span> {
    use crate::domain::Target;
    let lease = |tier| view.lease(tier, now);
    let lost = lost(view, now);
    let longest = || Some(longest(view, now));
    match (removal.act, &removal.target) {
        (Act::Freeze | Act::Thaw, _) | (Act::Revoke, Target::Subject(_)) => None,
        (Act::Revoke, Target::Exception(id)) => match view.snapshot.exception(id.as_str()) {
            Some(exception) => {
                let name = Name::new(Kind::Exception, id.as_str());
                let stored = view.objects.get(&name);
                // One that was applied, taken away and applied again may have had another tier.
                let one_tier =
                    is_requested(view, &name) || stored.is_some_and(|stored| stored.revision == 1);
                if one_tier && !lost {
                    Some(lease(exception.tier))
                } else {
                    longest()
                }
            }
            None => longest(),
        },
        (
            Act::Revoke,
            Target::Credential(_) | Target::Control(_) | Target::Domain(_) | Target::Principal(_),
        ) => longest(),
    }
}
