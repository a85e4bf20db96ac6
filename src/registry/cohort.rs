//! Sidecars of one scope: what they hold, and what changed lately.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    domain::{Edit, Kind, Name, Selector, SubjectId},
    engine::{
        Change, Part, Shelf, Snapshot, Sum, part,
        planted::{Bug, planted},
    },
};

use crate::wire::sync::ALL_TOUCHED;

use super::{along::Along, scope::Scope, view::Objects};

/// Changes kept for sidecars that were away: beyond it they begin again.
const MOST_KEPT: usize = 100_000;

/// What the sidecars of one scope hold at a revision.
#[derive(Clone, Debug)]
pub(super) struct Cohort {
    scope: Scope,
    members: Shelf<Name, Part>,
    sum: Sum,
}

/// What changed for a scope from one revision to another.
#[derive(Clone, Debug)]
pub struct Interval {
    /// After this revision,
    pub after: u64,
    /// up to this one.
    pub through: u64,
    /// Each object as it is at the end.
    pub edits: Vec<Edit>,
    /// The sum afterwards.
    pub sum: Sum,
    /// Subjects that changed, or whose exceptions did, and that are fetched on demand.
    pub touched: BTreeSet<Arc<str>>,
    /// Whether a class changed, or who may be an instance of one.
    pub classes: bool,
}

/// Ids of subjects; [`ALL_TOUCHED`] for all of them.
pub(super) type Touched = BTreeSet<Arc<str>>;

impl Interval {
    /// Whether nothing changed for the scope.
    fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.touched.is_empty() && !self.classes
    }

    /// Whether it holds all that came after `revision`, and nothing from before it.
    fn goes_on_from(&self, revision: u64) -> bool {
        self.after == revision
            || (self.is_empty() && self.after < revision && revision < self.through)
    }

    fn weight(&self) -> usize {
        let changes = self.edits.len().saturating_add(self.touched.len());
        changes.saturating_add(1)
    }
}

impl Cohort {
    /// The cohort of `scope` as things are.
    pub(super) fn new(scope: Scope, objects: &Objects, snapshot: &Snapshot) -> Self {
        let mut cohort = Self {
            scope,
            members: Shelf::default(),
            sum: Sum::default(),
        };
        for edit in cohort.every(objects, snapshot) {
            cohort.take(&edit);
        }
        cohort
    }

    /// The sum of what it holds.
    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    /// Everything in the scope, what others refer to first and exceptions last.
    pub(super) fn every(&self, objects: &Objects, snapshot: &Snapshot) -> Vec<Edit> {
        let mut edits: Vec<Edit> = objects
            .values()
            .filter(|stored| stored.manifest.is_some() && self.reaches(&stored.name, snapshot))
            .map(|stored| Edit {
                name: stored.name.clone(),
                revision: stored.revision,
                manifest: stored.manifest.clone(),
            })
            .collect();
        edits.sort_by(|a, b| (rank(&a.name), &a.name).cmp(&(rank(&b.name), &b.name)));
        edits
    }

    fn reaches(&self, name: &Name, snapshot: &Snapshot) -> bool {
        if !name.kind.decides() {
            return false;
        }
        if self.scope.is_all() {
            return true;
        }
        match name.kind {
            Kind::Person
            | Kind::Group
            | Kind::Case
            | Kind::Incident
            | Kind::Proposal
            | Kind::Finding => false,
            Kind::Control | Kind::TierPolicy | Kind::Domain => true,
            Kind::Subject => snapshot
                .subject(&name.id)
                .is_some_and(|subject| self.scope.held.holds(subject, snapshot)),
            Kind::Exception => snapshot.exception(&name.id).is_some_and(|exception| {
                self.scope
                    .holds_selector(&exception.scope.subjects, snapshot)
            }),
        }
    }

    /// What `edits` change for it, once `snapshot` and `objects` hold them, with what goes along.
    pub(super) fn concerned(
        &self,
        edits: &[Edit],
        along: &Along,
        objects: &Objects,
        snapshot: &Snapshot,
    ) -> Vec<Edit> {
        let mut concerned: Vec<Edit> = edits
            .iter()
            .map(|edit| {
                if self.reaches(&edit.name, snapshot) {
                    edit.clone()
                } else {
                    Edit {
                        manifest: None,
                        ..edit.clone()
                    }
                }
            })
            .collect();
        if !self.scope.is_all() {
            let moved = along.among(objects).filter_map(|stored| {
                let belongs = stored.manifest.is_some() && self.reaches(&stored.name, snapshot);
                let moves = belongs != self.members.get(&stored.name).is_some();
                moves.then(|| Edit {
                    name: stored.name.clone(),
                    revision: stored.revision,
                    manifest: stored.manifest.clone().filter(|_| belongs),
                })
            });
            concerned.extend(moved);
        }
        concerned.retain(|edit| edit.manifest.is_some() || self.members.get(&edit.name).is_some());
        concerned
    }

