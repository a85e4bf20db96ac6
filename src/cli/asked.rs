//! A question as a test suite writes it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::wire::{json::fields, v1};

/// A question.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckSpec {
    /// Who asks.
    subject: String,
    /// For which action.
    #[serde(default = "tool_call")]
    action: String,
    /// On what.
    resource: ResourceSpec,
    /// What else is known.
    #[serde(default)]
    context: BTreeMap<String, Json>,
    /// Digests of facets as the caller sees them.
    #[serde(default)]
    observed: BTreeMap<String, String>,
    /// Definitions of tools as the caller sees them.
    #[serde(default)]
    seen_tools: Vec<SeenToolSpec>,
}

/// The definition of a tool.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SeenToolSpec {
    /// The server that offers it.
    server: String,
    /// Its name there.
    name: String,
    /// The digest of its definition.
    definition_digest: String,
}

impl From<SeenToolSpec> for v1::SeenTool {
    fn from(spec: SeenToolSpec) -> Self {
        Self {
            server: spec.server,
            name: spec.name,
            definition_digest: spec.definition_digest,
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResourceSpec {
    /// Its type.
    #[serde(default = "tool")]
    r#type: String,
    /// Its id.
    id: String,
    /// What else is known of it.
    #[serde(default)]
    properties: BTreeMap<String, Json>,
}

fn tool_call() -> String {
    "tools/call".into()
}

fn tool() -> String {
    "tool".into()
}

impl From<CheckSpec> for v1::CheckRequest {
    fn from(spec: CheckSpec) -> Self {
        let CheckSpec {
            subject,
            action,
            resource,
            context,
            observed,
            seen_tools,
        } = spec;
        let map = |entries: BTreeMap<String, Json>| fields(entries.into_iter().collect());
        Self {
            subject,
            action,
            resource: Some(v1::Resource {
                r#type: resource.r#type,
                id: resource.id,
                properties: Some(map(resource.properties)),
            }),
            context: Some(map(context)),
            observed,
            seen_tools: seen_tools.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}
