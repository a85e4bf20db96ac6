//! Records that wait to be sent: bounded in bytes, and what does not fit is counted, never waited
//! for.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

/// How large what is sent at once gets, in bytes. Receivers take 4 MiB by default.
const BATCH: usize = 512 << 10;
/// Most bytes that wait, whatever becomes of the receiver.
pub(super) const LIMIT: usize = 4 << 20;

/// Some records, one after the other, each under the key its list has.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<u8>,
    pub(super) count: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    filling: Batch,
    full: VecDeque<Batch>,
    /// Bytes of both.
    bytes: usize,
}

/// Records on their way out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record; how many older ones are lost for it.
    #[must_use = "what is lost is counted"]
    pub(super) fn add(&self, record: &[u8]) -> u64 {
        let mut waiting = self.waiting();
        let waiting = &mut *waiting;
        let mut lost = 0;
        waiting.bytes = waiting.bytes.saturating_add(record.len());
        while waiting.bytes > LIMIT
            && let Some(oldest) = waiting.full.pop_front()
        {
            waiting.bytes = waiting.bytes.saturating_sub(oldest.records.len());
            lost += oldest.count;
        }
        if waiting.bytes > LIMIT {
            waiting.bytes = waiting.bytes.saturating_sub(record.len());
            return lost + 1;
        }
        if waiting.filling.records.capacity() == 0 {
            waiting.filling.records.reserve(BATCH + (4 << 10));
        }
        waiting.filling.records.extend_from_slice(record);
        waiting.filling.count += 1;
        if waiting.filling.records.len() >= BATCH {
            let full = std::mem::take(&mut waiting.filling);
            waiting.full.push_back(full);
            self.filled.notify_one();
        }
        lost
    }

    /// What is to be sent next: at once if there is enough of it, else after `delay`.
    pub(super) async fn next(&self, delay: Duration) -> Batch {
        let filled = async {
            loop {
                let oldest = self.waiting().full.pop_front();
                if let Some(batch) = oldest {
                    return batch;
                }
                self.filled.notified().await;
            }
        };
        let batch = tokio::select! {
            biased;
            batch = filled => batch,
            () = sleep(delay) => return self.rest(),
        };
        self.taken(&batch);
        batch
    }

    /// What is there now.
    pub(super) fn rest(&self) -> Batch {
        let batch = {
            let mut waiting = self.waiting();
            match waiting.full.pop_front() {
                Some(batch) => batch,
                None => std::mem::take(&mut waiting.filling),
            }
        };
        self.taken(&batch);
        batch
    }

    fn taken(&self, batch: &Batch) {
        let mut waiting = self.waiting();
        waiting.bytes = waiting.bytes.saturating_sub(batch.records.len());
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.waiting().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_counted() {
        let outbox = Outbox::default();
        let record = [7; 1_000];
        let (mut lost, mut added) = (0, 0_u64);
        for _ in 0..20_000 {
            lost += outbox.add(&record);
            added += 1;
            assert!(outbox.bytes() <= LIMIT);
        }
        let mut kept = 0;
        loop {
            let batch = outbox.rest();
            if batch.count == 0 {
                break;
            }
            assert_eq!(batch.records.len() as u64, batch.count * 1_000);
            assert!(batch.records.len() <= BATCH + 1_000);
            kept += batch.count;
        }
        assert!(lost > 0);
        assert_eq!(kept + lost, added, "each is sent or counted");
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(outbox.add(&vec![0; LIMIT + 1]), 1, "too large for any room");
        assert_eq!(outbox.add(&record), 0);
        assert_eq!(outbox.rest().count, 1);
    }
}
