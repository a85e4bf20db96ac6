//! What whoever decides should know of a request beyond what it says (R25, R44).

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::{
    domain::{Case, ExceptionId, Timestamp},
    manifest::write_case,
    registry::{uses::Uses, view::View},
};

/// How many others that say the same make a request recurring.
const RECURRING: usize = 2;
/// Most others that are named.
const NAMED: usize = 3;

/// Others that say the same, and what it goes on from: how that was used, and what differs.
pub(super) fn notes(view: &View, uses: &Uses, case: &Case, now: Timestamp) -> Vec<String> {
    let mut notes = said_before(view, case);
    let Some(terms) = case.terms.as_ref().filter(|terms| terms.renewal_count > 0) else {
        return notes;
    };
    notes.push(format!(
        "renewal {}: it goes on from {}",
        terms.renewal_count, terms.lineage
    ));
    let of_line = |other: &&Arc<Case>| {
        let theirs = other.terms.as_ref().map(|terms| &terms.lineage);
        other.id != case.id && other.granted.is_some() && theirs == Some(&terms.lineage)
    };
    let mut before: Vec<_> = view.cases.values().filter(of_line).collect();
    before.sort_by_key(|other| other.granted.map(|granted| granted.expire));
    let figures = |id: &ExceptionId| uses.of(id.as_str(), now, None);
    let known: Option<Vec<_>> = before.iter().map(|other| figures(&other.id)).collect();
    if let Some(known) = known.filter(|known| !known.is_empty()) {
        let count: u64 = known.iter().map(|figures| figures.uses).sum();
        let gaps: u64 = known.iter().map(|figures| figures.gaps).sum();
        let said = match known.iter().filter_map(|figures| figures.last).max() {
            None => "it was never used before".to_owned(),
            Some(last) => format!("it was used {count} times before, at last {last}"),
        };
        notes.push(said);
        if gaps > 0 {
            notes.push(format!("{gaps} gaps in the records may hide uses"));
        }
    }
    if let Some(last) = before.last() {
        let changed = changed(last, case);
        let what = if changed.is_empty() {
            "nothing".into()
        } else {
            changed.join(", ")
        };
        notes.push(format!("changed since {}: {what}", last.id));
    }
    notes
}

/// Others that are justified in the same words.
fn said_before(view: &View, case: &Case) -> Vec<String> {
    let words = |case: &Case| {
        let said = &case.request.justification;
        (said.business_need.clone(), said.risk_statement.clone())
    };
    let ours = words(case);
    let others = view.cases.values().filter(|other| other.id != case.id);
    let same = others.filter(|other| words(other) == ours);
    let mut ids: Vec<&str> = same.map(|other| other.id.as_str()).collect();
    ids.sort_unstable();
    if ids.is_empty() {
        return Vec::new();
    }
    let first: Vec<_> = ids.iter().take(NAMED).copied().collect();
    let more = match ids.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let mut notes = vec![format!(
        "justified word for word as {}{more}",
        first.join(", ")
    )];
    if ids.len() >= RECURRING {
        notes
            .push("recurring: the control, not another exception, may be what is to change".into());
    }
    notes
}

/// The fields of a request that are not as they were, by their paths.
fn changed(before: &Case, after: &Case) -> Vec<String> {
    let request = |case: &Case| {
        let record: Option<Json> = serde_json::from_str(&write_case(case)).ok();
        record.and_then(|record| record.get("request").cloned())
    };
    let (before, after) = (request(before), request(after));
    let mut changed = Vec::new();
    if let (Some(before), Some(after)) = (before, after) {
        differing("", &before, &after, &mut changed);
    }
    changed
}

fn differing(path: &str, before: &Json, after: &Json, found: &mut Vec<String>) {
    let (Json::Object(old), Json::Object(new)) = (before, after) else {
        if before != after {
            found.push(path.to_owned());
        }
        return;
    };
    let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let at = |of: &Map<String, Json>, name: &String| of.get(name).cloned().unwrap_or_default();
    for name in names {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        differing(&path, &at(old, name), &at(new, name), found);
    }
}
