//! Commands and flags around the registry.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    args::{Output, Target},
    impact::Before,
};

/// `exeat registry`: every flag may also stand in the file, or in the environment as `EXEAT_…`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Registry {
    /// Something else than to serve.
    #[command(subcommand)]
    pub command: Option<RegistryCommand>,
    /// The folder of its data.
    #[arg(long, value_name = "DIR", global = true)]
    pub data: Option<String>,
    /// A file with settings.
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address for sidecars and people [127.0.0.1:7432].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address for health and metrics [127.0.0.1:7433].
    #[arg(long, value_name = "ADDRESS")]
    pub operations: Option<String>,
    /// Certificate chain, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<String>,
    /// Key of the certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Whose client certificates are trusted, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<String>,
    /// How long calls may take after SIGTERM [10s].
    #[arg(long, value_name = "SPAN")]
    pub drain_timeout: Option<String>,
    /// `text` or `json`.
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// What is logged [info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// What else there is to do with a registry.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Make a registry with a local certificate authority: mutual TLS in one command.
    Init {
        /// The SPIFFE trust domain.
        #[arg(long, value_name = "NAME", default_value = "exeat.local")]
        trust_domain: String,
        /// A host name or address by which the registry is reached; may be given again.
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
        /// A first administrator who signs in with a password, by name; the password is asked for,
        /// or read from standard input where that is no terminal.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Issue a certificate for a sidecar, and let it in.
    Issue {
        /// The sidecar's name: its id is `spiffe://TRUST-DOMAIN/sidecar/NAME`.
        name: String,
        /// What it may hold: `*`, `subject:ID` or `domain:ID`; may be given again.
        #[arg(long, required = true)]
        scope: Vec<String>,
        /// The SPIFFE trust domain.
        #[arg(long, value_name = "NAME", default_value = "exeat.local")]
        trust_domain: String,
        /// The folder for the certificate and its key.
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
    /// Replace the key that statements are signed with; sidecars follow.
    Rotate,
    /// Copy the registry into a new file while it goes on.
    Backup {
        /// The file.
        to: PathBuf,
    },
    /// After a restore: begin a new epoch, and let sidecars give back what was revoked since.
    Recover {
        /// The highest revision any sidecar is known to hold.
        #[arg(long, default_value_t = 0, value_name = "REVISION")]
        seen: u64,
    },
}

/// Where the registry is, and who asks.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// The registry.
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7432",
        env = "EXEAT_REGISTRY"
    )]
    pub registry: String,
    /// A token; otherwise the session of `exeat login`, or the administrator's token in the
    /// default data folder.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "EXEAT_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Whose certificate the registry has, PEM; with it TLS is spoken.
    #[arg(long, value_name = "FILE", env = "EXEAT_REGISTRY_CA")]
    pub registry_ca: Option<PathBuf>,
}

/// `exeat dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// The folder of manifests.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The one subject the sidecar stands next to; without it callers are believed.
    #[arg(long, value_name = "ID")]
    pub subject: Option<String>,
    /// The folder of the registry's and the sidecar's data [.exeat/dev in the folder].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the registry listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7432")]
    pub registry_listen: String,
    /// Address for decisions.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7430")]
    pub listen: String,
    /// Address for health and metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7431")]
    pub operations: String,
    /// Unix socket for decisions; `auto` for the usual one.
    #[arg(long, value_name = "PATH", default_value = "auto")]
    pub unix: PathBuf,
}

/// `exeat apply` and `exeat diff`.
#[derive(Debug, Args)]
pub struct Apply {
    /// A file or folder of manifests, or `-` for standard input; may be given again.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Remove objects of the kinds that stand in the files and are not among them.
    #[arg(long)]
    pub prune: bool,
    /// Change nothing unless an object is at a revision; 0 for not there.
    #[arg(long, value_name = "KIND/ID=REVISION")]
    pub expect: Vec<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub reach: Reach,
}

/// `exeat get`.
#[derive(Debug, Args)]
pub struct Get {
    /// Control, Subject, Exception, `TierPolicy`, Domain, Person, Group or Case.
    pub kind: String,
    /// One object; all, if left out.
    pub id: Option<String>,
    /// Only objects that contain this text; several words must all occur.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub filter: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub reach: Reach,
}

/// `exeat show` and `exeat history`.
#[derive(Debug, Args)]
pub struct One {
    /// Control, Subject, Exception, `TierPolicy`, Domain, Person, Group or Case.
    pub kind: String,
    /// The object.
    pub id: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub reach: Reach,
}

/// How something is taken back.
#[derive(Debug, Args)]
pub struct Manner {
    /// Why, from the closed set of reasons.
    #[arg(long, default_value = "ADMIN")]
    pub reason: String,
    /// Why, in words.
    #[arg(long, default_value = "")]
    pub note: String,
    /// Return once nobody can honour it any more.
    #[arg(long)]
    pub wait: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub reach: Reach,
}

