//! What a proxy asks about a server's tools, and about lists, with what was seen of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{
    json::fields,
    mcp::List,
    relay::{Relay, TOOL},
    v1,
};

/// Longest name of something that is asked about, in bytes.
const LONGEST: usize = 8 << 10;

/// Says of a tool how it was seen.
pub(super) fn describe(tool: &mut v1::Resource, seen: Option<&String>) {
    let Some(digest) = seen else { return };
    let said = Map::from_iter([("definition_digest".to_owned(), digest.as_str().into())]);
    let properties = tool.properties.get_or_insert_default();
    properties.fields.extend(fields(said).fields);
}

impl Relay {
    /// What is asked about the items of a list, and what each is: nothing where nobody can name it. Of
    /// tools it is said what was `seen`: their digests by name.
    pub fn sifts(
        &self,
        list: &List,
        result: &Json,
        seen: &BTreeMap<String, String>,
    ) -> Option<(v1::CheckRequest, Vec<Option<v1::Resource>>)> {
        let items = result.get(list.of)?.as_array()?;
        let named = |item: &Json| {
            let name = item.get(list.naming)?.as_str()?;
            let mut resource = list.resource(name, &self.server).ok()?;
            if resource.r#type == TOOL {
                describe(&mut resource, seen.get(name));
            }
            Some(resource).filter(|resource| resource.id.len() <= LONGEST)
        };
        let purpose = self.purpose.iter();
        let context = purpose.map(|purpose| ("purpose".to_owned(), purpose.as_str().into()));
        let check = v1::CheckRequest {
            subject: self.agent.clone(),
            action: list.action.to_owned(),
            context: Some(fields(context.collect())),
            seen_tools: self.seen_tools(seen),
            ..v1::CheckRequest::default()
        };
        Some((check, items.iter().map(named).collect()))
    }

    /// What was seen of the server's tools: their digests by name.
    pub(super) fn seen_tools(&self, seen: &BTreeMap<String, String>) -> Vec<v1::SeenTool> {
        let tools = seen.iter().map(|(name, digest)| v1::SeenTool {
            server: self.server.clone(),
            name: name.clone(),
            definition_digest: digest.clone(),
        });
        tools.collect()
    }
}