    /// Which subjects that are fetched on demand `changes` touch, from `before` to `after`.
    pub(super) fn touched(
        &self,
        changes: &[Change],
        before: &Snapshot,
        after: &Snapshot,
    ) -> Touched {
        let mut touched = Touched::new();
        if self.scope.demand.is_empty() {
            return touched;
        }
        let mut add = |id: &str| {
            let may_know = [before, after].into_iter().any(|view| {
                let subject = view.subject(id);
                subject.is_some_and(|subject| self.scope.demand.holds(subject, view))
            });
            if may_know {
                touched.insert(id.into());
            }
        };
        for change in changes {
            match change {
                Change::PutSubject(subject) => add(subject.id.as_str()),
                Change::RemoveSubject(id) => add(id.as_str()),
                Change::PutException(exception) => {
                    let id = exception.id.as_str();
                    named(before, id).chain(named(after, id)).for_each(&mut add);
                }
                Change::RemoveException(id) => named(before, id.as_str()).for_each(&mut add),
                // Who belongs to a domain depends on all that are above it.
                Change::PutDomain(_) | Change::RemoveDomain(_) => {
                    return [ALL_TOUCHED.into()].into();
                }
                Change::PutTier(..)
                | Change::PutControl(_)
                | Change::RemoveControl(_)
                | Change::PutPerson(_)
                | Change::PutGroup(_)
                | Change::PutIncident(_)
                | Change::PutProposal(_)
                | Change::RemovePerson(_)
                | Change::RemoveGroup(_) => {}
            }
        }
        touched
    }

    /// Takes an edit in.
    pub(super) fn take(&mut self, edit: &Edit) {
        let old = match &edit.manifest {
            Some(manifest) => {
                let part = part(
                    edit.name.kind.number(),
                    &edit.name.id,
                    edit.revision,
                    manifest,
                );
                self.sum.add(&part);
                self.members.put(edit.name.clone(), part)
            }
            None => self.members.take(&edit.name),
        };
        if let Some(old) = old {
            self.sum.remove(&old);
        }
    }
}

/// The subjects that an exception names.
fn named<'a>(view: &'a Snapshot, exception: &str) -> impl Iterator<Item = &'a str> {
    let ids =
        view.exception(exception)
            .map_or(&[][..], |exception| match &exception.scope.subjects {
                Selector::Ids(ids) => ids,
                Selector::Classes(_) => &[],
            });
    ids.iter().map(SubjectId::as_str)
}

fn rank(name: &Name) -> u8 {
    match name.kind {
        Kind::TierPolicy => 0,
        Kind::Domain => 1,
        Kind::Control => 2,
        Kind::Subject => 3,
        Kind::Exception => 4,
        Kind::Person
        | Kind::Group
        | Kind::Case
        | Kind::Incident
        | Kind::Proposal
        | Kind::Finding => 5,
    }
}

/// The latest changes of a scope, from some revision on without a gap.
#[derive(Clone, Debug)]
pub struct Window {
    intervals: VecDeque<Interval>,
    from: u64,
    kept: usize,
    most: usize,
}

impl Window {
    /// No changes since `revision`.
    pub fn new(revision: u64) -> Self {
        Self {
            intervals: VecDeque::new(),
            from: revision,
            kept: 0,
            most: MOST_KEPT,
        }
    }

