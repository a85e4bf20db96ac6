//! Commands and flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use super::evidence::Evidence;
pub(super) use super::mcp_args::Mcp;
pub(super) use super::registry_args::{
    Access as AccessCommand, Agent as AgentCommand, Apply, Dev, Exception as ExceptionCommand,
    Fleet, Get, One, Registry, Revoke, Told,
};
pub(super) use super::report::Report;
pub(super) use super::rules::{Domain, Tier};
pub(super) use super::sign_in_args::{Account as AccountCommand, Login, Myself};
pub(super) use super::workflow_args::{
    AuditCommand, ControlCommand, Findings, IncidentCommand, NotificationCommand,
};

/// exeat: permission slips for AI agents.
#[derive(Debug, Parser)]
#[command(
    name = "exeat",
    version,
    about,
    propagate_version = true,
    after_help = "Begin with:  exeat demo\n             exeat init my-agents && cd my-agents && exeat test"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// When to use colour.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Cli {
    /// Whether standard input is read for as long as there is somebody who writes to it: nobody waits
    /// for that once the command is over.
    pub fn is_wrap(&self) -> bool {
        matches!(self.command, Command::Mcp(Mcp::Wrap(_)))
    }

    /// Whether a coding agent asks: then every failure is a no.
    pub fn is_hook(&self) -> bool {
        matches!(
            self.command,
            Command::Hook(Hook::Claude(_) | Hook::Codex(_) | Hook::Gemini(_))
        )
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell the whole story, offline, in a few seconds; nothing is left behind.
    Demo,
    /// Answer Check from a folder of manifests.
    Sidecar(Box<Sidecar>),
    /// Hold what is governed, and take it back: the registry that sidecars follow.
    Registry(Box<Registry>),
    /// Registry and sidecar in one process over a folder, applied again whenever it changes.
    Dev(Dev),
    /// Make the registry's objects be what manifests say: all of them, or nothing.
    Apply(Apply),
    /// Say what an apply would change.
    Diff(Apply),
    /// List objects of a kind, or print one.
    Get(Get),
    /// Show one object: what it says, where it stands, who made it so.
    Show(One),
    /// Show everything an object ever was.
    History(One),
    /// Ask for exceptions, decide about them, and take them back.
    #[command(subcommand)]
    Exception(ExceptionCommand),
    /// Say what is shown for an exception, and show more.
    #[command(subcommand)]
    Evidence(Evidence),
    /// Show what a tier demands, and who decides.
    Tier(Tier),
    /// Show the domains: who answers for each, who decides, and by which rules.
    #[command(subcommand)]
    Domain(Domain),
    /// Take back a subject, credential, control, domain or principal.
    Revoke(Revoke),
    /// See to the governed subjects.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Sign in to the registry, for the commands that follow.
    Login(Login),
    /// Sign out.
    Logout(Myself),
    /// Say who the registry takes you for, and until when.
    Whoami(Myself),
    /// See to who may sign in.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Let people and sidecars in, or shut them out.
    #[command(subcommand)]
    Access(AccessCommand),
    /// Show what waits for people, due first; exit code 3 if anything is overdue.
    Queue(Told),
    /// Show what fails for whom, what is excepted, and until when it is to be remedied; exit code 3
    /// if anything is neither remedied nor excepted.
    Findings(Findings),
    /// Run controls; propose controls that deny less, and decide about them.
    #[command(subcommand)]
    Control(ControlCommand),
    /// Say that incidents began or are over, and close what was overridden for them.
    #[command(subcommand)]
    Incident(IncidentCommand),
    /// Say who is told of what happens, and what came of it.
    #[command(subcommand)]
    Notification(NotificationCommand),
    /// Say how well exceptions are governed (GV.OV), as text, JSON or OSCAL.
    Report(Report),
    /// Read, prove and check the ledger of everything that was ever accepted.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Show the sidecars: connected, position, lag, lease.
    Sidecars(Fleet),
    /// Am I safe right now? One screen.
    Status(Fleet),
    /// Ask whether a subject may use a tool or another resource.
    Check(Box<Check>),
    /// Say why a recent decision was what it was.
    Explain(Box<Explain>),
    /// Show recent decisions.
    Decisions(Decisions),
    /// Say what a new bundle would newly deny or allow, of what was decided before.
    Replay(Replay),
    /// Run test suites (`*_test.yaml`) against a bundle.
    Test(Test),
    /// Check a folder of manifests.
    Lint(Lint),
    /// Answer a coding agent before it acts; put that into its settings, and take it out.
    #[command(subcommand)]
    Hook(Hook),
    /// Stand between an MCP client and a server: calls are decided, and lists show what may be used.
    #[command(subcommand)]
    Mcp(Mcp),
    /// Say what in a proxy's configuration would let calls through unasked; exit code 3 if anything.
    #[command(subcommand)]
    Doctor(Doctor),
    /// Make a folder to begin with.
    Init(Init),
    /// Print the JSON Schema (draft-07) of a kind of file.
    Schema(Schema),
    /// Print a subject's facet digests, for approvals and exceptions to bind.
    Fingerprint(Fingerprint),
}

