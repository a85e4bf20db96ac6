//! What sidecars are sent, signed: snapshots, deltas, removals, heartbeats.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Mutex as Turn;

use crate::{
    domain::{Edit, Head, Kind, Removal},
    engine::{
        attendance::Start,
        follow::{Heartbeat, Nonce},
    },
    runtime::simulated::aside,
    wire::{
        encoded,
        signed::{Purpose, sha256},
        sync::{
            beginning_message, era_message, heartbeat_message, ledger_message, object_message,
            removal_message, stamp,
        },
        v1,
    },
};

use super::{
    cohort::Interval,
    core::{Error, Registry},
    scope::Scope,
    view::View,
};

/// Bytes of a chunk, unless one object is larger.
const CHUNK: usize = 256 << 10;
/// Largest delta sent; beyond it a snapshot costs less.
const MOST: usize = 16 << 20;

/// Bytes of removals in one statement, unless one is larger: a sidecar gives them back as they came.
const PART: usize = 128 << 10;

/// Changes that may follow on a snapshot before it is made anew.
const FEW: usize = 1_000;

/// Everything in a scope at a revision, written to a file that has no name: memory does not grow
/// with the number of sidecars that read it.
#[derive(Debug)]
pub(super) struct Built {
    /// The revision.
    pub revision: u64,
    /// The digest of its statement, by which a cut transfer is taken up again.
    pub digest: [u8; 32],
    /// The statement.
    pub signed: v1::Signed,
    file: File,
    /// Where each chunk begins, and the end.
    places: Vec<u64>,
}

impl Built {
    /// How many chunks there are.
    pub(super) fn chunks(&self) -> u32 {
        u32::try_from(self.places.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// A chunk.
    ///
    /// # Errors
    ///
    /// A disk that fails.
    pub(super) fn chunk(&self, number: u32) -> std::io::Result<v1::Chunk> {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let place = |at: usize| self.places.get(at).copied();
        let (Some(from), Some(to)) = (place(at), place(at.saturating_add(1))) else {
            return Err(std::io::Error::other("there is no such chunk"));
        };
        let mut content = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        self.file.read_exact_at(&mut content, from)?;
        Ok(v1::Chunk { number, content })
    }
}

/// Statements that many sidecars are sent alike, made once.
#[derive(Debug, Default)]
pub(super) struct Publication {
    snapshots: Turn<HashMap<Scope, Arc<Built>>>,
    deltas: Cache,
    removals: Cache,
}

/// The last statements made, by scope and interval.
#[derive(Debug, Default)]
struct Cache(Mutex<HashMap<From, (u64, Arc<v1::Signed>)>>);

/// A scope, and where an interval begins.
type From = (Scope, u64);

impl Cache {
    fn or(&self, key: From, through: u64, make: impl FnOnce() -> v1::Signed) -> Arc<v1::Signed> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((to, signed)) = known.get(&key)
            && *to == through
        {
            return Arc::clone(signed);
        }
        // Few intervals are asked for at a time; old ones are not asked for again.
        if known.len() > 64 {
            known.clear();
        }
        let signed = Arc::new(make());
        known.insert(key, (through, Arc::clone(&signed)));
        signed
    }
}

impl Publication {
    /// Everything in `scope`: as it is now, or as it was at `at_least` or later, when every change
    /// since is still kept.
    ///
    /// # Errors
    ///
    /// A disk that fails.
    pub(super) async fn snapshot(
        &self,
        registry: &Registry,
        scope: &Scope,
        at_least: u64,
    ) -> Result<Arc<Built>, Error> {
        let mut known = self.snapshots.lock().await;
        let (view, cohort) = registry.cohort(scope).await?;
        if let Some(built) = known.get(scope) {
            let windows = registry.windows();
            let since = windows
                .get(scope)
                .and_then(|window| window.changes_since(built.revision));
            if built.revision >= at_least && since.is_some_and(|changes| changes < FEW) {
                return Ok(Arc::clone(built));
            }
        }
        let edits = cohort.every(&view.objects, &view.snapshot);
        let signed = |Written {
                          file,
                          places,
                          digests,
                          first_exceptions,
                      }: Written| {
            let statement = v1::SnapshotStatement {
                era: Some(era_message(view.beginning.era)),
                revision: view.head.revision,
                scope: scope.to_string(),
                chunk_digests: digests,
                bytes: places.last().copied().unwrap_or(0),
                sum: cohort.sum().to_bytes().to_vec(),
                time: Some(stamp(view.time)),
                first_exceptions,
                ledger: Some(ledger_message(view.ledger.size(), view.ledger.root())),
            };
            let signed = registry.signer.seal(Purpose::Snapshot, &statement);
            Built {
                revision: view.head.revision,
                digest: sha256(&signed.statement),
                signed,
                file,
                places,
            }
        };
        let failed =
            |error: std::io::Error| Error::Unfit(format!("a snapshot cannot be written: {error}"));
        let written = aside(move || written(&edits))
            .await
            .map_err(Error::Unfit)?
            .map_err(failed)?;
        let built = Arc::new(signed(written));
        // What nobody may hold any more is not kept.
        let view = registry.view();
        known.retain(|scope, _| view.cohorts.contains_key(scope));
        known.insert(scope.clone(), Arc::clone(&built));
        Ok(built)
    }

