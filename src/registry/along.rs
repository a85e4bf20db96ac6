//! What a change takes along into a scope, or out of it.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    domain::{ClassId, Edit, Exception, Kind, Name},
    engine::{Change, Snapshot},
};

use super::{store::Stored, view::Objects};

/// What may come into a scope or leave it though it was not edited itself.
#[derive(Debug)]
pub(super) enum Along {
    /// Exceptions: their subject came, went or moved.
    These(BTreeSet<Name>),
    /// Whatever is not among these: a domain changed, and who belongs to one may be anybody.
    AllBut(BTreeSet<Name>),
}

impl Along {
    /// What goes along with `changes`, which made `edits`, from `before` to `after`.
    pub(super) fn of(
        edits: &[Edit],
        changes: &[Change],
        before: &Snapshot,
        after: &Snapshot,
    ) -> Self {
        let edited = || edits.iter().map(|edit| edit.name.clone());
        let mut names = BTreeSet::new();
        for change in changes {
            let id = match change {
                Change::PutSubject(subject) => subject.id.as_str(),
                Change::RemoveSubject(id) => id.as_str(),
                Change::PutDomain(_) | Change::RemoveDomain(_) => {
                    return Self::AllBut(edited().collect());
                }
                Change::PutTier(..)
                | Change::PutControl(_)
                | Change::PutException(_)
                | Change::PutPerson(_)
                | Change::PutGroup(_)
                | Change::PutIncident(_)
                | Change::PutProposal(_)
                | Change::RemovePerson(_)
                | Change::RemoveGroup(_)
                | Change::RemoveControl(_)
                | Change::RemoveException(_) => continue,
            };
            let belongs = |view: &Snapshot| {
                let subject = view.subject(id)?;
                Some((subject.domain.clone(), subject.class.clone()))
            };
            let (was, is) = (belongs(before), belongs(after));
            if was == is {
                continue;
            }
            let name = |of: &Arc<Exception>| Name::new(Kind::Exception, of.id.as_str());
            names.extend(after.exceptions_of(id).into_iter().map(name));
            // It may be a class, and of one.
            let classes = [was, is].into_iter().flatten().filter_map(|(_, of)| of);
            for class in classes.chain(ClassId::parse(id).ok()) {
                names.extend(after.exceptions_for_class(&class).map(name));
            }
        }
        for name in edited() {
            names.remove(&name);
        }
        Self::These(names)
    }