/// `exeat exception`.
#[derive(Debug, Subcommand)]
pub enum Exception {
    /// Ask for an exception; its tier and who decides are computed.
    Request {
        /// A manifest of kind Request, or `-` for standard input.
        #[arg(short = 'f', long = "file", value_name = "PATH")]
        file: PathBuf,
        /// Say on which terms it would be decided, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        told: Told,
    },
    /// Write a request out of a denial: for just what was asked. What the decision does not tell is
    /// for a person to say.
    Draft(Draft),
    /// Ask for one that goes on from another: a new request, decided anew, with limits over both.
    Renew {
        /// The exception it goes on from.
        id: String,
        /// Why it is still needed, in at least forty characters.
        #[arg(long, value_name = "TEXT")]
        why: String,
        /// For how long, from its approval on; as long as before if left out.
        #[arg(long, value_name = "SPAN")]
        duration: Option<String>,
        /// Say on which terms it would be decided, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        told: Told,
    },
    /// Hand in anew what is not decided yet; its votes are void.
    Amend {
        /// The exception.
        id: String,
        /// Another manifest; left out, as it was asked for.
        #[arg(short = 'f', long = "file", value_name = "PATH")]
        file: Option<PathBuf>,
        #[command(flatten)]
        told: Told,
    },
    /// List exceptions on their way, newest first.
    List {
        /// Only those in a state, such as PENDING.
        #[arg(long, value_name = "STATE", default_value = "")]
        state: String,
        /// Only those that wait for your decision.
        #[arg(long)]
        waiting_for_me: bool,
        #[command(flatten)]
        told: Told,
    },
    /// Say how one was used: how often, whether all in scope, whether anything is missing, and
    /// whether it was used after it was taken back. Exits with 3 where something speaks against it.
    Usage {
        /// The exception.
        id: String,
        /// List so many of its records as well, latest first.
        #[arg(long, value_name = "N", default_value_t = 0)]
        records: u32,
        #[command(flatten)]
        told: Told,
    },
    /// Show one with everything that is to be decided about.
    #[command(visible_alias = "review")]
    Show {
        /// The exception.
        id: String,
        #[command(flatten)]
        before: Before,
        #[command(flatten)]
        told: Told,
    },
    /// Approve one; or, once it was granted, say that it still holds.
    #[command(visible_alias = "revalidate")]
    Approve {
        #[command(flatten)]
        decides: Decides,
    },
    /// Deny one.
    Deny {
        #[command(flatten)]
        decides: Decides,
    },
    /// Write requests from the deviations of an OSCAL document: assessment results, or a plan of
    /// action. What OSCAL does not say of them is for a person to fill in.
    Import {
        /// The document, JSON.
        file: PathBuf,
        /// The folder for the requests, one a file.
        #[arg(long, value_name = "DIR", default_value = "requests")]
        out: PathBuf,
    },
    /// Withdraw a request, or close an exception that is no longer needed.
    Close {
        /// The exception.
        id: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        told: Told,
    },
    /// Suspend an exception until people look at it again.
    Suspend {
        /// The exception.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        told: Told,
    },
    /// Take an exception back, for good.
    Revoke {
        /// The exception.
        id: String,
        #[command(flatten)]
        manner: Manner,
    },
}

/// How an answer is printed, and where the registry is.
#[derive(Debug, Args)]
pub struct Told {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub reach: Reach,
}

/// A request out of a denial.
#[derive(Debug, Args)]
pub struct Draft {
    /// The decision's id.
    pub decision: String,
    /// Why it is needed, in at least forty characters.
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// What may go wrong, in at least forty characters.
    #[arg(long, value_name = "TEXT")]
    pub risk: Option<String>,
    /// How it ends.
    #[arg(long, value_name = "TEXT")]
    pub plan: Option<String>,
    /// Where that is tracked.
    #[arg(long, value_name = "REF")]
    pub ticket: Option<String>,
    /// Who answers for it: `user:NAME`.
    #[arg(long, value_name = "WHO")]
    pub owner: Option<String>,
    /// For how long, from its approval on.
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    pub duration: String,
    /// The sidecar that decided.
    #[command(flatten)]
    pub target: Target,
}

/// A decision.
#[derive(Debug, Args)]
pub struct Decides {
    /// The exception.
    pub id: String,
    /// The digest you saw with `show`; a decision is about that and nothing else.
    #[arg(long)]
    pub digest: String,
    /// Why, in at least ten characters.
    #[arg(long)]
    pub comment: String,
    /// Evidence that you looked at, by id; may be given again.
    #[arg(long, value_name = "ID")]
    pub reviewed: Vec<String>,
    #[command(flatten)]
    pub told: Told,
}

/// `exeat revoke`.
#[derive(Debug, Args)]
pub struct Revoke {
    /// exception, subject, credential, control, domain or principal.
    pub kind: String,
    /// Its id.
    pub id: String,
    #[command(flatten)]
    pub manner: Manner,
}

/// `exeat agent`.
#[derive(Debug, Subcommand)]
pub enum Agent {
    /// List the governed subjects.
    List {
        /// Only those that contain this text.
        #[arg(long, value_name = "TEXT", default_value = "")]
        filter: String,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show one.
    Show {
        /// The subject.
        id: String,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        reach: Reach,
    },
    /// Register one from its manifest.
    Register {
        /// The manifest.
        #[arg(short = 'f', long = "file", value_name = "PATH")]
        file: PathBuf,
        #[command(flatten)]
        reach: Reach,
    },
    /// Deny every question of a subject until it is thawed.
    Freeze {
        /// The subject.
        id: String,
        #[command(flatten)]
        manner: Manner,
    },
    /// End a freeze.
    Thaw {
        /// The subject.
        id: String,
        #[command(flatten)]
        manner: Manner,
    },
}

/// `exeat access`.
#[derive(Debug, Subcommand)]
pub enum Access {
    /// Let somebody in; prints the token, once.
    Grant {
        /// A SPIFFE id, or a name for which a token is made.
        identity: String,
        /// admin, author, approver, viewer or sidecar.
        #[arg(long)]
        role: String,
        /// Of a sidecar: `*`, `subject:ID` or `domain:ID`; may be given again.
        #[arg(long)]
        scope: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Shut somebody out.
    Expel {
        /// Who.
        identity: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Say who is let in.
    List {
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        reach: Reach,
    },
}

/// `exeat sidecars` and `exeat status`.
#[derive(Debug, Args)]
pub struct Fleet {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub reach: Reach,
}
