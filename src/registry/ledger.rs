//! The ledger: every transaction is a leaf of one Merkle tree, written with it, and what is signed
//! about the tree holds for ever (reliability §8, L1-L5).

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Act, Era, Hash, Kind, Leaf, Name, Timestamp, Transaction},
    engine::{
        follow::Beginning,
        ledger::{Tree, commitment, consistency, folded, inclusion, leaf_hash, parts},
    },
    manifest::{leaf_text, payloads},
    runtime::{secret::write_secret, simulated::aside},
    wire::{
        note,
        signed::{Signer, random},
    },
};

use super::{
    core::{Draft, Error, Planned, Registry},
    store::{Entered, Sealed},
    view::View,
    workflow::Refused,
};

/// The file beside the store with what was last signed about the ledger.
pub(super) const NOTE: &str = "ledger.checkpoint";
/// How the log says that somebody is shut out.
pub(super) const SHUT_OUT: &str = "shut out ";
/// How the row of the log says that an epoch begins.
pub(super) const RECOVER: &str = "recover";

/// A transaction's leaf, appended to `tree`.
///
/// # Errors
///
/// A system without random numbers.
pub(super) fn seal(tree: &mut Tree, era: Era, transaction: &Transaction) -> Result<Sealed, Error> {
    let payloads = payloads(transaction, &[]);
    let (mut salts, mut commitments) = (Vec::new(), Vec::new());
    for payload in &payloads {
        let salt = random().map_err(Error::Unfit)?;
        commitments.push(commitment(&salt, payload.as_deref().unwrap_or_default()));
        salts.push(salt);
    }
    let text = leaf_text(era, transaction.revision, transaction.time, &commitments);
    let position = tree.size();
    let whole = tree.append(leaf_hash(&text));
    let leaf = Leaf {
        position,
        text: text.into(),
        salts,
    };
    Ok(Sealed {
        leaf,
        whole,
        erases: None,
        urgent: false,
        told: Vec::new(),
        heard: None,
    })
}

/// The row of the log that begins an epoch.
pub(super) fn beginning(beginning: &Beginning, time: Timestamp) -> Transaction {
    Transaction {
        revision: beginning.base.revision,
        time,
        principal: "registry".into(),
        action: RECOVER.into(),
        edits: Vec::new(),
        removals: Vec::new(),
    }
}

/// How a transaction says that a person is erased.
pub(super) fn erasing(name: &Name) -> String {
    format!("erase {name}")
}

