//! Controls: rules with a failure condition, owner, schedule and evidence requirement.

use std::fmt;

use super::{ControlId, Digest, Facet, Invalid, Pattern, Principal, Set, Span, Trouble, Value};

/// How bad a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Little harm.
    Low,
    /// Some harm.
    Medium,
    /// Great harm.
    High,
    /// Harm that cannot be borne.
    Critical,
}

impl Severity {
    /// The name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

/// What a failure does to a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Enforcement {
    /// It is reported and blocks nothing.
    Advisory,
    /// It denies, unless an exception covers it.
    SoftMandatory,
    /// It denies, and nothing can waive it.
    HardMandatory,
}

impl Enforcement {
    /// The name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Advisory => "ADVISORY",
            Self::SoftMandatory => "SOFT_MANDATORY",
            Self::HardMandatory => "HARD_MANDATORY",
        }
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a control is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlState {
    /// Not yet in force.
    Draft,
    /// In force.
    Active,
    /// In force, and to be replaced.
    Deprecated,
    /// No longer in force.
    Retired,
}

impl ControlState {
    /// Whether questions are held against it.
    pub fn in_force(self) -> bool {
        match self {
            Self::Active | Self::Deprecated => true,
            Self::Draft | Self::Retired => false,
        }
    }
}

/// What an indeterminate result counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// A failure.
    Fail,
    /// A finding that blocks nothing; for advisory controls only (C8).
    FindingOnly,
}

/// When a control runs by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Five fields, as cron reads them.
    pub cron: Box<str>,
    /// The IANA time zone the fields are read in.
    pub time_zone: Box<str>,
    /// How much later a run may start, to spread load.
    pub jitter: Span,
}

/// What must be known, and how freshly, before a control may pass (R3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceNeed {
    /// Where the evidence comes from, in people's words.
    pub source: Box<str>,
    /// The facets the control reads.
    pub facets: Vec<Facet>,
    /// How old they may be; none means as old as they are.
    pub max_age: Option<Span>,
    /// Whether their source must have reported everything.
    pub complete: bool,
}

/// A reference into an embedded framework list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkRef {
    /// `CSF_2_0`, `AI_RMF_1_0` or `OWASP_NHI_2025`.
    pub framework: Box<str>,
    /// The id within it, such as `ID.RA-07`.
    pub id: Box<str>,
}

/// Which questions a control is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Actions by name.
    pub actions: Set<Box<str>>,
    /// Types of resources.
    pub resource_types: Set<Box<str>>,
    /// Resources by id.
    pub resources: Set<Pattern>,
    /// A condition over `subject`, in CEL; where it cannot tell, the control applies.
    pub condition: Option<Box<str>>,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            actions: Set::Any,
            resource_types: Set::Any,
            resources: Set::Any,
            condition: None,
        }
    }
}

/// A world and what the control must say about it (R19).
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    /// What the vector shows.
    pub name: Box<str>,
    /// `subject`, `request`, `resource`, `exception` and `now_time`, untyped.
    pub world: Value,
    /// Whether the control must pass.
    pub pass: bool,
}

/// A rule with a failure condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Its id.
    pub id: ControlId,
    /// Grows by one with each change.
    pub revision: u64,
    /// Over everything by which it decides, as it is written: two that decide otherwise differ. Nothing
    /// where nobody has its manifest.
    pub meaning: Option<Digest>,
    /// What it demands, in a line.
    pub title: Box<str>,
    /// Why.
    pub description: Box<str>,
    /// What to do when it fails.
    pub remediation: Box<str>,
    /// CEL; true means the control fails.
    pub failure_condition: Box<str>,
    /// Which questions it is held against.
    pub applies_to: Reach,
    /// Constants the condition reads as `params`: a map.
    pub params: Value,
    /// Whether it is held against questions as they are asked.
    pub runtime: bool,
    /// When it runs by itself, if it does.
    pub schedule: Option<Schedule>,
    /// Who answers for it.
    pub owner: Principal,
    /// In which role.
    pub owner_role: Box<str>,
    /// What must be known before it may pass.
    pub evidence: Vec<EvidenceNeed>,
    /// How bad a failure is.
    pub severity: Severity,
    /// What a failure does.
    pub enforcement: Enforcement,
    /// Whether its failure makes every exception of the subject ineffective (R41).
    pub baseline_gate: bool,
    /// What an indeterminate result counts as.
    pub on_error: OnError,
    /// What it answers to.
    pub frameworks: Vec<FrameworkRef>,
    /// Worlds it has been tried on.
    pub vectors: Vec<Vector>,
    /// Where it is in its life.
    pub state: ControlState,
    /// It stands in for a control that cannot be read here, and can never tell (S13).
    pub stands_in: bool,
}

