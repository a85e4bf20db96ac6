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

use super::intake::{Delta, Held, Nacks, Wrong, gone, nack};

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
        wanted: &BTreeSet<&str>,
        asked: Timestamp,
        signed: Option<&v1::Signed>,
    ) -> Result<(u64, Vec<Self>), Wrong> {
        let statement: v1::EntitiesStatement = trust.open(Purpose::Entities, signed)?;
        let v1::EntitiesStatement {
            era: of,
            revision,
            entities,
            scope,
        } = statement;
        let told: BTreeSet<&str> = entities.iter().map(|entity| entity.id.as_str()).collect();
        let fits = era(of.as_ref())? == held.era
            && *scope == *held.scope
            && told == *wanted
            && told.len() == entities.len();
        if !fits {
            return Err(Wrong::Answer);
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
                EntityStanding::Governed | EntityStanding::Unspecified | EntityStanding::Absent => {
                    None
                }
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
    /// It is newer than everything else that is held: its exceptions wait until that has come.
    early: bool,
    parts: Vec<(Name, Part)>,
}

impl Held {
    /// What was fetched and holds no longer once `delta` is in force.
    pub(super) fn stale(&self, delta: &Delta) -> Vec<SubjectId> {
        if self.fetched.is_empty() {
            return Vec::new();
        }
        let mut changed: BTreeSet<&str> = delta.touched.iter().map(String::as_str).collect();
        for edit in &delta.objects {
            match edit.name.kind {
                Kind::Subject => drop(changed.insert(&edit.name.id)),
                // One that is watched no longer may still be due to somebody who was fetched.
                Kind::Exception => changed.extend(self.named(&edit.name.id)),
                Kind::Control
                | Kind::TierPolicy
                | Kind::Domain
                | Kind::Person
                | Kind::Group
                | Kind::Case
                | Kind::Incident
                | Kind::Proposal
                | Kind::Finding => {}
            }
        }
        let all = changed.contains(ALL_TOUCHED);
        self.fetched
            .entries()
            .filter(|(id, fetched)| {
                let class = fetched.class.as_ref();
                fetched.early
                    || all
                    || (delta.classes && fetched.lease.is_some())
                    || changed.contains(id.as_str())
                    || class.is_some_and(|class| changed.contains(class.as_str()))
            })
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The subjects that an exception names.
    fn named(&self, exception: &str) -> impl Iterator<Item = &str> {
        let exception = self.snapshot.exception(exception);
        let ids = exception.map_or(&[][..], |exception| match &exception.scope.subjects {
            Selector::Ids(ids) => ids,
            Selector::Classes(_) => &[],
        });
        ids.iter().map(SubjectId::as_str)
    }

    /// The same, with what was fetched in the place of what was fetched of it before.
    pub(super) fn taking(mut self, arrived: Vec<Arrived>) -> Result<(Self, Nacks), Wrong> {
        let (mut changes, mut nacks) = (Vec::new(), Nacks::new());
        // All that was, before any of what is: two of them may share an exception.
        for one in &arrived {
            self.forget(&one.id, &mut changes);
        }
        for one in arrived {
            if one.governed && !self.holds(Kind::Subject, one.id.as_str()) {
                self.take_one(one, &mut changes, &mut nacks);
            }
        }
        let (snapshot, errors) = self.snapshot.taking(changes, self.digest()?, self.revision);
        self.snapshot = snapshot;
        for error in errors {
            // What is no object's fault leaves the whole in doubt.
            if Kind::parse(error.source.kind).is_none() {
                return Err(Wrong::Invalid(error.invalid));
            }
            tracing::debug!(%error, "a fetched object does not fit what is held; it grants nothing");
            if error.source.kind == Kind::Subject.name()
                && let Ok(id) = SubjectId::parse(&error.source.id)
            {
                // It is fetched once more when somebody asks about it.
                self = self.forgetting(&[id])?;
            }
        }
        Ok((self, nacks))
    }

    fn take_one(&mut self, one: Arrived, changes: &mut Vec<Change>, nacks: &mut Nacks) {
        let Arrived {
            id,
            governed: _,
            revision,
            asked,
            objects,
            lease,
        } = one;
        // What is newer than everything else that is held brings no authority: the controls that
        // go with it may still be on their way (D2).
        let early = revision > self.revision;
        let mut fetched = Fetched {
            revision,
            class: None,
            lease,
            renew: lease.map_or(Span::ZERO, |end| {
                Span::from_micros((end - asked).micros() / 2)
            }),
            early,
            parts: Vec::with_capacity(objects.len()),
        };
        for object in &objects {
            let name = &object.name;
            let Some(manifest) = &object.manifest else {
                continue;
            };
            if self.holds(name.kind, &name.id) || (early && name.kind == Kind::Exception) {
                continue;
            }
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
            let fetched_for = |id: &str| {
                let other = self.fetched.get(id);
                other.is_some_and(|other| other.parts.iter().any(|(part, _)| part == name))
            };
            let shared = || self.named(&name.id).any(fetched_for);
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
