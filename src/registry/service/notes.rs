//! What whoever decides should know of a request beyond what it says (R25, R44).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value as Json};

use crate::{
    domain::{Case, ExceptionState, Timestamp},
    engine::{Electorate, lifecycle, satisfiable},
    manifest::write_case,
    registry::{cases::standing, uses::Uses, view::View},
};

/// How many others that say the same make a request recurring.
const RECURRING: usize = 2;
/// Most others that are named.
const NAMED: usize = 3;

/// Others that say the same, and what it goes on from: how that was used, and what differs.
pub(super) fn notes(view: &View, uses: &Uses, case: &Case, now: Timestamp) -> Vec<String> {
    let mut notes = said_before(view, case);
    notes.extend(nobody_left(view, case));
    notes.extend(history(view, uses, case, now));
    let Some(terms) = case.terms.as_ref().filter(|terms| terms.renewal_count > 0) else {
        return notes;
    };
    notes.push(format!(
        "renewal {}: it goes on from {}",
        terms.renewal_count, terms.lineage
    ));
    let goes_before = |other: &&Arc<Case>| {
        let theirs = other.terms.as_ref().map(|terms| &terms.lineage);
        let earlier = other.id != case.id && other.created <= case.created;
        earlier && other.granted.is_some() && theirs == Some(&terms.lineage)
    };
    let mut before: Vec<_> = view.cases.values().filter(goes_before).collect();
    before.sort_by_key(|other| other.created);
    notes.extend(used(&before, uses, now));
    if let Some(last) = before.last() {
        notes.push(match changed(last, case) {
            None => format!("what changed since {} cannot be told", last.id),
            Some(what) if what.is_empty() => {
                format!("nothing it rests on changed since {}", last.id)
            }
            Some(what) => format!("changed since {}: {}", last.id, what.join(", ")),
        });
    }
    notes
}

/// How those that went before were used.
fn used(before: &[&Arc<Case>], uses: &Uses, now: Timestamp) -> Option<String> {
    let of = |other: &&Arc<Case>| uses.of(other.id.as_str(), now, None);
    let known: Vec<_> = before.iter().map(of).collect::<Option<_>>()?;
    if known.is_empty() {
        return None;
    }
    let count: u64 = known.iter().map(|figures| figures.uses).sum();
    let said = match known.iter().filter_map(|figures| figures.last).max() {
        None => "no use of what went before is recorded".to_owned(),
        Some(last) => format!("what went before was used {count} times, at last {last}"),
    };
    let hidden = known.iter().any(|figures| figures.gaps > 0);
    Some(if hidden {
        format!("{said}; records are missing that may tell of more")
    } else {
        said
    })
}

/// That nobody can decide it any more, as people and groups are now.
fn nobody_left(view: &View, case: &Case) -> Option<String> {
    let terms = case.terms.as_ref();
    let terms = terms.filter(|_| case.state == ExceptionState::Pending)?;
    let electorate = Electorate::new(&view.snapshot, &case.requester, &case.request, terms.tier);
    let still = standing(view, case);
    let votes = case.votes.iter();
    let votes = votes.filter(|vote| vote.approves && vote.digest == terms.digest);
    let spent: Vec<_> = votes
        .filter_map(|vote| Some((still(vote)?, vote.role, &vote.domain)))
        .collect();
    let places = lifecycle::open(case, &still).into_iter().map(|seat| {
        let taken = spent
            .iter()
            .filter(|(_, role, domain)| (*role, *domain) == (seat.stage.role, &seat.domain));
        let taken = u8::try_from(taken.count()).unwrap_or(u8::MAX);
        let mut persons = electorate.persons(seat);
        persons.retain(|person| spent.iter().all(|(known, ..)| **known != **person));
        (seat.stage.quorum.get().saturating_sub(taken), persons)
    });
    let lapses = terms
        .deadline
        .map_or(String::new(), |at| format!(" at {at}"));
    (!satisfiable(&places.collect::<Vec<_>>())).then(|| {
        format!("there are no longer enough people to decide it: name some in the domain's `approver_groups`, or it lapses{lapses}")
    })
}

/// How others from the same controls ended, under whatever ids.
fn history(view: &View, uses: &Uses, case: &Case, now: Timestamp) -> Option<String> {
    let controls = &case.request.controls;
    let others = view.cases.values().filter(|other| {
        let granted = other.granted.is_some() && other.id != case.id;
        granted && other.created <= case.created
    });
    let same = |other: &&Arc<Case>| {
        other
            .request
            .controls
            .iter()
            .any(|id| controls.contains(id))
    };
    let earlier: Vec<_> = others.filter(same).collect();
    if earlier.is_empty() {
        return None;
    }
    let mut by_state: BTreeMap<&str, usize> = BTreeMap::new();
    for other in &earlier {
        let count = by_state.entry(other.state.name()).or_default();
        *count = count.saturating_add(1);
    }
    let states = by_state.iter();
    let states: Vec<_> = states
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let unused = |other: &&&Arc<Case>| {
        let figures = uses.of(other.id.as_str(), now, None);
        let none = figures.is_some_and(|figures| figures.uses == 0 && figures.gaps == 0);
        none && other.state.is_final()
    };
    let unused = match earlier.iter().filter(unused).count() {
        0 => String::new(),
        count => format!("; no use recorded of {count}"),
    };
    Some(format!(
        "granted before from the same controls: {}{unused}",
        states.join(", ")
    ))
}

/// Others that are justified in the same words.
fn said_before(view: &View, case: &Case) -> Vec<String> {
    let ours = &case.request.justification;
    let others = view.cases.values().filter(|other| other.id != case.id);
    let same = others.filter(|other| {
        let theirs = &other.request.justification;
        theirs.business_need == ours.business_need && theirs.risk_statement == ours.risk_statement
    });
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

/// What of a request, of the controls and of the facets it is bound to is not as it was; nothing if
/// that cannot be told.
fn changed(before: &Case, after: &Case) -> Option<Vec<String>> {
    let request = |case: &Case| {
        let record: Json = serde_json::from_str(&write_case(case)).ok()?;
        record.get("request").cloned()
    };
    let (then, now) = (before.terms.as_ref()?, after.terms.as_ref()?);
    let mut changed = Vec::new();
    differing("", &request(before)?, &request(after)?, &mut changed);
    for (control, revision) in &now.controls {
        let known = then.controls.iter().find(|(known, _)| known == control);
        if let Some((_, was)) = known.filter(|(_, was)| was != revision) {
            changed.push(format!(
                "control {control} (revision {revision}, was {was})"
            ));
        }
    }
    let bound: BTreeMap<_, _> = then.bound.iter().collect();
    for (facet, digest) in now.bound.iter() {
        if bound.get(&facet).is_some_and(|was| *was != digest) {
            changed.push(format!("facet {}", facet.name()));
        }
    }
    Some(changed)
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
