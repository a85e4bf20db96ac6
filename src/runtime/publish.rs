//! One writer, many readers: an immutable value that is swapped, and a signal that it was.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

/// A value that is published, not shared.
#[derive(Debug)]
pub struct Published<T> {
    value: ArcSwapOption<T>,
    signal: Arc<Signal>,
    /// To whoever lets others go first.
    later: Arc<Signal>,
}

/// How many values were published; whoever waits is woken in the order of asking, so that a
/// simulation's trace is its seed's.
#[derive(Debug, Default)]
struct Signal {
    count: AtomicU64,
    news: Notify,
}

impl Signal {
    fn give(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.news.notify_waiters();
    }

    fn changes(self: &Arc<Self>) -> Changes {
        Changes {
            seen: self.count.load(Ordering::SeqCst),
            signal: Arc::clone(self),
        }
    }
}

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self {
            value: ArcSwapOption::empty(),
            signal: Arc::default(),
            later: Arc::default(),
        }
    }
}

impl<T> Published<T> {
    /// Replaces the value; readers that loaded the old one keep it to the end of their work.
    pub fn publish(&self, value: Arc<T>) {
        self.value.store(Some(value));
        self.signal.give();
    }

    /// Tells whoever lets others go first that something was published: that is for somebody to do
    /// after each [`Self::publish`].
    pub fn pass_on(&self) {
        self.later.give();
    }

    /// The value now, cheaply; nothing before the first was published.
    pub fn load(&self) -> Guard<Option<Arc<T>>> {
        self.value.load()
    }

    /// The value now, to keep.
    pub fn get(&self) -> Option<Arc<T>> {
        self.value.load_full()
    }

    /// Tells when a value is published from now on.
    pub fn changes(&self) -> Changes {
        self.signal.changes()
    }

    /// The same, once it is passed on.
    pub fn changes_later(&self) -> Changes {
        self.later.changes()
    }
}

/// Waits for values to be published.
#[derive(Debug)]
pub struct Changes {
    signal: Arc<Signal>,
    seen: u64,
}

impl Changes {
    /// Whether something was published since the last time, without waiting for it.
    pub fn came(&mut self) -> bool {
        let count = self.signal.count.load(Ordering::SeqCst);
        std::mem::replace(&mut self.seen, count) != count
    }

    /// Returns once something was published since the last time; several count as one. Nothing is
    /// missed if the wait is given up.
    pub async fn changed(&mut self) {
        loop {
            let mut news = pin!(self.signal.news.notified());
            // Woken also by what is published between the look and the wait.
            news.as_mut().enable();
            let count = self.signal.count.load(Ordering::SeqCst);
            if count != self.seen {
                self.seen = count;
                return;
            }
            news.await;
        }
    }
}
