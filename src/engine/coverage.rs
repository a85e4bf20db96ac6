//! How long a subject has been excepted from a control, whatever exceptions it was (R35).

use std::sync::Arc;

use crate::domain::{
    Case, ControlId, Exception, ExceptionId, Request, Scope, Selector, Set, Span, Timestamp,
};

use super::{Shelf, Snapshot};

/// Over how long it is counted.
pub const YEAR: Span = Span::from_days(365);

/// Every case there is or was.
pub type Cases = Shelf<ExceptionId, Arc<Case>>;

/// A stretch of time.
type Stretch = (Timestamp, Timestamp);

/// What is known of the past: cases, and exceptions that were applied without one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past<'a> {
    pub(super) cases: &'a Cases,
    pub(super) snapshot: &'a Snapshot,
    /// The case it is about, which does not count against itself.
    pub(super) own: &'a ExceptionId,
}

impl<'a> Past<'a> {
    fn others(self) -> impl Iterator<Item = &'a Arc<Case>> {
        self.cases.values().filter(move |case| case.id != *self.own)
    }

    fn bare(self) -> impl Iterator<Item = &'a Arc<Exception>> {
        let all = self.snapshot.exceptions();
        all.filter(move |exception| self.cases.get(exception.id.as_str()).is_none())
    }

    /// The part of the year before the end of `window` in which a subject of `request` is excepted
    /// from `control` if it is granted, in percent, rounded up.
    pub(super) fn percent(
        self,
        control: &ControlId,
        request: &Request,
        window: Stretch,
        now: Timestamp,
    ) -> u32 {
        let begin = window.1 + Span::from_micros(YEAR.micros().saturating_neg());
        let mut stretches = vec![window];
        for case in self.others() {
            if let Some(stretch) = case.window(now)
                && case.request.controls.contains(control)
                && meet(&case.request.scope.subjects, &request.scope.subjects)
            {
                stretches.push(stretch);
            }
        }
        for exception in self.bare() {
            if exception.controls.contains(control)
                && meet(&exception.scope.subjects, &request.scope.subjects)
            {
                stretches.push((exception.effective_time, exception.expire_time));
            }
        }
        let covered = covered(stretches, begin, window.1);
        let year = YEAR.micros();
        let percent = covered.saturating_mul(100).saturating_add(year - 1) / year;
        u32::try_from(percent).unwrap_or(u32::MAX)
    }

    /// The case that `request` goes on from, whatever its requester says: the latest that was
    /// granted for the same controls and an overlapping scope, and asked for before `created`.
    pub(super) fn parent(
        self,
        request: &Request,
        created: Timestamp,
        now: Timestamp,
    ) -> Option<&'a Arc<Case>> {
        let mut controls: Vec<_> = request.controls.iter().collect();
        controls.sort_unstable();
        self.others()
            .filter(|case| {
                let mut theirs: Vec<_> = case.request.controls.iter().collect();
                theirs.sort_unstable();
                let same = theirs == controls && overlap(&case.request.scope, &request.scope);
                let earlier = (case.created, &case.id) < (created, self.own);
                case.granted.is_some()
                    && earlier
                    && (same || request.renews.as_ref() == Some(&case.id))
            })
            .max_by_key(|case| (case.window(now), &case.id))
    }

    /// How many are in force for an owner, for a subject at the most, and how many were granted
    /// from one of the controls within `days`.
    pub(super) fn load(self, request: &Request, since: Timestamp) -> (usize, usize, usize) {
        let granted = |case: &&Arc<Case>| case.granted.is_some();
        let live = |case: &&Arc<Case>| granted(case) && !case.state.is_final();
        let of_owner = self
            .others()
            .filter(live)
            .filter(|case| case.request.owner == request.owner);
        let of_subject = self
            .others()
            .filter(live)
            .filter(|case| meet(&case.request.scope.subjects, &request.scope.subjects));
        let of_control = self.others().filter(granted).filter(|case| {
            let shared = |id: &ControlId| case.request.controls.contains(id);
            case.granted
                .is_some_and(|granted| granted.effective >= since)
                && request.controls.iter().any(shared)
        });
        (of_owner.count(), of_subject.count(), of_control.count())
    }
}

/// Whether two selectors may name the same subject.
fn meet(a: &Selector, b: &Selector) -> bool {
    match (a, b) {
        (Selector::Ids(a), Selector::Ids(b)) => a.iter().any(|id| b.contains(id)),
        (Selector::Classes(a), Selector::Classes(b)) => a.iter().any(|id| b.contains(id)),
        // A class and one of its instances, or the class by its own id.
        (Selector::Ids(ids), Selector::Classes(classes))
        | (Selector::Classes(classes), Selector::Ids(ids)) => classes
            .iter()
            .any(|class| ids.iter().any(|id| id.as_str() == class.as_str())),
    }
}

fn overlap(a: &Scope, b: &Scope) -> bool {
    let actions = match (&a.actions, &b.actions) {
        (Set::Any, _) | (_, Set::Any) => true,
        (Set::Of(a), Set::Of(b)) => a.iter().any(|action| b.contains(action)),
    };
    actions && meet(&a.subjects, &b.subjects)
}

/// Microseconds between `begin` and `end` that lie in one of the stretches.
fn covered(mut stretches: Vec<Stretch>, begin: Timestamp, end: Timestamp) -> i64 {
    stretches.sort_unstable();
    let (mut total, mut reached) = (0_i64, begin);
    for (from, to) in stretches {
        let (from, to) = (from.max(reached), to.min(end));
        if to > from {
            total = total.saturating_add((to - from).micros());
            reached = to;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r35_overlapping_stretches_count_once_and_only_within_the_year() {
        let at = Timestamp::from_micros;
        let stretches = vec![
            (at(50), at(70)),
            (at(0), at(20)),
            (at(10), at(60)),
            (at(90), at(200)),
        ];
        assert_eq!(covered(stretches.clone(), at(5), at(100)), 65 + 10);
        assert_eq!(covered(stretches, at(95), at(100)), 5);
    }
}
