//! Whether there is anything to except: a control that fails for somebody in the scope.

use std::sync::Arc;

use crate::domain::{
    Control, Fingerprint, Invalid, Now, Pattern, Question, Request, Resource, Set, Subject,
    Timestamp, Value,
};

use super::{Snapshot, decide, stakes::listed};

/// Most questions tried to see a control fail.
const TRIES: usize = 256;

/// Refuses what fails for nobody: there is nothing to except.
pub(super) fn fails(
    control: &Control,
    subjects: &[&Arc<Subject>],
    request: &Request,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<(), Invalid> {
    let reach = &control.applies_to;
    let actions = some_of(
        [listed(&request.scope.actions), listed(&reach.actions)],
        "any",
    );
    let patterns = |set: &Set<Pattern>| match set {
        Set::Any => Vec::new(),
        Set::Of(patterns) => patterns
            .iter()
            .map(|pattern| match pattern.as_str().strip_suffix('/') {
                Some(_) => format!("{}any", pattern.as_str()),
                None => pattern.as_str().to_owned(),
            })
            .collect(),
    };
    let resources = some_of(
        [
            patterns(&request.scope.resources),
            patterns(&reach.resources),
        ],
        "any",
    );
    let kinds = some_of([listed(&reach.resource_types), Vec::new()], "tool");
    let purposes = some_of([listed(&request.scope.purposes), Vec::new()], "");
    let questions = subjects.iter().flat_map(|subject| {
        let (resources, kinds, purposes) = (&resources, &kinds, &purposes);
        actions.iter().flat_map(move |action| {
            resources.iter().flat_map(move |resource| {
                kinds.iter().flat_map(move |kind| {
                    purposes.iter().map(move |purpose| Question {
                        subject: subject.id.clone(),
                        action: action.clone(),
                        resource: Resource {
                            kind: kind.clone(),
                            id: resource.clone(),
                            properties: Value::Map(Box::default()),
                        },
                        purpose: Some(purpose.clone()).filter(|purpose| !purpose.is_empty()),
                        actor_kind: None,
                        context: Value::Map(Box::default()),
                        observed: Fingerprint::default(),
                        tools: Vec::new(),
                    })
                })
            })
        })
    });
    let failing = questions.take(TRIES).any(|question| {
        let decision = decide(&question, snapshot, Now::exactly(now));
        decision
            .failed
            .iter()
            .any(|result| result.control.id == control.id)
    });
    if failing {
        return Ok(());
    }
    Err(Invalid::new(
        "control_ids",
        format!("`{}` does not fail for anybody in the scope", control.id),
        "ask when it does, or say `preemptive: true`",
    ))
}

/// The first of the lists that is not empty, else one item.
fn some_of(lists: [Vec<String>; 2], else_: &str) -> Vec<String> {
    let mut lists = lists.into_iter();
    lists
        .find(|list| !list.is_empty())
        .unwrap_or_else(|| vec![else_.to_owned()])
}
