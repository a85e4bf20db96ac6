//! Who may name whom, which folder owns which crate, and how large a file may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each folder with the folders it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("domain", &[]),
    // The second implementation of the ledger shares nothing with the first.
    ("audit", &[]),
    ("engine", &["domain"]),
    ("wire", &["domain", "engine"]),
    ("manifest", &["domain", "engine"]),
    ("runtime", &["domain"]),
    ("telemetry", &["domain", "runtime"]),
    ("config", &["domain", "manifest"]),
    (
        "sidecar",
        &[
            "domain",
            "engine",
            "wire",
            "manifest",
            "runtime",
            "telemetry",
            "config",
        ],
    ),
    (
        "registry",
        &[
            "domain",
            "engine",
            "wire",
            "manifest",
            "runtime",
            "telemetry",
            "config",
        ],
    ),
    ("proxy", &["domain", "wire", "manifest", "runtime"]),
    (
        "cli",
        &[
            "domain",
            "engine",
            "wire",
            "manifest",
            "runtime",
            "telemetry",
            "config",
            "sidecar",
            "registry",
            "proxy",
            "audit",
        ],
    ),
    ("testing", &["domain", "engine"]),
];

/// Words that only the folders named beside them may use.
const OWNED: &[(&str, &[&str])] = &[
    (
        "tokio",
        &[
            "runtime",
            "telemetry",
            "sidecar",
            "registry",
            "proxy",
            "cli",
            "main.rs",
        ],
    ),
    (
        "tonic",
        &["wire", "runtime", "sidecar", "registry", "proxy", "cli"],
    ),
    ("prost", &["wire", "cli"]),
    (
        "tracing",
        &[
            "runtime",
            "telemetry",
            "sidecar",
            "registry",
            "proxy",
            "cli",
        ],
    ),
    ("axum", &["sidecar", "registry", "proxy"]),
    ("arc_swap", &["runtime"]),
    ("notify", &["sidecar", "cli"]),
    ("prometheus_client", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("serde_saphyr", &["manifest", "config", "cli"]),
    ("clap", &["cli", "main.rs"]),
    ("cel::", &["engine"]),
    ("regex::", &["engine"]),
    ("x509_parser", &["wire"]),
    ("hyper", &["runtime", "proxy"]),
    ("http_body_util", &["runtime", "proxy"]),
    ("rustls_native_certs", &["runtime"]),
    ("jsonwebtoken", &["wire"]),
    // Two that keep files: the store, and the spool of usage records.
    ("spiffe", &["runtime"]),
    ("sqlx", &["registry", "sidecar"]),
    ("rcgen", &["registry"]),
    ("rustls", &["runtime"]),
    ("tokio_rustls", &["runtime"]),
    ("aws_lc_rs", &["wire", "audit"]),
    ("argon2", &["registry"]),
    ("flate2", &["runtime"]),
    ("form_urlencoded", &["wire"]),
    ("rpassword", &["cli"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let cut = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..cut]
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
}

fn word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(before)
            && (word.ends_with(':') || !part(after))
            && (word.ends_with(':') || line[at + word.len()..].trim_start().starts_with("::"))
    })
}

#[test]
fn folders_name_only_what_lies_below_them() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    assert!(files.len() > 50, "{}", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        let place = file.strip_prefix("src").expect("below src");
        let folder = place
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_str()
            .expect("text")
            .to_owned();
        let lines = text.lines().count();
        let most = if place.ends_with("mod.rs") { 80 } else { 600 };
        if lines > most {
            wrong.push(format!("{}: {lines} lines, at most {most}", file.display()));
        }
        for (at, line) in code(&text) {
            let here = format!("{}:{at}", file.display());
            if line.contains("super::super") {
                wrong.push(format!("{here}: super::super"));
            }
            for (owned, owners) in OWNED {
                if word(line, owned) && !owners.contains(&folder.as_str()) {
                    wrong.push(format!("{here}: {owned} belongs to {owners:?}"));
                }
            }
            let Some((_, may)) = MAY_NAME.iter().find(|(name, _)| *name == folder) else {
                continue;
            };
            for (other, _) in MAY_NAME {
                let named = [format!("crate::{other}"), format!("crate::{{{other}")]
                    .iter()
                    .any(|name| line.contains(name.as_str()));
                // Grouped imports name a folder a line.
                let grouped = line.starts_with(&format!("    {other}::"));
                if (named || grouped) && *other != folder && !may.contains(other) {
                    wrong.push(format!("{here}: {folder} may not name {other}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is said to people names no rule by its number: they cannot look it up.
#[test]
fn no_text_names_a_rule() {
    let (mut files, mut found) = (Vec::new(), Vec::new());
    sources(Path::new("src"), &mut files);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let said = line.trim_start();
            if said.starts_with("//") || !said.contains('"') {
                continue;
            }
            let rule = said.split('(').skip(1).any(|rest| {
                let name = rest.split(')').next().unwrap_or_default();
                let digits = name.trim_start_matches(|c: char| c.is_ascii_uppercase());
                name.len() == digits.len() + 1
                    && !digits.is_empty()
                    && digits.chars().all(|c| c.is_ascii_digit())
            });
            if rule {
                found.push(format!("{}:{}: {said}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
