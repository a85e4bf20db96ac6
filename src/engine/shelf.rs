//! A map that is cheap to copy: a change copies one of its many shards, the rest stays shared.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::quality::FixedState;

/// Shards of a shelf: with 100,000 entries a change copies about a hundred.
const SHARDS: usize = 1_024;

type Shard<K, V> = Arc<HashMap<K, V, FixedState>>;

/// A persistent map in shards.
#[derive(Clone, Debug)]
pub struct Shelf<K, V> {
    shards: Arc<[Shard<K, V>]>,
    hasher: FixedState,
    len: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Default for Shelf<K, V> {
    fn default() -> Self {
        let hasher = FixedState::default();
        let empty: Shard<K, V> = Arc::new(HashMap::with_hasher(FixedState::default()));
        Self {
            shards: (0..SHARDS).map(|_| Arc::clone(&empty)).collect(),
            hasher,
            len: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Shelf<K, V> {
    /// Puts `value` under `key`; what was there before is handed back.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        let shard = self.place(&key);
        let old = Arc::make_mut(&mut self.shards)
            .get_mut(shard)
            .and_then(|shard| Arc::make_mut(shard).insert(key, value));
        self.len = self.len.saturating_add(usize::from(old.is_none()));
        old
    }

    /// Takes out what is under `key`.
    pub fn take<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = self.place(key);
        let old = Arc::make_mut(&mut self.shards)
            .get_mut(shard)
            .and_then(|shard| Arc::make_mut(shard).remove(key));
        self.len = self.len.saturating_sub(usize::from(old.is_some()));
        old
    }

    /// What is under `key`.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.place(key))?.get(key)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    /// The entries, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The high bits: the map inside the shard uses the low ones.
        usize::try_from(self.hasher.hash_one(key) >> 54).unwrap_or(0) % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_later_changes() {
        let mut shelf: Shelf<u32, u32> = Shelf::default();
        for n in 0..5_000 {
            shelf.put(n, n);
        }
        let copy = shelf.clone();
        assert_eq!(shelf.put(7, 8), Some(7));
        assert_eq!(shelf.take(&9), Some(9));
        assert_eq!(
            (copy.get(&7), copy.get(&9), copy.len()),
            (Some(&7), Some(&9), 5_000)
        );
        assert_eq!(
            (shelf.get(&7), shelf.get(&9), shelf.len()),
            (Some(&8), None, 4_999)
        );
        let shared = copy
            .shards
            .iter()
            .zip(shelf.shards.iter())
            .filter(|(a, b)| Arc::ptr_eq(a, b))
            .count();
        assert!(shared >= SHARDS - 2, "{shared}");
    }
}
