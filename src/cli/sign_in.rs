//! `exeat login`, `logout`, `whoami` and `account`.

use std::{
    io::{IsTerminal, Read},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};

use crate::{
    config::environment,
    runtime::http::callable,
    wire::{
        oauth::{Waits, came_back, challenge, unguessable},
        v1::{self, sign_in_service_client::SignInServiceClient},
    },
};

use super::{
    args::Output,
    govern::shown,
    loopback::Loopback,
    reach::{Registry, channel, refused},
    run::Exit,
    saved,
    screen::{BOLD, DIM, Screen, styled},
    sign_in_args::{Account, Login, Myself},
};

/// How long somebody may take at the issuer's; the registry waits no longer.
const WITHIN: Duration = Duration::from_mins(10);
/// Most bytes of a password.
const PASSWORD: u64 = 4 << 10;

/// Asks for a password without showing it, or reads it where nobody is there to ask.
///
/// # Errors
///
/// What cannot be read.
pub(super) fn password(what: &str) -> Result<String, Exit> {
    let unreadable = |error: std::io::Error| Exit::Usage(format!("{what}: {error}"));
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(format!("{what}: ")).map_err(unreadable);
    }
    let mut text = String::new();
    let stdin = std::io::stdin().lock();
    stdin
        .take(PASSWORD)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Exit::Usage(format!("{what}: standard input is empty")));
    }
    Ok(line.to_owned())
}

/// A new password, asked for twice where somebody is there to ask.
///
/// # Errors
///
/// Two that differ.
pub(super) fn new_password(identity: &str) -> Result<String, Exit> {
    let first = password(&format!("password of {identity}"))?;
    if std::io::stdin().is_terminal() && password("once more")? != first {
        return Err(Exit::Usage("the two passwords differ".into()));
    }
    Ok(first)
}

/// A person's identity, by name.
pub(super) fn person(name: &str) -> String {
    if name.starts_with("user:") {
        name.to_owned()
    } else {
        format!("user:{name}")
    }
}

pub(super) async fn login(args: Login, screen: &mut Screen) -> Result<Exit, Exit> {
    let reach = &args.reach;
    let channel = channel(&reach.registry, reach.registry_ca.as_deref()).await?;
    let client = SignInServiceClient::new(channel);
    let signed_in = match &args.user {
        Some(name) => with_password(client, person(name)).await?,
        None => with_issuer(client, &args, screen).await?,
    };
    let v1::SignedIn { token, session } = signed_in.unwrap_or_default();
    let session = session.unwrap_or_default();
    let before = saved::session(&reach.registry);
    saved::save(&reach.registry, &token)?;
    if let Some(before) = before {
        // Nobody shows it any more; where it cannot be ended now it ends by itself.
        let ca = reach.registry_ca.as_deref();
        if let Ok(mut registry) = Registry::with(&reach.registry, ca, &before).await {
            let _ = registry
                .sessions
                .end_session(v1::EndSessionRequest {})
                .await;
        }
    }
    screen.say(&format!(
        "signed in as {} ({}) until {}",
        styled(BOLD, &session.identity),
        session.role,
        shown(session.expire_time)
    ))?;
    if session.stepped_up_until.is_some() {
        let until = shown(session.stepped_up_until);
        screen.say(&format!("stepped up until {until}"))?;
    } else if args.step_up {
        screen.hint(&format!(
            "the issuer did not vouch for a step-up ({}); see `step_up` of its settings",
            session.assurance
        ));
        return Ok(Exit::No);
    }
    if reach.token.is_some() {
        screen.hint("a token is given as well (EXEAT_TOKEN or --token), and comes first");
    }
    Ok(Exit::Done)
}

/// Why somebody is not let in, as an exit.
fn not_in(status: &Status) -> Exit {
    if status.code() == Code::Unauthenticated {
        return Exit::Unexpected(status.message().to_owned());
    }
    refused(status)
}

async fn with_password(
    mut client: SignInServiceClient<Channel>,
    identity: String,
) -> Result<Option<v1::SignedIn>, Exit> {
    let password = password(&format!("password of {identity}"))?;
    let request = v1::SignInWithPasswordRequest { identity, password };
    let answer = client.sign_in_with_password(request).await;
    Ok(answer
        .map_err(|status| not_in(&status))?
        .into_inner()
        .signed_in)
}

