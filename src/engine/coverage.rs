//! How long a subject has been excepted from a control, whatever exceptions it was (R35).

use std::sync::Arc;

use crate::domain::{
    Case, ClassId, ControlId, Deviation, DomainId, Exception, ExceptionId, Request, Scope, Seat,
    Selector, Set, Span, SubjectId, Timestamp,
};

use super::{Shelf, Snapshot};

/// Over how long it is counted.
pub const YEAR: Span = Span::from_days(365);

/// Every case there is or was.
pub type Cases = Shelf<ExceptionId, Arc<Case>>;

/// A stretch of time.
pub(super) type Stretch = (Timestamp, Timestamp);

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

    /// The overrides there were during incidents in any of `domains`.
    pub(super) fn overrides(self, domains: &[&DomainId]) -> impl Iterator<Item = &'a Arc<Case>> {
        // Above and below is the same domain to whoever owes.
        let within = move |inner: &DomainId, outer: &DomainId| {
            let mut above = self.snapshot.domains_above(inner);
            above.any(|domain| domain.id == *outer)
        };
        let of = move |seat: &Seat| {
            seat.domain.as_ref().is_some_and(|owing| {
                let mut domains = domains.iter();
                domains.any(|domain| within(domain, owing) || within(owing, domain))
            })
        };
        self.others().filter(move |case| {
            let owed = case.debt.as_ref().map(|debt| &debt.seats);
            owed.is_some_and(|seats| seats.iter().any(&of))
        })
    }

    /// The most of any year with `window` in it in which a subject of `request` is excepted from
    /// `control` if it is granted, in percent, rounded up.
    pub(super) fn percent(
        self,
        control: &ControlId,
        request: &Request,
        window: Stretch,
        now: Timestamp,
    ) -> u32 {
        let mut stretches = vec![window];
        // Overrides during incidents have an allowance of their own; everything else counts all.
        let overrides = |case: &Case| case.request.deviation == Deviation::IncidentOverride;
        let apart = request.deviation == Deviation::IncidentOverride;
        for case in self.others().filter(|case| !apart || overrides(case)) {
            if let Some(stretch) = case.window(now)
                && case.request.controls.contains(control)
                && self.meet(&case.request.scope.subjects, &request.scope.subjects)
            {
                stretches.push(stretch);
            }
        }
        let bare = self.bare();
        for exception in
            bare.filter(|known| !apart || known.deviation == Deviation::IncidentOverride)
        {
            if exception.controls.contains(control)
                && self.meet(&exception.scope.subjects, &request.scope.subjects)
            {
                stretches.push((exception.effective_time, exception.expire_time));
            }
        }
        // Fullest is a year that ends where a stretch does; windows are asked for in any order.
        let last = window.0 + YEAR;
        let ends = stretches.iter().map(|(_, end)| *end);
        let ends: Vec<_> = ends
            .filter(|end| *end >= window.1 && *end <= last)
            .collect();
        let year = YEAR.micros();
        let most = ends
            .into_iter()
            .map(|end| {
                let begin = end + Span::from_micros(year.saturating_neg());
                covered(stretches.clone(), begin, end)
            })
            .max()
            .unwrap_or(0);
        let percent = most.saturating_mul(100).saturating_add(year - 1) / year;
        u32::try_from(percent).unwrap_or(u32::MAX)
    }

    /// How many came before `request`, whatever its requester says, and the first of them: granted
    /// for the same controls and an overlapping scope. An override during an incident goes on from
    /// overrides alone.
    pub(super) fn renewals(self, request: &Request) -> (u32, Option<&'a ExceptionId>) {
        let mut controls: Vec<_> = request.controls.iter().collect();
        controls.sort_unstable();
        let before = self.others().filter(|case| {
            let mut theirs: Vec<_> = case.request.controls.iter().collect();
            theirs.sort_unstable();
            let same = theirs == controls && self.overlap(&case.request.scope, &request.scope);
            let alike = request.deviation != Deviation::IncidentOverride || case.debt.is_some();
            let named = request.renews.as_ref() == Some(&case.id);
            case.granted.is_some() && alike && (same || named)
        });
        let last = before
            .filter_map(|case| Some((case.terms.as_ref()?, &case.id)))
            .max_by_key(|(terms, id)| (terms.renewal_count, *id));
        last.map_or((0, None), |(terms, _)| {
            (terms.renewal_count.saturating_add(1), Some(&terms.lineage))
        })
    }

    /// How many are in force for an owner, for a subject at the most, and how many were granted
    /// from one of the controls within `days`.
    pub(super) fn load(self, request: &Request, since: Timestamp) -> (usize, usize, usize) {
        let directory = self.snapshot.directory();
        let owner = directory.person(&request.owner);
        let granted = |case: &&Arc<Case>| case.granted.is_some();
        let live = |case: &&Arc<Case>| granted(case) && !case.state.is_final();
        let of_owner = self
            .others()
            .filter(live)
            .filter(|case| directory.person(&case.request.owner) == owner);
        let of_subject = self
            .others()
            .filter(live)
            .filter(|case| self.meet(&case.request.scope.subjects, &request.scope.subjects));
        let of_control = self.others().filter(granted).filter(|case| {
            let shared = |id: &ControlId| case.request.controls.contains(id);
            case.granted
                .is_some_and(|granted| granted.effective >= since)
                && request.controls.iter().any(shared)
        });
        (of_owner.count(), of_subject.count(), of_control.count())
    }

    /// Whether two selectors may name the same subject.
    fn meet(self, a: &Selector, b: &Selector) -> bool {
        match (a, b) {
            (Selector::Ids(a), Selector::Ids(b)) => a.iter().any(|id| b.contains(id)),
            (Selector::Classes(a), Selector::Classes(b)) => a.iter().any(|id| b.contains(id)),
            (Selector::Ids(ids), Selector::Classes(classes))
            | (Selector::Classes(classes), Selector::Ids(ids)) => {
                ids.iter().any(|id| self.is_of(id, classes))
            }
        }
    }

    /// Whether a subject is one of the classes, or a member of one.
    fn is_of(self, id: &SubjectId, classes: &[ClassId]) -> bool {
        let subject = self.snapshot.subject(id.as_str());
        let class = subject.and_then(|subject| subject.class.as_ref());
        classes
            .iter()
            .any(|named| named.as_str() == id.as_str() || class == Some(named))
    }

    fn overlap(self, a: &Scope, b: &Scope) -> bool {
        let actions = match (&a.actions, &b.actions) {
            (Set::Any, _) | (_, Set::Any) => true,
            (Set::Of(a), Set::Of(b)) => a.iter().any(|action| b.contains(action)),
        };
        actions && self.meet(&a.subjects, &b.subjects)
    }
}

/// Microseconds between `begin` and `end` that lie in one of the stretches.
pub(super) fn covered(mut stretches: Vec<Stretch>, begin: Timestamp, end: Timestamp) -> i64 {
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
