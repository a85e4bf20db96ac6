//! Access that is asked for over HTTP, by whoever was told that it can be.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value as Json, json};

use crate::{
    domain::{
        Ballot, Case, ExceptionState, Invalid, Request, Selector, Span, Timestamp, Vote, Window,
    },
    engine::owner_of,
    manifest::{Problem, read_request},
    wire::{
        Fault,
        access::{Denial, KEYS, REQUESTS, Submission, Trouble, by_their_names, submitted},
        approval::{Approval, Status, Task, Vouched},
        json::sent,
        jwt::{Keys, key, key_of},
    },
};

use super::{
    asking::{Again, meant},
    attendants::Attendants,
    authn::{Caller, Guests, may},
    core::Registry,
    service::open_seats,
    view::View,
    workflow::Refused,
};

/// Largest request, in bytes.
const LARGEST: usize = 64 << 10;
/// The request's id, told back as it came.
const REQUEST_ID: &str = "x-request-id";
/// After how many seconds to look at a task again.
const AGAIN: &str = "5";

/// Takes requests for access.
#[derive(Clone, Debug)]
pub(super) struct AccessRequests {
    pub(super) registry: Arc<Registry>,
    pub(super) guests: Arc<Guests>,
    /// Whose denials are believed.
    pub(super) attendants: Arc<Attendants>,
    /// Under which address others know this registry, if it takes requests.
    pub(super) base: Option<Arc<str>>,
}

/// The routes of requests for access.
pub(super) fn routes(requests: AccessRequests) -> Router {
    Router::new()
        .route(REQUESTS, post(submit))
        .route(&format!("{REQUESTS}/{{id}}"), get(status))
        .route(&format!("{REQUESTS}/{{id}}/cancel"), post(cancel))
        .route(KEYS, get(keys))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn(told_back))
        .with_state(requests)
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, self.problem().to_string()).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        response
    }
}

/// What is wrong with the manifest that a request became, as its own.
fn of_problem(problem: &Problem) -> Invalid {
    let message = problem.message.trim_start_matches("Request: ");
    let named = message
        .strip_prefix('`')
        .and_then(|rest| rest.split_once("`: "));
    match named {
        Some((path, what)) => by_their_names(&Invalid::new(path, what, "")),
        None => Invalid::new("", message, ""),
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Problems(problems) => {
                let first = problems.first();
                Self::Malformed(first.map_or_else(|| Invalid::new("", "", ""), of_problem))
            }
            Refused::Invalid(invalid)
                if ["control_ids", "scope"]
                    .iter()
                    .any(|of| invalid.path().starts_with(of)) =>
            {
                Self::NotRequestable(invalid.to_string())
            }
            Refused::Invalid(invalid) => Self::Malformed(by_their_names(&invalid)),
            Refused::Conflict(why) => Self::Duplicate(why),
            other => Self::Other(other.into()),
        }
    }
}

/// Who calls, if they may make the call of our own that this is.
struct Who(Parts);

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.clone()))
    }
}

impl Who {
    fn may(&self, requests: &AccessRequests, call: &str) -> Result<Caller, Fault> {
        requests.base()?;
        let path = format!("/exeat.v1.ExceptionService/{call}");
        may(&requests.guests, &self.0.headers, &self.0.extensions, &path)
    }
}

