//! `exeat exception usage`: used so often, all in scope, no gaps, none after revocation.

use serde_json::{Value as Json, json};

use crate::{
    domain::{Span, Timestamp},
    wire::{signed::hex, sync::time, v1},
};

use super::{
    args::Output,
    reach::{Registry, refused},
    registry_args::Told,
    run::Exit,
    screen::{BAD, BOLD, DIM, GOOD, Screen, styled},
};

/// Most uses after a removal that are listed.
const LATE: usize = 100;

pub(super) fn when(stamp: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    time("time", Some(stamp?)).ok()
}

fn text(stamp: Option<prost_types::Timestamp>) -> Json {
    when(stamp).map_or(Json::Null, |time| time.to_string().into())
}

/// Whether nothing speaks against how it was used.
fn clean(used: &v1::GetUsageResponse) -> bool {
    let faults = [
        used.outside,
        used.untimely,
        used.unknown,
        used.foreign,
        used.uses_after_removal,
    ];
    faults.into_iter().all(|count| count == 0) && used.complete
}

fn as_json(used: &v1::GetUsageResponse) -> Json {
    let missed = used.missed.iter();
    let sources = used.sources.iter().map(|source| {
        let gaps = source.gaps.iter().map(|gap| {
            json!({"first": gap.first, "last": gap.last, "time": text(gap.time), "reason": gap.reason})
        });
        json!({
            "sidecar": source.sidecar,
            "spool": hex(&source.spool_id),
            "received": source.received,
            "written": source.written,
            "heard": text(source.heard_time),
            "gaps": gaps.collect::<Json>(),
        })
    });
    json!({
        "apiVersion": "exeat/v1",
        "exception": used.exception_id,
        "uses": used.uses,
        "inside": used.inside,
        "unproven": used.unproven,
        "outside": used.outside,
        "untimely": used.untimely,
        "unknown": used.unknown,
        "foreign": used.foreign,
        "not_needed": used.not_needed,
        "out_of_scope": used.out_of_scope,
        "ineffective": used.ineffective,
        "withdrawn": used.withdrawn,
        "first_use": text(used.first_use_time),
        "last_use": text(used.last_use_time),
        "removed": text(used.removed_time),
        "uses_after_removal": used.uses_after_removal,
        "longest_lag_seconds": used.longest_lag_seconds,
        "missed": missed.map(|m| (m.dimension.clone(), m.count.into())).collect::<serde_json::Map<_, Json>>(),
        "complete": used.complete,
        "sources": sources.collect::<Json>(),
        "reserved": used.reserved,
        "max_uses": used.max_uses,
    })
}

fn times(n: u64) -> String {
    match n {
        1 => "once".into(),
        n => format!("{n} times"),
    }
}

/// The one sentence that everything else explains.
pub(super) fn statement(used: &v1::GetUsageResponse) -> String {
    if used.uses == 0 {
        return if used.complete {
            "never used; no gaps".into()
        } else {
            "no use is recorded, and records are missing".into()
        };
    }
    let wrong = [
        (used.outside, "beyond its scope"),
        (used.untimely, "before its start or after its end"),
        (used.unknown, "at a revision that never was"),
    ];
    let mut parts = vec![format!("used {}", times(used.uses))];
    let told: Vec<_> = wrong
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", times(count)))
        .collect();
    if told.is_empty() && used.unproven == 0 {
        parts.push("all in scope".into());
    } else if told.is_empty() {
        parts.push("all in scope as far as records can tell".into());
    } else {
        parts.extend(told);
    }
    let gaps: usize = used.sources.iter().map(|source| source.gaps.len()).sum();
    parts.push(match gaps {
        0 if used.complete => "no gaps".into(),
        0 if used
            .sources
            .iter()
            .any(|source| source.received < source.written) =>
        {
            "records are still to come".into()
        }
        0 => "a sidecar has not been heard since".into(),
        1 => "one gap".into(),
        n => format!("{n} gaps"),
    });
    if used.removed_time.is_some() {
        parts.push(match used.uses_after_removal {
            0 => "none after revocation".into(),
            n => format!(
                "{} after revocation, the last {:.1} s later",
                times(n),
                used.longest_lag_seconds
            ),
        });
    }
    parts.join(", ")
}

