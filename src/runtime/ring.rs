//! The last so many of a sequence, found by their number.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// A ring of numbered records, rewritten in place: keeping one costs an uncontended lock, and no
/// memory that the one before it has not already taken.
#[derive(Debug)]
pub struct Ring<T> {
    places: Box<[Mutex<(u64, T)>]>,
    next: AtomicU64,
    added: Notify,
}

impl<T: Default> Ring<T> {
    /// A ring of `size` places, numbering from 1.
    pub fn new(size: usize) -> Self {
        Self {
            places: (0..size).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(1),
            added: Notify::new(),
        }
    }

    /// The next number, for a record that is about to be kept.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Rewrites the record of `size` numbers ago into that of `number`.
    pub fn keep(&self, number: u64, rewrite: impl FnOnce(&mut T)) {
        if let Some(place) = self.place(number) {
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            // One that comes so late that its successor is there is not kept.
            if place.0 <= number {
                place.0 = number;
                rewrite(&mut place.1);
            }
        }
        self.added.notify_waiters();
    }

    /// What `read` makes of the record of `number`, if it is among the last.
    pub fn read<R>(&self, number: u64, read: impl FnOnce(&T) -> R) -> Option<R> {
        let place = self
            .place(number)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (number > 0 && place.0 == number).then(|| read(&place.1))
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
            // Registered before looking, so that nothing kept in between is missed.
            added.as_mut().enable();
            if self.read(number, |_| ()).is_some()
                || self.upcoming() > number.saturating_add(self.size())
            {
                return;
            }
            added.await;
        }
    }

    fn place(&self, number: u64) -> Option<&Mutex<(u64, T)>> {
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
        let ring: Ring<u64> = Ring::new(3);
        for n in 1..=5_u64 {
            assert_eq!(ring.number(), n);
            ring.keep(n, |place| *place = n * 10);
        }
        let get = |n| ring.read(n, |record| *record);
        assert_eq!(
            (get(0), get(2), get(3), get(5), get(6)),
            (None, None, Some(30), Some(50), None)
        );
        ring.keep(1, |place| *place = 0);
        assert_eq!(
            get(4),
            Some(40),
            "a late record does not replace a newer one"
        );
    }
}
