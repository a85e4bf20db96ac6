//! Domains: teams, regions or product lines with rules of their own.

use super::{ApproverRole, Deviation, DomainId, GroupId, Principal, Tier, Tightening};

/// What is answered when no control applies to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhenUngoverned {
    /// Allow it: the domain accepts that this is not governed.
    Allow,
    /// Deny it with `NO_CONTROL`.
    Deny,
}

/// A node of the domain tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// The domain it is part of.
    pub parent: Option<DomainId>,
    /// What people call it.
    pub display_name: Box<str>,
    /// Who answers for it.
    pub owner: Principal,
    /// Said here, or left to the parent.
    pub when_ungoverned: Option<WhenUngoverned>,
    /// Local words for kinds of deviation.
    pub vocabulary: Vec<(Box<str>, Deviation)>,
    /// Who decides about exceptions here and below, unless something below says otherwise.
    pub approvers: Vec<(ApproverRole, GroupId)>,
    /// Whether who is on call may override at once during an incident, and be looked at afterwards;
    /// said here, or left to the parent. No below a yes counts, and no above a no does not.
    pub self_activation: Option<bool>,
    /// What is demanded here and below beyond what the tiers do.
    pub tightens: Vec<(Tier, Tightening)>,
}
