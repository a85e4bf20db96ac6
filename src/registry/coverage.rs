//! What of the frameworks controls answer to, and what of them nothing does (R43).

use std::collections::HashMap;

use crate::{
    domain::{ControlId, ControlState, Timestamp},
    engine::rounds::covering,
    manifest::{FRAMEWORKS, framework_ids},
};

use super::view::View;

/// One id of a framework.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Covered {
    /// The framework.
    pub framework: &'static str,
    /// The id within it.
    pub id: String,
    /// Controls in force that answer to it.
    pub controls: Vec<ControlId>,
    /// Controls that are to.
    pub drafts: Vec<ControlId>,
    /// Subjects that fail one of those in force.
    pub failing: u32,
    /// Of those, how many an exception covers now; they fail all the same.
    pub excepted: u32,
}

/// Every id of a framework, or of all of them, gaps included.
pub(super) fn coverage(view: &View, framework: Option<&str>, now: Timestamp) -> Vec<Covered> {
    let mut found: HashMap<&ControlId, (u32, u32)> = HashMap::new();
    for finding in view.findings.values() {
        if finding.satisfied.is_none() {
            let covered = covering(&finding.control, &finding.subject, &view.snapshot, now);
            let (failing, excepted) = found.entry(&finding.control).or_default();
            *failing = failing.saturating_add(1);
            *excepted = excepted.saturating_add(u32::from(covered.is_some()));
        }
    }
    let mut controls: Vec<_> = view.snapshot.controls().collect();
    controls.sort_by(|a, b| a.id.cmp(&b.id));
    let named = FRAMEWORKS
        .into_iter()
        .filter(|known| framework.is_none_or(|framework| framework == *known));
    let ids = named.flat_map(|framework| {
        framework_ids(framework)
            .into_iter()
            .map(move |id| (framework, id))
    });
    ids.map(|(framework, id)| {
        let mut covered = Covered {
            framework,
            id,
            ..Covered::default()
        };
        for control in &controls {
            let mut refs = control.frameworks.iter();
            if !refs.any(|known| (&*known.framework, &*known.id) == (framework, &*covered.id)) {
                continue;
            }
            match control.state {
                ControlState::Draft => covered.drafts.push(control.id.clone()),
                ControlState::Active | ControlState::Deprecated => {
                    covered.controls.push(control.id.clone());
                    let (failing, excepted) = found.get(&control.id).copied().unwrap_or_default();
                    covered.failing = covered.failing.saturating_add(failing);
                    covered.excepted = covered.excepted.saturating_add(excepted);
                }
                ControlState::Retired => {}
            }
        }
        covered
    })
    .collect()
}
