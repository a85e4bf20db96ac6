//! `exeat report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use crate::wire::v1;

use super::{
    reach::{Registry, refused},
    registry_args::Reach,
    run::Exit,
    screen::{BAD, BOLD, DIM, Screen, styled},
};

/// `exeat report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Only what reaches into this domain, or what is below it.
    #[arg(long, value_name = "ID", default_value = "")]
    domain: String,
    /// Only controls that answer to this framework: `CSF_2_0`, `AI_RMF_1_0` or `OWASP_NHI_2025`.
    #[arg(long, value_name = "NAME", default_value = "")]
    framework: String,
    /// In which form.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Have the ledger hold the report's digest.
    #[arg(long)]
    record: bool,
    /// Write it into a file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// Stable JSON.
    Json,
    /// OSCAL assessment results: what runs found.
    OscalAr,
    /// OSCAL plan of action and milestones: what is to be remedied.
    OscalPoam,
}

pub(super) async fn report(args: Report, screen: &mut Screen) -> Result<Exit, Exit> {
    if args.record && args.output == Form::Text {
        return Err(Exit::Usage(
            "--record: the digest is of JSON, which nobody would have; say -o json --out FILE as well".into(),
        ));
    }
    let mut registry = Registry::connect(&args.reach).await?;
    let format = match args.output {
        Form::Text | Form::Json => v1::ReportFormat::Json,
        Form::OscalAr => v1::ReportFormat::OscalAssessmentResults,
        Form::OscalPoam => v1::ReportFormat::OscalPoam,
    };
    let request = v1::GetReportRequest {
        format: format.into(),
        domain: args.domain,
        framework: args.framework,
        record: args.record,
    };
    let answer = registry.reports.get_report(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let text = if args.output == Form::Text {
        let report = serde_json::from_str(&answer.report);
        let report = report.map_err(|error| Exit::Unexpected(format!("the report: {error}")))?;
        lines(&report)
    } else {
        answer.report
    };
    match &args.out {
        Some(path) => {
            // The bytes that the digest is of.
            std::fs::write(path, text)
                .map_err(|error| Exit::Unexpected(format!("{}: {error}", path.display())))?;
        }
        None => screen.say(&text)?,
    }
    if args.record {
        screen.hint(&format!(
            "revision {} of the ledger holds its digest, {}",
            answer.recorded_revision, answer.digest
        ));
    }
    Ok(Exit::Done)
}

/// `12 of 40 (30 %)`.
fn part(part: &Json, of: &Json) -> String {
    let number = |json: &Json| json.as_u64().unwrap_or_default();
    let (part, of) = (number(part), number(of));
    match part.saturating_mul(100).checked_div(of) {
        Some(percent) => format!("{part} of {of} ({percent} %)"),
        None => "none".into(),
    }
}

fn counts(json: &Json) -> String {
    let counts = json.as_object().into_iter().flatten();
    let counts: Vec<_> = counts
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    if counts.is_empty() {
        "none".into()
    } else {
        counts.join(", ")
    }
}

/// A span in the largest unit that says something.
fn took(json: &Json) -> String {
    match json.as_u64() {
        None => "-".into(),
        Some(seconds @ 0..120) => format!("{seconds} s"),
        Some(seconds @ 120..7_200) => format!("{} min", seconds / 60),
        Some(seconds) => format!("{} h", seconds / 3_600),
    }
}

/// The same, where it may be short.
fn millis(json: &Json) -> String {
    match json.as_u64() {
        Some(millis @ 0..10_000) => format!("{millis} ms"),
        Some(millis) => took(&(millis / 1_000).into()),
        None => "-".into(),
    }
}

/// Names that follow each other line by line.
fn named(name: &str, text: &str) -> String {
    format!("  {name:<22} {text}")
}

/// How those in force are used; nothing where nobody counts.
fn used(usage: &Json) -> Vec<(&'static str, String)> {
    if !usage.is_object() {
        return Vec::new();
    }
    let of = |name: &str| usage.get(name).unwrap_or(&Json::Null);
    let ids = |name: &str| {
        let ids: Vec<_> = of(name).as_array().into_iter().flatten().collect();
        let ids: Vec<_> = ids.into_iter().filter_map(Json::as_str).collect();
        if ids.is_empty() {
            "none".to_owned()
        } else {
            ids.join(", ")
        }
    };
    let scope = |name: &str| of("scope").get(name).unwrap_or(&Json::Null);
    vec![
        ("answers by exception", of("uses").to_string()),
        ("unused for a week", ids("unused")),
        ("not needed in two", ids("unneeded")),
        ("nearly missed", counts(of("nearMisses"))),
        ("scope used", part(scope("used"), scope("granted"))),
        ("to be narrowed", wide(of("shrink"))),
    ]
}

/// Exceptions of whose scope little is used.
fn wide(of: &Json) -> String {
    let each = of.as_array().into_iter().flatten().map(|one| {
        let at = |name: &str| one.get(name).cloned().unwrap_or_default();
        let id = at("exception");
        let id = id.as_str().unwrap_or_default();
        format!("{id} ({} of {} used)", at("used"), at("granted"))
    });
    let each: Vec<_> = each.collect();
    if each.is_empty() {
        "none".to_owned()
    } else {
        each.join(", ")
    }
}

/// What governing them spares people, and how soon it takes things back.
fn workings(report: &Json) -> [(&'static str, String); 3] {
    let at = |path: &str| report.pointer(path).unwrap_or(&Json::Null);
    [
        (
            "reviews avoided",
            format!(
                "{} allowed by controls alone, {} by exceptions nobody had to approve; people approved {} times",
                match at("/reviewsAvoided/allowedByControls") {
                    // Of a part of it that is not told.
                    Json::Null => "-".to_owned(),
                    allowed => allowed.to_string(),
                },
                at("/reviewsAvoided/allowedAutomatically"),
                at("/reviewsAvoided/approvals")
            ),
        ),
        (
            "drift to suspension",
            format!(
                "{} (half within {}, 95 % within {})",
                at("/driftToSuspend/count"),
                took(at("/driftToSuspend/medianSeconds")),
                took(at("/driftToSuspend/p95Seconds"))
            ),
        ),
        (
            "time to revoke",
            format!(
                "{} since the start (half within {}, 99 % within {}), {} waited for",
                at("/timeToRevoke/complete"),
                millis(at("/timeToRevoke/medianMillis")),
                millis(at("/timeToRevoke/p99Millis")),
                at("/timeToRevoke/open")
            ),
        ),
    ]
}

/// How the sidecars are, and what is missing of what they recorded.
fn fleet(report: &Json) -> Vec<(&'static str, String)> {
    let at = |path: &str| report.pointer(path).unwrap_or(&Json::Null);
    let sidecars = format!(
        "{} connected, {} of them behind with what was taken back, {} gone, {} objects not taken in",
        at("/sidecars/connected"),
        at("/sidecars/behind"),
        at("/sidecars/gone"),
        at("/sidecars/nacks")
    );
    let gaps = format!(
        "{} gaps, {} records that never came",
        at("/usageGaps/count"),
        at("/usageGaps/records")
    );
    let kept = at("/usageGaps").is_object();
    let gaps = kept.then_some(("records of use", gaps));
    [("sidecars", sidecars)].into_iter().chain(gaps).collect()
}

fn lines(report: &Json) -> String {
    let at = |path: &str| report.pointer(path).unwrap_or(&Json::Null);
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    let of = |json: &Json, name: &str| json.get(name).cloned().unwrap_or_default();
    let list = |path: &str| at(path).as_array().cloned().unwrap_or_default();
    let mut out = vec![styled(
        BOLD,
        &format!(
            "Exceptions{}, at revision {} ({})",
            match (at("/domain").as_str(), at("/framework").as_str()) {
                (None, None) => String::new(),
                (domain, framework) => {
                    let about: Vec<_> = domain.into_iter().chain(framework).collect();
                    format!(" of {}", about.join(", "))
                }
            },
            at("/revision"),
            text(at("/time"))
        ),
    )];
    let mut say = |name: &str, text: String| out.push(named(name, &text));
    say("where they stand", counts(at("/exceptions/standing")));
    for (name, path) in [
        ("in force, by tier", "activeByTier"),
        ("by domain", "activeByDomain"),
        ("by control", "activeByControl"),
        ("by owner", "activeByOwner"),
        ("by kind", "activeByType"),
        ("by renewals", "activeByRenewals"),
    ] {
        say(name, counts(at(&format!("/exceptions/{path}"))));
    }
    let orphaned = list("/exceptions/orphaned");
    let orphaned: Vec<_> = orphaned.iter().filter_map(Json::as_str).collect();
    if !orphaned.is_empty() {
        say("owner has left", styled(BAD, &orphaned.join(", ")));
    }
    let coverage = |name: &str| at(&format!("/coverage/{name}"));
    say(
        "over half of a year",
        part(coverage("evergreen"), coverage("pairs")),
    );
    say(
        "same words as another",
        part(at("/justifications/alike"), at("/justifications/of")),
    );
    let approvals = |name: &str| at(&format!("/approvals/{name}"));
    say(
        "approvals",
        format!(
            "{} by {} persons, at most {} of one in an hour; {} not shown before, {} within half a minute; concentration {}",
            approvals("count"),
            approvals("persons"),
            approvals("mostInAnHour"),
            approvals("unseen"),
            approvals("hasty"),
            approvals("concentration")
        ),
    );
    let decided = at("/decisions").as_object().into_iter().flatten();
    for (tier, decided) in decided {
        say(
            &format!("decided, {tier}"),
            format!(
                "{} by people (half within {}, 95 % within {}), {} automatically, {} lapsed",
                of(decided, "byPeople"),
                took(&of(decided, "medianSeconds")),
                took(&of(decided, "p95Seconds")),
                of(decided, "automatically"),
                of(decided, "lapsed")
            ),
        );
    }
    let overrides = |name: &str| at(&format!("/overrides/{name}"));
    say(
        "overrides",
        format!(
            "{} within 30 days; {} owe something, {} of them overdue",
            overrides("last30d"),
            overrides("open"),
            overrides("overdue")
        ),
    );
    for (name, text) in used(at("/usage")) {
        say(name, text);
    }
    for (name, text) in workings(report) {
        say(name, text);
    }
    say(
        "controls pass",
        part(at("/compliance/passing"), at("/compliance/of")),
    );
    let findings = |name: &str| at(&format!("/findings/{name}"));
    say(
        "findings",
        format!(
            "{} not remedied, {} of them overdue; an exception covers {}, and is asked for {}",
            findings("open"),
            findings("overdue"),
            part(findings("excepted"), findings("open")),
            findings("requested")
        ),
    );
    for framework in list("/frameworks") {
        say(
            &text(&of(&framework, "framework")),
            format!(
                "controls in force answer to {}",
                part(&of(&framework, "answered"), &of(&framework, "of"))
            ),
        );
    }
    for (name, text) in fleet(report) {
        say(name, text);
    }
    let densities = list("/density");
    if !densities.is_empty() {
        let heads = format!("{:<18} {:>9}  OF", "CONTROL", "EXCEPTED");
        out.push(styled(DIM, &heads));
    }
    for density in densities {
        let why = of(&density, "redesign");
        let why = why.as_str();
        out.push(format!(
            "{:<18} {:>9}  {}{}",
            text(&of(&density, "control")),
            of(&density, "excepted"),
            of(&density, "applies"),
            why.map_or(String::new(), |why| styled(
                BAD,
                &format!("  to be redesigned: {why}")
            ))
        ));
    }
    out.join("\n")
}
