//! `exeat decisions`: recent decisions, from the operations port or from a decision log.

use std::{
    collections::VecDeque, fs::Metadata, io::ErrorKind, os::unix::fs::MetadataExt as _, path::Path,
    time::Duration,
};

use futures_util::FutureExt as _;
use serde_json::Value as Json;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::sleep,
};

use crate::sidecar::earlier_log;

use super::{
    args::{Decisions, Output},
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
};

/// How often a log is looked at for more.
const LOOK: Duration = Duration::from_millis(200);
/// Told in between: files were rotated away before they were read.
const GONE: &str = r#"{"apiVersion":"exeat/v1","rotated_away":true}"#;

pub(super) async fn decisions(args: Decisions, screen: &mut Screen) -> Result<Exit, Exit> {
    if let Some(log) = &args.log {
        return from_log(&args, log, screen).await;
    }
    let unreachable = |why: &dyn std::fmt::Display| {
        Exit::Unreachable(format!(
            "no sidecar's operations port at {} ({why}); say where it is with --operations",
            args.operations
        ))
    };
    let mut stream = TcpStream::connect(&args.operations)
        .await
        .map_err(|error| unreachable(&error))?;
    // HTTP/1.0 closes where the answer ends, which is all a stream of lines needs.
    let request = format!(
        "GET /decisions?last={}&follow={} HTTP/1.0\r\nHost: localhost\r\n\r\n",
        args.last, args.follow
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| unreachable(&error))?;
    let mut lines = BufReader::new(stream).lines();
    let status = lines
        .next_line()
        .await
        .map_err(|error| unreachable(&error))?
        .unwrap_or_default();
    if !status.contains(" 200") {
        return Err(unreachable(&status));
    }
    while lines
        .next_line()
        .await?
        .is_some_and(|header| !header.is_empty())
    {}
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
        let Some(line) = line else {
            return Ok(Exit::Done);
        };
        show(&args, &line, screen)?;
    }
}

/// Shows a line, if it is among those that are wanted.
fn show(args: &Decisions, line: &str, screen: &mut Screen) -> Result<(), Exit> {
    let Some(decision) = read(args, line) else {
        return Ok(());
    };
    match args.output {
        Output::Json => screen.say(line)?,
        Output::Table => screen.say(&row(&decision))?,
        Output::Junit => return Err(Exit::Usage("junit is for `exeat test`".into())),
    }
    Ok(())
}

fn read(args: &Decisions, line: &str) -> Option<Json> {
    let decision = serde_json::from_str::<Json>(line).ok()?;
    wanted(args, &decision).then_some(decision)
}

/// The last so many of a decision log, and then what is added to it.
async fn from_log(args: &Decisions, log: &Path, screen: &mut Screen) -> Result<Exit, Exit> {
    let unreadable = |error: std::io::Error| Exit::Invalid(format!("{}: {error}", log.display()));
    let mut lines = BufReader::new(File::open(log).await.map_err(unreadable)?);
    let most = usize::try_from(args.last).unwrap_or(usize::MAX);
    let mut last: VecDeque<String> = VecDeque::new();
    // Bytes: what a crash cut short may end within a letter.
    let mut line = Vec::new();
    let text = |line: &[u8]| String::from_utf8_lossy(line).trim_end().to_owned();
    while lines
        .read_until(b'\n', &mut line)
        .await
        .map_err(unreadable)?
        > 0
        && line.ends_with(b"\n")
    {
        let whole = text(&line);
        if read(args, &whole).is_some() {
            last.push_back(whole);
        }
        while last.len() > most {
            last.pop_front();
        }
        line.clear();
    }
    for line in last {
        show(args, &line, screen)?;
    }
    if !args.follow {
        return Ok(Exit::Done);
    }
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut rotated = false;
    // Files that came after the one that is read, oldest first.
    let mut next: VecDeque<File> = VecDeque::new();
    loop {
        if interrupted.as_mut().now_or_never().is_some() {
            return Ok(Exit::Interrupted);
        }
        // What is there of a line is kept until the rest of it comes.
        if lines
            .read_until(b'\n', &mut line)
            .await
            .map_err(unreadable)?
            > 0
        {
            if line.ends_with(b"\n") {
                show(args, &text(&line), screen)?;
                line.clear();
            }
            continue;
        }
        // Read to its end once more after it was seen to be rotated: then nothing is added to it.
        if let Some(file) = rotated.then(|| next.pop_front()).flatten() {
            rotated = !next.is_empty();
            lines = BufReader::new(file);
            line.clear();
            continue;
        }
        let read = lines.get_ref().metadata().await.map_err(unreadable)?;
        let after = after(log, &read).await.map_err(unreadable)?;
        if let Some(after) = after {
            rotated = !after.files.is_empty();
            next = after.files;
            if after.gone {
                screen.say(&match args.output {
                    Output::Json => GONE.to_owned(),
                    Output::Table | Output::Junit => styled(
                        DIM,
                        "… files may have been rotated away before they were read",
                    ),
                })?;
            }
        }
        if rotated {
            continue;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            _ = interrupted.as_mut() => return Ok(Exit::Interrupted),
        }
    }
}

