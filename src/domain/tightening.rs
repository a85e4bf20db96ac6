//! What a domain demands beyond what a tier does: it may only tighten (M2).

use super::{
    ApprovalRules, AutoBudget, Dimension, Facet, OnChange, Span, Stage, StaleMode, TierRules,
    approval::shorter,
};

/// What a domain demands beyond what stands above it; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tightening {
    /// Longest window.
    pub max_duration: Option<Span>,
    /// Longest time between revalidations.
    pub revalidation_interval: Option<Span>,
    /// Fewest evidence items.
    pub min_evidence: Option<usize>,
    /// Facets that are bound as well.
    pub bound_facets: Vec<Facet>,
    /// Dimensions that may still say `ANY`.
    pub any_allowed: Option<Vec<Dimension>>,
    /// Most subjects of one exception.
    pub max_subjects: Option<usize>,
    /// `max_uses` is demanded.
    pub max_uses_required: Option<bool>,
    /// How long an exception is honoured after the last confirmed contact.
    pub lease_ttl: Option<Span>,
    /// How old the whole snapshot may grow.
    pub max_staleness: Option<Span>,
    /// Which of the two ends an exception.
    pub stale_mode: Option<StaleMode>,
    /// How far the clock may be off.
    pub max_clock_skew: Option<Span>,
    /// A use is durably recorded before the answer leaves.
    pub usage_required: Option<bool>,
    /// Bound facets are observed by the caller.
    pub observed_required: Option<bool>,
    /// How old a governed facet may be and still stand in for an observed one.
    pub facet_max_age: Option<Span>,
    /// How much is approved without a person.
    pub auto: Option<AutoBudget>,
    /// Who decides as well.
    pub stages: Vec<Stage>,
    /// How long a decision may take.
    pub deadline: Option<Span>,
    /// Most renewals within the tier.
    pub max_renewals: Option<u32>,
    /// Most of a year, in percent.
    pub max_coverage: Option<u8>,
    /// Every vote names the required evidence as reviewed.
    pub review_evidence: Option<bool>,
    /// Whoever approves has signed in with a step-up.
    pub step_up: Option<bool>,
    /// What becomes of one whose context has changed.
    pub on_change: Option<OnChange>,
    /// How long one that is not used stays.
    pub unused_after: Option<Span>,
    /// Most questions within a day that one is needed for and does not reach.
    pub out_of_scope_limit: Option<u32>,
    /// Whether one that waits because a baseline gate fails goes on by itself.
    pub auto_resume: Option<bool>,
    /// Whether one may be asked for before its control fails.
    pub preemptive: Option<bool>,
}

impl TierRules {
    /// The rules with what a domain demands as well: on every field the stricter of the two.
    #[must_use]
    pub fn tightened(&self, with: &Tightening) -> Self {
        let Tightening {
            max_duration,
            revalidation_interval,
            min_evidence,
            bound_facets,
            any_allowed,
            max_subjects,
            max_uses_required,
            lease_ttl,
            max_staleness,
            stale_mode,
            max_clock_skew,
            usage_required,
            observed_required,
            facet_max_age,
            auto,
            stages,
            deadline,
            max_renewals,
            max_coverage,
            review_evidence,
            step_up,
            on_change,
            unused_after,
            out_of_scope_limit,
            auto_resume,
            preemptive,
        } = with;
        let mut bound = self.bound_facets.clone();
        bound.extend(
            bound_facets
                .iter()
                .filter(|facet| !self.bound_facets.contains(facet)),
        );
        let mut any = self.any_allowed.clone();
        if let Some(allowed) = any_allowed {
            any.retain(|dimension| allowed.contains(dimension));
        }
        let approval = self.approval.tightened(&ApprovalRules {
            // Whom a person decides for, nobody approves automatically.
            auto: auto.or(self.approval.auto).filter(|_| stages.is_empty()),
            stages: stages.clone(),
            deadline: *deadline,
            max_renewals: max_renewals.unwrap_or(u32::MAX),
            max_coverage: max_coverage.unwrap_or(u8::MAX),
            review_evidence: *review_evidence == Some(true),
            step_up: *step_up == Some(true),
            on_change: on_change.unwrap_or(OnChange::Suspend),
            unused_after: *unused_after,
            out_of_scope_limit: out_of_scope_limit.unwrap_or(u32::MAX),
            auto_resume: auto_resume.unwrap_or(true),
            preemptive: preemptive.unwrap_or(true),
        });
        let least = |ours: Span, theirs: &Option<Span>| theirs.map_or(ours, |most| most.min(ours));
        let strict = *stale_mode == Some(StaleMode::Strict);
        let stale_mode = if strict {
            StaleMode::Strict
        } else {
            self.stale_mode
        };
        let max_staleness = least(self.max_staleness, max_staleness);
        // Never longer than it was, whichever of the two ended it. While the other goes on to, it says
        // nothing.
        let most = match stale_mode {
            StaleMode::Strict => self.lease_ttl.min(self.lease()),
            StaleMode::BestEffort => self.lease_ttl,
        };
        Self {
            max_duration: least(self.max_duration, max_duration),
            revalidation_interval: shorter(self.revalidation_interval, *revalidation_interval),
            min_evidence: min_evidence.map_or(self.min_evidence, |n| n.max(self.min_evidence)),
            bound_facets: bound,
            any_allowed: any,
            max_subjects: max_subjects.map_or(self.max_subjects, |n| n.min(self.max_subjects)),
            max_uses_required: self.max_uses_required || *max_uses_required == Some(true),
            lease_ttl: least(most, lease_ttl),
            max_staleness,
            stale_mode,
            max_clock_skew: least(self.max_clock_skew, max_clock_skew),
            usage_required: self.usage_required || *usage_required == Some(true),
            observed_required: self.observed_required || *observed_required == Some(true),
            facet_max_age: least(self.facet_max_age, facet_max_age),
            approval,
        }
    }

