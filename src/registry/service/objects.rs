//! `exeat.v1.ObjectService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{Invalid, Kind, Name, Observed, SubjectId, Target},
    registry::{
        core::{Error, Registry},
        store::Stored,
        view::View,
        workflow::{Applied, Apply, Fate},
    },
    wire::{
        Fault, Received,
        sync::{kind, kind_message, stamp},
        v1,
    },
};

use super::{opened, page};

/// Answers for objects.
#[derive(Clone, Debug)]
pub(crate) struct ObjectCalls(pub(in crate::registry) Arc<Registry>);

fn name(of: i32, id: &str) -> Result<Name, Fault> {
    if id.is_empty() {
        let invalid = Invalid::new("id", "is empty", "name the object");
        return Err(Fault::Invalid(invalid));
    }
    Ok(Name::new(kind(of).map_err(Fault::Invalid)?, id))
}

pub(super) fn message(stored: &Stored, view: &View) -> v1::StoredObject {
    v1::StoredObject {
        kind: kind_message(stored.name.kind),
        id: stored.name.id.to_string(),
        revision: stored.revision,
        manifest: stored.manifest.as_deref().unwrap_or_default().to_owned(),
        log_revision: stored.log_revision,
        time: Some(stamp(stored.time)),
        principal: stored.principal.to_string(),
        standing: standing(&stored.name, view).to_owned(),
    }
}

fn seen((observed, sidecar): (Observed, Box<str>)) -> v1::ObservedFacet {
    v1::ObservedFacet {
        subject: observed.subject.to_string(),
        facet: observed.facet.name().to_owned(),
        digest: observed.digest.to_string(),
        first_time: Some(stamp(observed.first)),
        last_time: Some(stamp(observed.last)),
        sidecar: sidecar.into(),
    }
}

fn standing(name: &Name, view: &View) -> &'static str {
    let removed = view.snapshot.removed();
    let kind = match name.kind {
        Kind::Exception => "exception",
        Kind::Subject => "subject",
        Kind::Control => "control",
        Kind::Domain => "domain",
        Kind::TierPolicy
        | Kind::Person
        | Kind::Group
        | Kind::Case
        | Kind::Incident
        | Kind::Proposal
        | Kind::Finding => return "",
    };
    let revoked = Target::parse(kind, &name.id).is_ok_and(|target| removed.revokes(&target));
    let frozen = || SubjectId::parse(&name.id).is_ok_and(|id| removed.freezes(&id));
    if revoked {
        "REVOKED"
    } else if name.kind == Kind::Subject && frozen() {
        "FROZEN"
    } else {
        ""
    }
}

fn fared(applied: Applied, view: &View) -> v1::ObjectChange {
    let Applied {
        name,
        fate,
        revision,
        before,
        after,
    } = applied;
    // Where both are the whole of it, a bundle would come back at twice its size.
    let told = |manifest: Option<Arc<str>>| match fate {
        Fate::Updated => manifest.as_deref().unwrap_or_default().to_owned(),
        Fate::Created | Fate::Removed | Fate::Unchanged => String::new(),
    };
    v1::ObjectChange {
        kind: kind_message(name.kind),
        standing: standing(&name, view).to_owned(),
        id: name.id.to_string(),
        change: match fate {
            Fate::Created => v1::ChangeKind::Created,
            Fate::Updated => v1::ChangeKind::Updated,
            Fate::Removed => v1::ChangeKind::Removed,
            Fate::Unchanged => v1::ChangeKind::Unchanged,
        }
        .into(),
        revision,
        before: told(before),
        after: told(after),
    }
}

impl ObjectCalls {
    async fn applied(
        &self,
        request: Request<Received<v1::ApplyRequest>>,
    ) -> Result<v1::ApplyResponse, Fault> {
        let (caller, message) = opened(request)?;
        let v1::ApplyRequest {
            files,
            dry_run,
            prune,
            expected,
        } = message;
        if files.is_empty() {
            let invalid = Invalid::new("files", "is empty", "send manifests");
            return Err(Fault::Invalid(invalid));
        }
        let expected = expected
            .into_iter()
            .map(|v1::Expectation { kind, id, revision }| Ok((name(kind, &id)?, revision)))
            .collect::<Result<_, Fault>>()?;
        let apply = Apply {
            files: files
                .into_iter()
                .map(|v1::ManifestFile { name, content }| (name, content))
                .collect(),
            dry_run,
            prune,
            expected,
        };
        let (revision, applied) = self.0.apply(&caller, apply).await?;
        let view = self.0.view();
        let applied = applied.into_iter();
        Ok(v1::ApplyResponse {
            revision,
            changes: applied.map(|applied| fared(applied, &view)).collect(),
        })
    }

