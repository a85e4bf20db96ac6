//! Asks the sidecar what may be called, and what shown.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::{Value as Json, json};
use tokio::{sync::Mutex, time::timeout};
use tonic::{Code, Request, Status, metadata::MetadataValue};
use uuid::Uuid;

use crate::{
    manifest::definition,
    runtime::channel::{self, Connection, Place, carries_tokens},
    wire::{
        ON_BEHALF,
        mcp::List,
        relay::{Asking, Relay},
        v1::{self, check_service_client::CheckServiceClient},
    },
};

use super::{
    Error,
    sides::{Sides, TOOLS},
};

/// What a proxy is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For whom it asks, and about whose tools.
    pub relay: Relay,
    /// What is shown of lists.
    pub shows: Shows,
    /// Where the sidecar is: `unix:PATH`, a path, or a host and port.
    pub socket: Place,
    /// The file of the token that says who asks, if that is how the sidecar knows.
    pub token_file: Option<PathBuf>,
}

/// What is shown of lists. Whatever is shown, a call is still decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// What may be used now.
    Permitted,
    /// Also what an exception can be requested for.
    Requestable,
    /// Everything.
    All,
}

impl Shows {
    /// Whether something that stands so is shown.
    fn includes(self, standing: v1::Standing) -> bool {
        match standing {
            v1::Standing::Permitted => true,
            v1::Standing::Requestable => self != Self::Permitted,
            v1::Standing::Denied | v1::Standing::Unspecified => self == Self::All,
        }
    }
}

/// How long an answer of the sidecar may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a server may take to list its tools to us.
const LISTING: Duration = Duration::from_secs(10);
/// Most pages of such a list.
const PAGES: usize = 100;
/// Most items of a list that are asked about at once.
const ITEMS: usize = 1_000;

/// A server that lists its tools to us.
pub(super) trait Lists {
    /// Its answer to `asks`, which comes under `id`.
    fn listed(&self, id: &str, asks: Json) -> impl Future<Output = Result<Json, String>> + Send;
}

/// Asks the sidecar, for one server.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) relay: Relay,
    shows: Shows,
    socket: Place,
    token_file: Option<PathBuf>,
    client: Mutex<Option<CheckServiceClient<Connection>>>,
}

/// Why there is no decision, and whether whoever asked is the reason.
pub(super) struct Undecided {
    pub(super) why: String,
    pub(super) asker: bool,
}

impl Undecided {
    pub(super) fn ours(why: String) -> Self {
        Self { why, asker: false }
    }
}

impl From<Status> for Undecided {
    fn from(status: Status) -> Self {
        Self {
            why: format!("{:?}: {}", status.code(), status.message()),
            asker: status.code() == Code::InvalidArgument,
        }
    }
}

