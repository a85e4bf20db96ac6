//! The registry's gRPC services: thin, one file a service.

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
mod proof;
mod proposals;
mod report;
mod reports;
mod revocations;
mod sign_in;
mod sync;
mod usage;
mod watching;

pub(super) use exceptions::Exceptions;
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

use crate::{
    domain::Invalid,
    manifest::is_secret,
    wire::{Fault, Received},
};

use super::authn::Caller;

/// Longest text that somebody says, in bytes.
const TEXT: usize = 4 << 10;

/// A text that is no longer than texts may be, and holds no secret.
fn short(field: &str, text: String) -> Result<Box<str>, Fault> {
    if text.len() > TEXT {
        let invalid = Invalid::new(field, "is longer than 4 KiB", "say it shorter");
        return Err(Fault::Invalid(invalid));
    }
    if is_secret(&text) {
        let fix = "name where it is kept, and revoke it if it is one";
        let invalid = Invalid::new(field, "looks like a secret", fix);
        return Err(Fault::Invalid(invalid));
    }
    Ok(text.into())
}

/// Largest page.
const PAGE: u32 = 1_000;

/// A request with who sent it.
fn opened<M>(request: tonic::Request<Received<M>>) -> Result<(Caller, M), Fault> {
    let (_, mut extensions, received) = request.into_parts();
    let caller = extensions
        .remove::<Caller>()
        .ok_or_else(|| Fault::Unauthenticated("nobody vouches for the caller".into()))?;
    Ok((caller, received.message?))
}

/// How many items a page has.
fn page(size: u32) -> usize {
    let size = if size == 0 { 100 } else { size.min(PAGE) };
    usize::try_from(size).unwrap_or(100)
}