/// `exeat sidecar`: every flag may also stand in the file, or in the environment as `EXEAT_…`.
#[derive(Debug, Args)]
pub struct Sidecar {
    /// The folder of manifests.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<String>,
    /// The registry to follow in place of a folder.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "bundle")]
    pub registry: Option<String>,
    /// The registry's key, as it prints it at its start.
    #[arg(long, value_name = "ed25519:HEX")]
    pub registry_key: Option<String>,
    /// File with the token that says who this sidecar is.
    #[arg(long, value_name = "FILE")]
    pub registry_token_file: Option<String>,
    /// Whose certificate the registry has, PEM.
    #[arg(long, value_name = "FILE")]
    pub registry_ca: Option<String>,
    /// Certificate that says who this sidecar is, PEM.
    #[arg(long, value_name = "FILE")]
    pub registry_certificate: Option<String>,
    /// Key of that certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub registry_certificate_key: Option<String>,
    /// Folder for what was last known of the registry, and for records of uses.
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Most that subjects and resources fetched on demand may take [16MiB].
    #[arg(long, value_name = "BYTES")]
    pub entity_cache: Option<String>,
    /// File for decisions as lines of JSON; `stdout` or `none`.
    #[arg(long, value_name = "FILE")]
    pub decision_log: Option<String>,
    /// Most that one file of decisions may take.
    #[arg(long, value_name = "BYTES")]
    pub decision_log_size: Option<String>,
    /// How many files of decisions are kept.
    #[arg(long, value_name = "N")]
    pub decision_log_files: Option<String>,
    /// What of questions is shown beside names, such as `context.ticket`.
    #[arg(long, value_name = "NAME,…")]
    pub decision_log_values: Option<String>,
    /// Most that records of uses may take; once full, no exception is honoured [256MiB].
    #[arg(long, value_name = "BYTES")]
    pub evidence_size: Option<String>,
    /// A file with settings.
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address for decisions [127.0.0.1:7430].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Unix socket for decisions: a path, `auto` or `none`.
    #[arg(long, value_name = "PATH")]
    pub unix: Option<String>,
    /// Address for health and metrics [127.0.0.1:7431].
    #[arg(long, value_name = "ADDRESS")]
    pub operations: Option<String>,
    /// The one subject this sidecar stands next to.
    #[arg(long, value_name = "ID")]
    pub subject: Option<String>,
    /// Subjects by user id on the Unix socket.
    #[arg(long, value_name = "UID=ID,…")]
    pub peers: Option<String>,
    /// SPIFFE trust domain of client certificates.
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<String>,
    /// File of keys that sign callers' tokens, a JSON Web Key Set.
    #[arg(long, value_name = "FILE")]
    pub token_keys: Option<String>,
    /// Who issues these tokens.
    #[arg(long, value_name = "URL")]
    pub token_issuer: Option<String>,
    /// For whom they are issued.
    #[arg(long, value_name = "NAME")]
    pub token_audience: Option<String>,
    /// What stands here before the subjects they name.
    #[arg(long, value_name = "PREFIX")]
    pub token_prefix: Option<String>,
    /// File of agents' own tokens, as `exeat hook token` makes them.
    #[arg(long, value_name = "FILE")]
    pub agent_tokens: Option<String>,
    /// Who may speak for others, having verified them: `uid:UID` and SPIFFE ids.
    #[arg(long, value_name = "PROXY,…")]
    pub proxies: Option<String>,
    /// Whose tokens count that a proxy has verified.
    #[arg(long, value_name = "KEY=PREFIX,…")]
    pub proxy_tokens: Option<String>,
    /// Under which address AuthZEN clients know this decision point.
    #[arg(long, value_name = "URL")]
    pub authzen_url: Option<String>,
    /// Believe callers who they say they are. For trying things out.
    #[arg(long)]
    pub insecure_asserted_identity: bool,
    /// Certificate chain, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<String>,
    /// Key of the certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Whose client certificates are trusted, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<String>,
    /// SPIFFE Workload API that gives certificate, key and whom to trust.
    #[arg(long, value_name = "unix:///PATH")]
    pub workload_api: Option<String>,
    /// Connections at once, for each listener [1024].
    #[arg(long, value_name = "N")]
    pub max_connections: Option<String>,
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

/// Where the sidecar is.
#[derive(Debug, Args)]
pub struct Target {
    /// Its Unix socket, or its address [the default socket, else 127.0.0.1:7430 without a token].
    #[arg(long, value_name = "PATH|ADDRESS", env = "EXEAT_SOCKET")]
    pub socket: Option<String>,
    /// File of the token that says who asks, where callers are known by theirs; read with each call.
    #[arg(long, value_name = "FILE", env = "EXEAT_AGENT_TOKEN_FILE")]
    pub agent_token_file: Option<PathBuf>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For machines.
    Json,
    /// For CI systems.
    Junit,
}

/// `exeat check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The subject; `-` where the sidecar knows it.
    pub subject: Option<String>,
    /// The tool or other resource, by id.
    pub resource: Option<String>,
    /// The action.
    #[arg(long, default_value = "tools/call")]
    pub action: String,
    /// The resource's type.
    #[arg(long = "type", default_value = "tool", value_name = "TYPE")]
    pub kind: String,
    /// A property of the resource.
    #[arg(short = 'a', long = "attribute", value_name = "NAME=VALUE")]
    pub attributes: Vec<String>,
    /// A part of the context, such as `purpose=claims-triage`.
    #[arg(short = 'c', long = "context", value_name = "NAME=VALUE")]
    pub context: Vec<String>,
    /// A facet's digest as you see it.
    #[arg(long, value_name = "FACET=DIGEST")]
    pub observed: Vec<String>,
    /// Read the question from a file of JSON, or from standard input with `-`.
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with_all = ["subject", "resource"])]
    pub file: Option<PathBuf>,
    /// Name passing controls too, with every clause.
    #[arg(long)]
    pub why: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub target: Target,
}

