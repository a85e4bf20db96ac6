//! Between an MCP client and a server: calls are decided before they go on, and lists show what may be
//! used.

mod asker;
mod http;
mod lines;
mod server;
mod sides;
mod stdio;

use std::{fmt, io};

pub use asker::{Settings, Shows};
pub use http::Listening;
pub use server::{At, tools};
pub use stdio::wrap;

/// Why a proxy does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// What it was told cannot be done.
    Usage(String),
    /// A file cannot be used.
    Files(String),
    /// The server cannot be reached, or does not answer.
    Unreachable(String),
    /// Something else.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(why) | Self::Files(why) | Self::Unreachable(why) | Self::Failed(why) => {
                f.write_str(why)
            }
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
