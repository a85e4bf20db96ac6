//! The verbs: same input, same output.
//!
//! Pure and total functions over [`crate::domain`]. No IO, no clock, no async, no panic.

mod attendance;
pub mod catalogue;
mod change;
pub mod condition;
mod decide;
mod effective;
mod explain;
mod fallback;
pub mod follow;
mod index;
pub mod planted;
mod removed;
mod shelf;
mod snapshot;
mod sum;
mod view;
mod world;

pub use attendance::{Attendance, Receipt, bound, longest_lease};
pub use change::{Change, SnapshotError, Source};
pub use decide::decide;
pub use effective::{Standing, effective};
pub use explain::{Clause, ControlClauses, Explanation, NearMiss, Read, explain, reasons};
pub use removed::Removed;
pub use shelf::Shelf;
pub use snapshot::Snapshot;
pub use sum::{Part, Sum, part};
pub use world::{World, WorldError, run_vector};
