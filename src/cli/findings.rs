//! `exeat findings`, `exeat control run` and `exeat control history`.

use serde_json::{Value as Json, json};

use crate::{
    domain::{Span, Timestamp},
    runtime::clock::Clock,
    wire::{sync::stamp, v1},
};

use super::{
    args::Output,
    govern::shown,
    reach::{Registry, refused},
    registry_args::Told,
    run::Exit,
    screen::{BAD, BOLD, DIM, GOOD, Screen, styled},
    workflow_args::{Findings, FindingsCommand},
};

pub(super) async fn run(
    control: String,
    dry_run: bool,
    told: &Told,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&told.reach).await?;
    let request = v1::RunControlRequest {
        control_id: control,
        dry_run,
    };
    let answer = registry.findings.run_control(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let run = answer.run.unwrap_or_default();
    let failing = run.failed.saturating_add(run.untold);
    if told.output == Output::Json {
        let changed: Vec<Json> = answer.changed.iter().map(finding_json).collect();
        let evidence: Vec<Json> = answer.evidence.iter().map(evidence_json).collect();
        let line = json!({"apiVersion": "exeat/v1", "run": run_json(&run), "changed": changed, "evidence": evidence});
        screen.say(&line.to_string())?;
    } else {
        let style = if failing == 0 { GOOD } else { BAD };
        screen.say(&format!(
            "{}  {} passed, {}, {} cannot be told, {} elsewhere; {:.1} ms",
            styled(BOLD, &run.control_id),
            run.passed,
            styled(style, &format!("{} failed", run.failed)),
            run.untold,
            run.elsewhere,
            millis(run.took_micros)
        ))?;
        for finding in &answer.changed {
            screen.say(&format!("  {}", line(finding)))?;
        }
        if let Some(oldest) = answer.evidence.first() {
            let of = format!("{} of {}", oldest.facet, oldest.subject);
            let said = match oldest.observed {
                Some(_) => format!("oldest evidence {} ({of})", shown(oldest.observed)),
                None => format!("no evidence: nobody observed {of}"),
            };
            screen.say(&styled(DIM, &format!("  {said}")))?;
        }
    }
    Ok(if failing == 0 { Exit::Done } else { Exit::No })
}

fn evidence_json(age: &v1::EvidenceAge) -> Json {
    json!({"subject": age.subject, "facet": age.facet, "observed": age.observed.map(|time| shown(Some(time)))})
}

/// Microseconds as milliseconds, for people.
fn millis(micros: u64) -> f64 {
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1_000.0
}

pub(super) async fn history(
    control: Option<String>,
    told: &Told,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&told.reach).await?;
    let request = v1::ListRunsRequest {
        control_id: control.unwrap_or_default(),
        page_size: 0,
    };
    let answer = registry.findings.list_runs(request).await;
    let runs = answer.map_err(|status| refused(&status))?.into_inner().runs;
    if told.output != Output::Json {
        let heads = format!(
            "{:<16} {:<20}  {:<20}  {:>8} {:>8} {:>8} {:>9} {:>7}  {:>9}",
            "CONTROL", "DUE", "RUN", "PASSED", "FAILED", "UNTOLD", "ELSEWHERE", "MISSED", "TOOK"
        );
        screen.say(&styled(DIM, &heads))?;
    }
    for run in &runs {
        if told.output == Output::Json {
            screen.say(&run_json(run).to_string())?;
            continue;
        }
        let due = if run.due.is_some() {
            shown(run.due)
        } else {
            "asked for".to_owned()
        };
        screen.say(&format!(
            "{:<16} {due:<20}  {:<20}  {:>8} {:>8} {:>8} {:>9} {:>7}  {:>6.1} ms",
            run.control_id,
            shown(run.time),
            run.passed,
            run.failed,
            run.untold,
            run.elsewhere,
            run.missed,
            millis(run.took_micros)
        ))?;
    }
    Ok(Exit::Done)
}

