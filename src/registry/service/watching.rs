//! Watching: a snapshot in chunks, then what changes.

use std::sync::Arc;

use crate::{
    domain::Era,
    registry::{authn::Caller, cohort::Window, publication::Built},
    runtime::publish::Changes,
    wire::{
        Fault,
        v1::{self, watch_response},
    },
};

use super::sync::{Ended, Sync};

/// A sidecar that watches, and how far it is.
pub(super) struct Watcher {
    pub(super) sync: Sync,
    pub(super) caller: Caller,
    pub(super) era: Era,
    pub(super) at: At,
    pub(super) at_least: u64,
    /// When it was last looked up whether it is still let in.
    pub(super) looked: Option<u64>,
    pub(super) changes: Changes,
    pub(super) stopping: Ended,
}

pub(super) enum At {
    /// Needs everything, or what is left of it from a chunk on.
    Nothing(Option<(Vec<u8>, u32)>),
    /// Next is this chunk.
    Chunk(Arc<Built>, u32),
    /// Holds everything up to a revision.
    Revision(u64),
}

impl Watcher {
    /// The next message; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<v1::WatchResponse>, Fault> {
        use watch_response::Event;
        let event = |event| v1::WatchResponse { event: Some(event) };
        loop {
            let registry = &self.sync.registry;
            let view = registry.view();
            if view.beginning.era != self.era {
                return Err(Fault::Conflict("a new epoch has begun".into()));
            }
            self.sync
                .still_since(&self.caller, &view, &mut self.looked)?;
            let scope = &self.caller.scope;
            match &self.at {
                At::Nothing(from) => {
                    let publication = &self.sync.publication;
                    let making = publication.snapshot(registry, scope, self.at_least);
                    let built = Box::pin(making).await?;
                    let next = match from {
                        Some((digest, chunk)) if *digest == built.digest => *chunk,
                        Some(_) | None => 0,
                    };
                    let signed = built.signed.clone();
                    self.at = At::Chunk(built, next);
                    return Ok(Some(event(Event::Snapshot(signed))));
                }
                At::Chunk(built, next) if *next < built.chunks() => {
                    let chunk = built.chunk(*next).map_err(|error| {
                        tracing::error!(%error, "a snapshot's chunk cannot be read");
                        Fault::Unavailable("the snapshot cannot be read; begin again".into())
                    })?;
                    self.at = At::Chunk(Arc::clone(built), next.saturating_add(1));
                    return Ok(Some(event(Event::Chunk(chunk))));
                }
                At::Chunk(built, _) => self.at = At::Revision(built.revision),
                At::Revision(revision) => {
                    let (interval, floor) = {
                        let windows = registry.windows();
                        let window = windows.get(&**scope);
                        (
                            window.and_then(|window| window.since(*revision)),
                            window.map_or(u64::MAX, Window::floor),
                        )
                    };
                    if let Some(interval) = interval {
                        let publication = &self.sync.publication;
                        match publication.delta(registry, &view, scope, &interval) {
                            Some(delta) => {
                                self.at = At::Revision(interval.through);
                                return Ok(Some(event(Event::Delta((*delta).clone()))));
                            }
                            None => self.at = At::Nothing(None),
                        }
                        continue;
                    }
                    if *revision < floor || *revision > view.head.revision {
                        self.at = At::Nothing(None);
                        continue;
                    }
                    tokio::select! {
                        biased;
                        () = &mut self.stopping => return Ok(None),
                        () = self.changes.changed() => {}
                    }
                }
            }
        }
    }
}
