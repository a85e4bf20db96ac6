//! A report as it is written: stable JSON, whose digest the ledger may hold.

use serde_json::{Map, Value as Json, json};

use crate::{
    domain::{ExceptionId, Span, Timestamp},
    engine::report::{About, Counts, Report, Used},
};

use super::fingerprint::canonical;

/// What stands beside a report.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The log's revision that it was made from.
    pub revision: u64,
    /// The ledger as it was signed then or before.
    pub checkpoint: Box<str>,
    /// Of each framework, how many of its ids controls in force answer to, and how many there are.
    pub frameworks: Vec<(Box<str>, usize, usize)>,
    /// Sidecars that are connected, those that are gone, and objects that one could not take.
    pub sidecars: (usize, usize, usize),
    /// Of those that are connected, how many have not acknowledged all that was taken back.
    pub behind: usize,
    /// Gaps in what sidecars recorded of uses, and how many records never came; nothing where none is
    /// kept.
    pub gaps: Option<(usize, u64)>,
    /// How long it took to take something back.
    pub revocations: Revocations,
    /// Answers that allow and rest on no exception, since the sidecars' starts.
    pub allowed: u64,
}

/// How long it took, since the registry's start, from a removal's commit until nobody could honour
/// what was removed: all had acknowledged it, or their leases were over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// Of how many.
    pub complete: usize,
    /// How many are waited for.
    pub open: usize,
    /// How many nobody timed, because too many were waited for.
    pub untimed: u64,
    /// Half of them no longer.
    pub median: Option<Span>,
    /// Ninety-nine of a hundred no longer.
    pub p99: Option<Span>,
}

fn counts(counts: &Counts) -> Json {
    let entries = counts
        .iter()
        .map(|(name, count)| (name.to_string(), (*count).into()));
    Json::Object(entries.collect())
}

/// A share of a whole, to four digits; nothing of nothing.
fn ratio(part: usize, of: usize) -> Json {
    let float = |n: usize| u32::try_from(n).map_or(f64::from(u32::MAX), f64::from);
    if of == 0 {
        return Json::Null;
    }
    rounded(float(part) / float(of))
}

fn rounded(value: f64) -> Json {
    ((value * 10_000.0).round() / 10_000.0).into()
}

fn seconds(span: Option<Span>) -> Json {
    span.map_or(Json::Null, |span| (span.micros() / 1_000_000).into())
}

fn millis(span: Option<Span>) -> Json {
    span.map_or(Json::Null, |span| (span.micros() / 1_000).into())
}

/// What was allowed without anybody's looking at it, beside how often people approved within a year.
/// Which answers of a sidecar are about a domain or a framework is not told.
fn avoided(about: &About, allowed: u64, used: Option<&Used>, approvals: usize) -> Json {
    let all = *about == About::default();
    let by_nobody = used.map_or(0, |used| used.by_nobody);
    json!({
        "allowedByControls": all.then_some(allowed),
        "allowedAutomatically": by_nobody,
        "approvals": approvals,
    })
}

