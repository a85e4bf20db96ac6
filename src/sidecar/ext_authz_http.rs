//! Envoy's `ext_authz` over plain HTTP: the call itself, below a prefix that whoever configured Envoy has
//! said: `/ext_authz`, or `/ext_authz;purpose=work` with what there is to say of its route.

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, uri::PathAndQuery},
    response::{IntoResponse, Response},
    routing::any,
};

use crate::{
    telemetry::Surface,
    wire::{
        Fault,
        envoy::malformed,
        envoy_http::{Told, asked, told},
    },
};

use super::{
    answering::{Called, DEADLINE},
    ext_authz::ExtAuthz,
};

/// What Envoy's `path_prefix` is.
const PREFIX: &str = "/ext_authz";
/// Largest body.
const LARGEST: usize = 256 << 10;

/// The routes of `ext_authz`.
pub(super) fn routes(envoy: ExtAuthz) -> Router {
    Router::new()
        .route(REFUSED, any(refused))
        .route(PREFIX, any(check))
        .route(&format!("{PREFIX}/"), any(check))
        .route(&format!("{PREFIX}/{{*path}}"), any(check))
        .with_state(envoy)
}

/// Where a call was sent to, before it was led here.
#[derive(Clone, Debug)]
struct Sent(PathAndQuery);

/// Where a call is sent that a client could have answered with a 200 that is no yes.
const REFUSED: &str = "/ext_authz_refused";
/// With it the transport answers by itself once time is up, and with a 200.
const TIMEOUT: &str = "grpc-timeout";

/// Leads a call whose prefix says something of its route to where all are answered: routes match whole
/// parts of a path alone.
pub(super) fn lead<B>(request: &mut http::Request<B>) {
    let path = request.uri().path_and_query();
    let rest = path.and_then(|path| path.as_str().strip_prefix(PREFIX));
    let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with([';', '/', '?']))
    else {
        return;
    };
    let to = match (
        request.headers().contains_key(TIMEOUT),
        rest.starts_with(';'),
    ) {
        (true, _) => REFUSED,
        (false, true) => PREFIX,
        (false, false) => return,
    };
    let sent = path.cloned().map(Sent);
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(to));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        if let Some(sent) = sent {
            request.extensions_mut().insert(sent);
        }
    }
}

/// At once: whoever answers first is whom Envoy hears.
async fn refused() -> Response {
    let what =
        "`headers.grpc-timeout`: is not taken over plain HTTP; leave it out of allowed_headers";
    (StatusCode::BAD_REQUEST, what).into_response()
}

/// What the call is called for telemetry: whoever asks with another verb names it as they like.
fn named(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET /ext_authz",
        Method::HEAD => "HEAD /ext_authz",
        Method::POST => "POST /ext_authz",
        Method::PUT => "PUT /ext_authz",
        Method::PATCH => "PATCH /ext_authz",
        Method::DELETE => "DELETE /ext_authz",
        Method::OPTIONS => "OPTIONS /ext_authz",
        _ => "_OTHER /ext_authz",
    }
}

/// A yes is 200 and anything below 500 a no; what is our own fault is a 503, with which Envoy does as it
/// was told for that.
async fn check(State(envoy): State<ExtAuthz>, request: Request) -> Response {
    let arrived = envoy.answering.decider.clock.look();
    let (parts, body) = request.into_parts();
    let called = Called {
        method: named(&parts.method),
        surface: Surface::ExtAuthz,
        trace: None,
    };
    let sent = parts.extensions.get::<Sent>().map(|Sent(path)| path);
    let path = sent.or(parts.uri.path_and_query());
    let path = path.map_or("", |path| path.as_str());
    let path = path.strip_prefix(PREFIX).unwrap_or_default();
    let Ok(body) = to_bytes(body, LARGEST).await else {
        let what = "the body is larger than 256 KiB, or did not arrive";
        return (StatusCode::PAYLOAD_TOO_LARGE, what).into_response();
    };
    let message = match asked(&parts, path, &body) {
        Ok(message) => message,
        Err(invalid) => return said(told(malformed(&invalid))),
    };
    let when = (arrived, Ok(DEADLINE), called);
    match envoy.answer(&message, &parts.extensions, when).await {
        Ok(answer) => said(told(answer)),
        Err(fault) => ours(&fault),
    }
}

fn ours(fault: &Fault) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, fault.to_string()).into_response()
}

fn said(
    Told {
        status,
        headers,
        body,
    }: Told,
) -> Response {
    // A status that is none, or one of ours, would be no answer.
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = (status, body).into_response();
    let all = response.headers_mut();
    all.remove(http::header::CONTENT_TYPE);
    for (name, value) in headers {
        let named = HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (named, HeaderValue::try_from(value)) {
            all.insert(name, value);
        }
    }
    response
}
