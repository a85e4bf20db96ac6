//! A whole ledger, as `exeat audit export` writes it.

use std::{
    borrow::Cow,
    io::{BufRead, Read as _},
};

use serde::Deserialize;

use super::{
    Broken, Key, Note,
    note::hex,
    tree::{Growing, Sum, leaf, sum},
};

/// What the first line says.
pub(super) const FORMAT: &str = "exeat-ledger/v1";

/// A line of an export: the format, a leaf or the checkpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    position: Option<u64>,
    #[serde(borrow)]
    leaf: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entries: Option<Vec<Entry<'a>>>,
    #[serde(borrow)]
    format: Option<Cow<'a, str>>,
    #[serde(borrow)]
    checkpoint: Option<Cow<'a, str>>,
}

/// Longest line, in bytes.
const LONGEST: u64 = 512 << 20;

/// What a commitment is of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry<'a> {
    #[serde(borrow, default)]
    salt: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Cow<'a, str>,
    #[serde(default)]
    erased: bool,
}

/// What a ledger that holds comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many leaves there are.
    pub leaves: u64,
    /// How many entries they commit to.
    pub entries: u64,
    /// How many of those were erased: only their commitments are left.
    pub erased: u64,
    /// What it says of usage records: of a spool, up to which record, and the chain there.
    pub usage: Vec<String>,
    /// What is signed about all of it.
    pub checkpoint: Note,
}

/// What a leaf says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said<'a> {
    pub(super) log: &'a str,
    pub(super) epoch: u64,
    pub(super) revision: u64,
    pub(super) time: i64,
    pub(super) action: String,
    /// What a later change is to say of each entry that was erased.
    pub(super) erased: Vec<String>,
}

/// Reads a leaf and holds its entries against its commitments.
pub(super) fn opened<'a>(text: &'a str, entries: &[Entry<'_>]) -> Result<Said<'a>, String> {
    let mut lines = text.lines();
    if lines.next() != Some("exeat/leaf/v1") {
        return Err("is no leaf".into());
    }
    let mut field = |name: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(name));
        line.and_then(|line| line.strip_prefix(' '))
            .ok_or_else(|| format!("does not say its {name}"))
    };
    let log = field("log")?;
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    let (epoch, revision) = (number(field("epoch")?)?, number(field("revision")?)?);
    let time = field("time")?;
    let time = time.parse().map_err(|_| format!("`{time}` is no time"))?;
    let mut entries = entries.iter().enumerate();
    let mut about = None;
    let mut erased = Vec::new();
    let mut action = String::new();
    for line in lines {
        let said: Option<Sum> = line.strip_prefix("entry ").and_then(hex);
        let said = said.ok_or_else(|| format!("`{line}` is no commitment"))?;
        let (at, entry) = entries.next().ok_or("commits to more than is shown")?;
        let named: Option<String> = about.take();
        if entry.erased {
            if !(entry.salt.is_empty() && entry.payload.is_empty()) {
                return Err(format!(
                    "entry {at} is erased, and something is shown of it"
                ));
            }
            // Nothing but who somebody was is ever erased, and a later change says so.
            let person = named.ok_or_else(|| format!("entry {at} is of what is never erased"))?;
            erased.push(format!("erase Person {person}"));
            continue;
        }
        let salt: [u8; 16] =
            hex(&entry.salt).ok_or_else(|| format!("entry {at} has no salt of sixteen bytes"))?;
        if sum(&[b"exeat/entry/v1\n", &salt, entry.payload.as_bytes()]) != said {
            return Err(format!("entry {at} is not what was committed to"));
        }
        if at == 0 {
            let who: Who = serde_json::from_str(&entry.payload)
                .map_err(|_| "does not say who did what".to_owned())?;
            action = who.action;
        } else if named.is_none()
            && entry.payload.starts_with("{\"kind\":\"Person\",")
            && let Ok(person) = serde_json::from_str::<About>(&entry.payload)
        {
            about = Some(person.id);
        }
    }
    match entries.next() {
        Some((at, _)) => Err(format!("does not commit to entry {at}")),
        None => Ok(Said {
            log,
            epoch,
            revision,
            time,
            action,
            erased,
        }),
    }
}

/// Who did what.
#[derive(Debug, Deserialize)]
struct Who {
    action: String,
}

/// What an edit is about.
#[derive(Debug, Deserialize)]
struct About {
    id: String,
}

/// A leaf that was read, for comparison with the next.
struct Before {
    epoch: u64,
    revision: u64,
    time: i64,
}

