//! The ledger: every transaction is a leaf of one Merkle tree, written with it, and what is signed
//! about the tree holds for ever (reliability §8, L1-L5).

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Era, Hash, Leaf, Name, Transaction},
    engine::ledger::{Tree, commitment, consistency, folded, inclusion, leaf_hash, parts},
    manifest::{leaf_text, payloads},
    wire::{note, signed::random},
};

use super::{
    core::{Error, Planned, Registry},
    store::{Entered, Sealed, Store, StoreError, Stored},
    workflow::Refused,
};

/// How many rows of the log are read at once.
const ROWS: usize = 1_000;

/// A transaction's leaf, appended to `tree`.
///
/// # Errors
///
/// A system without random numbers.
pub(super) fn seal(tree: &mut Tree, era: Era, transaction: &Transaction) -> Result<Sealed, Error> {
    let payloads = payloads(transaction);
    let mut salts = Vec::with_capacity(payloads.len());
    for _ in &payloads {
        salts.push(random().map_err(Error::Unfit)?);
    }
    let commitments: Vec<_> = salts
        .iter()
        .zip(&payloads)
        .map(|(salt, payload)| commitment(salt, payload))
        .collect();
    let text = leaf_text(era, transaction.revision, transaction.time, &commitments);
    let position = tree.size();
    let whole = tree.append(leaf_hash(&text));
    let leaf = Leaf {
        position,
        text: text.into(),
        salts,
    };
    Ok(Sealed { leaf, whole })
}

/// The row of the log that begins an epoch.
pub(super) fn beginning(
    beginning: &crate::engine::follow::Beginning,
    time: crate::domain::Timestamp,
) -> Transaction {
    Transaction {
        revision: beginning.base.revision,
        time,
        principal: "registry".into(),
        action: "recover".into(),
        edits: Vec::new(),
        removals: Vec::new(),
    }
}

/// Reads the whole log, as it is, against its leaves, the tree and what was signed; and what there
/// is against the log (L1, L3). What does not fit is named, and nothing is begun with it.
///
/// # Errors
///
/// A store that fails, or that was changed by something else than this program.
pub(super) async fn audited(
    store: &dyn Store,
    era: Era,
    objects: &[Stored],
) -> Result<Tree, Error> {
    let signed = store.checkpoint().await?;
    let (mut tree, mut after) = (Tree::default(), 0);
    let mut fold: BTreeMap<Name, (u64, Option<Arc<str>>)> = BTreeMap::new();
    let mut then = signed
        .as_ref()
        .and_then(|(size, _)| (*size == 0).then(|| tree.root()));
    loop {
        let rows = store.entered(after, ROWS).await?;
        let Some(last) = rows.last() else { break };
        after = last.transaction.revision;
        for row in rows {
            match &row.leaf {
                // A log that is older than the ledger enters it once.
                None if signed.is_none() => {
                    let era = Era {
                        epoch: row.epoch,
                        ..era
                    };
                    let sealed = seal(&mut tree, era, &row.transaction)?;
                    store.enter(row.transaction.revision, &sealed).await?;
                }
                None => return Err(altered(row.transaction.revision, "has no leaf")),
                Some(leaf) => {
                    if !fits(&row, leaf, era) {
                        return Err(altered(
                            row.transaction.revision,
                            "is not what its leaf says",
                        ));
                    }
                    tree.append(leaf_hash(&leaf.text));
                }
            }
            if signed
                .as_ref()
                .is_some_and(|(size, _)| *size == tree.size())
            {
                then = Some(tree.root());
            }
            for edit in row.transaction.edits {
                fold.insert(edit.name, (edit.revision, edit.manifest));
            }
        }
    }
    if let Some((size, text)) = signed {
        let root = note::read(&text).filter(|said| said.size == size);
        if then.is_none() || root.map(|said| said.root) != then {
            return Err(Error::Store(StoreError::Failed(format!(
                "the ledger is not the one that was signed at {size} entries: the file was changed by something else than this program; put a backup back"
            ))));
        }
    }
    for stored in objects {
        let said = fold.remove(&stored.name);
        if said != Some((stored.revision, stored.manifest.clone())) {
            return Err(altered(
                stored.log_revision,
                &format!("does not lead to {} as it is", stored.name),
            ));
        }
    }
    match fold.keys().next() {
        Some(name) => Err(altered(after, &format!("leads to {name}, which is gone"))),
        None => Ok(tree),
    }
}

fn altered(revision: u64, how: &str) -> Error {
    Error::Store(StoreError::Failed(format!(
        "revision {revision} of the log {how}: the file was changed by something else than this program; put a backup back"
    )))
}

/// Whether a row of the log is what its leaf commits to.
fn fits(row: &Entered, leaf: &Leaf, era: Era) -> bool {
    let payloads = payloads(&row.transaction);
    if leaf.salts.len() != payloads.len() {
        return false;
    }
    let mut said = leaf
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("entry "));
    let mut commitments = Vec::with_capacity(payloads.len());
    for (place, (salt, payload)) in leaf.salts.iter().zip(&payloads).enumerate() {
        let said = said.next().and_then(unhex);
        // Of what was erased only the commitment is left.
        let erased = place
            .checked_sub(1)
            .is_some_and(|at| row.erased.contains(&at));
        match (erased, said) {
            (true, Some(said)) => commitments.push(said),
            (true, None) => return false,
            (false, _) => commitments.push(commitment(salt, payload)),
        }
    }
    let Transaction { revision, time, .. } = row.transaction;
    let era = Era {
        epoch: row.epoch,
        ..era
    };
    *leaf.text == *leaf_text(era, revision, time, &commitments)
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 64 {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..64_usize).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at.saturating_add(2))?, 16).ok()?;
    }
    Some(hash)
}

