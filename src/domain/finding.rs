//! A control that fails for a subject, and the runs that find it.

use super::{ControlId, ExceptionId, Principal, Severity, Span, SubjectId, Timestamp};

/// Why a control does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its condition holds.
    Fails,
    /// It cannot tell; that counts as failing (R3).
    CannotTell,
}

impl Fault {
    /// The name as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fails => "FAIL",
            Self::CannotTell => "ERROR",
        }
    }

    /// The fault called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Fails, Self::CannotTell]
            .into_iter()
            .find(|fault| fault.name() == name)
    }
}

/// A control that fails for a subject; one for the two of them (F3). An exception changes how it is
/// disposed of, never whether it is there (F1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The control.
    pub control: ControlId,
    /// Its revision when it was last looked at with another outcome.
    pub control_revision: u64,
    /// The subject.
    pub subject: SubjectId,
    /// Why it does not pass.
    pub fault: Fault,
    /// In words.
    pub message: Box<str>,
    /// How bad it is.
    pub severity: Severity,
    /// Who answers for the control.
    pub owner: Principal,
    /// Since when, without a break; kept while it is excepted.
    pub first_seen: Timestamp,
    /// Until when it is to be remedied; no exception starts it anew (F2).
    pub due: Timestamp,
    /// Since when it is so no more.
    pub satisfied: Option<Timestamp>,
    /// Whether an exception covered it when it was last looked at: what is covered no longer is
    /// told again (F4).
    pub covered: bool,
    /// When somebody was last told.
    pub told: Option<Timestamp>,
    /// What somebody does about it, if they said so.
    pub remedy: Option<Remedy>,
}

/// What somebody does about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// Who said so.
    pub by: Principal,
    /// What is done.
    pub plan: Box<str>,
    /// Until when; not after the finding is due.
    pub until: Timestamp,
    /// When it was said.
    pub time: Timestamp,
}

impl Finding {
    /// Its key: one for a control and a subject.
    pub fn key(control: &ControlId, subject: &SubjectId) -> Box<str> {
        format!("{control}/{subject}").into()
    }
}

/// How a finding is disposed of, beside what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Not at all.
    None,
    /// An exception was asked for.
    Requested(ExceptionId),
    /// An exception covers it.
    Approved(ExceptionId),
    /// An exception says that it is none: the control is wrong here.
    FalsePositive(ExceptionId),
    /// Somebody is about to remedy it.
    Remediating,
}

impl Disposition {
    /// The name as told.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Requested(_) => "DEVIATION_REQUESTED",
            Self::Approved(_) => "DEVIATION_APPROVED",
            Self::FalsePositive(_) => "FALSE_POSITIVE",
            Self::Remediating => "REMEDIATING",
        }
    }

    /// The exception it comes from.
    pub fn exception(&self) -> Option<&ExceptionId> {
        match self {
            Self::None | Self::Remediating => None,
            Self::Requested(id) | Self::Approved(id) | Self::FalsePositive(id) => Some(id),
        }
    }
}

/// How long a finding of a severity may stay.
pub fn remedy_within(severity: Severity) -> Span {
    match severity {
        Severity::Low => Span::from_days(90),
        Severity::Medium => Span::from_days(30),
        Severity::High => Span::from_days(14),
        Severity::Critical => Span::from_days(3),
    }
}

/// How one run of a control went. What passes is counted and not kept (R22).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The control.
    pub control: ControlId,
    /// Its revision.
    pub control_revision: u64,
    /// When it was due; nothing where somebody asked for it.
    pub due: Option<Timestamp>,
    /// When it was.
    pub time: Timestamp,
    /// What was known: the log's revision.
    pub revision: u64,
    /// How many subjects passed.
    pub passed: u64,
    /// How many failed.
    pub failed: u64,
    /// Of how many it could not tell.
    pub untold: u64,
    /// How many it does not apply to.
    pub elsewhere: u64,
    /// How long it took.
    pub took: Span,
    /// How many times it was due and was not run before.
    pub missed: u64,
}
