//! Reporting: what callers saw of their subjects that differs from what is governed, and what became
//! of exceptions, until the registry has it for good.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Decision, Digest, Facet, Question, Span, SpoolId, SubjectId, Timestamp},
    wire::{sync::stamp, v1},
};

use super::lanes::{Backoff, Following, SLOW, SOON, told};

/// Most that wait to be reported; what is seen beyond that is reported once it is seen again.
const WAITING: usize = 1_000;
/// Most in one message.
const MOST: usize = 100;
/// How long is waited for more before a report is sent.
const GATHER: Duration = Duration::from_secs(1);

/// How often the same is reported again while it is seen.
const AGAIN: Span = Span::from_secs(60);

type Seen = (SubjectId, Facet, Digest);

/// When something was seen, and reported.
#[derive(Clone, Copy, Debug)]
struct Times {
    first: Timestamp,
    last: Timestamp,
    told: Option<Timestamp>,
}

/// What was seen, and what of it is to be reported.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Sightings {
    seen: Mutex<BTreeMap<Seen, Times>>,
    news: Notify,
}

impl Sightings {
    fn seen(&self) -> MutexGuard<'_, BTreeMap<Seen, Times>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a caller who has proven who it is saw to differ, at `now`.
    pub(in crate::sidecar) fn note(
        &self,
        question: &Question,
        decision: &Decision,
        now: Timestamp,
    ) {
        if decision.drift.is_empty() {
            return;
        }
        let mut seen = self.seen();
        let mut news = false;
        for facet in &decision.drift {
            let Some(digest) = question.observed.get(*facet) else {
                continue;
            };
            let what = (question.subject.clone(), *facet, digest.clone());
            if seen.len() >= WAITING && !seen.contains_key(&what) {
                // What was told may be told again.
                seen.retain(|_, times| times.told.is_none());
                if seen.len() >= WAITING {
                    continue;
                }
            }
            let times = seen.entry(what).or_insert(Times {
                first: now,
                last: now,
                told: None,
            });
            times.last = times.last.max(now);
            if times.told.is_some_and(|told| now - told >= AGAIN) {
                times.told = None;
            }
            news |= times.told.is_none();
        }
        drop(seen);
        if news {
            self.news.notify_one();
        }
    }

    /// What is to be reported, at most as much as a message holds.
    fn due(&self) -> Vec<(Seen, Times)> {
        let seen = self.seen();
        let due = seen.iter().filter(|(_, times)| times.told.is_none());
        due.take(MOST)
            .map(|(what, times)| (what.clone(), *times))
            .collect()
    }

    /// Notes that it was reported.
    fn reported(&self, told: &[(Seen, Times)]) {
        let mut seen = self.seen();
        for (what, times) in told {
            if let Some(known) = seen.get_mut(what) {
                known.told = Some(times.last);
            }
        }
        if seen.values().any(|times| times.told.is_none()) {
            self.news.notify_one();
        }
    }
}

impl Following {
    /// Reports until told to stop.
    pub(in crate::sidecar) async fn report(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let mut backoff = Backoff::new();
        let mut said = String::new();
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.sightings.news.notified() => {}
                () = self.spooled() => {}
            }
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ended = self.report_once(&mut backoff) => ended,
            };
            let Err(why) = ended else {
                self.keeper.metrics.connected("report", false);
                continue;
            };
            self.keeper.metrics.disconnected("report");
            if why != said {
                tracing::warn!(registry = self.registry.address, why, "not reporting");
                said = why;
            }
            self.sightings.news.notify_one();
            // What was not acknowledged is sent again.
            backoff.wait(&stop).await;
        }
        Ok(())
    }

    /// Returns once there is something new in the spool; never without one.
    async fn spooled(&self) {
        match &self.spool {
            Some(spool) => spool.news.notified().await,
            None => std::future::pending().await,
        }
    }

    async fn report_once(&self, backoff: &mut Backoff) -> Result<(), String> {
        let mut client = self.connect().await?;
        let (up, outgoing) = mpsc::channel(1);
        let answer = timeout(SLOW, client.report(ReceiverStream::new(outgoing)))
            .await
            .map_err(|_| "no answer".to_owned())?;
        let mut down = answer.map_err(|status| told(&status))?.into_inner();
        self.keeper.metrics.connected("report", true);
        for sequence in 1_u64.. {
            let usage = match &self.spool {
                Some(spool) => spool.unsent().await,
                None => None,
            };
            let told_now = self.sightings.due();
            let more = usage.is_some();
            if more || !told_now.is_empty() {
                let request = v1::ReportRequest {
                    sequence,
                    observed: told_now.iter().map(message).collect(),
                    usage,
                };
                let gone = |_| "the connection is gone".to_owned();
                up.send(request).await.map_err(gone)?;
                let answer = timeout(SLOW, down.message())
                    .await
                    .map_err(|_| "no acknowledgement".to_owned())?
                    .map_err(|status| told(&status))?;
                let answer = answer.filter(|answer| answer.acknowledged >= sequence);
                let answer = answer.ok_or("the report was not acknowledged")?;
                self.sightings.reported(&told_now);
                if let (Some(spool), Some(receipt)) = (&self.spool, answer.usage) {
                    let of = SpoolId::from_slice(&receipt.spool_id);
                    let of = of.ok_or("a receipt for no spool")?;
                    spool.taken(of, receipt.acknowledged).await;
                } else if more {
                    return Err("the registry does not take usage records".into());
                }
                backoff.worked(SOON);
            }
            if more {
                continue;
            }
            sleep(GATHER).await;
            tokio::select! {
                biased;
                () = self.sightings.news.notified() => {}
                () = self.spooled() => {}
                ended = down.message() => {
                    ended.map_err(|status| told(&status))?;
                    return Err("the registry closed it".into());
                }
            }
        }
        Ok(())
    }
}

fn message(((subject, facet, digest), times): &(Seen, Times)) -> v1::ObservedFacet {
    v1::ObservedFacet {
        subject: subject.to_string(),
        facet: facet.name().to_owned(),
        digest: digest.to_string(),
        first_time: Some(stamp(times.first)),
        last_time: Some(stamp(times.last)),
        sidecar: String::new(),
    }
}
