//! Changes to what is known, and why one is refused.

use std::fmt;

use crate::domain::{
    Control, ControlId, Domain, DomainId, Exception, ExceptionId, Group, GroupId, Incident,
    Invalid, Person, Principal, Proposal, Subject, SubjectId, Tier, TierRules,
};

use super::condition::Fault;

/// One change to what is known.
#[derive(Clone, Debug)]
pub enum Change {
    /// A tier's rules are these from now on.
    PutTier(Tier, TierRules),
    /// A domain is this from now on.
    PutDomain(Domain),
    /// A control is this from now on.
    PutControl(Control),
    /// A subject is this from now on.
    PutSubject(Subject),
    /// An exception is this from now on.
    PutException(Exception),
    /// A person is this from now on.
    PutPerson(Person),
    /// A group is this from now on.
    PutGroup(Group),
    /// An incident is this from now on.
    PutIncident(Incident),
    /// A proposal is this from now on.
    PutProposal(Proposal),
    /// There is no such person any more.
    RemovePerson(Principal),
    /// There is no such group any more.
    RemoveGroup(GroupId),
    /// There is no such domain any more.
    RemoveDomain(DomainId),
    /// There is no such control any more.
    RemoveControl(ControlId),
    /// There is no such subject any more.
    RemoveSubject(SubjectId),
    /// There is no such exception any more.
    RemoveException(ExceptionId),
}

impl Change {
    /// The same, of an object at `revision`.
    #[must_use]
    pub fn at_revision(mut self, revision: u64) -> Self {
        match &mut self {
            Self::PutControl(control) => control.revision = revision,
            Self::PutException(exception) => exception.revision = revision,
            Self::PutTier(..)
            | Self::PutDomain(_)
            | Self::PutSubject(_)
            | Self::PutPerson(_)
            | Self::PutGroup(_)
            | Self::PutIncident(_)
            | Self::PutProposal(_)
            | Self::RemovePerson(_)
            | Self::RemoveGroup(_)
            | Self::RemoveDomain(_)
            | Self::RemoveControl(_)
            | Self::RemoveSubject(_)
            | Self::RemoveException(_) => {}
        }
        self
    }
}

/// Which object an error is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The manifest kind.
    pub kind: &'static str,
    /// The object's id.
    pub id: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// Why an object cannot be part of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotError {
    /// The object.
    pub source: Source,
    /// The field and what is wrong with it.
    pub invalid: Invalid,
    /// Where in a condition, if it is one.
    pub fault: Option<Fault>,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.invalid)
    }
}

impl std::error::Error for SnapshotError {}

/// Why an object was refused.
pub(crate) struct Refusal {
    pub(super) invalid: Invalid,
    pub(super) fault: Option<Box<Fault>>,
}

impl Refusal {
    pub(super) fn condition(path: &str, fault: Fault) -> Self {
        Self {
            invalid: Invalid::new(path, fault.message(), ""),
            fault: Some(Box::new(fault)),
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self {
            invalid,
            fault: None,
        }
    }
}

pub(super) fn source_of(change: &Change) -> Source {
    let (kind, id) = match change {
        Change::PutTier(tier, _) => ("TierPolicy", tier.name()),
        Change::PutDomain(domain) => ("Domain", domain.id.as_str()),
        Change::RemoveDomain(id) => ("Domain", id.as_str()),
        Change::PutControl(control) => ("Control", control.id.as_str()),
        Change::RemoveControl(id) => ("Control", id.as_str()),
        Change::PutSubject(subject) => ("Subject", subject.id.as_str()),
        Change::RemoveSubject(id) => ("Subject", id.as_str()),
        Change::PutException(exception) => ("Exception", exception.id.as_str()),
        Change::RemoveException(id) => ("Exception", id.as_str()),
        Change::PutPerson(person) => ("Person", person.id.as_str()),
        Change::RemovePerson(id) => ("Person", id.as_str()),
        Change::PutGroup(group) => ("Group", group.id.as_str()),
        Change::PutIncident(incident) => ("Incident", incident.id.as_str()),
        Change::PutProposal(proposal) => ("Proposal", &*proposal.id),
        Change::RemoveGroup(id) => ("Group", id.as_str()),
    };
    Source {
        kind,
        id: id.to_owned(),
    }
}
