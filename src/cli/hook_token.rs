//! `exeat hook token`: tokens by which a sidecar knows agents.

use std::{
    fs::OpenOptions,
    io::{Read as _, Write as _},
};

use crate::{
    domain::SubjectId,
    wire::signed::{hex, random, sha256},
};

use super::{args::Tokens, run::Exit, screen::Screen};

/// Makes a token for an agent: nobody but whoever reads it now knows it, and the sidecar's file says
/// only what it comes to.
pub(super) fn token(args: &Tokens, screen: &mut Screen) -> Result<Exit, Exit> {
    let agent = SubjectId::parse(&args.agent).map_err(|error| Exit::Usage(error.to_string()))?;
    let token = format!(
        "exeat_agent_{}",
        hex(&random::<32>().map_err(Exit::Unexpected)?)
    );
    let at = |error: std::io::Error| Exit::Usage(format!("{}: {error}", args.list.display()));
    let mut list = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(&args.list)
        .map_err(at)?;
    let mut known = String::new();
    list.read_to_string(&mut known).map_err(at)?;
    // A line that somebody left without its end is not ours to go on with.
    let end = if known.is_empty() || known.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let line = format!("{end}sha256:{} {agent}\n", hex(&sha256(token.as_bytes())));
    list.write_all(line.as_bytes()).map_err(at)?;
    list.sync_all().map_err(at)?;
    screen.say(&token)?;
    screen.hint("this is the only time it is shown: keep it in a file that the agent alone can read, and say where with --agent-token-file");
    Ok(Exit::Done)
}
