//! Logs on standard error.

use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging; a second start in one process changes nothing.
///
/// # Errors
///
/// A filter that cannot be read.
pub fn start(json: bool, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{filter},h2=warn,hyper=warn,tonic=warn,tower=warn"))
        .map_err(|error| format!("`log`: {error}"))?;
    let logs = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // Failing means that logs were started before, which tests do.
    let _ = if json {
        logs.json().flatten_event(true).try_init()
    } else {
        logs.with_ansi(false).try_init()
    };
    Ok(())
}
