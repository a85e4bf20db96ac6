//! Parses arguments, starts the runtime and turns the outcome into an exit code.

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use exeat::cli::{Cli, run};

/// A message to each of a thousand streams is many small pieces, made by one thread and given back by
/// another: the system's own allocator costs a tenth of that time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A hook is one short question, and blocks where it cannot even begin.
    let hook = cli.is_hook();
    let wrap = cli.is_wrap();
    let mut builder = if hook || wrap {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let Ok(runtime) = builder.enable_all().build() else {
        return ExitCode::from(if hook { 2 } else { 1 });
    };
    let code = runtime.block_on(run(cli)).code();
    if hook || wrap {
        // Nobody waits longer for what still waits.
        runtime.shutdown_background();
        return ExitCode::from(code);
    }
    // What is being written is; whoever does not read our output holds nothing up.
    runtime.shutdown_timeout(Duration::from_secs(2));
    ExitCode::from(code)
}
