//! Texts that look like secrets: refused with their place, never kept and never repeated (R21).

use crate::domain::Invalid;

/// What tokens and keys of widely used systems begin with, and how many more characters they have
/// at the least.
const BEGINNINGS: [(&str, usize); 18] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 30),
    ("gho_", 30),
    ("ghs_", 30),
    ("ghu_", 30),
    ("ghr_", 30),
    ("xapp-", 20),
    ("whsec_", 24),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("sk-", 20),
    ("sk_live_", 16),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("AIza", 30),
    ("npm_", 30),
    ("exeat_", 40),
];

/// Whether some of `text` looks like a secret.
pub fn is_secret(text: &str) -> bool {
    let within = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut words = text.split(|c: char| !within(c));
    text.contains("-----BEGIN ") && text.contains("PRIVATE KEY")
        || text.split_whitespace().any(has_password)
        || words.any(|word| {
            let begins = |(start, rest): &(&str, usize)| {
                word.strip_prefix(start)
                    .is_some_and(|tail| tail.len() >= *rest)
            };
            BEGINNINGS.iter().any(begins) || is_hub_token(word) || is_token(word)
        })
}

/// Whether a word is a token of a model hub: letters and digits, where names have words.
fn is_hub_token(word: &str) -> bool {
    let rest = word.strip_prefix("hf_").and_then(|rest| rest.get(..30));
    rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Whether it is how an image is pinned.
fn is_image_digest(text: &str) -> bool {
    let hex = text
        .strip_prefix("sha256:")
        .or_else(|| text.strip_prefix("sha512:"));
    hex.is_some_and(|hex| hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a word holds an address with a password in it. An image's digest is none.
fn has_password(word: &str) -> bool {
    word.split("://").skip(1).any(|rest| {
        let host = rest.split(['/', '?', '#']).next();
        let user = host.and_then(|host| host.rsplit_once('@'));
        let user = user.filter(|(_, host)| !is_image_digest(host));
        let password = user.and_then(|(user, _)| user.split_once(':'));
        password.is_some_and(|(_, password)| !password.is_empty())
    })
}

/// Whether a word is a signed token: three parts of base64, the first an object.
fn is_token(word: &str) -> bool {
    let parts: Vec<_> = word.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.len() >= 8) && word.starts_with("eyJ")
}

/// Refuses a value in which a text looks like a secret, at the path of the text.
pub(super) fn refuse_secrets(value: &serde_json::Value, path: &str) -> Result<(), Invalid> {
    use serde_json::Value as Json;
    match value {
        Json::String(text) if is_secret(text) => Err(Invalid::new(
            path,
            "looks like a secret",
            "name where it is kept, and revoke it if it is one",
        )),
        Json::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(at, item)| refuse_secrets(item, &format!("{path}[{at}]")))
        }
        Json::Object(fields) => fields.iter().try_for_each(|(name, field)| {
            let dot = if path.is_empty() { "" } else { "." };
            refuse_secrets(field, &format!("{path}{dot}{name}"))
        }),
        Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_about_secrets_is_none() {
        for text in [
            "rotate the AKIA keys of the batch user",
            "sk-learn is what trains it",
            "see docs.exeat.example/secrets.md",
            "sha256:5d7c0e6d7a90fe71aa18c077ab2a5034474331a0",
            "spiffe://acme.example/claims-eu/agent/summary",
            "the tool hf_inference_endpoint_for_claims_eu",
            "docker://alpine:3.19@sha256:5d7c0e6d7a90fe71aa18c077ab2a5034474331a0",
            "ssh://git@code.example:22/claims and https://code.example/a:b@c",
        ] {
            assert!(!is_secret(text), "{text}");
        }
        let long = "a1B2".repeat(9);
        for text in [
            format!("whsec_{long}"),
            format!("the key is hf_{long}."),
            format!("ghu_{long}"),
            "see postgres://batch:hunter2@db.example/ledger".to_owned(),
            "a://b,postgres://batch:hunter2@db.example".to_owned(),
        ] {
            assert!(is_secret(&text), "{text}");
        }
    }
}
