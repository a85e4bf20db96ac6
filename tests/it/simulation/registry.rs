//! The registry: a durable log, and what it keeps in memory while it runs.

use std::{collections::BTreeMap, sync::Arc};

use exeat::{
    domain::{
        Act, Cause, Edit, Era, Head, LogId, Name, Removal, Span, SubjectId, Target, Timestamp,
    },
    engine::{
        Attendance, Sum,
        attendance::{Entered, Start},
        follow::Beginning,
        part,
    },
    registry::{Interval, Window},
};

use super::disk::{Batch, Objects};

/// What is durable.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) beginning: Beginning,
    pub(crate) head: Head,
    pub(crate) objects: Objects,
    pub(crate) removals: Vec<Removal>,
    /// The starts of sidecars, in the order they came.
    pub(crate) starts: Vec<(String, Start, bool)>,
    /// What everything was at each revision, for the oracle.
    pub(crate) past: BTreeMap<u64, Arc<Objects>>,
}

#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) log: Log,
    pub(crate) up: bool,
    pub(crate) attendance: Attendance,
    pub(crate) window: Window,
    pub(crate) kept: usize,
    pub(crate) sidecars: usize,
    /// Read at some time before, by a registry with that fault.
    pub(crate) stale_head: Head,
    pub(crate) backup: Option<Log>,
}

pub(crate) fn era(epoch: u64) -> Era {
    Era {
        log: LogId([7; 16]),
        epoch,
    }
}

pub(crate) fn sum(objects: &Objects) -> Sum {
    let mut sum = Sum::default();
    for (name, (revision, manifest)) in objects {
        sum.add(&part(name.kind.number(), &name.id, *revision, manifest));
    }
    sum
}

impl Registry {
    pub(crate) fn new(kept: usize, sidecars: usize) -> Self {
        let beginning = Beginning {
            era: era(1),
            base: Head::default(),
        };
        Self {
            log: Log {
                beginning,
                head: Head::default(),
                objects: Objects::new(),
                removals: Vec::new(),
                starts: Vec::new(),
                past: [(0, Arc::default())].into(),
            },
            up: true,
            attendance: Attendance::new(Span::ZERO),
            window: Window::new(0).keeping(kept),
            kept,
            sidecars,
            stale_head: Head::default(),
            backup: None,
        }
    }

    /// One transaction: an exception granted, changed, or nothing but removals.
    pub(crate) fn commit(
        &mut self,
        edit: Option<(Name, Option<Arc<str>>)>,
        removals: Vec<(Act, Target)>,
        time: Timestamp,
    ) {
        let after = self.log.head.revision;
        let revision = after + 1;
        let mut edits = Vec::new();
        if let Some((name, manifest)) = edit {
            let known = self
                .log
                .objects
                .get(&name)
                .map_or(0, |(revision, _)| *revision);
            match &manifest {
                Some(manifest) => drop(
                    self.log
                        .objects
                        .insert(name.clone(), (known + 1, Arc::clone(manifest))),
                ),
                None => drop(self.log.objects.remove(&name)),
            }
            edits.push(Edit {
                name,
                revision: known + 1,
                manifest,
            });
        }
        for (act, target) in removals {
            self.log.head.sequence += 1;
            self.log.removals.push(Removal {
                sequence: self.log.head.sequence,
                act,
                target,
                cause: Cause::Admin,
                note: "".into(),
                initiator: "o".into(),
                time,
            });
        }
        self.log.head.revision = revision;
        self.log
            .past
            .insert(revision, Arc::new(self.log.objects.clone()));
        self.window.push(Interval {
            after,
            through: revision,
            edits,
            sum: sum(&self.log.objects),
            touched: Default::default(),
            classes: false,
        });
    }

    /// A sidecar greets.
    pub(crate) fn enter(&mut self, name: &str, start: Start, over: &[Start]) -> Entered {
        let entered = self.attendance.enter(name, start, over);
        if matches!(entered, Entered::New | Entered::Fencing) {
            let fencing = entered == Entered::Fencing;
            self.log.starts.push((name.to_owned(), start, fencing));
        }
        entered
    }

    /// Memory is gone; the log is not.
    pub(crate) fn start(&mut self, elapsed: Span) {
        self.up = true;
        self.attendance = Attendance::new(elapsed);
        for (name, start, fencing) in &self.log.starts {
            self.attendance.remember(name, *start, *fencing);
        }
        for sidecar in 0..self.sidecars {
            self.attendance.expect(&format!("s{sidecar}"), true);
        }
        self.window = Window::new(self.log.head.revision).keeping(self.kept);
        self.stale_head = self.log.head;
    }

    /// An older copy takes the place of the log, and a new epoch begins beyond what anyone saw.
    /// What was committed since is lost.
    pub(crate) fn restore(&mut self, old: Log, seen: u64, elapsed: Span) -> Vec<Removal> {
        let lost: Vec<Removal> = self
            .log
            .removals
            .iter()
            .skip(old.removals.len())
            .cloned()
            .collect();
        let epoch = self.log.beginning.era.epoch + 1;
        let mut past = std::mem::take(&mut self.log.past);
        self.log = old;
        let base = Head {
            revision: self.log.head.revision.max(seen) + 1_000_000,
            sequence: self.log.head.sequence,
        };
        self.log.beginning = Beginning {
            era: era(epoch),
            base,
        };
        self.log.head.revision = base.revision;
        past.insert(base.revision, Arc::new(self.log.objects.clone()));
        self.log.past = past;
        self.start(elapsed);
        for sidecar in 0..self.sidecars {
            self.attendance.expect_another(&format!("s{sidecar}"));
        }
        lost
    }

    /// Every removal after a sequence.
    pub(crate) fn removals_after(&self, after: u64) -> Batch {
        Batch {
            era: self.log.beginning.era,
            after,
            through: self.log.head.sequence,
            removals: self
                .log
                .removals
                .iter()
                .filter(|removal| removal.sequence > after)
                .cloned()
                .collect(),
        }
    }

    pub(crate) fn revokes(&self, target: &Target) -> bool {
        self.log
            .removals
            .iter()
            .any(|removal| removal.act == Act::Revoke && removal.target == *target)
    }

    /// Whether the last word about the subject was to freeze it.
    pub(crate) fn froze(removals: &[Removal], subject: &SubjectId) -> bool {
        let about = |removal: &&Removal| {
            removal.act != Act::Revoke && removal.target == Target::Subject(subject.clone())
        };
        removals
            .iter()
            .filter(about)
            .max_by_key(|removal| removal.sequence)
            .is_some_and(|removal| removal.act == Act::Freeze)
    }
}
