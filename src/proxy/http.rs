//! A server that is spoken to over HTTP (streamable HTTP, with a handshake and without).

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pooled, connect::HttpConnector},
    rt::TokioExecutor,
};
use moka::sync::Cache;
use serde_json::Value as Json;
use tokio::net::TcpListener;

use crate::{
    runtime::http::{callable, trusting},
    wire::{
        carried::{Heard, as_named, heard, noted, refused, sifted, withheld},
        mcp::{LISTS, List},
        relay::{Asking, Said, Verdict},
        sse::{Event, Events},
    },
};

use super::{
    Error,
    asker::{Asker, Lists, Settings},
    sides::Sides,
};

/// Largest message.
const LARGEST: usize = 16 << 20;
/// Most sessions that are known, and how long one is that nobody uses.
const SESSIONS: u64 = 10_000;
const IDLE: Duration = Duration::from_hours(1);

const SESSION: &str = "mcp-session-id";

/// Headers that are of one connection alone, or that we say ourselves.
const OWN: [HeaderName; 11] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::ORIGIN,
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What speaks to servers.
pub(super) type Client = Pooled<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What speaks to servers whose certificates the system believes, or `ca`.
pub(super) fn client(ca: Option<&Path>) -> Result<Client, Error> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trusting(ca).map_err(Error::Files)?)
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Pooled::builder(TokioExecutor::new()).build(connector))
}

/// A server's address.
pub(super) fn upstream(text: &str) -> Result<Uri, Error> {
    callable(text).map_err(|why| Error::Usage(format!("--upstream: {why}")))
}

/// A client of the server's, and what stands before it.
#[derive(Clone, Debug)]
struct Before {
    asker: Arc<Asker>,
    client: Client,
    upstream: Uri,
    sessions: Cache<String, Arc<Sides>>,
}

/// What is known of the answer to a request: under which key it comes, and what it is or gets.
#[derive(Debug, Default)]
struct Awaited {
    key: String,
    list: Option<&'static List>,
    note: Option<Json>,
}

/// What is said in place of an answer.
struct Refusal(StatusCode, Json);

impl Refusal {
    fn new(status: StatusCode, why: &str) -> Self {
        Self(status, refused(&Json::Null, status.is_server_error(), why))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        said(self.0, &self.1)
    }
}

fn said(status: StatusCode, json: &Json) -> Response {
    let head = [(header::CONTENT_TYPE, "application/json")];
    (status, head, json.to_string()).into_response()
}

/// The one value of a header.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let wrong = |what: &str| Refusal::new(StatusCode::BAD_REQUEST, &format!("`{name}` {what}"));
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(wrong("is there twice: say it once"));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| wrong("is no plain text"))
}

/// Whether a page of another site may have sent it: such a page speaks to whoever listens here, also
/// under a name of its own.
fn from_elsewhere(headers: &HeaderMap) -> bool {
    let said = |name| {
        headers
            .get_all(name)
            .iter()
            .map(|said| said.to_str().unwrap_or_default())
    };
    let hosts = said(header::HOST).map(|host| format!("http://{host}"));
    let mut all = said(header::ORIGIN).map(ToOwned::to_owned).chain(hosts);
    !all.all(|origin| {
        let origin = origin.parse::<Uri>().ok();
        let host = origin.as_ref().and_then(Uri::host);
        host.map(|host| host.trim_matches(['[', ']']))
            .is_some_and(|host| {
                host == "localhost"
                    || host
                        .parse()
                        .is_ok_and(|address: IpAddr| address.is_loopback())
            })
    })
}

impl Before {
    fn sides(&self, headers: &HeaderMap) -> Result<Arc<Sides>, Refusal> {
        let session = only(headers, SESSION)?.unwrap_or_default().to_owned();
        let one = !session.is_empty();
        Ok(self
            .sessions
            .get_with(session, || Arc::new(Sides::new(one))))
    }

