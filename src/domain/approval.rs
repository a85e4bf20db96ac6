//! What a tier demands before an exception is granted (governance §8).

use std::{fmt, num::NonZeroU8};

use super::{Span, Tier};

/// In which capacity a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApproverRole {
    /// Answers for the controls that are deviated from.
    ControlOwner,
    /// Answers for risk in the domain.
    RiskOfficer,
    /// Answers for the domain.
    DomainOwner,
    /// On call during an incident.
    OnCall,
}

impl ApproverRole {
    /// Every role.
    pub const ALL: [Self; 4] = [
        Self::ControlOwner,
        Self::RiskOfficer,
        Self::DomainOwner,
        Self::OnCall,
    ];

    /// The name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlOwner => "control_owner",
            Self::RiskOfficer => "risk_officer",
            Self::DomainOwner => "domain_owner",
            Self::OnCall => "on_call",
        }
    }

    /// The role called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for ApproverRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many persons in one capacity; a quorum of none cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// In which capacity.
    pub role: ApproverRole,
    /// How many.
    pub quorum: NonZeroU8,
}

impl Stage {
    /// One person in `role`.
    pub fn one(role: ApproverRole) -> Self {
        Self {
            role,
            quorum: NonZeroU8::MIN,
        }
    }
}

/// How much is approved without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoBudget {
    /// Exceptions in force for one owner.
    pub per_owner: u32,
    /// Exceptions in force for one subject.
    pub per_subject: u32,
    /// Exceptions from one control within 30 days.
    pub per_control: u32,
}

impl AutoBudget {
    /// Whether it is more than `other` on any field.
    pub fn exceeds(self, other: Self) -> bool {
        self.per_owner > other.per_owner
            || self.per_subject > other.per_subject
            || self.per_control > other.per_control
    }

    /// The lesser of the two on every field.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            per_owner: self.per_owner.min(other.per_owner),
            per_subject: self.per_subject.min(other.per_subject),
            per_control: self.per_control.min(other.per_control),
        }
    }
}

/// What becomes of an exception whose context has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnChange {
    /// It waits for revalidation.
    Suspend,
    /// It is over.
    Revoke,
}

/// How exceptions of a tier come about, and end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a yes or no that a policy says by its name"
)]
pub struct ApprovalRules {
    /// Who decides, distinct persons over all stages; nobody means automatically, within `auto`.
    pub stages: Vec<Stage>,
    /// How much is approved without a person; nothing beyond it.
    pub auto: Option<AutoBudget>,
    /// How long a decision may take.
    pub deadline: Option<Span>,
    /// How many times an exception may be renewed within the tier.
    pub max_renewals: u32,
    /// Most of any 365 days that one subject may be excepted from one control, in percent.
    pub max_coverage: u8,
    /// Whether every vote names every required item of evidence as reviewed (A4).
    pub review_evidence: bool,
    /// Whether whoever approves has signed in with a step-up, such as a second factor.
    pub step_up: bool,
    /// What becomes of one whose context has changed.
    pub on_change: OnChange,
    /// How long one that is not used stays.
    pub unused_after: Option<Span>,
    /// Most questions within a day that it was needed for and does not reach; beyond it, it waits
    /// for revalidation.
    pub out_of_scope_limit: u32,
    /// Whether one that waits because a baseline gate fails goes on by itself once it passes (T12).
    pub auto_resume: bool,
    /// Whether one may be asked for before its control fails for anybody (T2).
    pub preemptive: bool,
}

