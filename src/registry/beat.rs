//! How often a task of the registry looks at what it is for: when something has changed, when
//! something is due, and later where that cannot be done.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::runtime::publish::Changes;

use super::core::Registry;

/// How often the clock, and what changed, is looked at: many changes are looked at once.
const LOOK: Duration = Duration::from_millis(200);
/// How long until it is tried again, where the store or the registry cannot.
const LATER: Duration = Duration::from_secs(10);

/// The beat of a task.
#[derive(Debug)]
pub(super) struct Beat {
    changes: Changes,
    stop: CancellationToken,
    again: bool,
    pause: Duration,
}

impl Beat {
    /// One that begins with a look, and ends with `stop`.
    pub(super) fn new(registry: &Registry, stop: &CancellationToken) -> Self {
        Self {
            changes: registry.changes(),
            stop: stop.clone(),
            again: true,
            pause: LOOK,
        }
    }

    /// Whether there is something to look at now: something has changed, or is `due`, or could not
    /// be done before.
    pub(super) fn looks(&mut self, due: bool) -> bool {
        std::mem::take(&mut self.again) || due
    }

    /// It cannot be done: it is tried again, and not at once.
    pub(super) fn failed(&mut self) {
        self.again = true;
        self.pause = LATER;
    }

    /// Nobody answers: what is due may be, and not at once.
    pub(super) fn rests(&mut self) {
        self.pause = LATER;
    }

    /// Waits until it is time to look; false once the task is to stop.
    pub(super) async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return false,
            () = sleep(std::mem::replace(&mut self.pause, LOOK)) => {}
        }
        self.again |= self.changes.came();
        true
    }
}