    async fn carry(&self, request: Request<Body>) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        if from_elsewhere(&parts.headers) {
            let why = "a page of another site asks: only this machine's own may";
            return Err(Refusal::new(StatusCode::FORBIDDEN, why));
        }
        if parts.method != Method::POST {
            if parts.method != Method::GET && parts.method != Method::DELETE {
                let why = "the protocol has POST, GET and DELETE";
                return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why));
            }
            return self.forward(&parts, Bytes::new(), Awaited::default()).await;
        }
        if parts.headers.contains_key(header::CONTENT_ENCODING) || !is_plain_json(&parts.headers) {
            let why = "send `Content-Type: application/json`, once, in UTF-8 and not packed";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body.map_err(|error| {
            Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("the message: {error}"),
            )
        })?;
        let body = body.to_bytes();
        let headers = [
            only(&parts.headers, "mcp-method")?,
            only(&parts.headers, "mcp-name")?,
        ];
        if let Err(answer) = as_named(&body, headers) {
            return Err(Refusal(StatusCode::BAD_REQUEST, answer));
        }
        match self.asker.relay.said(&body) {
            Said::On(_) | Said::Cancels(_) => self.forward(&parts, body, Awaited::default()).await,
            Said::Asks(asking) => self.asks(*asking, &parts, body).await,
            Said::Refused(answer) if answer.get("id").is_none_or(Json::is_null) => {
                Err(Refusal(StatusCode::BAD_REQUEST, answer))
            }
            Said::Refused(answer) => Ok(said(StatusCode::OK, &answer)),
            Said::Dropped(why) => Err(Refusal::new(StatusCode::BAD_REQUEST, &why)),
        }
    }

    async fn asks(&self, asking: Asking, parts: &Parts, body: Bytes) -> Result<Response, Refusal> {
        let sides = self.sides(&parts.headers)?;
        let (key, list) = (asking.key(), asking.list);
        if let Some((list, true)) = list
            && list.of == "tools"
        {
            sides.looks();
        }
        let before = Asked {
            before: self,
            parts,
        };
        let verdict = match self.asker.decided(&sides, &asking, &before).await {
            Ok(decision) => self.asker.relay.verdict(asking, &decision),
            Err(undecided) => asking.undecided(&undecided.why, undecided.asker),
        };
        match verdict {
            Verdict::On(instead, note) => {
                let body = instead.map_or(body, Bytes::from);
                let list = list.map(|(list, _)| list);
                self.forward(parts, body, Awaited { key, list, note }).await
            }
            Verdict::Answered(answer) => Ok(said(StatusCode::OK, &answer)),
        }
    }

    fn request(&self, parts: &Parts, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut()) = (parts.method.clone(), self.upstream.clone());
        let goes_on = parts
            .headers
            .iter()
            .filter(|(name, _)| !OWN.contains(*name));
        for (name, value) in goes_on {
            request.headers_mut().append(name, value.clone());
        }
        if parts.method == Method::POST {
            let json = http::HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        request
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, String> {
        let answer = self.client.request(request).await;
        answer.map_err(|error| {
            let cause = std::error::Error::source(&error);
            let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
            format!("the server does not answer: {error}{cause}")
        })
    }

    /// Sends on what was said, and gives back what may be seen of the answer.
    async fn forward(
        &self,
        parts: &Parts,
        body: Bytes,
        awaited: Awaited,
    ) -> Result<Response, Refusal> {
        let sides = self.sides(&parts.headers)?;
        let wrong = |why: &str| Refusal::new(StatusCode::BAD_GATEWAY, why);
        let answer = self.send(self.request(parts, body)).await;
        let (head, body) = answer.map_err(|why| wrong(&why))?.into_parts();
        if head.status.is_redirection() {
            // Whoever followed it would go around us.
            return Err(wrong(
                "the server sends elsewhere: name that address as --upstream",
            ));
        }
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(wrong("the server packs its answer, which nobody asked for"));
        }
        let events = is_events(&head.headers);
        let (body, media) = if events && head.status.is_success() {
            (self.events(body, sides, awaited), Some("text/event-stream"))
        } else {
            let whole = Limited::new(body, LARGEST).collect().await;
            let whole = whole.map_err(|error| wrong(&format!("the server's answer: {error}")))?;
            let whole = whole.to_bytes();
            if whole.is_empty() {
                (Body::empty(), None)
            } else if is_plain_json(&head.headers) {
                let shown = self.shown(&sides, &awaited, &whole).await;
                let shown = shown.map_err(|why| wrong(&why))?;
                (Body::from(shown), Some("application/json"))
            } else if head.status.is_success() {
                return Err(wrong("the server answers with neither JSON nor events"));
            } else {
                let said: String = String::from_utf8_lossy(&whole).chars().take(500).collect();
                let told = refused(&Json::Null, true, &format!("the server says: {said}"));
                (Body::from(told.to_string()), Some("application/json"))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        let ours = |name: &HeaderName| OWN.contains(name) || name == header::CONTENT_TYPE;
        for (name, value) in head.headers.iter().filter(|(name, _)| !ours(name)) {
            response.headers_mut().append(name, value.clone());
        }
        if let Some(media) = media {
            let media = http::HeaderValue::from_static(media);
            response.headers_mut().insert(header::CONTENT_TYPE, media);
        }
        Ok(response)
    }

    /// What of a message of the server's may be seen.
    async fn shown(
        &self,
        sides: &Sides,
        awaited: &Awaited,
        message: &[u8],
    ) -> Result<Vec<u8>, String> {
        let (key, said) = match heard(message) {
            Heard::On => return Ok(message.to_vec()),
            Heard::Answer(key, said) => (key, said),
            Heard::Dropped(why) => return Err(format!("what the server says {why}")),
        };
        let Some(result) = said.get("result") else {
            return Ok(message.to_vec());
        };
        let ours = key == awaited.key;
        let id = said.get("id").unwrap_or(&Json::Null);
        let hold = |why: &str| Ok(withheld(id, why).to_string().into_bytes());
        let asked = awaited.list.filter(|_| ours);
        let mut shown = message.to_vec();
        for list in &LISTS {
            let wanted = asked == Some(list);
            if !wanted && result.get(list.of).is_none() {
                continue;
            }
            if !wanted {
                // A stream that is taken up again may answer what was asked on another; what nobody
                // asks for here is not looked at here.
                return hold("it is a list that was not asked for: ask for it again");
            }
            if list.of == "tools" {
                sides.saw(self.asker.definitions(result));
            }
            let sifted_ = match self.asker.sift(sides, list, result).await {
                Ok(may) => sifted(&shown, list, &may).ok_or_else(|| "it cannot be read".to_owned()),
                Err(undecided) => Err(undecided.why),
            };
            match sifted_ {
                Ok(bytes) => shown = bytes,
                Err(why) => return hold(&why),
            }
        }
        let note = awaited.note.as_ref().filter(|_| ours);
        Ok(note.and_then(|note| noted(&shown, note)).unwrap_or(shown))
    }

    /// A stream of what may be seen of the server's.
    fn events(&self, body: Incoming, sides: Arc<Sides>, awaited: Awaited) -> Body {
        let begin = (self.clone(), body, Events::default(), sides, awaited);
        let parts = stream::try_unfold(
            begin,
            |(before, mut body, mut read, sides, awaited)| async {
                loop {
                    let Some(frame) = body.frame().await else {
                        return Ok(None);
                    };
                    let frame = frame.map_err(|error| error.to_string())?;
                    let Some(bytes) = frame.data_ref() else {
                        continue;
                    };
                    let mut out = Vec::new();
                    for event in read.push(bytes)? {
                        out.extend(before.event(&event, &sides, &awaited).await);
                    }
                    if !out.is_empty() {
                        let rest = (before, body, read, sides, awaited);
                        return Ok::<_, String>(Some((Bytes::from(out), rest)));
                    }
                }
            },
        );
        Body::from_stream(parts)
    }

    async fn event(&self, event: &Event, sides: &Sides, awaited: &Awaited) -> Vec<u8> {
        let Some(data) = event.data() else {
            return event.with(None);
        };
        match self.shown(sides, awaited, &data).await {
            Ok(shown) => event.with(Some(&shown)),
            Err(why) => {
                tracing::warn!(why, "an event of the server's goes no further");
                event.with(None)
            }
        }
    }
}

/// A request that came, and whom it goes on to.
struct Asked<'a> {
    before: &'a Before,
    parts: &'a Parts,
}

