//! The Access Request and Approval Profile of AuthZEN, draft 1 (pdp §4.1, ecosystem b.1): what a denial
//! proves, and what is asked for with it. What has become of it is in `approval`.
//!
//! The draft may change. Beside the member of a denial that says how to ask, its words are here and there
//! alone.

use serde_json::{Map, Value as Json, json};

use crate::domain::{Invalid, Span, Timestamp};

use super::{
    Fault,
    authzen::{missing, object, text},
    jwt::{Doubt, Keys, Use, token},
    signed::Signer,
};

/// Where access is asked for, below the registry's address.
pub const REQUESTS: &str = "/access/v1/requests";
/// Where the keys are that approvals are signed with, below it too.
pub const KEYS: &str = "/access/v1/jwks";
/// What a decision point can do that has a registry which takes requests.
pub const CAPABILITY: &str = "urn:openid:authzen:capability:access-request";
/// How long somebody may ask after a denial.
const PATIENCE: Span = Span::from_secs(600);
/// How long an exception is asked for where nobody says so.
const DURATION: &str = "24h";
/// Who signs denials, and approvals; each is the other's audience.
pub(super) const DECISION_POINT: &str = "urn:exeat:decision-point";
pub(super) const REGISTRY: &str = "urn:exeat:registry";

/// What a denial proves: that this was asked and an exception from these controls can be requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The decision's id.
    pub decision: String,
    /// When it was made.
    pub time: Timestamp,
    /// Who wanted to act.
    pub subject: String,
    /// The action.
    pub action: String,
    /// The type of what was to be acted upon.
    pub kind: String,
    /// Its id.
    pub resource: String,
    /// Where the subject runs.
    pub environment: String,
    /// What for.
    pub purpose: String,
    /// What an exception can be requested from.
    pub controls: Vec<String>,
}

impl Denial {
    /// Until when it may be shown.
    pub fn expire(&self) -> Timestamp {
        self.time + PATIENCE
    }

    /// The proof.
    pub fn token(&self, signer: &Signer) -> String {
        let claims = json!({
            "iss": DECISION_POINT,
            "aud": REGISTRY,
            "iat": seconds(self.time),
            "exp": seconds(self.expire()),
            "evaluation_id": self.decision,
            "evaluated_at": self.time.to_string(),
            "sub": self.subject,
            "action": self.action,
            "type": self.kind,
            "resource": self.resource,
            "environment": self.environment,
            "purpose": self.purpose,
            "controls": self.controls,
        });
        token(signer, Use::Denial, &claims)
    }

    /// What is proven.
    ///
    /// # Errors
    ///
    /// Why nothing is.
    pub fn read(token: &str, keys: &Keys, now: Timestamp) -> Result<Self, Trouble> {
        let claims = keys
            .claims(token, Use::Denial)
            .map_err(|doubt| match doubt {
                Doubt::UnknownKey => Trouble::Unbound(
                    "no decision point that is connected signed it; ask it again for a decision"
                        .into(),
                ),
                Doubt::Wrong(what) => Trouble::Unbound(format!("the token {what}")),
            })?;
        let unreadable = || Trouble::Unbound("the token claims something else".into());
        let named = |name: &str| {
            let said = claims.text(name).map(ToOwned::to_owned);
            said.ok_or_else(unreadable)
        };
        let time = Timestamp::parse(&named("evaluated_at")?).map_err(|_| unreadable())?;
        let said = |name: &str| claims.get(name).and_then(Json::as_i64);
        if said("iat") != Some(seconds(time)) || said("exp") != Some(seconds(time + PATIENCE)) {
            return Err(unreadable());
        }
        let denial = Self {
            decision: named("evaluation_id")?,
            time,
            subject: named("sub")?,
            action: named("action")?,
            kind: named("type")?,
            resource: named("resource")?,
            environment: named("environment")?,
            purpose: named("purpose")?,
            controls: claims
                .texts("controls")
                .into_iter()
                .map(ToOwned::to_owned)
                .collect(),
        };
        if denial.expire() <= now {
            return Err(Trouble::Expired(denial.expire()));
        }
        claims
            .check(DECISION_POINT, REGISTRY, Use::Denial, now)
            .map_err(|why| Trouble::Unbound(format!("the token {why}")))?;
        Ok(denial)
    }
}

