//! Where access is asked for, and what denied callers may show there.

use std::sync::Arc;

use crate::{
    domain::{Question, Target, Timestamp},
    engine::Snapshot,
    runtime::publish::Published,
    wire::{
        access::{Denial, REQUESTS, exact},
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

    /// Takes in what the registry has signed; nothing, if it takes no requests.
    pub(super) fn learn(&self, base: &str) {
        let known = base.starts_with("https://") && base.len() <= LONGEST;
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
    /// `environment`; nothing where nobody can, and where no scope holds for what was asked alone. Only
    /// where `proof` is wanted is it made: it takes a signature.
    pub(super) fn offer(
        &self,
        told: &v1::Decision,
        question: &Question,
        environment: &str,
        (time, proof): (Timestamp, bool),
    ) -> Option<v1::AccessRequest> {
        let base = self.base()?;
        let first = told.requestable_control_ids.first()?;
        let purpose = question.purpose.as_deref().unwrap_or_default();
        let (action, resource) = (&question.action, &question.resource.id);
        let named = [
            question.subject.as_str(),
            action,
            resource,
            environment,
            purpose,
        ];
        if named.iter().any(|name| exact(name).is_none()) {
            return None;
        }
        let denial = Denial {
            decision: told.id.clone(),
            time,
            subject: question.subject.to_string(),
            action: question.action.clone(),
            kind: question.resource.kind.clone(),
            resource: question.resource.id.clone(),
            environment: environment.to_owned(),
            purpose: purpose.to_owned(),
            controls: told.requestable_control_ids.clone(),
        };
        let control = told.controls.iter().find(|of| of.control_id == *first);
        let title = control.map(|of| &of.title).filter(|text| !text.is_empty());
        Some(v1::AccessRequest {
            endpoint: format!("{base}{REQUESTS}"),
            expire_time: Some(stamp(denial.expire())),
            binding_token: if proof {
                denial.token(&self.signer)
            } else {
                String::new()
            },
            title: title.unwrap_or(first).clone(),
        })
    }
}

/// What an approval is shown with.
pub(super) struct Asked<'a> {
    /// Who is asked about.
    pub(super) subject: &'a str,
    /// The answer.
    pub(super) told: &'a v1::Decision,
    /// What is known by now.
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
}

/// Why a decision is no though an approval was shown with the question. What is shown grants nothing:
/// the decision was made from what is in force here. Of what was not weighed only the registry's own
/// word is spoken about: whoever guesses an id learns nothing.
pub(super) fn because(shown: &Shown, asked: &Asked<'_>, keys: &Keys) -> Because {
    let Asked {
        subject,
        told,
        snapshot,
        now,
    } = *asked;
    let vouched = match &shown.state {
        None => None,
        Some(state) => match Vouched::read(state, keys, now) {
            Ok(vouched) if vouched.id.as_str() == shown.id => Some(vouched),
            Ok(_) | Err(_) => return Because::ApprovalUnverifiable,
        },
    };
    let mut fared = told.exceptions.iter();
    if let Some(result) = fared.find(|result| result.exception_id == shown.id) {
        return fared_so(result);
    }
    let Some(vouched) = vouched else {
        return Because::ApprovalUnverifiable;
    };
    // Something has yet to come that the answer would rest on.
    if told.next_action() == v1::NextAction::Retry {
        return Because::StaleSnapshot;
    }
    if told.next_action() == v1::NextAction::None {
        return Because::PolicyDenied;
    }
    if vouched.subject.is_some_and(|of| of != subject) {
        return Because::OutOfScope;
    }
    let taken = Target::Exception(vouched.id.clone());
    if snapshot.removed().revokes(&taken) {
        return Because::ExceptionRevoked;
    }
    if vouched.expire <= now {
        return Because::ApprovalExpired;
    }
    let decided_from = told.snapshot.as_ref().map_or(0, |at| at.revision);
    match snapshot.exception(&shown.id) {
        // It has come since the answer was made.
        Some(_) if snapshot.revision() > decided_from => Because::GrantPending,
        // It was not looked at: it is from other controls.
        Some(_) => Because::OutOfScope,
        None if vouched.revision > snapshot.revision() => Because::GrantPending,
        // It was in force when the registry vouched for it, and is no more.
        None => Because::ExceptionRevoked,
    }
}

/// The same of an exception that the decision weighed.
fn fared_so(result: &v1::ExceptionResult) -> Because {
    match result.effect() {
        // It covers what it is for, and something else is the matter.
        ExceptionEffect::OutOfScope | ExceptionEffect::NotNeeded | ExceptionEffect::ReliedOn => {
            Because::OutOfScope
        }
        ExceptionEffect::Ineffective | ExceptionEffect::Unspecified => match result.reason() {
            Reason::ExcExpired => Because::ApprovalExpired,
            Reason::ExcRevoked => Because::ExceptionRevoked,
            Reason::ExcSuspended => Because::ExceptionSuspended,
            Reason::ExcContextChanged => Because::ContextShifted,
            Reason::ExcBudgetExhausted => Because::BudgetExhausted,
            Reason::ExcNotYetEffective => Because::GrantPending,
            Reason::ExcLeaseLapsed
            | Reason::ExcEvidenceUnavailable
            | Reason::SnapshotStale
            | Reason::ClockSkew => Because::StaleSnapshot,
            _ => Because::PolicyDenied,
        },
    }
}
