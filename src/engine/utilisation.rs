//! How much of what an exception grants is used: what grants far more is to be narrowed (governance
//! §9).

use std::collections::BTreeSet;

use crate::domain::{Request, Set, SubjectId};

use super::{Snapshot, parties::scoped};

/// Less than one in so many is too little.
const ONE_IN: usize = 5;

/// How many of the cells of a scope are used. A cell is a subject, an action and a resource as the
/// scope lists them; whatever it takes any of counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utilisation {
    /// Those that are.
    pub used: usize,
    /// All of them.
    pub granted: usize,
}

impl Utilisation {
    /// Whether the scope is much wider than what is used.
    pub fn is_low(self) -> bool {
        self.used.saturating_mul(ONE_IN) < self.granted
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            used: self.used.saturating_add(other.used),
            granted: self.granted.saturating_add(other.granted),
        }
    }
}

/// Who did what, and on which resource.
pub type Touched<'a> = (&'a SubjectId, &'a str, &'a str);

/// What of a request's scope answers rest on.
pub fn utilisation(request: &Request, snapshot: &Snapshot, uses: &[Touched<'_>]) -> Utilisation {
    let scope = &request.scope;
    let mut cells = BTreeSet::new();
    for (subject, action, resource) in uses {
        let action = place(&scope.actions, |known| **known == **action);
        let resource = place(&scope.resources, |pattern| pattern.matches(resource));
        if let (Some(action), Some(resource)) = (action, resource) {
            cells.insert((subject, action, resource));
        }
    }
    let granted = [
        scoped(snapshot, request).count(),
        size(&scope.actions),
        size(&scope.resources),
    ];
    Utilisation {
        used: cells.len(),
        // Whoever used it may be gone.
        granted: granted
            .into_iter()
            .fold(1, usize::saturating_mul)
            .max(cells.len()),
    }
}

/// Which of its items a set holds something by.
fn place<T>(set: &Set<T>, test: impl FnMut(&T) -> bool) -> Option<usize> {
    match set {
        Set::Any => Some(0),
        Set::Of(items) => items.iter().position(test),
    }
}

fn size<T>(set: &Set<T>) -> usize {
    match set {
        Set::Any => 1,
        Set::Of(items) => items.len(),
    }
}
