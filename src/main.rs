//! Parses arguments, starts the runtime and turns the outcome into an exit code.

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use exeat::cli::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let Ok(runtime) = built else {
        return ExitCode::FAILURE;
    };
    let code = runtime.block_on(run(cli)).code();
    // What is being written is; whoever does not read our output holds nothing up.
    runtime.shutdown_timeout(Duration::from_secs(2));
    ExitCode::from(code)
}