/// What proves that a leaf is in the ledger, offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// The leaf's row.
    pub entered: Entered,
    /// From the leaf up.
    pub path: Vec<Hash>,
    /// What is signed about the tree it is for.
    pub checkpoint: Box<str>,
}

impl Registry {
    /// The digest of each of `ranges` of leaves.
    async fn digests(&self, ranges: &[Range<u64>]) -> Result<Vec<Hash>, Error> {
        let mut digests = Vec::with_capacity(ranges.len());
        for range in ranges {
            digests.push(folded(&self.store.nodes(&parts(range)).await?));
        }
        Ok(digests)
    }

    /// The root of the ledger when it had `size` leaves; nothing if it never had so many.
    pub(super) async fn root_at(&self, size: u64) -> Result<Option<Hash>, Error> {
        if size > self.view().ledger.size() {
            return Ok(None);
        }
        Ok(Some(folded(&self.store.nodes(&parts(&(0..size))).await?)))
    }

    /// What is signed about the ledger as it is: signed once, and kept, after all it speaks of is
    /// durable (L2, L3).
    pub(super) async fn checkpoint(&self) -> Result<(u64, Box<str>), Error> {
        let _turn = self.signing.lock().await;
        let view = self.view();
        let size = view.ledger.size();
        if let Some((signed, note)) = self.store.checkpoint().await?
            && signed >= size
        {
            return Ok((signed, note));
        }
        let text = note::write(
            &note::Checkpoint {
                era: view.beginning.era,
                size,
                root: view.ledger.root(),
            },
            &self.signer,
        );
        self.store.keep_checkpoint(size, &text).await?;
        Ok((size, text.into()))
    }

    /// What proves that a transaction is in the ledger; nothing if there is none of that revision.
    pub(super) async fn proof(&self, revision: u64) -> Result<Option<Proof>, Error> {
        let (size, checkpoint) = self.checkpoint().await?;
        let rows = self.store.entered(revision.saturating_sub(1), 1).await?;
        let row = rows.into_iter().next();
        let Some(entered) = row.filter(|row| row.transaction.revision == revision) else {
            return Ok(None);
        };
        let position = entered.leaf.as_ref().map(|leaf| leaf.position);
        let Some(path) = position.and_then(|position| inclusion(position, size)) else {
            return Ok(None);
        };
        Ok(Some(Proof {
            entered,
            path: self.digests(&path).await?,
            checkpoint,
        }))
    }

    /// What proves that the ledger of `second` leaves begins with that of `first`; nothing if there
    /// are not so many.
    pub(super) async fn extension(
        &self,
        first: u64,
        second: u64,
    ) -> Result<Option<Vec<Hash>>, Error> {
        if second > self.view().ledger.size() {
            return Ok(None);
        }
        match consistency(first, second) {
            Some(path) => self.digests(&path).await.map(Some),
            None => Ok(None),
        }
    }

    /// Rows of the log with their leaves.
    pub(super) async fn entered(&self, after: u64, most: usize) -> Result<Vec<Entered>, Error> {
        Ok(self.store.entered(after, most).await?)
    }

    /// Erases who somebody was, which the ledger then says; tells how many entries were erased.
    ///
    /// # Errors
    ///
    /// A person who is there, or never was.
    pub(super) async fn erase(&self, by: &str, name: &Name) -> Result<usize, Refused> {
        self.write(|view, draft| {
            let known = view.objects.get(name);
            match known.map(|stored| stored.manifest.is_some()) {
                None => return Err(Refused::NotFound(format!("there was never a {name}"))),
                Some(true) => {
                    return Err(Refused::Precondition(format!(
                        "{name} is there; remove it first, so that nothing rests on it"
                    )));
                }
                Some(false) => {}
            }
            let transaction = Transaction {
                revision: draft.revision,
                time: draft.time,
                principal: by.into(),
                action: format!("erase {name}").into(),
                edits: Vec::new(),
                removals: Vec::new(),
            };
            let planned = Planned {
                transaction,
                changes: Vec::new(),
                snapshot: view.snapshot.clone(),
                cases: Vec::new(),
            };
            Ok((Some(planned), ()))
        })
        .await?;
        Ok(self.store.erase(name).await.map_err(Error::Store)?)
    }
}

/// How long changes are gathered before something is signed about them.
const GATHER: Duration = Duration::from_secs(1);

/// Signs, until stopped, what the ledger has come to.
pub(super) async fn checkpoints(
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut changes = registry.changes();
    loop {
        if let Err(error) = registry.checkpoint().await {
            tracing::error!(%error, "the ledger cannot be signed; it is tried again");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = sleep(GATHER) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = changes.changed() => {}
        }
    }
    // What was accepted last is not left unsigned.
    registry
        .checkpoint()
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}
