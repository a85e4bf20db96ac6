//! Commands and flags of what people decide and prove: the ledger, incidents, controls, findings.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    args::Output,
    registry_args::{Reach, Told},
};

/// `exeat audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the latest changes: who did what, when, with their places in the ledger.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u64,
        /// Go on with what comes.
        #[arg(short, long)]
        follow: bool,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Where the registry is.
        #[command(flatten)]
        reach: Reach,
    },
    /// Write the whole ledger to a file that anybody can check, offline.
    Export {
        /// The file; standard output without it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Where the registry is.
        #[command(flatten)]
        reach: Reach,
    },
    /// Write the ledger as static files, for whoever follows transparency logs (C2SP tlog-tiles).
    /// What is there already is kept: run it again after changes, and serve the folder.
    Tiles {
        /// The folder.
        folder: PathBuf,
        /// Where the registry is.
        #[command(flatten)]
        reach: Reach,
    },
    /// Write every usage record to a file, as its sidecar wrote it: `verify --usage` holds them
    /// against the ledger.
    Usage {
        /// The file; standard output without it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Where the registry is.
        #[command(flatten)]
        reach: Reach,
    },
    /// Write the receipt of one change: that it is in the ledger can be checked without the rest.
    Prove {
        /// A revision, or KIND/ID for an object's latest change.
        what: String,
        /// The file; standard output without it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Where the registry is.
        #[command(flatten)]
        reach: Reach,
    },
    /// Print what is signed about the ledger now: keep it, and nothing before it can be changed
    /// unseen.
    Checkpoint {
        /// Where the registry is.
        #[command(flatten)]
        reach: Reach,
    },
    /// Check that the ledger goes on from a checkpoint that was kept, by a proof of a few digests.
    Extends {
        /// The checkpoint.
        file: PathBuf,
        /// The registry's key, as sidecars pin it; may be given again after a rotation.
        #[arg(long, value_name = "ed25519:HEX", required = true)]
        key: Vec<String>,
        /// Put what is signed now in its place if it does.
        #[arg(long)]
        keep: bool,
        /// Where the registry is.
        #[command(flatten)]
        reach: Reach,
    },
    /// Check an export or a receipt, offline.
    Verify {
        /// The file.
        file: PathBuf,
        /// The registry's key, as sidecars pin it; may be given again after a rotation.
        #[arg(long, value_name = "ed25519:HEX", required = true)]
        key: Vec<String>,
        /// A checkpoint kept from before, from which the ledger is to have grown; may be given
        /// again.
        #[arg(long, value_name = "FILE")]
        since: Vec<PathBuf>,
        /// Usage records, as `exeat audit usage` wrote them after the export: none of those that
        /// the ledger speaks of is to be changed or left out.
        #[arg(long, value_name = "FILE")]
        usage: Option<PathBuf>,
    },
    /// Erase who a removed person was; the ledger's proofs stay.
    Erase {
        /// The person's id.
        person: String,
        /// Where the registry is.
        #[command(flatten)]
        reach: Reach,
    },
}

/// `exeat incident`.
#[derive(Debug, Subcommand)]
pub enum IncidentCommand {
    /// Say that an incident began: overrides in its domain may belong to it.
    Open {
        /// Its id where it is dealt with.
        id: String,
        /// The domain it happens in.
        #[arg(long)]
        domain: String,
        /// What happens, in a few words.
        #[arg(long)]
        title: String,
        #[command(flatten)]
        told: Told,
    },
    /// Say that it is over: its overrides end with it.
    Resolve {
        /// The incident.
        id: String,
        #[command(flatten)]
        told: Told,
    },
    /// List incidents, latest first.
    List {
        /// Also those that are over.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        told: Told,
    },
    /// Write down how an override was undone, and close it.
    Close {
        /// The override: an exception's id.
        exception: String,
        /// What was relaxed, and what was done with it.
        #[arg(long, value_name = "TEXT")]
        relaxed: String,
        /// How things were put back.
        #[arg(long, value_name = "TEXT")]
        restored: String,
        /// What is learnt from it.
        #[arg(long, value_name = "TEXT")]
        lessons: String,
        #[command(flatten)]
        told: Told,
    },
}

