//! Exceptions: time-bound, owner-bound, evidence-bound, scoped deviations from named controls.

use std::fmt;

use super::{
    ControlId, Digest, Dimension, DomainId, ExceptionId, Fingerprint, Invalid, Principal, Scope,
    Selector, Tier, TierRules, Timestamp, Trace,
};

/// The kind of deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// The risk is accepted for a while.
    Waiver,
    /// Something else lowers the risk; its conditions are checked at each use (E3).
    Mitigated,
    /// The control is wrong about this.
    FalsePositive,
    /// An incident needs it.
    IncidentOverride,
}

impl Deviation {
    /// The kind called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [
            Self::Waiver,
            Self::Mitigated,
            Self::FalsePositive,
            Self::IncidentOverride,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// The name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiver => "WAIVER",
            Self::Mitigated => "MITIGATED",
            Self::FalsePositive => "FALSE_POSITIVE",
            Self::IncidentOverride => "INCIDENT_OVERRIDE",
        }
    }
}

/// The stored state (governance §7.1); whether it is in force is derived, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceptionState {
    /// Being written.
    Draft,
    /// Waiting for approval.
    Pending,
    /// Granted.
    Approved,
    /// Granted, and stopped until revalidated.
    Suspended,
    /// Refused.
    Denied,
    /// Taken back by its requester before it was decided.
    Withdrawn,
    /// Not decided in time.
    Lapsed,
    /// Past its end.
    Expired,
    /// Taken back.
    Revoked,
    /// No longer needed.
    Closed,
}

impl ExceptionState {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Draft,
        Self::Pending,
        Self::Approved,
        Self::Suspended,
        Self::Denied,
        Self::Withdrawn,
        Self::Lapsed,
        Self::Expired,
        Self::Revoked,
        Self::Closed,
    ];

    /// The state called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing leads out of it (T16).
    pub fn is_final(self) -> bool {
        match self {
            Self::Draft | Self::Pending | Self::Approved | Self::Suspended => false,
            Self::Denied
            | Self::Withdrawn
            | Self::Lapsed
            | Self::Expired
            | Self::Revoked
            | Self::Closed => true,
        }
    }

    /// The name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Suspended => "SUSPENDED",
            Self::Denied => "DENIED",
            Self::Withdrawn => "WITHDRAWN",
            Self::Lapsed => "LAPSED",
            Self::Expired => "EXPIRED",
            Self::Revoked => "REVOKED",
            Self::Closed => "CLOSED",
        }
    }
}

impl fmt::Display for ExceptionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the deviation is asked for (R25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Justification {
    /// What the business needs it for; at least 40 characters.
    pub business_need: Box<str>,
    /// What may go wrong; at least 40 characters.
    pub risk_statement: Box<str>,
    /// How the need goes away; at least 20 characters.
    pub remediation_plan: Box<str>,
    /// Where it is tracked.
    pub ticket_ref: Box<str>,
}

impl Justification {
    /// Whether it says enough (E4).
    ///
    /// # Errors
    ///
    /// The field that does not.
    pub fn check(&self) -> Result<(), Invalid> {
        for (field, text, least) in [
            ("business_need", &self.business_need, 40),
            ("risk_statement", &self.risk_statement, 40),
            ("remediation_plan", &self.remediation_plan, 20),
            ("ticket_ref", &self.ticket_ref, 1),
        ] {
            if text.chars().count() < least {
                return Err(Invalid::new(
                    field,
                    format!("is shorter than {least} characters"),
                    "say it in full",
                ));
            }
        }
        Ok(())
    }
}

/// Something that was shown when the exception was approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Its id.
    pub id: Box<str>,
    /// The digest of its content.
    pub digest: Digest,
    /// Whether the exception stands and falls with it.
    pub required: bool,
    /// When it no longer proves anything.
    pub expire_time: Timestamp,
    /// When it was collected, if that is said.
    pub collect_time: Option<Timestamp>,
    /// Where it comes from, in people's words.
    pub source: Option<Box<str>>,
}

/// How often an exception may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct UsageLimits {
    /// In all.
    pub max_uses: Option<u64>,
    /// In any hour.
    pub max_uses_per_hour: Option<u32>,
}

/// A deviation from named controls, for a scope, until an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its id.
    pub id: ExceptionId,
    /// Grows by one with each change.
    pub revision: u64,
    /// The controls it deviates from: one to sixteen, by name (E2).
    pub controls: Vec<ControlId>,
    /// The kind of deviation.
    pub deviation: Deviation,
    /// Why; a snapshot leaves it out, since it is for people and not for decisions.
    pub justification: Option<Box<Justification>>,
    /// Where it holds.
    pub scope: Scope,
    /// What the subject's facets were when it was approved.
    pub bound: Fingerprint,
    /// What must hold at each use, in CEL.
    pub compensating_conditions: Vec<Box<str>>,
    /// How often it may be used.
    pub usage_limits: UsageLimits,
    /// From when it holds.
    pub effective_time: Timestamp,
    /// From when it no longer holds; the instant itself is outside (R14).
    pub expire_time: Timestamp,
    /// From when it does not hold unless revalidated.
    pub next_revalidation_time: Option<Timestamp>,
    /// When it last was.
    pub revalidated_time: Option<Timestamp>,
    /// Who answers for it: a person (E13).
    pub owner: Principal,
    /// Who asked for it.
    pub requester: Principal,
    /// The domain it was granted in.
    pub domain: Option<DomainId>,
    /// Its tier.
    pub tier: Tier,
    /// What was shown.
    pub evidence: Vec<Evidence>,
    /// The incident it belongs to.
    pub incident: Option<Box<str>>,
    /// The defect of the control it answers.
    pub defect: Option<Box<str>>,
    /// How many times it has been renewed.
    pub renewal_count: u32,
    /// Where the call belongs that approved it, if its caller traced it.
    pub approval: Option<Trace>,
    /// Its stored state.
    pub state: ExceptionState,
}

