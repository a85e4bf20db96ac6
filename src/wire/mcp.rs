//! What a message of the Model Context Protocol asks for, whoever carries it.
//!
//! Actions are method names, and what is acted upon is named as the AuthZEN profile for MCP does
//! (COAZ): `tool`, `resource`, `prompt`, or the `mcp_server` itself. A tool's id is
//! `SERVER/NAME`; its arguments are read as `request.resource.properties.arguments`.

use serde_json::{Map, Value as Json};

use crate::domain::Invalid;

use super::{json::fields, v1};

/// What a message asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asks {
    /// Something that is decided.
    Question {
        /// The method.
        action: String,
        /// What is acted upon.
        resource: v1::Resource,
    },
    /// Nothing: the life of the connection itself, or an answer to a question of the server. It goes
    /// on for whoever may speak at all.
    Nothing,
}

/// What may be asked of a server; of anything else nobody knows what it would do.
const METHODS: [&str; 15] = [
    "completion/complete",
    "logging/setLevel",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tools/call",
    "tools/list",
];

/// A list that a server answers with, of what may be asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// How it is asked for.
    pub method: &'static str,
    /// What its items are called in a result.
    pub of: &'static str,
    /// What names an item.
    pub naming: &'static str,
    /// What is asked to use one.
    pub action: &'static str,
}

/// Every one.
pub const LISTS: [List; 3] = [
    List {
        method: "tools/list",
        of: "tools",
        naming: "name",
        action: "tools/call",
    },
    List {
        method: "resources/list",
        of: "resources",
        naming: "uri",
        action: "resources/read",
    },
    List {
        method: "prompts/list",
        of: "prompts",
        naming: "name",
        action: "prompts/get",
    },
];

impl List {
    /// What the item of `server` is that is called `name`.
    ///
    /// # Errors
    ///
    /// A name that nobody can ask for.
    pub fn resource(&self, name: &str, server: &str) -> Result<v1::Resource, Invalid> {
        let params = Map::from_iter([(self.naming.to_owned(), name.into())]);
        match call(self.action, params, server)? {
            Asks::Question { resource, .. } => Ok(resource),
            Asks::Nothing => Err(Invalid::new("", "is nothing that is asked for", "")),
        }
    }
}

/// Refuses names that others may read as known ones.
pub(super) fn plain(entries: &Map<String, Json>, known: &[&str]) -> Result<(), Invalid> {
    let alike = |name: &&String| {
        !name.is_ascii()
            || known
                .iter()
                .any(|known| *known != name.as_str() && known.eq_ignore_ascii_case(name))
    };
    match entries.keys().find(alike) {
        None => Ok(()),
        Some(name) => Err(Invalid::new(
            name.clone(),
            "is read by some as a name of the protocol",
            "write names as the protocol does",
        )),
    }
}

/// What a JSON-RPC message asks of `server`.
///
/// # Errors
///
/// A message that is no JSON-RPC request, or does not say what it is about.
pub fn message(json: Json, server: &str) -> Result<Asks, Invalid> {
    let wrong = |path: &str, what: &str| Invalid::new(path, what, "send one JSON-RPC 2.0 request");
    let Json::Object(mut message) = json else {
        let what = if json.is_array() {
            "is a batch: many questions, of which one answer would be for all"
        } else {
            "is no object"
        };
        return Err(wrong("body", what));
    };
    let known = ["jsonrpc", "id", "method", "params", "result", "error"];
    plain(&message, &known).map_err(|e| e.under("body"))?;
    if message.get("jsonrpc").and_then(Json::as_str) != Some("2.0") {
        return Err(wrong("body.jsonrpc", "is not 2.0"));
    }
    let method = match message.remove("method") {
        Some(Json::String(method)) => method,
        None if message.contains_key("result") || message.contains_key("error") => {
            return Ok(Asks::Nothing);
        }
        _ => return Err(wrong("body.method", "is no text")),
    };
    if method.starts_with("notifications/") && message.contains_key("id") {
        return Err(wrong("body.id", "is there, and a notification has none"));
    }
    let params = match message.remove("params") {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(params)) => params,
        Some(_) => return Err(wrong("body.params", "is no object")),
    };
    call(&method, params, server).map_err(|e| e.under("body"))
}

/// What addresses have escaped alone.
const NEVER_PLAIN: &[u8] = b"\"<>^`{|}";

/// Whether what is escaped in a path or an address is read alike by everybody.
///
/// # Errors
///
/// What may be read in more than one way.
pub fn escapes(text: &str) -> Result<(), &'static str> {
    let mut bytes = text.bytes();
    let mut read = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if NEVER_PLAIN.contains(&byte) {
            return Err("has characters that addresses have escaped alone");
        }
        if byte != b'%' {
            read.push(byte);
            continue;
        }
        // In capitals, since both are one byte and two names.
        let digit = |byte: Option<u8>| {
            let byte = byte.filter(|byte| !byte.is_ascii_lowercase())?;
            char::from(byte).to_digit(16)
        };
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err("has a % that escapes nothing, or in small letters");
        };
        let byte = u8::try_from(high * 16 + low).map_err(|_| "has a % that escapes nothing")?;
        // What has no plain form, and nothing else.
        if !(byte == b' ' || !byte.is_ascii() || NEVER_PLAIN.contains(&byte)) {
            return Err("escapes what has a plain form, parts it, or is unseen");
        }
        read.push(byte);
    }
    match std::str::from_utf8(&read) {
        Ok(_) => Ok(()),
        Err(_) => Err("escapes what is no text"),
    }
}

