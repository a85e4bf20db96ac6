//! Reporting: what callers saw of their subjects that differs from what is governed, until the
//! registry has it for good.

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
    domain::{Decision, Digest, Facet, Question, SubjectId, Timestamp},
    wire::{sync::stamp, v1},
};

use super::{
    lanes::{Backoff, Following, SLOW, SOON, told},
    link::connect,
};

/// Most that wait to be reported; what is seen beyond that is reported once it is seen again.
const WAITING: usize = 1_000;
/// How long is waited for more before a report is sent.
const GATHER: Duration = Duration::from_secs(1);

type Seen = (SubjectId, Facet, Digest);

/// What was seen and is not reported yet, with when it was first and last.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Sightings {
    waiting: Mutex<BTreeMap<Seen, (Timestamp, Timestamp)>>,
    news: Notify,
}

impl Sightings {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Seen, (Timestamp, Timestamp)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut waiting = self.waiting();
        for facet in &decision.drift {
            let Some(digest) = question.observed.get(*facet) else {
                continue;
            };
            let seen = (question.subject.clone(), *facet, digest.clone());
            if waiting.len() < WAITING || waiting.contains_key(&seen) {
                let (first, last) = waiting.entry(seen).or_insert((now, now));
                (*first, *last) = ((*first).min(now), (*last).max(now));
            }
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// What was reported is no longer waiting, unless it was seen again since.
    fn reported(&self, told: &[(Seen, (Timestamp, Timestamp))]) {
        let mut waiting = self.waiting();
        for (seen, times) in told {
            if waiting.get(seen) == Some(times) {
                waiting.remove(seen);
            }
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
                () = stop.cancelled() => break,
                () = self.sightings.news.notified() => {}
            }
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.report_once(&mut backoff) => ended,
            };
            self.keeper.metrics.connected("report", false);
            if let Err(why) = ended {
                if why != said {
                    tracing::warn!(registry = self.registry.address, why, "not reporting");
                    said = why;
                }
                self.sightings.news.notify_one();
                backoff.wait(&stop).await;
            }
        }
        Ok(())
    }

    async fn report_once(&self, backoff: &mut Backoff) -> Result<(), String> {
        let mut client = connect(&self.registry).await?;
        let (up, outgoing) = mpsc::channel(1);
        let answer = timeout(SLOW, client.report(ReceiverStream::new(outgoing)))
            .await
            .map_err(|_| "no answer".to_owned())?;
        let mut down = answer.map_err(|status| told(&status))?.into_inner();
        self.keeper.metrics.connected("report", true);
        for sequence in 1_u64.. {
            sleep(GATHER).await;
            let told_now: Vec<_> = {
                let waiting = self.sightings.waiting();
                waiting
                    .iter()
                    .map(|(seen, times)| (seen.clone(), *times))
                    .collect()
            };
            if !told_now.is_empty() {
                let request = v1::ReportRequest {
                    sequence,
                    observed: told_now.iter().map(message).collect(),
                };
                let gone = |_| "the connection is gone".to_owned();
                up.send(request).await.map_err(gone)?;
                let answer = timeout(SLOW, down.message())
                    .await
                    .map_err(|_| "no acknowledgement".to_owned())?
                    .map_err(|status| told(&status))?;
                if answer.is_none_or(|answer| answer.acknowledged < sequence) {
                    return Err("the report was not acknowledged".into());
                }
                self.sightings.reported(&told_now);
                backoff.worked(SOON);
            }
            tokio::select! {
                () = self.sightings.news.notified() => {}
                ended = down.message() => {
                    ended.map_err(|status| told(&status))?;
                    return Err("the registry closed it".into());
                }
            }
        }
        Ok(())
    }
}

fn message(
    ((subject, facet, digest), (first, last)): &(Seen, (Timestamp, Timestamp)),
) -> v1::ObservedFacet {
    v1::ObservedFacet {
        subject: subject.to_string(),
        facet: facet.name().to_owned(),
        digest: digest.to_string(),
        first_time: Some(stamp(*first)),
        last_time: Some(stamp(*last)),
        sidecar: String::new(),
    }
}
