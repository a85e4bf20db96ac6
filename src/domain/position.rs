//! Places in the registry's log.

use std::fmt;

/// Which log: random, made at a registry's birth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub [u8; 16]);

impl LogId {
    /// Reads the sixteen bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which history of which log. A restore that may have lost commits begins a new epoch; positions
/// compare within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Era {
    /// The log.
    pub log: LogId,
    /// Counts restores, from 1.
    pub epoch: u64,
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.log, self.epoch)
    }
}

/// How far the log has come: the number of transactions, and of removals among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Transactions.
    pub revision: u64,
    /// Removals.
    pub sequence: u64,
}

impl Head {
    /// Whether this is further than `other` in any way.
    pub fn exceeds(self, other: Self) -> bool {
        self.revision > other.revision || self.sequence > other.sequence
    }
}
