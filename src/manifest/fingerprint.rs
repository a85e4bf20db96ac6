//! Facet digests: SHA-256 over canonical JSON, one digest a facet (R9, R36).

use std::fmt::Write as _;

use serde_json::{Number, Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::domain::{Digest, Facet, Fingerprint, Invalid};

/// `sha256:` and 64 hex digits over the canonical form of `value`.
pub(super) fn digest(value: &Json) -> Result<Digest, Invalid> {
    let mut text = String::new();
    canonical(value, &mut text);
    digest_of(text.as_bytes())
}

/// `sha256:` and 64 hex digits over `bytes`.
pub(super) fn digest_of(bytes: &[u8]) -> Result<Digest, Invalid> {
    written(&Sha256::digest(bytes))
}

/// A SHA-256 as text.
pub(super) fn written(hash: &[u8]) -> Result<Digest, Invalid> {
    let hex = hash.iter().fold(String::from("sha256:"), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    Digest::parse(&hex)
}

/// The digest of a tool's definition, as its server offers it: over all it says of the tool that a
/// model may read, and over the server's name (U2). Anybody gets the same: it is the SHA-256 of
/// `{"server": …, "tool": …}` in the form of RFC 8785, where the tool is its entry in `tools/list`
/// without `_meta` and `icons`.
///
/// # Errors
///
/// What is no object.
pub fn definition(server: &str, entry: &Json) -> Result<Digest, Invalid> {
    let Some(said) = entry.as_object() else {
        return Err(Invalid::new(
            "",
            "is no object",
            "send what the protocol has",
        ));
    };
    let mut said = said.clone();
    said.retain(|name, _| !["_meta", "icons"].contains(&name.as_str()));
    let mut text = String::new();
    let whole = json!({"server": server, "tool": said});
    write(&whole, &mut text, &of_ecmascript);
    digest_of(text.as_bytes())
}

/// RFC 8785 for what stands in facets: sorted names, no blanks; numbers are whole.
pub(super) fn canonical(value: &Json, out: &mut String) {
    write(value, out, &|number| number.to_string());
}

/// A number as ECMAScript writes it: what no double holds is the nearest that one does.
fn of_ecmascript(number: &Number) -> String {
    const SAFE: u64 = 1 << 53;
    let whole = number
        .as_i64()
        .is_some_and(|whole| whole.unsigned_abs() <= SAFE);
    match number.as_f64().filter(|_| !whole) {
        Some(number) => ryu_js::Buffer::new().format(number).to_owned(),
        None => number.to_string(),
    }
}

fn write(value: &Json, out: &mut String, number: &impl Fn(&Number) -> String) {
    match value {
        Json::Object(entries) => {
            let mut names: Vec<_> = entries.iter().collect();
            names.sort_by_key(|(name, _)| name.encode_utf16().collect::<Vec<_>>());
            out.push('{');
            for (at, (name, value)) in names.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Json::from(name.as_str()).to_string());
                out.push(':');
                write(value, out, number);
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out, number);
            }
            out.push(']');
        }
        Json::Number(of) => out.push_str(&number(of)),
        Json::Null | Json::Bool(_) | Json::String(_) => out.push_str(&value.to_string()),
    }
}