impl Asker {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        let Settings {
            relay,
            shows,
            socket,
            token_file,
        } = settings;
        if relay.server.is_empty() || relay.server.ends_with('/') {
            let what = "--server: name the server as its tools are governed, such as `mcp://crm`";
            return Err(Error::Usage(what.into()));
        }
        let page = relay.approval.as_ref();
        if page.is_some_and(|page| !page.contains("{decision}")) {
            let what = "--approval-url: say with `{decision}` where the decision's id goes";
            return Err(Error::Usage(what.into()));
        }
        if token_file.is_some() {
            carries_tokens(&socket.target)
                .map_err(|why| Error::Usage(format!("--socket: {why}")))?;
        }
        Ok(Self {
            relay,
            shows,
            socket,
            token_file,
            client: Mutex::new(None),
        })
    }

    /// A sidecar that is not there yet may come.
    async fn client(&self) -> Result<CheckServiceClient<Connection>, Undecided> {
        let mut known = self.client.lock().await;
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        let token = self.token_file.as_deref();
        let connection = timeout(PATIENCE, channel::connect(&self.socket, token)).await;
        let connection = connection.unwrap_or_else(|_| Err("does not answer".into()));
        let connection = connection.map_err(|why| {
            Undecided::ours(format!("no sidecar at {} ({why})", self.socket.target))
        })?;
        let client = CheckServiceClient::new(connection);
        Ok(known.insert(client).clone())
    }

    pub(super) async fn check(
        &self,
        request: v1::CheckRequest,
        trace: Option<&str>,
    ) -> Result<v1::Decision, Undecided> {
        let mut request = ours(request);
        if let Some(trace) = trace.and_then(|trace| MetadataValue::try_from(trace).ok()) {
            request.metadata_mut().insert("traceparent", trace);
        }
        let told = self.client().await?.check(request).await?;
        let decision = told.into_inner().decision;
        decision.ok_or_else(|| Undecided::ours("the answer is empty".into()))
    }

    /// Which items of a list may be shown.
    pub(super) async fn sift(
        &self,
        sides: &Sides,
        list: &List,
        result: &Json,
    ) -> Result<Vec<bool>, Undecided> {
        let Some((check, items)) = self.relay.sifts(list, result, &seen(sides)?) else {
            let why = format!("the server's `{}` is no list", list.of);
            return Err(Undecided::ours(why));
        };
        let mut may = Vec::with_capacity(items.len());
        // Whoever may not speak at all is told so of an empty list too.
        let mut rest = items.as_slice();
        loop {
            let (these, later) = rest.split_at(rest.len().min(ITEMS));
            let request = ours(v1::FilterResourcesRequest {
                check: Some(check.clone()),
                resources: these.iter().flatten().cloned().collect(),
            });
            let told = self.client().await?.filter_resources(request).await?;
            let told = told.into_inner();
            if told.standings.len() != these.iter().flatten().count() {
                return Err(Undecided::ours("the answer is of another list".into()));
            }
            let mut standings = told.standings();
            // What nobody can name nobody may use.
            may.extend(these.iter().map(|item| {
                let standing = item.as_ref().and_then(|_| standings.next());
                self.shows
                    .includes(standing.unwrap_or(v1::Standing::Denied))
            }));
            rest = later;
            if rest.is_empty() {
                return Ok(may);
            }
        }
    }

    /// The decision about what is asked; a tool that nobody has looked at yet is looked at first, by
    /// asking the server for its tools.
    pub(super) async fn decided(
        &self,
        sides: &Sides,
        asking: &Asking,
        server: &impl Lists,
    ) -> Result<v1::Decision, Undecided> {
        if let Some(tool) = &asking.tool
            && !sides.has_seen(tool)
        {
            let looks = timeout(LISTING, self.looks(sides, asking, server));
            let looked = looks
                .await
                .unwrap_or_else(|_| Err("it takes too long".into()));
            looked.map_err(|why| {
                Undecided::ours(format!("the server does not list its tools: {why}"))
            })?;
        }
        let question = asking.question(&self.relay, &seen(sides)?);
        self.check(question, asking.trace.as_deref()).await
    }

    async fn looks(
        &self,
        sides: &Sides,
        asking: &Asking,
        server: &impl Lists,
    ) -> Result<(), String> {
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES {
            let id = Uuid::new_v4().to_string();
            let asks = asking.lists(&id, cursor.as_deref());
            let answer = server.listed(&id, asks).await?;
            let Some(result) = answer.get("result") else {
                let why = answer.pointer("/error/message").and_then(Json::as_str);
                return Err(why.unwrap_or("it says not why").to_owned());
            };
            sides.learned(self.definitions(result));
            cursor = match result.get("nextCursor").and_then(Json::as_str) {
                Some(next) => Some(next.to_owned()),
                None => return Ok(()),
            };
        }
        Err(format!("there are more than {PAGES} pages"))
    }

    /// The digests of a server's tools, by name.
    pub(super) fn definitions(&self, result: &Json) -> BTreeMap<String, String> {
        let tools = result.get("tools").and_then(Json::as_array);
        tools_of(&self.relay.server, tools.map_or(&[], Vec::as_slice))
    }
}

/// A call that says for whom it is made, and how long we wait.
fn ours<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    let mcp = MetadataValue::from_static("mcp");
    request.metadata_mut().insert(ON_BEHALF, mcp);
    request
}

/// What was seen of tools, as far as a question holds it.
fn seen(sides: &Sides) -> Result<BTreeMap<String, String>, Undecided> {
    let seen = sides.seen();
    if seen.len() > TOOLS {
        let why = format!("the server offers more than {TOOLS} tools");
        return Err(Undecided::ours(why));
    }
    Ok(seen)
}

/// The digests of the tools of `server`, by name; one that is there twice is neither.
pub(super) fn tools_of(server: &str, tools: &[Json]) -> BTreeMap<String, String> {
    let mut seen: BTreeMap<String, Vec<&Json>> = BTreeMap::new();
    for tool in tools {
        if let Some(name) = tool.get("name").and_then(Json::as_str) {
            seen.entry(name.to_owned()).or_default().push(tool);
        }
    }
    let digested = seen.into_iter().filter_map(|(name, tools)| {
        let digest = match tools.as_slice() {
            [only] => definition(server, only).ok()?,
            several => definition(server, &json!({ "several": several })).ok()?,
        };
        Some((name, digest.to_string()))
    });
    digested.collect()
}
