//! What was fetched on demand, as part of what is held: decisions are made from one snapshot,
//! wherever its parts came from.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    domain::{ClassId, Edit, Kind, Name, Selector, Span, SubjectId, Timestamp},
    engine::{Change, Part, part},
    manifest::change,
    wire::{
        signed::{Purpose, Trust},
        sync::{ALL_TOUCHED, edit, era, time},
        v1::{self, EntityStanding},
    },
};

use super::intake::{Held, Nacks, Wrong, gone, nack};

/// What a fetch brought.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) id: SubjectId,
    /// Whether anything is governed under the id, as far as this sidecar may know.
    pub(super) governed: bool,
    /// As of when.
    revision: u64,
    asked: Timestamp,
    objects: Vec<Edit>,
    lease: Option<Timestamp>,
}

impl Arrived {
    /// Reads the answer to a fetch that was asked for at `asked`: everything in it, or nothing.
    pub(super) fn open(
        trust: &Trust,
        held: &Held,
        asked: Timestamp,
        signed: Option<&v1::Signed>,
    ) -> Result<(u64, Vec<Self>), Wrong> {
        let statement: v1::EntitiesStatement = trust.open(Purpose::Entities, signed)?;
        let v1::EntitiesStatement {
            era: of,
            revision,
            entities,
        } = statement;
        if era(of.as_ref())? != held.era {
            return Err(Wrong::Sum);
        }
        let arrived = entities.into_iter().map(|entity| {
            let standing = entity.standing();
            let v1::Entity {
                id,
                standing: _,
                objects,
                lease_expire_time,
            } = entity;
            let lease = match standing {
                // Without an end it is none.
                EntityStanding::Instance => Some(time("lease_expire_time", lease_expire_time)?),
                EntityStanding::Governed
                | EntityStanding::Unspecified
                | EntityStanding::Absent
                | EntityStanding::Withheld => None,
            };
            Ok(Self {
                id: SubjectId::parse(&id)?,
                governed: lease.is_some() || standing == EntityStanding::Governed,
                revision,
                asked,
                objects: objects.into_iter().map(edit).collect::<Result<_, _>>()?,
                lease,
            })
        });
        Ok((revision, arrived.collect::<Result<_, Wrong>>()?))
    }

    /// What it takes, roughly: a manifest takes about twice as much once it is read.
    pub(super) fn bytes(&self) -> u32 {
        let manifests = self
            .objects
            .iter()
            .filter_map(|edit| edit.manifest.as_ref());
        let bytes: usize = manifests
            .map(|manifest| manifest.len().saturating_mul(2))
            .sum();
        u32::try_from(bytes.saturating_add(512)).unwrap_or(u32::MAX)
    }
}

/// One subject or resource that was fetched and is held.
#[derive(Debug)]
pub(super) struct Fetched {
    /// As of when.
    pub(super) revision: u64,
    /// What it is an instance of.
    pub(super) class: Option<ClassId>,
    /// Of an instance: until when.
    pub(super) lease: Option<Timestamp>,
    /// How long before that it is to be renewed.
    pub(super) renew: Span,
    parts: Vec<(Name, Part)>,
}

impl Held {
    /// What was fetched and holds no longer once `touched` and `edits` are in force.
    pub(super) fn stale(&self, touched: &[String], edits: &[Edit], through: u64) -> Vec<SubjectId> {
        if self.fetched.is_empty() {
            return Vec::new();
        }
        let subjects = edits.iter().filter(|edit| edit.name.kind == Kind::Subject);
        let changed: BTreeSet<&str> = touched
            .iter()
            .map(String::as_str)
            .chain(subjects.map(|edit| &*edit.name.id))
            .collect();
        let all = changed.contains(ALL_TOUCHED);
        if changed.is_empty() {
            return Vec::new();
        }
        self.fetched
            .entries()
            .filter(|(id, fetched)| {
                let class = fetched.class.as_ref();
                fetched.revision < through
                    && (all
                        || changed.contains(id.as_str())
                        || class.is_some_and(|class| changed.contains(class.as_str())))
            })
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The same, with what was fetched in the place of what was fetched of it before.
    pub(super) fn taking(mut self, arrived: Vec<Arrived>) -> Result<(Self, Nacks), Wrong> {
        let (mut changes, mut nacks) = (Vec::new(), Nacks::new());
        for Arrived {
            id,
            governed,
            revision,
            asked,
            objects,
            lease,
        } in arrived
        {
            self.forget(&id, &mut changes);
            if !governed || self.holds(Kind::Subject, id.as_str()) {
                continue;
            }
            let mut fetched = Fetched {
                revision,
                class: None,
                lease,
                renew: lease.map_or(Span::ZERO, |end| {
                    Span::from_micros((end - asked).micros() / 2)
                }),
                parts: Vec::with_capacity(objects.len()),
            };
            for object in &objects {
                let name = &object.name;
                let (Some(manifest), false) = (&object.manifest, self.holds(name.kind, &name.id))
                else {
                    continue;
                };
                let part = part(name.kind.number(), &name.id, object.revision, manifest);
                self.extra.add(&part);
                fetched.parts.push((name.clone(), part));
                match change(object) {
                    Ok(Change::PutSubject(mut subject)) if subject.id == id => {
                        subject.lease_expire_time = lease;
                        fetched.class = lease.and(subject.class.clone());
                        changes.push(Change::PutSubject(subject));
                    }
                    Ok(granted @ Change::PutException(_)) => changes.push(granted),
                    Ok(_) => nacks.push(nack(name, object.revision, "was not asked for")),
                    Err(error) => {
                        nacks.push(nack(name, object.revision, &error.to_string()));
                        changes.extend(change(&gone(object)).ok());
                    }
                }
            }
            self.fetched.put(id, Arc::new(fetched));
        }
        let (snapshot, errors) = self.snapshot.taking(changes, self.digest()?, self.revision);
        for error in errors {
            // What refers to something newer comes again with the change that brings that.
            tracing::debug!(%error, "a fetched object does not fit what is held; it grants nothing");
        }
        self.snapshot = snapshot;
        Ok((self, nacks))
    }

    /// The same without what was fetched under `ids`.
    pub(super) fn forgetting(mut self, ids: &[SubjectId]) -> Result<Self, Wrong> {
        let mut changes = Vec::new();
        for id in ids {
            self.forget(id, &mut changes);
        }
        let (snapshot, _) = self.snapshot.taking(changes, self.digest()?, self.revision);
        self.snapshot = snapshot;
        Ok(self)
    }

    fn holds(&self, kind: Kind, id: &str) -> bool {
        self.parts.get(&Name::new(kind, id)).is_some()
    }

    /// Takes out what was fetched under `id`; what is watched, or was fetched for another as well,
    /// stays.
    pub(super) fn forget(&mut self, id: &SubjectId, changes: &mut Vec<Change>) {
        let Some(old) = self.fetched.take(id) else {
            return;
        };
        for (name, part) in &old.parts {
            self.extra.remove(part);
            if self.holds(name.kind, &name.id) {
                continue;
            }
            let shared = || {
                let exception = self.snapshot.exception(&name.id);
                exception.is_some_and(|exception| match &exception.scope.subjects {
                    Selector::Ids(ids) => ids.iter().any(|id| self.fetched.get(id).is_some()),
                    Selector::Classes(_) => false,
                })
            };
            if name.kind == Kind::Exception && shared() {
                continue;
            }
            let edit = Edit {
                name: name.clone(),
                revision: old.revision,
                manifest: None,
            };
            changes.extend(change(&edit).ok());
        }
    }
}
