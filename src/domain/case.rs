//! An exception on its way: what was asked for, on which terms, who voted and what was granted.

use super::{
    ApproverRole, ControlId, Debt, Deviation, Digest, DomainId, Evidence, ExceptionId,
    ExceptionState, Facet, Fingerprint, Invalid, Justification, Name, OnChange, Principal, Scope,
    Span, Stage, SubjectId, Tier, Timestamp, Trace, UsageLimits,
};

/// From when, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Approval never moves it.
    Fixed {
        /// From when.
        start: Timestamp,
        /// For how long.
        duration: Span,
    },
    /// From the approval on.
    OnApproval {
        /// For how long.
        duration: Span,
    },
}

impl Window {
    /// How long it is.
    pub fn duration(self) -> Span {
        match self {
            Self::Fixed { duration, .. } | Self::OnApproval { duration } => duration,
        }
    }

    /// Its two ends, if it is approved at `now`.
    pub fn ends(self, now: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Self::Fixed { start, duration } => (start, start + duration),
            Self::OnApproval { duration } => (now, now + duration),
        }
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The controls to deviate from.
    pub controls: Vec<ControlId>,
    /// The kind of deviation.
    pub deviation: Deviation,
    /// Why.
    pub justification: Justification,
    /// Where it is to hold.
    pub scope: Scope,
    /// What must hold at each use, in CEL.
    pub compensating_conditions: Vec<Box<str>>,
    /// How often it may be used.
    pub usage_limits: UsageLimits,
    /// Facets to bind beyond those that the tier binds.
    pub bound_facets: Vec<Facet>,
    /// When.
    pub window: Window,
    /// The person who answers for it.
    pub owner: Principal,
    /// The person an agent asks for.
    pub on_behalf_of: Option<Principal>,
    /// The domain it is granted in.
    pub domain: Option<DomainId>,
    /// What is shown.
    pub evidence: Vec<Evidence>,
    /// The incident it belongs to.
    pub incident: Option<Box<str>>,
    /// The defect of the control it answers.
    pub defect: Option<Box<str>>,
    /// The exception it goes on from.
    pub renews: Option<ExceptionId>,
    /// Asked for before any control fails.
    pub preemptive: bool,
    /// The denial it comes of.
    pub decision: Option<Box<str>>,
    /// What was written, as canonical JSON.
    pub text: Box<str>,
}

/// Something that raises the tier, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierInput {
    /// What, such as `subject.risk_tier` or `renewals`.
    pub what: Box<str>,
    /// Its value.
    pub value: Box<str>,
    /// At least this tier.
    pub tier: Tier,
}

/// Who has to decide: persons in one capacity, for one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// In which capacity, and how many.
    pub stage: Stage,
    /// For which domain; of no domain where none is named.
    pub domain: Option<DomainId>,
    /// Whether whoever approves in it has signed in with a step-up.
    pub step_up: bool,
}

/// What was fixed when a request was submitted; votes are bound to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Over everything that approvers see (E16).
    pub digest: Digest,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// Computed, never chosen (E14).
    pub tier: Tier,
    /// From what.
    pub inputs: Vec<TierInput>,
    /// Who has to decide; nobody means automatically.
    pub seats: Vec<Seat>,
    /// Who has to look at it afterwards: at an override during an incident.
    pub after: Vec<Seat>,
    /// Whether every vote names the required evidence as reviewed.
    pub review_evidence: bool,
    /// Until when.
    pub deadline: Option<Timestamp>,
    /// The controls as they were.
    pub controls: Vec<(ControlId, u64)>,
    /// By what they decided then, of those of which that is known.
    pub meanings: Vec<(ControlId, Digest)>,
    /// The subjects' facets as they were (E7).
    pub bound: Fingerprint,
    /// How long until the next revalidation.
    pub revalidation: Option<Span>,
    /// What becomes of it when its context changes.
    pub on_change: OnChange,
    /// The first of the exceptions it goes on from; its own id if it is that.
    pub lineage: ExceptionId,
    /// How many came before it.
    pub renewal_count: u32,
    /// Not after this: evidence it rests on expires then.
    pub latest: Option<Timestamp>,
    /// Who answered for the subjects; of one for whom somebody else does, it is looked at again (R38).
    pub owners: Vec<(SubjectId, Box<str>)>,
    /// By which policies: the objects that say what the tier demands there, with their revisions (R39).
    pub policies: Vec<(Name, u64)>,
}

/// What a vote is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ballot {
    /// Whether to grant it.
    Initial,
    /// Whether it still holds.
    Revalidation,
    /// Whether it was right to override during an incident.
    Retroactive,
}

impl Ballot {
    /// The name as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initial => "INITIAL",
            Self::Revalidation => "REVALIDATION",
            Self::Retroactive => "RETROACTIVE",
        }
    }

    /// The ballot called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Initial, Self::Revalidation, Self::Retroactive]
            .into_iter()
            .find(|ballot| ballot.name() == name)
    }
}

/// How somebody had signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assurance {
    /// What their issuer said of it (`acr`, `amr`), or how else they showed who they are.
    pub said: Box<str>,
    /// Whether that was a step-up, and lately.
    pub stepped_up: bool,
}

