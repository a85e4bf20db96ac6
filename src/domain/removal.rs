//! What is taken back, and what is frozen. Removals only ever remove authority.

use std::fmt;

use super::{ControlId, DomainId, ExceptionId, Invalid, Principal, SubjectId, Timestamp};

/// What a removal is about (governance §6.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// One exception.
    Exception(ExceptionId),
    /// A subject: every question of it is denied for good.
    Subject(SubjectId),
    /// A credential: no exception holds for a subject that has it.
    Credential(Box<str>),
    /// A control: no exception from it holds.
    Control(ControlId),
    /// A domain: no exception granted in it, or for a subject of it, holds.
    Domain(DomainId),
    /// A person or workload: no exception it owns or asked for holds.
    Principal(Principal),
}

impl Target {
    /// The kinds of targets, as written.
    pub const KINDS: [&'static str; 6] = [
        "exception",
        "subject",
        "credential",
        "control",
        "domain",
        "principal",
    ];

    /// Parses a target of `kind`.
    pub fn parse(kind: &str, id: &str) -> Result<Self, Invalid> {
        Ok(match kind {
            "exception" => Self::Exception(ExceptionId::parse(id)?),
            "subject" => Self::Subject(SubjectId::parse(id)?),
            // A credential's id is held to the same rules as a subject's.
            "credential" => Self::Credential(SubjectId::parse(id)?.as_str().into()),
            "control" => Self::Control(ControlId::parse(id)?),
            "domain" => Self::Domain(DomainId::parse(id)?),
            "principal" => Self::Principal(Principal::parse(id)?),
            _ => {
                return Err(Invalid::new(
                    "",
                    format!("`{kind}` cannot be revoked"),
                    format!("use one of {}", Self::KINDS.join(", ")),
                ));
            }
        })
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exception(_) => "exception",
            Self::Subject(_) => "subject",
            Self::Credential(_) => "credential",
            Self::Control(_) => "control",
            Self::Domain(_) => "domain",
            Self::Principal(_) => "principal",
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Exception(id) => id.as_str(),
            Self::Subject(id) => id.as_str(),
            Self::Credential(id) => id,
            Self::Control(id) => id.as_str(),
            Self::Domain(id) => id.as_str(),
            Self::Principal(id) => id.as_str(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.id())
    }
}

/// What a removal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Takes back for good.
    Revoke,
    /// Denies every question of a subject until thawed.
    Freeze,
    /// Ends a freeze. The later of freeze and thaw counts.
    Thaw,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 3] = [Self::Revoke, Self::Freeze, Self::Thaw];

    /// The name as written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Revoke => "REVOKE",
            Self::Freeze => "FREEZE",
            Self::Thaw => "THAW",
        }
    }
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why something was taken back (governance §6.5).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Cause { $($(#[$doc])* $name,)* }

        impl Cause {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name as written.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

causes! {
    /// Its owner no longer needs it.
    ExpiredEarlyByOwner = "EXPIRED_EARLY_BY_OWNER",
    /// Something was compromised.
    Compromise = "COMPROMISE",
    /// What it was bound to changed.
    ContextChanged = "CONTEXT_CHANGED",
    /// The model changed.
    ModelChanged = "MODEL_CHANGED",
    /// Its owner is gone.
    OwnerInactive = "OWNER_INACTIVE",
    /// Somebody left.
    Offboarded = "OFFBOARDED",
    /// The incident is over.
    IncidentResolved = "INCIDENT_RESOLVED",
    /// Approval after the fact did not come.
    RetroApprovalMissed = "RETRO_APPROVAL_MISSED",
    /// It was used outside its scope.
    ScopeViolation = "SCOPE_VIOLATION",
    /// What was shown does not hold.
    EvidenceInvalid = "EVIDENCE_INVALID",
    /// The control is gone.
    ControlRetired = "CONTROL_RETIRED",
    /// An administrator said so.
    Admin = "ADMIN",
}

impl Cause {
    /// Parses a cause.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.iter().find(|cause| cause.name() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|cause| cause.name()).collect();
            Invalid::new(
                "",
                format!("`{text}` is not a reason"),
                format!("use one of {}", names.join(", ")),
            )
        })
    }
}

/// One removal, in its place in the order of all removals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its place, from 1, without holes.
    pub sequence: u64,
    /// What it does.
    pub act: Act,
    /// What it is about; of a freeze or thaw a subject.
    pub target: Target,
    /// Why.
    pub cause: Cause,
    /// In words.
    pub note: Box<str>,
    /// Who did it.
    pub initiator: Box<str>,
    /// When it was committed, by the registry's clock.
    pub time: Timestamp,
}