/// `exeat hook`.
#[derive(Debug, Subcommand)]
pub enum Hook {
    /// Answer Claude Code: its event on standard input, its answer on standard output; exit code 2
    /// blocks, and whatever goes wrong ends with it.
    Claude(Asks),
    /// Answer Codex.
    Codex(Asks),
    /// Answer Gemini CLI.
    Gemini(Asks),
    /// Put the hook into an agent's settings, beside what is there.
    Install(Installs),
    /// Take it out again.
    Uninstall(Installs),
    /// Say whether it is there; exit code 3 if not.
    Status(Place),
    /// Make a token for an agent: printed once, while its digest is added to a sidecar's
    /// `agent_tokens`.
    Token(Tokens),
    /// Say what the hook that is installed would tell an agent before it uses a tool; exit code 3 if
    /// no, 6 if it blocks because nobody can say.
    Test(Tries),
}

/// Who asks, and where.
#[derive(Debug, Args)]
pub struct Asks {
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
    #[command(flatten)]
    pub target: Target,
}

/// `exeat hook token`.
#[derive(Debug, Args)]
pub struct Tokens {
    /// The agent that is governed.
    pub agent: String,
    /// The sidecar's file; made if it is not there.
    #[arg(long, value_name = "FILE")]
    pub list: PathBuf,
}

