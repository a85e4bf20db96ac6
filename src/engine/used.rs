//! How exceptions in force are used, as a report tells it (governance §9).

use std::collections::BTreeMap;

use crate::domain::{Ballot, Case, ExceptionId, Span};

use super::utilisation::Utilisation;

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
    /// How much of its scope is used.
    /// Nothing where there is too much of it to tell.
    pub utilisation: Option<Utilisation>,
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
    /// Answers that rest on one that nobody had to approve.
    pub by_nobody: u64,
    /// How much of their scopes is used.
    pub utilisation: Utilisation,
    /// Of how many that is not told.
    pub untold: usize,
    /// Those in force for a week or longer of whose scope little is used.
    pub wide: Vec<(ExceptionId, Utilisation)>,
}

impl Used {
    /// Takes in how one was used that has been in force for so long.
    pub(super) fn add(&mut self, case: &Case, counted: &Counted, lasted: Span) {
        let id = &case.id;
        let mut votes = case.votes.iter();
        // What is to be looked at afterwards spares nobody that.
        if case.debt.is_none() && !votes.any(|vote| vote.ballot == Ballot::Initial) {
            self.by_nobody = self.by_nobody.saturating_add(counted.uses);
        }
        match counted.utilisation {
            Some(of) => {
                self.utilisation = self.utilisation.and(of);
                if lasted >= UNUSED && counted.uses > 0 && of.is_low() {
                    self.wide.push((id.clone(), of));
                }
            }
            None => self.untold = self.untold.saturating_add(1),
        }
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
        }
        if lasted >= UNNEEDED && counted.not_needed > 0 {
            self.unneeded.push(id.clone());
        }
    }

    /// Puts ids in order.
    pub(super) fn sort(&mut self) {
        self.unused.sort();
        self.unneeded.sort();
        self.wide.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
}