fn show(used: &v1::GetUsageResponse, screen: &mut Screen) -> Result<(), Exit> {
    let fine = clean(used);
    screen.say(&format!(
        "{}  {}",
        styled(BOLD, &used.exception_id),
        styled(if fine { GOOD } else { BAD }, &statement(used))
    ))?;
    let span = when(used.first_use_time).zip(when(used.last_use_time));
    if let Some((first, last)) = span {
        screen.say(&format!("  first  {first}\n  last   {last}"))?;
    }
    if used.unproven > 0 {
        screen.say(&format!(
            "  of {} the scope's own condition cannot be told from what is recorded; every named dimension matches",
            times(used.unproven)
        ))?;
    }
    if let (Some(reserved), Some(most)) = (used.reserved, used.max_uses) {
        screen.say(&format!("  limit  {reserved} of {most} used or set aside"))?;
    }
    for (count, what) in [
        (used.not_needed, "not needed"),
        (used.out_of_scope, "needed where it does not hold"),
        (used.ineffective, "needed while it did not hold"),
        (used.withdrawn, "taken back before the answer left"),
        (
            used.foreign,
            "told by a sidecar that does not stand for the subject",
        ),
    ] {
        if count > 0 {
            screen.say(&format!("  {} {what}", times(count)))?;
        }
    }
    for missed in &used.missed {
        let line = format!("      {} {}", missed.dimension, times(missed.count));
        screen.say(&styled(DIM, &line))?;
    }
    for source in &used.sources {
        let whole = source.gaps.is_empty() && source.received >= source.written;
        let mark = if whole {
            styled(GOOD, "✓")
        } else {
            styled(BAD, "✗")
        };
        let heard = when(source.heard_time).map_or_else(String::new, |time| time.to_string());
        screen.say(&format!(
            "  {mark} {}  {} of {} records, heard {heard}",
            source.sidecar, source.received, source.written
        ))?;
        for gap in &source.gaps {
            let which = if gap.first == gap.last {
                format!("record {}", gap.first)
            } else {
                format!("records {} to {}", gap.first, gap.last)
            };
            screen.say(&styled(
                BAD,
                &format!("      {which} never came ({})", gap.reason),
            ))?;
        }
    }
    Ok(())
}

pub(super) fn record_json(kept: &v1::KeptUsage) -> Json {
    let record = kept.record.clone().unwrap_or_default();
    let kind = record
        .kind()
        .as_str_name()
        .trim_start_matches("USAGE_KIND_")
        .to_owned();
    json!({
        "apiVersion": "exeat/v1",
        "sidecar": kept.sidecar,
        "spool": hex(&kept.spool_id),
        "sequence": kept.sequence,
        "standing": kept.standing,
        "kind": kind,
        "time": text(record.time),
        "count": record.count,
        "decision": record.decision_id,
        "exception": record.exception_id,
        "exception_revision": record.exception_revision,
        "tier": record.tier,
        "controls": record.control_ids,
        "dimension": record.dimension,
        "reason": record.reason,
        "subject": record.subject,
        "class": record.class_id,
        "action": record.action,
        "resource_type": record.resource_type,
        "resource": record.resource_id,
        "environment": record.environment,
        "purpose": record.purpose,
        "data_sensitivity": record.data_sensitivity,
        "fingerprint": record.fingerprint,
        "question": record.question_digest,
        "request": record.request_id,
        "snapshot_revision": record.snapshot_revision,
        "snapshot": record.snapshot_digest,
        "trace": hex(&record.trace_id),
        "span": hex(&record.span_id),
        "withdraws": record.withdraws,
    })
}

