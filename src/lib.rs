//! exeat: permission slips for AI agents.
//!
//! A control says no; someone with authority says yes, for this agent, this tool, until Friday.
//! The sidecar answers every Check with what is in force; the registry holds what is governed and
//! takes it back. A proxy stands between an MCP client and a
//! server, and asks the sidecar. None of them names another: they meet on [`wire`].
//!
//! ```text
//!   cli ─┬─ sidecar ──┬─ wire ───────┐
//!        ├─ registry ─┼─ manifest ───┤
//!        └─ proxy ────┼─ telemetry ──┼─ engine ── domain
//!                     ├─ config ─────┘
//!                     └─ runtime
//! ```
//!
//! [`audit`] checks the ledger and shares no code with whoever writes it. [`domain`] holds the nouns and [`engine`] the verbs: both are pure and compile without an
//! async runtime or a wire format. Everything else needs the feature `server`.

#[warn(clippy::wildcard_enum_match_arm)]
pub mod domain;
pub mod engine;

#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod manifest;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(feature = "server")]
pub mod runtime;
#[cfg(feature = "server")]
pub mod sidecar;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(feature = "server")]
pub mod wire;
