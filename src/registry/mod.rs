//! The registry: the process that holds what is governed and takes it back.

mod app;
mod asking;
mod attendants;
mod authn;
mod cases;
mod cohort;
mod core;
mod files;
mod fsck;
mod incidents;
mod instances;
mod ledger;
mod permission;
mod pki;
mod proposals;
mod publication;
mod role;
mod rounds;
mod scope;
mod service;
mod store;
mod sweep;
mod view;
mod workflow;

#[cfg(any(test, feature = "testing"))]
pub use app::simulated;
pub use app::{Bound, Made, backup, init, issue, recover, rotate};
pub use cohort::{Interval, Window};
pub use pki::Issued;
pub use role::{CALLS, Role};
pub use store::{Access, Entered, Kept, Past, Sealed, Sqlite, Store, StoreError, Stored};
