//! The last so many of a sequence, found by their number.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// Places that are made together, when the first of them is needed.
const ROW: usize = 250;

type Row<T> = OnceLock<Box<[Mutex<(u64, T)>]>>;

/// A ring of numbered records, rewritten in place: once it is full, keeping one costs an
/// uncontended lock and no memory that the one before it has not already taken.
#[derive(Debug)]
pub struct Ring<T> {
    rows: Box<[Row<T>]>,
    next: AtomicU64,
    added: Notify,
}

impl<T: Default> Ring<T> {
    /// A ring of at least `size` places, numbering from 1.
    pub fn new(size: usize) -> Self {
        Self {
            rows: (0..size.div_ceil(ROW)).map(|_| OnceLock::new()).collect(),
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
        if let Some((row, at)) = self.place(number)
            && let Some(place) = row
                .get_or_init(|| (0..ROW).map(|_| Mutex::default()).collect())
                .get(at)
        {
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
        let (row, at) = self.place(number)?;
        let place = row
            .get()?
            .get(at)?
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
        (self.rows.len() * ROW) as u64
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

    /// The row of `number`, made or not, and its place there.
    fn place(&self, number: u64) -> Option<(&Row<T>, usize)> {
        let at = usize::try_from(number.checked_rem(self.size())?).ok()?;
        Some((self.rows.get(at / ROW)?, at % ROW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept() {
        let ring: Ring<u64> = Ring::new(300);
        assert_eq!(ring.size(), 500, "whole rows");
        for n in 1..=1_200_u64 {
            assert_eq!(ring.number(), n);
            ring.keep(n, |place| *place = n * 10);
        }
        let get = |n| ring.read(n, |record| *record);
        assert_eq!(
            (get(0), get(700), get(701), get(1_200), get(1_201)),
            (None, None, Some(7_010), Some(12_000), None)
        );
        ring.keep(201, |place| *place = 0);
        assert_eq!(
            get(701),
            Some(7_010),
            "a late record does not replace a newer one"
        );
    }
}
