//! Everything the registry holds, at one revision: the fold of its log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    domain::{
        Digest, Edit, ExceptionId, Finding, Head, Invalid, Kind, Name, Removal, Span, Subject,
        Target, Tier, Timestamp,
    },
    engine::{Cases, Change, Removed, Shelf, Snapshot, follow::Beginning, ledger::Tree},
    manifest::{change, read_case, read_finding},
};

use super::{
    along::Along,
    cohort::{Cohort, Interval},
    core::Planned,
    leases::Leases,
    scope::Scope,
    store::{Kept, StoreError, Stored},
};

/// Objects by name, those that were removed included.
pub(super) type Objects = Shelf<Name, Arc<Stored>>;

/// Findings by their keys.
pub(super) type Findings = Shelf<Box<str>, Arc<Finding>>;

/// The registry at one revision.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// How the epoch began.
    pub beginning: Beginning,
    /// When that was, of one that followed on another.
    pub began: Option<Timestamp>,
    /// The head.
    pub head: Head,
    /// The time of the last transaction.
    pub time: Timestamp,
    /// Every object.
    pub objects: Objects,
    /// What decisions would be made from; removals included.
    pub snapshot: Snapshot,
    /// Every removal, in order.
    pub removals: Arc<Vec<Arc<Removal>>>,
    /// How many of them shut somebody out.
    pub shut_out: u64,
    /// What sidecars hold, by scope.
    pub cohorts: BTreeMap<Scope, Arc<Cohort>>,
    /// The tree over the log.
    pub ledger: Tree,
    /// Exceptions on their way, and those that came to an end.
    pub cases: Cases,
    /// What runs of controls found, by control and subject.
    pub findings: Findings,
    /// Leases that were longer than those in force.
    pub leases: Leases,
    /// Subjects that are classes: others may register as their instances.
    pub classes: Arc<BTreeSet<Arc<str>>>,
    /// Why nothing may be changed, if it may not.
    pub read_only: Option<Box<str>>,
}

impl View {
    /// Builds the view of what a store holds.
    ///
    /// # Errors
    ///
    /// Data that cannot be understood.
    pub(super) fn new(
        kept: &Kept,
        stored: Vec<Stored>,
        removals: Vec<Removal>,
    ) -> Result<Self, StoreError> {
        let failed = |why: String| StoreError::Failed(why);
        let digest = Digest::parse("revision:0").map_err(|error| failed(error.to_string()))?;
        let mut view = Self {
            beginning: kept.beginning,
            began: None,
            head: kept.head,
            time: kept.time,
            objects: Objects::default(),
            snapshot: Snapshot::empty(digest),
            removals: Arc::default(),
            shut_out: 0,
            cohorts: BTreeMap::new(),
            ledger: Tree::default(),
            cases: Cases::default(),
            findings: Findings::default(),
            leases: Leases::default(),
            classes: Arc::default(),
            read_only: None,
        };
        let mut changes = Vec::new();
        for stored in stored {
            if stored.name.kind == Kind::Case {
                view.note_case(&stored.name, stored.manifest.as_deref())
                    .map_err(|e| failed(format!("{}: {e}", stored.name)))?;
            } else if stored.name.kind == Kind::Finding {
                if let Some(record) = stored.manifest.as_deref() {
                    let finding = read_finding(record)
                        .map_err(|e| failed(format!("{}: {e}", stored.name)))?;
                    view.note_finding(Arc::new(finding));
                }
            } else if stored.manifest.is_some() {
                let edit = Edit {
                    name: stored.name.clone(),
                    revision: stored.revision,
                    manifest: stored.manifest.clone(),
                };
                changes.push(change(&edit).map_err(|e| failed(format!("{}: {e}", stored.name)))?);
            }
            view.objects.put(stored.name.clone(), Arc::new(stored));
        }
        view.note_classes(&changes);
        let digest = view.digest()?;
        let (snapshot, errors) = view.snapshot.taking(changes, digest, kept.head.revision);
        for error in errors {
            if Kind::parse(error.source.kind).is_none() {
                return Err(failed(error.to_string()));
            }
            tracing::warn!(%error, "an object no longer fits the others; it grants nothing");
        }
        view.snapshot = snapshot;
        view.remove(removals);
        Ok(view)
    }

    fn digest(&self) -> Result<Digest, StoreError> {
        Digest::parse(&format!("revision:{}", self.head.revision))
            .map_err(|error| StoreError::Failed(error.to_string()))
    }

    fn note_case(&mut self, name: &Name, record: Option<&str>) -> Result<(), Invalid> {
        if let Some(record) = record {
            let case = read_case(record)?;
            self.cases.put(case.id.clone(), Arc::new(case));
        } else {
            self.cases.take(&ExceptionId::parse(&name.id)?);
        }
        Ok(())
    }

    fn note_finding(&mut self, finding: Arc<Finding>) {
        let key = Finding::key(&finding.control, &finding.subject);
        self.findings.put(key, finding);
    }