impl Exception {
    /// The exception, if it keeps the invariants E2–E9, E12, E13 and E15 of governance §6.3 under
    /// its tier's rules.
    pub fn checked(self, rules: &TierRules) -> Result<Self, Invalid> {
        let tier = self.tier;
        let refuse = |path: &str, what: String, fix: &str| Err(Invalid::new(path, what, fix));
        if self.controls.is_empty() || self.controls.len() > 16 {
            return refuse(
                "control_ids",
                format!("names {} controls", self.controls.len()),
                "name 1 to 16",
            );
        }
        match &self.justification {
            Some(justification) => justification
                .check()
                .map_err(|e| e.under("justification"))?,
            None => return refuse("justification", "is missing".into(), "say why"),
        }
        if self.compensating_conditions.len() > 16 || self.evidence.len() > 32 {
            return refuse(
                "compensating_conditions",
                "or evidence has too many items".into(),
                "use at most 16 conditions and 32 items of evidence",
            );
        }
        if self.expire_time <= self.effective_time {
            return refuse(
                "expire_time",
                "is not after effective_time".into(),
                "choose a later end",
            );
        }
        if self.expire_time - self.effective_time > rules.max_duration {
            return refuse(
                "expire_time",
                format!("is more than {} after effective_time", rules.max_duration),
                &format!("stay within tier {tier}'s maximum"),
            );
        }
        let looked = self.revalidated_time.unwrap_or(self.effective_time);
        let due = rules
            .revalidation_interval
            .map(|interval| looked + interval);
        match (self.next_revalidation_time, due) {
            (None, Some(due)) if due < self.expire_time => {
                return refuse(
                    "next_revalidation_time",
                    format!("is missing, and due before {due}"),
                    &format!("tier {tier} revalidates sooner"),
                );
            }
            (Some(next), due) => {
                let latest = due.map_or(self.expire_time, |due| self.expire_time.min(due));
                if next > latest {
                    return refuse(
                        "next_revalidation_time",
                        format!("is after {latest}"),
                        &format!("tier {tier} revalidates sooner"),
                    );
                }
            }
            (None, _) => {}
        }
        for facet in &rules.bound_facets {
            if self.bound.get(*facet).is_none() {
                return refuse(
                    "bound_fingerprints",
                    format!("lacks facet `{facet}`"),
                    &format!("tier {tier} binds it"),
                );
            }
        }
        for dimension in self.scope.any() {
            if !rules.any_allowed.contains(&dimension) {
                return refuse(
                    &format!("scope.{}", plural(dimension)),
                    "is ANY".into(),
                    &format!("tier {tier} wants it listed"),
                );
            }
        }
        if let Selector::Ids(ids) = &self.scope.subjects
            && ids.len() > rules.max_subjects
        {
            return refuse(
                "scope.subject_selector.ids",
                format!("names {} subjects", ids.len()),
                &format!("tier {tier} permits {}", rules.max_subjects),
            );
        }
        if self.evidence.len() < rules.min_evidence {
            return refuse(
                "evidence",
                format!("has {} items", self.evidence.len()),
                &format!("tier {tier} needs {}", rules.min_evidence),
            );
        }
        if rules.max_uses_required && self.usage_limits.max_uses.is_none() {
            return refuse(
                "usage_limits.max_uses",
                "is missing".into(),
                &format!("tier {tier} needs a limit"),
            );
        }
        if self
            .usage_limits
            .max_uses_per_hour
            .is_some_and(|most| most > 100_000)
        {
            return refuse(
                "usage_limits.max_uses_per_hour",
                "is more than 100,000".into(),
                "leave it out",
            );
        }
        if self.usage_limits.max_uses == Some(0) || self.usage_limits.max_uses_per_hour == Some(0) {
            return refuse(
                "usage_limits",
                "permits no use at all".into(),
                "use 1 or more, or leave the limit out",
            );
        }
        match self.deviation {
            Deviation::Mitigated if self.compensating_conditions.is_empty() => refuse(
                "compensating_conditions",
                "is empty".into(),
                "MITIGATED needs at least one",
            ),
            Deviation::FalsePositive if self.defect.is_none() => refuse(
                "defect_ref",
                "is missing".into(),
                "FALSE_POSITIVE names the control's defect",
            ),
            Deviation::IncidentOverride if self.incident.is_none() => refuse(
                "incident_ref",
                "is missing".into(),
                "INCIDENT_OVERRIDE names its incident",
            ),
            Deviation::Waiver
            | Deviation::Mitigated
            | Deviation::FalsePositive
            | Deviation::IncidentOverride => Ok(self),
        }
    }
}

fn plural(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Subject => "subject_selector",
        Dimension::Action => "actions",
        Dimension::Resource => "resources",
        Dimension::Environment => "environments",
        Dimension::Purpose => "purposes",
        Dimension::DataSensitivity => "data_sensitivity_max",
        Dimension::Condition => "match_condition",
    }
}
