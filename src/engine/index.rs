//! Controls by action, exceptions by subject and control: what a decision looks up.

use std::{collections::HashMap, hash::BuildHasher, sync::Arc};

use foldhash::fast::FixedState;

use crate::domain::{
    Control, ControlId, EvidenceNeed, Exception, ExceptionId, Facet, Set, Span, Subject, Value,
};

use super::condition::{Condition, Names};

/// A control with its conditions compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) control: Arc<Control>,
    pub(crate) fails: Condition,
    pub(crate) reach: Option<Condition>,
    /// The facets the control rests on: how old each may be, and whether it must be complete.
    pub(super) needs: Box<[Need]>,
    /// Whether any resource is in reach, which is most often so.
    pub(super) anywhere: bool,
    pub(super) key: u64,
}

/// A facet a control rests on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) facet: Facet,
    pub(crate) max_age: Option<Span>,
    pub(crate) complete: bool,
}

impl Need {
    /// What a control rests on, facet by facet: what it says, and what its condition walks over.
    pub(super) fn of(control: &Control, fails: &Condition) -> Box<[Self]> {
        let each = |need: &EvidenceNeed| {
            let (max_age, complete) = (need.max_age, need.complete);
            let one = move |facet: &Facet| Self {
                facet: *facet,
                max_age,
                complete,
            };
            need.facets.iter().map(one).collect::<Vec<_>>()
        };
        let said: Vec<Self> = control.evidence.iter().flat_map(each).collect();
        let unsaid = fails
            .facets()
            .filter(|facet| !said.iter().any(|need| need.facet == *facet));
        let unsaid: Vec<Self> = unsaid
            .map(|facet| Self {
                facet,
                max_age: None,
                complete: true,
            })
            .collect();
        said.into_iter().chain(unsaid).collect()
    }
}

/// An exception with its conditions compiled.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) exception: Arc<Exception>,
    pub(crate) matches: Option<Box<Condition>>,
    pub(crate) compensates: Box<[Condition]>,
    /// What its own conditions read as `exception`, if they do.
    pub(crate) record: Option<Value>,
    pub(crate) width: u64,
}

/// The exceptions of one subject or class, by the key of the control they deviate from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants {
    by_control: Vec<(u64, Arc<Grant>)>,
    filter: Filter,
}

/// Which keys may be there, in one line of memory: most controls are told apart from the exceptions
/// of others without a search.
#[derive(Clone, Copy, Debug, Default)]
struct Filter([u64; 8]);

impl Filter {
    fn place(key: u64) -> (usize, u64) {
        // The highest three bits choose the word, the six below them its bit.
        (
            usize::try_from(key >> 61).unwrap_or(0),
            1 << (key >> 55 & 63),
        )
    }

    fn may_have(&self, key: u64) -> bool {
        let (word, bit) = Self::place(key);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn add(&mut self, key: u64) {
        let (word, bit) = Self::place(key);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }
}

impl Grants {
    /// Every grant, once for each control it deviates from.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.by_control.iter().map(|(_, grant)| grant)
    }

    pub(crate) fn naming<'a>(&'a self, rule: &Rule) -> impl Iterator<Item = &'a Arc<Grant>> {
        let key = rule.key;
        let from = if self.filter.may_have(key) {
            self.by_control.partition_point(|(k, _)| *k < key)
        } else {
            self.by_control.len()
        };
        self.by_control
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(move |(k, _)| *k == key)
            .map(|(_, grant)| grant)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_control.is_empty()
    }

    pub(super) fn add(&mut self, key: u64, grant: &Arc<Grant>) {
        let at = self
            .by_control
            .partition_point(|(k, g)| (*k, &g.exception.id) < (key, &grant.exception.id));
        self.by_control.insert(at, (key, Arc::clone(grant)));
        self.filter.add(key);
    }

    pub(super) fn drop(&mut self, id: &ExceptionId) {
        self.by_control
            .retain(|(_, grant)| grant.exception.id != *id);
        self.filter = Filter::default();
        for (key, _) in &self.by_control {
            self.filter.add(*key);
        }
    }
}

/// A subject and the exceptions that name it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) subject: Option<Arc<Subject>>,
    pub(crate) grants: Arc<Grants>,
}

/// All controls, indexed by action.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// In the order of their ids.
    pub(super) all: Vec<Arc<Rule>>,
    by_action: HashMap<Box<str>, Box<[u32]>, FixedState>,
    any_action: Box<[u32]>,
    gates: Box<[u32]>,
    pub(super) names: Names,
    /// Whether any condition reads what is governed about the resource.
    pub(super) reads_resource: bool,
}

impl Rules {
    pub(super) fn index(&mut self) {
        let places = |keep: &dyn Fn(&Control) -> bool| -> Box<[u32]> {
            let in_force = |control: &Control| control.state.in_force() && keep(control);
            (0_u32..)
                .zip(&self.all)
                .filter(|(_, rule)| in_force(&rule.control))
                .map(|(at, _)| at)
                .collect()
        };
        let mut actions: Vec<&str> = Vec::new();
        for rule in &self.all {
            if let Set::Of(names) = &rule.control.applies_to.actions {
                actions.extend(names.iter().map(|name| &**name));
            }
        }
        actions.sort_unstable();
        actions.dedup();
        let reaches = |control: &Control, action: &str| {
            control.runtime && control.applies_to.actions.holds(|name| **name == *action)
        };
        let by_action = actions
            .iter()
            .map(|action| {
                (
                    (*action).into(),
                    places(&|control| reaches(control, action)),
                )
            })
            .collect();
        let any_action = places(&|control| control.runtime && control.applies_to.actions.is_any());
        let gates = places(&|control| control.baseline_gate);
        (self.by_action, self.any_action, self.gates) = (by_action, any_action, gates);
    }

    fn at<'a>(&'a self, places: &'a [u32]) -> impl Iterator<Item = &'a Arc<Rule>> {
        places.iter().filter_map(|at| self.all.get(*at as usize))
    }

    /// The controls held against questions of `action`, in the order of their ids.
    pub(crate) fn for_action<'a>(&'a self, action: &str) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.at(self.by_action.get(action).unwrap_or(&self.any_action))
    }

    /// The baseline gates in force.
    pub(crate) fn gates(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.at(&self.gates)
    }

    /// What conditions read of the request's context.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn find(&self, id: &ControlId) -> Option<&Arc<Rule>> {
        self.all
            .binary_search_by(|rule| rule.control.id.cmp(id))
            .ok()
            .and_then(|at| self.all.get(at))
    }
}

/// A control's key in the indexes of exceptions. Two controls with one key only cost a look.
pub(super) fn key(id: &ControlId) -> u64 {
    FixedState::default().hash_one(id.as_str())
}
