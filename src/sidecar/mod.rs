//! The enforcing process: one published snapshot, and the surfaces that decide from it.

mod access;
mod answering;
mod app;
mod authzen;
mod bundle;
mod check;
mod decider;
mod direct;
mod evidence;
mod ext_authz;
mod ext_authz_http;
mod ext_mcp;
mod follow;
mod identity;
mod journal;
mod lines;
mod listed;
mod operations;
mod record;
mod rely;
#[cfg(any(test, feature = "testing"))]
mod simulated;
mod tokens;
mod told;

pub use app::Bound;
pub use journal::earlier as earlier_log;
pub use record::DecisionLine;
#[cfg(any(test, feature = "testing"))]
pub use simulated::Simulated;
