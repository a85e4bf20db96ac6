//! What became of an exception in a decision, as it is recorded (governance §6.9).
//!
//! A record is of a decision, never of what was then done: whether a tool ran is for whoever asked
//! to know. It holds names, codes and digests: no argument, prompt or secret (E6).

use super::{
    ClassId, ControlId, Digest, Dimension, ExceptionId, Hash, Lease, Sensitivity, Span, SubjectId,
    Tier, Timestamp, Trace,
};

/// What became of an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageKind {
    /// The answer was an allow that rests on it.
    ReliedOn,
    /// It stood ready, and the answer did not need it.
    NotNeeded,
    /// It was needed, and does not reach the question.
    OutOfScope,
    /// It was needed, and did not hold.
    Ineffective,
    /// An answer that was to rest on it was not given: it was taken back in between.
    Withdrawn,
}

impl UsageKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::ReliedOn,
        Self::NotNeeded,
        Self::OutOfScope,
        Self::Ineffective,
        Self::Withdrawn,
    ];

    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReliedOn => "RELIED_ON",
            Self::NotNeeded => "NOT_NEEDED",
            Self::OutOfScope => "OUT_OF_SCOPE",
            Self::Ineffective => "INEFFECTIVE",
            Self::Withdrawn => "WITHDRAWN",
        }
    }

    /// The kind called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What of a question and its subject a scope is held against.
#[derive(Clone, Copy, Debug)]
pub struct Reached<'a> {
    /// Who asks.
    pub subject: &'a SubjectId,
    /// The class they are an instance of.
    pub class: Option<&'a ClassId>,
    /// For which action.
    pub action: &'a str,
    /// On which resource.
    pub resource: &'a str,
    /// Where the subject runs.
    pub environment: &'a str,
    /// What for.
    pub purpose: Option<&'a str>,
    /// How sensitive its data is.
    pub sensitivity: Sensitivity,
}

/// One exception in one decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// When it was decided; of several the last.
    pub time: Timestamp,
    /// The decision's id; of several the last one's.
    pub decision: Box<str>,
    /// What became of it.
    pub kind: UsageKind,
    /// How many decisions this stands for; more than one of [`UsageKind::NotNeeded`] alone.
    pub count: u64,
    /// The exception.
    pub exception: ExceptionId,
    /// At which revision.
    pub revision: u64,
    /// Its tier.
    pub tier: Tier,
    /// The controls it was needed for.
    pub controls: Vec<ControlId>,
    /// Of [`UsageKind::OutOfScope`]: the first dimension that does not match.
    pub dimension: Option<Dimension>,
    /// Of [`UsageKind::Ineffective`]: the code of what stood against it.
    pub reason: Box<str>,
    /// Who asked.
    pub subject: SubjectId,
    /// The class they are an instance of.
    pub class: Option<ClassId>,
    /// For which action.
    pub action: Box<str>,
    /// On a resource of which type.
    pub resource_type: Box<str>,
    /// On which resource.
    pub resource: Box<str>,
    /// Where the subject ran.
    pub environment: Box<str>,
    /// What for.
    pub purpose: Option<Box<str>>,
    /// How sensitive its data was.
    pub sensitivity: Sensitivity,
    /// The digest over the subject's governed facets.
    pub fingerprint: Digest,
    /// The digest of the question as it was sent.
    pub question: Digest,
    /// The id its caller gave it; asked again under the same id it is the same use.
    pub request: Option<Box<str>>,
    /// The revision of what it was decided from.
    pub snapshot_revision: u64,
    /// The digest of what it was decided from.
    pub snapshot: Digest,
    /// How far the clock may have been off.
    pub uncertainty: Span,
    /// How recently the registry had been heard.
    pub lease: Lease,
    /// Which use it is since the sidecar's start, from 1; of [`UsageKind::ReliedOn`] alone.
    pub ordinal: u64,
    /// Where the call belongs.
    pub trace: Option<Trace>,
    /// Of [`UsageKind::Withdrawn`]: the record that says otherwise.
    pub withdraws: Option<u64>,
}

impl Usage {
    /// What a scope is held against.
    pub fn reached(&self) -> Reached<'_> {
        Reached {
            subject: &self.subject,
            class: self.class.as_ref(),
            action: &self.action,
            resource: &self.resource,
            environment: &self.environment,
            purpose: self.purpose.as_deref(),
            sensitivity: self.sensitivity,
        }
    }
}

/// A spool: one life of a file of records. Sixteen random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolId(pub [u8; 16]);

impl SpoolId {
    /// The id of these bytes; nothing if they are not sixteen.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Display for SpoolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How far a spool has come: its records are numbered from 1 without a gap, and each is chained to
/// all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chained {
    /// The last record's number; 0 before the first.
    pub sequence: u64,
    /// The digest over it and everything before it.
    pub digest: Hash,
}