/// What somebody decided. Never changed, never taken away; terms that change leave it behind (A7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Who.
    pub approver: Principal,
    /// Which person that is, whatever identity they used.
    pub person: Box<str>,
    /// In which capacity.
    pub role: ApproverRole,
    /// For which domain.
    pub domain: Option<DomainId>,
    /// Whether they are for it.
    pub approves: bool,
    /// Why.
    pub comment: Box<str>,
    /// The evidence they looked at, by id and digest.
    pub reviewed: Vec<(Box<str>, Digest)>,
    /// The terms they saw.
    pub digest: Digest,
    /// When.
    pub time: Timestamp,
    /// When the terms were shown to them, if that is known (A9).
    pub viewed: Option<Timestamp>,
    /// How they had signed in, if they had.
    pub assurance: Option<Assurance>,
    /// Where their call belongs, if they traced it.
    pub trace: Option<Trace>,
    /// What about.
    pub ballot: Ballot,
}

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// From when.
    pub effective: Timestamp,
    /// Until when; set once, and only ever brought forward (E10).
    pub expire: Timestamp,
    /// Not beyond this unless revalidated.
    pub next_revalidation: Option<Timestamp>,
    /// When everybody last looked at it again.
    pub revalidated: Option<Timestamp>,
    /// Where the call belongs that approved it, if its caller traced it.
    pub approval: Option<Trace>,
}

/// An exception on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The exception's id.
    pub id: ExceptionId,
    /// Who asked.
    pub requester: Principal,
    /// What for.
    pub request: Request,
    /// Where it stands.
    pub state: ExceptionState,
    /// Why it stands there.
    pub reason: Box<str>,
    /// Since when.
    pub since: Timestamp,
    /// When it began.
    pub created: Timestamp,
    /// On which terms; none while it is a draft.
    pub terms: Option<Terms>,
    /// Of one that was granted: the terms on which it is looked at again. Nothing rests on them
    /// before everybody has.
    pub again: Option<Terms>,
    /// Of one that was granted: what was asked for, with the evidence that is shown since. It counts
    /// for nothing before everybody has looked again.
    pub anew: Option<Box<Request>>,
    /// Who decided what, in order.
    pub votes: Vec<Vote>,
    /// What was granted.
    pub granted: Option<Granted>,
    /// What it owes: an override during an incident.
    pub debt: Option<Debt>,
    /// Suspended only until what stands against it is gone (T12); since when it had been in force
    /// before, from which on its use is still judged.
    pub paused: Option<Timestamp>,
}

impl Case {
    /// The terms that are to be decided on: of one that was granted those as they are now.
    pub fn open_terms(&self) -> Option<&Terms> {
        self.again.as_ref().or(self.terms.as_ref())
    }

    /// The request that is to be decided on: with what is shown since it was granted.
    pub fn asked(&self) -> &Request {
        self.anew.as_deref().unwrap_or(&self.request)
    }

    /// The case as it is to be decided on `terms`. What was granted keeps its own until everybody
    /// has looked again; votes already cast on terms like these stay.
    #[must_use]
    pub fn on(&self, terms: Terms) -> Self {
        if self.granted.is_none() {
            return Self {
                terms: Some(terms),
                ..self.clone()
            };
        }
        let known = self.again.clone();
        Self {
            again: known
                .filter(|known| known.digest == terms.digest)
                .or(Some(terms)),
            ..self.clone()
        }
    }

    /// Whether it takes a window of time from its subjects' allowance: it is or was in force, or
    /// may come to be. Nothing if not.
    pub fn window(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        match (self.state, self.granted) {
            (ExceptionState::Pending, _) => Some(self.request.window.ends(now)),
            (ExceptionState::Approved | ExceptionState::Suspended, Some(granted)) => {
                Some((granted.effective, granted.expire))
            }
            (
                ExceptionState::Expired | ExceptionState::Revoked | ExceptionState::Closed,
                Some(granted),
            ) => Some((granted.effective, granted.expire.min(self.since))),
            (
                ExceptionState::Draft
                | ExceptionState::Approved
                | ExceptionState::Suspended
                | ExceptionState::Denied
                | ExceptionState::Withdrawn
                | ExceptionState::Lapsed
                | ExceptionState::Expired
                | ExceptionState::Revoked
                | ExceptionState::Closed,
                _,
            ) => None,
        }
    }
}

impl Request {
    /// The request, if it can be asked for at all (E2–E5, E9).
    pub fn checked(self) -> Result<Self, Invalid> {
        if self.controls.is_empty() || self.controls.len() > 16 {
            return Err(Invalid::new(
                "control_ids",
                format!("names {} controls", self.controls.len()),
                "name 1 to 16",
            ));
        }
        self.justification
            .check()
            .map_err(|error| error.under("justification"))?;
        if self.window.duration() <= Span::ZERO {
            return Err(Invalid::new(
                "window.duration",
                "is not longer than nothing",
                "say for how long, such as `48h`",
            ));
        }
        if self.deviation == Deviation::IncidentOverride && self.incident.is_none() {
            return Err(Invalid::new(
                "incident_ref",
                "is missing",
                "INCIDENT_OVERRIDE names its incident",
            ));
        }
        Ok(self)
    }
}
