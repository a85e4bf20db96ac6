//! From statements of the registry to what decisions are made from: checked on the way in,
//! whether they come from the network or from disk.

use std::{collections::HashMap, sync::Arc};

use crate::{
    domain::{
        Control, ControlId, Digest, Edit, Era, Invalid, Kind, Name, Principal, Removal, Span,
        SubjectId, TierRules,
    },
    engine::{Change, Part, Shelf, Snapshot, Sum, part},
    manifest::{change, tier_of},
    wire::{
        decoded,
        signed::{Purpose, Trust, Untrusted, sha256},
        sync::{edit, era, kind_message, removal, sum},
        v1,
    },
};

use super::entities::Fetched;

/// Most chunks, and most bytes in all, of a snapshot (reliability §9.3).
const MAX_CHUNKS: usize = 100_000;
const MAX_BYTES: u64 = 2 << 30;
/// The scope of who holds everything.
const COMPLETE: &str = "*";

/// Why something that came is not taken.
#[derive(Debug)]
pub(super) enum Wrong {
    /// It is not signed as it should be.
    Untrusted(Untrusted),
    /// It is signed and makes no sense.
    Invalid(Invalid),
    /// A chunk that is not the one announced.
    Chunk,
    /// What came out is not what should have.
    Sum,
    /// An answer to another question.
    Answer,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Untrusted(error) => error.fmt(f),
            Self::Invalid(error) => error.fmt(f),
            Self::Chunk => f.write_str("a chunk is not the one that was announced"),
            Self::Answer => f.write_str("an answer is not to what was asked"),
            Self::Sum => f.write_str("what came out is not what the registry says comes out"),
        }
    }
}

impl From<Untrusted> for Wrong {
    fn from(error: Untrusted) -> Self {
        Self::Untrusted(error)
    }
}

impl From<Invalid> for Wrong {
    fn from(error: Invalid) -> Self {
        Self::Invalid(error)
    }
}

/// Everything held, at one revision.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) era: Era,
    /// For which it was made; what is made for another does not belong to it.
    pub(super) scope: Arc<str>,
    pub(super) revision: u64,
    pub(super) snapshot: Snapshot,
    /// What is watched.
    pub(super) parts: Shelf<Name, Part>,
    sum: Sum,
    /// Exceptions included; else it is a beginning, and can be decided by and not gone on from.
    pub(super) whole: bool,
    /// The statement that made it what it is, unless that is large.
    pub(super) proof: Option<Arc<Proof>>,
    /// What was fetched on demand.
    pub(super) fetched: Shelf<SubjectId, Arc<Fetched>>,
    /// The sum of that.
    pub(super) extra: Sum,
}

/// A statement about everything that is held.
#[derive(Debug)]
pub(super) enum Proof {
    Snapshot(v1::Signed),
    Delta(v1::Signed),
}

impl Proof {
    /// The statement.
    pub(super) fn signed(&self) -> &v1::Signed {
        match self {
            Self::Snapshot(signed) | Self::Delta(signed) => signed,
        }
    }
}

/// Largest statement that is kept as a proof.
pub(super) const MAX_PROOF: usize = 32 << 10;

fn small(signed: &v1::Signed, proof: impl FnOnce(v1::Signed) -> Proof) -> Option<Arc<Proof>> {
    (signed.statement.len() <= MAX_PROOF).then(|| Arc::new(proof(signed.clone())))
}

/// Removals as the registry signed them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) era: Era,
    pub(super) after: u64,
    pub(super) through: u64,
    pub(super) removals: Vec<Removal>,
}