pub(super) fn seconds(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000_000)
}

/// Why access cannot be asked for, or what was asked for not be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// No exception can be requested from it.
    NotRequestable(String),
    /// The denial is too old.
    Expired(Timestamp),
    /// The denial does not prove this.
    Unbound(String),
    /// It was asked for already, in other words.
    Duplicate(String),
    /// There is no such task.
    UnknownTask(String),
    /// The task is past that.
    NotNow(String),
    /// The body is no request.
    Malformed(Invalid),
    /// Something else.
    Other(Fault),
}

impl From<Invalid> for Trouble {
    fn from(invalid: Invalid) -> Self {
        Self::Malformed(invalid)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Other(fault)
    }
}

impl Trouble {
    /// The status of HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotRequestable(_) | Self::Unbound(_) | Self::Malformed(_) => 400,
            Self::Expired(_) => 410,
            Self::Duplicate(_) | Self::NotNow(_) => 409,
            Self::UnknownTask(_) => 404,
            Self::Other(fault) => fault.http(),
        }
    }

    /// The problem document (RFC 9457).
    pub fn problem(&self) -> Json {
        let (name, title, detail) = match self {
            Self::NotRequestable(why) => {
                ("not_requestable", "Access cannot be requested", why.clone())
            }
            Self::Expired(end) => (
                "expired_denial",
                "The denial is too old",
                format!("it could be shown until {end}; ask for a decision again"),
            ),
            Self::Unbound(why) => (
                "invalid_denial_binding",
                "The denial does not prove this",
                why.clone(),
            ),
            Self::Duplicate(why) => ("duplicate_request", "It was requested already", why.clone()),
            Self::UnknownTask(why) => ("unknown_task", "There is no such task", why.clone()),
            Self::NotNow(why) => ("invalid_task_state", "The task is past that", why.clone()),
            Self::Malformed(invalid) => {
                ("", "The request cannot be understood", invalid.to_string())
            }
            Self::Other(fault) => ("", "It was not done", fault.to_string()),
        };
        let kind = match name {
            "" => "about:blank".to_owned(),
            name => format!("urn:openid:authzen:access-request:error:{name}"),
        };
        let mut problem =
            json!({"type": kind, "title": title, "status": self.status(), "detail": detail});
        if let (Self::Malformed(invalid), Some(entries)) = (self, problem.as_object_mut())
            && !invalid.path().is_empty()
        {
            entries.insert("field".into(), invalid.path().into());
        }
        problem
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// What proves the denial.
    pub token: String,
    /// The decision's id, and until when it may be shown, if they are said beside the token.
    decision: Option<String>,
    ends: Option<Timestamp>,
    subject: String,
    action: String,
    kind: String,
    resource: String,
    /// Why, by the names that requests have for it.
    justification: Map<String, Json>,
    /// Who answers for it, for whom it is, where it is granted and what is shown, if that is said.
    said: Map<String, Json>,
    until: Option<Timestamp>,
}

/// What is said under a name, which is to be a text; nothing, if it is not there.
fn perhaps(entries: &Map<String, Json>, of: &str, name: &str) -> Result<Option<String>, Invalid> {
    match entries.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(_) => text(entries, of, name).map(Some),
    }
}

/// An object that need not be there.
fn part(body: &Json, name: &str) -> Result<Map<String, Json>, Invalid> {
    match body.get(name) {
        None | Some(Json::Null) => Ok(Map::new()),
        Some(_) => object(body, name),
    }
}

