//! The enforcing process: one published snapshot, and the surfaces that decide from it.

mod app;
mod bundle;
mod check;
mod decider;
mod direct;
mod follow;
mod identity;
mod operations;
mod record;
#[cfg(any(test, feature = "testing"))]
mod simulated;
mod uses;

pub use app::Bound;
pub use record::DecisionLine;
#[cfg(any(test, feature = "testing"))]
pub use simulated::Simulated;
