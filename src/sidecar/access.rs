//! Where access is asked for, and what denied callers may show there.

use std::sync::Arc;

use crate::{
    domain::{ExceptionId, Question, Target, Timestamp},
    engine::Snapshot,
    runtime::publish::Published,
    wire::{
        access::{Denial, REQUESTS},
        approval::{Because, Shown, Vouched},
        jwt::Keys,
        signed::{Pin, Signer, random},
        sync::stamp,
        v1::{self, ExceptionEffect, Reason},
    },
};

/// Longest address, in bytes.
const LONGEST: usize = 2 << 10;

/// What the registry takes, and the key that says what was denied.
#[derive(Debug)]
pub(super) struct Access {
    signer: Signer,
    /// Under which address the registry takes requests, once it has said so; empty if it takes none.
    base: Published<String>,
}

impl Access {
    /// With a key of its own: a denial is shown within minutes, and not after a start.
    ///
    /// # Errors
    ///
    /// A system without random numbers.
    pub(super) fn new() -> Result<Self, String> {
        Ok(Self {
            signer: Signer::of_seed(&random()?)?,
            base: Published::default(),
        })
    }

    /// The key that the registry is to know.
    pub(super) fn key(&self) -> &Pin {
        self.signer.pin()
    }

    /// Takes in what the registry says; nothing, if it takes no requests.
    pub(super) fn learn(&self, base: &str) {
        let address = base.starts_with("https://") || base.starts_with("http://");
        let known = address && base.len() <= LONGEST;
        if !known && !base.is_empty() {
            tracing::warn!("the registry says under no address that it takes requests for access");
        }
        let base = if known { base } else { "" };
        self.base.publish(Arc::new(base.to_owned()));
    }

    /// Under which address the registry takes requests.
    pub(super) fn base(&self) -> Option<Arc<String>> {
        self.base.get().filter(|base| !base.is_empty())
    }

    /// How to ask for access after a denial of `question`, made at `time` for a subject that runs in
    /// `environment`; nothing where nobody can.
    pub(super) fn offer(
        &self,
        told: &v1::Decision,
        question: &Question,
        environment: &str,
        time: Timestamp,
    ) -> Option<v1::AccessRequest> {
        let base = self.base()?;
        let first = told.requestable_control_ids.first()?;
        let denial = Denial {
            decision: told.id.clone(),
            time,
            subject: question.subject.to_string(),
            action: question.action.clone(),
            kind: question.resource.kind.clone(),
            resource: question.resource.id.clone(),
            environment: environment.to_owned(),
            purpose: question.purpose.clone(),
            controls: told.requestable_control_ids.clone(),
        };
        let control = told.controls.iter().find(|of| of.control_id == *first);
        let title = control.map(|of| &of.title).filter(|text| !text.is_empty());
        Some(v1::AccessRequest {
            endpoint: format!("{base}{REQUESTS}"),
            expire_time: Some(stamp(denial.expire())),
            binding_token: denial.token(&self.signer),
            title: title.unwrap_or(first).clone(),
        })
    }
}

/// Why a decision is no though an approval was shown with the question. What is shown grants nothing:
/// the decision was made from what is in force here.
pub(super) fn because(
    shown: &Shown,
    told: &v1::Decision,
    snapshot: &Snapshot,
    keys: &Keys,
    now: Timestamp,
) -> Because {
    let vouched = match &shown.state {
        None => None,
        Some(state) => match Vouched::read(state, keys, now) {
            Ok(vouched) if vouched.id.as_str() == shown.id => Some(vouched),
            Ok(_) | Err(_) => return Because::ApprovalUnverifiable,
        },
    };
    match told.reasons().next() {
        Some(Reason::SnapshotStale | Reason::ClockSkew) => return Because::StaleSnapshot,
        Some(
            Reason::SubjectUnknown
            | Reason::SubjectLocked
            | Reason::SubjectRetired
            | Reason::BaselineBreach
            | Reason::HardMandatory
            | Reason::NoControl,
        ) => return Because::PolicyDenied,
        _ => {}
    }
    let mut fared = told.exceptions.iter();
    if let Some(result) = fared.find(|result| result.exception_id == shown.id) {
        return fared_so(result);
    }
    let id = ExceptionId::parse(&shown.id).ok();
    let taken = |id: &ExceptionId| snapshot.removed().revokes(&Target::Exception(id.clone()));
    if id.as_ref().is_some_and(taken) {
        return Because::ExceptionRevoked;
    }
    match (snapshot.exception(&shown.id), vouched) {
        (Some(known), _) if known.expire_time <= now => Because::ApprovalExpired,
        // It was not looked at: it is of somebody else, or from other controls.
        (Some(_), _) => Because::OutOfScope,
        (None, Some(vouched)) if vouched.expire <= now => Because::ApprovalExpired,
        (None, Some(vouched)) if vouched.revision > snapshot.revision() => Because::GrantPending,
        // It was in force when the registry vouched for it, and is no more.
        (None, Some(_)) => Because::ExceptionRevoked,
        (None, None) => Because::ApprovalUnverifiable,
    }
}

/// The same of an exception that the decision looked at.
fn fared_so(result: &v1::ExceptionResult) -> Because {
    match (result.effect(), result.reason()) {
        (ExceptionEffect::OutOfScope, _) => Because::OutOfScope,
        (_, Reason::ExcExpired) => Because::ApprovalExpired,
        (_, Reason::ExcRevoked) => Because::ExceptionRevoked,
        (_, Reason::ExcSuspended) => Because::ExceptionSuspended,
        (_, Reason::ExcContextChanged) => Because::ContextShifted,
        (_, Reason::ExcBudgetExhausted) => Because::BudgetExhausted,
        (_, Reason::ExcNotYetEffective) => Because::GrantPending,
        (
            _,
            Reason::ExcLeaseLapsed
            | Reason::ExcEvidenceUnavailable
            | Reason::SnapshotStale
            | Reason::ClockSkew,
        ) => Because::StaleSnapshot,
        _ => Because::PolicyDenied,
    }
}
