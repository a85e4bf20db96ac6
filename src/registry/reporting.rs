//! Who makes reports: when somebody asks, and on a schedule (R12).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Case, ExceptionState, Schedule, Span, Timestamp, UsageKind},
    engine::{
        report::{About, Counted, Utilisation, quantile, utilisation},
        schedule::due_late,
        usage::Standing,
    },
    manifest::{Beside, Revocations},
    runtime::{secret::write_secret, simulated::aside},
    wire::{
        Fault, decoded,
        signed::{hex, sha256},
        usage::usage,
        v1::{self, ReportFormat},
    },
};

use super::{
    attendants::Attendants,
    beat::Beat,
    core::{Error, Registry},
    ledger::bare,
    reports::{Oscal, governance, oscal},
    store::Gap,
    usage::Usages,
    view::View,
    workflow::Refused,
};

/// Uses of each exception that tell how much of its scope is used.
const LATEST: u32 = 10_000;
/// How many reports made on a schedule are kept.
const KEPT: usize = 100;
/// In whose name those are recorded.
const SYSTEM: &str = "service:registry";

/// Makes reports.
#[derive(Debug)]
pub(super) struct Reporting {
    pub(super) registry: Arc<Registry>,
    pub(super) attendants: Arc<Attendants>,
    /// How exceptions were used, where that is kept.
    pub(super) usages: Option<Arc<Usages>>,
}

/// How much of a case's scope is used, as records of it tell.
fn utilised(case: &Case, view: &View, records: &[Vec<u8>]) -> Utilisation {
    let read = records.iter().filter_map(|record| {
        let message = decoded::<v1::UsageRecord>(record).ok()?;
        usage(message).ok()
    });
    let read: Vec<_> = read.collect();
    let touched = read.iter();
    let touched = touched.map(|use_| (&use_.subject, &*use_.action, &*use_.resource));
    let touched: Vec<_> = touched.collect();
    utilisation(&case.request, &view.snapshot, &touched)
}

/// The digest that the ledger holds of a report.
pub(super) fn digest_of(report: &str) -> String {
    format!("sha256:{}", hex(&sha256(report.as_bytes())))
}

