//! Coding agents and what they say before they act, each in its own form (ecosystem b.2).
//!
//! A tool of an MCP server is `mcp://SERVER/TOOL`, and one of the agent's own `HARNESS/TOOL`. There is
//! no opinion on what is allowed: the agent's own rules still apply to it.

use serde_json::{Map, Value as Json, json};

use crate::domain::Invalid;

use super::{
    authzen::{permits, relied_on},
    json::fields,
    trimmed::trimmed,
    v1,
};

/// A coding agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harness {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
}

impl Harness {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// What it says before a tool is used.
    pub fn before_tool(self) -> &'static str {
        match self {
            Self::Claude | Self::Codex => "PreToolUse",
            Self::Gemini => "BeforeTool",
        }
    }
}

/// What is about to happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something that is decided, under the event's name.
    Asks(String, Box<v1::CheckRequest>),
    /// Something that is over, or that nobody can say no to.
    Tells,
}

/// What is over, or what nobody can say no to.
const TELLS: [&str; 16] = [
    "AfterAgent",
    "AfterModel",
    "AfterTool",
    "ConfigChange",
    "InstructionsLoaded",
    "Notification",
    "PermissionDenied",
    "PostModelSwitch",
    "PostToolUse",
    "PostToolUseFailure",
    "SessionEnd",
    "SessionStart",
    "Stop",
    "SubagentStart",
    "SubagentStop",
    "UserPromptSubmit",
];

fn missing(name: &str) -> Invalid {
    Invalid::new(
        name,
        "is missing, or no text",
        "send what the hook was given",
    )
}

fn text<'a>(json: &'a Json, name: &str) -> Result<&'a str, Invalid> {
    let said = json.pointer(&format!("/{}", name.replace('.', "/")));
    let said = said.and_then(Json::as_str).filter(|text| !text.is_empty());
    said.ok_or_else(|| missing(name))
}

/// The tool that is about to be used.
fn tool(harness: Harness, json: &Json) -> Result<String, Invalid> {
    let name = text(json, "tool_name")?;
    let unclear = |what: &str| Invalid::new("tool_name", what, "name tools and servers plainly");
    let (server, tool) = if json
        .get("mcp_context")
        .is_some_and(|context| !context.is_null())
    {
        let server = text(json, "mcp_context.server_name")?;
        (
            format!("mcp://{server}"),
            text(json, "mcp_context.tool_name")?,
        )
    } else if let Some(rest) = name.strip_prefix("mcp__") {
        let (server, tool) = if let Ok(server) = text(json, "mcp_server.name") {
            // As the agent writes it into names of tools.
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let server: String = server
                .chars()
                .map(|c| if plain(c) { c } else { '_' })
                .collect();
            let tool = rest
                .strip_prefix(&server)
                .and_then(|rest| rest.strip_prefix("__"));
            let tool = tool.ok_or_else(|| unclear("does not begin with its server's name"))?;
            (server, tool)
        } else {
            let parts = rest.split_once("__");
            let (server, tool) = parts.ok_or_else(|| unclear("names a server and no tool"))?;
            if tool.contains("__") || rest.contains("___") {
                return Err(unclear(
                    "parts its server from its tool in more than one way",
                ));
            }
            (server.to_owned(), tool)
        };
        (format!("mcp://{server}"), tool)
    } else if json
        .get("mcp_server")
        .is_some_and(|server| !server.is_null())
    {
        return Err(unclear("is a server's, and does not say so"));
    } else {
        (harness.name().to_owned(), name)
    };
    if tool.is_empty() || tool.contains('/') || server.ends_with('/') {
        return Err(unclear("has an empty part, or a `/` in it"));
    }
    Ok(format!("{server}/{tool}"))
}

