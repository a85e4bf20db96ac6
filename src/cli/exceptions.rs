//! `exeat exception`: ask, look, decide.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::{runtime::clock::Clock, wire::v1};

use super::{
    args::Output,
    draft::draft,
    govern::{files, shown},
    impact::impact,
    import::import,
    reach::{Registry, refused},
    registry_args::{Decides, Exception, Revoke, Told},
    review::{case_json, review, show},
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
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
        Exception::Show { id, before, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let answer = registry
                .exceptions
                .get_case(v1::GetCaseRequest { id })
                .await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            let case = answer.case.unwrap_or_default();
            let now = clock.now().latest;
            let impact = impact(&mut registry, &case.record, &before, now).await?;
            review(Some(case), impact.as_ref(), &told, screen)
        }
        Exception::Approve { decides } => decide(decides, true, screen).await,
        Exception::Deny { decides } => decide(decides, false, screen).await,
        Exception::Draft(args) => draft(args, screen).await,
        Exception::Import { file, out } => import(&file, &out, clock.now().latest, screen),
        Exception::Close { id, reason, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::GiveUpRequest { id, reason };
            let answer = registry.exceptions.give_up(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            show(answer.case, &told, screen)
        }
        Exception::Suspend { id, reason, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::SuspendRequest { id, reason };
            let answer = registry.exceptions.suspend(request).await;
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
                case_json(case).to_string()
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

pub(super) fn state_text(state: &str) -> String {
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
