//! One writer, many readers: an immutable value that is swapped, and a signal that it was.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::watch;

/// A value that is published, not shared.
#[derive(Debug)]
pub struct Published<T> {
    value: ArcSwapOption<T>,
    changes: watch::Sender<u64>,
}

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self {
            value: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
        }
    }
}

impl<T> Published<T> {
    /// Replaces the value; readers that loaded the old one keep it to the end of their work.
    pub fn publish(&self, value: Arc<T>) {
        self.value.store(Some(value));
        self.changes
            .send_modify(|count| *count = count.saturating_add(1));
    }

    /// The value now, cheaply; nothing before the first was published.
    pub fn load(&self) -> Guard<Option<Arc<T>>> {
        self.value.load()
    }

    /// The value now, to keep.
    pub fn get(&self) -> Option<Arc<T>> {
        self.value.load_full()
    }

    /// Counts the values published; changes with each.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
