//! A file of settings that is more than keys and values, and where in it each stands.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::manifest::{Places, options, said};

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    content: String,
}

impl Source {
    /// Reads a file, and what it holds.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or does not hold that, with the place.
    pub fn read<T: DeserializeOwned>(path: &Path) -> Result<(Self, T), String> {
        let shown = path.display();
        let content = std::fs::read_to_string(path)
            .map_err(|error| format!("{shown}: cannot be read: {error}"))?;
        let held = serde_saphyr::from_str_with_options(&content, options()).map_err(|error| {
            let message = said(&error);
            match error.location() {
                Some(place) => format!("{shown}:{}:{}: {message}", place.line(), place.column()),
                None => format!("{shown}: {message}"),
            }
        })?;
        let path = path.to_owned();
        Ok((Self { path, content }, held))
    }

    /// What is wrong with a field, with its place.
    pub fn wrong(&self, field: &str, why: &str) -> String {
        let (line, column) = Places::of(&self.content).find(field);
        format!("{}:{line}:{column}: `{field}`: {why}", self.path.display())
    }

    /// A file that is named in this one: relative to it.
    pub fn beside(&self, name: &str) -> PathBuf {
        match self.path.parent() {
            Some(folder) => folder.join(name),
            None => PathBuf::from(name),
        }
    }

    /// The text of a file that is named in this one.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, with its name.
    pub fn text(&self, name: &str) -> Result<String, String> {
        let path = self.beside(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    }
}
