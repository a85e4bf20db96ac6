//! Where the log is kept: one port, and what stands behind it.

mod port;
mod sqlite;

pub use port::{Access, Kept, Past, Store, StoreError, Stored};
pub use sqlite::Sqlite;
