//! Everything that was ever taken back, as a set that only grows.
//!
//! Merging is union, and of freezes and thaws of one subject the later counts: a removal that
//! comes early, twice or out of order does no harm, and one that came is never forgotten (S4).

use std::collections::{HashMap, HashSet};

use crate::domain::{
    Act, ControlId, DomainId, Exception, ExceptionId, Principal, Removal, Selector, Subject,
    SubjectId, Target, Value,
};

use super::{
    catalogue,
    planted::{Bug, planted},
};

/// The removals known, by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    exceptions: HashSet<ExceptionId>,
    subjects: HashSet<SubjectId>,
    credentials: HashSet<Box<str>>,
    controls: HashSet<ControlId>,
    domains: HashSet<DomainId>,
    principals: HashSet<Principal>,
    /// Epoch and sequence of the last freeze or thaw, and whether it froze.
    frozen: HashMap<SubjectId, ((u64, u64), bool)>,
    count: usize,
}

impl Removed {
    /// Adds one removal that was numbered in `epoch`; tells whether anything changed.
    pub fn add(&mut self, epoch: u64, removal: &Removal) -> bool {
        let changed = match (removal.act, &removal.target) {
            (Act::Revoke, target) => match target {
                Target::Exception(id) => self.exceptions.insert(id.clone()),
                Target::Subject(id) => self.subjects.insert(id.clone()),
                Target::Credential(id) => self.credentials.insert(id.clone()),
                Target::Control(id) => self.controls.insert(id.clone()),
                Target::Domain(id) => self.domains.insert(id.clone()),
                Target::Principal(id) => self.principals.insert(id.clone()),
            },
            (Act::Freeze | Act::Thaw, Target::Subject(id)) => {
                let place = self.frozen.entry(id.clone()).or_default();
                let number = (epoch, removal.sequence);
                let newer = number > place.0 || planted(Bug::ThawByReplay);
                if newer {
                    *place = (number, removal.act == Act::Freeze);
                }
                newer
            }
            // Nothing but a subject can be frozen; what cannot be does nothing.
            (
                Act::Freeze | Act::Thaw,
                Target::Exception(_)
                | Target::Credential(_)
                | Target::Control(_)
                | Target::Domain(_)
                | Target::Principal(_),
            ) => false,
        };
        self.count = self.count.saturating_add(usize::from(changed));
        changed
    }

    /// Whether nothing was ever removed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether every question of the subject is denied until it is thawed.
    pub fn freezes(&self, subject: &SubjectId) -> bool {
        self.frozen.get(subject).is_some_and(|(_, frozen)| *frozen)
    }

    /// Whether every question of the subject is denied until it, or the class it is an instance
    /// of, is thawed.
    pub fn locks(&self, subject: &Subject) -> bool {
        let frozen = |id: &str| self.frozen.get(id).is_some_and(|(_, frozen)| *frozen);
        !self.frozen.is_empty()
            && (frozen(subject.id.as_str())
                || subject
                    .class
                    .as_ref()
                    .is_some_and(|class| frozen(class.as_str())))
    }

    /// Whether every question of the subject is denied for good: it, or its class, was revoked.
    pub fn retires(&self, subject: &Subject) -> bool {
        !self.subjects.is_empty()
            && (self.subjects.contains(&subject.id)
                || subject
                    .class
                    .as_ref()
                    .is_some_and(|class| self.subjects.contains(class.as_str())))
    }

    /// Whether `target` itself was revoked.
    pub fn revokes(&self, target: &Target) -> bool {
        match target {
            Target::Exception(id) => self.exceptions.contains(id),
            Target::Subject(id) => self.subjects.contains(id),
            Target::Credential(id) => self.credentials.contains(id),
            Target::Control(id) => self.controls.contains(id),
            Target::Domain(id) => self.domains.contains(id),
            Target::Principal(id) => self.principals.contains(id),
        }
    }

    /// Whether any domain was revoked.
    pub(super) fn has_domains(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Whether `exception` may no longer be honoured for `subject`; `domains` are those that the
    /// two belong to, with all they are part of.
    pub(super) fn covers<'a>(
        &self,
        exception: &Exception,
        subject: &Subject,
        mut domains: impl Iterator<Item = &'a DomainId> + 'a,
    ) -> bool {
        if self.is_empty() {
            return false;
        }
        let named = match &exception.scope.subjects {
            Selector::Ids(ids) => {
                !self.subjects.is_empty() && ids.iter().any(|id| self.subjects.contains(id))
            }
            Selector::Classes(_) => false,
        };
        self.exceptions.contains(&exception.id)
            || named
            || self.subjects.contains(&subject.id)
            || exception
                .controls
                .iter()
                .any(|id| self.controls.contains(id))
            || self.principals.contains(&exception.owner)
            || self.principals.contains(&exception.requester)
            || (!self.domains.is_empty() && domains.any(|id| self.domains.contains(id)))
            || (!self.credentials.is_empty() && self.holds_revoked_credential(subject))
    }

    fn holds_revoked_credential(&self, subject: &Subject) -> bool {
        has_credential(subject, |id| self.credentials.contains(id))
    }
}

/// Whether a subject has a credential of an id that fits.
pub fn has_credential(subject: &Subject, fits: impl Fn(&str) -> bool) -> bool {
    let Value::Record(fields) = &subject.attributes else {
        return false;
    };
    let list = catalogue::SUBJECT
        .place("credentials")
        .and_then(|at| fields.get(at)?.as_ref());
    let Some(Value::List(credentials)) = list else {
        return false;
    };
    let place = catalogue::CREDENTIAL.place("id");
    credentials.iter().any(|credential| {
        let Value::Record(fields) = credential else {
            return false;
        };
        place
            .and_then(|at| fields.get(at)?.as_ref()?.as_str())
            .is_some_and(&fits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Cause, Timestamp};

    #[test]
    fn the_later_epoch_has_the_last_word_about_a_freeze() {
        let subject = SubjectId::parse("agent").unwrap();
        let about = |act, sequence| Removal {
            sequence,
            act,
            target: Target::Subject(subject.clone()),
            cause: Cause::Admin,
            note: "".into(),
            initiator: "user:a".into(),
            time: Timestamp::from_micros(0),
        };
        let mut removed = Removed::default();
        assert!(removed.add(1, &about(Act::Freeze, 4)));
        assert!(removed.add(1, &about(Act::Thaw, 9)));
        assert!(!removed.add(1, &about(Act::Freeze, 4)), "an old one again");
        assert!(!removed.freezes(&subject));
        // After a restore the numbers begin lower.
        assert!(removed.add(2, &about(Act::Freeze, 7)));
        assert!(removed.freezes(&subject));
        assert!(!removed.add(1, &about(Act::Thaw, 9)));
        assert!(removed.freezes(&subject), "a thaw of an epoch that is over");
    }
}