/// Which issuer is meant: the one that is named, or the only one.
async fn issuer(
    client: &mut SignInServiceClient<Channel>,
    named: Option<&str>,
) -> Result<v1::SignInIssuer, Exit> {
    let ways = client.list_ways(v1::ListWaysRequest {}).await;
    let v1::ListWaysResponse {
        mut issuers,
        passwords,
    } = ways.map_err(|status| refused(&status))?.into_inner();
    let known: Vec<_> = issuers.iter().map(|issuer| issuer.name.clone()).collect();
    if let Some(name) = named {
        issuers.retain(|issuer| issuer.name == name);
    }
    match (issuers.pop(), issuers.is_empty(), named) {
        (Some(only), true, _) => Ok(only),
        (None, _, None) if passwords => Err(Exit::Usage(
            "people sign in with a password here: `exeat login --user NAME`".into(),
        )),
        (None, _, None) => Err(Exit::Usage(
            "nobody can sign in here yet: make an account with `exeat account add NAME --role ROLE`, or set `sign_in` of the registry".into(),
        )),
        (_, _, _) => Err(Exit::Usage(format!(
            "say with whom: `exeat login --issuer NAME`, one of {}",
            known.join(", ")
        ))),
    }
}

async fn with_issuer(
    mut client: SignInServiceClient<Channel>,
    args: &Login,
    screen: &mut Screen,
) -> Result<Option<v1::SignedIn>, Exit> {
    let issuer = issuer(&mut client, args.issuer.as_deref()).await?;
    let page = Loopback::bind()
        .await
        .map_err(|error| Exit::Unexpected(format!("no port of this machine: {error}")))?;
    let redirect_uri = page.address(&issuer.redirect_path);
    let code_verifier = unguessable().map_err(Exit::Unexpected)?;
    let state = unguessable().map_err(Exit::Unexpected)?;
    let request = v1::BeginSignInRequest {
        issuer: issuer.name,
        redirect_uri: redirect_uri.clone(),
        code_challenge: challenge(&code_verifier).map_err(|why| Exit::Unexpected(why.into()))?,
        state: state.clone(),
        step_up: args.step_up,
    };
    let begun = client.begin_sign_in(request).await;
    let begun = begun.map_err(|status| refused(&status))?.into_inner();
    // Nothing but a page is opened, whatever the registry was told.
    let url = &begun.authorization_url;
    callable(url).map_err(|why| Exit::Unexpected(format!("where people sign in {why}")))?;
    if args.no_browser || !opened(url) {
        screen.hint("open this address in a browser of this machine:");
    } else {
        screen.hint("a browser was opened; if it was not, open this address:");
    }
    screen.say(&begun.authorization_url)?;
    let waits = Waits {
        path: &issuer.redirect_path,
        state: &state,
        issuer: &begun.issuer_url,
        says_issuer: begun.says_issuer,
    };
    let waited = timeout(WITHIN, page.wait(|target| came_back(target, waits))).await;
    let code = waited
        .map_err(|_| Exit::Unreachable("nobody signed in within ten minutes".into()))??
        .map_err(|why| Exit::Unexpected(format!("{} let nobody in: {why}", begun.issuer)))?;
    let request = v1::FinishSignInRequest {
        issuer: begun.issuer,
        redirect_uri,
        code,
        code_verifier,
        nonce: begun.nonce,
    };
    let finished = client.finish_sign_in(request).await;
    Ok(finished
        .map_err(|status| not_in(&status))?
        .into_inner()
        .signed_in)
}

/// Whether a browser was started for an address.
fn opened(address: &str) -> bool {
    let environment = environment();
    let named = environment.iter().find(|(name, _)| name == "BROWSER");
    let named = named.map(|(_, value)| value.as_str());
    let programs = named.into_iter().chain(["xdg-open", "open"]);
    programs
        .filter(|program| !program.is_empty())
        .any(|program| {
            Command::new(program)
                .arg(address)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .is_ok()
        })
}

pub(super) async fn logout(args: Myself, screen: &mut Screen) -> Result<Exit, Exit> {
    let Some(token) = saved::session(&args.reach.registry) else {
        screen.say(&format!("nobody is signed in at {}", args.reach.registry))?;
        return Ok(Exit::Done);
    };
    let reach = &args.reach;
    let ended = async {
        let ca = reach.registry_ca.as_deref();
        let mut registry = Registry::with(&reach.registry, ca, &token).await?;
        let ended = registry
            .sessions
            .end_session(v1::EndSessionRequest {})
            .await;
        match ended {
            // It is over already.
            Err(status) if status.code() == Code::Unauthenticated => Ok(()),
            ended => ended.map(drop).map_err(|status| refused(&status)),
        }
    };
    // It is forgotten here, whatever the registry says.
    let ended: Result<(), Exit> = ended.await;
    saved::forget(&reach.registry)?;
    ended?;
    screen.say("signed out")?;
    Ok(Exit::Done)
}

