//! What the ledger holds: one leaf a transaction, and the nodes of the tree over them.

/// A SHA-256 digest in the tree.
pub type Hash = [u8; 32];

/// A whole subtree of 2^level leaves, counted from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// 0 is a leaf.
    pub level: u8,
    /// From 0.
    pub place: u64,
}

/// What hides a payload until it is shown with it.
pub type Salt = [u8; 16];

/// A transaction as the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its place among all leaves, from 0, without holes.
    pub position: u64,
    /// What is hashed: who and what only as commitments, so that it may be shown to anybody and
    /// outlives what is erased (L5).
    pub text: Box<str>,
    /// One for each commitment.
    pub salts: Vec<Salt>,
}
