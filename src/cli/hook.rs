//! `exeat hook`: a coding agent asks before it acts. Whatever goes wrong here is a no: exit code 2
//! blocks, and nothing else does.

use std::{io::Read as _, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::timeout;
use tonic::{Request, metadata::MetadataValue};

use crate::{
    config::{default_socket, environment},
    runtime::{channel::Place, simulated::aside},
    wire::{
        ON_BEHALF,
        harness::{Event, Harness, answer, event, nothing},
        json::strict,
    },
};

use super::{
    args::{Asks, Hook},
    client::connect_at,
    hook_settings::{installed, settings},
    hook_token::token,
    hook_try::tried,
    run::Exit,
    screen::Screen,
};

/// Largest event.
const LARGEST: u64 = 16 << 20;
/// How long an answer may take: the agents wait a second longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an agent said on our standard input.
fn said() -> Result<serde_json::Value, String> {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST).read_to_end(&mut text);
    read.map_err(|error| format!("standard input: {error}"))?;
    strict(&text).map_err(|error| format!("standard input: {error}"))
}

async fn asked(harness: Harness, args: &Asks) -> Result<serde_json::Value, String> {
    let json = aside(said).await??;
    let agent = args.agent.as_deref().unwrap_or_default();
    let purpose = args.purpose.as_deref();
    let event = event(harness, json, agent, purpose, args.omit_large);
    let (name, request) = match event.map_err(|invalid| invalid.to_string())? {
        Event::Tells => return Ok(nothing()),
        Event::Asks(name, request) => (name, request),
    };
    // A port that nobody named may be anybody's.
    let default = || Place::unnamed(&default_socket(&environment()));
    let named = args.target.socket.clone().map(Place::named);
    let place = named.unwrap_or_else(default);
    let client = connect_at(&place, args.target.agent_token_file.as_deref()).await;
    let mut client = client.map_err(|exit| exit.to_string())?;
    let mut request = Request::new(*request);
    let hook = MetadataValue::from_static("hook");
    request.metadata_mut().insert(ON_BEHALF, hook);
    let told = client.check(request).await;
    let told = told.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
    let decision = told.into_inner().decision.ok_or("the answer is empty")?;
    Ok(answer(harness, &name, &decision))
}

/// Answers one event. What is printed is one JSON object and nothing else; a failure of ours is told
/// on standard error.
async fn ask(harness: Harness, args: &Asks, screen: &mut Screen) -> Exit {
    let asked = AssertUnwindSafe(asked(harness, args)).catch_unwind();
    let told = match timeout(PATIENCE, asked).await {
        Ok(Ok(Ok(told))) => Ok(told),
        Ok(Ok(Err(why))) => Err(why),
        Ok(Err(_)) => Err("it failed; this is a fault of exeat".to_owned()),
        Err(_) => Err("there was no answer in two seconds".to_owned()),
    };
    let said = told.and_then(|told| {
        let said = screen.say(&told.to_string());
        said.map_err(|error| error.to_string())
    });
    match said {
        Ok(()) => Exit::Done,
        Err(why) => Exit::Usage(format!(
            "exeat could not say whether this may be done, so it may not: {why}"
        )),
    }
}

/// Runs `exeat hook`.
pub(super) async fn hook(hook: Hook, screen: &mut Screen) -> Result<Exit, Exit> {
    Ok(match hook {
        Hook::Claude(args) => ask(Harness::Claude, &args, screen).await,
        Hook::Codex(args) => ask(Harness::Codex, &args, screen).await,
        Hook::Gemini(args) => ask(Harness::Gemini, &args, screen).await,
        Hook::Install(args) => settings(&args, true, screen)?,
        Hook::Uninstall(args) => settings(&args, false, screen)?,
        Hook::Token(args) => token(&args, screen)?,
        Hook::Status(args) => installed(&args, screen)?,
        Hook::Test(args) => tried(&args, screen)?,
    })
}
