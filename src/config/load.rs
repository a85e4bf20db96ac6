//! Where a setting's value came from: the file, the environment, a flag or the default.

use std::{collections::BTreeMap, fmt, path::Path};

use crate::{
    domain::Value,
    manifest::{Places, Tree, options, said},
};

/// A key that may be set, with its default and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key as the file writes it; `EXEAT_KEY` in the environment, `--key` as a flag.
    pub key: &'static str,
    /// What holds when nobody sets it.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// What the command line reads from the environment.
const COMMAND_LINE: [&str; 6] = [
    "socket",
    "config",
    "operations",
    "registry",
    "registry_ca",
    "token",
];

/// Everything that is wrong with the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrong(pub Vec<String>);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Wrong {}

/// Settings with the source of each.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, (String, String)>,
}

/// The environment, read once.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Settings {
    /// Gathers the values of `known` settings; a later source wins.
    ///
    /// # Errors
    ///
    /// Every unknown key of the file and every unknown `EXEAT_*` variable, and a file that cannot
    /// be read.
    pub fn gather(
        known: &'static [Setting],
        file: Option<&Path>,
        environment: &[(String, String)],
        flags: &[(&'static str, Option<String>)],
    ) -> Result<Self, Wrong> {
        let mut wrong = Wrong::default();
        let mut values: BTreeMap<&'static str, (String, String)> = known
            .iter()
            .map(|setting| {
                (
                    setting.key,
                    (setting.default.to_owned(), "default".to_owned()),
                )
            })
            .collect();
        let find = |key: &str| known.iter().find(|setting| setting.key == key);
        if let Some(path) = file {
            match read(path) {
                Err(why) => wrong.0.push(why),
                Ok((content, entries)) => {
                    for (key, value) in entries {
                        let (line, _) = Places::of(&content).find(&key);
                        match find(&key) {
                            Some(setting) => drop(values.insert(
                                setting.key,
                                (value, format!("{}:{line}", path.display())),
                            )),
                            None => wrong.0.push(format!(
                                "{}:{line}: `{key}` is not a setting; {}",
                                path.display(),
                                listed(known)
                            )),
                        }
                    }
                }
            }
        }
        for (name, value) in environment {
            let Some(key) = name.strip_prefix("EXEAT_") else {
                continue;
            };
            let key = key.to_ascii_lowercase();
            // Settings of the command line itself; some are this process's as well.
            if COMMAND_LINE.contains(&key.as_str()) && find(&key).is_none() {
                continue;
            }
            match find(&key) {
                Some(setting) => drop(values.insert(setting.key, (value.clone(), name.clone()))),
                None => wrong.0.push(format!(
                    "{name}: `{key}` is not a setting; {}",
                    listed(known)
                )),
            }
        }
        for (key, value) in flags {
            if let (Some(setting), Some(value)) = (find(key), value) {
                values.insert(
                    setting.key,
                    (
                        value.clone(),
                        format!("--{}", setting.key.replace('_', "-")),
                    ),
                );
            }
        }
        if wrong.0.is_empty() {
            Ok(Self { values })
        } else {
            Err(wrong)
        }
    }

    /// The value of `key`, parsed; what is wrong is added to `wrong` with the value's source.
    pub(super) fn parse<T>(
        &self,
        key: &str,
        wrong: &mut Wrong,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (value, source) = self.values.get(key)?;
        if value.is_empty() {
            return None;
        }
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                wrong.0.push(format!("{source}: `{key}`: {why}"));
                None
            }
        }
    }

    /// Every key with its value and source, for the log at start.
    pub fn effective(&self) -> impl Iterator<Item = (&'static str, &str, &str)> {
        self.values
            .iter()
            .map(|(key, (value, source))| (*key, value.as_str(), source.as_str()))
    }
}

fn listed(known: &[Setting]) -> String {
    let keys: Vec<_> = known.iter().map(|setting| setting.key).collect();
    format!("there are {}", keys.join(", "))
}

fn read(path: &Path) -> Result<(String, Vec<(String, String)>), String> {
    let shown = path.display();
    let content = std::fs::read_to_string(path)
        .map_err(|error| format!("{shown}: cannot be read: {error}"))?;
    let Tree(value) =
        serde_saphyr::from_str_with_options(&content, options()).map_err(|error| {
            match error.location() {
                Some(place) => {
                    let (line, column) = (place.line(), place.column());
                    format!("{shown}:{line}:{column}: {}", said(&error))
                }
                None => format!("{shown}: {}", said(&error)),
            }
        })?;
    let Value::Map(entries) = value else {
        return Err(format!("{shown}: is not a map of settings"));
    };
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Double(d) => d.to_string(),
        Value::Str(s) => s.to_string(),
        other => format!("{other:?}"),
    };
    let entries = entries
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Map(pairs) => pairs
                    .iter()
                    .map(|(name, value)| format!("{name}={}", text(value)))
                    .collect::<Vec<_>>()
                    .join(","),
                Value::List(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
                value => text(value),
            };
            (key.to_string(), value)
        })
        .collect();
    Ok((content, entries))
}
