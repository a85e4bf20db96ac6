//! How exceptions in force are used, as a report tells it (governance §9).

use std::collections::BTreeMap;

use crate::domain::{ExceptionId, Span};

/// In force for so long without a use, an exception counts as unused.
const UNUSED: Span = Span::from_days(7);
/// In force for so long and never needed, it counts as unneeded.
const UNNEEDED: Span = Span::from_days(14);
/// How an exception was used since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Answers that rest on it.
    pub uses: u64,
    /// Answers that did not need it.
    pub not_needed: u64,
    /// Questions it did not reach, by the dimension.
    pub missed: BTreeMap<Box<str>, u64>,
}

/// How exceptions in force are used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// Answers that rest on one.
    pub uses: u64,
    /// Those in force for a week or longer that no answer rests on.
    pub unused: Vec<ExceptionId>,
    /// Those in force for two weeks or longer that stood ready, and no answer needed.
    pub unneeded: Vec<ExceptionId>,
    /// Questions they did not reach, by the dimension.
    pub missed: BTreeMap<Box<str>, u64>,
    /// For how many days they have been in force, all together.
    pub days: f64,
}

impl Used {
    /// Takes in how one was used that has been in force for so long.
    pub(super) fn add(&mut self, id: &ExceptionId, counted: &Counted, lasted: Span) {
        self.uses = self.uses.saturating_add(counted.uses);
        self.days += lasted.as_secs_f64() / 86_400.0;
        for (dimension, times) in &counted.missed {
            let all = self.missed.entry(dimension.clone()).or_default();
            *all = all.saturating_add(*times);
        }
        if counted.uses > 0 {
            return;
        }
        if lasted >= UNUSED {
            self.unused.push(id.clone());
            self.unused.sort();
        }
        if lasted >= UNNEEDED && counted.not_needed > 0 {
            self.unneeded.push(id.clone());
            self.unneeded.sort();
        }
    }
}