/// The files after one that was rotated.
struct After {
    files: VecDeque<File>,
    /// Whether there may have been others, which are gone.
    gone: bool,
}

/// The files after the one that is `read`, oldest first; nothing while it is the present one, or
/// while it is just being replaced.
async fn after(log: &Path, read: &Metadata) -> std::io::Result<Option<After>> {
    let mut files: VecDeque<(File, Metadata)> = VecDeque::new();
    let mut gone = true;
    // The present one is opened first: what is renamed meanwhile is met twice, and never missed.
    for n in 0.. {
        let path = if n == 0 {
            log.to_owned()
        } else {
            earlier_log(log, n)
        };
        let file = match File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && n == 0 => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let found = file.metadata().await?;
        if found.ino() == read.ino() {
            if n == 0 {
                return Ok(None);
            }
            gone = false;
            break;
        }
        if files.iter().all(|(_, known)| known.ino() != found.ino()) {
            files.push_front((file, found));
        }
    }
    if gone {
        // Those that were there before it are not shown again.
        let since = read.modified()?;
        let present = files.pop_back();
        files.retain(|(_, found)| found.modified().is_ok_and(|time| time > since));
        files.extend(present);
    }
    let files = files.into_iter().map(|(file, _)| file).collect();
    Ok(Some(After { files, gone }))
}

fn text<'a>(decision: &'a Json, name: &str) -> &'a str {
    decision
        .get(name)
        .and_then(Json::as_str)
        .unwrap_or_default()
}

fn list<'a>(decision: &'a Json, name: &str) -> Vec<&'a str> {
    decision
        .get(name)
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect()
}

fn wanted(args: &Decisions, decision: &Json) -> bool {
    (!args.denied || text(decision, "outcome") == "deny")
        && args
            .subject
            .as_deref()
            .is_none_or(|subject| text(decision, "subject") == subject)
        && args
            .control
            .as_deref()
            .is_none_or(|control| list(decision, "controls").contains(&control))
}

fn row(decision: &Json) -> String {
    if let Some(missed) = decision.get("missed").and_then(Json::as_u64) {
        return styled(
            DIM,
            &format!("… {missed} decisions were made too fast to be shown"),
        );
    }
    let outcome = text(decision, "outcome");
    let style = if outcome == "deny" { BAD } else { GOOD };
    let grounds = match outcome {
        "allow" => String::new(),
        _ => format!(
            "  {}",
            list(decision, "controls")
                .into_iter()
                .chain(list(decision, "reasons"))
                .collect::<Vec<_>>()
                .join(" ")
        ),
    };
    format!(
        "{}  {}  {}  {} {}{grounds}  {}",
        text(decision, "time"),
        styled(style, &format!("{outcome:<18}")),
        text(decision, "subject"),
        text(decision, "action"),
        text(decision, "resource"),
        styled(DIM, text(decision, "id")),
    )
}