    fn note_classes(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::PutSubject(subject) if subject.instances.is_some() => {
                    Arc::make_mut(&mut self.classes).insert(subject.id.as_str().into());
                }
                Change::PutSubject(Subject { id, .. }) | Change::RemoveSubject(id)
                    if self.classes.contains(id.as_str()) =>
                {
                    Arc::make_mut(&mut self.classes).remove(id.as_str());
                }
                Change::PutSubject(_)
                | Change::RemoveSubject(_)
                | Change::PutTier(..)
                | Change::PutDomain(_)
                | Change::PutControl(_)
                | Change::PutException(_)
                | Change::PutPerson(_)
                | Change::PutGroup(_)
                | Change::PutIncident(_)
                | Change::PutProposal(_)
                | Change::RemovePerson(_)
                | Change::RemoveGroup(_)
                | Change::RemoveDomain(_)
                | Change::RemoveControl(_)
                | Change::RemoveException(_) => {}
            }
        }
    }

    fn remove(&mut self, removals: Vec<Removal>) {
        if removals.is_empty() {
            return;
        }
        let mut removed: Removed = (**self.snapshot.removed()).clone();
        let all = Arc::make_mut(&mut self.removals);
        for removal in removals {
            // This log renumbers nothing: whatever the epoch, later is larger.
            removed.add(0, &removal);
            let principal = matches!(removal.target, Target::Principal(_));
            self.shut_out = self.shut_out.saturating_add(u64::from(principal));
            all.push(Arc::new(removal));
        }
        self.snapshot = self.snapshot.removing(Arc::new(removed));
    }

    /// The view after a transaction, and what changed for each scope.
    pub(super) fn after(&self, planned: &Planned) -> (Self, Vec<(Scope, Interval)>) {
        let Planned {
            transaction,
            changes,
            snapshot,
            cases,
            findings,
            heard: _,
        } = planned;
        let mut next = Self {
            snapshot: snapshot.removing(Arc::clone(self.snapshot.removed())),
            ..self.clone()
        };
        let after = self.head.revision;
        next.head.revision = transaction.revision;
        next.time = transaction.time;
        for edit in &transaction.edits {
            let stored = Stored {
                name: edit.name.clone(),
                revision: edit.revision,
                manifest: edit.manifest.clone(),
                log_revision: transaction.revision,
                time: transaction.time,
                principal: transaction.principal.clone(),
            };
            next.objects.put(edit.name.clone(), Arc::new(stored));
        }
        for case in cases {
            next.cases.put(case.id.clone(), Arc::clone(case));
        }
        for finding in findings {
            next.note_finding(Arc::clone(finding));
        }
        next.note_classes(changes);
        for tier in Tier::ALL {
            let [before, now] = [&self.snapshot, &next.snapshot].map(|of| of.tier(tier).lease());
            if before > now {
                next.leases.replaced(tier, before, transaction.time);
            }
        }
        if let Some(last) = transaction.removals.last() {
            next.head.sequence = last.sequence;
            next.remove(transaction.removals.clone());
        }
        let classes = changes.iter().any(|change| match change {
            Change::PutSubject(Subject { id, .. }) | Change::RemoveSubject(id) => {
                [&self.classes, &next.classes]
                    .into_iter()
                    .any(|classes| classes.contains(id.as_str()))
            }
            Change::PutTier(..)
            | Change::PutDomain(_)
            | Change::PutControl(_)
            | Change::PutException(_)
            | Change::PutPerson(_)
            | Change::PutGroup(_)
            | Change::PutIncident(_)
            | Change::PutProposal(_)
            | Change::RemovePerson(_)
            | Change::RemoveGroup(_)
            | Change::RemoveDomain(_)
            | Change::RemoveControl(_)
            | Change::RemoveException(_) => false,
        });
        let mut intervals = Vec::with_capacity(next.cohorts.len());
        let edits = &transaction.edits;
        let along = Along::of(edits, changes, &self.snapshot, &next.snapshot);
        for (scope, cohort) in &mut next.cohorts {
            let edits = cohort.concerned(edits, &along, &next.objects, &next.snapshot);
            if !edits.is_empty() {
                let cohort = Arc::make_mut(cohort);
                for edit in &edits {
                    cohort.take(edit);
                }
            }
            let touched = cohort.touched(changes, &self.snapshot, &next.snapshot);
            intervals.push((
                scope.clone(),
                Interval {
                    after,
                    through: transaction.revision,
                    edits,
                    sum: cohort.sum(),
                    touched,
                    classes,
                },
            ));
        }
        (next, intervals)
    }

    /// How long an exception of a tier is honoured at the most, by who has not heard of shorter
    /// leases either.
    pub(super) fn lease(&self, tier: Tier, now: Timestamp) -> Span {
        self.leases.longest(tier, self.snapshot.tier(tier), now)
    }

    /// The longest of any tier.
    pub(super) fn longest_lease(&self, now: Timestamp) -> Span {
        let leases = Tier::ALL.into_iter().map(|tier| self.lease(tier, now));
        leases.fold(Span::ZERO, Span::max)
    }

    /// An object that is there.
    pub(super) fn object(&self, name: &Name) -> Option<&Arc<Stored>> {
        self.objects
            .get(name)
            .filter(|stored| stored.manifest.is_some())
    }
}
