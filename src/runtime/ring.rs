//! The last so many of a sequence, found by their number.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// A ring of numbered records. Putting one costs one uncontended lock.
#[derive(Debug)]
pub struct Ring<T> {
    places: Box<[Mutex<Option<(u64, Arc<T>)>>]>,
    next: AtomicU64,
    added: Notify,
}

impl<T> Ring<T> {
    /// A ring of `size` places, numbering from 1.
    pub fn new(size: usize) -> Self {
        Self {
            places: (0..size).map(|_| Mutex::new(None)).collect(),
            next: AtomicU64::new(1),
            added: Notify::new(),
        }
    }

    /// The next number, for a record that is about to be put.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts the record of `number` in place of the one `size` numbers ago.
    pub fn put(&self, number: u64, record: Arc<T>) {
        let old = self.place(number).and_then(|place| {
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            let newer = place.as_ref().is_some_and(|(known, _)| *known > number);
            if newer {
                Some((number, record))
            } else {
                place.replace((number, record))
            }
        });
        // Freed outside the lock.
        drop(old);
        self.added.notify_waiters();
    }

    /// The record of `number`, if it is among the last.
    pub fn get(&self, number: u64) -> Option<Arc<T>> {
        let place = self
            .place(number)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        place
            .as_ref()
            .filter(|(known, _)| *known == number)
            .map(|(_, record)| Arc::clone(record))
    }

    /// The number the next record will have.
    pub fn upcoming(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// How many records are kept.
    pub fn size(&self) -> u64 {
        self.places.len() as u64
    }

    /// Waits until the record of `number` is there, or has come and gone.
    pub async fn reached(&self, number: u64) {
        loop {
            let mut added = std::pin::pin!(self.added.notified());
            // Registered before looking, so that nothing put in between is missed.
            added.as_mut().enable();
            if self.get(number).is_some() || self.upcoming() > number.saturating_add(self.size()) {
                return;
            }
            added.await;
        }
    }

    fn place(&self, number: u64) -> Option<&Mutex<Option<(u64, Arc<T>)>>> {
        let size = self.places.len() as u64;
        self.places
            .get(usize::try_from(number.checked_rem(size)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept() {
        let ring = Ring::new(3);
        for n in 1..=5_u64 {
            assert_eq!(ring.number(), n);
            ring.put(n, Arc::new(n * 10));
        }
        assert_eq!(
            (
                ring.get(2),
                ring.get(3).as_deref(),
                ring.get(5).as_deref(),
                ring.get(6)
            ),
            (None, Some(&30), Some(&50), None)
        );
        ring.put(1, Arc::new(0));
        assert_eq!(
            ring.get(4).as_deref(),
            Some(&40),
            "a late record does not replace a newer one"
        );
    }
}