/// What is not taken is said, not passed over.
fn refused(entries: &Map<String, Json>, under: &str, name: &str, fix: &str) -> Result<(), Invalid> {
    match entries.get(name) {
        None | Some(Json::Null | Json::Bool(false)) => Ok(()),
        Some(_) => {
            let path = if under.is_empty() {
                name.to_owned()
            } else {
                format!("{under}.{name}")
            };
            Err(Invalid::new(path, "is not taken here", fix))
        }
    }
}

/// What the body of a request asks for.
///
/// # Errors
///
/// What is missing, of another type or not taken, by its path.
pub fn submitted(body: &Json) -> Result<Submission, Invalid> {
    let Json::Object(entries) = body else {
        let fix = "send a JSON object";
        return Err(Invalid::new("", "the body is no object", fix));
    };
    let each = "send a request for each";
    refused(entries, "", "items", each)?;
    let poll =
        "look at the task's `status_endpoint`, or have an endpoint in the registry's `webhooks`";
    refused(entries, "", "callback", poll)?;
    let subject = object(body, "subject")?;
    text(&subject, "subject", "type")?;
    let resource = object(body, "resource")?;
    let action = object(body, "action")?;
    let denial = object(body, "denial")?;
    if denial.get("template").is_some_and(|of| !of.is_null()) {
        let fix = "send the denial as it was";
        return Err(Invalid::new("denial.template", "was not told", fix));
    }
    let ends = perhaps(&denial, "denial", "expires_at")?
        .map(|text| Timestamp::parse(&text))
        .transpose()
        .map_err(|error| error.under("denial.expires_at"))?;
    let context = part(body, "context")?;
    let access = part(body, "requested_access")?;
    let urgent =
        "with an open incident ask for an INCIDENT_OVERRIDE, with `exeat exception request`";
    refused(&access, "requested_access", "emergency", urgent)?;
    let until = perhaps(&access, "requested_access", "requested_until")?
        .map(|text| Timestamp::parse(&text))
        .transpose()
        .map_err(|error| error.under("requested_access.requested_until"))?;
    let client = part(body, "client")?;
    let source = match client.get("source") {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(source)) => source.clone(),
        Some(_) => {
            let fix = "send a JSON object";
            return Err(Invalid::new("client.source", "is no object", fix));
        }
    };
    let mut justification = Map::new();
    for (ours, theirs) in REASONS {
        let said = perhaps(&context, "context", theirs)?;
        // Where it came from is where it is tracked.
        let said = match said {
            None if ours == "ticket_ref" => perhaps(&source, "client.source", "external_url")?,
            said => said,
        };
        let said = said.ok_or_else(|| missing(&format!("context.{theirs}")))?;
        justification.insert(ours.into(), said.into());
    }
    let mut said = Map::new();
    for name in ["owner", "on_behalf_of", "domain"] {
        if let Some(text) = perhaps(&context, "context", name)? {
            said.insert(name.into(), text.into());
        }
    }
    for (name, fits, what) in ALONG {
        if let Some(value) = context.get(name).filter(|of| !of.is_null()) {
            if !fits(value) {
                let path = format!("context.{name}");
                return Err(Invalid::new(path, what, "send it as requests have it"));
            }
            said.insert(name.into(), value.clone());
        }
    }
    Ok(Submission {
        token: text(&denial, "denial", "binding_token")?,
        decision: perhaps(&denial, "denial", "evaluation_id")?,
        ends,
        subject: text(&subject, "subject", "id")?,
        action: text(&action, "action", "name")?,
        kind: text(&resource, "resource", "type")?,
        resource: text(&resource, "resource", "id")?,
        justification,
        said,
        until,
    })
}

/// Why something is needed: as requests have it, and as it is said in the context.
const REASONS: [(&str, &str); 4] = [
    ("business_need", "business_justification"),
    ("risk_statement", "risk_statement"),
    ("remediation_plan", "remediation_plan"),
    ("ticket_ref", "ticket_ref"),
];

type Along = (&'static str, fn(&Json) -> bool, &'static str);

