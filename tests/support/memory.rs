//! A store in memory, for simulations: what is committed outlives whoever uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use exeat::{
    domain::{
        ControlId, Era, Hash, Head, Leaf, Name, Node, Observed, Removal, Run, Timestamp,
        Transaction,
    },
    engine::{
        attendance::{STARTS, Start},
        follow::Beginning,
    },
    registry::{Access, Begun, Entered, Kept, Past, Sealed, Store, StoreError, Stored},
};

#[derive(Debug, Default)]
struct Held {
    beginning: Option<Beginning>,
    log: Vec<Transaction>,
    /// Of each row of the log: its epoch, and its leaf.
    leaves: Vec<(u64, Leaf)>,
    erased: BTreeSet<(u64, usize)>,
    nodes: BTreeMap<Node, Hash>,
    checkpoints: BTreeMap<u64, Box<str>>,
    access: BTreeMap<Box<str>, Access>,
    attended: BTreeSet<Box<str>>,
    starts: Vec<Begun>,
    keys: Vec<Vec<u8>>,
    runs: Vec<Run>,
    observed: BTreeMap<(String, String, String, String), Observed>,
}

impl Held {
    fn enter(&mut self, epoch: u64, sealed: &Sealed) {
        self.leaves.push((epoch, sealed.leaf.clone()));
        self.nodes.extend(sealed.whole.iter().copied());
        let Some(name) = &sealed.erases else { return };
        // The row that says so holds nothing of it.
        for (transaction, (_, leaf)) in self.log.iter_mut().zip(&mut self.leaves) {
            let mut at = 1;
            for (place, edit) in transaction.edits.iter_mut().enumerate() {
                let key = (transaction.revision, place);
                let had = edit.manifest.is_some() || self.erased.contains(&key);
                if edit.name == *name && edit.manifest.take().is_some() {
                    leaf.salts[at + 1] = [0; 16];
                    self.erased.insert(key);
                }
                at += if had { 2 } else { 1 };
            }
        }
    }

    fn head(&self) -> Head {
        let base = self
            .beginning
            .map_or(Head::default(), |beginning| beginning.base);
        Head {
            revision: self
                .log
                .last()
                .map_or(base.revision, |last| last.revision.max(base.revision)),
            sequence: self
                .log
                .iter()
                .flat_map(|transaction| &transaction.removals)
                .map(|removal| removal.sequence)
                .max()
                .unwrap_or(0),
        }
    }

    fn stored(&self) -> impl Iterator<Item = Stored> {
        self.log.iter().flat_map(|transaction| {
            transaction.edits.iter().map(|edit| Stored {
                name: edit.name.clone(),
                revision: edit.revision,
                manifest: edit.manifest.clone(),
                log_revision: transaction.revision,
                time: transaction.time,
                principal: transaction.principal.clone(),
            })
        })
    }
}

/// The subtrees that are whole with a leaf.
fn whole_with(leaf: u64) -> impl Iterator<Item = Node> {
    (0..=(leaf + 1).trailing_zeros()).map(move |level| Node {
        level: u8::try_from(level).unwrap(),
        place: ((leaf + 1) >> level) - 1,
    })
}

/// Everything committed so far.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Held>>);

impl Memory {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Store for Memory {
    async fn open(&self, fresh: Era) -> Result<Kept, StoreError> {
        let mut held = self.held();
        let beginning = *held.beginning.get_or_insert(Beginning {
            era: fresh,
            base: Head::default(),
        });
        Ok(Kept {
            beginning,
            head: held.head(),
            time: held
                .log
                .last()
                .map_or(Timestamp::from_micros(0), |last| last.time),
            copied: false,
            unentered: false,
        })
    }

    async fn head(&self) -> Result<Head, StoreError> {
        Ok(self.held().head())
    }

    async fn commit(&self, transaction: &Transaction, sealed: &Sealed) -> Result<(), StoreError> {
        let mut held = self.held();
        let head = held.head();
        if head.revision + 1 != transaction.revision {
            return Err(StoreError::Conflict { head });
        }
        held.log.push(transaction.clone());
        let epoch = held.beginning.map_or(1, |beginning| beginning.era.epoch);
        held.enter(epoch, sealed);
        Ok(())
    }