    async fn got(
        &self,
        request: Request<Received<v1::GetObjectRequest>>,
    ) -> Result<v1::GetObjectResponse, Fault> {
        let (_, v1::GetObjectRequest { kind, id }) = opened(request)?;
        let name = name(kind, &id)?;
        let view = self.0.view();
        let stored = view
            .object(&name)
            .ok_or_else(|| Fault::NotFound(format!("there is no {name}")))?;
        let observed = if name.kind == Kind::Subject {
            let store = &self.0.store;
            store.observed(&name.id).await.map_err(Error::Store)?
        } else {
            Vec::new()
        };
        Ok(v1::GetObjectResponse {
            object: Some(message(stored, &view)),
            observed: observed.into_iter().map(seen).collect(),
        })
    }

    fn listed(
        &self,
        request: Request<Received<v1::ListObjectsRequest>>,
    ) -> Result<v1::ListObjectsResponse, Fault> {
        let (_, message_) = opened(request)?;
        let v1::ListObjectsRequest {
            kind: of,
            filter,
            page_size,
            page_token,
        } = message_;
        let of = kind(of).map_err(Fault::Invalid)?;
        let words: Vec<&str> = filter.split_whitespace().collect();
        let view = self.0.view();
        let mut found: Vec<_> = view
            .objects
            .values()
            .filter(|stored| {
                let manifest = stored.manifest.as_deref();
                stored.name.kind == of
                    && *stored.name.id > *page_token
                    && manifest.is_some_and(|manifest| {
                        words
                            .iter()
                            .all(|word| stored.name.id.contains(word) || manifest.contains(word))
                    })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let size = page(page_size);
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().map(|stored| stored.name.id.to_string());
        Ok(v1::ListObjectsResponse {
            objects: found.iter().map(|stored| message(stored, &view)).collect(),
            next_page_token: last.filter(|_| more).unwrap_or_default(),
        })
    }

    async fn past(
        &self,
        request: Request<Received<v1::ListHistoryRequest>>,
    ) -> Result<v1::ListHistoryResponse, Fault> {
        let (_, message_) = opened(request)?;
        let v1::ListHistoryRequest {
            kind,
            id,
            page_size,
            page_token,
        } = message_;
        let name = name(kind, &id)?;
        let before = if page_token.is_empty() {
            u64::MAX
        } else {
            page_token.parse().map_err(|_| {
                let fix = "send what the last answer said";
                Fault::Invalid(Invalid::new("page_token", "is no page", fix))
            })?
        };
        let size = page(page_size);
        let mut found = self
            .0
            .store
            .history(&name, before, size.saturating_add(1))
            .await
            .map_err(|error| Fault::from(Error::Store(error)))?;
        if found.is_empty() && page_token.is_empty() {
            return Err(Fault::NotFound(format!("there never was a {name}")));
        }
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().map(|stored| stored.log_revision.to_string());
        let view = self.0.view();
        Ok(v1::ListHistoryResponse {
            objects: found.iter().map(|stored| message(stored, &view)).collect(),
            next_page_token: last.filter(|_| more).unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl v1::object_service_server::ObjectService for ObjectCalls {
    async fn apply(
        &self,
        request: Request<Received<v1::ApplyRequest>>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        Ok(Response::new(self.applied(request).await?))
    }

    async fn get_object(
        &self,
        request: Request<Received<v1::GetObjectRequest>>,
    ) -> Result<Response<v1::GetObjectResponse>, Status> {
        Ok(Response::new(self.got(request).await?))
    }

    async fn list_objects(
        &self,
        request: Request<Received<v1::ListObjectsRequest>>,
    ) -> Result<Response<v1::ListObjectsResponse>, Status> {
        Ok(Response::new(self.listed(request)?))
    }

    async fn list_history(
        &self,
        request: Request<Received<v1::ListHistoryRequest>>,
    ) -> Result<Response<v1::ListHistoryResponse>, Status> {
        Ok(Response::new(self.past(request).await?))
    }
}