    /// The same, of fewer changes.
    #[must_use]
    pub fn keeping(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// The earliest revision that can be resumed from: the compaction floor.
    pub fn floor(&self) -> u64 {
        self.from
    }

    /// Adds what changed next; the oldest goes when there is too much. Of what changed nothing for
    /// the scope only the last revision is kept: most of what happens elsewhere.
    pub fn push(&mut self, interval: Interval) {
        if let Some(last) = self.intervals.back_mut()
            && last.is_empty()
            && interval.is_empty()
            && last.through == interval.after
        {
            last.through = interval.through;
            return;
        }
        self.kept = self.kept.saturating_add(interval.weight());
        self.intervals.push_back(interval);
        while self.kept > self.most
            && let Some(old) = self.intervals.pop_front()
        {
            self.from = old.through;
            self.kept = self.kept.saturating_sub(old.weight());
        }
    }

    /// The sum of everything at a revision, if its change is still kept.
    pub fn sum_at(&self, revision: u64) -> Option<Sum> {
        let at = self
            .intervals
            .partition_point(|interval| interval.through < revision);
        let interval = self.intervals.get(at)?;
        let within = interval.is_empty() && interval.after <= revision;
        (interval.through == revision || within).then_some(interval.sum)
    }

    /// How many changes there were since `revision`; nothing if that is too long ago to tell.
    pub fn changes_since(&self, revision: u64) -> Option<usize> {
        (revision >= self.from).then(|| {
            let later = self.intervals.iter().rev();
            later
                .take_while(|interval| interval.after >= revision)
                .map(|interval| interval.edits.len())
                .sum()
        })
    }

    /// Everything after `revision` as one interval; nothing if it reaches back too far, or begins
    /// within a transaction.
    pub fn since(&self, revision: u64) -> Option<Interval> {
        let first = self
            .intervals
            .partition_point(|interval| interval.through <= revision);
        let mut rest = self.intervals.iter().skip(first).peekable();
        if !rest.peek()?.goes_on_from(revision) && !planted(Bug::ResumeAtHead) {
            return None;
        }
        let mut net: BTreeMap<&Name, &Edit> = BTreeMap::new();
        let (mut through, mut sum) = (revision, Sum::default());
        let mut touched = Touched::new();
        let mut classes = false;
        for interval in rest {
            net.extend(interval.edits.iter().map(|edit| (&edit.name, edit)));
            touched.extend(interval.touched.iter().cloned());
            classes |= interval.classes;
            (through, sum) = (interval.through, interval.sum);
        }
        Some(Interval {
            after: revision,
            through,
            edits: net.into_values().cloned().collect(),
            sum,
            touched,
            classes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(after: u64, id: &str) -> Interval {
        Interval {
            after,
            through: after + 1,
            edits: vec![Edit {
                name: Name::new(Kind::Control, id),
                revision: after + 1,
                manifest: Some("{}".into()),
            }],
            sum: Sum::default(),
            touched: Touched::new(),
            classes: false,
        }
    }

    #[test]
    fn s10_a_resume_at_the_floor_works_and_one_below_does_not() {
        let mut window = Window::new(0).keeping(6);
        for revision in 0..5 {
            window.push(interval(revision, "A-1"));
        }
        // Three intervals of one edit are six.
        assert_eq!(window.floor(), 2);
        assert!(window.since(1).is_none());
        for from in 2..5 {
            let since = window.since(from).unwrap();
            assert_eq!((since.after, since.through), (from, 5));
            assert_eq!(since.edits.len(), 1, "coalesced");
            assert_eq!(since.edits[0].revision, 5);
        }
        assert!(window.since(5).is_none(), "nothing is new");
    }

    #[test]
    fn s10_what_changed_nothing_can_be_resumed_from_anywhere() {
        let one = Sum::from_slice(&[1; 32]).unwrap();
        let nothing = |after| Interval {
            edits: Vec::new(),
            sum: one,
            ..interval(after, "A-1")
        };
        let other = Interval {
            sum: Sum::from_slice(&[2; 32]).unwrap(),
            ..interval(6, "A-2")
        };
        let mut window = Window::new(2).keeping(4);
        for after in 2..6 {
            window.push(nothing(after));
        }
        window.push(other);
        assert_eq!(window.intervals.len(), 2, "kept once");
        for from in 2..7 {
            let since = window.since(from).unwrap();
            assert_eq!((since.after, since.through), (from, 7));
            assert_eq!(since.edits.len(), 1);
            assert_eq!(window.changes_since(from), Some(1));
        }
        assert!(window.since(1).is_none() && window.since(7).is_none());
        let sums: Vec<_> = (1..9).map(|revision| window.sum_at(revision)).collect();
        let at = |byte: u8| Sum::from_slice(&[byte; 32]);
        let known = [None, at(1), at(1), at(1), at(1), at(1), at(2), None];
        assert_eq!(sums, known);
        // What came before a change is not known by it.
        let mut fresh = Window::new(8);
        fresh.push(interval(8, "A-1"));
        assert_eq!(fresh.sum_at(8), None);
    }
}
