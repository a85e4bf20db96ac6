//! agentgateway's `ExtMcp`: what it asks about a message of the Model Context Protocol → a question, and
//! a decision → what it does with the message (pdp §5.1).

use prost_types::value::Kind;
use serde_json::{Map, Value as Json};

use crate::domain::{Invalid, Trace};

use super::{
    agentgateway::{
        AuthorizationError, McpHeader, McpRequest, McpRequestResult, McpResponse,
        McpResponseResult, Pass, authorization_error::Code, mcp_request_result,
        mcp_response_result,
    },
    authzen::{decision as body_of, permits},
    json::{json, strict},
    mcp::{Asks, LISTS, call},
    principal::{Principal, claimed},
    v1,
};

/// Where the gateway's configuration says who asks.
const SUBJECT: &str = "subject";
/// Where it says who acts beside them, as a token's `act` does, and whose token it is.
const ACT: &str = "act";
const ISSUER: &str = "issuer";
/// Most servers of one message, and most items of one list.
const SERVERS: usize = 64;
const ITEMS: usize = 1_000;

/// What the gateway asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// Who asks, as the gateway says.
    pub principal: Option<Principal>,
    /// What all questions are asked with.
    context: prost_types::Struct,
    /// The action, and on what; each has to be allowed. None where there is nothing to decide, and
    /// whoever may speak at all goes on.
    pub questions: Vec<(String, v1::Resource)>,
    /// Where the call belongs.
    pub trace: Option<Trace>,
}

impl Asking {
    /// One of its questions as it is asked.
    pub fn request(&self, (action, resource): &(String, v1::Resource)) -> v1::CheckRequest {
        v1::CheckRequest {
            action: action.clone(),
            resource: Some(resource.clone()),
            context: Some(self.context.clone()),
            ..v1::CheckRequest::default()
        }
    }
}

/// Who asks, and what else is said.
type Said = (Option<Principal>, prost_types::Struct);

/// What the gateway's configuration says: who asks, and everything else. A name that is none is
/// nobody's, and never the gateway's own.
fn said(context: Option<prost_types::Struct>) -> Result<Said, Invalid> {
    let mut context = context.unwrap_or_default();
    let subject = match context.fields.remove(SUBJECT).map(|value| value.kind) {
        None => None,
        Some(Some(Kind::StringValue(text))) if !text.is_empty() => Some(text),
        Some(_) => {
            let fix = "have `metadata` say who asks";
            let path = "metadata_context.subject";
            return Err(Invalid::new(path, "is no name", fix));
        }
    };
    let act = context.fields.remove(ACT).filter(|act| {
        let kind = act.kind.as_ref();
        kind.is_some_and(|kind| !matches!(kind, Kind::NullValue(_)))
    });
    // Conditions may read it too.
    let issuer = context.fields.get(ISSUER).map(json);
    let issuer = issuer.as_ref().and_then(Json::as_str);
    let principal = match (subject, act) {
        (None, None) => None,
        (Some(subject), None) => Some(Principal::Named(subject)),
        (subject, Some(act)) => {
            let sub = subject.unwrap_or_default();
            let of = claimed(&sub, Some(&json(&act)), issuer, "");
            let (subject, acts) = of.map_err(|why| {
                let fix = "have `metadata` say the token's `act`, or nothing";
                Invalid::new("metadata_context.act", why, fix)
            })?;
            Some(Principal::Claimed(subject, acts))
        }
    };
    Ok((principal, context))
}

fn object(path: &str, bytes: &[u8]) -> Result<Map<String, Json>, Invalid> {
    match strict(bytes) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err(Invalid::new(path, "is no object", "send a JSON object")),
        Err(why) => Err(Invalid::new(
            path,
            format!("is no JSON: {why}"),
            "send JSON",
        )),
    }
}

/// The servers a message is of: one at least.
fn named(servers: Vec<String>) -> Result<Vec<String>, Invalid> {
    if servers.is_empty() || servers.iter().any(String::is_empty) {
        let fix = "name the server";
        return Err(Invalid::new("service_names", "names no server", fix));
    }
    few("service_names", servers.len(), SERVERS)?;
    Ok(servers)
}

fn few(path: &str, count: usize, most: usize) -> Result<(), Invalid> {
    if count <= most {
        return Ok(());
    }
    let fix = format!("send at most {most}");
    Err(Invalid::new(path, format!("has {count} items"), fix))
}

fn trace(headers: &[McpHeader]) -> Option<Trace> {
    let mut named = headers
        .iter()
        .filter(|header| header.key.eq_ignore_ascii_case("traceparent"));
    let only = named.next().filter(|_| named.next().is_none())?;
    Trace::parse(std::str::from_utf8(&only.value).ok()?)
}

/// What the gateway asks about a request.
///
/// # Errors
///
/// What cannot be read, by its name.
pub fn asked(request: McpRequest) -> Result<Asking, Invalid> {
    let (principal, context) = said(request.metadata_context)?;
    let servers = named(request.service_names)?;
    let mut params = match request.mcp_request.as_deref() {
        None | Some([]) => Map::new(),
        Some(bytes) => object("mcp_request", bytes)?,
    };
    let mut asking = Asking {
        principal,
        context,
        questions: Vec::new(),
        trace: trace(&request.headers),
    };
    let several = servers.len() > 1;
    for server in servers {
        // What names one thing is of one server, and refused at the first of several.
        let asks = call(&request.method, std::mem::take(&mut params), &server);
        match asks.map_err(|error| match error.path() {
            "method" => error,
            _ => error.under("mcp_request"),
        })? {
            Asks::Nothing => {}
            Asks::Question { resource, .. } if several && resource.r#type != "mcp_server" => {
                return Err(Invalid::new(
                    "service_names",
                    format!("names several servers, and {} is of one", request.method),
                    "name the one",
                ));
            }
            Asks::Question { action, resource } => {
                asking.questions.push((action, resource));
            }
        }
    }
    Ok(asking)
}