/// `exeat control`.
#[derive(Debug, Subcommand)]
pub enum ControlCommand {
    /// Run a control over every subject now; exit code 3 if it fails for anybody.
    Run {
        /// The control.
        control: String,
        /// Say what would be found, and keep nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        told: Told,
    },
    /// Show how a control ran, latest first; without one, the latest run of each.
    History {
        /// The control.
        control: Option<String>,
        #[command(flatten)]
        told: Told,
    },
    /// Say what of the frameworks controls answer to, and what of them nothing does.
    Coverage {
        /// `CSF_2_0`, `AI_RMF_1_0` or `OWASP_NHI_2025`; all of them, if left out.
        #[arg(long, default_value = "")]
        framework: String,
        /// Also every id that nothing answers to.
        #[arg(long)]
        gaps: bool,
        #[command(flatten)]
        told: Told,
    },
    /// Propose a control that denies less than it does; everything else is applied.
    Propose {
        /// A manifest with the one control, or `-` for standard input.
        #[arg(
            short = 'f',
            long = "file",
            value_name = "PATH",
            required_unless_present = "remove",
            conflicts_with = "remove"
        )]
        file: Option<PathBuf>,
        /// A control to be removed.
        #[arg(long, value_name = "ID")]
        remove: Option<String>,
        /// Why, in at least forty characters, and what takes its place.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        told: Told,
    },
    /// List proposals that wait for a decision, latest first.
    Proposals {
        /// Also those that are settled.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        told: Told,
    },
    /// Show a proposal with everything that is to be decided about.
    Show {
        /// The proposal.
        id: String,
        #[command(flatten)]
        told: Told,
    },
    /// Approve a proposal; with the last approval the control is so.
    Approve {
        #[command(flatten)]
        decides: DecidesProposal,
    },
    /// Deny a proposal.
    Deny {
        #[command(flatten)]
        decides: DecidesProposal,
    },
    /// Take a proposal back.
    Withdraw {
        /// The proposal.
        id: String,
        #[command(flatten)]
        told: Told,
    },
}

/// A decision about a proposal.
#[derive(Debug, Args)]
pub struct DecidesProposal {
    /// The proposal.
    pub id: String,
    /// The digest you saw with `show`.
    #[arg(long)]
    pub digest: String,
    /// Why, in at least ten characters.
    #[arg(long)]
    pub comment: String,
    #[command(flatten)]
    pub told: Told,
}

/// `exeat findings`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Findings {
    /// Something else than to list them.
    #[command(subcommand)]
    pub command: Option<FindingsCommand>,
    /// Only those of a control.
    #[arg(long, value_name = "ID")]
    pub control: Option<String>,
    /// Only those of a subject.
    #[arg(long, value_name = "ID")]
    pub subject: Option<String>,
    /// Also those that are satisfied.
    #[arg(long)]
    pub all: bool,
    /// Only those that no exception covers.
    #[arg(long)]
    pub uncovered: bool,
    /// How it is printed.
    #[command(flatten)]
    pub told: Told,
}

/// What else there is to do with findings.
#[derive(Debug, Subcommand)]
pub enum FindingsCommand {
    /// Say how and by when one is remedied: until then it waits for nobody else. Whoever answers for the
    /// control or subject says so; when it is due stays as it is.
    Remedy {
        /// The control.
        control: String,
        /// The subject it fails for.
        subject: String,
        /// What is done about it, in at least twenty characters.
        #[arg(long, value_name = "TEXT")]
        plan: String,
        /// By when: a length of time from now, such as `72h`, or a time.
        #[arg(long, value_name = "SPAN|TIME")]
        until: String,
        /// How it is printed.
        #[command(flatten)]
        told: Told,
    },
}

/// `exeat notification`.
#[derive(Debug, Subcommand)]
pub enum NotificationCommand {
    /// List who is told of what happens.
    Endpoints {
        #[command(flatten)]
        told: Told,
    },
    /// List messages on their way, taken and given up, latest first.
    List {
        /// Only those to this endpoint.
        #[arg(long, value_name = "NAME", default_value = "")]
        endpoint: String,
        /// Only those in this state: WAITING, DELIVERED or DEAD.
        #[arg(long, default_value = "")]
        state: String,
        /// How many.
        #[arg(short = 'n', long, default_value_t = 50)]
        lines: u32,
        #[command(flatten)]
        told: Told,
    },
    /// Try again what was given up.
    Retry {
        /// The endpoint.
        endpoint: String,
        /// One message; everything that was given up, if left out.
        #[arg(long, value_name = "ID", default_value = "")]
        id: String,
        #[command(flatten)]
        told: Told,
    },
    /// Send a message that says nothing.
    Test {
        /// The endpoint.
        endpoint: String,
        #[command(flatten)]
        told: Told,
    },
}
