//! Commands and flags of whoever signs in.

use clap::{Args, Subcommand};

use super::{args::Output, registry_args::Reach};

/// `exeat login`.
#[derive(Debug, Args)]
pub struct Login {
    /// With whom, as the registry calls it; not needed where there is one.
    #[arg(long, value_name = "NAME", conflicts_with = "user")]
    pub issuer: Option<String>,
    /// With a password: a name, such as dana. The password is asked for, or read from standard
    /// input where that is no terminal.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Sign in anew, and with a step-up such as a second factor.
    #[arg(long, conflicts_with = "user")]
    pub step_up: bool,
    /// Print the address only, and open no browser.
    #[arg(long)]
    pub no_browser: bool,
    #[command(flatten)]
    pub reach: Reach,
}

/// `exeat logout` and `exeat whoami`.
#[derive(Debug, Args)]
pub struct Myself {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub reach: Reach,
}

/// `exeat account`.
#[derive(Debug, Subcommand)]
pub enum Account {
    /// Make somebody who signs in with a password, or give them another password or role.
    Add {
        /// A name, such as dana: they are `user:dana`.
        name: String,
        /// admin, author, approver or viewer.
        #[arg(long)]
        role: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Say who has signed in, or may with a password.
    List(Myself),
    /// Say who is signed in, and until when.
    Sessions(Myself),
    /// Forget somebody and end their sessions; the next one of that name may be somebody else.
    Remove {
        /// Who, such as dana or user:dana.
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
}
