//! What a caller asks.

use super::{Fingerprint, SubjectId, Value};

/// May this subject do this to that, here and now?
///
/// Nothing in it is governed: it is what the caller asserts, apart from the subject's id, which
/// the surface has verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Who wants to act.
    pub subject: SubjectId,
    /// The action's name; a tool call is `tools/call`.
    pub action: String,
    /// What is acted upon.
    pub resource: Resource,
    /// What for, if said.
    pub purpose: Option<String>,
    /// Who is really acting (`AI_AGENT`, `HUMAN`, `SERVICE`), if said.
    pub actor_kind: Option<String>,
    /// Everything else that was said: a map.
    pub context: Value,
    /// Digests of facets that the caller, hook or proxy has seen itself.
    pub observed: Fingerprint,
    /// Definitions of tools that it has seen; nothing once they are among what was observed.
    pub tools: Vec<SeenTool>,
}

/// A tool as its server has just offered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTool {
    /// The server that offers it.
    pub server: Box<str>,
    /// Its name there.
    pub name: Box<str>,
    /// The digest of its definition.
    pub definition_digest: Box<str>,
}

/// What is acted upon.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its type; `tool` for tools.
    pub kind: String,
    /// Its id within the type.
    pub id: String,
    /// What else was said about it: a map.
    pub properties: Value,
}

/// A tool named by a resource of type `tool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool<'a> {
    /// The server that offers it.
    pub server: Option<&'a str>,
    /// Its name there.
    pub name: Option<&'a str>,
    /// The digest of its definition, if the caller has seen it.
    pub definition_digest: Option<&'a str>,
}

impl Resource {
    /// The tool this names: from the properties `server`, `name` and `definition_digest`, else
    /// from an id of the form `SERVER/NAME`.
    pub fn tool(&self) -> Option<Tool<'_>> {
        if self.kind != "tool" {
            return None;
        }
        let said = |name| self.properties.get(name).and_then(Value::as_str);
        let (server, name) = self.id.rsplit_once('/').unwrap_or(("", &self.id));
        let some = |text| Some(text).filter(|text: &&str| !text.is_empty());
        Some(Tool {
            server: said("server").or_else(|| some(server)),
            name: said("name").or_else(|| some(name)),
            definition_digest: said("definition_digest"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_named_by_its_id_or_its_properties() {
        let mut resource = Resource {
            kind: "tool".into(),
            id: "mcp://pay/refund".into(),
            properties: Value::map([]),
        };
        let tool = resource.tool().expect("a tool");
        assert_eq!(
            (tool.server, tool.name, tool.definition_digest),
            (Some("mcp://pay"), Some("refund"), None)
        );
        resource.properties = Value::map([
            ("name".into(), Value::str("wire")),
            ("definition_digest".into(), Value::str("sha256:t")),
        ]);
        let tool = resource.tool().expect("a tool");
        assert_eq!(
            (tool.server, tool.name, tool.definition_digest),
            (Some("mcp://pay"), Some("wire"), Some("sha256:t"))
        );
        resource.kind = "file".into();
        assert_eq!(resource.tool(), None);
    }
}
