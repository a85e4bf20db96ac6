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
    /// Nothing: the life of the connection itself, or an answer to a question of the server.
    Nothing,
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
    let params = match message.remove("params") {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(params)) => params,
        Some(_) => return Err(wrong("body.params", "is no object")),
    };
    call(&method, params, server).map_err(|e| e.under("body"))
}

/// What a call of `method` asks of `server`.
///
/// # Errors
///
/// Parameters that do not name what is acted upon.
pub fn call(method: &str, mut params: Map<String, Json>, server: &str) -> Result<Asks, Invalid> {
    if method == "ping" || method == "initialize" || method.starts_with("notifications/") {
        return Ok(Asks::Nothing);
    }
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
            let arguments = params.remove("arguments");
            ("tool", format!("{server}/{name}"), arguments)
        }
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            ("resource", text("uri")?, None)
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
            ("some/thing", json!({}), "mcp_server", "mcp://crm"),
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
