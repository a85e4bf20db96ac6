//! What sidecars fetch on demand: subjects and resources that they do not watch, and instances of
//! classes, which register by being fetched.

use std::sync::Arc;

use crate::{
    domain::{Invalid, Kind, Name, Subject, SubjectId, Timestamp},
    manifest,
    registry::{authn::Caller, instances::class_of, view::View},
    wire::{
        Fault,
        signed::Purpose,
        sync::{era, era_message, stamp},
        v1::{self, EntityStanding},
    },
};

use super::Sync;

/// Most that are fetched at once.
const MOST: usize = 100;

impl Sync {
    /// Answers a fetch; everything in the answer is as it was at one revision.
    pub(super) fn fetched(
        &self,
        caller: &Caller,
        message: v1::FetchRequest,
    ) -> Result<v1::FetchResponse, Fault> {
        self.still(caller)?;
        let v1::FetchRequest { era: of, wanted } = message;
        let view = self.registry.view();
        let ours = view.beginning.era;
        if era(of.as_ref()).map_err(Fault::Invalid)? != ours {
            return Err(Fault::Conflict("another epoch has begun".into()));
        }
        if wanted.len() > MOST {
            let fix = format!("ask for {MOST} at a time");
            let invalid = Invalid::new("wanted", format!("has {} items", wanted.len()), fix);
            return Err(Fault::Invalid(invalid));
        }
        let now = self.registry.clock.now().latest;
        let entities = wanted
            .into_iter()
            .map(|wanted| self.entity(caller, wanted, &view, now))
            .collect::<Result<_, _>>()?;
        let statement = v1::EntitiesStatement {
            era: Some(era_message(ours)),
            revision: view.head.revision,
            entities,
            scope: caller.scope.to_string(),
        };
        let signer = &self.registry.signer;
        Ok(v1::FetchResponse {
            entities: Some(signer.seal(Purpose::Entities, &statement)),
        })
    }

    fn entity(
        &self,
        caller: &Caller,
        wanted: v1::WantedEntity,
        view: &View,
        now: Timestamp,
    ) -> Result<v1::Entity, Fault> {
        let v1::WantedEntity { id, attested } = wanted;
        let subject = SubjectId::parse(&id).map_err(Fault::Invalid)?;
        let answer = |standing: EntityStanding| v1::Entity {
            id: id.clone(),
            standing: standing.into(),
            ..v1::Entity::default()
        };
        if let Some(governed) = view.snapshot.subject(&id) {
            if !caller.scope.may_know(governed, &view.snapshot) {
                return Ok(answer(EntityStanding::Absent));
            }
            return Ok(v1::Entity {
                objects: objects(view, governed),
                ..answer(EntityStanding::Governed)
            });
        }
        let classes = view.classes.iter().map(AsRef::as_ref);
        let Some((class, permitted)) = class_of(&subject, classes, &view.snapshot) else {
            return Ok(answer(EntityStanding::Absent));
        };
        if !caller.scope.may_know(class, &view.snapshot) {
            return Ok(answer(EntityStanding::Absent));
        }
        let (true, Some(stored)) = (attested, stored(view, class.id.as_str())) else {
            return Ok(answer(EntityStanding::Absent));
        };
        let class = (class, permitted);
        let registered = self
            .registry
            .instances
            .register(&subject, class, &caller.identity, now);
        let Some(expire) = registered else {
            return Ok(answer(EntityStanding::Absent));
        };
        let manifest = stored.manifest.as_deref().unwrap_or_default();
        let object = v1::SyncObject {
            kind: v1::ObjectKind::Subject.into(),
            id: id.clone(),
            revision: stored.revision,
            manifest: manifest::instance(manifest, &id).map_err(Fault::Invalid)?,
        };
        Ok(v1::Entity {
            objects: vec![object],
            lease_expire_time: Some(stamp(expire)),
            ..answer(EntityStanding::Instance)
        })
    }
}

fn stored<'a>(view: &'a View, subject: &str) -> Option<&'a Arc<crate::registry::store::Stored>> {
    view.object(&Name::new(Kind::Subject, subject))
}

/// A subject and the exceptions that name it.
fn objects(view: &View, subject: &Subject) -> Vec<v1::SyncObject> {
    let id = subject.id.as_str();
    let exceptions = view.snapshot.exceptions_of(id).into_iter();
    let names = exceptions.map(|exception| Name::new(Kind::Exception, exception.id.as_str()));
    [Name::new(Kind::Subject, id)]
        .into_iter()
        .chain(names)
        .filter_map(|name| {
            let stored = view.object(&name)?;
            Some(v1::SyncObject {
                kind: crate::wire::sync::kind_message(name.kind),
                id: name.id.to_string(),
                revision: stored.revision,
                manifest: stored.manifest.as_deref()?.to_owned(),
            })
        })
        .collect()
}
