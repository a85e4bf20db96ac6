//! One arm a command; what went wrong becomes an exit code.

use std::fmt;

use crate::runtime::clock::Clock;

use super::{
    args::{Cli, Colour, Command},
    ask, audit, decisions, demo, dev, doctor, evidence, exceptions, findings, fleet, govern, hook,
    incidents, init, justify, lint, mcp, notifications, proposals, queue, replay, report, rules,
    screen::Screen,
    serve, sign_in, takeback, test,
};

/// How a command ended, with the exit code it ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or allowed.
    Done,
    /// 1: something unexpected.
    Unexpected(String),
    /// 2: the command was not understood.
    Usage(String),
    /// 3: the answer is no: denied, tests failed, findings.
    No,
    /// 4: denied, but an exception can be requested.
    Requestable,
    /// 6: the sidecar cannot be reached, or has nothing to decide from.
    Unreachable(String),
    /// 7: input files that cannot be used.
    Invalid(String),
    /// 130: stopped by Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unexpected(_) => 1,
            Self::Usage(_) => 2,
            Self::No => 3,
            Self::Requestable => 4,
            Self::Unreachable(_) => 6,
            Self::Invalid(_) => 7,
            Self::Interrupted => 130,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected(why)
            | Self::Usage(why)
            | Self::Unreachable(why)
            | Self::Invalid(why) => f.write_str(why),
            Self::Done | Self::No | Self::Requestable | Self::Interrupted => Ok(()),
        }
    }
}

impl From<std::io::Error> for Exit {
    fn from(error: std::io::Error) -> Self {
        // Whoever read our output has gone; that is no failure of ours.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Done
        } else {
            Self::Unexpected(error.to_string())
        }
    }
}

/// Runs a command to its end.
pub async fn run(cli: Cli) -> Exit {
    let mut screen = Screen::new(match cli.color {
        Colour::Auto => anstream::ColorChoice::Auto,
        Colour::Always => anstream::ColorChoice::Always,
        Colour::Never => anstream::ColorChoice::Never,
    });
    let clock = Clock::system();
    let exit = match cli.command {
        Command::Demo => Box::pin(demo::demo(&mut screen)).await,
        Command::Sidecar(args) => serve::sidecar(*args, clock).await,
        Command::Registry(args) => serve::registry(*args, clock, &mut screen).await,
        Command::Dev(args) => Box::pin(dev::dev(args, clock, &mut screen)).await,
        Command::Apply(args) => govern::apply(args, false, &mut screen).await,
        Command::Diff(args) => govern::apply(args, true, &mut screen).await,
        Command::Get(args) => govern::get(args, &mut screen).await,
        Command::Show(args) => govern::show(args, &mut screen).await,
        Command::History(args) => govern::history(args, &mut screen).await,
        Command::Exception(command) => {
            Box::pin(exceptions::exception(command, &clock, &mut screen)).await
        }
        Command::Evidence(command) => evidence::evidence(command, &mut screen).await,
        Command::Tier(args) => rules::tier(args, &mut screen).await,
        Command::Domain(command) => rules::domain(command, &mut screen).await,
        Command::Revoke(args) => takeback::revoke(args, &mut screen).await,
        Command::Agent(command) => Box::pin(takeback::agent(command, &mut screen)).await,
        Command::Queue(told) => queue::queue(&told, &mut screen).await,
        Command::Findings(args) => findings::findings(args, &clock, &mut screen).await,
        Command::Control(command) => Box::pin(proposals::control(command, &mut screen)).await,
        Command::Incident(command) => incidents::incident(command, &mut screen).await,
        Command::Notification(command) => notifications::notification(command, &mut screen).await,
        Command::Report(args) => report::report(args, &mut screen).await,
        Command::Audit(command) => audit::audit(command, &mut screen).await,
        Command::Login(args) => sign_in::login(args, &mut screen).await,
        Command::Logout(args) => sign_in::logout(args, &mut screen).await,
        Command::Whoami(args) => sign_in::whoami(args, &mut screen).await,
        Command::Account(command) => sign_in::account(command, &mut screen).await,
        Command::Access(command) => fleet::access(command, &mut screen).await,
        Command::Sidecars(args) => fleet::sidecars(args, &mut screen).await,
        Command::Status(args) => fleet::status(args, &mut screen).await,
        Command::Check(args) => ask::check(*args, &mut screen).await,
        Command::Explain(args) => match args.registry.clone() {
            Some(registry) => justify::justify(*args, registry, &mut screen).await,
            None => ask::explain(*args, &mut screen).await,
        },
        Command::Decisions(args) => decisions::decisions(args, &mut screen).await,
        Command::Replay(args) => replay::replay(&args, &clock, &mut screen),
        Command::Test(args) => test::test(&args, &mut screen),
        Command::Hook(args) => hook::hook(args, &mut screen).await,
        Command::Mcp(args) => Box::pin(mcp::mcp(args, &mut screen)).await,
        Command::Doctor(args) => doctor::doctor(&args, &mut screen),
        Command::Lint(args) => lint::lint(&args, &clock, &mut screen),
        Command::Init(args) => init::init(&args, &clock, &mut screen),
        Command::Schema(args) => lint::schema(&args, &mut screen),
        Command::Fingerprint(args) => lint::fingerprint(&args, &mut screen),
    };
    let exit = exit.unwrap_or_else(|exit| exit);
    let said = exit.to_string();
    if !said.is_empty() {
        screen.complain(&said);
    }
    exit
}