fn usage(used: &Used) -> Json {
    let ids = |ids: &[ExceptionId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let all: u64 = used.missed.values().sum();
    let all = u32::try_from(all).map_or(f64::from(u32::MAX), f64::from);
    json!({
        "uses": used.uses,
        "unused": ids(&used.unused),
        "unneeded": ids(&used.unneeded),
        "nearMisses": used.missed.iter().map(|(name, times)| (name.to_string(), (*times).into())).collect::<Map<_, Json>>(),
        "nearMissesPerExceptionDay": if used.days > 0.0 { rounded(all / used.days) } else { Json::Null },
        "scope": {
            "untold": used.untold,
            "used": used.utilisation.used,
            "granted": used.utilisation.granted,
            "share": ratio(used.utilisation.used, used.utilisation.granted),
        },
        "shrink": used.wide.iter().map(|(id, of)| json!({"exception": id.as_str(), "used": of.used, "granted": of.granted})).collect::<Vec<_>>(),
    })
}

/// A report as canonical JSON.
pub fn write_report(report: &Report, about: &About, beside: &Beside, now: Timestamp) -> String {
    let Report {
        standing,
        by_tier,
        by_domain,
        by_control,
        by_owner,
        by_type,
        densities,
        shares,
        pairs,
        evergreen,
        orphaned,
        alike,
        renewals,
        decided,
        votes,
        drift,
        overrides,
        findings,
        compliance,
        used,
    } = report;
    let densities = densities.iter().map(|(control, density, why)| {
        json!({
            "control": control.as_str(),
            "applies": density.applies,
            "excepted": density.excepted,
            "density": ratio(density.excepted, density.applies),
            "least30d": density.least,
            "redesign": why,
        })
    });
    let shares = shares.iter().map(|(control, subject, share)| {
        json!({
            "control": control.as_str(),
            "subject": subject.as_str(),
            "share365d": rounded(f64::from(*share) / 1_000.0),
        })
    });
    let renewals = renewals
        .iter()
        .map(|(depth, count)| (depth.to_string(), (*count).into()));
    let decided = decided.iter().map(|(tier, decided)| {
        let all = decided.by_people + decided.automatically + decided.lapsed;
        let decisions = json!({
            "byPeople": decided.by_people,
            "automatically": decided.automatically,
            "lapsed": decided.lapsed,
            "lapsedShare": ratio(decided.lapsed, all),
            "medianSeconds": seconds(decided.median),
            "p95Seconds": seconds(decided.p95),
        });
        (tier.name().to_owned(), decisions)
    });
    let frameworks = beside.frameworks.iter().map(
        |(framework, answered, of)| json!({"framework": framework, "answered": answered, "of": of}),
    );
    let (connected, gone, nacks) = beside.sidecars;
    let record = json!({
        "apiVersion": "exeat/v1",
        "kind": "Report",
        "time": now.to_string(),
        "revision": beside.revision,
        "domain": about.domain.as_ref().map(crate::domain::DomainId::as_str),
        "framework": about.framework,
        "exceptions": {
            "standing": counts(standing),
            "activeByTier": counts(by_tier),
            "activeByDomain": counts(by_domain),
            "activeByControl": counts(by_control),
            "activeByOwner": counts(by_owner),
            "activeByType": counts(by_type),
            "orphaned": orphaned.iter().map(ExceptionId::as_str).collect::<Vec<_>>(),
            "activeByRenewals": Json::Object(renewals.collect::<Map<_, _>>()),
        },
        "density": densities.collect::<Json>(),
        "coverage": {
            "pairs": pairs,
            "evergreen": evergreen,
            "evergreenShare": ratio(*evergreen, *pairs),
            "most": shares.collect::<Json>(),
        },
        "justifications": {"alike": alike.0, "of": alike.1, "share": ratio(alike.0, alike.1)},
        "decisions": Json::Object(decided.collect::<Map<_, _>>()),
        "approvals": {
            "count": votes.approvals,
            "unseen": votes.unseen,
            "hasty": votes.hasty,
            "rubberStampShare": ratio(votes.unseen + votes.hasty, votes.approvals),
            "persons": votes.persons,
            "mostInAnHour": votes.busiest,
            "concentration": rounded(votes.concentration),
        },
        "reviewsAvoided": avoided(about, beside.allowed, used.as_ref(), votes.approvals),
        "driftToSuspend": {"count": drift.0, "medianSeconds": seconds(drift.1), "p95Seconds": seconds(drift.2)},
        "timeToRevoke": {
            "complete": beside.revocations.complete,
            "open": beside.revocations.open,
            "untimed": beside.revocations.untimed,
            "medianMillis": millis(beside.revocations.median),
            "p99Millis": millis(beside.revocations.p99),
        },
        "overrides": {"open": overrides.0, "overdue": overrides.1, "last30d": overrides.2},
        "findings": {
            "open": findings.open,
            "excepted": findings.excepted,
            "exceptedShare": ratio(findings.excepted, findings.open),
            "requested": findings.asked,
            "remediating": findings.remediating,
            "overdue": findings.overdue,
            "bySeverity": counts(&findings.by_severity),
        },
        "compliance": {
            "passing": compliance.0,
            "of": compliance.1,
            "share": ratio(compliance.0, compliance.1),
        },
        "usage": used.as_ref().map(usage),
        "frameworks": frameworks.collect::<Json>(),
        "sidecars": {"connected": connected, "gone": gone, "behind": beside.behind, "nacks": nacks},
        "usageGaps": beside.gaps.map(|(count, records)| json!({"count": count, "records": records})),
        "checkpoint": beside.checkpoint,
    });
    let mut text = String::new();
    canonical(&record, &mut text);
    text
}
