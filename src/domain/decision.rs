//! What is answered. A denial is a value with its reasons, never an error.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use super::{
    Control, Dimension, Enforcement, Exception, ExceptionState, Facet, Timestamp, Verdict,
};

/// The answer in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every control that blocks passes.
    Allow,
    /// Every control that blocks passes or is covered by an exception.
    AllowByException,
    /// Anything else.
    Deny,
}

impl Outcome {
    /// The outcome as written in tests, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::AllowByException => "allow_by_exception",
            Self::Deny => "deny",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why, from a closed set (governance §6.8, design §3.4), the weightiest first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as written on the wire and in tests.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The snapshot is older than an exception that would be needed permits.
    SnapshotStale = "SNAPSHOT_STALE",
    /// Nothing is known about the subject.
    SubjectUnknown = "SUBJECT_UNKNOWN",
    /// The subject is frozen.
    SubjectLocked = "SUBJECT_LOCKED",
    /// The subject is out of use for good.
    SubjectRetired = "SUBJECT_RETIRED",
    /// A baseline gate fails.
    BaselineBreach = "BASELINE_BREACH",
    /// A control that nothing can waive fails.
    HardMandatory = "HARD_MANDATORY",
    /// No control applies, and the domain does not accept that.
    NoControl = "NO_CONTROL",
    /// A control could not be evaluated and counts as failed.
    ControlError = "CONTROL_ERROR",
    /// A control fails and no exception covers it.
    ControlFailed = "CONTROL_FAILED",
    /// An exception has ended.
    ExcExpired = "EXC_EXPIRED",
    /// An exception has not begun.
    ExcNotYetEffective = "EXC_NOT_YET_EFFECTIVE",
    /// An exception is suspended, or due for revalidation or evidence.
    ExcSuspended = "EXC_SUSPENDED",
    /// An exception was taken back, or never granted.
    ExcRevoked = "EXC_REVOKED",
    /// What an exception was bound to has changed.
    ExcContextChanged = "EXC_CONTEXT_CHANGED",
    /// An exception does not reach this question.
    ExcOutOfScope = "EXC_OUT_OF_SCOPE",
    /// An exception has been used as often as it may.
    ExcBudgetExhausted = "EXC_BUDGET_EXHAUSTED",
    /// A compensating condition does not hold.
    ExcCompensationFailed = "EXC_COMPENSATION_FAILED",
    /// The registry has not been heard for longer than the lease.
    ExcLeaseLapsed = "EXC_LEASE_LAPSED",
    /// The clock may be off by more than the tier permits.
    ClockSkew = "CLOCK_SKEW",
    /// A use could not be durably recorded.
    ExcEvidenceUnavailable = "EXC_EVIDENCE_UNAVAILABLE",
    /// Nothing stands in the way.
    Ok = "OK",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kept a condition from an answer, and where in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it was.
    pub kind: TroubleKind,
    /// Byte offset into the condition's source.
    pub at: u32,
}

/// What kept a condition from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// An attribute that is not there.
    MissingAttribute,
    /// A key or index that is not there.
    NoSuchKey,
    /// A value of another kind than the operation takes.
    WrongKind,
    /// A number, time or duration out of range.
    OutOfRange,
    /// Division by zero.
    DividedByZero,
    /// Text that does not read as what it was taken for.
    Unreadable,
    /// More work than a decision may cost.
    BudgetExceeded,
    /// A facet that nobody reported.
    FacetMissing(Facet),
    /// A facet reported too long ago.
    FacetStale(Facet),
    /// A facet whose source did not report everything.
    FacetIncomplete(Facet),
    /// Nothing is governed about the resource.
    ResourceUnknown,
    /// The control cannot be read here.
    NotRead,
}

impl TroubleKind {
    /// The trouble in words.
    pub fn describe(self) -> String {
        match self {
            Self::MissingAttribute => "the attribute is missing".into(),
            Self::NoSuchKey => "there is no such key".into(),
            Self::WrongKind => "the value is of another kind".into(),
            Self::OutOfRange => "the result is out of range".into(),
            Self::DividedByZero => "division by zero".into(),
            Self::Unreadable => "the text cannot be read".into(),
            Self::BudgetExceeded => "the decision's budget is used up".into(),
            Self::FacetMissing(facet) => format!("nobody reported facet `{facet}`"),
            Self::FacetStale(facet) => format!("facet `{facet}` was observed too long ago"),
            Self::FacetIncomplete(facet) => format!("facet `{facet}` was not reported completely"),
            Self::ResourceUnknown => "nothing is governed about the resource".into(),
            Self::NotRead => {
                "the control cannot be read here; bring this program up to date".into()
            }
        }
    }
}

/// What one control said.
#[derive(Clone, Debug)]
pub struct ControlResult {
    /// The control.
    pub control: Arc<Control>,
    /// What it said.
    pub verdict: Verdict,
}

impl ControlResult {
    /// Whether this result alone denies, exceptions aside.
    pub fn blocks(&self) -> bool {
        self.verdict != Verdict::Pass && self.control.enforcement != Enforcement::Advisory
    }
}

