//! The hook in a coding agent's settings: put in beside what is there, and taken out again without
//! a trace.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::{config::environment, wire::json::strict};

use super::{
    args::{Agent, Installs, Place},
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
};

/// How long an agent waits for an answer, in seconds.
const WAITS: u64 = 3;

impl Agent {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// What is asked about, and for which tools.
    pub(super) fn events(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::Claude => &[("PreToolUse", Some("*")), ("PreModelSwitch", None)],
            Self::Codex => &[("PreToolUse", Some("*"))],
            Self::Gemini => &[("BeforeTool", Some(".*"))],
        }
    }

    /// Its settings below a folder: of a person, or of a project.
    fn file(self) -> &'static str {
        match self {
            Self::Claude => ".claude/settings.json",
            Self::Codex => ".codex/hooks.json",
            Self::Gemini => ".gemini/settings.json",
        }
    }

    /// Our entry.
    fn entry(self, program: &str, more: &[String]) -> Json {
        let mut args = vec!["hook".to_owned(), self.name().to_owned()];
        args.extend(more.iter().cloned());
        match self {
            // Its own form runs a program without a shell, and blocks where that fails.
            Self::Claude => json!({
                "type": "command",
                "command": program,
                "args": args,
                "timeout": WAITS,
                "onFailure": "block",
                "statusMessage": "exeat: checking",
            }),
            Self::Codex | Self::Gemini => {
                let line: Vec<_> = std::iter::once(program.to_owned()).chain(args).collect();
                let line: Vec<_> = line.iter().map(|word| quoted(word)).collect();
                let waits = if self == Self::Gemini {
                    WAITS * 1_000
                } else {
                    WAITS
                };
                // A shell that does not find the program says 127, and only 2 blocks.
                let line = format!("{} || exit 2", line.join(" "));
                json!({"type": "command", "command": line, "timeout": waits})
            }
        }
    }

    /// Whether an entry is ours, wherever the program was when it was put in.
    fn is_ours(self, entry: &Json) -> bool {
        let command = entry
            .get("command")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let is_program = |path: &str| {
            let path = Path::new(path.trim_matches('\''));
            path.file_name().is_some_and(|name| name == "exeat")
        };
        if let Some(args) = entry.get("args").and_then(Json::as_array) {
            let mut words = args.iter().filter_map(Json::as_str);
            return is_program(command)
                && words.next() == Some("hook")
                && words.next() == Some(self.name());
        }
        let parts = command.split_once(&format!(" hook {}", self.name()));
        parts.is_some_and(|(program, rest)| {
            is_program(program) && (rest.is_empty() || rest.starts_with(' '))
        })
    }

    /// Our entry at its first event, as it stands in the settings.
    pub(super) fn entry_of(self, settings: &Json) -> Option<&Json> {
        let (event, _) = self.events().first()?;
        let groups = settings.pointer(&format!("/hooks/{event}"))?.as_array()?;
        let mut entries = groups
            .iter()
            .filter_map(|group| group.get("hooks")?.as_array())
            .flatten();
        entries.find(|entry| self.is_ours(entry))
    }

    /// Takes our entries out, and with them what would be empty without.
    fn out(self, settings: &mut Map<String, Json>) {
        let Some(Json::Object(hooks)) = settings.get_mut("hooks") else {
            return;
        };
        let mut emptied = Vec::new();
        for (event, groups) in hooks.iter_mut() {
            let Json::Array(groups) = groups else {
                continue;
            };
            let before = groups.len();
            groups.retain_mut(|group| {
                let Some(Json::Array(entries)) = group.get_mut("hooks") else {
                    return true;
                };
                let had = entries.len();
                entries.retain(|entry| !self.is_ours(entry));
                !(entries.is_empty() && had > 0)
            });
            if groups.is_empty() && before > 0 {
                emptied.push(event.clone());
            }
        }
        for event in &emptied {
            hooks.shift_remove(event);
        }
        if hooks.is_empty() && !emptied.is_empty() {
            settings.shift_remove("hooks");
        }
    }

    /// Puts our entries in, once.
    fn put(self, settings: &mut Map<String, Json>, entry: &Json) -> Result<(), String> {
        self.out(settings);
        let hooks = settings.entry("hooks").or_insert_with(|| json!({}));
        let Json::Object(hooks) = hooks else {
            return Err("`hooks` is no object".into());
        };
        for (event, matcher) in self.events() {
            let mut group = Map::new();
            if let Some(matcher) = matcher {
                group.insert("matcher".into(), (*matcher).into());
            }
            group.insert("hooks".into(), json!([entry]));
            let groups = hooks.entry(*event).or_insert_with(|| json!([]));
            let Json::Array(groups) = groups else {
                return Err(format!("`hooks.{event}` is no list"));
            };
            groups.push(group.into());
        }
        Ok(())
    }

    /// Which of its events ask us, about everything.
    pub(super) fn asked(self, settings: &Json) -> Vec<&'static str> {
        if settings.get("disableAllHooks") == Some(&Json::Bool(true)) {
            return Vec::new();
        }
        let ours = |event: &str, matcher: Option<&str>| {
            let groups = settings.pointer(&format!("/hooks/{event}"));
            let groups = groups.and_then(Json::as_array).into_iter().flatten();
            let all = |group: &&Json| group.get("matcher").and_then(Json::as_str) == matcher;
            let entries = groups
                .filter(all)
                .filter_map(|group| group.get("hooks")?.as_array());
            entries.flatten().any(|entry| self.is_ours(entry))
        };
        let events = self.events().iter();
        events
            .filter(|(event, matcher)| ours(event, *matcher))
            .map(|(event, _)| *event)
            .collect()
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Where an agent's settings are.
pub(super) fn path_of(args: &Place) -> Result<PathBuf, Exit> {
    if let Some(path) = &args.settings {
        return Ok(path.clone());
    }
    if args.project {
        return Ok(PathBuf::from(args.of.file()));
    }
    let all = environment();
    let home = all
        .iter()
        .find(|(name, value)| name == "HOME" && !value.is_empty());
    let (_, home) = home.ok_or_else(|| {
        Exit::Usage("HOME is not set; say where the settings are with --settings".into())
    })?;
    Ok(Path::new(home).join(args.of.file()))
}

