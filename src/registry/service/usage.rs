//! `exeat.v1.UsageService`, and uses that are set aside for sidecars.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{Act, ExceptionId, Invalid, Removal, Selector, Span, Target, Timestamp, UsageKind},
    engine::{reserving::HOLDS, usage::Standing},
    registry::{
        authn::Caller,
        core::{Error, Registry},
        store::{Asks, KeptRow, Reservations, StoreError, Tally},
        usage::Usages,
    },
    wire::{
        Fault, Received, decoded,
        sync::{stamp, time},
        v1,
    },
};

use super::{Sync, opened, page};

/// How long a sidecar may be silent before what it did since is not known.
const SILENT: Span = Span::from_secs(30);
/// Most uses that are set aside at once.
const MOST: u64 = 1_000;
/// Most that are asked for with one call.
const WANTED: usize = 100;

/// Answers about uses of exceptions.
#[derive(Clone, Debug)]
pub(crate) struct UsageCalls {
    pub(in crate::registry) registry: Arc<Registry>,
    pub(in crate::registry) usages: Arc<Usages>,
    pub(in crate::registry) reservations: Reservations,
}

pub(super) fn stored(error: StoreError) -> Fault {
    Fault::from(Error::Store(error))
}

fn exception(text: &str) -> Result<ExceptionId, Fault> {
    ExceptionId::parse(text).map_err(|error| Fault::Invalid(error.under("exception_id")))
}

/// When an exception was first taken back, by whatever did it.
fn taken_back(registry: &Registry, id: &ExceptionId) -> Option<Timestamp> {
    let view = registry.view();
    let takes = |removal: &&Arc<Removal>| match (removal.act, &removal.target) {
        (Act::Revoke, Target::Exception(of)) => of == id,
        (Act::Revoke, _) => view.snapshot.would_take_back(id.as_str(), removal),
        (Act::Freeze | Act::Thaw, _) => false,
    };
    view.removals.iter().find(takes).map(|removal| removal.time)
}

impl UsageCalls {
    async fn told(&self, id: &ExceptionId) -> Result<v1::GetUsageResponse, Fault> {
        let view = self.registry.view();
        let held = view.snapshot.exception(id.as_str());
        let file = &self.usages.file;
        let tallies = file.tallies(id).await.map_err(stored)?;
        if held.is_none() && view.cases.get(id.as_str()).is_none() && tallies.is_empty() {
            return Err(Fault::NotFound(format!("there is no exception `{id}`")));
        }
        let ours =
            |tally: &&Tally| ![Standing::Foreign, Standing::Withdrawn].contains(&tally.standing);
        let sum = |kind| {
            let of = tallies.iter().filter(ours);
            of.filter(|tally| tally.kind == kind)
                .map(|tally| tally.count)
                .sum::<u64>()
        };
        let stood = |standing| {
            let of = tallies
                .iter()
                .filter(|tally| tally.kind == UsageKind::ReliedOn);
            of.filter(|tally| tally.standing == standing)
                .map(|tally| tally.count)
                .sum::<u64>()
        };
        let relied = || {
            tallies
                .iter()
                .filter(ours)
                .filter(|t| t.kind == UsageKind::ReliedOn)
        };
        let withdrawn = sum(UsageKind::Withdrawn);
        let removed = taken_back(&self.registry, id);
        let (after, lag) = match removed {
            None => (0, 0.0),
            Some(removed) => {
                let (count, last) = file.relied_after(id, removed).await.map_err(stored)?;
                (
                    count,
                    last.map_or(0.0, |last| (last - removed).as_secs_f64()),
                )
            }
        };
        let gaps = self.usages.gaps();
        let sources: Vec<_> = self
            .usages
            .sources(id)
            .await
            .map_err(Fault::from)?
            .into_iter()
            .map(|spool| v1::UsageSource {
                gaps: gaps
                    .iter()
                    .filter(|gap| gap.spool == spool.number)
                    .map(|gap| v1::UsageGap {
                        first: gap.first,
                        last: gap.last,
                        time: Some(stamp(gap.time)),
                        reason: gap.reason.to_string(),
                    })
                    .collect(),
                sidecar: spool.sidecar.into(),
                spool_id: spool.spool.0.to_vec(),
                received: spool.received.sequence,
                written: spool.told.max(spool.received.sequence),
                heard_time: Some(stamp(spool.heard)),
            })
            .collect();
        let now = self.registry.clock.now().latest;
        // Whoever was heard after its end, or lately, has told everything.
        let end = held.map_or(now, |exception| exception.expire_time);
        let end = removed.map_or(end, |removed| removed.min(end)).min(now);
        let heard = |source: &v1::UsageSource| {
            let heard = source
                .heard_time
                .and_then(|heard| time("heard_time", Some(heard)).ok());
            heard.is_some_and(|heard| heard >= end || now - heard <= SILENT)
        };
        let whole = |source: &v1::UsageSource| {
            source.gaps.is_empty() && source.received >= source.written && heard(source)
        };
        let missed = file.missed(id).await.map_err(stored)?;
        let limit = held.and_then(|exception| exception.usage_limits.max_uses);
        let reserved = self.reservations.total(id).await.map_err(stored)?;
        Ok(v1::GetUsageResponse {
            exception_id: id.to_string(),
            uses: sum(UsageKind::ReliedOn),
            inside: stood(Standing::Inside),
            unproven: stood(Standing::Unproven),
            outside: stood(Standing::Outside),
            untimely: stood(Standing::Untimely),
            unknown: stood(Standing::Unknown),
            foreign: stood(Standing::Foreign),
            not_needed: sum(UsageKind::NotNeeded),
            out_of_scope: missed.iter().map(|(_, count)| count).sum(),
            ineffective: sum(UsageKind::Ineffective),
            withdrawn,
            first_use_time: relied().map(|tally| tally.first).min().map(stamp),
            last_use_time: relied().map(|tally| tally.last).max().map(stamp),
            removed_time: removed.map(stamp),
            uses_after_removal: after,
            longest_lag_seconds: lag,
            missed: missed
                .into_iter()
                .map(|(dimension, count)| v1::Missed {
                    dimension: dimension.into(),
                    count,
                })
                .collect(),
            complete: sources.iter().all(whole),
            sources,
            reserved: limit.map(|_| reserved),
            max_uses: limit,
        })
    }

