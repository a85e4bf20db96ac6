//! A server that is asked for its tools, by nobody but us.

use std::{collections::BTreeMap, ffi::OsString, path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};
use uuid::Uuid;

use crate::wire::{
    carried::{Heard, heard},
    sse::Events,
};

use super::{
    Error,
    asker::tools_of,
    http::{Client, client, is_events, upstream},
    lines::{Line, Lines},
    stdio::started,
};

/// How long a server may take for each answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer.
const LARGEST: usize = 16 << 20;
/// Most pages of a list.
const PAGES: usize = 100;
/// The protocol without a handshake, and the last with one.
const STATELESS: &str = "2026-07-28";
const HANDSHAKE: &str = "2025-11-25";

/// A server that is asked one thing after the other.
enum Server {
    Child(ChildStdin, Lines<BufReader<ChildStdout>>),
    Http(Box<Http>),
}

struct Http {
    client: Client,
    upstream: Uri,
    /// The protocol's version, once it is settled.
    version: &'static str,
    session: Option<String>,
}

impl Server {
    /// Says something; its answer, where there is one.
    async fn say(&mut self, message: &Json) -> Result<Option<Json>, String> {
        let key = message.get("id").map(Json::to_string);
        let said = timeout(PATIENCE, async {
            match self {
                Self::Child(to, from) => exchange(to, from, message, key.as_deref()).await,
                Self::Http(http) => http.exchange(message, key.as_deref()).await,
            }
        });
        said.await.unwrap_or_else(|_| Err("does not answer".into()))
    }

    /// The result of a request.
    async fn ask(&mut self, method: &str, params: Json) -> Result<Json, String> {
        let id = Uuid::new_v4().to_string();
        let asked = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer = self.say(&asked).await?.unwrap_or_default();
        if let Some(result) = answer.get("result") {
            return Ok(result.clone());
        }
        let why = answer.pointer("/error/message").and_then(Json::as_str);
        Err(format!(
            "to {method}: {}",
            why.unwrap_or("no reason is given")
        ))
    }

    /// All of its tools, asked for with `meta`.
    async fn tools(&mut self, meta: Option<&Json>) -> Result<Vec<Json>, String> {
        let (mut tools, mut cursor) = (Vec::new(), Json::Null);
        for _ in 0..PAGES {
            let mut params = serde_json::Map::new();
            if let Some(meta) = meta {
                params.insert("_meta".into(), meta.clone());
            }
            if !cursor.is_null() {
                params.insert("cursor".into(), cursor);
            }
            let result = self.ask("tools/list", params.into()).await?;
            let listed = result.get("tools").and_then(Json::as_array);
            tools.extend(listed.ok_or("its `tools` is no list")?.iter().cloned());
            cursor = result.get("nextCursor").cloned().unwrap_or_default();
            if cursor.is_null() {
                return Ok(tools);
            }
        }
        Err(format!("there are more than {PAGES} pages"))
    }

    /// All of its tools, by the protocol that it speaks.
    async fn listed(&mut self) -> Result<Vec<Json>, String> {
        let info = json!({"name": "exeat", "version": env!("CARGO_PKG_VERSION")});
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": STATELESS,
            "io.modelcontextprotocol/clientInfo": info,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        if let Ok(tools) = self.tools(Some(&meta)).await {
            return Ok(tools);
        }
        if let Self::Http(http) = self {
            http.version = HANDSHAKE;
        }
        let begins = json!({"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": info});
        self.ask("initialize", begins).await?;
        let begun = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.say(&begun).await?;
        self.tools(None).await
    }
}

/// Over standard input and output.
async fn exchange(
    to: &mut ChildStdin,
    from: &mut Lines<BufReader<ChildStdout>>,
    message: &Json,
    key: Option<&str>,
) -> Result<Option<Json>, String> {
    let told = to.write_all(format!("{message}\n").as_bytes()).await;
    told.map_err(|error| error.to_string())?;
    to.flush().await.map_err(|error| error.to_string())?;
    let Some(key) = key else { return Ok(None) };
    loop {
        let said = from.next().await.map_err(|error| error.to_string())?;
        let Line::Message(said) = said.ok_or("it has ended")? else {
            continue;
        };
        if let Heard::Answer(of, said) = heard(&said)
            && of == key
        {
            return Ok(Some(said));
        }
    }
}

impl Http {
    async fn exchange(
        &mut self,
        message: &Json,
        key: Option<&str>,
    ) -> Result<Option<Json>, String> {
        let method = message
            .get("method")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let mut request = Request::post(self.upstream.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", self.version)
            .header("mcp-method", method);
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        let request = request.body(Full::new(Bytes::from(message.to_string())));
        let request = request.map_err(|error| error.to_string())?;
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| error.to_string())?;
        let session = answer
            .headers()
            .get("mcp-session-id")
            .and_then(|id| id.to_str().ok());
        if let Some(session) = session {
            self.session = Some(session.to_owned());
        }
        let Some(key) = key else { return Ok(None) };
        let (status, events) = (answer.status(), is_events(answer.headers()));
        let mut body = Limited::new(answer.into_body(), LARGEST);
        let ours = |bytes: &[u8]| match heard(bytes) {
            Heard::Answer(of, said) if of == key => Some(said),
            _ => None,
        };
        let mut read = Events::default();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            let Some(bytes) = frame.data_ref() else {
                continue;
            };
            if !events {
                whole.extend_from_slice(bytes);
                continue;
            }
            for event in read.push(bytes)? {
                if let Some(said) = event.data().and_then(|data| ours(&data)) {
                    return Ok(Some(said));
                }
            }
        }
        ours(&whole)
            .map(Some)
            .ok_or_else(|| format!("answers with {status}"))
    }
}

/// Where a server is.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// It is started with this command.
    Command(&'a [OsString]),
    /// It is spoken to over HTTP; its certificate the system believes, or this file.
    Url(&'a str, Option<&'a Path>),
}

/// The digests of a server's tools, by name.
///
/// # Errors
///
/// A server that cannot be started or reached, or that does not list its tools.
pub async fn tools(server: &str, at: At<'_>) -> Result<BTreeMap<String, String>, Error> {
    // It lives for as long as it is asked.
    let mut child: Option<Child> = None;
    let mut asked = match at {
        At::Url(address, ca) => Server::Http(Box::new(Http {
            client: client(ca)?,
            upstream: upstream(address)?,
            version: STATELESS,
            session: None,
        })),
        At::Command(command) => {
            let (started, to, from) = started(command)?;
            child = Some(started);
            Server::Child(to, Lines::of(BufReader::new(from)))
        }
    };
    let listed = asked.listed().await;
    drop(child);
    let listed = listed.map_err(|why| Error::Unreachable(format!("{server}: {why}")))?;
    Ok(tools_of(server, &listed))
}
