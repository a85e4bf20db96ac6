//! The registry's gRPC services: thin, one file a service.

mod asked;
mod exceptions;
mod explain;
mod fault;
mod fetch;
mod findings;
mod fleet;
mod incidents;
mod ledger;
mod notes;
mod notifications;
mod objects;
mod paging;
mod proof;
mod proposals;
mod queue;
mod report;
mod reports;
mod revocations;
mod sign_in;
mod sync;
mod usage;
mod watching;

pub(super) use exceptions::{Exceptions, open_seats};
pub(super) use explain::ExplanationCalls;
pub(super) use findings::FindingCalls;
pub(super) use fleet::{Fleet, token};
pub(super) use incidents::IncidentCalls;
pub(super) use ledger::LedgerCalls;
pub(super) use notifications::NotificationCalls;
pub(super) use objects::ObjectCalls;
pub(super) use proposals::ControlCalls;
pub(super) use reports::ReportCalls;
pub(super) use revocations::Revocations;
pub(super) use sign_in::{SessionCalls, SignInCalls};
pub(super) use sync::Sync;
pub(super) use usage::UsageCalls;

use asked::{opened, page, short};