/// What a call of `method` asks of `server`.
///
/// # Errors
///
/// Parameters that do not name what is acted upon.
pub fn call(method: &str, mut params: Map<String, Json>, server: &str) -> Result<Asks, Invalid> {
    let lives = [
        "ping",
        "initialize",
        "server/discover",
        "subscriptions/listen",
    ];
    if lives.contains(&method) || method.starts_with("notifications/") {
        return Ok(Asks::Nothing);
    }
    if !METHODS.contains(&method) {
        return Err(Invalid::new(
            "method",
            format!(
                "`{}` is not known",
                method.chars().take(60).collect::<String>()
            ),
            "ask for what the protocol has",
        ));
    }
    plain(&params, &["name", "uri", "taskId", "arguments"]).map_err(|e| e.under("params"))?;
    let mut text = |name: &str| match params.remove(name) {
        Some(Json::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(Invalid::new(
            format!("params.{name}"),
            "is missing, or no text",
            format!("{method} names what it is about"),
        )),
    };
    let (kind, id, arguments) = match method {
        "tools/call" => {
            let name = text("name")?;
            if name.contains('/') {
                let what = "has a `/`, which parts a tool from its server";
                let fix = "name tools without it";
                return Err(Invalid::new("params.name", what, fix));
            }
            let arguments = params.remove("arguments");
            ("tool", format!("{server}/{name}"), arguments)
        }
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            let uri = text("uri")?;
            escapes(&uri).map_err(|what| {
                let fix = "send it in its plain form";
                Invalid::new("params.uri", what, fix)
            })?;
            ("resource", uri, None)
        }
        "prompts/get" => ("prompt", format!("{server}/{}", text("name")?), None),
        "tasks/get" | "tasks/result" | "tasks/cancel" => ("task", text("taskId")?, None),
        _ => ("mcp_server", server.to_owned(), None),
    };
    let mut properties = Map::new();
    if let Some(arguments @ Json::Object(_)) = arguments {
        properties.insert("arguments".into(), arguments);
    } else if arguments.is_some_and(|arguments| !arguments.is_null()) {
        return Err(Invalid::new(
            "params.arguments",
            "is no object",
            "send the arguments by name",
        ));
    }
    Ok(Asks::Question {
        action: method.to_owned(),
        resource: v1::Resource {
            r#type: kind.to_owned(),
            id,
            properties: (!properties.is_empty()).then(|| fields(properties)),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(json: Json) -> Result<(String, String, String), String> {
        match message(json, "mcp://crm") {
            Ok(Asks::Question { action, resource }) => Ok((action, resource.r#type, resource.id)),
            Ok(Asks::Nothing) => Ok(Default::default()),
            Err(invalid) => Err(invalid.to_string()),
        }
    }

    #[test]
    fn a_message_names_what_it_is_about() {
        for (method, params, kind, id) in [
            (
                "tools/call",
                json!({"name": "refund", "arguments": {"rows": 3}}),
                "tool",
                "mcp://crm/refund",
            ),
            (
                "resources/read",
                json!({"uri": "file:///a"}),
                "resource",
                "file:///a",
            ),
            (
                "prompts/get",
                json!({"name": "greet"}),
                "prompt",
                "mcp://crm/greet",
            ),
            ("tools/list", json!({}), "mcp_server", "mcp://crm"),
        ] {
            let told = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
            let wanted = (method.to_owned(), kind.to_owned(), id.to_owned());
            assert_eq!(asked(told), Ok(wanted));
        }
        for nothing in [
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled"}),
            json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}),
            json!({"jsonrpc": "2.0", "id": 1, "result": {}}),
        ] {
            assert_eq!(asked(nothing), Ok(Default::default()));
        }
    }

    #[test]
    fn what_is_no_message_is_said_to_be_none() {
        for (told, path) in [
            (json!([{"jsonrpc": "2.0"}]), "body"),
            (json!("text"), "body"),
            (json!({"jsonrpc": "1.0"}), "body.jsonrpc"),
            (json!({"jsonrpc": "2.0", "method": 5}), "body.method"),
            (
                json!({"jsonrpc": "2.0", "method": "some/thing"}),
                "body.method",
            ),
            (
                json!({"jsonrpc": "2.0", "method": "ping", "Method": "tools/call"}),
                "body.Method",
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "a", "Name": "b"}}),
                "body.params.Name",
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "a/b"}}),
                "body.params.name",
            ),
            (
                json!({"jsonrpc": "2.0", "id": 1, "method": "notifications/x"}),
                "body.id",
            ),
            (
                json!({"jsonrpc": "2.0", "method": "resources/read", "params": {"uri": "file:///%73ecret"}}),
                "body.params.uri",
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call", "params": []}),
                "body.params",
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call"}),
                "body.params.name",
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "a", "arguments": 3}}),
                "body.params.arguments",
            ),
        ] {
            let refused = asked(told).unwrap_err();
            assert!(
                refused.starts_with(&format!("`{path}`")),
                "{path}: {refused}"
            );
        }
    }
}