    /// Those of `objects`, as they are now.
    pub(super) fn among<'a>(
        &'a self,
        objects: &'a Objects,
    ) -> Box<dyn Iterator<Item = &'a Arc<Stored>> + 'a> {
        match self {
            Self::These(names) => Box::new(names.iter().filter_map(|name| objects.get(name))),
            Self::AllBut(names) => Box::new(objects.values().filter(|stored| {
                matches!(stored.name.kind, Kind::Exception | Kind::Subject)
                    && !names.contains(&stored.name)
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Digest, Domain, DomainId, ExceptionId, Principal, Selector, Subject, SubjectId},
        registry::{cohort::Cohort, scope::Scope},
        testing as build,
    };
    use proptest::{prelude::*, sample::select};

    const IDS: [&str; 4] = ["a", "b", "c", "d"];

    fn domain(id: &str, parent: Option<&str>) -> Change {
        Change::PutDomain(Domain {
            id: DomainId::parse(id).unwrap(),
            parent: parent.map(|id| DomainId::parse(id).unwrap()),
            display_name: id.into(),
            owner: Principal::parse("user:o").unwrap(),
            when_ungoverned: None,
            vocabulary: Vec::new(),
            approvers: Vec::new(),
            self_activation: None,
            tightens: Vec::new(),
        })
    }

    /// A change that is most often about what something else refers to.
    fn changes() -> impl Strategy<Value = Change> {
        let some = |ids: &'static [&'static str]| prop::option::of(select(ids));
        let subject = (select(&IDS[..]), some(&["x", "y", "z"]), some(&["a", "b"])).prop_map(
            |(id, domain, class)| {
                Change::PutSubject(Subject {
                    domain: domain.map(|id| DomainId::parse(id).unwrap()),
                    class: class.map(|id| ClassId::parse(id).unwrap()),
                    ..build::subject(id)
                })
            },
        );
        let exception =
            (select(&IDS[..]), select(&IDS[..]), any::<bool>()).prop_map(|(id, of, class)| {
                let mut exception: Exception = build::exception(id, &["CT-1"], of);
                if class {
                    let class = ClassId::parse(of).unwrap();
                    exception.scope.subjects = Selector::Classes([class].into());
                }
                Change::PutException(exception)
            });
        let gone =
            select(&IDS[..]).prop_map(|id| Change::RemoveSubject(SubjectId::parse(id).unwrap()));
        let over = select(&IDS[..])
            .prop_map(|id| Change::RemoveException(ExceptionId::parse(id).unwrap()));
        let place = (select(&["y", "z"][..]), some(&["x"])).prop_map(|(id, of)| domain(id, of));
        prop_oneof![4 => subject, 3 => exception, 1 => gone, 1 => over, 1 => place]
    }

    fn name(change: &Change) -> (Name, bool) {
        match change {
            Change::PutSubject(subject) => (Name::new(Kind::Subject, subject.id.as_str()), true),
            Change::RemoveSubject(id) => (Name::new(Kind::Subject, id.as_str()), false),
            Change::PutException(of) => (Name::new(Kind::Exception, of.id.as_str()), true),
            Change::RemoveException(id) => (Name::new(Kind::Exception, id.as_str()), false),
            Change::PutDomain(domain) => (Name::new(Kind::Domain, domain.id.as_str()), true),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn s9_what_a_change_takes_along_is_what_the_scope_holds_anew(
            steps in prop::collection::vec(prop::collection::vec(changes(), 1..3), 1..12),
        ) {
            let first = vec![
                Change::PutControl(build::control("CT-1", "false")),
                domain("x", None),
                domain("y", Some("x")),
                domain("z", None),
            ];
            let mut before = build::snapshot(first);
            let mut objects = Objects::default();
            let scopes = ["domain:x", "subject:a domain:z", "domain:y demand:domain:x", "*"];
            let mut cohorts: Vec<_> = scopes
                .iter()
                .map(|scope| Scope::parse(scope.split(' ')).unwrap())
                .map(|scope| (scope.clone(), Cohort::new(scope, &objects, &before)))
                .collect();
            for (revision, changes) in (2..).zip(steps) {
                let (mut names, mut kept) = (BTreeSet::new(), Vec::new());
                for change in changes {
                    if names.insert(name(&change).0) {
                        kept.push(change);
                    }
                }
                let digest = Digest::parse("sha256:test").unwrap();
                let Ok(after) = before.after(kept.clone(), digest, revision) else {
                    continue;
                };
                let edits: Vec<Edit> = kept
                    .iter()
                    .map(name)
                    .map(|(name, there)| Edit {
                        name,
                        revision,
                        manifest: there.then(|| revision.to_string().into()),
                    })
                    .collect();
                for edit in &edits {
                    let stored = Stored {
                        name: edit.name.clone(),
                        revision,
                        manifest: edit.manifest.clone(),
                        log_revision: revision,
                        time: build::noon(),
                        principal: "user:o".into(),
                    };
                    objects.put(edit.name.clone(), Arc::new(stored));
                }
                let along = Along::of(&edits, &kept, &before, &after);
                for (scope, cohort) in &mut cohorts {
                    for edit in cohort.concerned(&edits, &along, &objects, &after) {
                        cohort.take(&edit);
                    }
                    let anew = Cohort::new(scope.clone(), &objects, &after);
                    prop_assert_eq!(cohort.sum(), anew.sum(), "{}", scope);
                }
                before = after;
            }
        }
    }
}
