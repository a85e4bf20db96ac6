//! Where the log is kept: one port, and what stands behind it.

mod leaves;
mod outbox;
mod people;
mod port;
mod runs;
mod sqlite;

pub use outbox::{Delivery, DeliveryState, Outbox};
pub use people::{Account, People, Session};
pub use port::{Access, Entered, Heard, Kept, Past, Sealed, Store, StoreError, Stored, Told};
pub use sqlite::Sqlite;
