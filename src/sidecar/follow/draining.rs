//! Removals that are told once no answer under way rests on what was before them (S2).
//!
//! Most decisions wait for nothing; a batch may wait for its records, and nothing waits with it (S14).

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

/// What was published before and may still be in use, and the removals that wait for it.
#[derive(Debug)]
pub(super) struct Draining<T> {
    retired: Vec<Weak<T>>,
    /// In order, with what was in use when they came into force.
    waiting: VecDeque<(u64, Vec<Weak<T>>)>,
}

impl<T> Default for Draining<T> {
    fn default() -> Self {
        Self {
            retired: Vec::new(),
            waiting: VecDeque::new(),
        }
    }
}

fn in_use<T>(old: &Weak<T>) -> bool {
    old.strong_count() > 0
}

impl<T> Draining<T> {
    /// Notes what decisions were made by until now.
    pub(super) fn retire(&mut self, old: Option<&Arc<T>>) {
        self.retired.extend(old.map(Arc::downgrade));
        self.retired.retain(in_use);
    }

    /// What is made by them now holds the removals up to `through`: those wait for the rest of it.
    pub(super) fn wait(&mut self, through: u64) {
        self.retired.retain(in_use);
        self.waiting.push_back((through, self.retired.clone()));
    }

    /// The last removal that nobody is behind any more, of those that waited.
    pub(super) fn drained(&mut self) -> Option<u64> {
        let over = |(_, olds): &(u64, Vec<Weak<T>>)| !olds.iter().any(in_use);
        let many = self.waiting.iter().take_while(|each| over(each)).count();
        let mut drained = self.waiting.drain(..many);
        drained.next_back().map(|(through, _)| through)
    }

    /// They are numbered anew: none of these is told.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_removals_are_told_in_order_once_nobody_is_behind_them() {
        let mut draining = Draining::default();
        let (first, second, third) = (Arc::new(1), Arc::new(2), Arc::new(3));
        draining.retire(Some(&first));
        draining.wait(7);
        assert_eq!(
            draining.drained(),
            None,
            "an answer rests on what was before"
        );
        draining.retire(Some(&second));
        draining.wait(8);
        // What came into use after a removal holds it, and is not waited for.
        draining.retire(Some(&third));
        drop(first);
        assert_eq!(draining.drained(), Some(7));
        assert!(!draining.is_empty());
        drop(second);
        assert_eq!(draining.drained(), Some(8));
        assert!(draining.is_empty() && draining.drained().is_none());
    }

    #[test]
    fn s2_none_is_told_before_one_that_came_earlier() {
        let mut draining = Draining::default();
        let old = Arc::new(1);
        draining.retire(Some(&old));
        draining.wait(7);
        draining.wait(8);
        assert_eq!(draining.drained(), None);
        drop(old);
        assert_eq!(draining.drained(), Some(8));
        let old = Arc::new(2);
        draining.retire(Some(&old));
        draining.wait(9);
        draining.forget();
        drop(old);
        assert_eq!(draining.drained(), None, "9 of another epoch");
    }
}