    async fn listed(
        &self,
        request: Request<Received<v1::ListUsageRequest>>,
    ) -> Result<v1::ListUsageResponse, Fault> {
        let (_, message) = opened(request)?;
        let v1::ListUsageRequest {
            exception_id,
            page_size,
            page_token,
        } = message;
        let id = exception(&exception_id)?;
        let before = match &*page_token {
            "" => (i64::MAX, i64::MAX, i64::MAX),
            token => read_token(token).ok_or_else(|| {
                let fix = "send it as it came with the page before";
                Fault::Invalid(Invalid::new("page_token", "is none of ours", fix))
            })?,
        };
        let most = page(page_size);
        let rows = self
            .usages
            .file
            .list(&id, before, most)
            .await
            .map_err(stored)?;
        let next = rows.last().filter(|_| rows.len() == most);
        let next = next.map_or_else(String::new, |(_, (time, spool, sequence))| {
            format!("{time}.{spool}.{sequence}")
        });
        Ok(v1::ListUsageResponse {
            records: rows.into_iter().map(|(row, _)| kept(row)).collect(),
            next_page_token: next,
        })
    }
}

/// Most records of one page of an export.
const EXPORTED: usize = 2_000;

impl UsageCalls {
    /// Records as they were written, after a spool's record.
    async fn exported(&self, token: &str) -> Result<v1::ExportUsageResponse, Fault> {
        let (from, mut after) = match token {
            "" => (0, 0),
            token => token
                .split_once('.')
                .and_then(|(spool, after)| Some((spool.parse().ok()?, after.parse().ok()?)))
                .ok_or_else(|| {
                    let fix = "send it as it came with the page before";
                    Fault::Invalid(Invalid::new("page_token", "is none of ours", fix))
                })?,
        };
        let gaps = self.usages.gaps();
        let mut left = EXPORTED;
        let mut batches: Vec<v1::ExportedUsage> = Vec::new();
        for spool in self.usages.known() {
            if spool.number < from {
                continue;
            }
            if spool.number > from {
                after = 0;
            }
            let file = &self.usages.file;
            let rows = file
                .records(spool.number, after, left)
                .await
                .map_err(stored)?;
            left = left.saturating_sub(rows.len());
            let mut last = after;
            let mut began = false;
            for (sequence, record) in rows {
                let missing = sequence > last.saturating_add(1);
                if !began || missing {
                    let before = sequence.saturating_sub(1);
                    let gap = gaps
                        .iter()
                        .find(|gap| missing && (gap.spool, gap.last) == (spool.number, before));
                    batches.push(v1::ExportedUsage {
                        sidecar: spool.sidecar.to_string(),
                        batch: Some(v1::UsageBatch {
                            spool_id: spool.spool.0.to_vec(),
                            after: before,
                            digest_before: gap
                                .and_then(|gap| gap.digest)
                                .map_or_else(Vec::new, |digest| digest.to_vec()),
                            records: Vec::new(),
                        }),
                    });
                }
                began = true;
                last = sequence;
                let batch = batches.last_mut().and_then(|told| told.batch.as_mut());
                if let Some(batch) = batch {
                    batch.records.push(record);
                }
            }
            if left == 0 {
                return Ok(v1::ExportUsageResponse {
                    batches,
                    next_page_token: format!("{}.{last}", spool.number),
                });
            }
        }
        Ok(v1::ExportUsageResponse {
            batches,
            next_page_token: String::new(),
        })
    }
}

fn read_token(token: &str) -> Option<(i64, i64, i64)> {
    let mut parts = token.split('.').map(str::parse);
    let (time, spool, sequence) = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    parts.next().is_none().then_some((time, spool, sequence))
}

pub(super) fn kept((sidecar, spool, row): KeptRow) -> v1::KeptUsage {
    v1::KeptUsage {
        sidecar: sidecar.into(),
        spool_id: spool.0.to_vec(),
        sequence: row.sequence,
        // Ours to read: what could not be read is of no exception.
        record: decoded(&row.record).ok(),
        standing: row.standing.name().to_owned(),
    }
}

