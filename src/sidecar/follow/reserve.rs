//! Reserving: uses of exceptions that are limited are set aside by the registry before they are
//! used, and what is left of them goes back.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{ExceptionId, Span},
    sidecar::evidence::{Asking, ReservationId},
    wire::{signed::random, v1},
};

use super::lanes::{Following, SLOW, told};

/// Longest wait of a call for what it is to rest on.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often what is left over is looked for.
const TIDY: Duration = Duration::from_secs(5);

fn returned(over: &[(ReservationId, u64)]) -> Vec<v1::ReturnedUses> {
    let one = |(id, unused): &(ReservationId, u64)| v1::ReturnedUses {
        reservation_id: id.to_vec(),
        unused: *unused,
    };
    over.iter().map(one).collect()
}

impl Following {
    /// Has uses of an exception set aside, if none are by now; gives up at `deadline`, and says whether
    /// it did not.
    pub(in crate::sidecar) async fn reserve(
        &self,
        exception: &ExceptionId,
        deadline: Instant,
    ) -> bool {
        let work = async {
            // Whoever waited for the one before finds what it brought.
            let _turn = self.reserving.lock().await;
            let now = self.keeper.clock.elapsed();
            let Ok(id) = random() else { return };
            let Some(asking) = self.purse.ask(exception, now, id) else {
                return;
            };
            if let Err(why) = self.asked(exception, &asking).await {
                tracing::warn!(%exception, why, "no uses are reserved");
            }
        };
        let until = deadline.min(Instant::now() + PATIENCE);
        timeout_at(until, work).await.is_ok()
    }

    async fn asked(&self, exception: &ExceptionId, asking: &Asking) -> Result<(), String> {
        let wanted = v1::WantedUses {
            exception_id: exception.to_string(),
            reservation_id: asking.id.to_vec(),
            uses: asking.uses,
            returned: returned(&asking.over),
        };
        let reserved = self.said(wanted).await?;
        let valid = Span::from_secs(i64::from(reserved.valid_seconds));
        let now = self.keeper.clock.elapsed();
        self.purse.answered(
            exception,
            asking,
            (reserved.uses, reserved.left),
            valid,
            now,
        );
        Ok(())
    }

    async fn said(&self, wanted: v1::WantedUses) -> Result<v1::ReservedUses, String> {
        let mut client = self.lent().ok_or("the registry is not connected")?;
        let request = v1::ReserveRequest {
            wanted: vec![wanted],
        };
        let answer = timeout(SLOW, client.reserve(request)).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?;
        let answer = answer.map_err(|status| told(&status))?.into_inner();
        let [reserved] = answer.reserved.as_slice() else {
            return Err("another number of answers than of questions".into());
        };
        Ok(*reserved)
    }

    /// Gives back what is left of reservations whose time is over, and keeps the registry's time,
    /// until told to stop: what waits for a disk waits on no lane.
    pub(in crate::sidecar) async fn give_back(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep(TIDY) => {}
            }
            self.keeper.keep_time().await;
            for (exception, over) in self.purse.overdue(self.keeper.clock.elapsed()) {
                let wanted = v1::WantedUses {
                    exception_id: exception.to_string(),
                    returned: returned(&over),
                    ..v1::WantedUses::default()
                };
                // What cannot go back now goes later.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    said = self.said(wanted) => if said.is_ok() {
                        self.purse.returned(&exception, &over);
                    }
                }
            }
        }
    }
}