impl Batch {
    pub(super) fn open(trust: &Trust, signed: &v1::Signed) -> Result<Self, Wrong> {
        let statement: v1::RemovalsStatement = trust.open(Purpose::Removals, Some(signed))?;
        let v1::RemovalsStatement {
            era: of,
            after,
            through,
            removals,
        } = statement;
        Ok(Self {
            era: era(of.as_ref())?,
            after,
            through,
            removals: removals
                .into_iter()
                .map(removal)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// An object that could not be taken in.
pub(super) type Nacks = Vec<v1::Nack>;

/// A snapshot that arrives chunk by chunk.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) era: Era,
    pub(super) revision: u64,
    /// By which a cut transfer is taken up again.
    pub(super) digest: [u8; 32],
    digests: Vec<Vec<u8>>,
    next: u32,
    /// Bytes that are still to come.
    left: u64,
    objects: Vec<Edit>,
    sum: Sum,
    pub(super) scope: Arc<str>,
    proof: Option<Arc<Proof>>,
    /// The first chunk with exceptions.
    exceptions: u32,
}

impl Arriving {
    /// Begins with the snapshot's statement.
    pub(super) fn begin(trust: &Trust, signed: &v1::Signed) -> Result<Self, Wrong> {
        let statement: v1::SnapshotStatement = trust.open(Purpose::Snapshot, Some(signed))?;
        let v1::SnapshotStatement {
            era: of,
            revision,
            scope,
            chunk_digests,
            bytes,
            sum: after,
            time: _,
            first_exceptions,
            // For the registry to see again, in its own words: those are kept as they came.
            ledger: _,
        } = statement;
        if chunk_digests.len() > MAX_CHUNKS || bytes > MAX_BYTES {
            return Err(Wrong::Invalid(Invalid::new(
                "bytes",
                "is more than a sidecar holds",
                "narrow the sidecar's scope",
            )));
        }
        Ok(Self {
            era: era(of.as_ref())?,
            revision,
            digest: sha256(&signed.statement),
            digests: chunk_digests,
            next: 0,
            left: bytes,
            objects: Vec::new(),
            sum: sum(&after)?,
            scope: scope.into(),
            proof: small(signed, Proof::Snapshot),
            exceptions: first_exceptions,
        })
    }

    /// Whether this says something else about the very revision that is held.
    pub(super) fn forks(&self, held: &Held) -> bool {
        held.whole
            && (held.era, held.revision, &held.scope) == (self.era, self.revision, &self.scope)
            && held.sum != self.sum
    }

    /// The statement it began with, unless that is large.
    pub(super) fn proof(&self) -> Option<Arc<Proof>> {
        self.proof.clone()
    }

    /// The first chunk that is missing.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Whether every chunk has come.
    pub(super) fn is_whole(&self) -> bool {
        usize::try_from(self.next).is_ok_and(|next| next >= self.digests.len())
    }

    /// Takes the next chunk.
    pub(super) fn chunk(&mut self, chunk: &v1::Chunk) -> Result<(), Wrong> {
        let at = usize::try_from(chunk.number).unwrap_or(usize::MAX);
        let announced = self.digests.get(at);
        let fits = chunk.number == self.next
            && announced.is_some_and(|digest| **digest == sha256(&chunk.content));
        if !fits {
            return Err(Wrong::Chunk);
        }
        // More than was announced might be without end.
        let size = u64::try_from(chunk.content.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(size).ok_or(Wrong::Chunk)?;
        let list: v1::ObjectList = decoded(&chunk.content)
            .map_err(|why| Invalid::new("content", format!("cannot be read: {why}"), ""))?;
        for message in list.objects {
            let edit = edit(message)?;
            // Controls that came last would be missing from the beginning.
            if (edit.name.kind == Kind::Exception) != (chunk.number >= self.exceptions) {
                return Err(Wrong::Chunk);
            }
            self.objects.push(edit);
        }
        self.next = self.next.saturating_add(1);
        Ok(())
    }

    /// How many chunks come before the exceptions, and how many there are.
    pub(super) fn chunks(&self) -> (u32, u32) {
        let all = u32::try_from(self.digests.len()).unwrap_or(u32::MAX);
        (self.exceptions.min(all), all)
    }

    /// What came before the exceptions, with what `deltas` made of it since.
    pub(super) fn beginning(mut self, deltas: Vec<Delta>) -> Result<Held, Wrong> {
        let mut revision = self.revision;
        for delta in deltas {
            if delta.era != self.era || *delta.scope != *self.scope || delta.after != revision {
                return Err(Wrong::Sum);
            }
            revision = delta.through;
            self.objects.extend(delta.objects);
        }
        self.objects
            .retain(|edit| edit.name.kind != Kind::Exception);
        let mut held = self.empty()?;
        held.whole = false;
        held.snapshot = held.snapshot.reading();
        let objects = std::mem::take(&mut self.objects);
        let (held, _) = held.after(latest(objects), revision, None)?;
        Ok(held)
    }

    fn empty(&self) -> Result<Held, Wrong> {
        let empty = Snapshot::empty(digest(&Sum::default())?);
        Ok(Held {
            era: self.era,
            revision: 0,
            scope: Arc::clone(&self.scope),
            // What is not among everything is nowhere.
            snapshot: if *self.scope == *COMPLETE {
                empty
            } else {
                empty.fetching()
            },
            parts: Shelf::default(),
            sum: Sum::default(),
            whole: true,
            proof: self.proof.clone(),
            fetched: Shelf::default(),
            extra: Sum::default(),
        })
    }

    /// Everything that came, put together.
    pub(super) fn finish(mut self) -> Result<(Held, Nacks), Wrong> {
        if self.left > 0 {
            return Err(Wrong::Chunk);
        }
        let objects = std::mem::take(&mut self.objects);
        self.empty()?.after(objects, self.revision, Some(self.sum))
    }
}

/// What changes from one revision to another.
#[derive(Debug)]
pub(super) struct Delta {
    pub(super) era: Era,
    pub(super) after: u64,
    pub(super) through: u64,
    pub(super) objects: Vec<Edit>,
    /// What holds no longer of what was fetched.
    pub(super) touched: Vec<String>,
    /// Nor of any instance.
    pub(super) classes: bool,
    scope: String,
    sum: Sum,
    proof: Option<Arc<Proof>>,
}

impl Delta {
    pub(super) fn open(trust: &Trust, signed: &v1::Signed) -> Result<Self, Wrong> {
        let statement: v1::DeltaStatement = trust.open(Purpose::Delta, Some(signed))?;
        let v1::DeltaStatement {
            era: of,
            scope,
            after,
            through,
            objects,
            sum: afterwards,
            touched,
            classes_changed,
            ledger: _,
        } = statement;
        Ok(Self {
            era: era(of.as_ref())?,
            after,
            through,
            objects: objects.into_iter().map(edit).collect::<Result<_, _>>()?,
            touched,
            classes: classes_changed,
            scope,
            sum: sum(&afterwards)?,
            proof: small(signed, Proof::Delta),
        })
    }

    /// What is held afterwards.
    pub(super) fn applied(self, held: &Held) -> Result<(Held, Nacks), Wrong> {
        if *self.scope != *held.scope {
            return Err(Wrong::Sum);
        }
        let mut held = held.clone();
        held.proof = self.proof;
        held.after(self.objects, self.through, Some(self.sum))
    }
}

/// Of several edits of one object the last.
fn latest(edits: Vec<Edit>) -> Vec<Edit> {
    let mut places: HashMap<Name, usize> = HashMap::new();
    let mut latest: Vec<Edit> = Vec::with_capacity(edits.len());
    for edit in edits {
        let known = places.get(&edit.name).and_then(|at| latest.get_mut(*at));
        if let Some(place) = known {
            *place = edit;
        } else {
            places.insert(edit.name.clone(), latest.len());
            latest.push(edit);
        }
    }
    latest
}

fn digest(sum: &Sum) -> Result<Digest, Invalid> {
    Digest::parse(&format!("sum256:{sum}"))
}

impl Held {
    /// The digest of everything held, wherever it came from.
    pub(super) fn digest(&self) -> Result<Digest, Invalid> {
        let mut all = self.sum;
        all.merge(&self.extra);
        digest(&all)
    }

    /// What is held after `edits`, which make `sum` of it, if that can be told.
    fn after(
        mut self,
        edits: Vec<Edit>,
        revision: u64,
        sum: Option<Sum>,
    ) -> Result<(Self, Nacks), Wrong> {
        let mut nacks = Nacks::new();
        let mut changes = Vec::with_capacity(edits.len());
        let mut revisions = HashMap::new();
        for edit in edits {
            let Edit {
                name,
                revision,
                manifest,
            } = &edit;
            let old = match manifest {
                Some(manifest) => {
                    let part = part(name.kind.number(), &name.id, *revision, manifest);
                    self.sum.add(&part);
                    self.parts.put(name.clone(), part)
                }
                None => self.parts.take(name),
            };
            if let Some(old) = old {
                self.sum.remove(&old);
            } else if let Ok(id) = SubjectId::parse(&name.id)
                && name.kind == Kind::Subject
            {
                // What is watched from now on is not what was fetched.
                self.forget(&id, &mut changes);
            }
            match change(&edit) {
                Ok(change) => changes.push(change),
                Err(error) => {
                    nacks.push(nack(name, *revision, &error.to_string()));
                    changes.extend(unreadable(&edit)?);
                }
            }
            revisions.insert((name.kind.name(), name.id.to_string()), *revision);
        }
        if sum.is_some_and(|sum| self.sum != sum) {
            return Err(Wrong::Sum);
        }
        let (snapshot, errors) = self.snapshot.taking(changes, self.digest()?, revision);
        for error in errors {
            let key = (error.source.kind, error.source.id.clone());
            // What is no object's fault leaves the whole in doubt.
            let Some(kind) = Kind::parse(error.source.kind) else {
                return Err(Wrong::Invalid(error.invalid));
            };
            let Some(at) = revisions.get(&key) else {
                continue;
            };
            nacks.push(nack(
                &Name::new(kind, &error.source.id),
                *at,
                &error.to_string(),
            ));
        }
        self.snapshot = snapshot;
        self.revision = revision;
        Ok((self, nacks))
    }
}

pub(super) fn nack(name: &Name, revision: u64, reason: &str) -> v1::Nack {
    let end = reason.floor_char_boundary(1 << 10);
    v1::Nack {
        kind: kind_message(name.kind),
        id: name.id.to_string(),
        revision,
        reason: reason.get(..end).unwrap_or_default().to_owned(),
    }
}

/// The edit that removes an object.
pub(super) fn gone(edit: &Edit) -> Edit {
    Edit {
        manifest: None,
        ..edit.clone()
    }
}

/// What stands in for an object that cannot be read: never what it was before (S13).
///
/// # Errors
///
/// A control that nothing can stand in for: its scope is not known.
fn unreadable(edit: &Edit) -> Result<Option<Change>, Wrong> {
    let name = &edit.name;
    match name.kind {
        Kind::Control => {
            let id = ControlId::parse(&name.id)?;
            let owner = Principal::parse("service:registry")?;
            Ok(Some(Change::PutControl(Control::unreadable(
                id,
                edit.revision,
                owner,
            ))))
        }
        Kind::TierPolicy => {
            // Exceptions of a tier that is not known here are not known either.
            let Ok(tier) = tier_of(&name.id) else {
                return Ok(None);
            };
            // Refused as it stands, and what stands in for refused rules honours nothing.
            let mut rules = TierRules::standard(tier);
            rules.lease_ttl = Span::ZERO;
            Ok(Some(Change::PutTier(tier, rules)))
        }
        Kind::Subject
        | Kind::Exception
        | Kind::Domain
        | Kind::Person
        | Kind::Group
        | Kind::Case
        | Kind::Incident
        | Kind::Proposal
        | Kind::Finding => Ok(change(&gone(edit)).ok()),
    }
}
