//! What stands in for an object that cannot be taken in: it grants nothing, and is never what it
//! was before (S13).

use std::sync::Arc;

use crate::domain::{Control, ExceptionId, SubjectId, Tier};

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
        | Change::PutPerson(_)
        | Change::PutGroup(_)
        | Change::PutIncident(_)
        | Change::PutProposal(_)
        | Change::RemovePerson(_)
        | Change::RemoveGroup(_)
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
                let rules = self.tier(tier).clone().honouring_nothing();
                Arc::make_mut(&mut self.demands).put(tier, rules);
            }
            Fallback::Control(control) => {
                let (id, owner) = (control.id.clone(), control.owner.clone());
                let bare = Control::unreadable(id, control.revision, owner);
                if self.put_control(*control).is_err() {
                    // Made of nothing that could be refused.
                    let _ = self.put_control(bare);
                }
            }
            Fallback::Subject(id) => self.remove_subject(id),
            Fallback::Exception(id) => self.drop_grant(&id),
            Fallback::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Act, Cause, Digest, Domain, DomainId, Now, Principal, Reason, Removal, Target},
        engine::{Removed, decide},
        testing::{control, exception, noon, question, snapshot, subject},
    };

    #[test]
    fn s13_a_control_that_cannot_be_compiled_cannot_tell_and_is_not_left_out() {
        let digest = Digest::parse("sha256:0").unwrap();
        let mut odd = control("CT-ODD", "true");
        let good = odd.clone();
        odd.failure_condition = "later()".into();
        for before in [vec![], vec![Change::PutControl(good)]] {
            let mut changes = vec![Change::PutSubject(subject("agent"))];
            changes.extend(before);
            let empty = Snapshot::empty(digest.clone());
            let (snapshot, _) = empty.taking(changes, digest.clone(), 1);
            let odd = vec![Change::PutControl(odd.clone())];
            let (snapshot, errors) = snapshot.taking(odd, digest.clone(), 2);
            assert_eq!(errors.len(), 1);
            // One of which not even its reach can be read is held against everything.
            let id = crate::domain::ControlId::parse("CT-WORSE").unwrap();
            let owner = Principal::parse("service:registry").unwrap();
            let worse = vec![Change::PutControl(Control::unreadable(id, 1, owner))];
            let (all, errors) = snapshot.taking(worse, digest.clone(), 3);
            assert_eq!(errors.len(), 0);
            let decision = decide(&question("agent"), &all, Now::exactly(noon()));
            assert!(decision.reasons.contains(&Reason::HardMandatory));
            let decision = decide(&question("agent"), &snapshot, Now::exactly(noon()));
            assert!(
                decision.reasons.contains(&Reason::ControlError),
                "{:?}",
                decision.reasons
            );
        }
    }

    #[test]
    fn s13_below_a_domain_that_cannot_be_read_nothing_is_honoured_once_a_domain_is_taken_back() {
        let owner = || Principal::parse("user:owner").unwrap();
        let id = |id: &str| DomainId::parse(id).unwrap();
        let domain = |name, parent: Option<&str>| Domain {
            id: id(name),
            parent: parent.map(id),
            display_name: name.into(),
            owner: owner(),
            when_ungoverned: None,
            vocabulary: vec![],
            approvers: vec![],
            self_activation: None,
            tightens: vec![],
        };
        let removed = |name| {
            let mut removed = Removed::default();
            let removal = Removal {
                sequence: 1,
                act: Act::Revoke,
                target: Target::Domain(id(name)),
                cause: Cause::Admin,
                note: "".into(),
                initiator: "user:a".into(),
                time: noon(),
            };
            removed.add(1, &removal);
            Arc::new(removed)
        };
        let mut agent = subject("agent");
        agent.domain = Some(id("team"));
        let world = snapshot(vec![
            Change::PutDomain(domain("org", None)),
            Change::PutDomain(domain("team", Some("org"))),
            Change::PutDomain(domain("other", None)),
            Change::PutControl(control("CT-A", "true")),
            Change::PutSubject(agent),
            Change::PutException(exception("EX-1", &["CT-A"], "agent")),
        ]);
        let allowed = |world: &Snapshot| {
            decide(&question("agent"), world, Now::exactly(noon())).outcome
                == crate::domain::Outcome::AllowByException
        };
        assert!(allowed(&world) && allowed(&world.removing(removed("other"))));
        assert!(!allowed(&world.removing(removed("org"))));
        // That the team is part of what was taken back is no longer known.
        let gone = vec![Change::RemoveDomain(id("team"))];
        let digest = Digest::parse("sha256:0").unwrap();
        let (unread, _) = world.taking(gone, digest, 2);
        assert!(!allowed(&unread.removing(removed("org"))));
    }
}
