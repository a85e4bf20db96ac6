//! `exeat apply`, `diff`, `get`, `show` and `history`.

use std::{fmt::Write as _, io::Read, path::Path};

use serde_json::{Value as Json, json};

use crate::{
    domain::{Kind, Timestamp},
    manifest::Bundle,
    wire::{
        sync::{kind, kind_message, time},
        v1,
    },
};

use super::{
    args::Output,
    reach::{Registry, refused},
    registry_args::{Apply, Get, One},
    run::Exit,
    screen::{BAD, BOLD, DIM, GOOD, Screen, styled},
};

pub(super) fn kind_of(text: &str) -> Result<Kind, Exit> {
    let singular = text.strip_suffix('s').unwrap_or(text);
    let known = Kind::parse(text).or_else(|| Kind::parse(singular));
    known
        .or_else(|| match singular.to_ascii_lowercase().as_str() {
            "agent" => Some(Kind::Subject),
            "tier" => Some(Kind::TierPolicy),
            _ => None,
        })
        .ok_or_else(|| {
            Exit::Usage(format!(
                "`{text}` is no kind; use control, subject, exception, tierpolicy, domain, person, group, case, incident, proposal or finding"
            ))
        })
}

pub(super) fn kind_name(number: i32) -> &'static str {
    kind(number).map_or("Object", Kind::name)
}

pub(super) fn shown(stamp: Option<prost_types::Timestamp>) -> String {
    time("", stamp).map_or_else(|_| "-".to_owned(), short)
}

/// A time to the second.
fn short(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

pub(super) fn files(paths: &[std::path::PathBuf]) -> Result<Vec<v1::ManifestFile>, Exit> {
    let mut files = Vec::new();
    let file = |name: &str, content: String| v1::ManifestFile {
        name: name.to_owned(),
        content,
    };
    for path in paths {
        let name = path.display().to_string();
        let cannot =
            |error: std::io::Error| Exit::Invalid(format!("{name}: cannot be read: {error}"));
        if path == Path::new("-") {
            let mut content = String::new();
            std::io::stdin()
                .read_to_string(&mut content)
                .map_err(cannot)?;
            files.push(file("standard input", content));
        } else if path.is_dir() {
            let found = Bundle::gather(path).map_err(|problems| {
                let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
                Exit::Invalid(told.join("\n"))
            })?;
            files.extend(
                found
                    .into_iter()
                    .map(|(inner, content)| file(&path.join(inner).display().to_string(), content)),
            );
        } else {
            let content = std::fs::read_to_string(path).map_err(cannot)?;
            files.push(file(&name, content));
        }
    }
    Ok(files)
}

fn expectation(text: &str) -> Result<v1::Expectation, Exit> {
    let parsed = text.split_once('=').and_then(|(name, revision)| {
        let (kind, id) = name.split_once('/')?;
        Some((kind, id, revision.parse().ok()?))
    });
    let (kind, id, revision) =
        parsed.ok_or_else(|| Exit::Usage(format!("--expect: `{text}` is not KIND/ID=REVISION")))?;
    Ok(v1::Expectation {
        kind: kind_message(kind_of(kind)?),
        id: id.to_owned(),
        revision,
    })
}

pub(super) async fn apply(args: Apply, dry_run: bool, screen: &mut Screen) -> Result<Exit, Exit> {
    let expected = args
        .expect
        .iter()
        .map(|text| expectation(text))
        .collect::<Result<_, _>>()?;
    let request = v1::ApplyRequest {
        files: files(&args.files)?,
        dry_run: dry_run || args.dry_run,
        prune: args.prune,
        expected,
    };
    let dry = request.dry_run;
    let mut registry = Registry::connect(&args.reach).await?;
    let answer = registry.objects.apply(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    if args.output == Output::Json {
        let changes: Vec<Json> = answer.changes.iter().map(|change| json!({"kind": kind_name(change.kind), "id": change.id, "change": change.change().as_str_name().trim_start_matches("CHANGE_KIND_"), "revision": change.revision, "standing": change.standing})).collect();
        let told = json!({"apiVersion": "exeat/v1", "revision": answer.revision, "dryRun": dry, "changes": changes});
        screen.say(&told.to_string())?;
        return Ok(Exit::Done);
    }
    let mut counts = [0_usize; 4];
    for change in &answer.changes {
        let (mark, at) = match change.change() {
            v1::ChangeKind::Created => (styled(GOOD, "+"), 0),
            v1::ChangeKind::Updated => (styled(BOLD, "~"), 1),
            v1::ChangeKind::Removed => (styled(BAD, "-"), 2),
            v1::ChangeKind::Unchanged | v1::ChangeKind::Unspecified => ("=".to_owned(), 3),
        };
        if let Some(count) = counts.get_mut(at) {
            *count = count.saturating_add(1);
        }
        // What was taken back stays so, whatever is applied.
        let standing = match change.standing.as_str() {
            "" => String::new(),
            standing => format!("  {}", styled(BAD, standing)),
        };
        if at == 3 && standing.is_empty() {
            continue;
        }
        screen.say(&format!(
            "{mark} {} {}  revision {}{standing}",
            kind_name(change.kind),
            change.id,
            change.revision
        ))?;
        if at == 1 {
            for line in differing(&change.before, &change.after) {
                screen.say(&line)?;
            }
        }
    }
    let [created, updated, removed, same] = counts;
    screen.say(&format!(
        "{created} created, {updated} updated, {removed} removed, {same} unchanged; {}revision {}",
        if dry { "nothing was changed; " } else { "" },
        answer.revision
    ))?;
    Ok(Exit::Done)
}

/// The lines that say what differs between two manifests.
pub(super) fn differing(before: &str, after: &str) -> Vec<String> {
    let read = |text: &str| serde_json::from_str(text).unwrap_or(Json::Null);
    let mut lines = Vec::new();
    differences("", &read(before), &read(after), &mut lines);
    lines.iter().map(|line| format!("    {line}")).collect()
}

/// Every field that differs, by path.
fn differences(path: &str, before: &Json, after: &Json, lines: &mut Vec<String>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Json::Object(old), Json::Object(new)) => {
            let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let of = |object: &serde_json::Map<String, Json>| {
                    object.get(name).cloned().unwrap_or(Json::Null)
                };
                differences(&inner, &of(old), &of(new), lines);
            }
        }
        (Json::Array(old), Json::Array(new)) if old.len() == new.len() => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                differences(&format!("{path}[{at}]"), old, new, lines);
            }
        }
        _ => lines.push(format!("{path}: {before} → {after}")),
    }
}