/// What is tried, and by whose hook.
#[derive(Debug, Args)]
pub struct Tries {
    #[command(flatten)]
    pub place: Place,
    /// The tool, as the agent calls it, such as `Bash` or `mcp__crm__refund`.
    pub tool: String,
    /// An argument of it.
    #[arg(short, long = "argument", value_name = "NAME=VALUE")]
    pub arguments: Vec<String>,
}

/// Which agent, and where its settings are.
#[derive(Debug, Args)]
pub struct Place {
    /// Which.
    #[arg(value_enum)]
    pub of: Agent,
    /// Its settings [those of this person].
    #[arg(long, value_name = "FILE", conflicts_with = "project")]
    pub settings: Option<PathBuf>,
    /// Those of the project in this folder.
    #[arg(long)]
    pub project: bool,
}

/// What is put into which settings.
#[derive(Debug, Args)]
pub struct Installs {
    #[command(flatten)]
    pub place: Place,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The agent that is governed; the sidecar knows it where it stands next to one.
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// What for.
    #[arg(long, value_name = "ID")]
    pub purpose: Option<String>,
    /// Leave out arguments that are too large for a question, in place of saying no.
    #[arg(long)]
    pub omit_large: bool,
    #[command(flatten)]
    pub target: Target,
}

/// A coding agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Agent {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
}

/// `exeat doctor`.
#[derive(Debug, Subcommand)]
pub enum Doctor {
    /// Prove that Claude Code's hook blocks where it fails, by having it fail.
    Claude {
        /// Its settings [those of this person].
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
    },
    /// Look at a configuration of Envoy.
    Envoy {
        /// The file.
        file: PathBuf,
    },
}

/// `exeat explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The decision's id.
    pub decision: String,
    /// A registry in place of a sidecar: a decision that an exception was considered in, as of its
    /// moment.
    #[arg(long, value_name = "HOST:PORT")]
    pub registry: Option<String>,
    /// A token for it; otherwise the session of `exeat login`, or the administrator's token.
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
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub target: Target,
}

/// `exeat decisions`.
#[derive(Debug, Args)]
pub struct Decisions {
    /// Go on as decisions are made.
    #[arg(short, long)]
    pub follow: bool,
    /// A decision log, in place of a sidecar's memory.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How many of the last to begin with.
    #[arg(short = 'n', long, default_value_t = 20)]
    pub last: u64,
    /// Denials alone.
    #[arg(long)]
    pub denied: bool,
    /// Those of one subject.
    #[arg(long, value_name = "ID")]
    pub subject: Option<String>,
    /// Those in which one control did not pass.
    #[arg(long, value_name = "ID")]
    pub control: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// The sidecar's operations address.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7431",
        env = "EXEAT_OPERATIONS"
    )]
    pub operations: String,
}

/// `exeat replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// From when on: a length of time before now, or a time.
    #[arg(long, value_name = "SPAN|TIME", default_value = "24h")]
    pub since: String,
    /// The bundle to decide from.
    #[arg(long, value_name = "DIR")]
    pub against: PathBuf,
    /// When to ask it, RFC 3339 [now].
    #[arg(long, value_name = "TIME")]
    pub now: Option<String>,
    /// The decision log; the files before it are read as well.
    #[arg(long, value_name = "FILE", env = "EXEAT_DECISION_LOG")]
    pub log: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `exeat test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Suites, or folders with suites below.
    #[arg(default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Only tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub run: Option<String>,
    /// Say which controls never failed and which scope dimensions were never missed.
    #[arg(long)]
    pub coverage: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `exeat lint`.
#[derive(Debug, Args)]
pub struct Lint {
    /// The folder.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The time to check against, RFC 3339 [now].
    #[arg(long, value_name = "TIME")]
    pub now: Option<String>,
}

/// `exeat init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The folder to make.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
}

/// `exeat schema`.
#[derive(Debug, Args)]
pub struct Schema {
    /// Control, Subject, Exception, `TierPolicy`, Domain, Person, Group, Request or Test.
    pub kind: String,
}

/// `exeat fingerprint`.
#[derive(Debug, Args)]
pub struct Fingerprint {
    /// The subject.
    pub subject: String,
    /// The folder of manifests.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
}
