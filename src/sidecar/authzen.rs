//! AuthZEN Authorization API 1.0 over HTTP, where decisions are answered (pdp §4).

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State, rejection::BytesRejection},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use crate::{
    config::{Identity, Proxy},
    domain::{Invalid, Span, SubjectId, Trace},
    engine::search,
    runtime::{clock::Instant, simulated::aside},
    telemetry::Surface,
    wire::{
        Fault,
        access::{CAPABILITY, KEYS, REQUESTS},
        approval::{Because, Shown},
        authzen::{
            Asked, Evaluation, Evaluations, Searched, Semantic, Wanted, decision, failed, permits,
            searched, several, single,
        },
        json::sent,
        principal::Principal,
        question, v1,
    },
};

use super::{
    access::{Asked as Shows, because},
    answering::{Answering, Called, in_time},
    identity::{admitted, behind, speaks_for_others},
};

/// Largest body.
const LARGEST: usize = 256 << 10;
/// Longest a call may take (reliability §9.3).
const DEADLINE: Span = Span::from_secs(1);
/// The request's id, told back as it came.
const REQUEST_ID: &str = "x-request-id";
/// Questions of one request that are under way at once.
const TOGETHER: usize = 8;
/// Searches at once: each asks about everybody.
const SEARCHES: usize = 2;

/// Answers AuthZEN.
#[derive(Clone, Debug)]
pub(super) struct AuthZen {
    pub(super) answering: Answering,
    /// Who may speak for others.
    pub(super) proxies: Arc<[Proxy]>,
    /// Under which address others know this decision point, if it was said.
    pub(super) base: Option<Arc<str>>,
    searching: Arc<Semaphore>,
}

impl AuthZen {
    pub(super) fn new(answering: Answering, proxies: Arc<[Proxy]>, base: Option<Arc<str>>) -> Self {
        Self {
            answering,
            proxies,
            base,
            searching: Arc::new(Semaphore::new(SEARCHES)),
        }
    }

    /// The body of somebody who may ask at all.
    fn read(
        &self,
        headers: &HeaderMap,
        connection: &Connection,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Json, Fault> {
        admitted(&self.answering.identity, &self.proxies, &connection.0)?;
        Ok(read(headers, body)?)
    }
}

/// The routes of AuthZEN.
pub(super) fn routes(authzen: AuthZen) -> Router {
    let how = match *authzen.answering.identity {
        Identity::Tokens(_) => "Bearer",
        _ => "Mutual",
    };
    Router::new()
        .route("/access/v1/evaluation", post(evaluation))
        .route("/access/v1/evaluations", post(evaluations))
        .route("/access/v1/search/subject", post(subject_search))
        .route("/access/v1/search/resource", post(resource_search))
        .route("/access/v1/search/action", post(action_search))
        .route("/.well-known/authzen-configuration", get(metadata))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn_with_state(how, told_back))
        .with_state(authzen)
}