/// A list that a server answers with, and what has to be allowed for each of its items.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// Who asks, as the gateway says.
    pub principal: Option<Principal>,
    /// What all questions are asked with.
    context: prost_types::Struct,
    /// What is asked to use an item.
    action: &'static str,
    /// What each item is; nothing where nobody can tell.
    resources: Vec<Option<v1::Resource>>,
    result: Map<String, Json>,
    items: Vec<Json>,
    of: &'static str,
}

impl Listing {
    /// What is asked of all items, and what they are.
    pub fn asks(&mut self) -> (v1::CheckRequest, Vec<Option<v1::Resource>>) {
        let check = v1::CheckRequest {
            action: self.action.to_owned(),
            context: Some(std::mem::take(&mut self.context)),
            ..v1::CheckRequest::default()
        };
        (check, std::mem::take(&mut self.resources))
    }

    /// The answer with those items alone that `may` be used.
    pub fn of_those(mut self, may: &[bool]) -> McpResponseResult {
        if may.iter().all(|may| *may) {
            return kept();
        }
        let items = self.items.into_iter().zip(may);
        let left: Vec<Json> = items
            .filter_map(|(item, may)| may.then_some(item))
            .collect();
        self.result.insert(self.of.to_owned(), left.into());
        let bytes = Json::Object(self.result).to_string().into_bytes();
        McpResponseResult {
            result: Some(mcp_response_result::Result::Mutated(bytes)),
        }
    }
}

/// The server that an item is of, and its name there: of several servers the gateway puts the
/// server's name and a mark before it.
fn owned<'a>(servers: &'a [String], name: &'a str, mark: char) -> Option<(&'a str, &'a str)> {
    if let [only] = servers {
        return Some((only, name));
    }
    let named = |server: &'a String| {
        let rest = name.strip_prefix(server.as_str())?.strip_prefix(mark)?;
        Some((server.as_str(), rest))
    };
    let mut found = servers.iter().filter_map(named);
    // Where it may be of two, nobody knows what would be called.
    found.next().filter(|_| found.next().is_none())
}

/// The list in a response; nothing if there is none to be held back.
///
/// # Errors
///
/// What cannot be read, by its name.
pub fn listed(response: McpResponse) -> Result<Option<Listing>, Invalid> {
    let Some(list) = LISTS.iter().find(|list| list.method == response.method) else {
        return Ok(None);
    };
    let (of, naming) = (list.of, list.naming);
    let (principal, context) = said(response.metadata_context)?;
    let servers = named(response.service_names)?;
    let mut result = object("mcp_response", &response.mcp_response)?;
    let path = format!("mcp_response.{of}");
    let Some(Json::Array(items)) = result.remove(of) else {
        let fix = "send what the protocol has";
        return Err(Invalid::new(path, "is no list", fix));
    };
    few(&path, items.len(), ITEMS)?;
    let ask = |item: &Json| {
        let text = item.get(naming)?.as_str()?;
        let (server, name) = owned(&servers, text, if naming == "uri" { '+' } else { '_' })?;
        list.resource(name, server).ok()
    };
    Ok(Some(Listing {
        principal,
        context,
        action: list.action,
        resources: items.iter().map(ask).collect(),
        result,
        items,
        of,
    }))
}

/// The request goes on.
pub fn passed() -> McpRequestResult {
    McpRequestResult {
        result: Some(mcp_request_result::Result::Pass(Pass {})),
    }
}

/// The response goes on as it is.
pub fn kept() -> McpResponseResult {
    McpResponseResult {
        result: Some(mcp_response_result::Result::Pass(Pass {})),
    }
}

/// A decision as the gateway has it.
pub fn answered(decision: &v1::Decision) -> McpRequestResult {
    if permits(decision) {
        return passed();
    }
    let mut body = body_of(decision);
    let reason = match decision.remedy.as_str() {
        "" => format!("denied by policy ({})", decision.id),
        remedy => format!("denied by policy: {remedy} ({})", decision.id),
    };
    // The gateway makes it the `data` of the JSON-RPC error.
    let data = body.get_mut("context").map(Json::take).unwrap_or_default();
    refused(AuthorizationError {
        code: Code::PermissionDenied.into(),
        reason,
        mcp_error: Some(data.to_string().into_bytes()),
    })
}

fn refused(error: AuthorizationError) -> McpRequestResult {
    McpRequestResult {
        result: Some(mcp_request_result::Result::Error(error)),
    }
}

/// What is no question.
pub fn malformed(invalid: &Invalid) -> AuthorizationError {
    AuthorizationError {
        code: Code::Invalid.into(),
        reason: invalid.to_string(),
        mcp_error: None,
    }
}

/// Who is not known, or may not ask.
pub fn forbidden(why: &str) -> AuthorizationError {
    AuthorizationError {
        code: Code::PermissionDenied.into(),
        reason: why.to_owned(),
        mcp_error: None,
    }
}

impl From<AuthorizationError> for McpRequestResult {
    fn from(error: AuthorizationError) -> Self {
        refused(error)
    }
}

impl From<AuthorizationError> for McpResponseResult {
    fn from(error: AuthorizationError) -> Self {
        Self {
            result: Some(mcp_response_result::Result::Error(error)),
        }
    }
}
