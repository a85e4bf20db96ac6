//! What somebody sees before they decide about an exception.

use serde_json::{Value as Json, json};

use crate::wire::v1;

use super::{
    args::Output,
    exceptions::state_text,
    govern::shown,
    registry_args::Told,
    run::Exit,
    screen::{BAD, BOLD, DIM, GOOD, Screen, styled},
};

fn record(case: &v1::Case) -> Json {
    serde_json::from_str(&case.record).unwrap_or_default()
}

pub(super) fn case_json(case: &v1::Case) -> Json {
    json!({
        "apiVersion": "exeat/v1",
        "kind": "Case",
        "openSeats": case.open_seats,
        "digest": case.digest,
        "notes": case.notes,
        "case": record(case),
    })
}

/// Everything somebody has to see before they decide.
pub(super) fn show(case: Option<v1::Case>, told: &Told, screen: &mut Screen) -> Result<Exit, Exit> {
    let nothing = || Exit::Unexpected("the answer holds no case".into());
    let case = case.ok_or_else(nothing)?;
    if told.output == Output::Json {
        screen.say(&case_json(&case).to_string())?;
        return Ok(Exit::Done);
    }
    let record = record(&case);
    let request = record.get("request").cloned().unwrap_or_default();
    let at = |value: &Json, path: &str| {
        let found = value.pointer(path).cloned().unwrap_or_default();
        match found {
            Json::String(text) => text,
            Json::Null => "-".into(),
            other => other.to_string(),
        }
    };
    screen.say(&format!(
        "{}  {}  {}  {}",
        styled(BOLD, &case.id),
        state_text(&case.state).trim_end(),
        case.tier,
        styled(DIM, &case.reason)
    ))?;
    // Of one that is looked at again, the terms that are to be decided on.
    let again = record.get("again").is_some_and(|again| !again.is_null());
    let terms = if again { "/again" } else { "/terms" };
    let rows = [
        ("controls", case.control_ids.join(", ")),
        ("deviation", at(&request, "/deviation_type")),
        ("subjects", at(&request, "/scope/subject_selector")),
        ("actions", at(&request, "/scope/actions")),
        ("resources", at(&request, "/scope/resources")),
        ("environments", at(&request, "/scope/environments")),
        ("purposes", at(&request, "/scope/purposes")),
        ("sensitivity", at(&request, "/scope/data_sensitivity_max")),
        ("only if", at(&request, "/scope/match_condition")),
        ("as long as", at(&request, "/compensating_conditions")),
        ("uses", at(&request, "/usage_limits")),
        ("need", at(&request, "/justification/business_need")),
        ("risk", at(&request, "/justification/risk_statement")),
        ("plan", at(&request, "/justification/remediation_plan")),
        ("ticket", at(&request, "/justification/ticket_ref")),
        ("window", at(&request, "/window")),
        ("evidence", at(&request, "/evidence")),
        ("asked by", case.requester.clone()),
        ("on behalf of", at(&request, "/on_behalf_of")),
        ("owner", case.owner.clone()),
        ("domain", at(&request, "/domain")),
        ("incident", at(&request, "/incident_ref")),
        ("defect", at(&request, "/defect_ref")),
        ("preemptive", at(&request, "/preemptive")),
        ("renewals", at(&record, &format!("{terms}/renewal_count"))),
        ("ends before", at(&record, &format!("{terms}/latest"))),
        ("bound to", at(&record, &format!("{terms}/bound"))),
    ];
    for (name, value) in rows {
        if value != "-" && !value.is_empty() {
            screen.say(&format!("  {name:<13}{value}"))?;
        }
    }
    if again {
        for change in rebound(&record) {
            screen.say(&format!("  {:<13}{change}", styled(BAD, "changed")))?;
        }
    }
    for input in list_of(&record, &format!("{terms}/inputs")) {
        screen.say(&format!(
            "  {:<13}{} {}",
            at(input, "/tier"),
            at(input, "/what"),
            styled(DIM, &at(input, "/value"))
        ))?;
    }
    for note in &case.notes {
        screen.say(&format!("  {:<13}{note}", "note"))?;
    }
    for vote in list_of(&record, "/votes") {
        let verdict = if vote.get("approves") == Some(&Json::Bool(true)) {
            styled(GOOD, "approves")
        } else {
            styled(BAD, "denies")
        };
        screen.say(&format!(
            "  {verdict}  {} as {}: {} {}",
            at(vote, "/approver"),
            at(vote, "/role"),
            at(vote, "/comment"),
            styled(DIM, &at(vote, "/time"))
        ))?;
    }
    if let Some(end) = case.expire_time {
        let from = shown(case.effective_time);
        screen.say(&format!("  holds        {from} until {}", shown(Some(end))))?;
    }
    if let Some(next) = case.next_revalidation_time {
        screen.say(&format!("  look again   before {}", shown(Some(next))))?;
    }
    for line in owed(&record) {
        screen.say(&line)?;
    }
    if !case.open_seats.is_empty() {
        let until = case.deadline.filter(|_| case.state == "PENDING");
        let until = until.map_or(String::new(), |at| format!(" until {}", shown(Some(at))));
        let waits = case.open_seats.join(", ");
        screen.say(&format!("  waits for    {waits}{until}"))?;
        screen.say(&format!("  digest       {}", case.digest))?;
    }
    Ok(Exit::Done)
}

/// What an override owes, and what of it is done.
fn owed(record: &Json) -> Vec<String> {
    let Some(debt) = record.get("debt").filter(|debt| debt.is_object()) else {
        return Vec::new();
    };
    let at = |path: &str| debt.pointer(path).and_then(Json::as_str).unwrap_or("-");
    let looked = match debt.pointer("/looked/approved").and_then(Json::as_bool) {
        Some(true) => format!("approved {}", at("/looked/time")),
        Some(false) => format!("denied {}", at("/looked/time")),
        None => format!("owed until {}", at("/look_due")),
    };
    let mut lines = vec![format!("  afterwards   {looked}")];
    if debt.get("closure").is_some_and(Json::is_object) {
        let (by, time) = (at("/closure/by"), at("/closure/time"));
        lines.push(format!("  closed       by {by} {time}"));
        for part in ["relaxed", "restored", "lessons"] {
            lines.push(format!("  {part:<12} {}", at(&format!("/closure/{part}"))));
        }
    } else {
        lines.push(format!("  closure      owed until {}", at("/closure_due")));
    }
    lines
}

/// The facets that it would be bound to anew.
fn rebound(record: &Json) -> Vec<String> {
    let bound = |path: &str| record.pointer(path).and_then(Json::as_object);
    let (Some(before), Some(after)) = (bound("/terms/bound"), bound("/again/bound")) else {
        return Vec::new();
    };
    let differ = after
        .iter()
        .filter(|(facet, digest)| before.get(*facet) != Some(digest));
    differ
        .map(|(facet, digest)| {
            let known = before
                .get(facet)
                .and_then(Json::as_str)
                .unwrap_or("nothing");
            format!("{facet}: {known} → {}", digest.as_str().unwrap_or_default())
        })
        .collect()
}

fn list_of<'a>(value: &'a Json, path: &str) -> impl Iterator<Item = &'a Json> {
    value
        .pointer(path)
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
}