pub(super) fn line(kept: &v1::KeptUsage) -> String {
    let record = kept.record.clone().unwrap_or_default();
    let kind = record
        .kind()
        .as_str_name()
        .trim_start_matches("USAGE_KIND_")
        .to_owned();
    let time = when(record.time).map_or_else(String::new, |time| time.to_string());
    let why = [&record.dimension, &record.reason]
        .map(String::as_str)
        .join("");
    format!(
        "{time}  {kind:<12} {:<8} {}  {} {} {}  {why}",
        kept.standing, record.decision_id, record.subject, record.action, record.resource_id
    )
}

/// The uses after it was taken back, the last first and [`LATE`] at the most, each with how long
/// after.
async fn late(
    registry: &mut Registry,
    used: &v1::GetUsageResponse,
) -> Result<Vec<(v1::KeptUsage, Span)>, Exit> {
    let Some(removed) = when(used.removed_time).filter(|_| used.uses_after_removal > 0) else {
        return Ok(Vec::new());
    };
    let (mut late, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListUsageRequest {
            exception_id: used.exception_id.clone(),
            page_size: 1_000,
            page_token,
        };
        let answer = registry.usage.list_usage(request).await;
        let page = answer.map_err(|status| refused(&status))?.into_inner();
        for kept in page.records {
            let record = kept.record.as_ref();
            let lag = record.and_then(|record| Some(when(record.time)? - removed));
            let relied = record.is_some_and(|of| of.kind() == v1::UsageKind::ReliedOn);
            match lag {
                Some(lag) if lag <= Span::ZERO => return Ok(late),
                Some(lag) if relied && !["FOREIGN", "WITHDRAWN"].contains(&&*kept.standing) => {
                    late.push((kept, lag));
                }
                _ => {}
            }
            if late.len() >= LATE {
                return Ok(late);
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(late);
        }
    }
}

/// Shows how an exception was used; `records` are listed with it. Says no where something speaks
/// against it.
pub(super) async fn usage(
    id: String,
    records: u32,
    told: &Told,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&told.reach).await?;
    let request = v1::GetUsageRequest {
        exception_id: id.clone(),
    };
    let answer = registry.usage.get_usage(request).await;
    let used = answer.map_err(|status| refused(&status))?.into_inner();
    let late = late(&mut registry, &used).await?;
    let mut listed = Vec::new();
    if records > 0 {
        let request = v1::ListUsageRequest {
            exception_id: id,
            page_size: records.min(1_000),
            page_token: String::new(),
        };
        let answer = registry.usage.list_usage(request).await;
        listed = answer
            .map_err(|status| refused(&status))?
            .into_inner()
            .records;
    }
    match told.output {
        Output::Json => {
            let mut all = as_json(&used);
            if let Some(fields) = all.as_object_mut() {
                let late = late.iter().map(|(kept, lag)| {
                    let mut late = record_json(kept);
                    if let Some(fields) = late.as_object_mut() {
                        fields.insert("lag_seconds".into(), lag.as_secs_f64().into());
                    }
                    late
                });
                fields.insert("late".into(), late.collect());
            }
            if let Some(fields) = all.as_object_mut().filter(|_| records > 0) {
                fields.insert("records".into(), listed.iter().map(record_json).collect());
            }
            screen.say(&all.to_string())?;
        }
        Output::Table => {
            show(&used, screen)?;
            let mut more = used.uses_after_removal;
            for (kept, lag) in &late {
                let count = kept.record.as_ref().map_or(1, |record| record.count);
                more = more.saturating_sub(count);
                let line = format!(
                    "      {:.1} s late, {}  {}",
                    lag.as_secs_f64(),
                    times(count),
                    line(kept)
                );
                screen.say(&styled(BAD, &line))?;
            }
            if more > 0 {
                screen.say(&styled(BAD, &format!("      and {more} before these")))?;
            }
            for kept in &listed {
                screen.say(&line(kept))?;
            }
        }
        Output::Junit => return Err(Exit::Usage("junit is for `exeat test`".into())),
    }
    Ok(if clean(&used) { Exit::Done } else { Exit::No })
}
