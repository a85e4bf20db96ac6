//! What others tell us: that incidents begin and end, that credentials and sessions are revoked.
//!
//! Every event is authenticated, and counts once by who sent it and its id, which are kept with what
//! it does in one transaction. A source does what its settings say and no more: declare incidents
//! (with an open one people may override), revoke credentials, or freeze agents.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value as Json, json};

use crate::{
    domain::{Act, Cause, DomainId, IncidentId, Span, SubjectId, Target},
    engine::{Snapshot, has_credential},
    manifest::is_secret,
    wire::{
        jwt::{Claims, Use},
        webhook::{ID, SIGNATURE, Secrets, TIMESTAMP},
    },
};

use super::{
    authn::Caller,
    core::Registry,
    incidents::Declares,
    issuers::{Issuer, NotTaken},
    role::Role,
    scope::Scope,
    store::{Heard, Outbox},
    workflow::{Refused, Takes},
};

/// Largest event, in bytes.
const LARGEST: usize = 64 << 10;
/// Longest id, in bytes.
const LONGEST: usize = 256;
/// Longest title of an incident, in bytes.
const TITLE: usize = 512;
/// How old a security event may be.
const OLDEST: Span = Span::from_days(7);
/// What security events are called by CAEP.
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";

/// How a source proves who it is.
#[derive(Debug)]
pub(super) enum Proof {
    /// It signs with a secret (Standard Webhooks).
    Shared(Secrets),
    /// It sends security event tokens (RFC 8417), pushed (RFC 8935).
    Tokens(Box<Issuer>),
}

/// Somebody who may tell us.
#[derive(Debug)]
pub(super) struct Source {
    /// What it is called here.
    pub name: Box<str>,
    /// How it proves who it is.
    pub proof: Proof,
    /// What it may do.
    pub may: Vec<May>,
}

/// What a source may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// Say that incidents begin and end.
    Incidents,
    /// Say that a credential is revoked.
    Credentials,
    /// Say that an agent's sessions are revoked: it is frozen.
    Sessions,
}

impl May {
    /// All of it.
    pub(super) const ALL: [Self; 3] = [Self::Incidents, Self::Credentials, Self::Sessions];

    /// The name as written in settings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Incidents => "incidents",
            Self::Credentials => "credentials",
            Self::Sessions => "sessions",
        }
    }
}

/// What an event does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Does {
    Declare(IncidentId, Declares),
    Take(Act, Target),
    /// It is none of our business.
    Nothing(String),
}

impl Does {
    /// What a source needs for it.
    fn needs(&self) -> Option<May> {
        match self {
            Self::Declare(..) => Some(May::Incidents),
            Self::Take(_, Target::Credential(_)) => Some(May::Credentials),
            Self::Take(..) => Some(May::Sessions),
            Self::Nothing(_) => None,
        }
    }
}

/// Why an event is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// Who sent it is not proven; what of it, as RFC 8935 says.
    Unproven(&'static str, String),
    /// It cannot be understood.
    Wrong(String),
    /// It cannot be done as things are.
    Refused(String),
    /// It cannot be done now.
    Unavailable(String),
}

/// Everything that takes events.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) registry: Arc<Registry>,
    pub(super) outbox: Outbox,
    pub(super) sources: Vec<Source>,
}

/// `POST /events/NAME`.
pub(super) fn events(inbox: Arc<Inbox>) -> Router {
    Router::new()
        .route("/events/{source}", post(receive))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(inbox)
}

async fn receive(
    State(inbox): State<Arc<Inbox>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(source) = inbox.sources.iter().find(|source| *source.name == *name) else {
        return (StatusCode::NOT_FOUND, "there is no such source\n").into_response();
    };
    let tokens = matches!(source.proof, Proof::Tokens(_));
    match inbox.taken(source, &headers, &body).await {
        Ok(_) if tokens => StatusCode::ACCEPTED.into_response(),
        Ok(done) => json_answer(StatusCode::OK, &json!({"done": done})),
        Err(fault) => {
            if let Fault::Unproven(..) = fault {
                // Anybody can have this written.
                tracing::debug!(source = &*source.name, ?fault, "an event was not taken");
            } else {
                tracing::warn!(source = &*source.name, ?fault, "an event was not taken");
            }
            refusal(&fault, tokens)
        }
    }
}

