//! Everything that is wrong with a manifest by its schema. Whoever reads one stops at the first; whoever
//! wrote it wants to hear of all.

use serde_json::{Map, Value as Json};

use crate::domain::{Invalid, Kind};

use super::{format, is_secret, options, schema};

/// How deep is looked.
const DEPTH: usize = 32;
/// Most faults of one manifest.
const MOST: usize = 50;

/// What is wrong with a manifest of `kind`, and how it is called: fields, types, words, and texts that
/// do not read as what they are meant to be. What stands between fields is told by whoever reads it.
pub(super) fn faults_of(kind: Kind, text: &str) -> (String, Vec<Invalid>) {
    let Ok(value) = serde_saphyr::from_str_with_options::<Json>(text, options()) else {
        return (String::new(), Vec::new());
    };
    let id = value.get("id").and_then(Json::as_str);
    let id = id.filter(|id| !is_secret(id));
    let of = id.map_or_else(String::new, |id| format!("{} {id}: ", kind.name()));
    (of, faults(&schema(kind), &value))
}

fn faults(schema: &Json, value: &Json) -> Vec<Invalid> {
    let mut found = Found {
        root: schema,
        faults: Vec::new(),
    };
    found.look(schema, value, "", DEPTH);
    found.faults
}

struct Found<'a> {
    root: &'a Json,
    faults: Vec<Invalid>,
}

impl<'a> Found<'a> {
    fn say(&mut self, path: &str, what: impl Into<String>, fix: impl Into<String>) {
        if self.faults.len() < MOST {
            self.faults.push(Invalid::new(path, what, fix));
        }
    }

    fn look(&mut self, schema: &'a Json, value: &Json, path: &str, deep: usize) {
        let Some(deep) = deep.checked_sub(1) else {
            return;
        };
        if value.is_null() {
            // Left out; whether it may be is the reader's to say.
            return;
        }
        let named = schema.get("$ref").and_then(Json::as_str);
        let named = named.and_then(|name| self.root.pointer(name.trim_start_matches('#')));
        for part in named.into_iter().chain(list(schema, "allOf")) {
            self.look(part, value, path, deep);
        }
        let null = |part: &Json| part.get("type").is_some_and(|kind| kind == "null");
        let mut some = list(schema, "anyOf").filter(|part| !null(part));
        if let (Some(only), None) = (some.next(), some.next()) {
            self.look(only, value, path, deep);
        }
        if let Some(words) = words(schema) {
            // A word may be written as the key of a map, too.
            let known = value.is_object() || words.contains(&value);
            if !known {
                let words: Vec<_> = words.iter().filter_map(|word| word.as_str()).collect();
                let fix = format!("use one of {}", words.join(", "));
                let what = match value.as_str() {
                    Some(text) if text.len() <= 80 => format!("`{text}` is not known"),
                    Some(_) => "is not known".to_owned(),
                    None => format!("is {}", told(value)),
                };
                self.say(path, what, fix);
            }
            return;
        }
        if let Some(kind) = schema.get("type")
            && !fits(kind, value)
        {
            self.say(
                path,
                format!("is {}", told(value)),
                format!("write {}", meant(kind)),
            );
            return;
        }
        match value {
            Json::Object(fields) => self.fields(schema, fields, path, deep),
            Json::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    if let Some(each) = schema.get("items") {
                        self.look(each, item, &format!("{path}[{at}]"), deep);
                    }
                }
            }
            Json::String(text) => {
                let meant = schema.get("format").and_then(Json::as_str);
                if let Some(wrong) = meant.and_then(|meant| format::wrong(meant, text)) {
                    self.say(path, wrong.what(), wrong.fix());
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }

    fn fields(&mut self, schema: &'a Json, fields: &Map<String, Json>, path: &str, deep: usize) {
        let known = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties");
        for name in list(schema, "required").filter_map(Json::as_str) {
            if fields.get(name).is_none_or(Json::is_null) {
                self.say(path, format!("missing field `{name}`"), "");
            }
        }
        for (name, value) in fields {
            let dot = if path.is_empty() { "" } else { "." };
            let inner = format!("{path}{dot}{name}");
            match known.and_then(|known| known.get(name)).or(others) {
                Some(Json::Bool(false)) => {
                    let known = known.into_iter().flat_map(Map::keys).cloned();
                    let known: Vec<String> = known.collect();
                    let fix = format!("use one of {}", known.join(", "));
                    self.say(&inner, "unknown field", fix);
                }
                Some(schema) => self.look(schema, value, &inner, deep),
                None => {}
            }
        }
    }
}

fn list<'a>(schema: &'a Json, name: &str) -> impl Iterator<Item = &'a Json> {
    let list = schema.get(name).and_then(Json::as_array);
    list.into_iter().flatten()
}

/// The words of which a value is one, where a schema says them.
fn words(schema: &Json) -> Option<Vec<&Json>> {
    if let Some(word) = schema.get("const") {
        return Some(vec![word]);
    }
    if schema.get("enum").is_some() {
        return Some(list(schema, "enum").collect());
    }
    schema.get("oneOf")?;
    let each = list(schema, "oneOf").map(words);
    let each: Option<Vec<_>> = each.collect();
    each.map(|each| each.concat())
}

