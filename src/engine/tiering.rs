//! The tier of an exception: computed from what is at stake, never chosen, and never lowered by
//! one more risk (governance §8, R39).

use crate::domain::{Sensitivity, Severity, Tier, TierInput};

/// More pairs of subject and action than this widen a scope.
const WIDE: u64 = 20;

/// What is at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an input of its own (governance §8)"
)]
pub struct Stakes {
    /// The highest risk tier of a subject.
    pub risk_tier: Tier,
    /// The most sensitive data of a subject.
    pub data_sensitivity: Sensitivity,
    /// It is to hold in production.
    pub production: bool,
    /// The severest control.
    pub severity: Severity,
    /// An action that writes, deletes, pays or administers.
    pub privileged: bool,
    /// A tool of somebody else.
    pub third_party: bool,
    /// The control is said to be wrong.
    pub false_positive: bool,
    /// Asked for before anything fails.
    pub preemptive: bool,
    /// Subjects times actions.
    pub width: u64,
    /// How many came before it.
    pub renewals: u32,
    /// How much of what may be excepted in a year is used up with it, in percent.
    pub coverage: u32,
}

/// The tier, and what it comes from: everything that asks for more than LOW.
pub fn tier(stakes: &Stakes) -> (Tier, Vec<TierInput>) {
    let Stakes {
        risk_tier,
        data_sensitivity,
        production,
        severity,
        privileged,
        third_party,
        false_positive,
        preemptive,
        width,
        renewals,
        coverage,
    } = *stakes;
    let mut inputs = Vec::new();
    let mut tier = Tier::Low;
    let mut at_least = |what: &str, value: String, least: Tier| {
        if least > Tier::Low {
            tier = tier.max(least);
            inputs.push(input(what, value, least));
        }
    };
    let when = |holds: bool, least| if holds { least } else { Tier::Low };
    at_least(
        "subject.risk_tier",
        risk_tier.to_string(),
        risk_tier.min(Tier::High),
    );
    let sensitive = match data_sensitivity {
        Sensitivity::Restricted => Tier::High,
        Sensitivity::Confidential => Tier::Moderate,
        Sensitivity::Internal | Sensitivity::Public => Tier::Low,
    };
    at_least(
        "subject.data_sensitivity",
        data_sensitivity.to_string(),
        sensitive,
    );
    at_least(
        "scope.environments",
        "production".into(),
        when(production, Tier::Moderate),
    );
    let severe = match severity {
        Severity::Critical => Tier::High,
        Severity::High => Tier::Moderate,
        Severity::Medium | Severity::Low => Tier::Low,
    };
    at_least("control.severity", severity.name().into(), severe);
    at_least(
        "scope.actions",
        "privileged".into(),
        when(privileged, Tier::Moderate),
    );
    at_least(
        "subject.tools",
        "third party".into(),
        when(third_party, Tier::Moderate),
    );
    at_least(
        "deviation_type",
        "FALSE_POSITIVE of a CRITICAL control".into(),
        when(false_positive && severity == Severity::Critical, Tier::High),
    );
    at_least(
        "preemptive",
        "true".into(),
        when(preemptive, Tier::Moderate),
    );
    // One tier more for each of these, on top of all others.
    for (what, value, holds) in [
        ("scope.width", width.to_string(), width > WIDE),
        ("renewals", renewals.to_string(), renewals >= 2),
        (
            "coverage",
            format!("{coverage}% of what may be"),
            coverage > 50,
        ),
    ] {
        if holds {
            tier = tier.higher();
            inputs.push(input(what, value, tier));
        }
    }
    (tier, inputs)
}

fn input(what: &str, value: String, tier: Tier) -> TierInput {
    TierInput {
        what: what.into(),
        value: value.into(),
        tier,
    }
}
