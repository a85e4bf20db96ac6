//! Who may do something, to what, and what somebody may do: over everything that is governed here,
//! by the one function that answers questions. Nothing is recorded, and nothing is used up.

use std::collections::BTreeSet;

use crate::domain::{Decision, NextAction, Now, Question, Set, SubjectId, Value};

use super::{Snapshot, catalogue, decide, seeing::seen};

/// Names of subjects' types that say nothing of their kind.
const ANYBODY: [&str; 2] = ["identity", "subject"];

fn kind<'a>(snapshot: &'a Snapshot, id: &str) -> Option<&'a str> {
    let subject = snapshot.subject(id)?;
    catalogue::at(&subject.attributes, &["kind"])?.as_str()
}

fn is_of(snapshot: &Snapshot, id: &str, wanted: &str) -> bool {
    ANYBODY.contains(&wanted)
        || kind(snapshot, id).is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
}

/// How somebody stands to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It would be allowed.
    Permitted,
    /// It would be denied, and an exception can be requested.
    Requestable,
    /// It would be denied.
    Denied,
}

fn decided(question: &Question, snapshot: &Snapshot, now: Now) -> Decision {
    match seen(question, snapshot) {
        None => decide(question, snapshot, now),
        Some(observed) => {
            let question = Question {
                observed,
                ..question.clone()
            };
            decide(&question, snapshot, now)
        }
    }
}

/// How the one who asks stands to what they ask.
pub fn standing(question: &Question, snapshot: &Snapshot, now: Now) -> Standing {
    let decision = decided(question, snapshot, now);
    match decision.next_action {
        _ if decision.allows() => Standing::Permitted,
        NextAction::Request => Standing::Requestable,
        NextAction::Retry | NextAction::None => Standing::Denied,
    }
}

/// Whether a question would be allowed.
fn permits(question: &Question, snapshot: &Snapshot, now: Now) -> bool {
    decided(question, snapshot, now).allows()
}

/// The subjects of a type, of those that are asked `about`, that a question would be allowed for.
pub fn subjects(
    wanted: &str,
    question: &Question,
    snapshot: &Snapshot,
    now: Now,
    about: impl Fn(&SubjectId) -> bool,
) -> Vec<SubjectId> {
    let mut asked = question.clone();
    let mut found: Vec<SubjectId> = snapshot
        .subjects()
        .filter(|subject| about(&subject.id) && is_of(snapshot, subject.id.as_str(), wanted))
        .filter(|subject| {
            asked.subject = subject.id.clone();
            permits(&asked, snapshot, now)
        })
        .map(|subject| subject.id.clone())
        .collect();
    found.sort();
    found
}

/// The tools that are known of a subject, by the ids that questions name them with.
fn tools(question: &Question, snapshot: &Snapshot) -> BTreeSet<String> {
    let Some(subject) = snapshot.subject(question.subject.as_str()) else {
        return BTreeSet::new();
    };
    let Some(Value::List(tools)) = catalogue::at(&subject.attributes, &["tools"]) else {
        return BTreeSet::new();
    };
    let named = |tool, name| catalogue::field(tool, &catalogue::TOOL, name).and_then(Value::as_str);
    let ids = tools.iter().filter_map(|tool| {
        let name = named(tool, "name")?;
        Some(match named(tool, "server") {
            Some(server) => format!("{server}/{name}"),
            None => name.to_owned(),
        })
    });
    ids.collect()
}

/// The resources of a type that a question would be allowed for: of tools those the subject has, and
/// else what is governed.
pub fn resources(question: &Question, snapshot: &Snapshot, now: Now) -> Vec<String> {
    let wanted = &question.resource.kind;
    let known = if wanted == "tool" {
        tools(question, snapshot)
    } else {
        let all = snapshot.subjects().map(|subject| subject.id.to_string());
        all.filter(|id| is_of(snapshot, id, wanted)).collect()
    };
    let mut asked = question.clone();
    known
        .into_iter()
        .filter(|id| {
            asked.resource.id.clone_from(id);
            permits(&asked, snapshot, now)
        })
        .collect()
}

/// The actions that controls and exceptions name and that a question would be allowed for.
pub fn actions(question: &Question, snapshot: &Snapshot, now: Now) -> Vec<String> {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let controls = snapshot
        .controls()
        .map(|control| &control.applies_to.actions);
    let exceptions = snapshot.exceptions().map(|one| &one.scope.actions);
    for actions in controls.chain(exceptions) {
        if let Set::Of(actions) = actions {
            known.extend(actions.iter().map(|action| &**action));
        }
    }
    let mut asked = question.clone();
    known
        .into_iter()
        .filter(|action| {
            (*action).clone_into(&mut asked.action);
            permits(&asked, snapshot, now)
        })
        .map(ToOwned::to_owned)
        .collect()
}