    /// An interval of changes; nothing if it is too large.
    pub(super) fn delta(
        &self,
        registry: &Registry,
        view: &View,
        scope: &Scope,
        interval: &Interval,
    ) -> Option<Arc<v1::Signed>> {
        let size: usize = interval
            .edits
            .iter()
            .map(|edit| {
                edit.manifest
                    .as_ref()
                    .map_or(0, |m| m.len())
                    .saturating_add(64)
            })
            .chain(interval.touched.iter().map(|id| id.len().saturating_add(4)))
            .sum();
        if size > MOST {
            return None;
        }
        let key = (scope.clone(), interval.after);
        Some(self.deltas.or(key, interval.through, || {
            let statement = v1::DeltaStatement {
                era: Some(era_message(view.beginning.era)),
                scope: scope.to_string(),
                after: interval.after,
                through: interval.through,
                objects: interval.edits.iter().map(object_message).collect(),
                sum: interval.sum.to_bytes().to_vec(),
                touched: interval.touched.iter().map(ToString::to_string).collect(),
                classes_changed: interval.classes,
                ledger: Some(ledger_message(view.ledger.size(), view.ledger.root())),
            };
            registry.signer.seal(Purpose::Delta, &statement)
        }))
    }

    /// The removals after `after`, as many as a statement takes, and the last one among them: also of
    /// what is beyond a sidecar's scope, as it may come into it later and is then never sent again.
    pub(super) fn removals(
        &self,
        registry: &Registry,
        view: &View,
        after: u64,
    ) -> (Arc<v1::Signed>, u64) {
        let first = usize::try_from(after).unwrap_or(usize::MAX);
        let rest = view.removals.get(first..).unwrap_or_default();
        let mut size = 0_usize;
        let fits = |removal: &&Arc<Removal>| {
            let before = size;
            let words = [&*removal.note, &*removal.initiator, removal.target.id()];
            size = words.iter().fold(before.saturating_add(96), |sum, word| {
                sum.saturating_add(word.len())
            });
            before == 0 || size <= PART
        };
        let many = rest.iter().take_while(fits).count();
        let through = if many == rest.len() {
            view.head.sequence
        } else {
            after.saturating_add(u64::try_from(many).unwrap_or(u64::MAX))
        };
        let signed = self.removals.or((Scope::all(), after), through, || {
            let removals = rest.iter().take(many);
            let statement = v1::RemovalsStatement {
                era: Some(era_message(view.beginning.era)),
                after,
                through,
                removals: removals.map(|removal| removal_message(removal)).collect(),
            };
            registry.signer.seal(Purpose::Removals, &statement)
        });
        (signed, through)
    }
}

/// A snapshot's chunks in a file.
struct Written {
    file: File,
    places: Vec<u64>,
    digests: Vec<Vec<u8>>,
    first_exceptions: u32,
}

fn written(edits: &[Edit]) -> std::io::Result<Written> {
    let (others, exceptions): (Vec<_>, Vec<_>) = edits
        .iter()
        .partition(|edit| edit.name.kind != Kind::Exception);
    let mut written = Written {
        file: tempfile::tempfile()?,
        places: vec![0],
        digests: Vec::new(),
        first_exceptions: 0,
    };
    written.add(&others)?;
    written.first_exceptions = u32::try_from(written.digests.len()).unwrap_or(u32::MAX);
    written.add(&exceptions)?;
    Ok(written)
}

impl Written {
    /// Adds chunks with `edits`.
    fn add(&mut self, edits: &[&Edit]) -> std::io::Result<()> {
        let mut list = v1::ObjectList::default();
        let mut size = 0_usize;
        for edit in edits {
            let object = object_message(edit);
            let more = object
                .manifest
                .len()
                .saturating_add(object.id.len())
                .saturating_add(32);
            if size.saturating_add(more) > CHUNK {
                self.flush(&mut list)?;
                size = 0;
            }
            size = size.saturating_add(more);
            list.objects.push(object);
        }
        self.flush(&mut list)
    }

    fn flush(&mut self, list: &mut v1::ObjectList) -> std::io::Result<()> {
        if list.objects.is_empty() {
            return Ok(());
        }
        let content = encoded(list);
        let end = self.places.last().copied().unwrap_or(0);
        self.file.write_all_at(&content, end)?;
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.places.push(end.saturating_add(length));
        self.digests.push(sha256(&content).to_vec());
        list.objects.clear();
        Ok(())
    }
}

impl Registry {
    /// How the epoch began, signed.
    pub(super) fn epoch_statement(&self, view: &View, access: Option<&str>) -> v1::Signed {
        let statement = v1::EpochStatement {
            access_url: access.unwrap_or_default().to_owned(),
            ..beginning_message(&view.beginning)
        };
        self.signer.seal(Purpose::Epoch, &statement)
    }

    /// The answer to a nonce: the head as the store has it after the nonce came.
    ///
    /// # Errors
    ///
    /// A store that does not answer; then nothing may be said.
    pub(super) async fn heartbeat(
        &self,
        sidecar: &str,
        start: &Start,
        nonce: Nonce,
    ) -> Result<Option<v1::Signed>, Error> {
        // Noted first: whatever the answer does not know of is younger than this.
        {
            let mut attendance = self.attendance();
            if attendance.fenced(sidecar, start) {
                return Ok(None);
            }
            attendance.answer(sidecar, self.clock.elapsed());
        }
        let head: Head = self.store.head().await?;
        let view = self.view();
        let heartbeat = Heartbeat {
            era: view.beginning.era,
            head: Head {
                revision: head.revision.max(view.beginning.base.revision),
                ..head
            },
            time: self.clock.now().latest,
            nonce,
            ledger: Some((view.ledger.size(), view.ledger.root())),
        };
        let heartbeat = heartbeat_message(&heartbeat);
        Ok(Some(self.signer.seal(Purpose::Heartbeat, &heartbeat)))
    }
}
