//! What `exeat mcp` is told.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use crate::proxy;

use super::args::Target;

/// `exeat mcp`.
#[derive(Debug, Subcommand)]
pub enum Mcp {
    /// Start a server and stand between it and whoever speaks to it over standard input and output.
    Wrap(Wrap),
    /// Stand before a server that is spoken to over HTTP.
    Proxy(Proxy),
    /// Print a server's tools as a subject's manifest names them, for review.
    Pin(Pin),
}

/// Who asks, about which server's tools.
#[derive(Debug, Args)]
pub struct Through {
    /// The server, as policies and subjects name it, such as `mcp://crm`.
    #[arg(long, value_name = "ID")]
    pub server: String,
    /// The agent that is governed; the sidecar knows it where it stands next to one.
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// What for.
    #[arg(long, value_name = "ID")]
    pub purpose: Option<String>,
    /// Leave out arguments that are too large for a question, in place of saying no: a condition
    /// that asks whether they are there does not see them.
    #[arg(long)]
    pub omit_large: bool,
    /// Where an exception is requested; `{decision}` in it becomes the decision's id.
    #[arg(long, value_name = "URL")]
    pub approval_url: Option<String>,
    /// What is shown of the server's lists.
    #[arg(long, value_enum, default_value_t = Shows::Permitted)]
    pub list: Shows,
    #[command(flatten)]
    pub target: Target,
}

/// What is shown of lists. Whatever is shown, a call is still decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shows {
    /// What may be used now.
    Permitted,
    /// Also what an exception can be requested for.
    Requestable,
    /// Everything.
    All,
}

impl From<Shows> for proxy::Shows {
    fn from(shows: Shows) -> Self {
        match shows {
            Shows::Permitted => Self::Permitted,
            Shows::Requestable => Self::Requestable,
            Shows::All => Self::All,
        }
    }
}

/// `exeat mcp wrap`.
#[derive(Debug, Args)]
pub struct Wrap {
    #[command(flatten)]
    pub through: Through,
    /// The server's command, after `--`.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `exeat mcp proxy`.
#[derive(Debug, Args)]
pub struct Proxy {
    #[command(flatten)]
    pub through: Through,
    /// The server's address.
    #[arg(long, value_name = "URL")]
    pub upstream: String,
    /// Certificates that are believed of it, beside the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7433")]
    pub listen: String,
}

/// `exeat mcp pin`.
#[derive(Debug, Args)]
pub struct Pin {
    /// The server, as policies and subjects name it, such as `mcp://crm`.
    #[arg(long, value_name = "ID")]
    pub server: String,
    /// The server's address, if it is spoken to over HTTP.
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub upstream: Option<String>,
    /// Certificates that are believed of it, beside the system's.
    #[arg(long, value_name = "FILE", requires = "upstream")]
    pub ca: Option<PathBuf>,
    /// Else its command, after `--`.
    #[arg(last = true, required_unless_present = "upstream", value_name = "CMD")]
    pub command: Vec<OsString>,
}