fn json_answer(status: StatusCode, json: &Json) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, json.to_string()).into_response()
}

fn refusal(fault: &Fault, tokens: bool) -> Response {
    let (status, code, why) = match fault {
        Fault::Unproven(code, why) => (StatusCode::UNAUTHORIZED, *code, why),
        Fault::Wrong(why) => (StatusCode::BAD_REQUEST, "invalid_request", why),
        Fault::Refused(why) => (StatusCode::CONFLICT, "invalid_request", why),
        Fault::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, "invalid_request", why),
    };
    // RFC 8935 §2.3 has one status for everything that is wrong with a token.
    let status = if tokens && status != StatusCode::SERVICE_UNAVAILABLE {
        StatusCode::BAD_REQUEST
    } else {
        status
    };
    json_answer(status, &json!({"err": code, "description": why}))
}

impl Inbox {
    /// Does what an event says, once; tells what was done.
    async fn taken(
        &self,
        source: &Source,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<String, Fault> {
        let (id, does) = match &source.proof {
            Proof::Shared(secrets) => self.message(secrets, headers, body)?,
            Proof::Tokens(issuer) => self.token(issuer, headers, body).await?,
        };
        if id.is_empty() || id.len() > LONGEST {
            return Err(Fault::Wrong(
                "its id is empty, or longer than 256 bytes".into(),
            ));
        }
        let failed = |error: super::store::StoreError| {
            tracing::error!(%error, "what came cannot be noted");
            Fault::Unavailable("the registry cannot do this now".into())
        };
        if let Some(done) = self
            .outbox
            .received(&source.name, &id)
            .await
            .map_err(failed)?
        {
            return Ok(done);
        }
        if let Some(may) = does.needs().filter(|may| !source.may.contains(may)) {
            let why = format!(
                "its settings do not let this source speak of {}",
                may.name()
            );
            return Err(Fault::Refused(why));
        }
        let heard = |done: &str| Heard {
            issuer: source.name.clone(),
            id: id.as_str().into(),
            time: self.registry.clock.now().latest,
            done: done.into(),
        };
        let done = self.do_it(source, does, &heard).await?;
        tracing::info!(source = &*source.name, id, done, "an event");
        // What changed nothing is noted by itself.
        let noted = self.outbox.received(&source.name, &id).await;
        if noted.map_err(failed)?.is_none() {
            let noted = self.outbox.receive(&heard(&done)).await;
            noted.map_err(failed)?;
        }
        Ok(done)
    }

    /// A message of Standard Webhooks.
    fn message(
        &self,
        secrets: &Secrets,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(String, Does), Fault> {
        let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let header = |name: &'static str| {
            said(name).ok_or_else(|| {
                Fault::Unproven("authentication_failed", format!("`{name}` is missing"))
            })
        };
        let id = header(ID)?;
        let now = self.registry.clock.now().latest;
        secrets
            .check(id, header(TIMESTAMP)?, header(SIGNATURE)?, body, now)
            .map_err(|why| Fault::Unproven("authentication_failed", why.into()))?;
        let message: Json =
            serde_json::from_slice(body).map_err(|error| Fault::Wrong(error.to_string()))?;
        Ok((id.to_owned(), of_message(&message)?))
    }

    /// A security event token.
    async fn token(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(String, Does), Fault> {
        let kind = headers.get(header::CONTENT_TYPE);
        if kind.is_none_or(|kind| kind.as_bytes() != b"application/secevent+jwt") {
            return Err(Fault::Wrong(
                "is not of type application/secevent+jwt".into(),
            ));
        }
        let token = std::str::from_utf8(body).map_err(|error| Fault::Wrong(error.to_string()))?;
        let read = issuer.claims(token.trim(), Use::Event, &self.registry.clock);
        let claims = read.await.map_err(|not| match not {
            NotTaken::UnknownKey => Fault::Unproven("invalid_key", "no known key signed it".into()),
            NotTaken::Wrong(why) => Fault::Unproven("authentication_failed", why),
            NotTaken::Unavailable => {
                Fault::Unavailable("its issuer's keys cannot be had now".into())
            }
        })?;
        let id = claims.text("jti").unwrap_or_default().to_owned();
        // What is older may have been forgotten, and would count a second time.
        let since = claims.time("iat").map_err(Fault::Wrong)?;
        let now = self.registry.clock.now().latest;
        if since.is_none_or(|since| since + OLDEST < now) {
            return Err(Fault::Wrong("has no `iat`, or is older than a week".into()));
        }
        let events = claims.get("events").and_then(Json::as_object);
        let events = events.ok_or_else(|| Fault::Wrong("`events` is missing".into()))?;
        let mut events = events.iter();
        let (Some((kind, event)), None) = (events.next(), events.next()) else {
            return Err(Fault::Wrong("`events` has not exactly one".into()));
        };
        let view = self.registry.view();
        Ok((id, of_event(kind, event, &claims, &view.snapshot)?))
    }

    async fn do_it(
        &self,
        source: &Source,
        does: Does,
        heard: &impl Fn(&str) -> Heard,
    ) -> Result<String, Fault> {
        let caller = |role| Caller {
            identity: format!("service:{}", source.name).into(),
            role,
            scope: Arc::new(Scope::default()),
            start: None,
            signed_in: None,
        };
        match does {
            Does::Nothing(why) => Ok(format!("nothing: {why}")),
            Does::Declare(id, declares) => {
                let state = match declares {
                    Declares::Opened(..) => "open",
                    Declares::Resolved => "resolved",
                };
                let done = format!("incident {id} is {state}");
                let caller = caller(Role::Integration);
                let heard = Some(heard(&done));
                self.registry.declare(&caller, &id, declares, heard).await?;
                Ok(done)
            }
            Does::Take(act, target) => {
                let done = format!("{} {target}", act.name());
                let takes = Takes {
                    act,
                    target,
                    cause: Cause::Compromise,
                    note: "as its issuer says".into(),
                    heard: Some(heard(&done)),
                };
                // Whoever proves to be a source may take back, and nothing else.
                self.registry
                    .take_back(&caller(Role::Approver), takes)
                    .await?;
                Ok(done)
            }
        }
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failed(error) => {
                tracing::error!(%error, "an event cannot be acted on");
                Self::Unavailable("the registry cannot do this now; see its log".into())
            }
            Refused::Problems(problems) => {
                let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                Self::Wrong(problems.join("; "))
            }
            Refused::Invalid(invalid) => Self::Wrong(invalid.to_string()),
            Refused::Forbidden(why)
            | Refused::NotFound(why)
            | Refused::Conflict(why)
            | Refused::Precondition(why) => Self::Refused(why),
        }
    }
}

/// What a message in our own words does.
fn of_message(message: &Json) -> Result<Does, Fault> {
    let kind = message.get("type").and_then(Json::as_str);
    let kind = kind.ok_or_else(|| Fault::Wrong("`type` is missing".into()))?;
    let text = |name: &str| {
        let text = message
            .get("data")
            .and_then(|data| data.get(name)?.as_str());
        text.ok_or_else(|| Fault::Wrong(format!("`data.{name}` is missing")))
    };
    let wrong = |error: crate::domain::Invalid| Fault::Wrong(error.to_string());
    let incident = || {
        let id = text("incident")?;
        if is_secret(id) {
            return Err(Fault::Wrong("`data.incident` looks like a secret".into()));
        }
        IncidentId::parse(id).map_err(|e| wrong(e.under("data.incident")))
    };
    match kind {
        "incident.opened" => {
            let domain = DomainId::parse(text("domain")?);
            let domain = domain.map_err(|e| wrong(e.under("data.domain")))?;
            let title = text("title")?;
            if title.trim().is_empty() || title.len() > TITLE {
                return Err(Fault::Wrong(
                    "`data.title` is empty, or longer than 512 bytes".into(),
                ));
            }
            if is_secret(title) {
                return Err(Fault::Wrong("`data.title` looks like a secret".into()));
            }
            Ok(Does::Declare(
                incident()?,
                Declares::Opened(domain, title.into()),
            ))
        }
        "incident.resolved" => Ok(Does::Declare(incident()?, Declares::Resolved)),
        "credential.revoked" => {
            let target = Target::parse("credential", text("credential")?);
            let target = target.map_err(|e| wrong(e.under("data.credential")))?;
            Ok(Does::Take(Act::Revoke, target))
        }
        "session.revoked" => {
            let subject = SubjectId::parse(text("subject")?);
            let subject = subject.map_err(|e| wrong(e.under("data.subject")))?;
            Ok(Does::Take(Act::Freeze, Target::Subject(subject)))
        }
        other => Ok(Does::Nothing(format!(
            "`{other}` is nothing that is acted on"
        ))),
    }
}

/// Whom an event is about: `sub_id` of the token, or `subject` within the event as CAEP's drafts
/// had it (RFC 9493). Of one that says by whom it was issued, only if that is who tells; of one made
/// of several, all of them.
fn about<'a>(claims: &'a Claims, event: &'a Json) -> Vec<&'a str> {
    let issuer = claims.get("iss").and_then(Json::as_str);
    let of = |id: &'a Json| {
        let theirs = id.get("iss").and_then(Json::as_str);
        let named = ["uri", "url", "id", "sub", "email", "phone_number"];
        let named = named
            .into_iter()
            .filter(move |_| theirs.is_none() || theirs == issuer);
        named.filter_map(move |name| id.get(name)?.as_str())
    };
    let whole = claims.get("sub_id").or_else(|| event.get("subject"));
    let parts = |id: &'a Json| {
        let members = ["user", "application", "device"];
        let members = members.into_iter().filter_map(move |name| id.get(name));
        let aliases = id.get("identifiers").and_then(Json::as_array);
        members.chain(aliases.into_iter().flatten())
    };
    let all = whole
        .into_iter()
        .flat_map(|id| [id].into_iter().chain(parts(id)));
    all.flat_map(of).collect()
}