/// What the ledger has come to, signed.
fn signed_now(view: &View, signers: &[&Signer]) -> String {
    let checkpoint = note::Checkpoint {
        era: view.beginning.era,
        size: view.ledger.size(),
        root: view.ledger.root(),
    };
    note::write(&checkpoint, signers)
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

    /// What is signed about the ledger as it is: signed and kept after all it speaks of is durable
    /// (L2, L3). A registry that may not be changed signs nothing new.
    pub(super) async fn checkpoint(&self) -> Result<(u64, Box<str>), Error> {
        let _turn = self.signing.lock().await;
        let view = self.view();
        let size = view.ledger.size();
        let known = self.store.checkpoint().await?;
        if let Some((signed, note)) = known
            && (signed >= size || view.read_only.is_some())
            && note::vouched(&note, self.pin()).is_some()
        {
            return Ok((signed, note));
        }
        let note = signed_now(&view, &[&self.signer]);
        self.store.keep_checkpoint(size, &note).await?;
        self.keep_beside(note.clone()).await?;
        Ok((size, note.into()))
    }

    /// Signs what the ledger has come to with the next key as well, before it replaces ours.
    pub(super) async fn checkpoint_for(&self, next: &Signer) -> Result<(), Error> {
        let view = self.view();
        let note = signed_now(&view, &[&self.signer, next]);
        let size = view.ledger.size();
        self.store.keep_checkpoint(size, &note).await?;
        self.keep_beside(note).await
    }

    async fn keep_beside(&self, note: String) -> Result<(), Error> {
        let Some(path) = self.kept_note.clone() else {
            return Ok(());
        };
        aside(move || write_secret(&path, note.as_bytes()))
            .await
            .and_then(|written| written.map_err(|error| error.to_string()))
            .map_err(|why| Error::Unfit(format!("{NOTE}: {why}")))
    }

    /// Holds the ledger against what was last signed about it and kept beside the store. One that
    /// has lost something is not gone on with before an operator says so.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(super) async fn remember(&self, path: &Path) -> Result<(), Error> {
        let Some(said) = std::fs::read_to_string(path)
            .ok()
            .and_then(|text| note::vouched(&text, self.pin()))
        else {
            return Ok(());
        };
        if said.era != self.view().beginning.era {
            return Ok(());
        }
        let root = self.root_at(said.size).await?;
        if root == Some(said.root) {
            return Ok(());
        }
        let size = said.size;
        let lost = |view: &View| {
            Some(format!(
                "its ledger has {} entries and is not the one that was signed at {size}: it was put back from an older copy, or changed; run `exeat registry recover`",
                view.ledger.size()
            ))
        };
        self.stop_writing_if(lost).await;
        Ok(())
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
        let entries = self.edits_of(name).await?;
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
            Ok((Some(bare(view, draft, by, &erasing(name))), ()))
        })
        .await?;
        Ok(entries)
    }

    /// Notes in the ledger what is done beside the objects: who is let in, and who is shut out. It
    /// is noted first: nobody is let in unseen. A registry that may not be changed cannot note it,
    /// and shutting out waits for nothing.
    pub(super) async fn note(&self, by: &str, action: &str) -> Result<(), Refused> {
        if self.view().read_only.is_some() {
            tracing::error!(
                by,
                action,
                "done, and not in the ledger: the registry is read-only"
            );
            return Ok(());
        }
        self.write(|view, draft| Ok((Some(bare(view, draft, by, action)), ())))
            .await
    }

    /// The revision after which there are `last` changes; 0 where there are no more.
    pub(super) async fn before_the_last(&self, last: u64) -> Result<u64, Error> {
        let size = self.view().ledger.size();
        let Some(before) = size
            .checked_sub(last)
            .and_then(|first| first.checked_sub(1))
        else {
            return Ok(0);
        };
        Ok(self.store.revision_at(before).await?.unwrap_or(0))
    }

    /// How many manifests of an object the log holds.
    async fn edits_of(&self, name: &Name) -> Result<usize, Error> {
        let past = self
            .store
            .history(name, u64::MAX >> 1, usize::MAX >> 1)
            .await?;
        Ok(past
            .iter()
            .filter(|stored| stored.manifest.is_some())
            .count())
    }
}

/// A transaction that changes no object.
pub(super) fn bare(view: &View, draft: Draft, by: &str, action: &str) -> Planned {
    Planned {
        transaction: Transaction {
            revision: draft.revision,
            time: draft.time,
            principal: by.into(),
            action: action.into(),
            edits: Vec::new(),
            removals: Vec::new(),
        },
        changes: Vec::new(),
        snapshot: view.snapshot.clone(),
        cases: Vec::new(),
        findings: Vec::new(),
        heard: None,
    }
}

/// What a transaction erases, if that is what it says.
pub(super) fn erases(view: &View, transaction: &Transaction) -> Option<Name> {
    let id = transaction.action.strip_prefix("erase Person ")?;
    let name = Name::new(Kind::Person, id);
    let removed = view.objects.get(&name)?.manifest.is_none();
    removed.then_some(name)
}

/// Whether a transaction takes something back. A thaw gives back.
pub(super) fn takes_back(transaction: &Transaction) -> bool {
    let mut removals = transaction.removals.iter();
    removals.any(|removal| removal.act != Act::Thaw) || transaction.action.starts_with(SHUT_OUT)
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
        let signed = registry.checkpoint().await;
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = sleep(GATHER) => {}
        }
        if let Err(error) = signed {
            tracing::error!(%error, "the ledger cannot be signed; it is tried again");
            continue;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = changes.changed() => {}
        }
    }
    // What was accepted last is not left unsigned; where nothing can be written, the next start
    // signs it.
    if let Err(error) = registry.checkpoint().await {
        tracing::error!(%error, "the ledger is not signed to its end; it is at the next start");
    }
    Ok(())
}
