//! What is recorded of exceptions, and what the records prove.
//!
//! Whoever receives a record does not believe that it was in scope: that is told again from what
//! was recorded and the exception as it was granted (E7).

use sha2::{Digest as _, Sha256};

use crate::domain::{
    Chained, ClassId, ControlId, Decision, Digest, Dimension, Effect, Exception, Now, Pattern,
    Question, Scope, Selector, Sensitivity, Set, SubjectId, Timestamp, Trace, Usage, UsageKind,
};

use super::Snapshot;

/// What a decision is recorded with, beside what it was made from.
#[derive(Clone, Debug)]
pub struct Recorded<'a> {
    /// The decision's id.
    pub id: &'a str,
    /// What was known of the present.
    pub now: Now,
    /// The digest of the question as it was sent.
    pub question: &'a Digest,
    /// The id its caller gave it.
    pub request: Option<&'a str>,
    /// Which use it is since the sidecar's start.
    pub ordinal: u64,
    /// Where the call belongs.
    pub trace: Option<Trace>,
}

/// What became of each exception that was considered.
pub fn usages(
    decision: &Decision,
    question: &Question,
    snapshot: &Snapshot,
    recorded: &Recorded<'_>,
) -> Vec<Usage> {
    let Some(subject) = snapshot.subject(question.subject.as_str()) else {
        return Vec::new();
    };
    let mut usages = Vec::new();
    for result in &decision.exceptions {
        let kind = kind(result.effect);
        let exception = &result.exception;
        let needed = decision.failed.iter().filter(|failed| failed.blocks());
        let controls: Vec<_> = needed
            .map(|failed| &failed.control.id)
            .filter(|id| exception.controls.contains(id))
            .collect();
        let stood = kind == UsageKind::ReliedOn || kind == UsageKind::NotNeeded;
        // Where another exception covers the control, nobody tried this one.
        let covered = |id: &&ControlId| {
            decision.exceptions.iter().any(|other| {
                let ready = [Effect::ReliedOn, Effect::NotNeeded].contains(&other.effect);
                ready && other.exception.controls.contains(id)
            })
        };
        if !stood && controls.iter().all(covered) {
            continue;
        }
        let relied = kind == UsageKind::ReliedOn;
        usages.push(Usage {
            time: recorded.now.latest,
            decision: recorded.id.into(),
            kind,
            count: 1,
            exception: exception.id.clone(),
            revision: exception.revision,
            tier: exception.tier,
            controls: controls.into_iter().cloned().collect(),
            dimension: match result.effect {
                Effect::OutOfScope(dimension) => Some(dimension),
                _ => None,
            },
            reason: match kind {
                UsageKind::Ineffective => result.effect.reason().map_or("", |why| why.name()),
                UsageKind::ReliedOn
                | UsageKind::NotNeeded
                | UsageKind::OutOfScope
                | UsageKind::Withdrawn => "",
            }
            .into(),
            subject: question.subject.clone(),
            class: subject.class.clone(),
            action: question.action.as_str().into(),
            resource_type: question.resource.kind.as_str().into(),
            resource: question.resource.id.as_str().into(),
            environment: subject.environment.clone(),
            purpose: question.purpose.as_deref().map(Into::into),
            sensitivity: subject.data_sensitivity,
            fingerprint: subject.combined.clone(),
            question: recorded.question.clone(),
            request: recorded.request.map(Into::into),
            snapshot_revision: snapshot.revision(),
            snapshot: snapshot.digest().clone(),
            uncertainty: recorded.now.uncertainty(),
            lease: recorded.now.lease,
            ordinal: if relied { recorded.ordinal } else { 0 },
            trace: recorded.trace,
            withdraws: None,
        });
    }
    usages
}

/// The digest of a scope: of two exceptions with one they reach the same.
pub fn scope_digest(scope: &Scope) -> Digest {
    let mut hash = Sha256::new().chain_update(b"exeat/scope/v1\n");
    // Each list with its length, so that nothing can stand for something else.
    let mut list = |tag: u8, items: &mut dyn ExactSizeIterator<Item = &str>| {
        hash.update([tag]);
        hash.update((items.len() as u64).to_be_bytes());
        for item in items {
            hash.update((item.len() as u64).to_be_bytes());
            hash.update(item);
        }
    };
    match &scope.subjects {
        Selector::Ids(ids) => list(1, &mut ids.iter().map(SubjectId::as_str)),
        Selector::Classes(classes) => list(2, &mut classes.iter().map(ClassId::as_str)),
    }
    let texts = [
        (3, &scope.actions),
        (4, &scope.environments),
        (5, &scope.purposes),
    ];
    for (tag, set) in texts {
        match set {
            Set::Any => list(0, &mut std::iter::empty()),
            Set::Of(items) => list(tag, &mut items.iter().map(AsRef::as_ref)),
        }
    }
    match &scope.resources {
        Set::Any => list(0, &mut std::iter::empty()),
        Set::Of(items) => list(6, &mut items.iter().map(Pattern::as_str)),
    }
    let most = scope.data_sensitivity_max.map(Sensitivity::name);
    list(7, &mut most.into_iter());
    list(8, &mut scope.match_condition.as_deref().into_iter());
    Digest::of_sha256(&hash.finalize().into())
}

/// What an effect is recorded as.
pub fn kind(effect: Effect) -> UsageKind {
    match effect {
        Effect::ReliedOn => UsageKind::ReliedOn,
        Effect::NotNeeded => UsageKind::NotNeeded,
        Effect::OutOfScope(_) => UsageKind::OutOfScope,
        Effect::NotInForce(_)
        | Effect::Scheduled
        | Effect::Expired
        | Effect::RevalidationOverdue
        | Effect::EvidenceExpired
        | Effect::Revoked
        | Effect::LeaseLapsed
        | Effect::ClockSkew
        | Effect::ContextChanged(_)
        | Effect::BaselineBreach
        | Effect::BudgetExhausted
        | Effect::EvidenceUnavailable
        | Effect::CompensationFailed(_) => UsageKind::Ineffective,
    }
}

