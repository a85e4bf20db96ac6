//! Governed objects as the registry keeps them, and transactions of its log.

use std::{fmt, sync::Arc};

use super::{Removal, Timestamp};

/// What a manifest describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A rule.
    Control,
    /// Governed metadata.
    Subject,
    /// A deviation.
    Exception,
    /// What a tier demands.
    TierPolicy,
    /// A team, region or product line.
    Domain,
    /// Somebody who may own, ask and decide.
    Person,
    /// Some people.
    Group,
    /// An exception on its way; comes about by requests and votes.
    Case,
    /// Something that went wrong; comes about by being declared.
    Incident,
    /// A control that is to deny less; comes about by being proposed.
    Proposal,
    /// A control that fails for a subject; comes about by runs.
    Finding,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Control,
        Self::Subject,
        Self::Exception,
        Self::TierPolicy,
        Self::Domain,
        Self::Person,
        Self::Group,
        Self::Case,
        Self::Incident,
        Self::Proposal,
        Self::Finding,
    ];

    /// Those that are applied as manifests.
    pub const APPLIED: [Self; 7] = [
        Self::Control,
        Self::Subject,
        Self::Exception,
        Self::TierPolicy,
        Self::Domain,
        Self::Person,
        Self::Group,
    ];

    /// Whether decisions are made from it; what they are not made from stays at the registry.
    pub fn decides(self) -> bool {
        match self {
            Self::Control | Self::Subject | Self::Exception | Self::TierPolicy | Self::Domain => {
                true
            }
            Self::Person
            | Self::Group
            | Self::Case
            | Self::Incident
            | Self::Proposal
            | Self::Finding => false,
        }
    }

    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "Control",
            Self::Subject => "Subject",
            Self::Exception => "Exception",
            Self::TierPolicy => "TierPolicy",
            Self::Domain => "Domain",
            Self::Person => "Person",
            Self::Group => "Group",
            Self::Case => "Case",
            Self::Incident => "Incident",
            Self::Proposal => "Proposal",
            Self::Finding => "Finding",
        }
    }

    /// The kind called `name`, however it is capitalised.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Its number on the wire and on disk, from 1.
    pub fn number(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Subject => 2,
            Self::Exception => 3,
            Self::TierPolicy => 4,
            Self::Domain => 5,
            Self::Person => 6,
            Self::Group => 7,
            Self::Case => 8,
            Self::Incident => 9,
            Self::Proposal => 10,
            Self::Finding => 11,
        }
    }

    /// The kind of that number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Its kind.
    pub kind: Kind,
    /// Its id; of a tier policy the tier's name.
    pub id: Arc<str>,
}

impl Name {
    /// The object of `kind` called `id`.
    pub fn new(kind: Kind, id: &str) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// An object is this from now on, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which.
    pub name: Name,
    /// Its own revision: grows by one with each change, and goes on where it was if it is made
    /// again.
    pub revision: u64,
    /// Its manifest as canonical JSON without a revision; nothing once it is removed.
    pub manifest: Option<Arc<str>>,
}

/// One accepted change of the registry: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its place in the log, from 1, without holes.
    pub revision: u64,
    /// When it was committed, by the registry's clock; never decreases along the log (T6).
    pub time: Timestamp,
    /// Who did it.
    pub principal: Box<str>,
    /// How it came about, such as `apply` or `revoke`.
    pub action: Box<str>,
    /// What changed.
    pub edits: Vec<Edit>,
    /// What was taken back.
    pub removals: Vec<Removal>,
}
