//! Tiers of exceptions and what each demands while an exception is in force.

use std::fmt;

use super::{ApprovalRules, Dimension, Facet, Invalid, Span};

/// How much an exception risks; INCIDENT is a track of its own beside the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Little at stake; may be approved automatically within a budget.
    Low,
    /// One approver.
    Moderate,
    /// Two approvers in two roles and reviewed evidence.
    High,
    /// An override during an incident, hours at most.
    Incident,
}

impl Tier {
    /// Every tier, in order.
    pub const ALL: [Self; 4] = [Self::Low, Self::Moderate, Self::High, Self::Incident];

    /// The next higher of LOW, MODERATE and HIGH; the same where there is none.
    #[must_use]
    pub fn higher(self) -> Self {
        match self {
            Self::Low => Self::Moderate,
            Self::Moderate | Self::High => Self::High,
            Self::Incident => Self::Incident,
        }
    }

    /// The tier called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }

    /// The tier's name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Moderate => "MODERATE",
            Self::High => "HIGH",
            Self::Incident => "INCIDENT",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When a tier's exceptions stop after contact with the registry is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleMode {
    /// At the end of the lease.
    Strict,
    /// At the end of the longer staleness budget.
    BestEffort,
}

/// No tier waits for more attempts beyond a scope than this.
const MOST_ATTEMPTS: u32 = 100;

/// What one tier demands of an exception in force (governance §8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierRules {
    /// Longest window.
    pub max_duration: Span,
    /// Longest time between revalidations; none means no schedule.
    pub revalidation_interval: Option<Span>,
    /// Fewest evidence items.
    pub min_evidence: usize,
    /// Facets every exception must be bound to.
    pub bound_facets: Vec<Facet>,
    /// Scope dimensions that may say `ANY`.
    pub any_allowed: Vec<Dimension>,
    /// Most subjects one exception may name.
    pub max_subjects: usize,
    /// Whether `max_uses` is demanded.
    pub max_uses_required: bool,
    /// How long an exception is honoured after the last confirmed contact.
    pub lease_ttl: Span,
    /// How old the whole snapshot may grow.
    pub max_staleness: Span,
    /// Which of the two ends an exception.
    pub stale_mode: StaleMode,
    /// How far the clock may be off.
    pub max_clock_skew: Span,
    /// Whether a use must be durably recorded before the answer leaves.
    pub usage_required: bool,
    /// Whether bound facets must have been observed by the caller; governed values do not do.
    pub observed_required: bool,
    /// How old a governed facet may be and still stand in for an observed one.
    pub facet_max_age: Span,
    /// How exceptions come about, and end.
    pub approval: ApprovalRules,
}

impl TierRules {
    /// The defaults of governance §8.
    pub fn standard(tier: Tier) -> Self {
        use Facet::{
            CredentialsScopes, DataSources, Environment, Model, Permissions, Prompts, Purpose,
            Tools,
        };
        let low = vec![Model, Tools, Purpose];
        let moderate = vec![Model, Tools, Purpose, Prompts, DataSources, Environment];
        let base = Self {
            max_duration: Span::from_days(7),
            revalidation_interval: None,
            min_evidence: 0,
            bound_facets: low,
            any_allowed: vec![Dimension::Resource],
            max_subjects: 5,
            max_uses_required: false,
            lease_ttl: Span::from_secs(300),
            max_staleness: Span::from_secs(3_600),
            stale_mode: StaleMode::Strict,
            max_clock_skew: Span::from_secs(30),
            usage_required: false,
            observed_required: false,
            facet_max_age: Span::from_days(7),
            approval: ApprovalRules::standard(tier),
        };
        match tier {
            Tier::Low => base,
            Tier::Moderate => Self {
                max_duration: Span::from_days(30),
                revalidation_interval: Some(Span::from_days(14)),
                min_evidence: 1,
                bound_facets: moderate,
                max_subjects: 20,
                lease_ttl: Span::from_secs(120),
                max_staleness: Span::from_secs(900),
                usage_required: true,
                facet_max_age: Span::from_hours(24),
                ..base
            },
            Tier::High => Self {
                any_allowed: Vec::new(),
                max_duration: Span::from_days(14),
                revalidation_interval: Some(Span::from_days(7)),
                min_evidence: 2,
                bound_facets: moderate
                    .into_iter()
                    .chain([Permissions, CredentialsScopes])
                    .collect(),
                max_uses_required: true,
                lease_ttl: Span::from_secs(60),
                max_staleness: Span::from_secs(300),
                max_clock_skew: Span::from_secs(10),
                usage_required: true,
                facet_max_age: Span::from_hours(1),
                ..base
            },
            Tier::Incident => Self {
                max_duration: Span::from_hours(4),
                revalidation_interval: Some(Span::from_hours(1)),
                bound_facets: vec![Model, Tools, Environment],
                max_subjects: 20,
                lease_ttl: Span::from_secs(60),
                max_staleness: Span::from_secs(300),
                max_clock_skew: Span::from_secs(10),
                usage_required: true,
                facet_max_age: Span::from_hours(1),
                ..base
            },
        }
    }

