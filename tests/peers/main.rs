//! Real peers: what is missing fails, nothing is skipped.

#[path = "../support/mod.rs"]
mod support;

// Many more of them.
#[path = "../it/conditions.rs"]
mod conditions;

mod calendar;
mod clients;
mod envoy;
mod examples;
mod failing_disk;
mod full_disk;
mod mcp;
mod oscal;
mod provider;
mod telemetry;
mod workload;
