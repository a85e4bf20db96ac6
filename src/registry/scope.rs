//! Which objects a sidecar may hold: its grant says so, never the sidecar (S9).

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::{
    domain::{DomainId, Invalid, Selector, Subject, SubjectId},
    engine::Snapshot,
};

/// Before what a sidecar does not hold, and may fetch once it is asked about it.
const ON_DEMAND: &str = "demand:";

/// What a sidecar may hold. Controls, tiers and domains are for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scope {
    /// The subjects it stands next to: it holds them always.
    pub held: Reach,
    /// Subjects and resources that it may fetch.
    pub demand: Reach,
}

/// A set of subjects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reach {
    /// All of them.
    All,
    /// Those named, and those of the domains named.
    Some {
        /// By id.
        subjects: BTreeSet<Arc<str>>,
        /// By domain, with the domains below.
        domains: BTreeSet<Arc<str>>,
    },
}

impl Default for Reach {
    fn default() -> Self {
        Self::Some {
            subjects: BTreeSet::new(),
            domains: BTreeSet::new(),
        }
    }
}

impl Reach {
    /// Whether it reaches nothing.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `subject` belongs to it.
    pub(super) fn holds(&self, subject: &Subject, view: &Snapshot) -> bool {
        match self {
            Self::All => true,
            Self::Some { subjects, domains } => {
                subjects.contains(subject.id.as_str())
                    || subject.domain.as_ref().is_some_and(|id| {
                        domains.contains(id.as_str())
                            || view
                                .domains_above(id)
                                .any(|above| domains.contains(above.id.as_str()))
                    })
            }
        }
    }

    /// Whether it names the subject, known or not.
    fn names(&self, id: &SubjectId) -> bool {
        match self {
            Self::All => true,
            Self::Some { subjects, .. } => subjects.contains(id.as_str()),
        }
    }

    fn add(&mut self, item: &str) -> Result<(), Invalid> {
        if item == "*" {
            *self = Self::All;
            return Ok(());
        }
        let (kind, id) = item.split_once(':').unwrap_or_default();
        match kind {
            "subject" => drop(SubjectId::parse(id)?),
            "domain" => drop(DomainId::parse(id)?),
            _ => {
                return Err(Invalid::new(
                    "scope",
                    format!("`{item}` is no scope"),
                    "use `*`, `subject:ID` or `domain:ID`, each also after `demand:`",
                ));
            }
        }
        if let Self::Some { subjects, domains } = self {
            match kind {
                "subject" => subjects.insert(id.into()),
                _ => domains.insert(id.into()),
            };
        }
        Ok(())
    }

    fn items(&self) -> Vec<String> {
        match self {
            Self::All => vec!["*".to_owned()],
            Self::Some { subjects, domains } => {
                let subjects = subjects.iter().map(|id| format!("subject:{id}"));
                subjects
                    .chain(domains.iter().map(|id| format!("domain:{id}")))
                    .collect()
            }
        }
    }
}

impl Scope {
    /// Everything, always.
    pub(super) fn all() -> Self {
        Self {
            held: Reach::All,
            demand: Reach::default(),
        }
    }

    /// Parses `*`, or items of the form `subject:ID` and `domain:ID`; after `demand:` they say what
    /// may be fetched.
    ///
    /// # Errors
    ///
    /// The item that is none of these.
    pub(super) fn parse(items: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Invalid> {
        let mut scope = Self::default();
        for item in items {
            match item.as_ref().strip_prefix(ON_DEMAND) {
                Some(item) => scope.demand.add(item)?,
                None => scope.held.add(item.as_ref())?,
            }
        }
        if scope.held == Reach::All {
            scope.demand = Reach::default();
        }
        Ok(scope)
    }

    /// Whether it reaches nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.demand.is_empty()
    }

    /// Whether a sidecar with it holds everything.
    pub(super) fn is_all(&self) -> bool {
        self.held == Reach::All
    }

    /// Whether an exception for `subjects` concerns any subject that is held. Exceptions for classes
    /// concern their instances as well, which are known only once they come.
    pub(super) fn holds_selector(&self, subjects: &Selector, view: &Snapshot) -> bool {
        if self.is_all() {
            return true;
        }
        match subjects {
            Selector::Ids(ids) => ids.iter().any(|id| match view.subject(id.as_str()) {
                Some(subject) => self.held.holds(subject, view),
                None => self.held.names(id),
            }),
            Selector::Classes(classes) => {
                let held = |subject: &Subject| self.may_know(subject, view);
                let itself = |id: &str| view.subject(id).is_some_and(|class| held(class));
                classes.iter().any(|class| itself(class.as_str()))
                    || view.subjects().any(|subject| {
                        subject
                            .class
                            .as_ref()
                            .is_some_and(|class| classes.contains(class))
                            && held(subject)
                    })
            }
        }
    }

    /// Whether a sidecar with it may know `subject`, at once or on demand.
    pub(super) fn may_know(&self, subject: &Subject, view: &Snapshot) -> bool {
        self.held.holds(subject, view) || self.demand.holds(subject, view)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let demand = self.demand.items().into_iter();
        let demand = demand.map(|item| format!("{ON_DEMAND}{item}"));
        let items: Vec<_> = self.held.items().into_iter().chain(demand).collect();
        f.write_str(&items.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_as_it_is_written() {
        for text in [
            "*",
            "subject:a domain:b",
            "domain:b demand:*",
            "demand:subject:c",
        ] {
            let scope = Scope::parse(text.split(' ')).unwrap();
            assert_eq!(scope.to_string(), text);
        }
        let scope = Scope::parse(["*", "demand:domain:b"]).unwrap();
        assert_eq!(scope, Scope::all(), "who holds everything fetches nothing");
        for text in ["x", "demand:", "demand:demand:*", "subject:", "domain:a b"] {
            assert!(Scope::parse([text]).is_err(), "{text}");
        }
    }
}