/// Reads an export and checks all of it: that every entry is what its leaf commits to, that the
/// leaves are in order and of one log, that the root over them is the one that is signed with one
/// of `keys`, and that the ledger grew from each of the `older` checkpoints (L4).
///
/// # Errors
///
/// The first thing that does not hold.
pub fn verify(mut file: impl BufRead, keys: &[Key], older: &[Note]) -> Result<Verified, Broken> {
    let mut tree = Growing::default();
    let (mut leaves, mut shown, mut erased) = (0_u64, 0_u64, 0_u64);
    let mut before: Option<Before> = None;
    let mut log = String::new();
    let mut checkpoint = None;
    let (mut text, mut at) = (String::new(), 0_u64);
    let mut pending: Vec<&Note> = older.iter().filter(|note| note.size > 0).collect();
    for note in older {
        note.signed_by(keys)?;
        if note.size == 0 && note.root != tree.root() {
            let what = "a checkpoint of nothing is of something".into();
            return Err(Broken { line: 0, what });
        }
    }
    let mut usage = Vec::new();
    let mut unsaid = std::collections::BTreeMap::new();
    loop {
        text.clear();
        at = at.saturating_add(1);
        let broken = |what: String| Broken { line: at, what };
        let read = file
            .by_ref()
            .take(LONGEST)
            .read_line(&mut text)
            .map_err(|error| broken(error.to_string()))?;
        if read == 0 {
            break;
        }
        if !text.ends_with('\n') {
            return Err(broken("is cut off".into()));
        }
        if checkpoint.is_some() {
            return Err(broken("something follows the checkpoint".into()));
        }
        let line: Line<'_> = serde_json::from_str(&text)
            .map_err(|_| broken("is no line of an export, or part of one".into()))?;
        match line {
            Line {
                format: Some(format),
                position: None,
                leaf: None,
                entries: None,
                checkpoint: None,
            } if at == 1 && format == FORMAT => {}
            _ if at == 1 => return Err(broken(format!("does not begin with the format {FORMAT}"))),
            Line {
                checkpoint: Some(note),
                position: None,
                leaf: None,
                entries: None,
                format: None,
            } => checkpoint = Some(Note::read(&note).map_err(broken)?),
            Line {
                position: Some(position),
                leaf: Some(text),
                entries: Some(entries),
                checkpoint: None,
                format: None,
            } => {
                if position != leaves {
                    return Err(broken(format!("entry {leaves} is missing")));
                }
                let said =
                    opened(&text, &entries).map_err(|what| broken(format!("the leaf {what}")))?;
                if leaves == 0 {
                    said.log.clone_into(&mut log);
                }
                follows(&log, before.as_ref(), &said).map_err(broken)?;
                before = Some(Before {
                    epoch: said.epoch,
                    revision: said.revision,
                    time: said.time,
                });
                shown = shown.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX));
                unsaid.remove(&said.action);
                if let Some(lines) = said.action.strip_prefix("usage\n") {
                    usage.extend(lines.lines().map(ToOwned::to_owned));
                }
                erased =
                    erased.saturating_add(u64::try_from(said.erased.len()).unwrap_or(u64::MAX));
                unsaid.extend(said.erased.into_iter().map(|what| (what, at)));
                tree.push(leaf(text.as_bytes()));
                leaves = leaves.saturating_add(1);
                let differs = |note: &&&Note| {
                    let same = note.root == tree.root() && note.log == log;
                    note.size == leaves && !(same && note.epoch >= said.epoch)
                };
                if let Some(note) = pending.iter().find(differs) {
                    return Err(broken(format!(
                        "the first {leaves} entries are not those that were signed in epoch {}",
                        note.epoch
                    )));
                }
                pending.retain(|note| note.size != leaves);
            }
            _ => return Err(broken("is neither a leaf nor the checkpoint".into())),
        }
    }
    let all = |what: &str| Broken {
        line: 0,
        what: what.to_owned(),
    };
    let checkpoint: Note =
        checkpoint.ok_or_else(|| all("the export was cut off: there is no checkpoint"))?;
    checkpoint.signed_by(keys)?;
    let last = before.map_or(checkpoint.epoch, |before| before.epoch);
    if (checkpoint.size, checkpoint.root) != (leaves, tree.root()) || checkpoint.epoch < last {
        return Err(all(&format!(
            "the {leaves} entries are not the {} that were signed",
            checkpoint.size
        )));
    }
    if leaves > 0 && checkpoint.log != log {
        return Err(all("the checkpoint is of another log"));
    }
    if let Some((what, line)) = unsaid.first_key_value() {
        return Err(Broken {
            line: *line,
            what: format!("an entry was erased, and no later change is `{what}`"),
        });
    }
    if let Some(note) = pending.first() {
        return Err(all(&format!(
            "there were {} entries once, and there are {leaves}",
            note.size
        )));
    }
    Ok(Verified {
        leaves,
        entries: shown,
        erased,
        usage,
        checkpoint,
    })
}

/// Whether a leaf may come after the one before.
fn follows(log: &str, before: Option<&Before>, said: &Said<'_>) -> Result<(), String> {
    if said.log != log {
        return Err(format!("the leaf is of log {}", said.log));
    }
    let Some(before) = before else { return Ok(()) };
    let next = said.revision == before.revision.saturating_add(1) && said.epoch == before.epoch;
    let anew = said.revision > before.revision && said.epoch > before.epoch;
    if !next && !anew {
        return Err(format!(
            "revision {} of epoch {} does not follow revision {} of epoch {}",
            said.revision, said.epoch, before.revision, before.epoch
        ));
    }
    if said.time < before.time {
        return Err("the leaf is of an earlier time than the one before".into());
    }
    Ok(())
}