    async fn objects(&self) -> Past<Stored> {
        let held = self.held();
        let latest: BTreeMap<Name, Stored> = held
            .stored()
            .map(|stored| (stored.name.clone(), stored))
            .collect();
        Ok(latest.into_values().collect())
    }

    async fn removals(&self, after: u64) -> Past<Removal> {
        let held = self.held();
        let removals = held
            .log
            .iter()
            .flat_map(|transaction| &transaction.removals);
        Ok(removals
            .filter(|removal| removal.sequence > after)
            .cloned()
            .collect())
    }

    async fn history(&self, name: &Name, before: u64, most: usize) -> Past<Stored> {
        let mut past: Vec<_> = self
            .held()
            .stored()
            .filter(|stored| stored.name == *name && stored.log_revision < before)
            .collect();
        past.reverse();
        past.truncate(most);
        Ok(past)
    }

    async fn transactions(&self, after: u64, most: usize) -> Past<Transaction> {
        let held = self.held();
        let later = held
            .log
            .iter()
            .filter(|transaction| transaction.revision > after);
        Ok(later.take(most).cloned().collect())
    }

    async fn entered(&self, after: u64, most: usize) -> Past<Entered> {
        let held = self.held();
        let rows = held.log.iter().zip(&held.leaves);
        let later = rows.filter(|(transaction, _)| transaction.revision > after);
        Ok(later
            .take(most)
            .map(|(transaction, (epoch, leaf))| Entered {
                transaction: transaction.clone(),
                epoch: *epoch,
                leaf: Some(leaf.clone()),
                erased: held
                    .erased
                    .iter()
                    .filter(|(revision, _)| *revision == transaction.revision)
                    .map(|(_, place)| *place)
                    .collect(),
                whole: whole_with(leaf.position)
                    .map(|node| (node, held.nodes[&node]))
                    .collect(),
            })
            .collect())
    }

    async fn enter(&self, _: &[(u64, Sealed)], _: &str) -> Result<(), StoreError> {
        unreachable!("this log is never older than its ledger")
    }

    async fn revision_at(&self, position: u64) -> Result<Option<u64>, StoreError> {
        let held = self.held();
        let row = held.log.get(usize::try_from(position).unwrap());
        Ok(row.map(|row| row.revision))
    }

    async fn nodes(&self, wanted: &[Node]) -> Past<Hash> {
        let held = self.held();
        let hole = || StoreError::Failed("a tree with a hole".into());
        let found = wanted.iter().map(|node| held.nodes.get(node).copied());
        found.map(|hash| hash.ok_or_else(hole)).collect()
    }

    async fn keep_checkpoint(&self, size: u64, note: &str) -> Result<(), StoreError> {
        let mut held = self.held();
        held.checkpoints.insert(size, note.into());
        Ok(())
    }

    async fn checkpoint(&self) -> Result<Option<(u64, Box<str>)>, StoreError> {
        let held = self.held();
        let last = held.checkpoints.last_key_value();
        Ok(last.map(|(size, note)| (*size, note.clone())))
    }

    async fn begin(
        &self,
        beginning: &Beginning,
        time: Timestamp,
        sealed: &Sealed,
    ) -> Result<(), StoreError> {
        let mut held = self.held();
        let head = held.head();
        if head.revision >= beginning.base.revision || head.sequence > beginning.base.sequence {
            return Err(StoreError::Conflict { head });
        }
        held.beginning = Some(*beginning);
        held.log.push(Transaction {
            revision: beginning.base.revision,
            time,
            principal: "registry".into(),
            action: "recover".into(),
            edits: Vec::new(),
            removals: Vec::new(),
        });
        held.enter(beginning.era.epoch, sealed);
        let everybody: Vec<_> = held.access.keys().cloned().collect();
        held.attended.extend(everybody);
        let mut seen = BTreeSet::new();
        for (name, _, fencing) in held.starts.iter_mut().rev() {
            if seen.insert(name.clone()) {
                *fencing = Some(time);
            }
        }
        Ok(())
    }

