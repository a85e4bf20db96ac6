//! What stands in for an object that cannot be taken in: it grants nothing, and is never what it
//! was before (S13).

use std::sync::Arc;

use crate::domain::{Control, ExceptionId, Span, SubjectId, Tier};

use super::{change::Change, snapshot::Snapshot};

/// What stands in for an object that cannot be taken.
pub(super) enum Fallback {
    /// No exception of the tier is honoured.
    Tier(Tier),
    /// A control that can never tell, in the same place.
    Control(Box<Control>),
    /// A subject nobody knows.
    Subject(SubjectId),
    /// No exception.
    Exception(ExceptionId),
    Nothing,
}

pub(super) fn fallback(change: &Change) -> Fallback {
    match change {
        Change::PutTier(tier, _) => Fallback::Tier(*tier),
        Change::PutControl(control) => Fallback::Control(Box::new(control.indeterminate())),
        Change::PutSubject(subject) => Fallback::Subject(subject.id.clone()),
        Change::PutException(exception) => Fallback::Exception(exception.id.clone()),
        Change::PutDomain(_)
        | Change::RemoveDomain(_)
        | Change::RemoveControl(_)
        | Change::RemoveSubject(_)
        | Change::RemoveException(_) => Fallback::Nothing,
    }
}

impl Snapshot {
    /// Puts what stands in for an object in its place.
    pub(super) fn fall_back(&mut self, fallback: Fallback) {
        match fallback {
            Fallback::Tier(tier) => {
                if let Some(rules) = Arc::make_mut(&mut self.tiers).get_mut(tier as usize) {
                    rules.lease_ttl = Span::ZERO;
                    rules.max_staleness = Span::ZERO;
                }
            }
            Fallback::Control(control) => {
                let (id, owner) = (control.id.clone(), control.owner.clone());
                let bare = Control::unreadable(id, control.revision, owner);
                if self.put_control(*control).is_err() {
                    // Made of nothing that could be refused, but for one control too many; then
                    // the one before it goes on, which is no weaker than none.
                    let _ = self.put_control(bare);
                }
            }
            Fallback::Subject(id) => self.remove_subject(id),
            Fallback::Exception(id) => self.drop_grant(&id),
            Fallback::Nothing => {}
        }
    }
}
