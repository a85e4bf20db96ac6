//! The Merkle tree over the ledger's leaves (RFC 6962 §2.1), and what proves something of it.
//!
//! Whole subtrees never change, so each is kept once it is whole; roots and proofs are folded from
//! a few of them.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::domain::{Hash, Node, Salt};

/// The digest of what a leaf says.
pub fn leaf_hash(text: &str) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(text)
        .finalize()
        .into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// What stands for a payload in a leaf: nobody finds the payload from it without its salt.
pub fn commitment(salt: &Salt, payload: &str) -> Hash {
    Sha256::new()
        .chain_update(b"exeat/entry/v1\n")
        .chain_update(salt)
        .chain_update(payload)
        .finalize()
        .into()
}

/// A tree that leaves are appended to: its size, and the whole subtrees it is made of, the
/// largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    edge: Vec<Hash>,
}

impl Tree {
    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf; tells which subtrees have become whole, the leaf itself first.
    pub fn append(&mut self, leaf: Hash) -> Vec<(Node, Hash)> {
        let (mut node, mut hash) = (
            Node {
                level: 0,
                place: self.size,
            },
            leaf,
        );
        let mut whole = vec![(node, hash)];
        while node.place % 2 == 1
            && let Some(left) = self.edge.pop()
        {
            hash = node_hash(&left, &hash);
            node = Node {
                level: node.level.saturating_add(1),
                place: node.place / 2,
            };
            whole.push((node, hash));
        }
        self.edge.push(hash);
        self.size = self.size.saturating_add(1);
        whole
    }

    /// The digest of everything.
    pub fn root(&self) -> Hash {
        folded(&self.edge)
    }
}

/// The digest of neighbouring whole subtrees, the largest first; of none that of nothing.
pub fn folded(parts: &[Hash]) -> Hash {
    let mut parts = parts.iter().rev();
    let Some(last) = parts.next() else {
        return Sha256::digest([]).into();
    };
    parts.fold(*last, |right, left| node_hash(left, &right))
}

/// The whole subtrees that leaves of a subtree of any size are made of, the largest first.
pub fn parts(leaves: &Range<u64>) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut from = leaves.start;
    while let Some(level) = leaves.end.saturating_sub(from).checked_ilog2() {
        nodes.push(Node {
            level: u8::try_from(level).unwrap_or(u8::MAX),
            place: from >> level,
        });
        from = from.saturating_add(1 << level);
    }
    nodes
}

/// Where a subtree of more than one leaf is divided: after the largest power of two below it.
fn middle(leaves: &Range<u64>) -> u64 {
    let last = leaves.end.saturating_sub(leaves.start).saturating_sub(1);
    leaves
        .start
        .saturating_add(1 << last.checked_ilog2().unwrap_or(0))
}

/// The subtrees whose digests prove that leaf `index` is in a tree of `size`, from the leaf up;
/// nothing if it is not.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size {
        return None;
    }
    let (mut within, mut path) = (0..size, Vec::new());
    while within.end.saturating_sub(within.start) > 1 {
        let middle = middle(&within);
        if index < middle {
            path.push(middle..within.end);
            within.end = middle;
        } else {
            path.push(within.start..middle);
            within.start = middle;
        }
    }
    path.reverse();
    Some(path)
}

/// The subtrees whose digests prove that a tree of `second` begins with the tree of `first`;
/// nothing if it cannot.
pub fn consistency(first: u64, second: u64) -> Option<Vec<Range<u64>>> {
    if first == 0 || first > second {
        return None;
    }
    let (mut within, mut path) = (0..second, Vec::new());
    let mut whole = true;
    while within.end != first {
        let middle = middle(&within);
        if first <= middle {
            path.push(middle..within.end);
            within.end = middle;
        } else {
            path.push(within.start..middle);
            within.start = middle;
            whole = false;
        }
    }
    if !whole {
        path.push(within);
    }
    path.reverse();
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 §2.1, word by word.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            more => {
                let (left, right) = more.split_at((more.len()).next_power_of_two() / 2);
                node_hash(&defined(left), &defined(right))
            }
        }
    }

    #[test]
    fn the_root_is_as_defined_and_every_subtree_is_told_once() {
        let (mut tree, mut leaves) = (Tree::default(), Vec::new());
        let mut known = std::collections::BTreeMap::new();
        for n in 0..70_u64 {
            assert_eq!(tree.root(), defined(&leaves));
            let leaf = leaf_hash(&n.to_string());
            leaves.push(leaf);
            for (node, hash) in tree.append(leaf) {
                assert_eq!(known.insert(node, hash), None);
            }
            for (node, hash) in &known {
                let from = (node.place as usize) << node.level;
                assert_eq!(*hash, defined(&leaves[from..from + (1 << node.level)]));
            }
            for end in 0..=n + 1 {
                let told: Vec<_> = parts(&(0..end)).iter().map(|node| known[node]).collect();
                assert_eq!(folded(&told), defined(&leaves[..end as usize]));
            }
        }
    }
}
