//! `exeat evidence`: what is shown for an exception.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value as Json, json};

use crate::wire::{
    signed::{hex, sha256},
    v1,
};

use super::{
    args::Output,
    reach::{Registry, refused},
    registry_args::Told,
    review::plain,
    run::Exit,
    screen::{BOLD, DIM, Screen, styled},
};

/// `exeat evidence`.
#[derive(Debug, Subcommand)]
pub enum Evidence {
    /// Show something more. A request that is not decided is asked for anew; of an exception that was
    /// granted nothing rests on it before everybody has looked again.
    Add {
        /// The exception.
        exception: String,
        /// What the item is called.
        #[arg(long)]
        id: String,
        /// The item: its digest is noted, and the file goes nowhere.
        #[arg(long, value_name = "PATH", required_unless_present = "digest")]
        file: Option<PathBuf>,
        /// Its digest, where the item is elsewhere.
        #[arg(long, value_name = "sha256:HEX", conflicts_with = "file")]
        digest: Option<String>,
        /// Until when it proves anything.
        #[arg(long, value_name = "TIME")]
        until: String,
        /// When it was collected.
        #[arg(long, value_name = "TIME")]
        collected: Option<String>,
        /// Where it comes from, such as a scanner's name or a link.
        #[arg(long, value_name = "TEXT")]
        source: Option<String>,
        /// The item that it takes the place of, such as one that has expired.
        #[arg(long, value_name = "ID")]
        replaces: Option<String>,
        /// The exception stands without it too.
        #[arg(long)]
        optional: bool,
        #[command(flatten)]
        told: Told,
    },
    /// List what is shown, and who looked at it.
    List {
        /// The exception.
        exception: String,
        #[command(flatten)]
        told: Told,
    },
    /// Say whether a file is an item that is shown.
    Show {
        /// The exception.
        exception: String,
        /// The item.
        id: String,
        /// What to hold against it; exit code 3 if it is something else.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        #[command(flatten)]
        told: Told,
    },
}

fn digest_of(path: &PathBuf) -> Result<String, Exit> {
    let bytes = std::fs::read(path)
        .map_err(|error| Exit::Invalid(format!("{}: cannot be read: {error}", path.display())))?;
    Ok(format!("sha256:{}", hex(&sha256(&bytes))))
}

async fn record(registry: &mut Registry, id: &str) -> Result<Json, Exit> {
    let request = v1::GetCaseRequest { id: id.to_owned() };
    let answer = registry.exceptions.get_case(request).await;
    let case = answer.map_err(|status| refused(&status))?.into_inner().case;
    serde_json::from_str(&case.unwrap_or_default().record)
        .map_err(|_| Exit::Unexpected(format!("the registry's record of {id} cannot be read")))
}

/// What is to be decided on: with what is shown since it was granted.
pub(super) fn asked(record: &Json) -> Option<&Json> {
    let anew = record.get("anew").filter(|anew| anew.is_object());
    anew.or_else(|| record.get("request"))
}

/// What is shown, with who looked at it.
fn items(record: &Json) -> Vec<(Json, Vec<String>)> {
    let asked = asked(record).and_then(|asked| asked.get("evidence"));
    let evidence = asked.and_then(Json::as_array);
    let votes = record.get("votes").and_then(Json::as_array);
    let evidence = evidence.into_iter().flatten();
    evidence
        .map(|item| {
            let id = item
                .get("evidence_id")
                .and_then(Json::as_str)
                .unwrap_or_default();
            let votes = votes.into_iter().flatten().filter(|vote| {
                let seen = vote.get("reviewed").and_then(|reviewed| reviewed.get(id));
                seen.is_some() && seen == item.get("digest")
            });
            let by = votes.filter_map(|vote| vote.get("approver")?.as_str());
            (item.clone(), by.map(ToOwned::to_owned).collect())
        })
        .collect()
}

fn text<'a>(item: &'a Json, name: &str) -> &'a str {
    item.get(name).and_then(Json::as_str).unwrap_or("-")
}

fn say(item: &Json, by: &[String], told: &Told, screen: &mut Screen) -> Result<(), Exit> {
    if told.output == Output::Json {
        let mut line = json!({"apiVersion": "exeat/v1", "reviewedBy": by});
        if let (Some(line), Some(item)) = (line.as_object_mut(), item.as_object()) {
            line.extend(item.clone());
        }
        screen.say(&line.to_string())?;
        return Ok(());
    }
    let required = item.get("required") == Some(&Json::Bool(true));
    let seen = if by.is_empty() {
        "nobody yet".into()
    } else {
        by.join(", ")
    };
    screen.say(&format!(
        "{:<28} {:<9} until {}  seen by {seen}",
        styled(BOLD, text(item, "evidence_id")),
        if required { "required" } else { "" },
        text(item, "expire_time")
    ))?;
    screen.say(&format!(
        "  {}{}",
        styled(DIM, text(item, "digest")),
        origin(item)
    ))?;
    Ok(())
}