pub(super) async fn whoami(args: Myself, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&args.reach).await?;
    let answer = registry
        .sessions
        .get_session(v1::GetSessionRequest {})
        .await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let session = answer.session.unwrap_or_default();
    if args.output == Output::Json {
        screen.say(&session_json(&session).to_string())?;
        return Ok(Exit::Done);
    }
    screen.say(&format!(
        "{} ({})",
        styled(BOLD, &session.identity),
        session.role
    ))?;
    if session.expire_time.is_none() {
        screen.say("  by a token that was granted, or a certificate")?;
        return Ok(Exit::Done);
    }
    screen.say(&format!("  signed in   {}", shown(session.signed_in_time)))?;
    screen.say(&format!("  until       {}", shown(session.expire_time)))?;
    screen.say(&format!("  how         {}", session.assurance))?;
    screen.say(&format!(
        "  stepped up  {}",
        match session.stepped_up_until {
            Some(until) => format!("until {}", shown(Some(until))),
            None => "no".into(),
        }
    ))?;
    Ok(Exit::Done)
}

fn session_json(session: &v1::Session) -> serde_json::Value {
    let time = |stamp: Option<prost_types::Timestamp>| stamp.map(|stamp| shown(Some(stamp)));
    json!({
        "apiVersion": "exeat/v1",
        "identity": session.identity,
        "role": session.role,
        "issuer": session.issuer,
        "assurance": session.assurance,
        "steppedUpUntil": time(session.stepped_up_until),
        "signedInTime": time(session.signed_in_time),
        "expireTime": time(session.expire_time),
    })
}

pub(super) async fn account(command: Account, screen: &mut Screen) -> Result<Exit, Exit> {
    match command {
        Account::Add { name, role, reach } => {
            let mut registry = Registry::connect(&reach).await?;
            let identity = person(&name);
            let password = new_password(&identity)?;
            let request = v1::PutAccountRequest {
                identity,
                role,
                password,
            };
            let answer = registry.sessions.put_account(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            let account = answer.account.unwrap_or_default();
            screen.say(&format!(
                "{} may sign in as {}",
                account.identity, account.role
            ))?;
            let name = account.identity.trim_start_matches("user:");
            screen.hint(&format!("they do with `exeat login --user {name}`"));
        }
        Account::Remove { name, reach } => {
            let mut registry = Registry::connect(&reach).await?;
            let identity = person(&name);
            let request = v1::RemoveAccountRequest {
                identity: identity.clone(),
            };
            let answer = registry.sessions.remove_account(request).await;
            answer.map_err(|status| refused(&status))?;
            screen.say(&format!("{identity} is forgotten, and signed out"))?;
        }
        Account::List(Myself { output, reach }) => {
            let mut registry = Registry::connect(&reach).await?;
            let answer = registry
                .sessions
                .list_accounts(v1::ListAccountsRequest {})
                .await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            for account in answer.accounts {
                screen.say(&if output == Output::Json {
                    json!({"apiVersion": "exeat/v1", "identity": account.identity, "role": account.role, "issuer": account.issuer, "subject": account.subject, "createTime": shown(account.create_time)}).to_string()
                } else if account.issuer.is_empty() {
                    format!("{:<40} {:<9} password", styled(BOLD, &account.identity), account.role)
                } else {
                    format!("{:<40} {:<9} {} {}", styled(BOLD, &account.identity), "-", account.issuer, styled(DIM, &account.subject))
                })?;
            }
        }
        Account::Sessions(Myself { output, reach }) => {
            let mut registry = Registry::connect(&reach).await?;
            let answer = registry
                .sessions
                .list_sessions(v1::ListSessionsRequest {})
                .await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            for session in answer.sessions {
                screen.say(&if output == Output::Json {
                    session_json(&session).to_string()
                } else {
                    format!(
                        "{:<40} {:<9} {} to {}  {}",
                        styled(BOLD, &session.identity),
                        session.role,
                        shown(session.signed_in_time),
                        shown(session.expire_time),
                        styled(DIM, &session.assurance)
                    )
                })?;
            }
        }
    }
    Ok(Exit::Done)
}