pub(super) async fn get(args: Get, screen: &mut Screen) -> Result<Exit, Exit> {
    let kind = kind_message(kind_of(&args.kind)?);
    if let Some(id) = args.id {
        let one = One {
            kind: args.kind,
            id,
            output: args.output,
            reach: args.reach,
        };
        return show(one, screen).await;
    }
    let mut registry = Registry::connect(&args.reach).await?;
    let mut page_token = String::new();
    if args.output != Output::Json {
        screen.say(&styled(
            DIM,
            &format!(
                "{:<44} {:>8}  {:<20}  {:<10}  BY",
                "ID", "REVISION", "SINCE", "STANDING"
            ),
        ))?;
    }
    loop {
        let request = v1::ListObjectsRequest {
            kind,
            filter: args.filter.clone(),
            page_size: 1_000,
            page_token,
        };
        let answer = registry.objects.list_objects(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        for object in &answer.objects {
            let line = if args.output == Output::Json {
                as_json(object).to_string()
            } else {
                format!(
                    "{:<44} {:>8}  {:<20}  {:<10}  {}",
                    object.id,
                    object.revision,
                    shown(object.time),
                    object.standing,
                    object.principal
                )
            };
            screen.say(&line)?;
        }
        if answer.next_page_token.is_empty() {
            return Ok(Exit::Done);
        }
        page_token = answer.next_page_token;
    }
}

fn as_json(object: &v1::StoredObject) -> Json {
    let manifest = serde_json::from_str(&object.manifest).unwrap_or(Json::Null);
    json!({"apiVersion": "exeat/v1", "kind": kind_name(object.kind), "id": object.id, "revision": object.revision, "logRevision": object.log_revision, "time": shown(object.time), "by": object.principal, "standing": object.standing, "manifest": manifest})
}

pub(super) async fn show(args: One, screen: &mut Screen) -> Result<Exit, Exit> {
    let request = v1::GetObjectRequest {
        kind: kind_message(kind_of(&args.kind)?),
        id: args.id,
    };
    let mut registry = Registry::connect(&args.reach).await?;
    let answer = registry.objects.get_object(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let object = answer.object.unwrap_or_default();
    if args.output == Output::Json {
        // The manifest alone: `exeat apply -f -` reads it back.
        screen.say(&object.manifest)?;
        return Ok(Exit::Done);
    }
    let standing = match object.standing.as_str() {
        "" => String::new(),
        standing => format!("  {}", styled(BAD, standing)),
    };
    screen.say(&format!(
        "{} {}{standing}\n  {}",
        kind_name(object.kind),
        styled(BOLD, &object.id),
        styled(
            DIM,
            &format!(
                "revision {} · {} · by {} · log {}",
                object.revision,
                shown(object.time),
                object.principal,
                object.log_revision
            )
        )
    ))?;
    let manifest = serde_json::from_str(&object.manifest).unwrap_or(Json::Null);
    let mut text = String::new();
    outline(&manifest, 1, &mut text);
    screen.say(text.trim_end())?;
    for seen in &answer.observed {
        screen.say(&format!(
            "  {} {} {} by {} from {} to {}",
            styled(BAD, "seen to differ:"),
            seen.facet,
            seen.digest,
            seen.sidecar,
            shown(seen.first_time),
            shown(seen.last_time)
        ))?;
    }
    Ok(Exit::Done)
}

/// A manifest as people read it.
fn outline(value: &Json, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    let plain = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Json::Object(fields) => {
            for (name, value) in fields {
                if depth == 1 && (name == "apiVersion" || name == "kind" || name == "id") {
                    continue;
                }
                let nested = matches!(value, Json::Object(fields) if !fields.is_empty())
                    || matches!(value, Json::Array(items) if items.iter().any(serde_json::Value::is_object));
                // Writing to a string does not fail.
                let _ = if nested {
                    writeln!(text, "{indent}{name}:")
                } else if let Json::Array(items) = value {
                    let items: Vec<_> = items.iter().map(plain).collect();
                    writeln!(text, "{indent}{name}: [{}]", items.join(", "))
                } else {
                    writeln!(
                        text,
                        "{indent}{name}: {}",
                        plain(value).trim().replace('\n', &format!("\n{indent}  "))
                    )
                };
                if nested {
                    outline(value, depth.saturating_add(1), text);
                }
            }
        }
        Json::Array(items) => {
            for item in items {
                let _ = writeln!(text, "{indent}-");
                outline(item, depth.saturating_add(1), text);
            }
        }
        other => {
            let _ = writeln!(text, "{indent}{}", plain(other));
        }
    }
}

pub(super) async fn history(args: One, screen: &mut Screen) -> Result<Exit, Exit> {
    let kind = kind_message(kind_of(&args.kind)?);
    let mut registry = Registry::connect(&args.reach).await?;
    let mut page_token = String::new();
    let mut newer: Option<Json> = None;
    loop {
        let request = v1::ListHistoryRequest {
            kind,
            id: args.id.clone(),
            page_size: 100,
            page_token,
        };
        let answer = registry.objects.list_history(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        for object in &answer.objects {
            if args.output == Output::Json {
                screen.say(&as_json(object).to_string())?;
                continue;
            }
            let manifest = serde_json::from_str(&object.manifest).unwrap_or(Json::Null);
            if let Some(newer) = &newer {
                let mut lines = Vec::new();
                differences("", &manifest, newer, &mut lines);
                for line in lines {
                    screen.say(&format!("      {line}"))?;
                }
            }
            let gone = if object.manifest.is_empty() {
                "  removed"
            } else {
                ""
            };
            screen.say(&format!(
                "{:>8}  {}  {}  {}{gone}",
                styled(BOLD, &object.revision.to_string()),
                shown(object.time),
                object.principal,
                styled(DIM, &format!("log {}", object.log_revision))
            ))?;
            newer = Some(manifest);
        }
        if answer.next_page_token.is_empty() {
            return Ok(Exit::Done);
        }
        page_token = answer.next_page_token;
    }
}