/// When an item was collected, and where it comes from; nothing where nobody says so.
pub(super) fn origin(item: &Json) -> String {
    let said = |name: &str| item.get(name).and_then(Json::as_str).map(plain);
    let collected = said("collect_time").map(|time| format!("  collected {time}"));
    let source = said("source").map(|source| format!("  from {source}"));
    collected.unwrap_or_default() + &source.unwrap_or_default()
}

pub(super) async fn evidence(command: Evidence, screen: &mut Screen) -> Result<Exit, Exit> {
    match command {
        Evidence::Add {
            exception,
            id,
            file,
            digest,
            until,
            collected,
            source,
            replaces,
            optional,
            told,
        } => {
            let digest = match (&file, digest) {
                (Some(path), _) => digest_of(path)?,
                (None, digest) => digest.unwrap_or_default(),
            };
            let mut registry = Registry::connect(&told.reach).await?;
            let record = record(&mut registry, &exception).await?;
            let again = record.pointer("/again/digest");
            let seen = again.or_else(|| record.pointer("/terms/digest"));
            let seen = seen.and_then(Json::as_str).unwrap_or_default();
            let item = json!({
                "evidence_id": id,
                "digest": digest,
                "required": !optional,
                "collect_time": collected,
                "expire_time": until,
                "source": source,
            });
            let request = with(&record, item, replaces.as_deref())?;
            let request = v1::RequestExceptionRequest {
                file: Some(v1::ManifestFile {
                    name: format!("{exception} with what is shown now"),
                    // JSON is YAML.
                    content: request.to_string(),
                }),
                id: exception.clone(),
                dry_run: false,
                // Somebody else may show something more in between.
                expected_digest: seen.to_owned(),
            };
            let answer = registry.exceptions.request_exception(request).await;
            let case = answer.map_err(|status| refused(&status))?.into_inner().case;
            let case = case.unwrap_or_default();
            screen.say(&format!(
                "{exception} is {}, and shows {digest} as {id}",
                case.state
            ))?;
        }
        Evidence::List { exception, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let items = items(&record(&mut registry, &exception).await?);
            for (item, by) in &items {
                say(item, by, &told, screen)?;
            }
            if items.is_empty() {
                screen.hint(&format!("nothing is shown for {exception}"));
            }
        }
        Evidence::Show {
            exception,
            id,
            file,
            told,
        } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let items = items(&record(&mut registry, &exception).await?);
            let found = items
                .iter()
                .find(|(item, _)| text(item, "evidence_id") == id);
            let (item, by) = found.ok_or_else(|| {
                Exit::Usage(format!(
                    "{exception} shows no `{id}`; see `exeat evidence list {exception}`"
                ))
            })?;
            say(item, by, &told, screen)?;
            if let Some(path) = &file {
                let digest = digest_of(path)?;
                if digest != text(item, "digest") {
                    screen.say(&format!("  {} is something else: {digest}", path.display()))?;
                    return Ok(Exit::No);
                }
                screen.say(&format!("  {} is what is shown", path.display()))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// What was asked for, with one item more, and without the one that it `replaces`.
fn with(record: &Json, mut item: Json, replaces: Option<&str>) -> Result<Json, Exit> {
    let unread = || Exit::Unexpected("the registry's record cannot be read".into());
    let mut request = asked(record).cloned().ok_or_else(unread)?;
    let fields = request.as_object_mut().ok_or_else(unread)?;
    let items = fields.entry("evidence").or_insert_with(|| json!([]));
    if items.is_null() {
        *items = json!([]);
    }
    let items = items.as_array_mut().ok_or_else(unread)?;
    if let Some(old) = replaces {
        let before = items.len();
        items.retain(|item| text(item, "evidence_id") != old);
        if items.len() == before {
            return Err(Exit::Usage(format!(
                "--replaces: nothing is shown as `{old}`; see `exeat evidence list`"
            )));
        }
    }
    let id = text(&item, "evidence_id").to_owned();
    if items.iter().any(|item| text(item, "evidence_id") == id) {
        return Err(Exit::Usage(format!(
            "--id: `{id}` is shown already; call what takes its place otherwise"
        )));
    }
    if let Some(fields) = item.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    items.push(item);
    Ok(request)
}
