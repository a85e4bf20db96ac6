//! Envoy's external authorization, v3: its attributes → a question, a decision → its answer
//! (pdp §5, ecosystem b.5).
//!
//! What cannot be read one way alone is no question: an answer to what Envoy read and the upstream
//! reads otherwise would be about something else.

use envoy_types::{
    ext_authz::v3::pb::{
        CheckRequest, CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue,
        HeaderValueOption, HttpResponse, HttpStatus, OkHttpResponse,
    },
    pb::{
        envoy::service::auth::v3::{AttributeContext, attribute_context::HttpRequest},
        google::{
            protobuf::{BoolValue, Struct, Value, value::Kind},
            rpc::Status,
        },
    },
};
use serde_json::{Map, Value as Json, json};
use tonic::Code;

use crate::domain::{Invalid, Trace};

use super::{
    authzen::{decision as body_of, permits, relied_on},
    json::{fields, is_json, strict},
    mcp::{Asks, call, escapes, message},
    principal::{Principal, claimed},
    v1,
};

/// Headers that say what was decided; nobody else may.
const OURS: [&str; 4] = [
    "x-exeat-decision-id",
    "x-exeat-outcome",
    "x-exeat-exception-id",
    "x-exeat-request-url",
];
/// Where Envoy's MCP filter leaves what it read.
const MCP: &str = "envoy.filters.http.mcp";
/// Where Envoy's JWT filter leaves what it verified.
const JWT: &str = "envoy.filters.http.jwt_authn";
/// What Envoy asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// Who is behind the call.
    pub principal: Option<Principal>,
    /// The question; nothing where there is none to decide, and whoever may speak at all goes on.
    pub request: Option<v1::CheckRequest>,
    /// Where the call belongs.
    pub trace: Option<Trace>,
}

/// A header, if it is there once and as text. Given more than once, joined by a comma or otherwise, which
/// of the values counts is for whoever reads it.
fn header<'a>(http: &'a HttpRequest, name: &str) -> Result<Option<&'a str>, Invalid> {
    let ambiguous = || {
        Invalid::new(
            format!("headers.{name}"),
            "is given more than once, or is no text",
            "send it once",
        )
    };
    let joined = http.headers.iter();
    let joined = joined.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    let joined = joined.map(|(_, value)| Some(value.as_str()).filter(|value| !value.contains(',')));
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    let raw = raw.filter(|header| header.key.eq_ignore_ascii_case(name));
    let raw = raw.map(|header| match header.raw_value.as_slice() {
        [] => Some(header.value.as_str()),
        bytes => std::str::from_utf8(bytes).ok(),
    });
    let mut found = None;
    for text in joined.chain(raw) {
        if found.is_some() {
            return Err(ambiguous());
        }
        found = Some(text.ok_or_else(ambiguous)?);
    }
    Ok(found)
}

/// The path without its query, if everybody reads it alike.
fn path(http: &HttpRequest) -> Result<&str, Invalid> {
    let odd = |what: &str| {
        Err(Invalid::new(
            "path",
            what,
            "send the path in its plain form, as the upstream is to read it",
        ))
    };
    let path = http.path.split('?').next().unwrap_or_default();
    if http.path.contains('#') {
        return odd("has a fragment");
    }
    if !path.starts_with('/') {
        return odd("does not begin with /");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('\\') {
        return odd("has characters that are read in more than one way");
    }
    if path.contains("//") || path.split('/').any(|part| part == "." || part == "..") {
        return odd("has empty or relative parts");
    }
    if path.contains(';') {
        return odd("has parameters that some take for a part of its name");
    }
    if let Err(what) = escapes(path) {
        return odd(what);
    }
    Ok(path)
}

/// The host, written in one way: in lower case, without the port that goes without saying.
fn host(http: &HttpRequest) -> Result<String, Invalid> {
    let host = http.host.to_ascii_lowercase();
    let host = match http.scheme.as_str() {
        "https" => host.strip_suffix(":443").unwrap_or(&host),
        _ => host.strip_suffix(":80").unwrap_or(&host),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]_".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) || host.contains(".:") {
        return Err(Invalid::new(
            "host",
            "is no name or address of a host",
            "send the name, or have the route say `exeat.host`",
        ));
    }
    Ok(host.to_owned())
}

fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::StringValue(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Protobuf's JSON as JSON.
fn json_of(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(b)) => (*b).into(),
        Some(Kind::NumberValue(n)) => (*n).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(json_of).collect(),
        Some(Kind::StructValue(of)) => Json::Object(object_of(of)),
    }
}

fn object_of(of: &Struct) -> Map<String, Json> {
    let entries = of.fields.iter();
    entries
        .map(|(name, value)| (name.clone(), json_of(value)))
        .collect()
}

fn metadata<'a>(attributes: &'a AttributeContext, namespace: &str) -> Option<&'a Struct> {
    let context = attributes.metadata_context.as_ref()?;
    context.filter_metadata.get(namespace)
}

/// Who is behind the call. Of tokens only those count that the settings name: by the key that their
/// provider's `payload_in_metadata` has, and the prefix below which its subjects stand.
fn principal(attributes: &AttributeContext, tokens: &[(Box<str>, Box<str>)]) -> Option<Principal> {
    let source = attributes.source.as_ref();
    if let Some(source) = source.filter(|source| !source.principal.is_empty()) {
        return Some(Principal::Certificate(source.principal.clone()));
    }
    let verified = metadata(attributes, JWT)?;
    // The first that is there decides: another's does not stand in for one that cannot be read.
    let mut named = tokens.iter();
    let (payload, prefix) =
        named.find_map(|(key, prefix)| Some((verified.fields.get(&**key)?, prefix)))?;
    let claims = match &payload.kind {
        Some(Kind::StructValue(claims)) => &claims.fields,
        _ => {
            return Some(Principal::Unclear(
                "the token's payload is no object".into(),
            ));
        }
    };
    let text = |name: &str| claims.get(name).and_then(text);
    let Some(sub) = text("sub") else {
        return Some(Principal::Unclear("the token names nobody (`sub`)".into()));
    };
    let act = claims.get("act").map(json_of);
    Some(match claimed(sub, act.as_ref(), text("iss"), prefix) {
        Ok((subject, acts)) => Principal::Claimed(subject, acts),
        Err(why) => Principal::Unclear(why),
    })
}