impl Lists for Asked<'_> {
    async fn listed(&self, id: &str, asks: Json) -> Result<Json, String> {
        let mut request = self.before.request(self.parts, asks.to_string().into());
        let headers = request.headers_mut();
        let about_another = |name: &HeaderName| name.as_str().starts_with("mcp-param-");
        let about_another: Vec<_> = headers
            .keys()
            .filter(|name| about_another(name))
            .cloned()
            .collect();
        for name in about_another {
            headers.remove(name);
        }
        headers.remove("mcp-name");
        headers.remove("last-event-id");
        if let Some(method) = headers.get_mut("mcp-method") {
            *method = http::HeaderValue::from_static("tools/list");
        }
        let answer = self.before.send(request).await?;
        let (events, mut body) = (is_events(answer.headers()), answer.into_body());
        let wanted = Json::from(id).to_string();
        let ours = |bytes: &[u8]| match heard(bytes) {
            Heard::Answer(key, said) if key == wanted => Some(said),
            _ => None,
        };
        if !events {
            let whole = Limited::new(body, LARGEST).collect().await;
            let whole = whole.map_err(|error| error.to_string())?.to_bytes();
            return ours(&whole).ok_or_else(|| "its answer is of something else".to_owned());
        }
        let mut read = Events::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            let Some(bytes) = frame.data_ref() else {
                continue;
            };
            for event in read.push(bytes)? {
                if let Some(said) = event.data().and_then(|data| ours(&data)) {
                    return Ok(said);
                }
            }
        }
        Err("its answer ended early".to_owned())
    }
}