    async fn observe(&self, sidecar: &str, observed: &[Observed]) -> Result<(), StoreError> {
        let mut held = self.held();
        for one in observed {
            let place = (
                one.subject.to_string(),
                one.facet.name().to_owned(),
                sidecar.to_owned(),
            );
            let key = (
                place.0.clone(),
                place.1.clone(),
                place.2.clone(),
                one.digest.to_string(),
            );
            let known = held.observed.entry(key).or_insert_with(|| one.clone());
            known.first = known.first.min(one.first);
            known.last = known.last.max(one.last);
            let mut of: Vec<_> = held
                .observed
                .iter()
                .filter(|((a, b, c, _), _)| (a, b, c) == (&place.0, &place.1, &place.2))
                .map(|(key, known)| (known.last, key.clone()))
                .collect();
            of.sort();
            of.reverse();
            for (_, key) in of.into_iter().skip(16) {
                held.observed.remove(&key);
            }
        }
        Ok(())
    }

    async fn observed(&self, subject: &str) -> Past<(Observed, Box<str>)> {
        let held = self.held();
        let mut known: Vec<(Observed, Box<str>)> = held
            .observed
            .iter()
            .filter(|((of, ..), _)| of == subject)
            .map(|((_, _, sidecar, _), known)| (known.clone(), sidecar.as_str().into()))
            .collect();
        known.sort_by_key(|(known, _)| std::cmp::Reverse(known.last));
        Ok(known)
    }

    async fn keep_run(&self, run: &Run) -> Result<(), StoreError> {
        self.held().runs.push(run.clone());
        Ok(())
    }

    async fn runs(&self, control: &ControlId, most: u32) -> Past<Run> {
        let held = self.held();
        let of = held.runs.iter().rev().filter(|run| run.control == *control);
        Ok(of.take(usize::try_from(most).unwrap()).cloned().collect())
    }

    async fn last_due(&self) -> Past<(ControlId, Timestamp)> {
        let mut last = BTreeMap::new();
        for run in &self.held().runs {
            if let Some(due) = run.due {
                last.insert(run.control.clone(), due);
            }
        }
        Ok(last.into_iter().collect())
    }

    async fn access(&self) -> Past<Access> {
        Ok(self.held().access.values().cloned().collect())
    }

    async fn grant(&self, access: &Access) -> Result<bool, StoreError> {
        let mut held = self.held();
        if held.access.values().any(|known| known.bars(access)) {
            return Ok(false);
        }
        held.access.insert(access.identity.clone(), access.clone());
        Ok(true)
    }

    async fn expel(&self, identity: &str) -> Result<bool, StoreError> {
        let mut held = self.held();
        let known = held
            .access
            .get_mut(identity)
            .filter(|known| &*known.role != "expelled");
        Ok(known.is_some_and(|known| {
            known.role = "expelled".into();
            known.token = None;
            true
        }))
    }

    async fn attend(
        &self,
        identity: &str,
        start: &Start,
        fencing: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let mut held = self.held();
        held.attended.insert(identity.into());
        let of = |(name, ..): &Begun| **name == *identity;
        if !held.starts.iter().any(|one| of(one) && one.1 == *start) {
            held.starts.push((identity.into(), *start, fencing));
        }
        let over = held.starts.iter().filter(|one| of(one)).count();
        let mut over = over.saturating_sub(STARTS);
        held.starts.retain(|one| {
            let goes = of(one) && over > 0;
            over -= usize::from(goes);
            !goes
        });
        Ok(())
    }

    async fn starts(&self) -> Past<Begun> {
        Ok(self.held().starts.clone())
    }

    async fn attended(&self) -> Past<Box<str>> {
        Ok(self.held().attended.iter().cloned().collect())
    }

    async fn keys(&self) -> Past<Vec<u8>> {
        Ok(self.held().keys.clone())
    }

    async fn keep_key(&self, statement: &[u8]) -> Result<(), StoreError> {
        self.held().keys.push(statement.to_vec());
        Ok(())
    }
}
