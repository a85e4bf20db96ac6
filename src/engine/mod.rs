//! The verbs: same input, same output.
//!
//! Pure and total functions over [`crate::domain`]. No IO, no clock, no async, no panic.

mod attendance;
pub mod catalogue;
mod change;
pub mod condition;
mod coverage;
mod decide;
mod directory;
mod effective;
mod emergency;
mod explain;
mod failing;
mod fallback;
pub mod follow;
mod index;
pub mod ledger;
pub mod lifecycle;
pub mod notices;
mod parties;
pub mod planted;
pub mod proposals;
mod quorum;
mod removed;
pub mod report;
pub mod rounds;
pub mod schedule;
mod shelf;
mod snapshot;
pub mod sprawl;
mod stakes;
mod sum;
mod terms;
mod tiering;
mod triggers;
mod view;
mod weakening;
mod world;

pub use attendance::{Attendance, Receipt, bound, longest_lease};
pub use change::{Change, SnapshotError, Source};
pub use coverage::{Cases, YEAR};
pub use decide::decide;
pub use directory::Directory;
pub use effective::{Standing, effective};
pub use explain::{Clause, ControlClauses, Explanation, NearMiss, Read, explain, reasons};
pub use quorum::{Electorate, satisfiable};
pub use removed::{Removed, has_credential};
pub use shelf::Shelf;
pub use snapshot::Snapshot;
pub use sum::{Part, Sum, part};
pub use terms::{Asked, rules_for, terms};
pub use tiering::{Stakes, tier};
pub use triggers::{Against, against};
pub use weakening::{Deciders, weakened};
pub use world::{World, WorldError, run_vector};