impl ApprovalRules {
    /// The defaults of governance §8.
    pub fn standard(tier: Tier) -> Self {
        let base = Self {
            stages: Vec::new(),
            auto: None,
            deadline: Some(Span::from_hours(72)),
            max_renewals: 1,
            max_coverage: 25,
            review_evidence: false,
            step_up: false,
            on_change: OnChange::Suspend,
            unused_after: Some(Span::from_days(7)),
            out_of_scope_limit: 20,
            auto_resume: true,
            preemptive: true,
        };
        match tier {
            Tier::Low => Self {
                auto: Some(AutoBudget {
                    per_owner: 10,
                    per_subject: 2,
                    per_control: 20,
                }),
                deadline: None,
                on_change: OnChange::Revoke,
                ..base
            },
            Tier::Moderate => Self {
                stages: vec![Stage::one(ApproverRole::ControlOwner)],
                max_renewals: 2,
                max_coverage: 50,
                unused_after: Some(Span::from_days(14)),
                out_of_scope_limit: 3,
                ..base
            },
            Tier::High => Self {
                stages: vec![
                    Stage::one(ApproverRole::ControlOwner),
                    Stage::one(ApproverRole::RiskOfficer),
                ],
                review_evidence: true,
                out_of_scope_limit: 0,
                auto_resume: false,
                ..base
            },
            Tier::Incident => Self {
                stages: vec![Stage::one(ApproverRole::OnCall)],
                deadline: Some(Span::from_secs(900)),
                max_coverage: 2,
                on_change: OnChange::Revoke,
                unused_after: None,
                out_of_scope_limit: 3,
                ..base
            },
        }
    }

    /// The stricter of the two on every field: what a domain adds to what stands above it (M2).
    #[must_use]
    pub fn tightened(&self, with: &Self) -> Self {
        let mut stages = self.stages.clone();
        for stage in &with.stages {
            match stages.iter_mut().find(|known| known.role == stage.role) {
                Some(known) => known.quorum = known.quorum.max(stage.quorum),
                None => stages.push(*stage),
            }
        }
        Self {
            stages,
            auto: match (self.auto, with.auto) {
                (Some(ours), Some(theirs)) => Some(ours.least(theirs)),
                (None, _) | (_, None) => None,
            },
            deadline: shorter(self.deadline, with.deadline),
            max_renewals: self.max_renewals.min(with.max_renewals),
            max_coverage: self.max_coverage.min(with.max_coverage),
            review_evidence: self.review_evidence || with.review_evidence,
            step_up: self.step_up || with.step_up,
            on_change: self.on_change.max(with.on_change),
            unused_after: shorter(self.unused_after, with.unused_after),
            out_of_scope_limit: self.out_of_scope_limit.min(with.out_of_scope_limit),
            auto_resume: self.auto_resume && with.auto_resume,
            preemptive: self.preemptive && with.preemptive,
        }
    }
}

impl ApprovalRules {
    /// The first field on which `with` is looser; none means that it only tightens.
    pub fn loosened_by(&self, with: &Self) -> Option<&'static str> {
        let seats = |rules: &Self| {
            let mut seats = rules.stages.clone();
            seats.sort_by_key(|stage| stage.role);
            seats
        };
        let both = self.tightened(with);
        [
            ("approval_stages", seats(&both) != seats(with)),
            ("auto_budget", both.auto != with.auto),
            ("approval_deadline", both.deadline != with.deadline),
            ("max_renewals", both.max_renewals != with.max_renewals),
            ("max_coverage", both.max_coverage != with.max_coverage),
            (
                "review_evidence",
                both.review_evidence != with.review_evidence,
            ),
            ("step_up", both.step_up != with.step_up),
            ("on_context_change", both.on_change != with.on_change),
            ("unused_after", both.unused_after != with.unused_after),
            (
                "out_of_scope_limit",
                both.out_of_scope_limit != with.out_of_scope_limit,
            ),
            ("auto_resume", both.auto_resume != with.auto_resume),
            ("preemptive", both.preemptive != with.preemptive),
        ]
        .into_iter()
        .find_map(|(field, looser)| looser.then_some(field))
    }
}

/// The shorter of two limits; none means no limit.
pub(super) fn shorter(a: Option<Span>, b: Option<Span>) -> Option<Span> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (limit, None) | (None, limit) => limit,
    }
}