/// What goes along as it is, as requests have it.
const ALONG: [Along; 3] = [
    ("evidence", Json::is_array, "is no list"),
    ("usage_limits", Json::is_object, "is no object"),
    ("preemptive", Json::is_boolean, "is neither true nor false"),
];

/// What is wrong with a request, by the names that were sent.
pub fn by_their_names(invalid: &Invalid) -> Invalid {
    let path = invalid.path();
    let reason = |ours: &str| {
        let mut known = REASONS.iter();
        known.find_map(|(name, theirs)| (*name == ours).then_some(*theirs))
    };
    let path = match path.split_once('.') {
        Some(("justification", ours)) => format!("context.{}", reason(ours).unwrap_or(ours)),
        Some(("window", _)) => "requested_access.requested_until".to_owned(),
        _ if path.is_empty() || path == "control_ids" => path.to_owned(),
        _ => format!("context.{path}"),
    };
    Invalid::new(path, invalid.what(), invalid.fix())
}

/// A name that a scope can hold for and nothing else; none of what a scope reads as more than that.
pub fn exact(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty() && *name != "ANY" && !name.ends_with('/'))
}

impl Submission {
    /// The request for an exception that this is, of the scope of what was denied and no wider; `owner`
    /// answers for it where nobody else is named.
    ///
    /// # Errors
    ///
    /// What the denial does not prove, and what no scope can hold for by itself.
    pub fn request(&self, denial: &Denial, owner: Option<&str>) -> Result<Json, Trouble> {
        let said = [
            ("subject.id", &self.subject, &denial.subject),
            ("action.name", &self.action, &denial.action),
            ("resource.type", &self.kind, &denial.kind),
            ("resource.id", &self.resource, &denial.resource),
        ];
        let other = said.iter().find(|(_, asked, denied)| asked != denied);
        if let Some((path, ..)) = other {
            let why = format!("`{path}` is not what was denied");
            return Err(Trouble::Unbound(why));
        }
        if self
            .decision
            .as_ref()
            .is_some_and(|id| *id != denial.decision)
        {
            let why = "`denial.evaluation_id` is of another decision than the token";
            return Err(Trouble::Unbound(why.into()));
        }
        if self.ends.is_some_and(|ends| ends != denial.expire()) {
            let why = "`denial.expires_at` is not the end that was told";
            return Err(Trouble::Unbound(why.into()));
        }
        let one = |name: &str, of: &str| {
            let fit = exact(of).map(|of| json!([of]));
            fit.ok_or_else(|| {
                let why = format!("no exception can hold for the {name} `{of}` alone");
                Trouble::NotRequestable(why)
            })
        };
        let window = match self.until {
            // From the denial on, so that the same request sent again is the same.
            Some(until) => {
                let start = Timestamp::from_micros(seconds(denial.time).saturating_mul(1_000_000));
                let seconds = (until - start).micros().div_euclid(1_000_000);
                if seconds <= 0 {
                    let path = "requested_access.requested_until";
                    let fix = "say until when it is needed";
                    return Err(Invalid::new(path, "is not after the denial", fix).into());
                }
                json!({"start_time": start.to_string(), "duration": format!("{seconds}s")})
            }
            None => json!({"duration": DURATION}),
        };
        let mut request = json!({
            "apiVersion": "exeat/v1",
            "kind": "Request",
            "control_ids": denial.controls,
            "deviation_type": "WAIVER",
            "justification": self.justification,
            "scope": {
                "subject_selector": {"ids": one("subject", &self.subject)?},
                "actions": one("action", &self.action)?,
                "resources": one("resource", &self.resource)?,
                "environments": one("environment", &denial.environment)?,
                "purposes": one("purpose", &denial.purpose)?,
            },
            "window": window,
            "decision_id": denial.decision,
        });
        if let Some(entries) = request.as_object_mut() {
            entries.extend(self.said.clone());
            if !entries.contains_key("owner") {
                let owner = owner.ok_or_else(|| missing("context.owner"))?;
                entries.insert("owner".into(), owner.into());
            }
        }
        Ok(request)
    }
}
