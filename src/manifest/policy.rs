//! `kind: TierPolicy` and `kind: Domain`.

use std::{collections::BTreeMap, num::NonZeroU8};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::{
    ApprovalRules, ApproverRole, AutoBudget, Dimension, Domain, DomainId, Facet, GroupId, Invalid,
    OnChange, Principal, Span, Stage, StaleMode, Tier, TierRules, Tightening, WhenUngoverned,
};

use super::{
    control::{each, name},
    exception::DeviationName,
    format,
};

/// What a tier demands; what is left out keeps its default.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "TierPolicy")]
pub struct TierPolicyManifest {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion")]
    _api_version: super::document::ApiVersion,
    /// `TierPolicy`.
    #[serde(rename = "kind")]
    _kind: TierPolicyKind,
    /// The tier.
    pub(super) tier: TierName,
    /// Longest window.
    #[schemars(with = "Option<format::ASpan>")]
    max_duration: Option<String>,
    /// Longest time between revalidations.
    #[schemars(with = "Option<format::ASpan>")]
    revalidation_interval: Option<String>,
    /// Fewest evidence items.
    min_evidence: Option<usize>,
    /// Facets every exception must be bound to.
    #[schemars(with = "Option<Vec<format::ABoundFacet>>")]
    bound_facets: Option<Vec<String>>,
    /// Scope dimensions that may say ANY: actions, resources, environments, purposes.
    any_allowed: Option<Vec<AnyName>>,
    /// Most subjects one exception may name.
    max_subjects: Option<usize>,
    /// Whether `usage_limits.max_uses` is demanded.
    max_uses_required: Option<bool>,
    /// How long an exception is honoured after the last confirmed contact.
    #[schemars(with = "Option<format::ASpan>")]
    lease_ttl: Option<String>,
    /// How old the snapshot may grow.
    #[schemars(with = "Option<format::ASpan>")]
    max_staleness: Option<String>,
    /// Which of the two ends an exception.
    stale_mode: Option<StaleModeName>,
    /// How far the clock may be off.
    #[schemars(with = "Option<format::ASpan>")]
    max_clock_skew: Option<String>,
    /// Whether a use must be durably recorded before the answer leaves.
    usage_delivery: Option<DeliveryName>,
    /// Whether bound facets must have been observed by the caller.
    observed_required: Option<bool>,
    /// How old a governed facet may be and still stand in for an observed one.
    #[schemars(with = "Option<format::ASpan>")]
    facet_max_age: Option<String>,
    /// Who decides; left out, as the tier has it.
    approval_stages: Option<Vec<StageManifest>>,
    /// How much is approved without a person; only where nobody has to decide.
    auto_budget: Option<BudgetManifest>,
    /// How long a decision may take.
    #[schemars(with = "Option<format::ASpan>")]
    approval_deadline: Option<String>,
    /// How many times an exception may be renewed within the tier.
    max_renewals: Option<u32>,
    /// Most of any 365 days that a subject may be excepted from a control, in percent.
    max_coverage_percent: Option<u8>,
    /// Whether every vote names the required evidence as reviewed.
    review_evidence: Option<bool>,
    /// Whether whoever approves has signed in with a step-up, such as a second factor.
    step_up: Option<bool>,
    /// What becomes of an exception whose context has changed.
    on_context_change: Option<ChangeName>,
    /// How long an exception that is not used stays.
    #[schemars(with = "Option<format::ASpan>")]
    unused_after: Option<String>,
    /// Most questions within a day that an exception is needed for and does not reach.
    out_of_scope_limit: Option<u32>,
    /// Whether one that waits because a baseline gate fails goes on by itself once it passes.
    auto_resume: Option<bool>,
    /// Whether one may be asked for before its control fails for anybody.
    preemptive: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StageManifest {
    /// In which capacity.
    role: RoleName,
    /// How many persons; at least one.
    #[schemars(range(min = 1))]
    quorum: u8,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
enum RoleName {
    ControlOwner,
    RiskOfficer,
    DomainOwner,
    OnCall,
}

impl RoleName {
    fn parse(self) -> ApproverRole {
        match self {
            Self::ControlOwner => ApproverRole::ControlOwner,
            Self::RiskOfficer => ApproverRole::RiskOfficer,
            Self::DomainOwner => ApproverRole::DomainOwner,
            Self::OnCall => ApproverRole::OnCall,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "as they are written")]
struct BudgetManifest {
    /// Exceptions in force for one owner.
    per_owner: u32,
    /// Exceptions in force for one subject.
    per_subject: u32,
    /// Exceptions from one control within 30 days.
    per_control: u32,
}

impl BudgetManifest {
    fn parse(self) -> AutoBudget {
        AutoBudget {
            per_owner: self.per_owner,
            per_subject: self.per_subject,
            per_control: self.per_control,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ChangeName {
    Suspend,
    Revoke,
}

impl ChangeName {
    fn parse(self) -> OnChange {
        match self {
            Self::Suspend => OnChange::Suspend,
            Self::Revoke => OnChange::Revoke,
        }
    }
}

impl StageManifest {
    fn parse(self) -> Result<Stage, Invalid> {
        let quorum = NonZeroU8::new(self.quorum).ok_or_else(|| {
            Invalid::new("quorum", "is 0", "a quorum of nobody approves everything")
        })?;
        Ok(Stage {
            role: self.role.parse(),
            quorum,
        })
    }
}

impl AnyName {
    fn parse(self) -> Dimension {
        match self {
            Self::Actions => Dimension::Action,
            Self::Resources => Dimension::Resource,
            Self::Environments => Dimension::Environment,
            Self::Purposes => Dimension::Purpose,
        }
    }
}

impl TierName {
    pub(super) fn parse(self) -> Tier {
        match self {
            Self::Low => Tier::Low,
            Self::Moderate => Tier::Moderate,
            Self::High => Tier::High,
            Self::Incident => Tier::Incident,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum TierPolicyKind {
    TierPolicy,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum TierName {
    Low,
    Moderate,
    High,
    Incident,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AnyName {
    Actions,
    Resources,
    Environments,
    Purposes,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StaleModeName {
    Strict,
    BestEffort,
}

impl StaleModeName {
    fn parse(self) -> StaleMode {
        match self {
            Self::Strict => StaleMode::Strict,
            Self::BestEffort => StaleMode::BestEffort,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum DeliveryName {
    BestEffort,
    Required,
}

impl DeliveryName {
    fn is_required(self) -> bool {
        matches!(self, Self::Required)
    }
}

impl TierPolicyManifest {
    /// The tier and its rules.
    pub fn parse(&self) -> Result<(Tier, TierRules), Invalid> {
        let (tier, rules) = self.rules()?;
        Ok((tier, rules.checked(tier)?))
    }

    /// The same of what was accepted before: where less is permitted today, that holds. A registry
    /// begins with what it has, or nobody could take anything back.
    pub(super) fn kept(&self) -> Result<(Tier, TierRules), Invalid> {
        let (tier, mut rules) = self.rules()?;
        rules.max_duration = rules.max_duration.min(TierRules::longest(tier));
        let any = TierRules::standard(tier).any_allowed;
        rules
            .any_allowed
            .retain(|dimension| any.contains(dimension));
        Ok((tier, rules.checked(tier)?))
    }

    fn rules(&self) -> Result<(Tier, TierRules), Invalid> {
        let tier = self.tier.parse();
        let mut rules = TierRules::standard(tier);
        let span = |path: &str, text: &Option<String>, place: &mut Span| -> Result<(), Invalid> {
            if let Some(text) = text {
                *place = Span::parse(text).map_err(|e| e.under(path))?;
            }
            Ok(())
        };
        span("max_duration", &self.max_duration, &mut rules.max_duration)?;
        span("lease_ttl", &self.lease_ttl, &mut rules.lease_ttl)?;
        span(
            "max_staleness",
            &self.max_staleness,
            &mut rules.max_staleness,
        )?;
        span(
            "max_clock_skew",
            &self.max_clock_skew,
            &mut rules.max_clock_skew,
        )?;
        span(
            "facet_max_age",
            &self.facet_max_age,
            &mut rules.facet_max_age,
        )?;
        if let Some(text) = &self.revalidation_interval {
            rules.revalidation_interval =
                Some(Span::parse(text).map_err(|e| e.under("revalidation_interval"))?);
        }
        if let Some(facets) = &self.bound_facets {
            rules.bound_facets =
                each("bound_facets", facets, |facet| Facet::parse_bindable(facet))?;
        }
        if let Some(names) = &self.any_allowed {
            rules.any_allowed = names.iter().map(|name| name.parse()).collect();
        }
        rules.min_evidence = self.min_evidence.unwrap_or(rules.min_evidence);
        rules.max_subjects = self.max_subjects.unwrap_or(rules.max_subjects);
        rules.max_uses_required = self.max_uses_required.unwrap_or(rules.max_uses_required);
        rules.observed_required = self.observed_required.unwrap_or(rules.observed_required);
        rules.stale_mode = self
            .stale_mode
            .map_or(rules.stale_mode, StaleModeName::parse);
        rules.usage_required = self
            .usage_delivery
            .map_or(rules.usage_required, DeliveryName::is_required);
        self.approval(&mut rules.approval)?;
        if tier == Tier::High && rules.approval.auto_resume {
            return Err(Invalid::new(
                "auto_resume",
                "is true, and nothing of HIGH goes on by itself",
                "leave it out",
            ));
        }
        Ok((tier, rules))
    }
}

impl TierPolicyManifest {
    fn approval(&self, rules: &mut ApprovalRules) -> Result<(), Invalid> {
        if let Some(stages) = &self.approval_stages {
            rules.stages = each("approval_stages", stages, |stage| stage.parse())?;
            // Whom a person decides for, nobody approves automatically.
            rules.auto = rules.auto.filter(|_| rules.stages.is_empty());
        }
        if let Some(budget) = self.auto_budget {
            rules.auto = Some(budget.parse());
        }
        if let Some(text) = &self.approval_deadline {
            let deadline = Span::parse(text).map_err(|e| e.under("approval_deadline"))?;
            rules.deadline = Some(deadline);
        }
        rules.max_renewals = self.max_renewals.unwrap_or(rules.max_renewals);
        rules.max_coverage = self.max_coverage_percent.unwrap_or(rules.max_coverage);
        rules.review_evidence = self.review_evidence.unwrap_or(rules.review_evidence);
        rules.step_up = self.step_up.unwrap_or(rules.step_up);
        rules.on_change = self
            .on_context_change
            .map_or(rules.on_change, ChangeName::parse);
        if let Some(text) = &self.unused_after {
            let after = Span::parse(text).map_err(|e| e.under("unused_after"))?;
            rules.unused_after = Some(after);
        }
        rules.out_of_scope_limit = self.out_of_scope_limit.unwrap_or(rules.out_of_scope_limit);
        rules.auto_resume = self.auto_resume.unwrap_or(rules.auto_resume);
        rules.preemptive = self.preemptive.unwrap_or(rules.preemptive);
        Ok(())
    }
}

/// A team, region or product line with rules of its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Domain")]
pub struct DomainManifest {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion")]
    _api_version: super::document::ApiVersion,
    /// `Domain`.
    #[serde(rename = "kind")]
    _kind: DomainKind,
    /// A name without blanks.
    #[schemars(with = "format::ADomain")]
    pub(super) id: String,
    /// The domain it is part of.
    #[schemars(with = "Option<format::ADomain>")]
    parent: Option<String>,
    /// What people call it.
    display_name: String,
    /// The person who answers for it: `user:NAME`.
    #[schemars(with = "format::APerson")]
    owner: String,
    /// What is answered when no control applies; left out, the parent decides, and DENY at the top.
    when_no_control: Option<WhenName>,
    /// Local words for kinds of deviation.
    #[serde(default)]
    vocabulary: BTreeMap<String, DeviationName>,
    /// Whether who is on call may override at once during an incident, and be looked at
    /// afterwards; left out, as the parent says. A no above counts for all below.
    incident_self_activation: Option<bool>,
    /// Who decides about exceptions here and below: a group's id by role.
    #[serde(default)]
    #[schemars(with = "BTreeMap<RoleName, format::AGroup>")]
    approver_groups: BTreeMap<RoleName, String>,
    /// What is demanded here and below beyond what the tiers do, by tier; only tighter.
    #[serde(default)]
    tier_policy_overrides: BTreeMap<TierName, TighteningManifest>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TighteningManifest {
    /// Longest window.
    #[schemars(with = "Option<format::ASpan>")]
    max_duration: Option<String>,
    /// Longest time between revalidations.
    #[schemars(with = "Option<format::ASpan>")]
    revalidation_interval: Option<String>,
    /// Fewest evidence items.
    min_evidence: Option<usize>,
    /// Facets that are bound as well.
    #[serde(default)]
    #[schemars(with = "Vec<format::ABoundFacet>")]
    bound_facets: Vec<String>,
    /// Scope dimensions that may still say ANY.
    any_allowed: Option<Vec<AnyName>>,
    /// Most subjects one exception may name.
    max_subjects: Option<usize>,
    /// Whether `usage_limits.max_uses` is demanded.
    max_uses_required: Option<bool>,
    /// How long an exception is honoured after the last confirmed contact.
    #[schemars(with = "Option<format::ASpan>")]
    lease_ttl: Option<String>,
    /// How old the snapshot may grow.
    #[schemars(with = "Option<format::ASpan>")]
    max_staleness: Option<String>,
    /// Which of the two ends an exception.
    stale_mode: Option<StaleModeName>,
    /// How far the clock may be off.
    #[schemars(with = "Option<format::ASpan>")]
    max_clock_skew: Option<String>,
    /// Whether a use must be durably recorded before the answer leaves.
    usage_delivery: Option<DeliveryName>,
    /// Whether bound facets must have been observed by the caller.
    observed_required: Option<bool>,
    /// How old a governed facet may be and still stand in for an observed one.
    #[schemars(with = "Option<format::ASpan>")]
    facet_max_age: Option<String>,
    /// How much is approved without a person; nothing, if each of the three is 0.
    auto_budget: Option<BudgetManifest>,
    /// Who decides as well.
    #[serde(default)]
    approval_stages: Vec<StageManifest>,
    /// How long a decision may take.
    #[schemars(with = "Option<format::ASpan>")]
    approval_deadline: Option<String>,
    /// How many times an exception may be renewed within the tier.
    max_renewals: Option<u32>,
    /// Most of any 365 days that a subject may be excepted from a control, in percent.
    max_coverage_percent: Option<u8>,
    /// Whether every vote names the required evidence as reviewed.
    review_evidence: Option<bool>,
    /// Whether whoever approves has signed in with a step-up, such as a second factor.
    step_up: Option<bool>,
    /// What becomes of an exception whose context has changed.
    on_context_change: Option<ChangeName>,
    /// How long an exception that is not used stays.
    #[schemars(with = "Option<format::ASpan>")]
    unused_after: Option<String>,
    /// Most questions within a day that an exception is needed for and does not reach.
    out_of_scope_limit: Option<u32>,
    /// Whether one that waits because a baseline gate fails goes on by itself once it passes.
    auto_resume: Option<bool>,
    /// Whether one may be asked for before its control fails for anybody.
    preemptive: Option<bool>,
}

impl TighteningManifest {
    fn parse(&self) -> Result<Tightening, Invalid> {
        let span = |text: &Option<String>, field: &str| {
            let span = text.as_deref().map(Span::parse).transpose();
            span.map_err(|e| e.under(field))
        };
        Ok(Tightening {
            max_duration: span(&self.max_duration, "max_duration")?,
            revalidation_interval: span(&self.revalidation_interval, "revalidation_interval")?,
            min_evidence: self.min_evidence,
            bound_facets: each("bound_facets", &self.bound_facets, |facet| {
                Facet::parse_bindable(facet)
            })?,
            any_allowed: self
                .any_allowed
                .as_ref()
                .map(|names| names.iter().map(|name| name.parse()).collect()),
            max_subjects: self.max_subjects,
            max_uses_required: self.max_uses_required,
            lease_ttl: span(&self.lease_ttl, "lease_ttl")?,
            max_staleness: span(&self.max_staleness, "max_staleness")?,
            stale_mode: self.stale_mode.map(StaleModeName::parse),
            max_clock_skew: span(&self.max_clock_skew, "max_clock_skew")?,
            usage_required: self.usage_delivery.map(DeliveryName::is_required),
            observed_required: self.observed_required,
            facet_max_age: span(&self.facet_max_age, "facet_max_age")?,
            auto: self.auto_budget.map(BudgetManifest::parse),
            stages: each("approval_stages", &self.approval_stages, |stage| {
                stage.parse()
            })?,
            deadline: span(&self.approval_deadline, "approval_deadline")?,
            max_renewals: self.max_renewals,
            max_coverage: self.max_coverage_percent,
            review_evidence: self.review_evidence,
            step_up: self.step_up,
            on_change: self.on_context_change.map(ChangeName::parse),
            unused_after: span(&self.unused_after, "unused_after")?,
            out_of_scope_limit: self.out_of_scope_limit,
            auto_resume: self.auto_resume,
            preemptive: self.preemptive,
        })
    }
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum DomainKind {
    Domain,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum WhenName {
    Deny,
    Allow,
}

impl DomainManifest {
    /// The domain it describes.
    pub fn parse(&self) -> Result<Domain, Invalid> {
        Ok(Domain {
            id: DomainId::parse(&self.id).map_err(|e| e.under("id"))?,
            parent: self
                .parent
                .as_deref()
                .map(DomainId::parse)
                .transpose()
                .map_err(|e| e.under("parent"))?,
            display_name: name(&self.display_name).map_err(|e| e.under("display_name"))?,
            owner: Principal::parse_human(&self.owner).map_err(|e| e.under("owner"))?,
            when_ungoverned: self.when_no_control.map(|when| match when {
                WhenName::Deny => WhenUngoverned::Deny,
                WhenName::Allow => WhenUngoverned::Allow,
            }),
            self_activation: self.incident_self_activation,
            vocabulary: self
                .vocabulary
                .iter()
                .map(|(word, deviation)| (word.as_str().into(), deviation.parse()))
                .collect(),
            approvers: self
                .approver_groups
                .iter()
                .map(|(role, group)| {
                    let role = role.parse();
                    let at = format!("approver_groups.{}", role.name());
                    let group = GroupId::parse(group).map_err(|e| e.under(&at))?;
                    Ok((role, group))
                })
                .collect::<Result<_, Invalid>>()?,
            tightens: self
                .tier_policy_overrides
                .iter()
                .map(|(tier, demand)| {
                    let tier = tier.parse();
                    let at = format!("tier_policy_overrides.{tier}");
                    Ok((tier, demand.parse().map_err(|e| e.under(&at))?))
                })
                .collect::<Result<_, Invalid>>()?,
        })
    }
}