/// The settings as they are; nothing is there where there is no file.
pub(super) fn read(path: &Path) -> Result<(Option<String>, Map<String, Json>), Exit> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((None, Map::new()));
        }
        Err(error) => return Err(Exit::Invalid(format!("{shown}: {error}"))),
    };
    if text.trim().is_empty() {
        return Ok((Some(text), Map::new()));
    }
    let json = strict(text.as_bytes())
        .map_err(|error| Exit::Invalid(format!("{shown}: {error}; nothing was changed")))?;
    match json {
        Json::Object(settings) => Ok((Some(text), settings)),
        _ => Err(Exit::Invalid(format!(
            "{shown}: is no JSON object; nothing was changed"
        ))),
    }
}

/// The settings as text, indented as they were.
fn written(settings: &Map<String, Json>, before: Option<&str>) -> String {
    let indent = before.and_then(|text| {
        let line = text.lines().nth(1)?;
        let end = line.find(|c: char| c != ' ' && c != '\t')?;
        line.get(..end).filter(|indent| !indent.is_empty())
    });
    let indent = indent.unwrap_or("  ").as_bytes();
    let mut out = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(indent);
    let mut to = serde_json::Serializer::with_formatter(&mut out, form);
    // A map of texts to a vector does not fail.
    let _ = serde::Serialize::serialize(settings, &mut to);
    let mut text = String::from_utf8(out).unwrap_or_default();
    if before.is_none_or(|before| before.ends_with('\n')) {
        text.push('\n');
    }
    text
}

