//! What a domain demands beyond what a tier does: it may only tighten (M2).

use super::{ApprovalRules, Dimension, Facet, OnChange, Span, Stage, TierRules, approval::shorter};

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
    pub max_uses_required: bool,
    /// Who decides as well.
    pub stages: Vec<Stage>,
    /// How long a decision may take.
    pub deadline: Option<Span>,
    /// Most renewals within the tier.
    pub max_renewals: Option<u32>,
    /// Most of a year, in percent.
    pub max_coverage: Option<u8>,
    /// Every vote names the required evidence as reviewed.
    pub review_evidence: bool,
    /// Whoever approves has signed in with a step-up.
    pub step_up: bool,
    /// What becomes of one whose context has changed.
    pub on_change: Option<OnChange>,
    /// How long one that is not used stays.
    pub unused_after: Option<Span>,
    /// Most questions within a day that one is needed for and does not reach.
    pub out_of_scope_limit: Option<u32>,
    /// Whether one that waits because a baseline gate fails goes on by itself.
    pub auto_resume: Option<bool>,
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
            auto: self.approval.auto.filter(|_| stages.is_empty()),
            stages: stages.clone(),
            deadline: *deadline,
            max_renewals: max_renewals.unwrap_or(u32::MAX),
            max_coverage: max_coverage.unwrap_or(u8::MAX),
            review_evidence: *review_evidence,
            step_up: *step_up,
            on_change: on_change.unwrap_or(OnChange::Suspend),
            unused_after: *unused_after,
            out_of_scope_limit: out_of_scope_limit.unwrap_or(u32::MAX),
            auto_resume: auto_resume.unwrap_or(true),
        });
        Self {
            max_duration: max_duration
                .map_or(self.max_duration, |most| most.min(self.max_duration)),
            revalidation_interval: shorter(self.revalidation_interval, *revalidation_interval),
            min_evidence: min_evidence.map_or(self.min_evidence, |n| n.max(self.min_evidence)),
            bound_facets: bound,
            any_allowed: any,
            max_subjects: max_subjects.map_or(self.max_subjects, |n| n.min(self.max_subjects)),
            max_uses_required: self.max_uses_required || *max_uses_required,
            approval,
            ..self.clone()
        }
    }

    /// The first field on which `with` asks for less than these rules do; none if it only
    /// tightens.
    pub fn loosened_by(&self, with: &Tightening) -> Option<&'static str> {
        let approval = &self.approval;
        let longer = |theirs: Option<Span>, ours: Option<Span>| {
            theirs.zip(ours).is_some_and(|(theirs, ours)| theirs > ours)
        };
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
        ]
        .into_iter()
        .find_map(|(field, looser)| looser.then_some(field))
    }
}