/// Tells the request's id back, whatever became of it; and whoever is not known, `how` to be.
async fn told_back(
    State(how): State<&'static str>,
    request: Request,
    next: Next,
) -> Result<Response, Infallible> {
    let id = request.headers().get(REQUEST_ID).cloned();
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        let how = HeaderValue::from_static(how);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// A call that has no answer, as HTTP has it. Whose fault it is decides the status; a denial is none.
struct Unanswered(Fault);

impl From<Fault> for Unanswered {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl From<Invalid> for Unanswered {
    fn from(invalid: Invalid) -> Self {
        Self(Fault::Invalid(invalid))
    }
}

fn status(fault: &Fault) -> StatusCode {
    StatusCode::from_u16(fault.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl IntoResponse for Unanswered {
    fn into_response(self) -> Response {
        let status = status(&self.0);
        (status, self.0.to_string()).into_response()
    }
}

fn answer(json: &Json) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        json.to_string(),
    )
        .into_response()
}

/// The body as JSON.
fn read(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Json, Invalid> {
    let body = body.map_err(|error| Invalid::new("", error.body_text(), "send less"))?;
    let kind = headers.get(header::CONTENT_TYPE);
    sent(kind.map(HeaderValue::as_bytes), &body)
}

fn trace(headers: &HeaderMap) -> Option<Trace> {
    Trace::parse(headers.get("traceparent")?.to_str().ok()?)
}

/// Who sends a question, and what it belongs to.
struct Sent<'a> {
    arrived: Instant,
    headers: &'a HeaderMap,
    connection: &'a Extensions,
    method: &'static str,
}

impl Sent<'_> {
    fn called(&self) -> Called {
        Called {
            method: self.method,
            surface: Surface::AuthZen,
            trace: trace(self.headers),
        }
    }
}

impl AuthZen {
    /// The answer to a question, and whether it is yes.
    async fn ask(&self, one: Evaluation, sent: &Sent<'_>) -> Result<(Json, bool), Fault> {
        let arrived = self.answering.decider.clock.look();
        let called = sent.called();
        let (shown, subject) = (one.approval, one.subject.clone());
        let decided = async {
            in_time(sent.arrived, arrived.elapsed, DEADLINE)?;
            let (identity, proxies) = (&self.answering.identity, &self.proxies);
            let named = Some(Principal::Named(one.subject));
            let who = behind(identity, proxies, sent.connection, named)?;
            let when = (arrived, DEADLINE, called);
            self.answering.ask(one.request, who, when).await
        };
        let decided = decided.await;
        if let Err(fault) = &decided {
            self.answering.tell_failed(fault, arrived, called);
        }
        let told = decided?;
        let (mut json, permits) = (decision(&told), permits(&told));
        if let (Some(shown), false) = (&shown, permits) {
            self.because(shown, &subject, &told).say(&mut json);
        }
        Ok((json, permits))
    }

    /// Why the answer is no though an approval was shown.
    fn because(&self, shown: &Shown, subject: &str, told: &v1::Decision) -> Because {
        let loaded = self.answering.decider.snapshot.get();
        match (loaded, &self.answering.following) {
            (Some(loaded), Some(following)) => {
                let now = self.answering.decider.clock.now().latest;
                let snapshot = &loaded.snapshot;
                let asked = Shows {
                    subject,
                    told,
                    snapshot,
                    now,
                };
                because(shown, &asked, &following.keys())
            }
            // Of a folder nobody vouches for anything.
            _ => Because::ApprovalUnverifiable,
        }
    }

    /// One of several: what is wrong with it alone is said in its place.
    async fn ask_one_of(
        &self,
        asked: &Evaluations,
        at: usize,
        sent: &Sent<'_>,
    ) -> Result<(Json, Option<bool>), Fault> {
        let decided = match asked.item(at) {
            Ok(one) => self.ask(one, sent).await,
            Err(invalid) => Err(Fault::Invalid(invalid)),
        };
        match decided {
            Ok((told, permits)) => Ok((told, Some(permits))),
            // Of these each is a fault of the whole.
            Err(fault @ (Fault::NotReady | Fault::Unauthenticated(_))) => Err(fault),
            // What others rest on is recorded by now: theirs are answers all the same.
            Err(fault) => {
                let status = status(&fault).as_u16();
                Ok((failed(status, &fault.to_string()), None))
            }
        }
    }

    async fn ask_all(&self, asked: &Evaluations, sent: &Sent<'_>) -> Result<Json, Fault> {
        let stops = |said: Option<bool>| match asked.semantic {
            Semantic::ExecuteAll => false,
            Semantic::DenyOnFirstDeny => said != Some(true),
            Semantic::PermitOnFirstPermit => said == Some(true),
        };
        // Held until all is answered, as a batch is (S2).
        let _held = self.answering.decider.snapshot.get();
        let mut told = Vec::with_capacity(asked.len());
        // What some of them rest on is recorded together.
        let together = match asked.semantic {
            Semantic::ExecuteAll => TOGETHER,
            Semantic::DenyOnFirstDeny | Semantic::PermitOnFirstPermit => 1,
        };
        let items = stream::iter(0..asked.len()).map(|at| self.ask_one_of(asked, at, sent));
        let mut items = Box::pin(items.buffered(together));
        while let Some(item) = items.next().await {
            let (item, said) = item?;
            told.push(item);
            if stops(said) {
                break;
            }
        }
        Ok(json!({ "evaluations": told }))
    }

    /// What a search finds, among those that the caller may ask about.
    async fn search(
        &self,
        wanted: Wanted,
        body: &Json,
        connection: &Extensions,
    ) -> Result<Json, Fault> {
        let Searched { kind, evaluation } = searched(body, wanted)?;
        let turn = self.searching.acquire().await;
        let _turn = turn.map_err(|error| Fault::Unavailable(error.to_string()))?;
        let loaded = self
            .answering
            .decider
            .snapshot
            .get()
            .ok_or(Fault::NotReady)?;
        let mut at = loaded.at(self.answering.decider.clock.look());
        at.now.evidence = self.answering.decider.spool.evidenced();
        let (identity, proxies) = (&self.answering.identity, &self.proxies);
        let about = match wanted {
            // Whoever may not speak for others finds themselves.
            Wanted::Subject if speaks_for_others(identity, proxies, connection) => None,
            Wanted::Subject => Some(behind(identity, proxies, connection, None)?),
            Wanted::Resource | Wanted::Action => {
                let named = Some(Principal::Named(evaluation.subject));
                Some(behind(identity, proxies, connection, named)?)
            }
        };
        let request = match &about {
            Some(who) => who.says(evaluation.request),
            None => evaluation.request,
        };
        let about = about.map(|who| who.subject);
        let nobody = SubjectId::parse("anybody").map_err(Fault::Invalid)?;
        let asked = question(request, about.clone().unwrap_or(nobody))?;
        let found = aside(move || {
            let snapshot = &loaded.snapshot;
            match wanted {
                Wanted::Subject => {
                    let among = |id: &SubjectId| about.as_ref().is_none_or(|only| only == id);
                    let found = search::subjects(&kind, &asked, snapshot, at.now, among);
                    let found = found.iter();
                    found
                        .map(|id| json!({"type": kind, "id": id.as_str()}))
                        .collect::<Json>()
                }
                Wanted::Resource => search::resources(&asked, snapshot, at.now)
                    .iter()
                    .map(|id| json!({"type": kind, "id": id}))
                    .collect(),
                Wanted::Action => search::actions(&asked, snapshot, at.now)
                    .iter()
                    .map(|name| json!({"name": name}))
                    .collect(),
            }
        });
        let found = found.await.map_err(Fault::Unavailable)?;
        Ok(json!({ "results": found }))
    }
}

async fn evaluation(
    State(authzen): State<AuthZen>,
    headers: HeaderMap,
    connection: Connection,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Unanswered> {
    let arrived = authzen.answering.decider.clock.look();
    let one = single(&authzen.read(&headers, &connection, body)?)?;
    let sent = Sent {
        arrived,
        headers: &headers,
        connection: &connection.0,
        method: "POST /access/v1/evaluation",
    };
    let (told, _) = authzen.ask(one, &sent).await?;
    Ok(answer(&told))
}

async fn evaluations(
    State(authzen): State<AuthZen>,
    headers: HeaderMap,
    connection: Connection,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Unanswered> {
    let arrived = authzen.answering.decider.clock.look();
    let asked = several(&authzen.read(&headers, &connection, body)?)?;
    let sent = Sent {
        arrived,
        headers: &headers,
        connection: &connection.0,
        method: "POST /access/v1/evaluations",
    };
    Ok(answer(&match asked {
        Asked::One(one) => authzen.ask(*one, &sent).await?.0,
        Asked::Many(many) => authzen.ask_all(&many, &sent).await?,
    }))
}

async fn subject_search(
    State(authzen): State<AuthZen>,
    headers: HeaderMap,
    connection: Connection,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Unanswered> {
    let body = authzen.read(&headers, &connection, body)?;
    let found = authzen
        .search(Wanted::Subject, &body, &connection.0)
        .await?;
    Ok(answer(&found))
}

async fn resource_search(
    State(authzen): State<AuthZen>,
    headers: HeaderMap,
    connection: Connection,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Unanswered> {
    let body = authzen.read(&headers, &connection, body)?;
    let found = authzen
        .search(Wanted::Resource, &body, &connection.0)
        .await?;
    Ok(answer(&found))
}

async fn action_search(
    State(authzen): State<AuthZen>,
    headers: HeaderMap,
    connection: Connection,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Unanswered> {
    let body = authzen.read(&headers, &connection, body)?;
    let found = authzen.search(Wanted::Action, &body, &connection.0).await?;
    Ok(answer(&found))
}

/// What there is here, by addresses that were said and never made up from a request.
async fn metadata(State(authzen): State<AuthZen>) -> Result<Response, Unanswered> {
    let base = authzen.base.as_deref().ok_or_else(|| {
        Fault::NotFound("under which address this is known was not said; set authzen_url".into())
    })?;
    let at = |path: &str| format!("{base}{path}");
    let mut told = json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": at("/access/v1/evaluation"),
        "access_evaluations_endpoint": at("/access/v1/evaluations"),
        "search_subject_endpoint": at("/access/v1/search/subject"),
        "search_resource_endpoint": at("/access/v1/search/resource"),
        "search_action_endpoint": at("/access/v1/search/action"),
    });
    let following = authzen.answering.following.as_ref();
    if let (Some(registry), Some(entries)) = (
        following.and_then(|following| following.access.base()),
        told.as_object_mut(),
    ) {
        let there = |path: &str| Json::from(format!("{registry}{path}"));
        entries.insert("access_request_endpoint".into(), there(REQUESTS));
        entries.insert("jwks_uri".into(), there(KEYS));
        entries.insert("capabilities".into(), json!([CAPABILITY]));
    }
    Ok(answer(&told))
}

/// What is known of the connection a request came by.
struct Connection(Extensions);

impl<S: Sync> axum::extract::FromRequestParts<S> for Connection {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.clone()))
    }
}
