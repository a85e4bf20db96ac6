//! Access that is asked for over HTTP, by whoever was told that it can be.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value as Json, json};

use crate::{
    domain::{Case, ExceptionState, Invalid, Timestamp},
    engine::owner_of,
    manifest::read_request,
    wire::{
        Fault,
        access::{Denial, KEYS, REQUESTS, Submission, Trouble, by_their_names, submitted},
        approval::{Approval, Status, Task, Vouched},
        json::{is_json, strict},
        jwt::{Keys, key, key_of},
    },
};

use super::{
    asking::meant,
    attendants::Attendants,
    authn::{Caller, Guests, may},
    core::Registry,
    service::open_seats,
    view::View,
    workflow::Refused,
};

/// Largest request, in bytes.
const LARGEST: usize = 64 << 10;
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
        .with_state(requests)
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, self.problem().to_string()).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let how = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        response
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Problems(problems) => {
                let told: Vec<_> = problems
                    .iter()
                    .map(|problem| by_their_names(problem.message.trim_start_matches("Request: ")))
                    .collect();
                Self::Malformed(Invalid::new("", told.join("; "), ""))
            }
            Refused::Invalid(invalid) => Self::NotRequestable(by_their_names(&invalid.to_string())),
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
fn read(headers: &HeaderMap, body: &[u8]) -> Result<Json, Invalid> {
    let kind = headers.get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| is_json(kind.as_bytes())) {
        let fix = "send JSON, and say so";
        return Err(Invalid::new("Content-Type", "is not application/json", fix));
    }
    strict(body)
        .map_err(|error| Invalid::new("", format!("the body is no JSON: {error}"), "send JSON"))
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
            seats: terms.map_or(0, |terms| terms.seats.len()),
            awaiting: open_seats(view, case, now),
            deadline: terms.and_then(|terms| terms.deadline),
            title: title.map_or_else(|| case.id.to_string(), |control| control.title.to_string()),
            approval: granted.map(|granted| Approval {
                id: case.id.to_string(),
                time: granted.approval.map(|_| granted.effective),
                until: granted.expire,
                state: in_force.then(|| {
                    let vouched = Vouched {
                        id: case.id.clone(),
                        revision: view.head.revision,
                        expire: granted.expire,
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
            let again = header::HeaderValue::from_static(AGAIN);
            response.headers_mut().insert(header::RETRY_AFTER, again);
        }
        Ok(response)
    }

    /// What a denial proves that is shown.
    fn proven(&self, submission: &Submission) -> Result<Denial, Trouble> {
        let named = key_of(&submission.token);
        let pin = {
            let known = self.attendants.known();
            let mut keys = known.values().filter_map(|one| one.denial_key.clone());
            keys.find(|pin| Some(pin.id()) == named)
        };
        let now = self.registry.clock.now().latest;
        Denial::read(&submission.token, &Keys::of(pin.as_slice()), now)
    }

    /// Asks for what was denied; the same again is the same request.
    async fn taken(
        &self,
        caller: &Caller,
        body: &Json,
    ) -> Result<(StatusCode, Arc<Case>), Trouble> {
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
        let known = |view: &View| {
            let mut cases = view.cases.values();
            let same = |case: &&Arc<Case>| {
                let ours = case.requester.as_str() == &*caller.identity;
                ours && case.request.text == asked.text
            };
            cases.find(same).cloned()
        };
        if let Some(case) = known(&view) {
            return Ok((StatusCode::OK, case));
        }
        let file = Some(("request".to_owned(), request));
        match self.registry.ask(caller, file, None, false).await {
            Ok(case) if of(&case) == Status::Pending => Ok((StatusCode::ACCEPTED, case)),
            Ok(case) => Ok((StatusCode::CREATED, case)),
            // The same came twice at once.
            Err(Refused::Conflict(why)) => match known(&self.registry.view()) {
                Some(case) => Ok((StatusCode::OK, case)),
                None => Err(Trouble::Duplicate(why)),
            },
            Err(refused) => Err(refused.into()),
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
    body: Bytes,
) -> Result<Response, Trouble> {
    let caller = who.may(&requests, "RequestException")?;
    let body = read(&who.0.headers, &body)?;
    let (status, case) = requests.taken(&caller, &body).await?;
    let mut response = requests.answer(&case)?;
    *response.status_mut() = status;
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
    let case = requests.known(&id)?;
    if of(&case) != Status::Pending {
        let why = format!("{} is {}", case.id, case.state.name());
        return Err(Trouble::NotNow(why));
    }
    let why = "cancelled by whoever asked".into();
    match requests.registry.give_up(&caller, &case.id, why).await {
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