/// What an agent says is about to happen, as a question of `agent`; of nobody in particular where the
/// sidecar knows who asks.
///
/// # Errors
///
/// What does not say what is about to happen. It is no answer, and nothing goes on with it.
pub fn event(
    harness: Harness,
    mut json: Json,
    agent: &str,
    purpose: Option<&str>,
    omit_large: bool,
) -> Result<Event, Invalid> {
    let name = text(&json, "hook_event_name")?.to_owned();
    let mut properties = Map::new();
    let (action, kind, id) = match name.as_str() {
        name if name == harness.before_tool() => {
            let tool = tool(harness, &json)?;
            let arguments = json.get_mut("tool_input").map(Json::take);
            match arguments {
                None | Some(Json::Null) => {}
                Some(Json::Object(arguments)) => {
                    let fix = "do it in smaller parts, or install the hook with --omit-large";
                    properties = trimmed(arguments, omit_large, ("tool_input", fix))?;
                }
                Some(_) => {
                    let fix = "send the arguments by name";
                    return Err(Invalid::new("tool_input", "is no object", fix));
                }
            }
            ("tools/call", "tool", tool)
        }
        "PreModelSwitch" => ("models/use", "model", text(&json, "to_model")?.to_owned()),
        name if TELLS.contains(&name) => return Ok(Event::Tells),
        // Whatever else there is may wait for a yes.
        name => {
            return Err(Invalid::new(
                "hook_event_name",
                format!("`{name}` is not known"),
                "install the hook for the events it is made for",
            ));
        }
    };
    let mut context = Map::new();
    context.insert("harness".into(), harness.name().into());
    for (said, path) in [
        ("session_id", "session_id"),
        ("permission_mode", "permission_mode"),
        ("agent_type", "agent_type"),
        ("mcp_source", "mcp_server.source"),
    ] {
        if let Ok(text) = text(&json, path) {
            context.insert(said.into(), text.into());
        }
    }
    if let Some(purpose) = purpose {
        context.insert("purpose".into(), purpose.into());
    }
    let call = text(&json, "tool_use_id")
        .ok()
        .map(|id| format!("{}:{id}", harness.name()));
    let request = v1::CheckRequest {
        subject: agent.to_owned(),
        action: action.to_owned(),
        resource: Some(v1::Resource {
            r#type: kind.to_owned(),
            id,
            properties: Some(fields(properties)),
        }),
        context: Some(fields(context)),
        // Two hooks of one call are one use.
        request_id: call.filter(|id| id.len() <= 128).unwrap_or_default(),
        ..v1::CheckRequest::default()
    };
    Ok(Event::Asks(name, Box::new(request)))
}

/// Why not, for a model to read: what it says is not to be worked around.
pub(super) fn why(decision: &v1::Decision) -> String {
    let reasons: Vec<_> = decision
        .reasons()
        .map(|reason| {
            reason
                .as_str_name()
                .trim_start_matches("REASON_")
                .to_owned()
        })
        .collect();
    let mut said = match decision.controls.first() {
        Some(control) if control.title.is_empty() => {
            format!("Denied by control {}.", control.control_id)
        }
        Some(control) => format!(
            "Denied by control {}: {}.",
            control.control_id, control.title
        ),
        None => format!("Denied: {}.", reasons.join(", ")),
    };
    if !decision.remedy.is_empty() {
        said = format!("{said} {}", decision.remedy);
    }
    said.push_str(" Do not retry it or work around it.");
    if !decision.requestable_control_ids.is_empty() {
        let controls = decision.requestable_control_ids.join(", ");
        said = format!("{said} A human can request an exception from {controls}.");
    }
    format!("{said} ({})", decision.id)
}

/// What the agent is told.
pub fn answer(harness: Harness, event: &str, decision: &v1::Decision) -> Json {
    if permits(decision) {
        // Of what is allowed there is nothing to say, but that it is so by exception.
        let Some(exception) = relied_on(decision).filter(|_| harness != Harness::Codex) else {
            return json!({});
        };
        let until = exception
            .expire_time
            .and_then(|end| super::sync::time("expire_time", Some(end)).ok())
            .map_or(String::new(), |end| format!(" until {end}"));
        let id = &exception.exception_id;
        return json!({"systemMessage": format!("exeat: allowed under {id}{until}")});
    }
    let why = why(decision);
    if harness == Harness::Gemini {
        return json!({"decision": "deny", "reason": why});
    }
    let output = json!({
        "hookEventName": event,
        "permissionDecision": "deny",
        "permissionDecisionReason": why,
    });
    let frozen = decision
        .reasons()
        .any(|reason| reason == v1::Reason::SubjectLocked);
    if frozen && harness == Harness::Claude {
        let stop = "exeat: this agent is frozen";
        return json!({"continue": false, "stopReason": stop, "hookSpecificOutput": output});
    }
    json!({ "hookSpecificOutput": output })
}

