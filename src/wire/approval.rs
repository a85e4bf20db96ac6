//! The Access Request and Approval Profile of AuthZEN, draft 1 (pdp §4.1, ecosystem b.1): what has become
//! of a request for access, and what is said once its approval is shown.

use serde_json::{Map, Value as Json, json};

use crate::domain::{ExceptionId, Timestamp};

use super::{
    access::{DECISION_POINT, REGISTRY, REQUESTS, seconds},
    jwt::{Claims, Doubt, Keys, Use, token},
    signed::Signer,
};

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Somebody has yet to decide.
    Pending,
    /// It was granted; whether it still holds is for a decision to say.
    Approved,
    /// It was not.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// Whoever asked needs it no more.
    Cancelled,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The exception.
    pub id: String,
    /// When.
    pub time: Option<Timestamp>,
    /// Until when.
    pub until: Timestamp,
    /// The registry's word for it, as long as it is in force.
    pub state: Option<String>,
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The exception's id.
    pub id: String,
    /// How far it has come.
    pub status: Status,
    /// How many seats there are.
    pub seats: usize,
    /// Who has yet to decide.
    pub awaiting: Vec<String>,
    /// Whether it can be cancelled.
    pub cancels: bool,
    /// Until when somebody has to.
    pub deadline: Option<Timestamp>,
    /// What people are shown of it.
    pub title: String,
    /// What was granted.
    pub approval: Option<Approval>,
}

impl Task {
    /// The task as its requester sees it, below the registry's address.
    pub fn told(&self, base: &str) -> Json {
        let place = format!("{base}{REQUESTS}/{}", self.id);
        let mut task = json!({
            "id": self.id,
            "status": self.status.name(),
            "status_endpoint": place,
            "display": {"title": self.title},
        });
        if let (Status::Pending, Some(entries)) = (self.status, task.as_object_mut()) {
            if let Some(deadline) = self.deadline {
                entries.insert("expires_at".into(), deadline.to_string().into());
            }
            let done = self.seats.saturating_sub(self.awaiting.len());
            let mut progress = json!({
                "current_step": done.saturating_add(1).min(self.seats.max(1)),
                "total_steps": self.seats.max(1),
                "awaiting": self.awaiting,
            });
            if let (Some(next), Some(entries)) = (self.awaiting.first(), progress.as_object_mut()) {
                entries.insert("step_name".into(), next.as_str().into());
            }
            entries.insert("progress".into(), progress);
            if self.cancels {
                entries.insert("links".into(), json!({"cancel": format!("{place}/cancel")}));
            }
        }
        let mut told = json!({ "task": task });
        if let (Some(approval), Some(entries)) = (&self.approval, told.as_object_mut()) {
            let mut granted = json!({
                "id": approval.id,
                "approved_until": approval.until.to_string(),
            });
            if let Some(entries) = granted.as_object_mut() {
                if let Some(time) = approval.time {
                    entries.insert("approved_at".into(), time.to_string().into());
                }
                if let Some(state) = &approval.state {
                    entries.insert("state".into(), state.as_str().into());
                }
            }
            let result = json!({"mode": "reevaluate", "approval": granted});
            entries.insert("result".into(), result);
        }
        told
    }
}

/// An approval as the registry vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The exception.
    pub id: ExceptionId,
    /// A revision of the registry at which it was in force.
    pub revision: u64,
    /// Until when.
    pub expire: Timestamp,
    /// For whom, where it is for one alone.
    pub subject: Option<String>,
}

impl Vouched {
    /// The registry's word, at `now`.
    pub fn token(&self, signer: &Signer, now: Timestamp) -> String {
        let claims = json!({
            "iss": REGISTRY,
            "aud": DECISION_POINT,
            "iat": seconds(now),
            "exp": seconds(self.expire),
            "jti": self.id.as_str(),
            "sub": self.subject,
            "revision": self.revision,
        });
        token(signer, Use::Approval, &claims)
    }

    /// What the registry's word says; one that has run out still says what it was about.
    ///
    /// # Errors
    ///
    /// Why it says nothing.
    pub fn read(token: &str, keys: &Keys, now: Timestamp) -> Result<Self, String> {
        let claims = keys.claims(token, Use::Approval);
        let claims = claims.map_err(|doubt| match doubt {
            Doubt::UnknownKey => "is signed with a key that is not known".to_owned(),
            Doubt::Wrong(what) => what,
        })?;
        let expire = claims.time("exp")?.ok_or("has no end")?;
        // Whether it has ended is told apart from whether it is to be believed.
        claims.check(REGISTRY, DECISION_POINT, Use::Approval, now.min(expire))?;
        let named = |claims: &Claims| {
            Some(Self {
                id: ExceptionId::parse(claims.text("jti")?).ok()?,
                revision: claims.get("revision")?.as_u64()?,
                expire,
                subject: claims.text("sub").map(ToOwned::to_owned),
            })
        };
        named(&claims).ok_or_else(|| "claims something else".to_owned())
    }
}

/// What somebody shows when they ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The exception's id, as they say it.
    pub id: String,
    /// The registry's word for it, if they have it.
    pub state: Option<String>,
}

impl Shown {
    /// What is shown in a question's context; something else that is called so is none.
    pub fn of(context: &Map<String, Json>) -> Option<Self> {
        let approval = context.get("approval")?;
        let text = |name: &str| Some(approval.get(name)?.as_str()?.to_owned());
        Some(Self {
            id: text("id")?,
            state: text("state"),
        })
    }
}

/// Why a decision is still no, though an approval was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It is over.
    ApprovalExpired,
    /// It is for something else.
    OutOfScope,
    /// It has not arrived here yet.
    GrantPending,
    /// It was taken back.
    ExceptionRevoked,
    /// Another model or context than was approved.
    ContextShifted,
    /// It is stopped until somebody has looked at it again.
    ExceptionSuspended,
    /// It was used as often as it may be.
    BudgetExhausted,
    /// Whether it still holds cannot be told now.
    StaleSnapshot,
    /// It changes nothing about this.
    PolicyDenied,
    /// Nobody vouches for it.
    ApprovalUnverifiable,
}

impl Because {
    /// The name; and what to do next, with the seconds until then, where that is not what the decision
    /// says of itself.
    fn told(self) -> (&'static str, Option<(&'static str, Option<u32>)>) {
        match self {
            Self::ApprovalExpired => ("approval_expired", None),
            Self::OutOfScope => ("out_of_scope", None),
            Self::ExceptionRevoked => ("exception_revoked", None),
            Self::ContextShifted => ("context_shifted", None),
            Self::BudgetExhausted => ("budget_exhausted", None),
            Self::PolicyDenied => ("policy_denied", None),
            Self::ExceptionSuspended => ("exception_suspended", Some(("retry", Some(60)))),
            Self::GrantPending => ("grant_pending", Some(("retry", Some(1)))),
            Self::StaleSnapshot => ("stale_snapshot", Some(("retry", Some(5)))),
            Self::ApprovalUnverifiable => ("approval_unverifiable", Some(("none", None))),
        }
    }

    /// Says it in a decision, as AuthZEN has it. Whether access can be requested at all, the decision has
    /// said.
    pub fn say(self, decision: &mut Json) {
        let Some(context) = decision.get_mut("context").and_then(Json::as_object_mut) else {
            return;
        };
        let (reason, next) = self.told();
        context.insert("reason".into(), reason.into());
        let Some((next, again)) = next else {
            return;
        };
        context.insert("next_action".into(), next.into());
        context.remove("access_request");
        if let Some(seconds) = again {
            context.insert("retry_after".into(), seconds.into());
        }
    }
}
