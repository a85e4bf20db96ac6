//! What is at stake with a request: the inputs of its tier, from what is governed.

use std::sync::Arc;

use crate::domain::{
    Control, Deviation, Request, Sensitivity, Set, Severity, Subject, Tier, Value,
};

use super::{catalogue, tiering::Stakes};

/// Beginnings of words in an action, a tool or a permission that change the world.
const PRIVILEGED: [&str; 24] = [
    "write", "delet", "remov", "drop", "creat", "updat", "insert", "pay", "refund", "transfer",
    "admin", "exec", "run", "deploy", "grant", "revok", "merge", "push", "send", "purge", "wire",
    "approv", "sudo", "root",
];
/// Environments that are not production; whatever is called otherwise may be.
const SPARE: [&str; 8] = [
    "dev",
    "development",
    "test",
    "testing",
    "qa",
    "stage",
    "staging",
    "sandbox",
];

/// What is at stake, but for how much of a year it takes.
pub(super) fn stakes(
    request: &Request,
    controls: &[&Arc<Control>],
    subjects: &[&Arc<Subject>],
    renewals: u32,
) -> Stakes {
    let production = |environment: &str| {
        !SPARE
            .iter()
            .any(|spare| spare.eq_ignore_ascii_case(environment))
    };
    let actions = match &request.scope.actions {
        Set::Any => usize::MAX,
        Set::Of(actions) => actions.len(),
    };
    let width = u64::try_from(subjects.len().saturating_mul(actions)).unwrap_or(u64::MAX);
    let tools = || {
        let tools = subjects
            .iter()
            .filter_map(|subject| catalogue::at(&subject.attributes, &["tools"]));
        let items = tools.flat_map(|tools| match tools {
            Value::List(items) => &**items,
            _ => &[],
        });
        items.filter(|tool| in_scope(request, tool))
    };
    let field = |tool, name| catalogue::field(tool, &catalogue::TOOL, name);
    let permitted = |tool| match field(tool, "permissions") {
        Some(Value::List(items)) => items
            .iter()
            .any(|item| item.as_str().is_some_and(is_privileged)),
        _ => false,
    };
    let named_so = |tool| {
        field(tool, "name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let named = |set: Vec<String>| set.iter().any(|text| is_privileged(text));
    let resources = match &request.scope.resources {
        Set::Any => false,
        Set::Of(patterns) => patterns
            .iter()
            .any(|pattern| is_privileged(pattern.as_str())),
    };
    Stakes {
        risk_tier: subjects
            .iter()
            .map(|subject| subject.risk_tier)
            .max()
            .unwrap_or(Tier::High),
        data_sensitivity: subjects
            .iter()
            .map(|subject| subject.data_sensitivity)
            .max()
            .unwrap_or(Sensitivity::Restricted),
        production: request.scope.environments.holds(|name| production(name))
            || subjects
                .iter()
                .any(|subject| production(&subject.environment)),
        severity: controls
            .iter()
            .map(|control| control.severity)
            .max()
            .unwrap_or(Severity::Critical),
        privileged: request.scope.actions.is_any()
            || named(listed(&request.scope.actions))
            || resources
            || tools().any(|tool| permitted(tool) || is_privileged(named_so(tool))),
        third_party: tools().any(|tool| field(tool, "third_party") == Some(&Value::Bool(true))),
        false_positive: request.deviation == Deviation::FalsePositive,
        preemptive: request.preemptive,
        width,
        renewals,
        coverage: 0,
    }
}

/// Whether the scope's resources may be the tool.
fn in_scope(request: &Request, tool: &Value) -> bool {
    let text = |name| {
        let field = catalogue::field(tool, &catalogue::TOOL, name);
        field.and_then(Value::as_str).unwrap_or_default()
    };
    let id = format!("{}/{}", text("server"), text("name"));
    request
        .scope
        .resources
        .holds(|pattern| pattern.matches(&id) || pattern.matches(text("name")))
}

/// Whether a word of `text`, in whatever case it is joined, changes the world.
fn is_privileged(text: &str) -> bool {
    let mut spaced = String::with_capacity(text.len());
    let mut lower = false;
    for c in text.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && lower) {
            spaced.push(' ');
        }
        lower = c.is_lowercase();
        spaced.extend(c.to_lowercase());
    }
    spaced
        .split(|c: char| !c.is_alphanumeric())
        .any(|word| PRIVILEGED.iter().any(|begins| word.starts_with(begins)))
}

pub(super) fn listed(set: &Set<Box<str>>) -> Vec<String> {
    match set {
        Set::Any => Vec::new(),
        Set::Of(items) => items.iter().map(ToString::to_string).collect(),
    }
}
