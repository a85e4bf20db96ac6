//! Every test from outside the crate that needs nothing but cargo, in one program: linked once.

#[path = "../support/mod.rs"]
mod support;

mod acceptance;
mod bundle;
mod cases;
mod cli;
mod commands;
mod conditions;
mod crash;
mod deciding;
mod decision_log;
mod demand;
mod evasion;
mod events;
mod findings;
mod follow;
mod fronts;
mod governance;
mod hook;
mod hostile;
mod incidents;
mod justify;
mod layering;
mod ledger;
mod lifecycle;
mod model;
mod months;
mod notifications;
mod parted;
mod properties;
mod registry;
mod report;
mod requirements;
mod scopes;
mod sidecar;
mod sign_in;
mod simulation;
mod starter;
mod store;
mod telemetry;
mod tools;
mod turmoil;
mod usage;
mod walks;
mod weakening;