    /// The first field on which `with` asks for less than these rules do; none if it only
    /// tightens.
    pub fn loosened_by(&self, with: &Tightening) -> Option<&'static str> {
        let approval = &self.approval;
        let longer = |theirs: Option<Span>, ours: Option<Span>| {
            theirs.zip(ours).is_some_and(|(theirs, ours)| theirs > ours)
        };
        let given_up = |theirs: Option<bool>, ours: bool| theirs == Some(false) && ours;
        let role = |stage: &Stage| {
            let known = approval
                .stages
                .iter()
                .find(|known| known.role == stage.role);
            known.is_some_and(|known| known.quorum > stage.quorum)
        };
        [
            (
                "max_duration",
                longer(with.max_duration, Some(self.max_duration)),
            ),
            (
                "revalidation_interval",
                longer(with.revalidation_interval, self.revalidation_interval),
            ),
            (
                "min_evidence",
                with.min_evidence.is_some_and(|n| n < self.min_evidence),
            ),
            (
                "any_allowed",
                with.any_allowed
                    .iter()
                    .flatten()
                    .any(|any| !self.any_allowed.contains(any)),
            ),
            (
                "max_subjects",
                with.max_subjects.is_some_and(|n| n > self.max_subjects),
            ),
            (
                "max_uses_required",
                given_up(with.max_uses_required, self.max_uses_required),
            ),
            (
                "usage_delivery",
                given_up(with.usage_required, self.usage_required),
            ),
            (
                "observed_required",
                given_up(with.observed_required, self.observed_required),
            ),
            (
                "review_evidence",
                given_up(with.review_evidence, approval.review_evidence),
            ),
            ("step_up", given_up(with.step_up, approval.step_up)),
            ("lease_ttl", longer(with.lease_ttl, Some(self.lease_ttl))),
            (
                "max_staleness",
                longer(with.max_staleness, Some(self.max_staleness)),
            ),
            (
                "stale_mode",
                with.stale_mode == Some(StaleMode::BestEffort)
                    && self.stale_mode == StaleMode::Strict,
            ),
            (
                "max_clock_skew",
                longer(with.max_clock_skew, Some(self.max_clock_skew)),
            ),
            (
                "facet_max_age",
                longer(with.facet_max_age, Some(self.facet_max_age)),
            ),
            (
                "auto_budget",
                with.auto
                    .is_some_and(|budget| approval.auto.is_none_or(|ours| budget.exceeds(ours))),
            ),
            ("approval_stages", with.stages.iter().any(role)),
            (
                "approval_deadline",
                longer(with.deadline, approval.deadline),
            ),
            (
                "max_renewals",
                with.max_renewals.is_some_and(|n| n > approval.max_renewals),
            ),
            (
                "max_coverage_percent",
                with.max_coverage.is_some_and(|n| n > approval.max_coverage),
            ),
            (
                "on_context_change",
                with.on_change
                    .is_some_and(|change| change < approval.on_change),
            ),
            (
                "unused_after",
                longer(with.unused_after, approval.unused_after),
            ),
            (
                "out_of_scope_limit",
                with.out_of_scope_limit
                    .is_some_and(|n| n > approval.out_of_scope_limit),
            ),
            (
                "auto_resume",
                with.auto_resume == Some(true) && !approval.auto_resume,
            ),
            (
                "preemptive",
                with.preemptive == Some(true) && !approval.preemptive,
            ),
        ]
        .into_iter()
        .find_map(|(field, looser)| looser.then_some(field))
    }
}
