//! The nouns: what is governed, what is asked and what is answered.
//!
//! Plain values whose constructors refuse what may not exist. No IO, no clock, no async.

mod approval;
mod case;
mod control;
mod decision;
mod exception;
mod facet;
mod finding;
mod id;
mod incident;
mod invalid;
mod ledger;
mod notice;
mod object;
mod observed;
mod person;
mod place;
mod position;
mod proposal;
mod question;
mod removal;
mod scope;
mod subject;
mod tier;
mod tightening;
mod time;
mod trace;
mod usage;
mod value;

pub use approval::{ApprovalRules, ApproverRole, AutoBudget, OnChange, Stage};
pub use case::{Assurance, Ballot, Case, Granted, Request, Seat, Terms, TierInput, Vote, Window};
pub use control::{
    Control, ControlState, Enforcement, EvidenceNeed, FrameworkRef, OnError, Reach, Schedule,
    Severity, Vector, Verdict,
};
pub use decision::{
    ControlResult, Decision, Effect, ExceptionResult, NextAction, Outcome, Reason, Trouble,
    TroubleKind,
};
pub use exception::{Deviation, Evidence, Exception, ExceptionState, Justification, UsageLimits};
pub use facet::{Completeness, Facet, FacetState, Fingerprint};
pub use finding::{Disposition, Fault, Finding, Remedy, Run, remedy_within};
pub use id::{
    ClassId, ControlId, Digest, DomainId, ExceptionId, GroupId, IncidentId, Principal,
    PrincipalKind, SubjectId,
};
pub use incident::{CLOSE, Closure, Debt, Incident, LOOK_BACK};
pub use invalid::Invalid;
pub use ledger::{Hash, Leaf, Node, Salt};
pub use notice::{News, Notice};
pub use object::{Edit, Kind, Name, Transaction};
pub use observed::Observed;
pub use person::{Group, Member, Person};
pub use place::{Domain, WhenUngoverned};
pub use position::{Era, Head, LogId};
pub use proposal::{DECIDE_WITHIN, Proposal, ProposalState, Voice};
pub use question::{Question, Resource, SeenTool, Tool};
pub use removal::{Act, Cause, Removal, Target};
pub use scope::{Dimension, Pattern, Scope, Selector, Set};
pub use subject::{INSTANCE_LEASE, Instances, Lifecycle, Sensitivity, Subject, SubjectKind};
pub use tier::{StaleMode, Tier, TierRules};
pub use tightening::Tightening;
pub use time::{Evidenced, Lease, Now, Span, Timestamp};
pub use trace::Trace;
pub use usage::{Chained, Reached, SpoolId, Usage, UsageKind};
pub(crate) use value::lookup;
pub use value::{Ref, Value};