/// The body, if there is one and it is all there.
fn body(http: &HttpRequest) -> Result<Option<Json>, Invalid> {
    let bytes = if http.raw_body.is_empty() {
        http.body.as_bytes()
    } else {
        &http.raw_body
    };
    let partial = header(http, "x-envoy-auth-partial-body")?;
    if partial == Some("true") || (http.size < 0 && !bytes.is_empty()) {
        return Err(Invalid::new(
            "body",
            "is there in part",
            "raise max_request_bytes, or set allow_partial_message to false",
        ));
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let kind = header(http, "content-type")?.unwrap_or_default();
    if !is_json(kind.as_bytes()) {
        return Ok(None);
    }
    strict(bytes)
        .map(Some)
        .map_err(|error| Invalid::new("body", format!("is no JSON: {error}"), "send JSON"))
}

/// What is asked of an MCP server. Streams from it and the end of a session are questions of their own.
fn of_mcp(
    attributes: &AttributeContext,
    http: &HttpRequest,
    server: &str,
) -> Result<Asks, Invalid> {
    let of_server = |action: &str| Asks::Question {
        action: action.to_owned(),
        resource: v1::Resource {
            r#type: "mcp_server".to_owned(),
            id: server.to_owned(),
            properties: None,
        },
    };
    match http.method.as_str() {
        "GET" => return Ok(of_server("stream")),
        "DELETE" => return Ok(of_server("session/end")),
        "POST" => {}
        _ => {
            return Err(Invalid::new(
                "method",
                "is none of MCP's, and this route is an MCP server's",
                "use POST, GET or DELETE",
            ));
        }
    }
    if let Some(read) = metadata(attributes, MCP) {
        let mut read = object_of(read);
        if read.contains_key("is_exceeding_limit") {
            return Err(Invalid::new(
                "metadata.mcp",
                "was read in part",
                "raise max_request_body_size of Envoy's MCP filter, or set traffic_mode to REJECT_NO_MCP",
            ));
        }
        let method = read.remove("method");
        let method = method.as_ref().and_then(Json::as_str).ok_or_else(|| {
            Invalid::new("metadata.mcp", "names no method", "use Envoy's MCP filter")
        })?;
        let params = match read.remove("params") {
            Some(Json::Object(params)) => params,
            _ => Map::new(),
        };
        return call(method, params, server);
    }
    let sent = body(http)?.ok_or_else(|| {
        Invalid::new(
            "body",
            "is missing or no JSON, and this route is an MCP server's",
            "have Envoy send it (with_request_body), or use its MCP filter",
        )
    })?;
    message(sent, server)
}

/// What Envoy asks, by what is said of its route (`context_extensions`), what its filters read, and
/// the call itself.
///
/// A route says `exeat.action`, `exeat.resource_type`, `exeat.resource`, `exeat.purpose`,
/// `exeat.context.NAME`, `exeat.host`, and of an MCP server its name as `exeat.mcp_server`.
///
/// # Errors
///
/// What can be read in more than one way, by its name.
pub fn asked(request: &CheckRequest, tokens: &[(Box<str>, Box<str>)]) -> Result<Asking, Invalid> {
    let missing = |path: &str| Invalid::new(path, "is missing", "ask from an HTTP filter");
    let attributes = request
        .attributes
        .as_ref()
        .ok_or_else(|| missing("attributes"))?;
    let http = attributes
        .request
        .as_ref()
        .and_then(|request| request.http.as_ref())
        .ok_or_else(|| missing("attributes.request.http"))?;
    let route = &attributes.context_extensions;
    let said = |name: &str| route.get(name).filter(|text| !text.is_empty()).cloned();
    let path = path(http)?;
    let host = match said("exeat.host") {
        Some(host) => host,
        None => host(http)?,
    };
    // What a client sends never chooses which question is asked: a route is an MCP server's only
    // where it says so.
    let asks = match said("exeat.mcp_server") {
        Some(server) => Some(of_mcp(attributes, http, &server)?),
        None => None,
    };
    let trace = header(http, "traceparent").ok().flatten();
    let mut asking = Asking {
        principal: principal(attributes, tokens),
        request: None,
        trace: trace.and_then(Trace::parse),
    };
    let (action, resource) = match asks {
        Some(Asks::Nothing) => return Ok(asking),
        Some(Asks::Question { action, resource }) => (action, resource),
        None => {
            let resource = v1::Resource {
                r#type: "http".to_owned(),
                // No scheme: over HTTP/2 a client says which.
                id: format!("{host}{path}"),
                properties: None,
            };
            (http.method.clone(), resource)
        }
    };
    let mut context = Map::new();
    for (name, value) in route {
        if let Some(name) = name.strip_prefix("exeat.context.") {
            context.insert(name.to_owned(), value.as_str().into());
        }
    }
    if let Some(purpose) = said("exeat.purpose") {
        context.insert("purpose".into(), purpose.into());
    }
    context.insert(
        "http".into(),
        json!({"method": http.method, "host": host, "path": path, "scheme": http.scheme}),
    );
    asking.request = Some(v1::CheckRequest {
        // Envoy's own number of the stream, which a client cannot say: asked again, it is one use.
        request_id: Some(&http.id)
            .filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()))
            .cloned()
            .unwrap_or_default(),
        action: said("exeat.action").unwrap_or(action),
        resource: Some(v1::Resource {
            r#type: said("exeat.resource_type").unwrap_or(resource.r#type),
            id: said("exeat.resource").unwrap_or(resource.id),
            properties: resource.properties,
        }),
        context: Some(fields(context)),
        ..v1::CheckRequest::default()
    });
    Ok(asking)
}

#[expect(deprecated, reason = "older Envoys read `append` alone")]
fn option(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append: Some(BoolValue { value: false }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: false,
    }
}

fn status(code: Code) -> Status {
    Status {
        code: code.into(),
        ..Status::default()
    }
}

