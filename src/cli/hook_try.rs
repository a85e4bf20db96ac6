//! Hooks as they are installed, tried out.

use std::process::{Command, Stdio};

use serde_json::{Map, Value as Json, json};

use super::{
    args::{Place, Tries},
    ask::pairs,
    hook_settings::{path_of, read},
    run::Exit,
    screen::{BAD, GOOD, Screen, styled},
};

/// What Claude Code says before it uses a tool that nobody has.
const SAID: &str = r#"{"hook_event_name":"PreToolUse","tool_name":"exeat-doctor","tool_input":{}}"#;

/// Runs a hook as it is installed, with the sidecar at `socket` in place of its own.
fn ran(entry: &Json, said: &str, socket: Option<&str>) -> Result<(Option<i32>, String), Exit> {
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    let args = entry
        .get("args")
        .and_then(Json::as_array)
        .into_iter()
        .flatten();
    let mut args: Vec<String> = args.map(text).collect();
    if let Some(socket) = socket {
        if let Some(at) = args.iter().position(|arg| arg == "--socket") {
            args.drain(at..args.len().min(at.saturating_add(2)));
        }
        args.extend(["--socket".to_owned(), socket.to_owned()]);
    }
    let failed =
        |error: std::io::Error| Exit::Unexpected(format!("the hook does not run: {error}"));
    let command = text(entry.get("command").unwrap_or(&Json::Null));
    let mut run = if entry.get("args").is_some() {
        Command::new(command)
    } else {
        // Those who have no other form run a line of the shell.
        args = vec!["-c".to_owned(), command];
        Command::new("sh")
    };
    let mut process = run
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut to) = process.stdin.take() {
        // Whoever does not read says so with its exit code.
        drop(std::io::Write::write_all(&mut to, said.as_bytes()));
    }
    let done = process.wait_with_output().map_err(failed)?;
    let said = if done.stdout.is_empty() {
        done.stderr
    } else {
        done.stdout
    };
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Ok((done.status.code(), said))
}

/// Proves that the hook of Claude Code blocks where it fails, by having it fail.
pub(super) fn proved(args: &Place, screen: &mut Screen) -> Result<Exit, Exit> {
    let path = path_of(args)?;
    let (_, settings) = read(&path)?;
    let settings = Json::Object(settings);
    let Some(entry) = args.of.entry_of(&settings) else {
        let what = format!(
            "{}: there is no hook; `exeat hook install claude`",
            path.display()
        );
        screen.say(&styled(BAD, &format!("✗ {what}")))?;
        return Ok(Exit::No);
    };
    let mut well = true;
    let mut say = |fine: bool, what: &str| {
        well &= fine;
        let (mark, style) = if fine { ("✓", GOOD) } else { ("✗", BAD) };
        screen.say(&format!("{} {what}", styled(style, mark)))
    };
    let events = args.of.asked(&settings);
    let all = events.len() == args.of.events().len();
    say(
        all,
        "every tool and every change of the model is asked about",
    )?;
    let blocks = entry.get("onFailure").and_then(Json::as_str) == Some("block");
    say(blocks, "a hook that does not run blocks (onFailure: block)")?;
    let waits = entry
        .get("timeout")
        .and_then(Json::as_u64)
        .is_some_and(|waits| waits <= 30);
    say(
        waits,
        "nobody waits for it longer than half a minute (timeout)",
    )?;
    let (code, said) = ran(entry, SAID, Some("/nonexistent/exeat.sock"))?;
    say(
        code == Some(2),
        "without a sidecar it ends with 2, which blocks",
    )?;
    if code != Some(2) {
        say(false, &format!("it ended with {code:?}: {said}"))?;
    }
    let (code, said) = ran(entry, SAID, None)?;
    say(
        code == Some(0),
        &format!("with its sidecar it answers: {said}"),
    )?;
    Ok(if well { Exit::Done } else { Exit::No })
}

/// Says what an agent would be told before it uses a tool: by the hook that is installed, and not by
/// what it might be.
pub(super) fn tried(args: &Tries, screen: &mut Screen) -> Result<Exit, Exit> {
    let path = path_of(&args.place)?;
    let (_, settings) = read(&path)?;
    let settings = Json::Object(settings);
    let of = args.place.of;
    let Some(entry) = of.entry_of(&settings) else {
        let name = of.name();
        return Err(Exit::Usage(format!(
            "{}: there is no hook to try; `exeat hook install {name}`",
            path.display()
        )));
    };
    let event = of.events().first().map_or("", |(event, _)| event);
    let arguments: Map<String, Json> = pairs(&args.arguments)?;
    let said = json!({"hook_event_name": event, "tool_name": args.tool, "tool_input": arguments});
    let (code, answer) = ran(entry, &said.to_string(), None)?;
    if code != Some(0) {
        return Err(Exit::Unreachable(format!("the hook blocks: {answer}")));
    }
    let told: Json = serde_json::from_str(&answer)
        .map_err(|error| Exit::Unexpected(format!("the hook says `{answer}`: {error}")))?;
    let output = told.get("hookSpecificOutput").unwrap_or(&told);
    let text = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| output.get(*name));
        found.and_then(Json::as_str)
    };
    if text(["permissionDecision", "decision"]) == Some("deny") {
        let why = text(["permissionDecisionReason", "reason"]).unwrap_or_default();
        screen.say(&format!("{} {}: {why}", styled(BAD, "✗"), args.tool))?;
        return Ok(Exit::No);
    }
    let by = told.get("systemMessage").and_then(Json::as_str);
    let what = by.unwrap_or("exeat has nothing against it");
    screen.say(&format!("{} {}: {what}", styled(GOOD, "✓"), args.tool))?;
    Ok(Exit::Done)
}