/// The body as JSON.
fn read(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Json, Invalid> {
    let body = body.map_err(|error| Invalid::new("", error.body_text(), "send less"))?;
    let kind = headers.get(header::CONTENT_TYPE);
    sent(kind.map(HeaderValue::as_bytes), &body)
}

/// Tells the request's id back, whatever became of it.
async fn told_back(request: axum::extract::Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).cloned();
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// What became of a request.
fn of(case: &Case) -> Status {
    match case.state {
        // A draft is one whose terms changed: whoever asked hands it in anew.
        ExceptionState::Draft | ExceptionState::Pending => Status::Pending,
        ExceptionState::Denied => Status::Denied,
        ExceptionState::Withdrawn => Status::Cancelled,
        ExceptionState::Lapsed => Status::Expired,
        _ if case.granted.is_some() => Status::Approved,
        ExceptionState::Approved
        | ExceptionState::Suspended
        | ExceptionState::Expired
        | ExceptionState::Revoked
        | ExceptionState::Closed => Status::Denied,
    }
}

/// Whom an exception is for, if that is one alone.
fn only(subjects: &Selector) -> Option<String> {
    match subjects {
        Selector::Ids(ids) if ids.len() == 1 => ids.iter().next().map(ToString::to_string),
        Selector::Ids(_) | Selector::Classes(_) => None,
    }
}

/// When it was decided that a case is granted.
fn decided(case: &Case) -> Option<Timestamp> {
    let for_it = |vote: &&Vote| vote.approves && vote.ballot == Ballot::Initial;
    let last = case.votes.iter().filter(for_it).map(|vote| vote.time).max();
    last.or_else(|| Some(case.terms.as_ref()?.submitted))
}

/// What somebody asked for before in the same words: about the same denial, or about another of the same
/// that is not decided yet.
///
/// # Errors
///
/// Other words for what waits to be decided.
fn before(view: &View, caller: &Caller, asked: &Request) -> Result<Option<Arc<Case>>, Trouble> {
    let theirs = |case: &&Arc<Case>| case.requester.as_str() == &*caller.identity;
    let cases: Vec<_> = view.cases.values().filter(theirs).collect();
    let mut all = cases.iter();
    let same =
        all.find(|case| case.state != ExceptionState::Withdrawn && case.request.text == asked.text);
    if let Some(case) = same {
        return Ok(Some(Arc::clone(case)));
    }
    let open = cases.iter().find(|case| {
        let open = matches!(case.state, ExceptionState::Draft | ExceptionState::Pending);
        let of = &case.request;
        open && of.controls == asked.controls && of.scope == asked.scope
    });
    let Some(case) = open else {
        return Ok(None);
    };
    let plain = |request: &Request| Request {
        decision: None,
        text: "".into(),
        window: Window::OnApproval {
            duration: Span::ZERO,
        },
        ..request.clone()
    };
    let end = |request: &Request| match request.window {
        Window::Fixed { start, duration } => (Some(start + duration), None),
        Window::OnApproval { duration } => (None, Some(duration)),
    };
    // A draft is handed in anew, in whatever words.
    let draft = case.state == ExceptionState::Draft;
    if draft || plain(&case.request) == plain(asked) && end(&case.request) == end(asked) {
        return Ok(Some(Arc::clone(case)));
    }
    let why = format!("it was asked for in other words: see {}", case.id);
    Err(Trouble::Duplicate(why))
}

impl AccessRequests {
    /// A request as its requester sees it.
    fn task(&self, view: &View, case: &Case, now: Timestamp) -> Task {
        let status = of(case);
        let terms = case.open_terms();
        let granted = case.granted.filter(|_| status == Status::Approved);
        let in_force = case.state == ExceptionState::Approved;
        let first = case.request.controls.first();
        let title = first.and_then(|id| view.snapshot.control(id));
        Task {
            id: case.id.to_string(),
            status,
            cancels: case.state == ExceptionState::Pending,
            seats: terms.map_or(0, |terms| terms.seats.len()),
            awaiting: match case.state {
                ExceptionState::Draft => vec!["whoever asked, to send it again".into()],
                _ => open_seats(view, case, now),
            },
            deadline: terms.and_then(|terms| terms.deadline),
            title: title.map_or_else(|| case.id.to_string(), |control| control.title.to_string()),
            approval: granted.map(|granted| Approval {
                id: case.id.to_string(),
                time: decided(case),
                until: granted.expire,
                state: in_force.then(|| {
                    let vouched = Vouched {
                        id: case.id.clone(),
                        revision: view.head.revision,
                        expire: granted.expire,
                        subject: only(&case.request.scope.subjects),
                    };
                    vouched.token(&self.registry.signer, now)
                }),
            }),
        }
    }

    /// Under which address requests are taken.
    fn base(&self) -> Result<&str, Fault> {
        self.base.as_deref().ok_or_else(|| {
            Fault::NotFound("no requests for access are taken over HTTP; set access_url".into())
        })
    }

    fn answer(&self, case: &Case) -> Result<Response, Trouble> {
        let base = self.base()?;
        let (view, now) = (self.registry.view(), self.registry.clock.now().latest);
        let task = self.task(&view, case, now);
        let (pending, body) = (task.status == Status::Pending, task.told(base));
        let kind = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (kind, body.to_string()).into_response();
        if pending {
            let again = HeaderValue::from_static(AGAIN);
            response.headers_mut().insert(header::RETRY_AFTER, again);
        }
        Ok(response)
    }

    /// What a denial proves that is shown.
    fn proven(&self, submission: &Submission) -> Result<Denial, Trouble> {
        let named = key_of(&submission.token);
        let signed = named.and_then(|key| self.attendants.denies(&key));
        let (name, pin) = signed.unzip();
        let now = self.registry.clock.now().latest;
        let denial = Denial::read(&submission.token, &Keys::of(pin.as_slice()), now)?;
        // Of whom it may know nothing a sidecar denies nothing, nor once it is let in no more.
        let view = self.registry.view();
        let scope = name.and_then(|name| self.guests.scope_of(&name));
        let subject = view.snapshot.subject(&denial.subject);
        let knows = |subject| scope.is_some_and(|scope| scope.may_know(subject, &view.snapshot));
        if !subject.is_some_and(|subject| knows(subject)) {
            let why = "whoever signed the token answers for no such subject";
            return Err(Trouble::Unbound(why.into()));
        }
        Ok(denial)
    }

    /// Asks for what was denied; the same again is the same request.
    async fn taken(&self, caller: &Caller, body: &Json) -> Result<Arc<Case>, Trouble> {
        let submission = submitted(body)?;
        let denial = self.proven(&submission)?;
        let view = self.registry.view();
        let subject = view.snapshot.subject(&denial.subject);
        let owner = subject.and_then(|of| owner_of(of));
        let request = submission.request(&denial, owner)?.to_string();
        let read = read_request("request", &request, |domain, subjects, word| {
            meant(&view, domain, subjects, word)
        });
        let asked = read.map_err(|problem| Refused::Problems(vec![problem]))?;
        let again = match before(&view, caller, &asked)? {
            // Its terms changed: it is handed in anew.
            Some(case) if case.state == ExceptionState::Draft => Some(Again {
                id: case.id.clone(),
                expected: None,
            }),
            Some(case) => return Ok(case),
            None => None,
        };
        let file = Some(("request".to_owned(), request));
        match self.registry.ask(caller, file, again, false).await {
            // The same came twice at once.
            Err(Refused::Conflict(why)) => {
                let case = before(&self.registry.view(), caller, &asked)?;
                case.ok_or(Trouble::Duplicate(why))
            }
            done => Ok(done?),
        }
    }

    /// The task of an id.
    fn known(&self, id: &str) -> Result<Arc<Case>, Trouble> {
        let view = self.registry.view();
        let known = view.cases.get(id).cloned();
        known.ok_or_else(|| {
            let id: String = id.escape_debug().take(64).collect();
            Trouble::UnknownTask(format!("there is no request `{id}`"))
        })
    }
}

async fn submit(
    State(requests): State<AccessRequests>,
    who: Who,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Trouble> {
    let caller = who.may(&requests, "RequestException")?;
    let body = read(&who.0.headers, body)?;
    let case = requests.taken(&caller, &body).await?;
    let mut response = requests.answer(&case)?;
    *response.status_mut() = match of(&case) {
        Status::Pending => StatusCode::ACCEPTED,
        _ => StatusCode::CREATED,
    };
    Ok(response)
}

async fn status(
    State(requests): State<AccessRequests>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    who.may(&requests, "GetCase")?;
    requests.answer(&*requests.known(&id)?)
}

async fn cancel(
    State(requests): State<AccessRequests>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let caller = who.may(&requests, "GiveUp")?;
    let id = requests.known(&id)?.id.clone();
    match requests.registry.give_up(&caller, &id, None).await {
        Ok(case) => requests.answer(&case),
        Err(Refused::Precondition(why)) => Err(Trouble::NotNow(why)),
        Err(refused) => Err(refused.into()),
    }
}

/// What approvals are signed with.
async fn keys(State(requests): State<AccessRequests>) -> Result<Response, Trouble> {
    requests.base()?;
    let kind = [(header::CONTENT_TYPE, "application/jwk-set+json")];
    let set = json!({"keys": [key(requests.registry.pin())]});
    Ok((kind, set.to_string()).into_response())
}
