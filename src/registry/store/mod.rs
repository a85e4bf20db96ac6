//! Where the log is kept: one port, and what stands behind it.

mod access;
mod attended;
mod leaves;
mod log;
mod outbox;
mod people;
mod pool;
mod port;
mod records;
mod reservations;
mod reserve;
mod runs;
mod sqlite;
mod usages;

pub use outbox::{Delivery, DeliveryState, Outbox};
pub use people::{Account, People, Session};
pub use port::{
    Access, Begun, Entered, Heard, Kept, Past, Sealed, Store, StoreError, Stored, Told,
};
pub use reservations::{Asks, ReservationId, Reservations};
pub use sqlite::Sqlite;
pub use usages::{Gap, KeptRow, KnownSpool, Tally, UsageFile, UsageRow};