/// Whether a value is of a type. A plain word in a manifest reads as text whatever it looks like.
fn fits(kind: &Json, value: &Json) -> bool {
    let of = |kind: &str| match value {
        Json::Object(_) => kind == "object",
        Json::Array(_) => kind == "array",
        // A number in quotes is read as one.
        Json::String(text) => match kind {
            "integer" | "number" => text.parse::<f64>().is_ok(),
            "boolean" => text.parse::<bool>().is_ok(),
            _ => kind == "string",
        },
        Json::Bool(_) => kind == "boolean" || kind == "string",
        Json::Number(number) => match kind {
            "integer" => number.is_i64() || number.is_u64(),
            _ => kind == "number" || kind == "string",
        },
        Json::Null => true,
    };
    match kind {
        Json::String(kind) => of(kind),
        Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).any(of),
        _ => true,
    }
}

fn told(value: &Json) -> &'static str {
    match value {
        Json::Object(_) => "a map",
        Json::Array(_) => "a list",
        Json::String(_) => "a text",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::Null => "nothing",
    }
}

/// What is to be written where a schema says a type.
fn meant(kind: &Json) -> &'static str {
    let first = match kind {
        Json::Array(kinds) => kinds.first().and_then(Json::as_str),
        _ => kind.as_str(),
    };
    match first {
        Some("object") => "a map",
        Some("array") => "a list",
        Some("string") => "a text",
        Some("boolean") => "true or false",
        Some("integer") => "a whole number",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_where_it_is() {
        let text = r#"
apiVersion: exeat/v1
kind: Exception
id: not an id
colour: red
control_ids: [CT-A, ct b]
deviation_type: SOMETIMES
justification: {business_need: b, risk_statement: r, remediation_plan: p}
scope: {subject_selector: {ids: [a]}, actions: x, resources: [t], environments: [prod], purposes: [work]}
bound_fingerprints: {model: nothing}
effective_time: soon
expire_time: "2027-01-01T00:00:00Z"
owner: agent:a
requester: 7
tier: LOW
evidence: [{evidence_id: e, digest: "sha256:ab", required: true}]
usage_limits: {max_uses: some}
state: APPROVED
"#;
        let (of, faults) = faults_of(Kind::Exception, text);
        assert_eq!(of, "Exception not an id: ");
        let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let has = |path: &str, what: &str| {
            let found = faults
                .iter()
                .any(|fault| fault.path() == path && fault.what().contains(what));
            assert!(found, "{path}: {what}: {told:#?}");
        };
        has("id", "not an id");
        has("colour", "unknown field");
        has("control_ids[1]", "ct b");
        has("deviation_type", "`SOMETIMES` is not known");
        has("justification", "missing field `ticket_ref`");
        has("scope.actions", "is a text");
        has("bound_fingerprints.model", "nothing");
        has("effective_time", "soon");
        has("owner", "not a person");
        has("evidence[0]", "missing field `expire_time`");
        has("usage_limits.max_uses", "is a text");
        assert_eq!(faults.len(), 11, "{told:#?}");
    }

    /// Of what is right nothing is told: whatever a reader takes has no faults (the law that keeps
    /// schemas from being stricter than readers). Templates and examples as they are, without each of
    /// their lines, and with its value in quotes.
    #[test]
    fn what_is_right_has_no_faults() {
        let mut read = 0;
        let mut folders: Vec<_> = ["src/cli/templates", "examples"]
            .map(|folder| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
            .into();
        while let Some(folder) = folders.pop() {
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "yaml") {
                    let content = at_a_time(&std::fs::read_to_string(&path).unwrap());
                    for (_, text) in super::super::split(&content) {
                        read += held(text);
                        for line in text.lines() {
                            read += held(&text.replacen(&format!("{line}\n"), "", 1));
                            if let Some((name, value)) = line.split_once(": ") {
                                let quoted = format!("{name}: \"{value}\"");
                                read += held(&text.replacen(line, &quoted, 1));
                            }
                        }
                    }
                }
            }
        }
        assert!(read > 300, "{read}");
    }

    /// How many manifests were read: one that is has no faults.
    fn held(text: &str) -> usize {
        let whole = [("a.yaml".to_owned(), text.to_owned())];
        let bundle = super::super::Bundle::read_files(whole);
        if !bundle.is_ok_and(|bundle| bundle.snapshot(1).is_ok()) {
            return 0;
        }
        let kind = super::super::document::kind("", text, 0, text).unwrap();
        assert_eq!(faults_of(kind, text).1, [], "{text}");
        1
    }

    /// Times that templates leave open.
    fn at_a_time(text: &str) -> String {
        let parts = text.split('"').map(|part| {
            if part.starts_with('@') {
                "2026-11-22T12:00:00Z"
            } else {
                part
            }
        });
        parts.collect::<Vec<_>>().join("\"")
    }
}
