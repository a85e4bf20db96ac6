//! `exeat audit`.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, json};

use crate::{
    audit::{Key, Note, hold, prove, verify},
    domain::Timestamp,
    wire::{signed::hex, sync::kind_message, v1},
};

use super::{
    args::Output,
    govern::kind_of,
    reach::{Registry, refused},
    review::plain,
    run::Exit,
    screen::{BAD, BOLD, DIM, GOOD, Screen, styled},
    tiles::{self, put},
    workflow_args::AuditCommand,
};

/// Leaves asked for at once.
const PAGE: u32 = 1_000;
/// What a receipt begins with, however it is laid out.
const RECEIPT: &str = "exeat-receipt/";
/// How often `--follow` looks.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn audit(command: AuditCommand, screen: &mut Screen) -> Result<Exit, Exit> {
    match command {
        AuditCommand::Tail {
            lines,
            follow,
            output,
            reach,
        } => {
            tail(
                Registry::connect(&reach).await?,
                lines,
                follow,
                output,
                screen,
            )
            .await
        }
        AuditCommand::Export { out, reach } => {
            export(Registry::connect(&reach).await?, out.as_deref(), screen).await
        }
        AuditCommand::Tiles { folder, reach } => {
            tiles::write(Registry::connect(&reach).await?, &folder, screen).await
        }
        AuditCommand::Prove { what, out, reach } => {
            let which = named(&what)?;
            let registry = Registry::connect(&reach).await?;
            receipt(registry, which, out.as_deref(), screen).await
        }
        AuditCommand::Checkpoint { reach } => {
            let (checkpoint, _) = checkpoint(&mut Registry::connect(&reach).await?).await?;
            screen.say(checkpoint.trim_end())?;
            Ok(Exit::Done)
        }
        AuditCommand::Usage { out, reach } => {
            records(Registry::connect(&reach).await?, out.as_deref(), screen).await
        }
        AuditCommand::Extends {
            file,
            key,
            keep,
            reach,
        } => extends(Registry::connect(&reach).await?, &file, &key, keep, screen).await,
        AuditCommand::Verify {
            file,
            key,
            since,
            usage,
        } => checked(&file, &key, &since, usage.as_deref(), screen),
        AuditCommand::Erase { person, reach } => {
            let mut registry = Registry::connect(&reach).await?;
            let request = v1::EraseRequest {
                person: person.clone(),
            };
            let answer = registry.ledger.erase(request).await;
            let entries = answer
                .map_err(|status| refused(&status))?
                .into_inner()
                .entries;
            screen.say(&format!(
                "{entries} manifests of {person} are erased; what others did and said in that name stays, and so do backups"
            ))?;
            Ok(Exit::Done)
        }
    }
}

pub(super) async fn checkpoint(registry: &mut Registry) -> Result<(String, u64), Exit> {
    let answer = registry
        .ledger
        .get_checkpoint(v1::GetCheckpointRequest {})
        .await;
    let note = answer
        .map_err(|status| refused(&status))?
        .into_inner()
        .checkpoint;
    let size = Note::read(&note).map_err(Exit::Unexpected)?.size;
    Ok((note, size))
}

async fn page(registry: &mut Registry, after: u64, last: u64) -> Result<Vec<v1::Leaf>, Exit> {
    let request = v1::ListLeavesRequest {
        after_revision: after,
        page_size: PAGE,
        last,
    };
    let answer = registry.ledger.list_leaves(request).await;
    Ok(answer
        .map_err(|status| refused(&status))?
        .into_inner()
        .leaves)
}

