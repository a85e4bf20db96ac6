//! Where the log is kept: one port, and what stands behind it.

mod leaves;
mod port;
mod runs;
mod sqlite;

pub use port::{Access, Entered, Kept, Past, Sealed, Store, StoreError, Stored};
pub use sqlite::Sqlite;
