//! `exeat exception`: ask, look, decide.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::{runtime::clock::Clock, wire::v1};

use super::{
    args::Output,
    govern::{files, shown},
    import::import,
    reach::{Registry, refused},
    registry_args::{Decides, Exception, Revoke, Told},
    run::Exit,
    screen::{BAD, BOLD, DIM, GOOD, Screen, styled},
    takeback,
    usage::usage,
};

pub(super) async fn exception(
    command: Exception,
    clock: &Clock,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    match command {
        Exception::Request {
            file,
            dry_run,
            told,
        } => {
            let request = v1::RequestExceptionRequest {
                file: Some(one(file)?),
                id: String::new(),
                dry_run,
                expected_digest: String::new(),
            };
            ask(request, &told, screen).await
        }
        Exception::Usage { id, records, told } => usage(id, records, &told, screen).await,
        Exception::Amend { id, file, told } => {
            let request = v1::RequestExceptionRequest {
                file: file.map(one).transpose()?,
                id,
                dry_run: false,
                expected_digest: String::new(),
            };
            ask(request, &told, screen).await
        }
        Exception::Renew {
            id,
            why,
            duration,
            dry_run,
            told,
        } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let answer = registry
                .exceptions
                .get_case(v1::GetCaseRequest { id: id.clone() })
                .await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            let record = answer.case.unwrap_or_default().record;
            let request = v1::RequestExceptionRequest {
                file: Some(v1::ManifestFile {
                    name: format!("renewal of {id}"),
                    content: renewal(&record, &id, &why, duration.as_deref())?,
                }),
                id: String::new(),
                dry_run,
                expected_digest: String::new(),
            };
            ask(request, &told, screen).await
        }
        Exception::List {
            state,
            waiting_for_me,
            told,
        } => list(state, waiting_for_me, &told, screen).await,
        Exception::Show { id, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let answer = registry
                .exceptions
                .get_case(v1::GetCaseRequest { id })
                .await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            show(answer.case, &told, screen)
        }
        Exception::Approve { decides } => decide(decides, true, screen).await,
        Exception::Deny { decides } => decide(decides, false, screen).await,
        Exception::Import { file, out } => import(&file, &out, clock.now().latest, screen),
        Exception::Close { id, reason, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::GiveUpRequest { id, reason };
            let answer = registry.exceptions.give_up(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            show(answer.case, &told, screen)
        }
        Exception::Revoke { id, manner } => {
            let revoke = Revoke {
                kind: "exception".into(),
                id,
                manner,
            };
            takeback::revoke(revoke, screen).await
        }
    }
}

/// What was asked for, asked for again: for another reason, and from its approval on.
fn renewal(record: &str, id: &str, why: &str, duration: Option<&str>) -> Result<String, Exit> {
    let unread = || Exit::Unexpected(format!("the registry's record of {id} cannot be read"));
    let record: Json = serde_json::from_str(record).map_err(|_| unread())?;
    let mut request = record.get("request").cloned().unwrap_or_default();
    let fields = request.as_object_mut().ok_or_else(unread)?;
    fields.insert("renews".into(), id.into());
    let before = fields
        .get("window")
        .and_then(|window| window.get("duration"));
    let duration = match (duration, before) {
        (Some(duration), _) => duration.into(),
        (None, Some(before)) => before.clone(),
        (None, None) => return Err(Exit::Usage("--duration: say for how long".into())),
    };
    fields.insert("window".into(), json!({ "duration": duration }));
    let justification = fields
        .get_mut("justification")
        .and_then(Json::as_object_mut);
    let justification = justification.ok_or_else(unread)?;
    justification.insert("business_need".into(), why.into());
    // JSON is YAML.
    Ok(request.to_string())
}

/// The one file at a path.
pub(super) fn one(path: PathBuf) -> Result<v1::ManifestFile, Exit> {
    let shown = path.display().to_string();
    let mut found = files(&[path])?;
    match (found.pop(), found.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => Err(Exit::Usage(format!(
            "{shown}: name one file with one request"
        ))),
    }
}

async fn ask(
    request: v1::RequestExceptionRequest,
    told: &Told,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&told.reach).await?;
    let answer = registry.exceptions.request_exception(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    show(answer.case, told, screen)
}

async fn decide(decides: Decides, approve: bool, screen: &mut Screen) -> Result<Exit, Exit> {
    let Decides {
        id,
        digest,
        comment,
        reviewed,
        told,
    } = decides;
    let mut registry = Registry::connect(&told.reach).await?;
    let request = v1::DecideRequest {
        id,
        approve,
        comment,
        digest,
        reviewed_evidence: reviewed,
    };
    let answer = registry.exceptions.decide(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    show(answer.case, &told, screen)
}

async fn list(
    state: String,
    waiting_for_me: bool,
    told: &Told,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&told.reach).await?;
    let mut page_token = String::new();
    let mut any = false;
    loop {
        let request = v1::ListCasesRequest {
            state: state.clone(),
            waiting_for_me,
            page_size: 1_000,
            page_token,
        };
        let answer = registry.exceptions.list_cases(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        for case in &answer.cases {
            any = true;
            screen.say(&if told.output == Output::Json {
                json(case).to_string()
            } else {
                format!(
                    "{:<12} {} {:<9} {:<24} {}",
                    case.id,
                    state_text(&case.state),
                    case.tier,
                    case.control_ids.join(","),
                    styled(DIM, &line(case))
                )
            })?;
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if !any && told.output == Output::Table {
        screen.say("no exceptions")?;
    }
    Ok(Exit::Done)
}

fn state_text(state: &str) -> String {
    let padded = format!("{state:<9}");
    match state {
        "APPROVED" => styled(GOOD, &padded),
        "SUSPENDED" | "DENIED" | "REVOKED" => styled(BAD, &padded),
        _ => padded,
    }
}

/// What is next, in a line.
fn line(case: &v1::Case) -> String {
    if !case.open_seats.is_empty() && case.state == "PENDING" {
        return format!("waits for {}", case.open_seats.join(", "));
    }
    match (case.state.as_str(), case.expire_time) {
        ("APPROVED", Some(end)) => format!("until {}", shown(Some(end))),
        _ => case.reason.clone(),
    }
}

fn record(case: &v1::Case) -> Json {
    serde_json::from_str(&case.record).unwrap_or_default()
}

fn json(case: &v1::Case) -> Json {
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
        screen.say(&json(&case).to_string())?;
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