/// The one way to a yes. Headers that are ours and that nothing is said with are taken away.
fn ok(said: &[(&str, &str)], metadata: Option<Struct>) -> CheckResponse {
    let unsaid = |name: &&&str| !said.iter().any(|(known, _)| known == *name);
    CheckResponse {
        status: Some(status(Code::Ok)),
        dynamic_metadata: metadata,
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: said
                .iter()
                .map(|(name, value)| option(name, value))
                .collect(),
            headers_to_remove: OURS
                .iter()
                .filter(unsaid)
                .map(|name| (*name).to_owned())
                .collect(),
            ..OkHttpResponse::default()
        })),
    }
}

/// The one way to a no.
fn denied(
    code: Code,
    http: i32,
    said: &[(&str, &str)],
    body: &Json,
    metadata: Option<Struct>,
) -> CheckResponse {
    let mut headers = vec![option("content-type", "application/json")];
    headers.extend(said.iter().map(|(name, value)| option(name, value)));
    // A denial whose code were OK would be none.
    let code = if code == Code::Ok {
        Code::PermissionDenied
    } else {
        code
    };
    CheckResponse {
        status: Some(status(code)),
        dynamic_metadata: metadata,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: http }),
            headers,
            body: body.to_string(),
        })),
    }
}

/// What access logs and later filters read of a decision.
fn told(decision: &v1::Decision, outcome: &str) -> Struct {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let mut fields = std::collections::HashMap::new();
    fields.insert("decision_id".to_owned(), text(&decision.id));
    fields.insert("outcome".to_owned(), text(outcome));
    let snapshot = decision.snapshot.clone().unwrap_or_default();
    fields.insert("snapshot".to_owned(), text(&snapshot.digest));
    if let Some(exception) = relied_on(decision) {
        fields.insert("exception_id".to_owned(), text(&exception.exception_id));
    }
    if let Some(control) = decision.controls.first().filter(|_| !permits(decision)) {
        fields.insert("control_id".to_owned(), text(&control.control_id));
    }
    if let Some(end) = decision.valid_until
        && let Ok(end) = super::sync::time("valid_until", Some(end))
    {
        fields.insert("valid_until".to_owned(), text(&end.to_string()));
    }
    Struct { fields }
}

/// A decision as Envoy has it.
pub fn answered(decision: &v1::Decision) -> CheckResponse {
    let outcome = decision.outcome().as_str_name();
    let outcome = outcome.trim_start_matches("OUTCOME_").to_lowercase();
    let metadata = Some(told(decision, &outcome));
    let mut said = vec![
        ("x-exeat-decision-id", decision.id.as_str()),
        ("x-exeat-outcome", outcome.as_str()),
    ];
    if permits(decision) {
        if let Some(exception) = relied_on(decision) {
            said.push(("x-exeat-exception-id", &exception.exception_id));
        }
        return ok(&said, metadata);
    }
    if let Some(request) = &decision.access_request {
        said.push(("x-exeat-request-url", &request.endpoint));
    }
    let body = body_of(decision);
    denied(Code::PermissionDenied, 403, &said, &body, metadata)
}

/// There is nothing to decide: the call goes on.
pub fn passed() -> CheckResponse {
    ok(&[], None)
}

fn problem(status: u16, what: &str, detail: &str) -> Json {
    json!({"type": "about:blank", "status": status, "title": what, "detail": detail})
}

/// The call itself is at fault: nothing was decided, and it does not go on.
pub fn malformed(invalid: &Invalid) -> CheckResponse {
    let body = problem(
        400,
        "the request cannot be read in one way alone",
        &invalid.to_string(),
    );
    denied(Code::InvalidArgument, 400, &[], &body, None)
}

/// Nobody vouches for who is behind the call.
pub fn unknown(why: &str) -> CheckResponse {
    let body = problem(401, "who is behind the call is not known", why);
    denied(Code::Unauthenticated, 401, &[], &body, None)
}

/// Who is behind the call is not who may ask here.
pub fn forbidden(why: &str) -> CheckResponse {
    let body = problem(403, "who is behind the call may not ask here", why);
    denied(Code::PermissionDenied, 403, &[], &body, None)
}