/// The one media type that is named, and what is said of it.
fn media(headers: &HeaderMap) -> Option<(String, String)> {
    let mut said = headers.get_all(header::CONTENT_TYPE).iter();
    let only = said.next().filter(|_| said.next().is_none())?;
    let said = only.to_str().ok()?.to_ascii_lowercase();
    let (media, more) = said.split_once(';').unwrap_or((&said, ""));
    Some((media.trim().to_owned(), more.replace([' ', '"'], "")))
}

fn is(headers: &HeaderMap, wanted: &str) -> bool {
    media(headers).is_some_and(|(media, more)| {
        media == wanted && (more.is_empty() || more == "charset=utf-8")
    })
}

pub(super) fn is_events(headers: &HeaderMap) -> bool {
    is(headers, "text/event-stream")
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    is(headers, "application/json")
}

/// A proxy that listens.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    before: Before,
}

impl Listening {
    /// Listens on `address`, before the server at `upstream_`, whose certificate the system believes
    /// or `ca`.
    ///
    /// # Errors
    ///
    /// An address that is none, is taken or is not of this machine alone, and certificates that
    /// cannot be used.
    pub async fn bind(
        settings: Settings,
        address: &str,
        (upstream_, ca): (&str, Option<&Path>),
    ) -> Result<Self, Error> {
        let wrong = |what: String| Error::Usage(format!("--listen: {what}"));
        let at: SocketAddr = address
            .parse()
            .map_err(|error| wrong(format!("`{address}` is no address: {error}")))?;
        if !at.ip().is_loopback() {
            let why = "what is said there is in the clear; listen on this machine alone, such as 127.0.0.1:7433";
            return Err(wrong(why.into()));
        }
        let before = Before {
            asker: Arc::new(Asker::new(settings)?),
            client: client(ca)?,
            upstream: upstream(upstream_)?,
            sessions: Cache::builder()
                .max_capacity(SESSIONS)
                .time_to_idle(IDLE)
                .build(),
        };
        let listener = TcpListener::bind(at).await;
        let listener = listener.map_err(|error| wrong(format!("{at}: {error}")))?;
        Ok(Self { listener, before })
    }

    /// Where.
    ///
    /// # Errors
    ///
    /// A socket that has no address.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers until it is asked to stop.
    ///
    /// # Errors
    ///
    /// A listener that fails.
    pub async fn run(self, asked: impl Future<Output = ()>) -> Result<(), Error> {
        let carry = async |State(before): State<Before>, request: Request<Body>| {
            let carried = before.carry(request).await;
            carried.unwrap_or_else(IntoResponse::into_response)
        };
        let router = Router::new()
            .route("/mcp", axum::routing::any(carry))
            .with_state(self.before);
        // Streams last as long as their sessions: whoever stops us does not wait for them.
        tokio::select! {
            served = axum::serve(self.listener, router) => Ok(served?),
            () = asked => Ok(()),
        }
    }
}
