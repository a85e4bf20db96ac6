//! Recent decisions as lines of JSON, one after the other, for whoever follows them. Nobody who
//! decides waits for that: who follows too slowly misses some, and is told how many.

use std::{fmt::Write as _, sync::Arc};

use super::{
    decider::Decider,
    record::{DecisionLine, Kept},
};

/// About how many bytes are made at a time.
const CHUNK: usize = 64 << 10;

/// A place in the sequence of decisions.
#[derive(Debug)]
pub(super) struct Lines {
    decider: Arc<Decider>,
    next: u64,
    shown: Arc<[Box<str>]>,
}

impl Lines {
    /// Begins with the last so many. Of what callers said beside names, what is called as one of
    /// `shown` is shown.
    pub(super) fn of(decider: Arc<Decider>, last: u64, shown: Arc<[Box<str>]>) -> Self {
        let recent = &decider.recent;
        let next = recent
            .upcoming()
            .saturating_sub(last.min(recent.size()))
            .max(1);
        Self {
            decider,
            next,
            shown,
        }
    }

    /// The lines there are, some at a time, and how many decisions were missed before and between
    /// them.
    pub(super) fn ready(&mut self) -> (String, u64) {
        let recent = &self.decider.recent;
        let mut chunk = String::new();
        let mut missed = 0_u64;
        let upcoming = recent.upcoming();
        let oldest = upcoming.saturating_sub(recent.size()).max(1);
        if self.next < oldest {
            missed = oldest.saturating_sub(self.next);
            say_missed(&mut chunk, missed);
            self.next = oldest;
        }
        while self.next < upcoming && chunk.len() < CHUNK {
            // One that is still being made is waited for; one that is gone is not.
            let read = |kept: &Kept| (kept.is_answered(), kept.recall());
            let Some((answered, record)) = recent.read(self.next, read) else {
                break;
            };
            if let Some(record) = record {
                let line = DecisionLine::of(&record, &self.shown);
                chunk.push_str(&serde_json::to_string(&line).unwrap_or_default());
                chunk.push('\n');
            } else if answered {
                missed = missed.saturating_add(1);
                say_missed(&mut chunk, 1);
            }
            self.next = self.next.saturating_add(1);
        }
        (chunk, missed)
    }

    /// Waits for the next decision.
    pub(super) async fn wait(&mut self) {
        self.decider.recent.reached(self.next).await;
    }
}

fn say_missed(chunk: &mut String, missed: u64) {
    // Writing to a string does not fail.
    let _ = writeln!(chunk, "{{\"apiVersion\":\"exeat/v1\",\"missed\":{missed}}}");
}