/// The lines that differ: those between what is the same at both ends.
fn shown(before: &str, after: &str, screen: &mut Screen) -> std::io::Result<()> {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same =
        |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
    let top = same(&mut before.iter().zip(&after));
    let bottom = same(&mut before.iter().rev().zip(after.iter().rev()));
    let least = before.len().min(after.len()).saturating_sub(top);
    let bottom = bottom.min(least);
    let of = |lines: &[&str]| -> Vec<String> {
        let end = lines.len().saturating_sub(bottom);
        lines
            .get(top..end)
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    for line in of(&before) {
        screen.say(&styled(BAD, &format!("- {line}")))?;
    }
    for line in of(&after) {
        screen.say(&styled(GOOD, &format!("+ {line}")))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    if let Ok(known) = std::fs::metadata(path) {
        std::fs::set_permissions(file.path(), known.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Puts the hook into an agent's settings, or takes it out; shows what changes.
pub(super) fn settings(args: &Installs, put: bool, screen: &mut Screen) -> Result<Exit, Exit> {
    // A link is followed, so that what it leads to stays where it is.
    let path = path_of(&args.place)?;
    let path = match std::fs::canonicalize(&path) {
        Ok(path) => path,
        Err(_) if std::fs::symlink_metadata(&path).is_ok() => {
            let what = format!("{}: leads nowhere; nothing was changed", path.display());
            return Err(Exit::Invalid(what));
        }
        Err(_) => path,
    };
    let (before, mut settings) = read(&path)?;
    let known = settings.clone();
    if put {
        let program =
            std::env::current_exe().map_err(|error| Exit::Unexpected(error.to_string()))?;
        let mut more = Vec::new();
        for (flag, value) in [
            ("--agent", &args.agent),
            ("--purpose", &args.purpose),
            ("--socket", &args.target.socket),
        ] {
            if let Some(value) = value {
                more.extend([flag.to_owned(), value.clone()]);
            }
        }
        if let Some(file) = &args.target.agent_token_file {
            // An agent runs the hook wherever it is at work.
            let file = std::path::absolute(file)
                .map_err(|error| Exit::Usage(format!("{}: {error}", file.display())))?;
            more.extend(["--agent-token-file".to_owned(), file.display().to_string()]);
        }
        if args.omit_large {
            more.push("--omit-large".to_owned());
        }
        let entry = args.place.of.entry(&program.display().to_string(), &more);
        let put = args.place.of.put(&mut settings, &entry);
        put.map_err(|why| {
            Exit::Invalid(format!("{}: {why}; nothing was changed", path.display()))
        })?;
    } else {
        args.place.of.out(&mut settings);
    }
    if settings == known {
        screen.say(&format!("{}  nothing to change", path.display()))?;
        return Ok(Exit::Done);
    }
    let after = written(&settings, before.as_deref());
    screen.say(&styled(DIM, &path.display().to_string()))?;
    shown(before.as_deref().unwrap_or_default(), &after, screen)?;
    if args.dry_run {
        return Ok(Exit::Done);
    }
    // Whoever wrote meanwhile is not undone.
    if read(&path)?.0 != before {
        let what = format!("{}: was changed meanwhile; try again", path.display());
        return Err(Exit::Unexpected(what));
    }
    let kept = write(&path, &after);
    kept.map_err(|error| Exit::Unexpected(format!("{}: {error}", path.display())))?;
    Ok(Exit::Done)
}

/// Says whether an agent asks; says no where it does not ask about all it could.
pub(super) fn installed(args: &Place, screen: &mut Screen) -> Result<Exit, Exit> {
    let path = path_of(args)?;
    let (_, settings) = read(&path)?;
    let asked = args.of.asked(&Json::Object(settings));
    let all = asked.len() == args.of.events().len();
    let (style, said) = match (asked.as_slice(), all) {
        ([], _) => (BAD, "does not ask exeat".to_owned()),
        (events, true) => (GOOD, format!("asks exeat at {}", events.join(", "))),
        (events, false) => (BAD, format!("asks exeat at {} alone", events.join(", "))),
    };
    let name = args.of.name();
    screen.say(&format!("{} {name} {said}", path.display()).replacen(
        &said,
        &styled(style, &said),
        1,
    ))?;
    Ok(if all { Exit::Done } else { Exit::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: Json) -> Map<String, Json> {
        match json {
            Json::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_put_in_is_there_once_and_comes_out_without_a_trace() {
        for of in [Agent::Claude, Agent::Codex, Agent::Gemini] {
            let event = of.events()[0].0;
            for before in [
                json!({}),
                json!({"hooks": {}}),
                json!({"theme": "dark", "hooks": {event: [{"matcher": "Bash", "hooks": [{"type": "command", "command": "lint"}]}], "Stop": []}}),
                json!({"hooks": {event: [{"matcher": "x", "hooks": []}]}, "z": 1, "a": [2]}),
            ] {
                let before = object(before);
                let mut settings = before.clone();
                let entry = of.entry("/opt/my tools/exeat", &["--agent".into(), "a b".into()]);
                of.put(&mut settings, &entry).unwrap();
                let once = settings.clone();
                assert_eq!(
                    of.asked(&Json::Object(once.clone())).len(),
                    of.events().len()
                );
                // Again, and by a program that has moved.
                of.put(&mut settings, &of.entry("/usr/bin/exeat", &[]))
                    .unwrap();
                of.put(&mut settings, &entry).unwrap();
                assert_eq!(settings, once);
                let order = |map: &Map<String, Json>| serde_json::to_string(map).unwrap();
                assert_eq!(order(&settings), order(&once));
                of.out(&mut settings);
                let empty = before.get("hooks") == Some(&json!({}));
                if !empty {
                    assert_eq!(order(&settings), order(&before), "{of:?}");
                }
            }
        }
    }

    #[test]
    fn text_keeps_its_form() {
        let four = "{\n    \"a\": 1\n}";
        assert_eq!(written(&object(json!({"a": 1})), Some(four)), four);
        assert_eq!(
            written(&object(json!({"a": 1})), None),
            "{\n  \"a\": 1\n}\n"
        );
    }

    #[test]
    fn a_word_is_one_word() {
        assert_eq!(quoted("/opt/exeat"), "/opt/exeat");
        assert_eq!(quoted("/my tools/it's"), r"'/my tools/it'\''s'");
    }
}
