//! The start-up check: the file as it is against its ledger, and the ledger against what was signed
//! about it (L1, L3). What this program did not write is not begun with.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    domain::{Era, Hash, Head, Kind, Leaf, Name, Removal, Salt, Transaction},
    engine::{
        follow::Beginning,
        ledger::{Tree, commitment, leaf_hash},
    },
    manifest::{leaf_text, payloads},
    wire::{
        note,
        signed::{Pin, Signer, unhex},
    },
};

use super::{
    core::Error,
    ledger::{RECOVER, erasing, seal},
    store::{Entered, Kept, Store, StoreError, Stored},
};

/// How many rows of the log are read at once.
const ROWS: usize = 1_000;

/// What an object is, and which transaction made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    revision: u64,
    manifest: Option<Arc<str>>,
    log_revision: u64,
    /// That manifest was erased.
    erased: bool,
}

/// What the log comes to as it is read against its ledger.
struct Audit {
    tree: Tree,
    objects: BTreeMap<Name, Known>,
    removals: Vec<Removal>,
    /// Erased, and not yet said to be.
    erased: BTreeMap<String, u64>,
    beginning: Beginning,
}

impl Audit {
    /// Takes in a row that is what its leaf says.
    fn take(&mut self, row: Entered) -> Result<(), Error> {
        let revision = row.transaction.revision;
        if &*row.transaction.action == RECOVER {
            let sequence = self.removals.last().map_or(0, |removal| removal.sequence);
            self.beginning.era.epoch = row.epoch;
            self.beginning.base = Head { revision, sequence };
        }
        self.erased.remove(&*row.transaction.action);
        for place in &row.erased {
            let edit = row.transaction.edits.get(*place);
            let fits =
                edit.filter(|edit| edit.name.kind == Kind::Person && edit.manifest.is_none());
            let edit = fits.ok_or_else(|| altered(revision, "has lost what is never erased"))?;
            self.erased.insert(erasing(&edit.name), revision);
        }
        for (place, edit) in row.transaction.edits.into_iter().enumerate() {
            let erased = row.erased.contains(&place);
            let known = Known {
                revision: edit.revision,
                manifest: edit.manifest,
                log_revision: revision,
                erased,
            };
            self.objects.insert(edit.name, known);
        }
        self.removals.extend(row.transaction.removals);
        Ok(())
    }

