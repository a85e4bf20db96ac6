//! What a tier demands, as it is shown: the fields that a `TierPolicy` has.

use serde_json::{Value as Json, json};

use crate::domain::{Facet, OnChange, Span, StaleMode, Tier, TierRules};

use super::fingerprint::canonical;

/// The rules of a tier as canonical JSON.
pub fn write_rules(tier: Tier, rules: &TierRules) -> String {
    let span = |span: Span| span.to_string();
    let some = |span: Option<Span>| span.map(|span| span.to_string());
    let approval = &rules.approval;
    let stages = approval
        .stages
        .iter()
        .map(|stage| json!({"role": stage.role.name(), "quorum": stage.quorum.get()}));
    let auto = approval.auto.map(|auto| {
        json!({
            "per_owner": auto.per_owner,
            "per_subject": auto.per_subject,
            "per_control": auto.per_control,
        })
    });
    // In the plural, as scopes have them.
    let any = rules
        .any_allowed
        .iter()
        .map(|any| format!("{}s", any.name()));
    let record = json!({
        "tier": tier.name(),
        "max_duration": span(rules.max_duration),
        "revalidation_interval": some(rules.revalidation_interval),
        "min_evidence": rules.min_evidence,
        "bound_facets": rules.bound_facets.iter().copied().map(Facet::name).collect::<Json>(),
        "any_allowed": any.collect::<Json>(),
        "max_subjects": rules.max_subjects,
        "max_uses_required": rules.max_uses_required,
        "lease_ttl": span(rules.lease_ttl),
        "max_staleness": span(rules.max_staleness),
        "stale_mode": match rules.stale_mode {
            StaleMode::Strict => "STRICT",
            StaleMode::BestEffort => "BEST_EFFORT",
        },
        "max_clock_skew": span(rules.max_clock_skew),
        "usage_delivery": if rules.usage_required { "REQUIRED" } else { "BEST_EFFORT" },
        "observed_required": rules.observed_required,
        "facet_max_age": span(rules.facet_max_age),
        "approval_stages": stages.collect::<Json>(),
        "auto_budget": auto,
        "approval_deadline": some(approval.deadline),
        "max_renewals": approval.max_renewals,
        "max_coverage_percent": approval.max_coverage,
        "review_evidence": approval.review_evidence,
        "step_up": approval.step_up,
        "on_context_change": match approval.on_change {
            OnChange::Suspend => "SUSPEND",
            OnChange::Revoke => "REVOKE",
        },
        "unused_after": some(approval.unused_after),
        "out_of_scope_limit": approval.out_of_scope_limit,
        "auto_resume": approval.auto_resume,
        "preemptive": approval.preemptive,
    });
    let mut text = String::new();
    canonical(&record, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::manifest::TierPolicyManifest;

    /// What is shown is what would be applied to have it so.
    #[test]
    fn rules_read_back_as_the_policy_that_makes_them() {
        for tier in Tier::ALL {
            let mut rules = TierRules::standard(tier);
            rules.max_duration = Span::from_secs(3_661);
            rules.approval.step_up = true;
            rules.approval.max_coverage = 1;
            let shown: Json = serde_json::from_str(&write_rules(tier, &rules)).unwrap();
            let mut policy: Map<String, Json> = shown.as_object().unwrap().clone();
            policy.insert("apiVersion".into(), "exeat/v1".into());
            policy.insert("kind".into(), "TierPolicy".into());
            policy.retain(|_, value| !value.is_null());
            let policy: TierPolicyManifest = serde_json::from_value(Json::Object(policy)).unwrap();
            assert_eq!(policy.parse().unwrap(), (tier, rules));
        }
    }

    /// What was accepted before less was permitted is read, and holds for that.
    #[test]
    fn what_was_permitted_holds_for_what_is_permitted_now() {
        let text = r#"{"apiVersion": "exeat/v1", "kind": "TierPolicy", "tier": "INCIDENT", "max_duration": "8h"}"#;
        let policy: TierPolicyManifest = serde_json::from_str(text).unwrap();
        assert!(policy.parse().is_err());
        let (_, rules) = policy.kept().unwrap();
        assert_eq!(rules.max_duration, Span::from_hours(4));
        let text = r#"{"apiVersion": "exeat/v1", "kind": "TierPolicy", "tier": "HIGH", "any_allowed": ["resources"]}"#;
        let policy: TierPolicyManifest = serde_json::from_str(text).unwrap();
        assert!(policy.parse().is_err());
        let (_, rules) = policy.kept().unwrap();
        assert!(rules.any_allowed.is_empty());
    }
}