/// What an agent is told where there is nothing to say.
pub fn nothing() -> Json {
    json!({})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(harness: Harness, json: Json) -> Result<String, String> {
        match event(harness, json, "", None, false) {
            Ok(Event::Asks(_, request)) => Ok(request.resource.unwrap().id),
            Ok(Event::Tells) => Ok(String::new()),
            Err(invalid) => Err(invalid.to_string()),
        }
    }

    #[test]
    fn each_harness_names_a_tool_in_its_way() {
        let pre = |tool: &str| json!({"hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": {}});
        let mut named = pre("mcp__a__b__c");
        named["mcp_server"] = json!({"name": "a__b", "source": "project"});
        let gemini = json!({"hook_event_name": "BeforeTool", "tool_name": "x", "mcp_context": {"server_name": "crm", "tool_name": "wipe"}});
        for (harness, json, wanted) in [
            (Harness::Claude, pre("Bash"), "claude/Bash"),
            (Harness::Codex, pre("Bash"), "codex/Bash"),
            (
                Harness::Claude,
                pre("mcp__postgres__query"),
                "mcp://postgres/query",
            ),
            (Harness::Claude, named, "mcp://a__b/c"),
            (
                Harness::Claude,
                json!({"hook_event_name": "PreToolUse", "tool_name": "mcp__claude_ai_Gmail__find", "mcp_server": {"name": "claude.ai Gmail"}}),
                "mcp://claude_ai_Gmail/find",
            ),
            (Harness::Gemini, gemini, "mcp://crm/wipe"),
            (
                Harness::Claude,
                json!({"hook_event_name": "PreModelSwitch", "to_model": "m-2"}),
                "m-2",
            ),
            (
                Harness::Claude,
                json!({"hook_event_name": "SessionStart"}),
                "",
            ),
        ] {
            assert_eq!(id(harness, json), Ok(wanted.to_owned()));
        }
    }

    #[test]
    fn what_is_unclear_is_no_question() {
        for (json, named) in [
            (json!({}), "hook_event_name"),
            (json!([]), "hook_event_name"),
            (json!({"hook_event_name": "PreToolUse"}), "tool_name"),
            (
                json!({"hook_event_name": "PreToolUse", "tool_name": 3}),
                "tool_name",
            ),
            (
                json!({"hook_event_name": "PreToolUse", "tool_name": "mcp__a__b__c"}),
                "more than one way",
            ),
            (
                json!({"hook_event_name": "PreToolUse", "tool_name": "mcp__a"}),
                "no tool",
            ),
            (
                json!({"hook_event_name": "PreToolUse", "tool_name": "a/b"}),
                "`/`",
            ),
            (
                json!({"hook_event_name": "PreToolUse", "tool_name": "mcp__b__c", "mcp_server": {"name": "a"}}),
                "its server's name",
            ),
            (json!({"hook_event_name": "PreModelSwitch"}), "to_model"),
            (
                json!({"hook_event_name": "PreLaunch"}),
                "`PreLaunch` is not known",
            ),
        ] {
            let refused = id(Harness::Claude, json).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }

    #[test]
    fn arguments_that_are_too_large_are_left_out_and_named() {
        let json = json!({
            "hook_event_name": "PreToolUse",
            "tool_name": "Write",
            "tool_use_id": "toolu_1",
            "tool_input": {"file_path": "/a", "content": "x".repeat(9_000), "list": [1, "y".repeat(9_000)]},
        });
        let Ok(Event::Asks(_, request)) =
            event(Harness::Claude, json.clone(), "agent", Some("work"), true)
        else {
            panic!("a question");
        };
        assert_eq!(
            (&*request.subject, &*request.request_id),
            ("agent", "claude:toolu_1")
        );
        let properties = request.resource.unwrap().properties.unwrap().fields;
        let shown = format!("{properties:?}");
        assert!(shown.contains("file_path") && shown.contains("arguments_omitted"));
        assert!(shown.len() < 2_000, "neither text is sent");
        let omitted = format!("{:?}", properties["arguments_omitted"]);
        assert!(
            omitted.contains("content") && omitted.contains("list"),
            "{omitted}"
        );
    }
}
