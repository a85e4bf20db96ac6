//! The command line. Data goes to standard output, everything else to standard error.

mod args;
mod ask;
mod audit;
mod client;
mod coverage;
mod decisions;
mod demo;
mod dev;
mod exceptions;
mod findings;
mod fleet;
mod govern;
mod incidents;
mod init;
mod lint;
mod loopback;
mod notifications;
mod proposals;
mod reach;
mod registry_args;
mod report;
mod run;
mod saved;
mod screen;
mod serve;
mod sign_in;
mod sign_in_args;
mod suite;
mod takeback;
mod telling;
mod test;
mod workflow_args;

pub use args::Cli;
pub use run::{Exit, run};
pub use suite::{Coverage, Outcome as TestOutcome, Suite, World as SuiteWorld};