    /// Compares what it came to with what there is.
    fn compare(
        mut self,
        kept: &Kept,
        objects: &[Stored],
        removals: &[Removal],
    ) -> Result<Tree, Error> {
        if let Some((what, revision)) = self.erased.first_key_value() {
            return Err(altered(
                *revision,
                &format!("has lost what no `{what}` says was erased"),
            ));
        }
        if self.beginning != kept.beginning {
            return Err(altered(
                self.beginning.base.revision,
                "begins another epoch than the file is of",
            ));
        }
        if self.removals != removals {
            return Err(altered(
                kept.head.revision,
                "does not lead to what was taken back",
            ));
        }
        for stored in objects {
            let said = self.objects.remove(&stored.name);
            let is = Known {
                revision: stored.revision,
                manifest: stored.manifest.clone(),
                log_revision: stored.log_revision,
                erased: false,
            };
            if said != Some(is) {
                return Err(altered(
                    stored.log_revision,
                    &format!("does not lead to {} as it is", stored.name),
                ));
            }
        }
        match self.objects.first_key_value() {
            Some((name, known)) => Err(altered(
                known.log_revision,
                &format!("leads to {name}, which is gone"),
            )),
            None => Ok(self.tree),
        }
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
    kept: &Kept,
    signer: &Signer,
    objects: &[Stored],
    removals: &[Removal],
) -> Result<Tree, Error> {
    let vouched = last_signed(store, kept, signer.pin()).await?;
    let mut entering = Vec::new();
    let mut audit = Audit {
        tree: Tree::default(),
        objects: BTreeMap::new(),
        removals: Vec::new(),
        erased: BTreeMap::new(),
        beginning: Beginning {
            era: Era {
                epoch: 1,
                ..kept.beginning.era
            },
            base: Head::default(),
        },
    };
    let empty = Some(audit.tree.root());
    let mut then = vouched.and_then(|said| empty.filter(|_| said.size == 0));
    let mut after = 0;
    loop {
        let rows = store.entered(after, ROWS).await?;
        let Some(last) = rows.last() else { break };
        after = last.transaction.revision;
        for row in rows {
            let revision = row.transaction.revision;
            let era = Era {
                epoch: row.epoch,
                ..kept.beginning.era
            };
            match &row.leaf {
                None if kept.unentered => {
                    let sealed = seal(&mut audit.tree, era, &row.transaction)?;
                    entering.push((revision, sealed));
                }
                None => return Err(altered(revision, "has no leaf")),
                Some(_) if kept.unentered => {
                    return Err(altered(revision, "has a leaf before its log has any"));
                }
                Some(leaf) => {
                    if !fits(&row, leaf, era) {
                        return Err(altered(revision, "is not what its leaf says"));
                    }
                    if leaf.position != audit.tree.size() {
                        return Err(altered(revision, "is not where its leaf says"));
                    }
                    if audit.tree.append(leaf_hash(&leaf.text)) != row.whole {
                        return Err(altered(revision, "is not in its ledger's tree"));
                    }
                }
            }
            if vouched.is_some_and(|said| said.size == audit.tree.size()) {
                then = Some(audit.tree.root());
            }
            audit.take(row)?;
        }
    }
    if let Some(said) = vouched
        && then != Some(said.root)
    {
        return Err(Error::Store(StoreError::Failed(format!(
            "the ledger is not the one that was signed at {} entries: the file was changed by something else than this program; put a backup back",
            said.size
        ))));
    }
    let tree = audit.compare(kept, objects, removals)?;
    if kept.unentered {
        let checkpoint = note::Checkpoint {
            era: kept.beginning.era,
            size: tree.size(),
            root: tree.root(),
        };
        let note = note::write(&checkpoint, &[signer]);
        store.enter(&entering, &note).await?;
    }
    Ok(tree)
}

/// What was last signed with our key about the ledger; nothing only where a log has yet to enter
/// its ledger, or nothing was ever accepted.
async fn last_signed(
    store: &dyn Store,
    kept: &Kept,
    pin: &Pin,
) -> Result<Option<note::Checkpoint>, Error> {
    let altered = |what: &str| {
        Err(Error::Store(StoreError::Failed(format!(
            "{what}: the file was changed by something else than this program; put a backup back"
        ))))
    };
    let ours = kept.beginning.era;
    match store.checkpoint().await? {
        None if kept.unentered || kept.head == Head::default() => Ok(None),
        None => altered("nothing is signed about the ledger"),
        Some(_) if kept.unentered => altered("a log that has no ledger is signed for"),
        Some((size, text)) => match note::vouched(&text, pin) {
            Some(said)
                if said.size == size
                    && said.era.log == ours.log
                    && said.era.epoch <= ours.epoch =>
            {
                Ok(Some(said))
            }
            Some(_) => altered("what is signed about the ledger is of another"),
            None => {
                altered("what is signed about the ledger is not signed with this registry's key")
            }
        },
    }
}

fn altered(revision: u64, how: &str) -> Error {
    Error::Store(StoreError::Failed(format!(
        "revision {revision} of the log {how}: the file was changed by something else than this program; put a backup back"
    )))
}

/// Whether a row of the log is what its leaf commits to.
fn fits(row: &Entered, leaf: &Leaf, era: Era) -> bool {
    let payloads = payloads(&row.transaction, &row.erased);
    if leaf.salts.len() != payloads.len() {
        return false;
    }
    let mut said = leaf
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("entry "));
    let commitments: Option<Vec<Hash>> = leaf
        .salts
        .iter()
        .zip(&payloads)
        .map(|(salt, payload)| committed(salt, payload.as_deref(), said.next().and_then(unhex)))
        .collect();
    let Transaction { revision, time, .. } = row.transaction;
    commitments
        .is_some_and(|commitments| *leaf.text == *leaf_text(era, revision, time, &commitments))
}

/// What commits to a payload that is known, or what is said of one that was erased.
fn committed(salt: &Salt, payload: Option<&str>, said: Option<Hash>) -> Option<Hash> {
    payload.map_or(said, |payload| Some(commitment(salt, payload)))
}
