//! The verbs: same input, same output.
//!
//! Pure and total functions over [`crate::domain`]. No IO, no clock, no async, no panic.

pub mod catalogue;
mod change;
pub mod condition;
mod decide;
mod effective;
mod explain;
mod index;
mod shelf;
mod snapshot;
mod world;

pub use change::{Change, SnapshotError, Source};
pub use decide::decide;
pub use effective::{Standing, effective};
pub use explain::{Clause, ControlClauses, Explanation, NearMiss, Read, explain, reasons};
pub use snapshot::Snapshot;
pub use world::{World, WorldError, run_vector};
