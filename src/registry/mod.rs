//! The registry: the process that holds what is governed and takes it back.

mod app;
mod attendants;
mod authn;
mod cohort;
mod core;
mod files;
mod publication;
mod role;
mod scope;
mod service;
mod store;
mod view;
mod workflow;

pub use app::{Bound, backup, recover};
pub use cohort::{Interval, Window};
pub use role::{CALLS, Role};
pub use store::{Access, Kept, Past, Sqlite, Store, StoreError, Stored};