/// The fingerprint of a subject's attributes, and the digest over it.
///
/// A list counts as a set: the order in which tools are reported changes nothing. Volatile facts
/// (times, replicas, hosts) are in no facet (U6).
pub(super) fn fingerprint(attributes: &Json) -> Result<(Fingerprint, Digest), Invalid> {
    let pick = |of: &Json, names: &[&str]| -> Json {
        names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), of.get(*name)?.clone())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let items = |name: &str| {
        attributes
            .get(name)
            .and_then(Json::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let set = |mut items: Vec<Json>| -> Json {
        items.sort_by_cached_key(|item| {
            let mut text = String::new();
            canonical(item, &mut text);
            text
        });
        Json::Array(items)
    };
    let inner = |item: &Json, name: &str| {
        set(item
            .get(name)
            .and_then(Json::as_array)
            .cloned()
            .unwrap_or_default())
    };
    let model = attributes
        .get("model")
        .map(|model| pick(model, &["provider", "name", "version", "digest"]));
    let tools = items("tools").iter().map(|tool| json!({"tool": pick(tool, &["server", "name", "definition_digest"]), "permissions": inner(tool, "permissions")})).collect();
    let permissions = items("tools").iter().map(|tool| json!({"tool": pick(tool, &["server", "name"]), "permissions": inner(tool, "permissions")})).collect();
    let prompts = items("prompts")
        .iter()
        .map(|prompt| pick(prompt, &["id", "digest"]))
        .collect();
    let sources = items("data_sources")
        .iter()
        .map(|source| pick(source, &["id", "sensitivity"]))
        .collect();
    let scopes = items("credentials")
        .iter()
        .filter(|credential| credential.get("state").and_then(Json::as_str) == Some("ACTIVE"))
        .map(|credential| json!({"credential": pick(credential, &["id", "kind"]), "scopes": inner(credential, "scopes")}))
        .collect();
    let parts = [
        (Facet::Model, model.unwrap_or(Json::Null)),
        (Facet::Tools, set(tools)),
        (Facet::Prompts, set(prompts)),
        (Facet::DataSources, set(sources)),
        (Facet::Permissions, set(permissions)),
        (Facet::CredentialsScopes, set(scopes)),
        (
            Facet::Environment,
            pick(attributes, &["environment", "region"]),
        ),
        (
            Facet::Purpose,
            attributes
                .get("purpose")
                .map_or(Json::Null, |purpose| inner(purpose, "permitted_ids")),
        ),
    ];
    let mut digests = Vec::with_capacity(parts.len());
    let mut all = serde_json::Map::new();
    for (facet, part) in parts {
        let digest = digest(&part)?;
        all.insert(facet.name().to_owned(), digest.as_str().into());
        digests.push((facet, digest));
    }
    let combined = digest(&Json::Object(all))?;
    Ok((Fingerprint::new(digests), combined))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_digested_as_anybody_else_would() {
        let entry = json!({"name": "a", "description": "d", "_meta": {"x": 1}, "icons": [], "server": "mine",
            "inputSchema": {"properties": {"\u{20ac}": {"multipleOf": 0.01, "maximum": 1e21, "minimum": 1.0, "big": u64::MAX}}}});
        // Written out by hand, and hashed by another program.
        let said = "{\"server\":\"mcp://crm\",\"tool\":{\"description\":\"d\",\"inputSchema\":{\"properties\":{\"\u{20ac}\":{\"big\":18446744073709552000,\"maximum\":1e+21,\"minimum\":1,\"multipleOf\":0.01}}},\"name\":\"a\",\"server\":\"mine\"}}";
        let digest = definition("mcp://crm", &entry).unwrap();
        assert_eq!(digest, digest_of(said.as_bytes()).unwrap());
        assert_eq!(
            digest.as_str(),
            "sha256:4b3f2d57727a0ebb91a901415675d0b2064dab34111a7efe052897ee7afde51e"
        );
        assert_ne!(definition("mcp://other", &entry).unwrap(), digest);
        assert!(definition("mcp://crm", &json!(3)).is_err());
    }

    #[test]
    fn r36_a_changed_description_changes_the_tools_facet_alone() {
        let before = json!({"environment": "prod", "tools": [
            {"server": "mcp://crm", "name": "a", "definition_digest": "sha256:1", "permissions": ["read", "write"]},
            {"server": "mcp://crm", "name": "b", "definition_digest": "sha256:2"}]});
        let mut reordered = before.clone();
        reordered["tools"].as_array_mut().unwrap().reverse();
        reordered["tools"][1]["permissions"]
            .as_array_mut()
            .unwrap()
            .reverse();
        reordered["tools"][1]["last_used_time"] = "2026-01-01T00:00:00Z".into();
        let mut changed = before.clone();
        changed["tools"][1]["definition_digest"] = "sha256:rugpull".into();
        let of = |json: &Json| fingerprint(json).unwrap();
        assert_eq!(of(&before), of(&reordered));
        assert_eq!(
            of(&before).0.changed(&of(&changed).0).collect::<Vec<_>>(),
            [Facet::Tools]
        );
        assert_ne!(of(&before).1, of(&changed).1);
    }
}
