//! What somebody sees before they decide about an exception.

use serde_json::{Value as Json, json};

use crate::{domain::Timestamp, runtime::clock::Clock, wire::v1};

use super::{
    args::Output,
    breadth::{breadth, wants},
    evidence::{asked, origin},
    exceptions::state_text,
    govern::shown,
    impact::Impact,
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
        "yourRole": case.your_role,
        "notYours": case.not_yours,
        "case": record(case),
    })
}

/// Everything somebody has to see before they decide.
pub(super) fn show(case: Option<v1::Case>, told: &Told, screen: &mut Screen) -> Result<Exit, Exit> {
    review(case, None, told, screen)
}

/// The same, with what it would have changed before.
pub(super) fn review(
    case: Option<v1::Case>,
    impact: Option<&Impact>,
    told: &Told,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let nothing = || Exit::Unexpected("the answer holds no case".into());
    let case = case.ok_or_else(nothing)?;
    if told.output == Output::Json {
        let mut json = case_json(&case);
        if let (Some(impact), Some(fields)) = (impact, json.as_object_mut()) {
            fields.insert("impact".into(), impact.json());
        }
        screen.say(&json.to_string())?;
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
        (
            "wants",
            wants(&request, &case.control_ids, &window(&request)),
        ),
        ("breadth", breadth(&request)),
        ("controls", case.control_ids.join(", ")),
        ("deviation", at(&request, "/deviation_type")),
        ("subjects", subjects(&request)),
        ("actions", listed(&request, "/scope/actions")),
        ("resources", listed(&request, "/scope/resources")),
        ("environments", listed(&request, "/scope/environments")),
        ("purposes", listed(&request, "/scope/purposes")),
        ("sensitivity", at(&request, "/scope/data_sensitivity_max")),
        ("only if", at(&request, "/scope/match_condition")),
        ("as long as", listed(&request, "/compensating_conditions")),
        ("uses", limits(&request)),
        ("need", at(&request, "/justification/business_need")),
        ("risk", at(&request, "/justification/risk_statement")),
        ("plan", at(&request, "/justification/remediation_plan")),
        ("ticket", at(&request, "/justification/ticket_ref")),
        ("window", window(&request)),
        ("asked by", case.requester.clone()),
        ("on behalf of", at(&request, "/on_behalf_of")),
        ("owner", case.owner.clone()),
        ("domain", at(&request, "/domain")),
        ("incident", at(&request, "/incident_ref")),
        ("defect", at(&request, "/defect_ref")),
        ("preemptive", at(&request, "/preemptive")),
        ("after denial", at(&request, "/decision_id")),
        ("renewals", at(&record, &format!("{terms}/renewal_count"))),
        ("ends before", at(&record, &format!("{terms}/latest"))),
        ("bound to", bound(&record, &format!("{terms}/bound"))),
        ("by", policies(&record, &format!("{terms}/policies"))),
    ];
    for (name, value) in rows {
        if value != "-" && !value.is_empty() {
            // What is styled is made of words of our own.
            let value = if name == "breadth" {
                value
            } else {
                plain(&value)
            };
            screen.say(&format!("  {name:<13}{value}"))?;
        }
    }
    for (at, line) in impact.iter().flat_map(|of| of.lines()).enumerate() {
        let name = if at == 0 { "impact" } else { "" };
        screen.say(&format!("  {name:<13}{line}"))?;
    }
    let decided = asked(&record).cloned().unwrap_or_default();
    for item in list_of(&decided, "/evidence") {
        screen.say(&evidence(item))?;
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
        screen.say(&format!("  {:<13}{}", "note", plain(note)))?;
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
            plain(&at(vote, "/comment")),
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
    let has_evidence = list_of(&decided, "/evidence").next().is_some();
    for line in waits(&case, has_evidence) {
        screen.say(&line)?;
    }
    Ok(Exit::Done)
}

/// For whom it waits, and what they may do; nothing where it waits for nobody. Nothing that a
/// requester wrote goes into a command.
fn waits(case: &v1::Case, has_evidence: bool) -> Vec<String> {
    if case.open_seats.is_empty() {
        return Vec::new();
    }
    let pending = case.state == "PENDING";
    let until = case.deadline.filter(|_| pending);
    let until = until.map_or(String::new(), |at| format!(" until {}", shown(Some(at))));
    let seats = case.open_seats.join(", ");
    let mut lines = vec![format!("  waits for    {seats}{until}")];
    lines.extend(you(case));
    let (id, digest) = (&case.id, &case.digest);
    let seen = if has_evidence {
        " --reviewed ITEM …"
    } else {
        ""
    };
    lines.push(format!("  digest       {digest}"));
    lines.push(format!(
        "  next         exeat exception approve {id} --digest {digest} --comment …{seen}"
    ));
    lines.push(if pending {
        format!("               exeat exception deny {id} --digest {digest} --comment …")
    } else {
        format!("               exeat exception revoke {id}")
    });
    lines
}

/// Whether whoever asks may approve.
fn you(case: &v1::Case) -> Option<String> {
    let (mark, said) = match (&*case.your_role, &*case.not_yours) {
        ("", "") => return None,
        ("", why) => (styled(BAD, "✗"), format!("may not approve: {}", plain(why))),
        (role, _) => (styled(GOOD, "✓"), format!("may approve, as {role}")),
    };
    Some(format!("  {:<13}{mark} {said}", "you"))
}

/// What somebody wrote, on one line and without what a terminal acts upon.
pub(super) fn plain(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Texts, one after the other.
fn listed(of: &Json, path: &str) -> String {
    let items = list_of(of, path).map(|item| match item.as_str() {
        // Told apart from two.
        Some(text) if !text.contains([',', '"']) => text.to_owned(),
        _ => item.to_string(),
    });
    items.collect::<Vec<_>>().join(", ")
}

fn subjects(request: &Json) -> String {
    let ids = listed(request, "/scope/subject_selector/ids");
    let classes = listed(request, "/scope/subject_selector/class_ids");
    match (ids.is_empty(), classes.is_empty()) {
        (false, true) => ids,
        (true, false) => format!("all of class {classes}"),
        // Whatever it is, it is seen.
        _ => request
            .pointer("/scope/subject_selector")
            .map_or_else(|| "-".to_owned(), Json::to_string),
    }
}

fn limits(request: &Json) -> String {
    let most = |name: &str| request.pointer(&format!("/usage_limits/{name}"));
    let most = |name: &str, per: &str| {
        let number = most(name).and_then(Json::as_u64)?;
        Some(format!("at most {number}{per}"))
    };
    let limits = [
        most("max_uses", ""),
        most("max_uses_per_hour", " within an hour"),
    ];
    limits.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn window(request: &Json) -> String {
    let of = |name: &str| request.pointer(&format!("/window/{name}"));
    let of = |name: &str| of(name).and_then(Json::as_str);
    let lasts = of("duration").unwrap_or("-");
    match of("start_time") {
        Some(start) => format!("{lasts} from {start}"),
        None => format!("{lasts} from its approval"),
    }
}

/// A digest by which people tell two apart.
fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

fn bound(record: &Json, path: &str) -> String {
    let facets = record.pointer(path).and_then(Json::as_object);
    let facets = facets.into_iter().flatten();
    let each =
        facets.filter_map(|(facet, digest)| Some(format!("{facet} {}", short(digest.as_str()?))));
    each.collect::<Vec<_>>().join(", ")
}

/// The policies that say what its tier demands there.
fn policies(record: &Json, path: &str) -> String {
    let each = list_of(record, path).map(|policy| {
        let text = |name: &str| policy.get(name).and_then(Json::as_str).unwrap_or("-");
        let revision = policy.get("revision").and_then(Json::as_u64).unwrap_or(0);
        format!("{} {} r{revision}", text("kind"), text("id"))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// One item, and whether it still proves something.
fn evidence(item: &Json) -> String {
    let text = |name: &str| item.get(name).and_then(Json::as_str).unwrap_or("-");
    let until = text("expire_time");
    let now = Clock::system().now().latest;
    let fresh = Timestamp::parse(until).is_ok_and(|until| until > now);
    let mark = if fresh {
        styled(GOOD, "✓")
    } else {
        styled(BAD, "✗")
    };
    let required = item.get("required") == Some(&Json::Bool(true));
    format!(
        "  {:<13}{mark} {}  {} until {until}{}  {}",
        "evidence",
        plain(text("evidence_id")),
        if required { "required" } else { "optional" },
        origin(item),
        styled(DIM, short(text("digest")))
    )
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