async fn tail(
    mut registry: Registry,
    lines: u64,
    follow: bool,
    output: Output,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let (mut after, mut last) = (0, lines.max(1));
    loop {
        let leaves = page(&mut registry, after, last).await?;
        last = 0;
        for leaf in &leaves {
            after = leaf.revision;
            if output == Output::Json {
                screen.say(&line(leaf).to_string())?;
            } else {
                told(leaf, screen)?;
            }
        }
        if !leaves.is_empty() {
            continue;
        }
        if !follow {
            return Ok(Exit::Done);
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// A change for people: who did what when, and below it what became of what.
fn told(leaf: &v1::Leaf, screen: &mut Screen) -> Result<(), Exit> {
    let time = leaf
        .text
        .lines()
        .find_map(|line| line.strip_prefix("time ")?.parse().ok());
    let time = Timestamp::from_micros(time.unwrap_or_default());
    let mut entries = leaf.entries.iter().map(|entry| {
        let read: Json = serde_json::from_str(&entry.payload).unwrap_or_default();
        (read, entry.erased)
    });
    let (first, _) = entries.next().unwrap_or_default();
    let text = |of: &Json, field: &str| {
        let said = of.get(field).and_then(Json::as_str);
        plain(said.unwrap_or_default())
    };
    screen.say(&format!(
        "{}  {time}  {}  {}",
        styled(DIM, &format!("{:>7}", leaf.revision)),
        styled(BOLD, &text(&first, "action")),
        text(&first, "principal"),
    ))?;
    for (entry, erased) in entries {
        let said = if erased {
            styled(DIM, "    (erased)")
        } else if entry.get("act").is_some() {
            styled(
                BAD,
                &format!(
                    "  {} {} {}: {}",
                    text(&entry, "act"),
                    text(&entry, "target"),
                    text(&entry, "id"),
                    text(&entry, "cause")
                ),
            )
        } else if let Some(removed) = entry.get("removed") {
            let name = format!("{} {}", text(&entry, "kind"), text(&entry, "id"));
            let revision = entry.get("revision").unwrap_or(&Json::Null);
            if removed.as_bool() == Some(true) {
                styled(BAD, &format!("  - {name}"))
            } else {
                styled(GOOD, &format!("  + {name} r{revision}"))
            }
        } else {
            // The manifest of what was named before it.
            continue;
        };
        screen.say(&format!("       {said}"))?;
    }
    Ok(())
}

fn entries(leaf: &v1::Leaf) -> Vec<Json> {
    let entry = |entry: &v1::Entry| {
        if entry.erased {
            json!({"erased": true})
        } else {
            json!({"salt": hex(&entry.salt), "payload": entry.payload})
        }
    };
    leaf.entries.iter().map(entry).collect()
}

fn line(leaf: &v1::Leaf) -> Json {
    json!({"position": leaf.position, "leaf": leaf.text, "entries": entries(leaf)})
}

/// Where lines go: standard output, or a file that is there once it is whole.
enum Sink {
    Screen(io::Stdout),
    File(BufWriter<tempfile::NamedTempFile>, PathBuf),
}

impl Sink {
    fn new(out: Option<&Path>) -> Result<Self, Exit> {
        let Some(path) = out else {
            return Ok(Self::Screen(io::stdout()));
        };
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
            .map_err(|error| Exit::Unexpected(format!("{}: {error}", path.display())))?;
        Ok(Self::File(BufWriter::new(file), path.to_owned()))
    }

    fn line(&mut self, line: &Json) -> Result<(), Exit> {
        Ok(match self {
            Self::Screen(out) => writeln!(out, "{line}"),
            Self::File(out, _) => writeln!(out, "{line}"),
        }?)
    }

    fn finish(self) -> Result<(), Exit> {
        let Self::File(out, path) = self else {
            return Ok(());
        };
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(&path)
            .map_err(|error| Exit::Unexpected(format!("{}: {}", path.display(), error.error)))?;
        Ok(())
    }
}

async fn export(
    mut registry: Registry,
    out: Option<&Path>,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let mut sink = Sink::new(out)?;
    let size = exported(&mut registry, |line| sink.line(line)).await?;
    sink.finish()?;
    let status = registry.fleet.get_status(v1::GetStatusRequest {}).await;
    let key = status
        .map_err(|status| refused(&status))?
        .into_inner()
        .key_pin;
    if let Some(out) = out {
        screen.hint(&format!(
            "{size} changes; check them with `exeat audit verify {} --key {key}`",
            out.display()
        ));
    }
    Ok(Exit::Done)
}

/// Writes every usage record.
async fn records(
    mut registry: Registry,
    out: Option<&Path>,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let mut sink = Sink::new(out)?;
    sink.line(&json!({"format": "exeat-usage/v1"}))?;
    let (mut page_token, mut count) = (String::new(), 0_usize);
    loop {
        let request = v1::ExportUsageRequest { page_token };
        let answer = registry.usage.export_usage(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        for told in answer.batches {
            let batch = told.batch.unwrap_or_default();
            count = count.saturating_add(batch.records.len());
            let records: Vec<String> = batch
                .records
                .iter()
                .map(|record| STANDARD.encode(record))
                .collect();
            let mut line = json!({"sidecar": told.sidecar, "spool": hex(&batch.spool_id), "after": batch.after, "records": records});
            if let Some(fields) = line
                .as_object_mut()
                .filter(|_| !batch.digest_before.is_empty())
            {
                fields.insert("before".into(), hex(&batch.digest_before).into());
            }
            sink.line(&line)?;
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    sink.finish()?;
    if let Some(out) = out {
        screen.hint(&format!(
            "{count} records; hold them against an export with `exeat audit verify EXPORT --usage {} --key …`",
            out.display()
        ));
    }
    Ok(Exit::Done)
}

/// Everything that was accepted, as the text of an export.
pub(super) async fn whole(registry: &mut Registry) -> Result<String, Exit> {
    let mut text = String::new();
    exported(registry, |line| {
        text.push_str(&line.to_string());
        text.push('\n');
        Ok(())
    })
    .await?;
    Ok(text)
}

/// The lines of an export; tells of how many changes.
async fn exported(
    registry: &mut Registry,
    mut take: impl FnMut(&Json) -> Result<(), Exit>,
) -> Result<u64, Exit> {
    // Signed first: what comes after it is not part of this export.
    let (note, size) = checkpoint(registry).await?;
    take(&json!({"format": "exeat-ledger/v1"}))?;
    leaves(registry, size, |leaf| take(&line(leaf))).await?;
    take(&json!({"checkpoint": note}))?;
    Ok(size)
}

/// The first `size` leaves.
pub(super) async fn leaves(
    registry: &mut Registry,
    size: u64,
    mut take: impl FnMut(&v1::Leaf) -> Result<(), Exit>,
) -> Result<(), Exit> {
    let (mut after, mut left) = (0, size);
    while left > 0 {
        let leaves = page(registry, after, 0).await?;
        let Some(last) = leaves.last() else {
            return Err(Exit::Unexpected(format!(
                "the registry signed {size} changes and has {left} fewer"
            )));
        };
        after = last.revision;
        for leaf in leaves
            .iter()
            .take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            take(leaf)?;
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}

fn named(what: &str) -> Result<v1::prove_leaf_request::Which, Exit> {
    use v1::prove_leaf_request::Which;
    if let Ok(revision) = what.parse() {
        return Ok(Which::Revision(revision));
    }
    let (kind, id) = what
        .split_once('/')
        .ok_or_else(|| Exit::Usage(format!("`{what}` is neither a revision nor KIND/ID")))?;
    Ok(Which::Object(v1::ObjectName {
        kind: kind_message(kind_of(kind)?),
        id: id.to_owned(),
    }))
}

async fn receipt(
    mut registry: Registry,
    which: v1::prove_leaf_request::Which,
    out: Option<&Path>,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let request = v1::ProveLeafRequest { which: Some(which) };
    let answer = registry.ledger.prove_leaf(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let leaf = answer.leaf.unwrap_or_default();
    let path: Vec<String> = answer
        .path
        .iter()
        .map(|step| STANDARD.encode(step))
        .collect();
    let receipt = json!({"format": "exeat-receipt/v1", "position": leaf.position, "leaf": leaf.text, "entries": entries(&leaf), "path": path, "checkpoint": answer.checkpoint});
    let mut sink = Sink::new(out)?;
    sink.line(&receipt)?;
    sink.finish()?;
    if let Some(out) = out {
        screen.hint(&format!(
            "revision {}; check it with `exeat audit verify {} --key {}`",
            leaf.revision,
            out.display(),
            answer.key_pin
        ));
    }
    Ok(Exit::Done)
}

fn trusted(keys: &[String]) -> Result<Vec<Key>, Exit> {
    let key = |key: &String| Key::parse(key).map_err(|why| Exit::Usage(format!("--key: {why}")));
    keys.iter().map(key).collect()
}

fn unread(path: &Path, why: &dyn std::fmt::Display) -> Exit {
    Exit::Invalid(format!("{}: {why}", path.display()))
}

/// A checkpoint that was kept.
fn kept(path: &Path) -> Result<Note, Exit> {
    let text = std::fs::read_to_string(path).map_err(|error| unread(path, &error))?;
    // Printed without the last line's end, or with it.
    Note::read(&format!("{}\n", text.trim_end())).map_err(|why| unread(path, &why))
}

async fn extends(
    mut registry: Registry,
    file: &Path,
    keys: &[String],
    keep: bool,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let (keys, before) = (trusted(keys)?, kept(file)?);
    let (note, size) = checkpoint(&mut registry).await?;
    let now = Note::read(&note).map_err(Exit::Unexpected)?;
    let mut path = Vec::new();
    if before.size > 0 && before.size < size {
        let request = v1::ProveExtensionRequest {
            first_size: before.size,
            second_size: size,
        };
        let answer = registry.ledger.prove_extension(request).await;
        path = answer.map_err(|status| refused(&status))?.into_inner().path;
    }
    if let Err(broken) = crate::audit::extends(&before, &now, &path, &keys) {
        screen.say(&format!(
            "{} {}: {broken}",
            styled(BAD, "broken"),
            file.display()
        ))?;
        return Ok(Exit::No);
    }
    if keep {
        put(file, note.as_bytes()).map_err(|error| unread(file, &error))?;
    }
    screen.say(&format!(
        "{} the ledger of {size} changes goes on from the {} that were signed",
        styled(GOOD, "ok"),
        before.size
    ))?;
    Ok(Exit::Done)
}

fn checked(
    file: &Path,
    keys: &[String],
    since: &[PathBuf],
    usage: Option<&Path>,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let keys = trusted(keys)?;
    let older: Vec<_> = since
        .iter()
        .map(|path| kept(path))
        .collect::<Result<_, _>>()?;
    let mut reader =
        BufReader::with_capacity(1 << 20, File::open(file).map_err(|e| unread(file, &e))?);
    let begins = io::BufRead::fill_buf(&mut reader).map_err(|e| unread(file, &e))?;
    let begins = begins.get(..200).unwrap_or(begins);
    let single = begins
        .windows(RECEIPT.len())
        .any(|part| part == RECEIPT.as_bytes());
    let outcome = if single {
        if !older.is_empty() || usage.is_some() {
            return Err(Exit::Usage(
                "--since, --usage: a receipt is of one change; give an export".into(),
            ));
        }
        let text = io::read_to_string(reader).map_err(|error| unread(file, &error))?;
        prove(&text, &keys).map(|proven| {
            format!(
                "revision {} of {} is in a ledger of {} changes, {} of its entries erased; root {}",
                proven.revision,
                Timestamp::from_micros(proven.time),
                proven.checkpoint.size,
                proven.erased,
                hex(&proven.checkpoint.root)
            )
        })
    } else {
        let verified = verify(reader, &keys, &older);
        if let (Ok(ledger), Some(path)) = (&verified, usage) {
            let records = File::open(path).map_err(|error| unread(path, &error))?;
            match hold(BufReader::with_capacity(1 << 20, records), ledger) {
                Ok(held) => screen.say(&format!(
                    "{} {} usage records of {} spools are those that the ledger speaks of, {} came after; {} never came",
                    styled(GOOD, "ok"),
                    held.records,
                    held.spools,
                    held.unsaid,
                    held.missing
                ))?,
                Err(broken) => {
                    screen.say(&format!(
                        "{} {}: {broken}",
                        styled(BAD, "broken"),
                        path.display()
                    ))?;
                    return Ok(Exit::No);
                }
            }
        }
        verified.map(|verified| {
            format!(
                "{} entries in {} changes hold, {} of them erased; root {}, epoch {}",
                verified.entries,
                verified.leaves,
                verified.erased,
                hex(&verified.checkpoint.root),
                verified.checkpoint.epoch
            )
        })
    };
    match outcome {
        Ok(said) => {
            screen.say(&format!("{} {said}", styled(GOOD, "ok")))?;
            Ok(Exit::Done)
        }
        Err(broken) => {
            screen.say(&format!(
                "{} {}: {broken}",
                styled(BAD, "broken"),
                file.display()
            ))?;
            Ok(Exit::No)
        }
    }
}
