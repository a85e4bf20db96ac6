//! What sidecars report: acknowledged once it is kept.

use tonic::Streaming;

use crate::{
    domain::{Digest, Facet, Invalid, Observed, SubjectId},
    registry::{authn::Caller, core::Error},
    wire::{Fault, Received, sync::time, v1},
};

use super::Sync;

/// Most observations in a message: revocations wait for the same writer.
const MOST: usize = 100;

/// A sidecar that reports.
pub(super) struct Reporting {
    pub(super) sync: Sync,
    pub(super) caller: Caller,
    pub(super) incoming: Streaming<Received<v1::ReportRequest>>,
}

impl Reporting {
    /// The next acknowledgement; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<v1::ReportResponse>, Fault> {
        use futures_util::StreamExt;
        let message = tokio::select! {
            biased;
            () = self.sync.stop.cancelled() => return Ok(None),
            message = self.incoming.next() => message,
        };
        let message = match message {
            Some(Ok(Received { message, .. })) => message,
            Some(Err(status)) => {
                tracing::debug!(sidecar = %self.caller.identity, %status, "a report is cut");
                return Ok(None);
            }
            None => return Ok(None),
        };
        self.sync.still(&self.caller)?;
        let v1::ReportRequest {
            sequence,
            observed,
            usage,
        } = message?;
        if observed.len() > MOST {
            let fix = format!("send {MOST} at a time");
            let invalid = Invalid::new("observed", format!("has {} items", observed.len()), fix);
            return Err(Fault::Invalid(invalid));
        }
        let observed = observed
            .into_iter()
            .enumerate()
            .map(|(at, one)| {
                read(one).map_err(|error| Fault::Invalid(error.under(&format!("observed[{at}]"))))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let view = self.sync.registry.view();
        let told = observed.len();
        let ours: Vec<Observed> = observed
            .into_iter()
            .filter_map(|observed| {
                let scope = &self.caller.scope;
                let registry = &self.sync.registry;
                let subject = registry.kept_under(scope, &observed.subject, &view)?;
                Some(Observed {
                    subject,
                    ..observed
                })
            })
            .collect();
        if ours.len() < told {
            tracing::warn!(sidecar = %self.caller.identity, count = told.saturating_sub(ours.len()), "reports about subjects beyond its scope are not kept");
        }
        if !ours.is_empty() {
            let store = &self.sync.registry.store;
            let kept = store.observe(&self.caller.identity, &ours).await;
            kept.map_err(Error::Store)?;
        }
        if let Some(deliveries) = &self.sync.deliveries {
            deliveries.saw(&view, &ours).await.map_err(Error::Store)?;
        }
        let usage = match (usage, &self.sync.recording) {
            (Some(batch), Some(recording)) => {
                let Caller {
                    identity, scope, ..
                } = &self.caller;
                Some(recording.usages.take(identity, scope, batch).await?)
            }
            (Some(_) | None, _) => None,
        };
        Ok(Some(v1::ReportResponse {
            acknowledged: sequence,
            usage,
        }))
    }
}

fn read(message: v1::ObservedFacet) -> Result<Observed, Invalid> {
    let v1::ObservedFacet {
        subject,
        facet,
        digest,
        first_time,
        last_time,
        sidecar: _,
    } = message;
    let observed = Observed {
        subject: SubjectId::parse(&subject).map_err(|error| error.under("subject"))?,
        facet: Facet::parse(&facet).map_err(|error| error.under("facet"))?,
        digest: Digest::parse(&digest).map_err(|error| error.under("digest"))?,
        first: time("first_time", first_time)?,
        last: time("last_time", last_time)?,
    };
    if observed.last < observed.first {
        let fix = "send when it was first and last seen";
        return Err(Invalid::new("last_time", "is before `first_time`", fix));
    }
    Ok(observed)
}