/// What a security event does. One that takes a session or a credential from an agent without
/// saying which freezes the agent, until people have looked.
fn of_event(kind: &str, event: &Json, claims: &Claims, snapshot: &Snapshot) -> Result<Does, Fault> {
    let wrong = |what: &str| Fault::Wrong(what.to_owned());
    let frozen = |id: &str| {
        let subject = SubjectId::parse(id).ok();
        let subject = subject.filter(|id| snapshot.subject(id.as_str()).is_some());
        subject.map(|subject| Does::Take(Act::Freeze, Target::Subject(subject)))
    };
    let ours = |kind: &str| Does::Nothing(format!("`{kind}` of nobody who is governed here"));
    match kind.strip_prefix(CAEP) {
        Some("session-revoked") => {
            let who = about(claims, event);
            if who.is_empty() {
                return Err(wrong(
                    "`sub_id` is missing, or names nobody of this issuer's",
                ));
            }
            let mut governed = who.into_iter().filter_map(frozen);
            Ok(governed.next().unwrap_or_else(|| ours("session-revoked")))
        }
        Some("credential-change") => {
            let change = event.get("change_type").and_then(Json::as_str);
            let change = change.ok_or_else(|| wrong("`change_type` is missing"))?;
            if !["revoke", "delete"].contains(&change) {
                return Ok(Does::Nothing(format!("a credential's `{change}`")));
            }
            let named = event.get("credential_id").and_then(Json::as_str);
            let who = about(claims, event);
            if named.is_none()
                && let Some(does) = who.iter().copied().find_map(frozen)
            {
                return Ok(does);
            }
            let ids: Vec<&str> = named.map_or(who, |named| vec![named]);
            if ids.is_empty() {
                return Err(wrong(
                    "`sub_id` is missing, or names nobody of this issuer's",
                ));
            }
            // Who is meant may be anybody: only what somebody here has is taken back.
            let held = |id: &&str| {
                let mut subjects = snapshot.subjects();
                subjects.any(|subject| has_credential(subject, |known| known == *id))
            };
            let Some(id) = ids.into_iter().find(held) else {
                return Ok(ours("credential-change"));
            };
            let target = Target::parse("credential", id);
            Ok(Does::Take(
                Act::Revoke,
                target.map_err(|error| wrong(&error.to_string()))?,
            ))
        }
        Some(_) | None => Ok(Does::Nothing(format!(
            "`{kind}` is nothing that is acted on"
        ))),
    }
}