/// Says how and by when a finding is remedied.
async fn remedy(
    command: FindingsCommand,
    now: Timestamp,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let FindingsCommand::Remedy {
        control,
        subject,
        plan,
        until,
        told,
    } = command;
    let wrong = || {
        Exit::Usage(format!(
            "--until: `{until}` is neither a length of time, such as `72h`, nor a time"
        ))
    };
    let by = match Span::parse(&until) {
        Ok(span) => now.checked_add(span).ok_or_else(wrong)?,
        Err(_) => Timestamp::parse(&until).map_err(|_| wrong())?,
    };
    let mut registry = Registry::connect(&told.reach).await?;
    let request = v1::RemedyFindingRequest {
        control_id: control,
        subject,
        plan,
        until: Some(stamp(by)),
    };
    let answer = registry.findings.remedy_finding(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let finding = answer.finding.unwrap_or_default();
    screen.say(&if told.output == Output::Json {
        finding_json(&finding).to_string()
    } else {
        line(&finding)
    })?;
    Ok(Exit::Done)
}

pub(super) async fn findings(
    args: Findings,
    clock: &Clock,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let Findings {
        command,
        control,
        subject,
        all,
        uncovered,
        told,
    } = args;
    if let Some(command) = command {
        return remedy(command, clock.now().latest, screen).await;
    }
    let mut registry = Registry::connect(&told.reach).await?;
    let mut page_token = String::new();
    let mut open = false;
    if told.output != Output::Json {
        let heads = format!(
            "{:<16} {:<28} {:<6} {:<9} {:<20} {:<20}  WHY",
            "CONTROL", "SUBJECT", "RESULT", "SEVERITY", "DISPOSITION", "DUE"
        );
        screen.say(&styled(DIM, &heads))?;
    }
    loop {
        let request = v1::ListFindingsRequest {
            control_id: control.clone().unwrap_or_default(),
            subject: subject.clone().unwrap_or_default(),
            all,
            uncovered,
            page_size: 1_000,
            page_token,
        };
        let answer = registry.findings.list_findings(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        for finding in &answer.findings {
            open |= finding.state == "NOT_SATISFIED" && !granted(finding);
            if told.output == Output::Json {
                screen.say(&finding_json(finding).to_string())?;
            } else {
                screen.say(&line(finding))?;
            }
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(if open { Exit::No } else { Exit::Done })
}

/// Whether an exception is granted for it.
fn granted(finding: &v1::Finding) -> bool {
    ["DEVIATION_APPROVED", "FALSE_POSITIVE"].contains(&finding.disposition.as_str())
}

/// Whether somebody is about to remedy it.
fn remediating(finding: &v1::Finding) -> bool {
    finding.disposition == "REMEDIATING"
}

fn line(finding: &v1::Finding) -> String {
    let over = finding.state == "SATISFIED";
    let disposition = match (over, finding.exception.as_str()) {
        (true, _) => "satisfied".to_owned(),
        (false, "") => match finding.remedy.as_ref().filter(|_| remediating(finding)) {
            Some(remedy) => format!("remedy by {}", shown(remedy.until)),
            None => "NONE".to_owned(),
        },
        (false, exception) => match finding.disposition.as_str() {
            "DEVIATION_APPROVED" => format!("excepted {exception}"),
            "FALSE_POSITIVE" => format!("false positive {exception}"),
            _ => format!("asked {exception}"),
        },
    };
    let style = if over || granted(finding) { DIM } else { BAD };
    format!(
        "{:<16} {:<28} {} {:<9} {disposition:<20} {:<20}  {}",
        finding.control_id,
        finding.subject,
        styled(style, &format!("{:<6}", finding.result)),
        finding.severity,
        shown(finding.due),
        finding.message
    )
}

fn finding_json(finding: &v1::Finding) -> Json {
    json!({"apiVersion": "exeat/v1", "control": finding.control_id, "subject": finding.subject, "result": finding.result, "state": finding.state, "disposition": finding.disposition, "exception": finding.exception, "severity": finding.severity, "owner": finding.owner, "message": finding.message, "firstSeen": shown(finding.first_seen), "due": shown(finding.due), "satisfied": finding.satisfied.map(|time| shown(Some(time))), "told": finding.told.map(|time| shown(Some(time))), "remedy": finding.remedy.as_ref().map(remedy_json)})
}

fn remedy_json(remedy: &v1::Remedy) -> Json {
    json!({"by": remedy.principal, "plan": remedy.plan, "until": shown(remedy.until), "time": shown(remedy.time)})
}

fn run_json(run: &v1::ControlRun) -> Json {
    json!({"apiVersion": "exeat/v1", "control": run.control_id, "controlRevision": run.control_revision, "due": run.due.map(|time| shown(Some(time))), "time": shown(run.time), "revision": run.revision, "passed": run.passed, "failed": run.failed, "untold": run.untold, "elsewhere": run.elsewhere, "tookMicros": run.took_micros, "missed": run.missed})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_told_as_what_it_is() {
        for (disposition, is_granted, told) in [
            ("DEVIATION_APPROVED", true, "excepted EX-1"),
            ("FALSE_POSITIVE", true, "false positive EX-1"),
            ("DEVIATION_REQUESTED", false, "asked EX-1"),
        ] {
            let finding = v1::Finding {
                disposition: disposition.into(),
                exception: "EX-1".into(),
                ..v1::Finding::default()
            };
            assert_eq!(granted(&finding), is_granted, "{disposition}");
            assert!(line(&finding).contains(told), "{}", line(&finding));
        }
    }
}