impl Reporting {
    /// A report as things are now; nothing where OSCAL has no document for it.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(super) async fn made(
        &self,
        about: About,
        format: ReportFormat,
    ) -> Result<Option<String>, Fault> {
        let (_, checkpoint) = self.registry.checkpoint().await?;
        let beside = Beside {
            checkpoint,
            sidecars: self.sidecars(),
            behind: self.behind(),
            gaps: self.usages.as_ref().map(|usages| {
                let gaps = usages.gaps();
                let missing = |gap: &Gap| (gap.last - gap.first.min(gap.last)).saturating_add(1);
                let missing = gaps.iter().map(missing).fold(0, u64::saturating_add);
                (gaps.len(), missing)
            }),
            revocations: self.revocations(),
            allowed: self.registry.uses.allowed(),
            ..Beside::default()
        };
        let used = match format {
            ReportFormat::Unspecified | ReportFormat::Json => self.used().await?,
            ReportFormat::OscalAssessmentResults | ReportFormat::OscalPoam => None,
        };
        let (view, now) = (self.registry.view(), self.registry.clock.now().latest);
        // Every control over every subject: aside, where nobody's call waits for it.
        let made = aside(move || match format {
            ReportFormat::Unspecified | ReportFormat::Json => {
                Some(governance(&view, &about, beside, used.as_ref(), now))
            }
            ReportFormat::OscalAssessmentResults => {
                oscal(&view, &about, Oscal::AssessmentResults, now).map(|made| made.to_string())
            }
            ReportFormat::OscalPoam => {
                oscal(&view, &about, Oscal::PlanOfAction, now).map(|made| made.to_string())
            }
        });
        Ok(made.await.map_err(Error::Unfit)?)
    }

    /// Enters a report's digest in the ledger; tells the revision.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(super) async fn record(&self, by: &str, digest: &str) -> Result<u64, Refused> {
        let action = format!("report {digest}");
        let noted = self
            .registry
            .write(|view, draft| Ok((Some(bare(view, draft, by, &action)), draft.revision)));
        noted.await
    }

    /// Sidecars that are connected, those that are gone, and objects that one could not take.
    fn sidecars(&self) -> (usize, usize, usize) {
        let known = self.attendants.known();
        let gone = known
            .values()
            .filter(|known| known.connection.is_cancelled());
        let gone = gone.count();
        let nacks = known.values().map(|known| known.nacks.len()).sum();
        (known.len().saturating_sub(gone), gone, nacks)
    }

    /// How many sidecars that are connected have not acknowledged all that was taken back.
    fn behind(&self) -> usize {
        let head = self.registry.view().head.sequence;
        let known = self.attendants.known();
        let behind = known
            .values()
            .filter(|known| !known.connection.is_cancelled() && known.acknowledged.sequence < head);
        behind.count()
    }

    /// How long what was taken back since the start took until nobody could honour it.
    fn revocations(&self) -> Revocations {
        let told = self.registry.completions.told();
        let mut took = told.took;
        Revocations {
            complete: took.len(),
            open: told.open,
            untimed: told.untimed,
            median: quantile(&mut took, 50),
            p99: quantile(&mut took, 99),
        }
    }

    /// How exceptions in force were used.
    async fn used(&self) -> Result<Option<BTreeMap<Box<str>, Counted>>, Error> {
        let Some(usages) = &self.usages else {
            return Ok(None);
        };
        let view = self.registry.view();
        let mut used = BTreeMap::new();
        for case in view.cases.values() {
            if case.state != ExceptionState::Approved {
                continue;
            }
            let mut counted = Counted::default();
            for tally in usages.file.tallies(&case.id).await? {
                let all = match (tally.kind, tally.standing) {
                    (_, Standing::Foreign | Standing::Withdrawn) => continue,
                    (UsageKind::ReliedOn, _) => &mut counted.uses,
                    (UsageKind::NotNeeded, _) => &mut counted.not_needed,
                    (UsageKind::OutOfScope | UsageKind::Ineffective | UsageKind::Withdrawn, _) => {
                        continue;
                    }
                };
                *all = all.saturating_add(tally.count);
            }
            counted.missed = usages.file.missed(&case.id).await?.into_iter().collect();
            // Where there are more, what they show is not told.
            if counted.uses <= u64::from(LATEST) {
                let relied = usages.file.relied(&case.id, LATEST).await?;
                let (case, view) = (Arc::clone(case), Arc::clone(&view));
                let told = aside(move || utilised(&case, &view, &relied));
                counted.utilisation = Some(told.await.map_err(Error::Unfit)?);
            }
            used.insert(case.id.as_str().into(), counted);
        }
        Ok(Some(used))
    }

    /// Makes the report that was due, keeps it in `folder` under that time, and enters its digest.
    async fn make(&self, folder: &Path, due: Timestamp) -> Result<(), String> {
        // It is there before the ledger speaks of it. One that was there when the process ended may
        // be in the ledger already, and stays the one.
        let path = folder.join(name(due));
        let at = |error: std::io::Error| format!("{}: {error}", path.display());
        let pending = path.with_extension("pending");
        let begun = std::fs::read_to_string(&pending).ok();
        let begun = begun.filter(|text| serde_json::from_str::<serde_json::Value>(text).is_ok());
        let report = if let Some(report) = begun {
            report
        } else {
            let made = self.made(About::default(), ReportFormat::Json).await;
            let report = made.map_err(|fault| format!("{fault:?}"))?;
            let report = report.ok_or("there is nothing to report")?;
            write_secret(&pending, report.as_bytes()).map_err(at)?;
            report
        };
        let recorded = self.record(SYSTEM, &digest_of(&report)).await;
        let revision = recorded.map_err(|refused| format!("{refused:?}"))?;
        std::fs::rename(&pending, &path).map_err(at)?;
        tracing::info!(file = %path.display(), revision, "the report that was due is made");
        for old in kept(folder).into_iter().rev().skip(KEPT) {
            // One too many does no harm.
            drop(std::fs::remove_file(folder.join(name(old))));
        }
        Ok(())
    }
}

/// The name of the report that was due then.
fn name(due: Timestamp) -> String {
    format!("{}.json", due.to_string().replace(':', "-"))
}

/// When the reports that are kept were due, oldest first.
fn kept(folder: &Path) -> Vec<Timestamp> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let times = entries.filter_map(|entry| {
        let entry = entry.ok()?.file_name();
        let stem = entry.to_str()?.strip_suffix(".json")?;
        let (day, time) = stem.split_once('T')?;
        Timestamp::parse(&format!("{day}T{}", time.replace('-', ":"))).ok()
    });
    let mut times: Vec<_> = times.collect();
    times.sort();
    times
}

/// Since when reports are due that none was made of yet: what was missed before the first is missed.
fn began(folder: &Path, now: Timestamp) -> Result<Timestamp, String> {
    let path = folder.join("since");
    let known = std::fs::read_to_string(&path).ok();
    if let Some(since) = known.and_then(|text| Timestamp::parse(text.trim()).ok()) {
        return Ok(since);
    }
    let at = |error: std::io::Error| format!("{}: {error}", path.display());
    write_secret(&path, now.to_string().as_bytes()).map_err(at)?;
    Ok(now)
}

/// Makes, until stopped, each report that is due; what was missed is made up for by one.
pub(super) async fn reports(
    reporting: Arc<Reporting>,
    folder: PathBuf,
    schedule: Schedule,
    stop: CancellationToken,
) -> Result<(), String> {
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let registry = &reporting.registry;
    let mut last = match kept(&folder).pop() {
        Some(last) => last,
        None => began(&folder, registry.clock.now().latest)?,
    };
    let mut beat = Beat::new(registry, &stop);
    while beat.next().await {
        let now = registry.clock.now().latest;
        let due = due_late(&schedule, Span::ZERO, last, now);
        let Some((time, _)) = due.filter(|(time, _)| *time <= now) else {
            continue;
        };
        match reporting.make(&folder, time).await {
            Ok(()) => last = time,
            Err(why) => {
                tracing::error!(why, "the report that is due cannot be made");
                beat.failed();
            }
        }
    }
    Ok(())
}
