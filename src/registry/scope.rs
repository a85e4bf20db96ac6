//! Which objects a sidecar may hold: its grant says so, never the sidecar (S9).

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::{
    domain::{DomainId, Invalid, Selector, Subject, SubjectId},
    engine::Snapshot,
};

/// The subjects a sidecar stands next to. Controls, tiers and domains are for everybody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Scope {
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

impl Scope {
    /// Parses `*`, or items of the form `subject:ID` and `domain:ID`.
    ///
    /// # Errors
    ///
    /// The item that is neither.
    pub(super) fn parse(items: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Invalid> {
        let (mut subjects, mut domains) = (BTreeSet::new(), BTreeSet::new());
        for item in items {
            let item = item.as_ref();
            match item.split_once(':') {
                _ if item == "*" => return Ok(Self::All),
                Some(("subject", id)) => {
                    SubjectId::parse(id)?;
                    subjects.insert(id.into());
                }
                Some(("domain", id)) => {
                    DomainId::parse(id)?;
                    domains.insert(id.into());
                }
                Some(_) | None => {
                    return Err(Invalid::new(
                        "scope",
                        format!("`{item}` is no scope"),
                        "use `*`, `subject:ID` or `domain:ID`",
                    ));
                }
            }
        }
        Ok(Self::Some { subjects, domains })
    }

    /// Whether `subject` belongs to it.
    pub(super) fn holds_subject(&self, subject: &Subject, view: &Snapshot) -> bool {
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

    /// Whether an exception for `subjects` concerns any subject of it.
    pub(super) fn holds_selector(&self, subjects: &Selector, view: &Snapshot) -> bool {
        if *self == Self::All {
            return true;
        }
        match subjects {
            Selector::Ids(ids) => ids.iter().any(|id| match view.subject(id.as_str()) {
                Some(subject) => self.holds_subject(subject, view),
                None => self.names(id),
            }),
            Selector::Classes(classes) => view.subjects().any(|subject| {
                subject
                    .class
                    .as_ref()
                    .is_some_and(|class| classes.contains(class))
                    && self.holds_subject(subject, view)
            }),
        }
    }

    /// Whether it names the subject, known or not.
    pub(super) fn names(&self, id: &SubjectId) -> bool {
        match self {
            Self::All => true,
            Self::Some { subjects, .. } => subjects.contains(id.as_str()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Some { subjects, domains } => {
                let subjects = subjects.iter().map(|id| format!("subject:{id}"));
                let domains = domains.iter().map(|id| format!("domain:{id}"));
                let items: Vec<_> = subjects.chain(domains).collect();
                f.write_str(&items.join(" "))
            }
        }
    }
}
