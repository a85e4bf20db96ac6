//! `exeat mcp`.

use crate::{
    config::{default_socket, environment},
    proxy::{At, Error, Listening, Settings, tools, wrap},
    runtime::channel::Place,
    telemetry,
    wire::relay::Relay,
};

use super::{
    mcp_args::{Mcp, Pin, Proxy, Through},
    run::Exit,
    screen::Screen,
    serve::stop,
};

impl From<Error> for Exit {
    fn from(error: Error) -> Self {
        match error {
            Error::Usage(why) => Self::Usage(why),
            Error::Files(why) => Self::Invalid(why),
            Error::Unreachable(why) => Self::Unreachable(why),
            Error::Failed(why) => Self::Unexpected(why),
        }
    }
}

impl From<Through> for Settings {
    fn from(through: Through) -> Self {
        let Through {
            server,
            agent,
            purpose,
            omit_large,
            approval_url,
            list,
            target,
        } = through;
        // A port that nobody named may be anybody's.
        let default = || Place::unnamed(&default_socket(&environment()));
        Self {
            relay: Relay {
                server,
                agent: agent.unwrap_or_default(),
                purpose,
                omit_large,
                approval: approval_url,
            },
            shows: list.into(),
            socket: target.socket.map_or_else(default, Place::named),
            token_file: target.agent_token_file,
        }
    }
}

/// Runs `exeat mcp`.
pub(super) async fn mcp(command: Mcp, screen: &mut Screen) -> Result<Exit, Exit> {
    // On standard error: of standard output every line is a message.
    telemetry::start(false, "info").map_err(Exit::Unexpected)?;
    match command {
        Mcp::Wrap(args) => wrap(args.through.into(), &args.command, stop()?).await?,
        Mcp::Proxy(args) => proxy(args, screen).await?,
        Mcp::Pin(args) => pin(&args, screen).await?,
    }
    Ok(Exit::Done)
}

async fn proxy(args: Proxy, screen: &mut Screen) -> Result<(), Exit> {
    let server = args.through.server.clone();
    let upstream = (args.upstream.as_str(), args.ca.as_deref());
    let listening = Listening::bind(args.through.into(), &args.listen, upstream).await?;
    screen.hint(&format!(
        "{server} is at http://{}/mcp",
        listening.address()?
    ));
    Ok(listening.run(stop()?).await?)
}

async fn pin(args: &Pin, screen: &mut Screen) -> Result<(), Exit> {
    let at = match &args.upstream {
        Some(address) => At::Url(address, args.ca.as_deref()),
        None => At::Command(&args.command),
    };
    let tools = tools(&args.server, at).await?;
    if tools.is_empty() {
        return Err(Exit::No);
    }
    screen.say("tools:")?;
    // Flow YAML takes the texts of JSON.
    let text = |text: &str| serde_json::Value::from(text).to_string();
    for (name, digest) in tools {
        let (server, name) = (text(&args.server), text(&name));
        screen.say(&format!(
            "  - {{server: {server}, name: {name}, definition_digest: \"{digest}\", permissions: [], approved: false}}"
        ))?;
    }
    Ok(())
}
