//! Arguments of tools as far as a question holds them.

use serde_json::{Map, Value as Json};

use crate::domain::Invalid;

/// Longest text of an argument that is sent.
const LONGEST: usize = 8 << 10;
/// Most items of a list that is sent.
const ITEMS: usize = 1_000;
/// Deepest that arguments are sent.
const DEEPEST: usize = 12;
/// Most names among them.
const NAMES: usize = 200;

/// Arguments as far as a question holds them. What is too large is left out, and named.
struct Trimmed {
    names: usize,
    omitted: Vec<Json>,
}

impl Trimmed {
    fn take(&mut self, json: Json, path: &str, depth: usize) -> Option<Json> {
        let fits = match &json {
            Json::String(text) => text.len() <= LONGEST,
            Json::Array(items) => items.len() <= ITEMS && depth < DEEPEST,
            Json::Object(_) => depth < DEEPEST,
            Json::Null | Json::Bool(_) | Json::Number(_) => true,
        };
        if !fits {
            self.omitted.push(path.into());
            return None;
        }
        match json {
            Json::Object(entries) => {
                let mut kept = Map::new();
                for (name, value) in entries {
                    self.names = self.names.saturating_add(1);
                    let path = format!("{path}.{name}");
                    let path = path.trim_start_matches('.').to_owned();
                    if name.len() > LONGEST || self.names > NAMES {
                        self.omitted.push("more".into());
                        continue;
                    }
                    if let Some(value) = self.take(value, &path, depth.saturating_add(1)) {
                        kept.insert(name, value);
                    }
                }
                Some(Json::Object(kept))
            }
            // A list with a hole would be another list.
            Json::Array(items) => {
                let before = self.omitted.len();
                let mut kept = Vec::with_capacity(items.len());
                for item in items {
                    kept.extend(self.take(item, path, depth.saturating_add(1)));
                }
                let whole = self.omitted.len() == before;
                whole.then(|| kept.into())
            }
            other => Some(other),
        }
    }
}

/// What a question tells of arguments: `arguments`, and as `arguments_omitted` the names of what is
/// too large and was left out.
///
/// # Errors
///
/// What is too large, below `root`, if nothing is to be left out; `fix` is what to do about it.
pub(super) fn trimmed(
    arguments: Map<String, Json>,
    omit_large: bool,
    (root, fix): (&str, &str),
) -> Result<Map<String, Json>, Invalid> {
    let mut trimmed = Trimmed {
        names: 0,
        omitted: Vec::new(),
    };
    let kept = trimmed.take(arguments.into(), "", 0).unwrap_or_default();
    let mut told = Map::from_iter([("arguments".to_owned(), kept)]);
    trimmed.omitted.truncate(20);
    if let Some(first) = trimmed.omitted.first() {
        if !omit_large {
            let name = first.as_str().unwrap_or_default();
            let path = format!("{root}.{name}");
            return Err(Invalid::new(path, "is too large to be looked at", fix));
        }
        told.insert("arguments_omitted".into(), trimmed.omitted.into());
    }
    Ok(told)
}
