//! The registry: the process that holds what is governed and takes it back.

mod access;
mod along;
mod app;
mod asking;
mod attendants;
mod authn;
mod beat;
mod cases;
mod cohort;
mod completions;
mod core;
mod coverage;
mod fetched;
mod files;
mod fsck;
mod inbox;
mod incidents;
mod instances;
mod issuers;
mod leases;
mod ledger;
mod news;
mod notifications;
mod operations;
mod owed;
mod permission;
mod pki;
mod proposals;
mod publication;
mod reconcile;
mod reconstruct;
mod remedies;
mod reporting;
mod reports;
mod role;
mod rounds;
mod scope;
mod service;
mod services;
mod shifts;
mod sign_in;
mod store;
mod sweep;
mod uncovered;
mod usage;
mod uses;
mod view;
mod way;
mod witness;
mod workflow;

pub use app::{Bound, Made, backup, init, issue, recover, rotate};
pub use cohort::{Interval, Window};
pub use pki::Issued;
pub use role::{CALLS, Role};
#[cfg(any(test, feature = "testing"))]
pub use services::simulated;
pub use store::{
    Access, Account, Asks, Begun, Delivery, DeliveryState, Entered, Gap, Heard, Kept, KeptRow,
    KnownSpool, Outbox, Past, People, ReservationId, Reservations, Sealed, Session, Sqlite, Store,
    StoreError, Stored, Tally, Told, UsageFile, UsageRow,
};