/// What one exception that was considered did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The decision rests on it.
    ReliedOn,
    /// It would have held, and the decision did not need it.
    NotNeeded,
    /// It holds elsewhere: the first dimension that did not match.
    OutOfScope(Dimension),
    /// Its stored state is not APPROVED.
    NotInForce(ExceptionState),
    /// It has not begun.
    Scheduled,
    /// It has ended.
    Expired,
    /// It was to be revalidated by now.
    RevalidationOverdue,
    /// Evidence it stands and falls with has expired.
    EvidenceExpired,
    /// It, its subject, control or domain was revoked.
    Revoked,
    /// The registry has not been heard for longer than the lease.
    LeaseLapsed,
    /// The clock may be off by more than its tier permits.
    ClockSkew,
    /// A facet it is bound to has changed, or is not known freshly enough.
    ContextChanged(Facet),
    /// A baseline gate of the subject fails.
    BaselineBreach,
    /// It has been used as often as it may.
    BudgetExhausted,
    /// A use could not be durably recorded.
    EvidenceUnavailable,
    /// A compensating condition does not hold: which one, counted from zero.
    CompensationFailed(u8),
}

impl Effect {
    /// The reason an exception of this effect gives for a denial; none if it stood ready.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::ReliedOn | Self::NotNeeded => None,
            Self::OutOfScope(_) => Some(Reason::ExcOutOfScope),
            Self::Scheduled => Some(Reason::ExcNotYetEffective),
            Self::Expired => Some(Reason::ExcExpired),
            Self::RevalidationOverdue | Self::EvidenceExpired => Some(Reason::ExcSuspended),
            Self::Revoked => Some(Reason::ExcRevoked),
            Self::LeaseLapsed => Some(Reason::ExcLeaseLapsed),
            Self::ClockSkew => Some(Reason::ClockSkew),
            Self::ContextChanged(_) => Some(Reason::ExcContextChanged),
            Self::BaselineBreach => Some(Reason::BaselineBreach),
            Self::BudgetExhausted => Some(Reason::ExcBudgetExhausted),
            Self::EvidenceUnavailable => Some(Reason::ExcEvidenceUnavailable),
            Self::CompensationFailed(_) => Some(Reason::ExcCompensationFailed),
            Self::NotInForce(state) => Some(match state {
                ExceptionState::Draft | ExceptionState::Pending => Reason::ExcNotYetEffective,
                ExceptionState::Suspended => Reason::ExcSuspended,
                ExceptionState::Expired => Reason::ExcExpired,
                // Approved is in force; the arm keeps the function total.
                ExceptionState::Approved
                | ExceptionState::Denied
                | ExceptionState::Withdrawn
                | ExceptionState::Lapsed
                | ExceptionState::Revoked
                | ExceptionState::Closed => Reason::ExcRevoked,
            }),
        }
    }

    /// The effect as usage records name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReliedOn => "RELIED_ON",
            Self::NotNeeded => "NOT_NEEDED",
            Self::OutOfScope(_) => "OUT_OF_SCOPE",
            Self::NotInForce(_)
            | Self::Scheduled
            | Self::Expired
            | Self::RevalidationOverdue
            | Self::EvidenceExpired
            | Self::Revoked
            | Self::LeaseLapsed
            | Self::ClockSkew
            | Self::ContextChanged(_)
            | Self::BaselineBreach
            | Self::BudgetExhausted
            | Self::EvidenceUnavailable
            | Self::CompensationFailed(_) => "INEFFECTIVE",
        }
    }
}

/// One exception that was considered.
#[derive(Clone, Debug)]
pub struct ExceptionResult {
    /// The exception.
    pub exception: Arc<Exception>,
    /// What it did.
    pub effect: Effect,
}

/// What a denied caller may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// Nothing needs doing, or nothing would help.
    None,
    /// Ask for an exception.
    Request,
    /// Ask again: what was missing is being fetched.
    Retry,
}

/// The answer to a question, with everything it rests on.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The answer.
    pub outcome: Outcome,
    /// Why, weightiest first; OK for an allow.
    pub reasons: SmallVec<[Reason; 4]>,
    /// How many controls applied and passed.
    pub passed: u32,
    /// The controls that did not pass, advisory ones included, in the order of their ids.
    pub failed: SmallVec<[ControlResult; 2]>,
    /// The exceptions considered, in the order of their ids.
    pub exceptions: SmallVec<[ExceptionResult; 2]>,
    /// Facets the caller observed to differ from what is governed.
    pub drift: Vec<Facet>,
    /// Until when the answer stays the same if nothing but time changes.
    pub valid_until: Timestamp,
    /// What the caller may do next.
    pub next_action: NextAction,
}

impl Decision {
    /// Whether the call may go ahead.
    pub fn allows(&self) -> bool {
        match self.outcome {
            Outcome::Allow | Outcome::AllowByException => true,
            Outcome::Deny => false,
        }
    }

    /// The weightiest reason.
    pub fn reason(&self) -> Reason {
        self.reasons.first().copied().unwrap_or(Reason::Ok)
    }

    /// The exceptions the decision rests on.
    pub fn relied_on(&self) -> impl Iterator<Item = &Arc<Exception>> {
        self.exceptions
            .iter()
            .filter(|result| result.effect == Effect::ReliedOn)
            .map(|result| &result.exception)
    }
}