#[tonic::async_trait]
impl v1::usage_service_server::UsageService for UsageCalls {
    async fn get_usage(
        &self,
        request: Request<Received<v1::GetUsageRequest>>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        let (_, v1::GetUsageRequest { exception_id }) = opened(request)?;
        let told = self.told(&exception(&exception_id)?).await?;
        Ok(Response::new(told))
    }

    async fn list_usage(
        &self,
        request: Request<Received<v1::ListUsageRequest>>,
    ) -> Result<Response<v1::ListUsageResponse>, Status> {
        Ok(Response::new(self.listed(request).await?))
    }

    async fn export_usage(
        &self,
        request: Request<Received<v1::ExportUsageRequest>>,
    ) -> Result<Response<v1::ExportUsageResponse>, Status> {
        let (_, v1::ExportUsageRequest { page_token }) = opened(request)?;
        Ok(Response::new(self.exported(&page_token).await?))
    }
}

impl Sync {
    /// Sets uses aside for a sidecar.
    pub(super) async fn reserved(
        &self,
        caller: &Caller,
        message: v1::ReserveRequest,
    ) -> Result<v1::ReserveResponse, Fault> {
        let Some(recording) = &self.recording else {
            return Err(Fault::Unavailable("this registry keeps no records".into()));
        };
        let wanted = message.wanted;
        if wanted.is_empty() || wanted.len() > WANTED {
            let fix = format!("ask for 1 to {WANTED}");
            let invalid = Invalid::new("wanted", format!("has {} items", wanted.len()), fix);
            return Err(Fault::Invalid(invalid));
        }
        self.still(caller)?;
        // One that was put back does not know what was set aside since (A10).
        if let Some(why) = &self.registry.view().read_only {
            return Err(Fault::Precondition(format!(
                "the registry is read-only: {why}"
            )));
        }
        let mut reserved = Vec::with_capacity(wanted.len());
        for (at, one) in wanted.into_iter().enumerate() {
            let under = |invalid: Invalid| Fault::Invalid(invalid.under(&format!("wanted[{at}]")));
            let wrong = |field: &str, what: &str| {
                under(Invalid::new(field, what, "use a sidecar of this version"))
            };
            let id = ExceptionId::parse(&one.exception_id)
                .map_err(|error| under(error.under("exception_id")))?;
            let back = one.returned.iter().map(|returned| {
                let of = returned.reservation_id.as_slice().try_into();
                let of = of.map_err(|_| wrong("returned", "names no reservation"))?;
                Ok((of, returned.unused))
            });
            let returned = back.collect::<Result<Vec<_>, Fault>>()?;
            let reservation = match one.reservation_id.as_slice() {
                [] => None,
                bytes => Some(
                    bytes
                        .try_into()
                        .map_err(|_| wrong("reservation_id", "is not sixteen bytes"))?,
                ),
            };
            let view = self.registry.view();
            let held = view.snapshot.exception(id.as_str());
            let may = held.filter(|exception| {
                let of = &exception.scope.subjects;
                let fetched = || match of {
                    Selector::Ids(ids) => ids
                        .iter()
                        .filter_map(|id| view.snapshot.subject(id.as_str()))
                        .any(|subject| caller.scope.may_know(subject, &view.snapshot)),
                    Selector::Classes(_) => !caller.scope.demand.is_empty(),
                };
                caller.scope.holds_selector(of, &view.snapshot) || fetched()
            });
            let Some(exception) = may else {
                return Err(Fault::NotFound(format!("there is no exception `{id}`")));
            };
            // Of what is nearly gone no one takes it all.
            let sidecars = self.attendants.known().len().max(1) as u64;
            let limits = exception.usage_limits;
            let left = match limits.max_uses {
                None => u64::MAX,
                Some(most) => {
                    let taken = recording.reservations.total(&id).await.map_err(stored)?;
                    most.saturating_sub(taken)
                }
            };
            let hourly = limits.max_uses_per_hour.map_or(u64::MAX, u64::from);
            let asks = Asks {
                exception: &id,
                limits,
                sidecar: &caller.identity,
                id: reservation,
                uses: one.uses.min(MOST),
                share: (left.min(hourly) / sidecars.saturating_mul(2)).max(1),
                returned: &returned,
                now: self.registry.clock.now().latest,
            };
            let uses = recording
                .reservations
                .reserve(&asks)
                .await
                .map_err(stored)?;
            // Counted anew: what was asked before under this id is taken by now, and what went back is not.
            let left = match limits.max_uses {
                None => None,
                Some(most) => {
                    let taken = recording.reservations.total(&id).await.map_err(stored)?;
                    Some(most.saturating_sub(taken))
                }
            };
            reserved.push(v1::ReservedUses {
                uses,
                valid_seconds: u32::try_from(HOLDS.micros() / 1_000_000).unwrap_or(0),
                left,
            });
        }
        Ok(v1::ReserveResponse { reserved })
    }
}