    /// How long after the last contact an exception is still honoured: what bounds a revocation
    /// that never arrives (S3).
    pub fn lease(&self) -> Span {
        match self.stale_mode {
            StaleMode::Strict => self.lease_ttl,
            StaleMode::BestEffort => self.max_staleness,
        }
    }

    /// The same rules, by which nothing is honoured: what stands in for rules that are not known (S13).
    #[must_use]
    pub fn honouring_nothing(self) -> Self {
        Self {
            lease_ttl: Span::ZERO,
            max_staleness: Span::ZERO,
            ..self
        }
    }

    /// The longest that any policy lets an exception of a tier hold. Nobody but who is on call lets an
    /// override begin: no policy makes that more than hours.
    pub fn longest(tier: Tier) -> Span {
        match tier {
            Tier::Incident => Self::standard(tier).max_duration,
            Tier::Low | Tier::Moderate | Tier::High => Span::from_days(366),
        }
    }

    /// Refuses rules looser than the compiled ceiling: leases of governance §8 and durations that
    /// are not positive.
    pub fn checked(self, tier: Tier) -> Result<Self, Invalid> {
        let ceiling = Self::standard(tier);
        for (name, value, most) in [
            ("max_duration", self.max_duration, Self::longest(tier)),
            ("lease_ttl", self.lease_ttl, ceiling.lease_ttl),
            ("max_staleness", self.max_staleness, ceiling.max_staleness),
            (
                "max_clock_skew",
                self.max_clock_skew,
                ceiling.max_clock_skew,
            ),
            ("facet_max_age", self.facet_max_age, Span::from_days(366)),
        ] {
            if value <= Span::ZERO || value > most {
                return Err(Invalid::new(
                    name,
                    format!("`{value}` is outside what tier {tier} permits"),
                    format!("use more than 0s and at most {most}"),
                ));
            }
        }
        if self.approval.out_of_scope_limit > MOST_ATTEMPTS {
            return Err(Invalid::new(
                "out_of_scope_limit",
                format!("is more than {MOST_ATTEMPTS}"),
                "say how many such questions a day are too many",
            ));
        }
        let interval = self.revalidation_interval;
        for (name, loosened) in [
            (
                "stale_mode",
                // One tier may trade the bound for availability: up to its staleness budget.
                self.stale_mode == StaleMode::BestEffort && tier != Tier::Low,
            ),
            (
                "usage_delivery",
                !self.usage_required && ceiling.usage_required,
            ),
            (
                "bound_facets",
                ceiling
                    .bound_facets
                    .iter()
                    .any(|facet| !self.bound_facets.contains(facet)),
            ),
            (
                "any_allowed",
                self.any_allowed
                    .iter()
                    .any(|any| !ceiling.any_allowed.contains(any)),
            ),
            ("min_evidence", self.min_evidence < ceiling.min_evidence),
            (
                "max_uses_required",
                !self.max_uses_required && ceiling.max_uses_required,
            ),
            (
                "revalidation_interval",
                interval.is_some_and(|interval| {
                    interval <= Span::ZERO
                        || ceiling
                            .revalidation_interval
                            .is_some_and(|most| interval > most)
                }),
            ),
        ] {
            if loosened {
                return Err(Invalid::new(
                    name,
                    format!("is looser than tier {tier} is"),
                    "a policy may only tighten",
                ));
            }
        }
        if let Some(field) = ceiling.approval.loosened_by(&self.approval) {
            return Err(Invalid::new(
                field,
                format!("is looser than tier {tier} is"),
                "a policy may only tighten",
            ));
        }
        Ok(self)
    }
}
