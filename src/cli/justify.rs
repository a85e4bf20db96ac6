//! `exeat explain` at a registry: was it justified at the moment it was used?

use anstyle::Style;
use serde_json::{Value as Json, json};

use crate::{
    domain::Span,
    wire::{signed::hex, v1},
};

use super::{
    args::{Explain, Output},
    reach::{Registry, refused},
    registry_args::Reach,
    review::plain,
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
    usage::{line, record_json, when},
};

fn sentence(agreement: v1::Agreement) -> (Style, &'static str) {
    match agreement {
        v1::Agreement::Same => (GOOD, "asked again, it comes out as it was recorded"),
        v1::Agreement::SameAsRecorded => (
            GOOD,
            "asked again with what is recorded, it comes out the same; arguments and context are not recorded",
        ),
        v1::Agreement::Different => (BAD, "asked again, it comes out differently"),
        v1::Agreement::Untold | v1::Agreement::Unspecified => {
            (BAD, "whether it comes out again cannot be told")
        }
    }
}

fn kind_of(object: &v1::StoredObject) -> String {
    let name = object.kind().as_str_name();
    name.trim_start_matches("OBJECT_KIND_").to_lowercase()
}

fn text(stamp: Option<prost_types::Timestamp>) -> String {
    when(stamp).map_or_else(String::new, |time| time.to_string())
}

fn votes(case: &v1::Case) -> Vec<Json> {
    let record: Json = serde_json::from_str(&case.record).unwrap_or_default();
    let votes = record.get("votes").and_then(Json::as_array).cloned();
    votes.unwrap_or_default()
}

fn as_json(told: &v1::ExplainDecisionResponse) -> Json {
    let objects = told.objects.iter().map(|object| {
        json!({
            "kind": kind_of(object),
            "id": object.id,
            "revision": object.revision,
            "log_revision": object.log_revision,
            "time": text(object.time),
            "principal": object.principal,
            "manifest": serde_json::from_str::<Json>(&object.manifest).unwrap_or_default(),
        })
    });
    let cases = told.cases.iter();
    json!({
        "apiVersion": "exeat/v1",
        "decision": told.decision_id,
        "agreement": told.agreement().as_str_name().trim_start_matches("AGREEMENT_"),
        "remark": told.remark,
        "again": told.again.as_ref().map(|again| json!({
            "outcome": again.outcome().as_str_name().trim_start_matches("OUTCOME_"),
            "reasons": again.reasons().map(|r| r.as_str_name().trim_start_matches("REASON_").to_owned()).collect::<Vec<_>>(),
            "controls": again.controls.iter().map(|control| json!({
                "id": control.control_id,
                "revision": control.revision,
                "outcome": control.outcome().as_str_name().trim_start_matches("CONTROL_OUTCOME_"),
            })).collect::<Vec<_>>(),
        })),
        "records": told.records.iter().map(record_json).collect::<Json>(),
        "objects": objects.collect::<Json>(),
        "cases": cases.map(|case| serde_json::from_str::<Json>(&case.record).unwrap_or_default()).collect::<Json>(),
    })
}

fn seconds(micros: u64) -> String {
    let span = Span::from_micros(i64::try_from(micros).unwrap_or(i64::MAX));
    format!("{:.3} s", span.as_secs_f64())
}

/// What was known of the present: the clock, the lease and where the call belongs.
fn moment(record: &v1::UsageRecord) -> Vec<(&'static str, String)> {
    let mut rows = vec![(
        "clock",
        format!("within {}", seconds(record.clock_uncertainty_micros)),
    )];
    if let (Some(removals), Some(state)) = (record.removals_age_micros, record.state_age_micros) {
        rows.push((
            "lease",
            format!(
                "revocations heard {} before, everything else {}",
                seconds(removals),
                seconds(state)
            ),
        ));
    }
    rows.push((
        "facets",
        format!("{} at {}", record.fingerprint, record.snapshot_digest),
    ));
    if !record.trace_id.is_empty() {
        rows.push(("trace", hex(&record.trace_id)));
    }
    rows
}

fn show(told: &v1::ExplainDecisionResponse, screen: &mut Screen) -> Result<(), Exit> {
    let record = told.records.first().and_then(|kept| kept.record.clone());
    let record = record.unwrap_or_default();
    if let Some(again) = &told.again {
        screen.explanation(&v1::ExplainResponse {
            decision: Some(again.clone()),
            subject: record.subject.clone(),
            action: record.action.clone(),
            resource: Some(v1::Resource {
                r#type: record.resource_type.clone(),
                id: record.resource_id.clone(),
                properties: None,
            }),
            environment: record.environment.clone(),
            purpose: record.purpose.clone().unwrap_or_default(),
            // What of these was recorded is said below.
            ..v1::ExplainResponse::default()
        })?;
    }
    for (name, value) in moment(&record) {
        screen.say(&format!(" {name:<10} {value}"))?;
    }
    screen.say(" recorded")?;
    for kept in &told.records {
        screen.say(&format!("   {}", line(kept)))?;
    }
    screen.say(" rested on")?;
    for object in &told.objects {
        screen.say(&format!(
            "   {:<12} {}  revision {}  {}",
            kind_of(object),
            object.id,
            object.revision,
            styled(
                DIM,
                &format!("{} by {}", text(object.time), object.principal)
            )
        ))?;
    }
    for case in &told.cases {
        screen.say(&format!(
            " {:<10} {}  asked by {} for {}",
            "granted", case.id, case.requester, case.owner
        ))?;
        for vote in votes(case) {
            let at = |name: &str| {
                vote.get(name)
                    .and_then(Json::as_str)
                    .unwrap_or("-")
                    .to_owned()
            };
            let verdict = if vote.get("approves") == Some(&Json::Bool(true)) {
                styled(GOOD, "approves")
            } else {
                styled(BAD, "denies")
            };
            screen.say(&format!(
                "   {verdict}  {} as {}: {} {}",
                at("approver"),
                at("role"),
                plain(&at("comment")),
                styled(DIM, &at("time"))
            ))?;
            for seen in vote
                .get("reviewed")
                .and_then(Json::as_array)
                .into_iter()
                .flatten()
            {
                screen.say(&format!(
                    "             evidence {}",
                    styled(DIM, &seen.to_string())
                ))?;
            }
        }
    }
    let (style, sentence) = sentence(told.agreement());
    screen.say(&format!(" {}", styled(style, sentence)))?;
    if !told.remark.is_empty() {
        screen.say(&format!(" {}", told.remark))?;
    }
    Ok(())
}

/// Shows what a recorded decision rested on at its moment. Says no where it does not come out again,
/// or that cannot be told.
pub(super) async fn justify(
    args: Explain,
    registry: String,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let reach = Reach {
        registry,
        token: args.token,
        registry_ca: args.registry_ca,
    };
    let mut registry = Registry::connect(&reach).await?;
    let request = v1::ExplainDecisionRequest {
        decision_id: args.decision,
    };
    let answer = registry.explanations.explain_decision(request).await;
    let told = answer.map_err(|status| refused(&status))?.into_inner();
    match args.output {
        Output::Json => screen.say(&as_json(&told).to_string())?,
        Output::Table => show(&told, screen)?,
        Output::Junit => return Err(Exit::Usage("junit is for `exeat test`".into())),
    }
    Ok(match told.agreement() {
        v1::Agreement::Same | v1::Agreement::SameAsRecorded => Exit::Done,
        v1::Agreement::Different | v1::Agreement::Untold | v1::Agreement::Unspecified => Exit::No,
    })
}
