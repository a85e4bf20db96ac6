//! Envoy's `ext_authz` over plain HTTP, in the words it has over gRPC.

use std::collections::HashMap;

use envoy_types::{
    ext_authz::v3::pb::{
        CheckRequest, CheckResponse, HeaderValue, HeaderValueOption, HttpResponse,
    },
    pb::envoy::{
        config::core::v3::HeaderMap as EnvoyHeaders,
        service::auth::v3::{
            AttributeContext,
            attribute_context::{HttpRequest, Request},
        },
    },
};
use http::{header::HOST, request::Parts, uri::Authority};

use crate::domain::Invalid;

/// What Envoy takes away from the call before it goes on.
const TAKEN: &str = "x-envoy-auth-headers-to-remove";
/// What may be said of a route.
const SAID: [&str; 6] = [
    "action",
    "resource_type",
    "resource",
    "purpose",
    "host",
    "mcp_server",
];

/// What is said of the route before the call's own path, and that path. No client can say it: a path
/// begins with `/`, and this is what comes before.
fn route(path: &str) -> Result<(HashMap<String, String>, &str), Invalid> {
    let end = path.find(['/', '?']).unwrap_or(path.len());
    let (said, path) = path.split_at_checked(end).unwrap_or((path, ""));
    let mut route = HashMap::new();
    let said = said.strip_prefix(';').unwrap_or(said);
    if said.contains(';') {
        let what = "has more than one `;`";
        return Err(Invalid::new(
            "path_prefix",
            what,
            "put & between what it says",
        ));
    }
    for (name, value) in form_urlencoded::parse(said.as_bytes()) {
        if !SAID.contains(&&*name) && !name.starts_with("context.") {
            let what = format!(
                "says `{}`, which is nothing of a route",
                name.escape_debug()
            );
            let fix = format!("say {} or context.NAME", SAID.join(", "));
            return Err(Invalid::new("path_prefix", what, fix));
        }
        if value.is_empty() {
            let what = format!("says nothing as `{name}`");
            return Err(Invalid::new("path_prefix", what, "leave it out"));
        }
        if route
            .insert(format!("exeat.{name}"), value.into_owned())
            .is_some()
        {
            let what = format!("says `{name}` twice");
            return Err(Invalid::new("path_prefix", what, "say it once"));
        }
    }
    Ok((route, path))
}

/// What is wrong with a prefix: what stands in it is to say something of a route and nothing else.
///
/// # Errors
///
/// What it says.
pub fn check_prefix(said: &str) -> Result<(), Invalid> {
    let (_, path) = route(said)?;
    if path.is_empty() {
        return Ok(());
    }
    let what = "has a path of its own, or a value with a `/` or `?` that is not escaped";
    Err(Invalid::new("path_prefix", what, "escape it, as %2F"))
}

/// A call as Envoy hands it on over plain HTTP, in the words it has over gRPC; `path` is what follows our
/// prefix. Who is behind the call it does not say.
///
/// # Errors
///
/// What is said of the route and is nothing.
pub fn asked(parts: &Parts, path: &str, body: &[u8]) -> Result<CheckRequest, Invalid> {
    let (route, path) = route(path)?;
    let Parts {
        method,
        headers,
        uri,
        ..
    } = parts;
    // What a client gave twice Envoy may have joined: a comma says so.
    let each = headers.iter().map(|(name, value)| HeaderValue {
        key: name.as_str().to_owned(),
        value: String::new(),
        raw_value: value.as_bytes().to_vec(),
    });
    let each = each.flat_map(|header| {
        let times = if header.raw_value.contains(&b',') {
            2
        } else {
            1
        };
        std::iter::repeat_n(header, times)
    });
    // HTTP/2 has it beside the headers; said twice it is to be the same.
    let said = headers.get_all(HOST).iter();
    let mut hosts: Vec<_> = said.map(|host| host.to_str().unwrap_or_default()).collect();
    hosts.extend(uri.authority().map(Authority::as_str));
    hosts.dedup();
    let host = match hosts.as_slice() {
        [host] => *host,
        _ => "",
    };
    let http = HttpRequest {
        method: method.to_string(),
        path: path.to_owned(),
        // One that cannot be read is none, and refused as that.
        host: host.to_owned(),
        header_map: Some(EnvoyHeaders {
            headers: each.collect(),
        }),
        raw_body: body.to_vec(),
        ..HttpRequest::default()
    };
    Ok(CheckRequest {
        attributes: Some(AttributeContext {
            context_extensions: route,
            request: Some(Request {
                http: Some(http),
                ..Request::default()
            }),
            ..AttributeContext::default()
        }),
    })
}

/// An answer over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// 200 for a yes alone.
    pub status: u16,
    /// What a yes adds to the call, and a no to its answer.
    pub headers: Vec<(String, String)>,
    /// What a no says.
    pub body: String,
}

/// An answer as Envoy is told it over plain HTTP.
pub fn told(answer: CheckResponse) -> Told {
    let all = |headers: Vec<HeaderValueOption>| {
        let headers = headers.into_iter().filter_map(|option| option.header);
        headers.map(|header| (header.key, header.value))
    };
    let yes = answer.status.is_some_and(|status| status.code == 0);
    match answer.http_response {
        Some(HttpResponse::OkResponse(ok)) if yes => {
            let taken = (TAKEN.to_owned(), ok.headers_to_remove.join(","));
            Told {
                status: 200,
                headers: all(ok.headers).chain([taken]).collect(),
                body: String::new(),
            }
        }
        Some(HttpResponse::DeniedResponse(denied)) if !yes => Told {
            status: denied
                .status
                .and_then(|status| u16::try_from(status.code).ok())
                .filter(|status| (400..500).contains(status))
                .unwrap_or(403),
            headers: all(denied.headers).collect(),
            body: denied.body,
        },
        _ => Told {
            status: 403,
            headers: Vec::new(),
            body: String::new(),
        },
    }
}
