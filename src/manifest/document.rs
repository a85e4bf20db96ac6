//! Documents of a file and their kinds.

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};

use crate::domain::Kind;

use super::{Problem, options, said, schema_of};

/// The version every manifest names.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum ApiVersion {
    /// The only one.
    #[serde(rename = "exeat/v1")]
    V1,
}

/// The documents of a file, each with the number of lines before it. `---` in the first column
/// begins a new one, in YAML also within a block of text.
pub fn split(content: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut from, mut first, mut at) = (0_usize, 0_usize, 0_usize);
    for (number, line) in content.split_inclusive('\n').enumerate() {
        let mark = line.trim_end();
        if mark == "---" || mark.starts_with("--- ") {
            documents.push((first, content.get(from..at).unwrap_or_default()));
            // What follows the mark on its own line belongs to the document.
            from = at.saturating_add(3);
            first = number;
        }
        at = at.saturating_add(line.len());
    }
    documents.push((first, content.get(from..).unwrap_or_default()));
    documents.retain(|(_, text)| {
        text.lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    documents
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
}

/// The kind a document says it is of.
pub(super) fn kind(
    file: &str,
    content: &str,
    first: usize,
    document: &str,
) -> Result<Kind, Problem> {
    let at = |line: usize, column, message: String| {
        Problem::at(file, content, line.saturating_add(first), column, message)
    };
    let header: Header = serde_saphyr::from_str_with_options(document, options())
        .map_err(|error| unreadable(file, content, first, document, &error))?;
    let places = || super::Places::of(document);
    match header.api_version.as_deref() {
        Some("exeat/v1") => {}
        Some(other) => {
            let (line, column) = places().find("apiVersion");
            return Err(at(
                line,
                column,
                format!("apiVersion `{other}` is not known; use `exeat/v1`"),
            ));
        }
        None => {
            return Err(at(
                1,
                1,
                "`apiVersion` is missing; begin with `apiVersion: exeat/v1`".into(),
            ));
        }
    }
    let names: Vec<_> = Kind::APPLIED.iter().map(|kind| kind.name()).collect();
    match header.kind.as_deref() {
        // Those that come about otherwise are told apart where they are read.
        Some(name) => Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                let (line, column) = places().find("kind");
                at(
                    line,
                    column,
                    format!(
                        "kind `{name}` is not known; use one of {}",
                        names.join(", ")
                    ),
                )
            }),
        None => Err(at(
            1,
            1,
            format!("`kind` is missing; use one of {}", names.join(", ")),
        )),
    }
}

/// A document as what it is meant to be.
pub(super) fn read<T: DeserializeOwned + JsonSchema>(
    file: &str,
    content: &str,
    first: usize,
    document: &str,
) -> Result<T, Problem> {
    serde_saphyr::from_str_with_options(document, options()).map_err(|error| {
        let problem = unreadable(file, content, first, document, &error);
        // The library stops at the first: whoever writes one by hand wants to hear of all.
        let lacks = missing::<T>(document);
        let told = lacks
            .iter()
            .any(|name| problem.message == format!("missing field {name}"));
        match lacks.len() {
            2.. if told => Problem {
                message: format!("missing fields {}", lacks.join(", ")),
                ..problem
            },
            _ => problem,
        }
    })
}

/// What a document has to say and does not.
fn missing<T: JsonSchema>(document: &str) -> Vec<String> {
    let schema = schema_of::<T>();
    let required = schema.get("required").and_then(|names| names.as_array());
    let names = required.into_iter().flatten().filter_map(|it| it.as_str());
    let places = super::Places::of(document);
    names
        .filter(|name| !places.says(name))
        .map(|name| format!("`{name}`"))
        .collect()
}

/// A document that is not YAML, or not of its kind.
fn unreadable(
    file: &str,
    content: &str,
    first: usize,
    document: &str,
    error: &serde_saphyr::Error,
) -> Problem {
    let message = said(error);
    if message.starts_with("missing field") {
        // The library points past the end; what lacks the field begins here.
        let (line, column) = super::Places::of(document).find("");
        return Problem::at(file, content, line.saturating_add(first), column, message);
    }
    match error.location() {
        Some(place) => {
            let number = |n: u64| usize::try_from(n).unwrap_or(0);
            Problem::at(
                file,
                content,
                number(place.line()).saturating_add(first),
                number(place.column()),
                message,
            )
        }
        None => Problem::at(file, content, first.saturating_add(1), 1, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_lines() {
        let text = "# head\n---\na: 1\n--- # note\nb: |\n  ---\n  x\n---\n";
        let documents = split(text);
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0], (1, "\na: 1\n"));
        assert_eq!(documents[1].0, 3);
        assert!(documents[1].1.contains("  ---\n  x"));
    }
}
