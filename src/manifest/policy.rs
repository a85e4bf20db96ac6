//! `kind: TierPolicy` and `kind: Domain`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::{
    Dimension, Domain, DomainId, Facet, Invalid, Principal, Span, StaleMode, Tier, TierRules,
    WhenUngoverned,
};

use super::{
    control::{each, name},
    exception::DeviationName,
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
    max_duration: Option<String>,
    /// Longest time between revalidations.
    revalidation_interval: Option<String>,
    /// Fewest evidence items.
    min_evidence: Option<usize>,
    /// Facets every exception must be bound to.
    bound_facets: Option<Vec<String>>,
    /// Scope dimensions that may say ANY: actions, resources, environments, purposes.
    any_allowed: Option<Vec<AnyName>>,
    /// Most subjects one exception may name.
    max_subjects: Option<usize>,
    /// Whether `usage_limits.max_uses` is demanded.
    max_uses_required: Option<bool>,
    /// How long an exception is honoured after the last confirmed contact.
    lease_ttl: Option<String>,
    /// How old the snapshot may grow.
    max_staleness: Option<String>,
    /// Which of the two ends an exception.
    stale_mode: Option<StaleModeName>,
    /// How far the clock may be off.
    max_clock_skew: Option<String>,
    /// Whether a use must be durably recorded before the answer leaves.
    usage_delivery: Option<DeliveryName>,
    /// Whether bound facets must have been observed by the caller.
    observed_required: Option<bool>,
    /// How old a governed facet may be and still stand in for an observed one.
    facet_max_age: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum TierPolicyKind {
    TierPolicy,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
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

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum DeliveryName {
    BestEffort,
    Required,
}

impl TierPolicyManifest {
    /// The tier and its rules.
    pub fn parse(&self) -> Result<(Tier, TierRules), Invalid> {
        let tier = match self.tier {
            TierName::Low => Tier::Low,
            TierName::Moderate => Tier::Moderate,
            TierName::High => Tier::High,
            TierName::Incident => Tier::Incident,
        };
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
            rules.any_allowed = names
                .iter()
                .map(|name| match name {
                    AnyName::Actions => Dimension::Action,
                    AnyName::Resources => Dimension::Resource,
                    AnyName::Environments => Dimension::Environment,
                    AnyName::Purposes => Dimension::Purpose,
                })
                .collect();
        }
        rules.min_evidence = self.min_evidence.unwrap_or(rules.min_evidence);
        rules.max_subjects = self.max_subjects.unwrap_or(rules.max_subjects);
        rules.max_uses_required = self.max_uses_required.unwrap_or(rules.max_uses_required);
        rules.observed_required = self.observed_required.unwrap_or(rules.observed_required);
        match self.stale_mode {
            Some(StaleModeName::Strict) => rules.stale_mode = StaleMode::Strict,
            Some(StaleModeName::BestEffort) => rules.stale_mode = StaleMode::BestEffort,
            None => {}
        }
        match self.usage_delivery {
            Some(DeliveryName::Required) => rules.usage_required = true,
            Some(DeliveryName::BestEffort) => rules.usage_required = false,
            None => {}
        }
        Ok((tier, rules.checked(tier)?))
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
    pub(super) id: String,
    /// The domain it is part of.
    parent: Option<String>,
    /// What people call it.
    display_name: String,
    /// The person who answers for it: `user:NAME`.
    owner: String,
    /// What is answered when no control applies; left out, the parent decides, and DENY at the top.
    when_no_control: Option<WhenName>,
    /// Local words for kinds of deviation.
    #[serde(default)]
    vocabulary: BTreeMap<String, DeviationName>,
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
            vocabulary: self
                .vocabulary
                .iter()
                .map(|(word, deviation)| (word.as_str().into(), deviation.parse()))
                .collect(),
        })
    }
}