/// What comes after `before` with one more record.
#[must_use]
pub fn chained(before: Chained, record: &[u8]) -> Chained {
    Chained {
        sequence: before.sequence.saturating_add(1),
        digest: Sha256::new()
            .chain_update(b"exeat/usage/v1\n")
            .chain_update(before.digest)
            .chain_update(record)
            .finalize()
            .into(),
    }
}

/// Records that came, held against what had come before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How many of them had come before.
    pub known: usize,
    /// Records before them that never came.
    pub gap: Option<(u64, u64)>,
    /// What comes after the last of them.
    pub end: Chained,
}

/// Why records are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// They do not follow on what had come: two write under one name, or something was changed.
    Chain,
}

/// Holds records that follow on `after` against what had come by `known`.
///
/// # Errors
///
/// Records of another chain than the ones that had come.
pub fn accept(known: Chained, after: Chained, records: &[Vec<u8>]) -> Result<Accepted, Forked> {
    let mut at = after;
    let mut before = 0_usize;
    for record in records {
        if at.sequence == known.sequence && at.digest != known.digest {
            return Err(Forked::Chain);
        }
        if at.sequence < known.sequence {
            before = before.saturating_add(1);
        }
        at = chained(at, record);
    }
    if at.sequence == known.sequence && at.digest != known.digest {
        return Err(Forked::Chain);
    }
    let missing = after.sequence > known.sequence;
    Ok(Accepted {
        known: before,
        gap: missing.then(|| (known.sequence.saturating_add(1), after.sequence)),
        end: if at.sequence > known.sequence {
            at
        } else {
            known
        },
    })
}

/// How an exception was used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Answers that rest on it, ever.
    pub uses: u64,
    /// Answers that rest on it, in thirty days.
    pub relied_on: u64,
    /// Questions it did not reach, in a day.
    pub out_of_scope: u64,
    /// When it was last relied on.
    pub last: Option<Timestamp>,
    /// Records that never came, of sidecars where it may have been used: how many such gaps.
    pub gaps: u64,
    /// When the last of these gaps was seen.
    pub gap: Option<Timestamp>,
    /// When it was last relied on where, or when, it does not hold.
    pub beyond: Option<Timestamp>,
    /// Whether its controls held whenever it was asked about since it was last relied on, as far as
    /// that is recorded: once at least.
    pub unneeded: bool,
}

/// What a record of a use turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Within the scope, as far as a record can tell it: every dimension matches.
    Inside,
    /// Every dimension matches, and the scope has a condition of its own besides, which a record
    /// cannot tell: it reads what callers said.
    Unproven,
    /// Beyond the scope, although it was relied on.
    Outside,
    /// Before the exception held, or after its end.
    Untimely,
    /// Of an exception, or a revision of one, that never was.
    Unknown,
    /// Of a subject that the sidecar does not stand for: it counts for nothing.
    Foreign,
    /// It was relied on, and the answer was not given after all.
    Withdrawn,
    /// There is nothing to tell: it was not relied on.
    Unused,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 8] = [
        Self::Inside,
        Self::Unproven,
        Self::Outside,
        Self::Untimely,
        Self::Unknown,
        Self::Foreign,
        Self::Unused,
        Self::Withdrawn,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inside => "INSIDE",
            Self::Unproven => "UNPROVEN",
            Self::Outside => "OUTSIDE",
            Self::Untimely => "UNTIMELY",
            Self::Unknown => "UNKNOWN",
            Self::Foreign => "FOREIGN",
            Self::Withdrawn => "WITHDRAWN",
            Self::Unused => "UNUSED",
        }
    }
}

/// What `usage` turns out to be, by the exception as it was at the revision that was relied on.
pub fn standing(usage: &Usage, exception: Option<&Exception>) -> Standing {
    match usage.kind {
        UsageKind::ReliedOn => {}
        UsageKind::OutOfScope => {
            // Told beyond a scope that it is within: nothing comes of it.
            let missed = exception.map(|exception| exception.scope.missed(&usage.reached()));
            let told = usage.dimension;
            let so = match missed {
                Some(None) => told == Some(Dimension::Condition),
                Some(missed) => missed == told,
                None => false,
            };
            return if so {
                Standing::Unused
            } else {
                Standing::Unknown
            };
        }
        UsageKind::NotNeeded | UsageKind::Ineffective | UsageKind::Withdrawn => {
            return Standing::Unused;
        }
    }
    let Some(exception) = exception else {
        return Standing::Unknown;
    };
    if usage.time < exception.effective_time || usage.time >= exception.expire_time {
        return Standing::Untimely;
    }
    let covers = |id| exception.controls.contains(id);
    if usage.controls.is_empty() || !usage.controls.iter().all(covers) {
        return Standing::Outside;
    }
    let scope = &exception.scope;
    match scope.missed(&usage.reached()) {
        Some(_) => Standing::Outside,
        None if scope.match_condition.is_some() => Standing::Unproven,
        None => Standing::Inside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_depends_on_every_record_and_their_order() {
        let of = |records: &[&[u8]]| {
            records
                .iter()
                .fold(Chained::default(), |at, record| chained(at, record))
        };
        let ab = of(&[b"a", b"b"]);
        assert_eq!(ab.sequence, 2);
        for other in [of(&[b"b", b"a"]), of(&[b"ab"]), of(&[b"a", b"b", b""])] {
            assert_ne!(ab.digest, other.digest);
        }
    }
}
