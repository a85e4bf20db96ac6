//! The second implementation of the ledger: it checks what the registry says and shares no code
//! with it, so that one mistake is not made twice. Offline, and over streams of any length.

mod export;
mod extension;
mod note;
mod receipt;
mod tiles;
mod tree;
mod usage;

pub use export::{Verified, verify};
pub use extension::extends;
pub use note::{Key, Note};
pub use receipt::{Proven, prove};
pub use tiles::{File, Tiles};
pub use usage::{Held, hold};

use std::fmt;

/// What does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The line of the file, from 1; 0 where it is about all of it.
    pub line: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl std::error::Error for Broken {}
