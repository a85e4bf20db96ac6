//! A control that is to deny less than it does, until the people for that have decided.

use super::{ApproverRole, Assurance, ControlId, Digest, Principal, Span, Timestamp};

/// How long people have to decide.
pub const DECIDE_WITHIN: Span = Span::from_hours(72);

/// Where a proposal stands; that its time is over, or that the control has changed, is seen from
/// the clock and the control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalState {
    /// People are to decide.
    Pending,
    /// The control is so since.
    Applied,
    /// Somebody said no.
    Denied,
    /// Whoever proposed it took it back.
    Withdrawn,
}

impl ProposalState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Applied, Self::Denied, Self::Withdrawn];

    /// The name as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Applied => "APPLIED",
            Self::Denied => "DENIED",
            Self::Withdrawn => "WITHDRAWN",
        }
    }

    /// The state called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What somebody decided about a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// Who.
    pub approver: Principal,
    /// Which person that is, whatever identity they used.
    pub person: Box<str>,
    /// In which capacity.
    pub role: ApproverRole,
    /// Whether they are for it.
    pub approves: bool,
    /// Why.
    pub comment: Box<str>,
    /// When.
    pub time: Timestamp,
    /// How they had signed in, if they had.
    pub assurance: Option<Assurance>,
}

/// A control that is to deny less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its id.
    pub id: Box<str>,
    /// The control.
    pub control: ControlId,
    /// The control's revision that it is about.
    pub base: u64,
    /// What the control is to be, as canonical JSON; nothing if it is to be removed.
    pub manifest: Option<Box<str>>,
    /// How it denies less, in words.
    pub weakens: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// Who proposed it.
    pub proposer: Principal,
    /// When.
    pub created: Timestamp,
    /// Over everything that is decided about: votes are bound to it.
    pub digest: Digest,
    /// Who decided what, in order.
    pub voices: Vec<Voice>,
    /// Where it stands.
    pub state: ProposalState,
    /// Since when.
    pub since: Timestamp,
}

impl Proposal {
    /// Until when it is to be decided.
    pub fn deadline(&self) -> Timestamp {
        self.created + DECIDE_WITHIN
    }
}