impl Control {
    /// A control of the same reach and weight that can never tell: it stands in for one that
    /// cannot be compiled here (S13).
    #[must_use]
    pub fn indeterminate(&self) -> Self {
        Self {
            failure_condition: "true".into(),
            stands_in: true,
            applies_to: Reach {
                condition: None,
                ..self.applies_to.clone()
            },
            params: Value::map([]),
            runtime: true,
            schedule: None,
            vectors: Vec::new(),
            // What is in force needs vectors; nothing comes into force by standing in.
            state: match self.state {
                ControlState::Active => ControlState::Deprecated,
                state
                @ (ControlState::Draft | ControlState::Deprecated | ControlState::Retired) => state,
            },
            ..self.clone()
        }
    }

    /// A control of which only the id can be read: it can never tell, about any question (S13).
    pub fn unreadable(id: ControlId, revision: u64, owner: Principal) -> Self {
        Self {
            id,
            revision,
            meaning: None,
            title: "cannot be read by this sidecar".into(),
            description: Box::default(),
            remediation: "bring the sidecar up to the registry's version".into(),
            failure_condition: "true".into(),
            stands_in: true,
            applies_to: Reach::default(),
            params: Value::map([]),
            runtime: true,
            schedule: None,
            owner,
            owner_role: Box::default(),
            evidence: vec![EvidenceNeed {
                source: "none".into(),
                facets: Vec::new(),
                max_age: None,
                complete: false,
            }],
            severity: Severity::Critical,
            enforcement: Enforcement::HardMandatory,
            baseline_gate: false,
            on_error: OnError::Fail,
            frameworks: Vec::new(),
            vectors: Vec::new(),
            state: ControlState::Deprecated,
        }
    }

    /// The control, if it keeps the invariants C3, C5, C6–C8 and C10 of governance §6.1.
    pub fn checked(self) -> Result<Self, Invalid> {
        let refuse = |path: &str, what: &str, fix: &str| Err(Invalid::new(path, what, fix));
        if !self.runtime && self.schedule.is_none() {
            return refuse(
                "evaluation_modes",
                "names no mode",
                "list RUNTIME, SCHEDULED or both",
            );
        }
        if self.evidence.is_empty() {
            return refuse(
                "evidence_requirements",
                "is empty",
                "say which evidence the control rests on",
            );
        }
        if self.baseline_gate && self.enforcement != Enforcement::HardMandatory {
            return refuse(
                "baseline_gate",
                "is set on a control that can be waived",
                "set enforcement to HARD_MANDATORY",
            );
        }
        if self.on_error == OnError::FindingOnly && self.enforcement != Enforcement::Advisory {
            return refuse(
                "on_error",
                "is FINDING_ONLY on a control that blocks",
                "use FAIL, or make the control ADVISORY",
            );
        }
        if self.state == ControlState::Active {
            let has = |pass| self.vectors.iter().any(|vector| vector.pass == pass);
            if !has(true) || !has(false) {
                return refuse(
                    "test_vectors",
                    "lacks a passing or a failing world",
                    "add at least one of each, or set state to DRAFT",
                );
            }
        }
        Ok(self)
    }
}

/// What a control says about a subject and a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The failure condition does not hold.
    Pass,
    /// The failure condition holds.
    Fail,
    /// It cannot be told; counts as failed.
    Indeterminate(Trouble),
}
