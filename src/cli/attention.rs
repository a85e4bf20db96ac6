//! What of exceptions `exeat status` says: how many hold, what ends soon, and what waits for whom.

use serde_json::{Value as Json, json};

use crate::{
    domain::{Span, Timestamp},
    wire::{sync::time, v1},
};

use super::{
    govern::shown,
    reach::{Registry, refused},
    run::Exit,
    screen::{BAD, DIM, styled},
};

/// An end that is nearer is told of.
const SOON: Span = Span::from_hours(24);
/// Most of these.
const MOST: usize = 5;

/// Most cases that are looked at.
const PAGE: u32 = 1_000;

/// What there is to see to.
#[derive(Debug, Default)]
pub(super) struct Attention {
    /// Exceptions in force that were requested, and whether there are more.
    held: (usize, bool),
    /// How many of them are of tier HIGH.
    high: usize,
    ending: Vec<v1::Case>,
    waiting: u32,
    overdue: bool,
    mine: (usize, bool),
}

/// Asks the registry.
pub(super) async fn attention(
    registry: &mut Registry,
    now: Option<prost_types::Timestamp>,
) -> Result<Attention, Exit> {
    let mut found = Attention::default();
    let now = time("", now).unwrap_or(Timestamp::MIN);
    let (cases_, more) = cases(registry, "APPROVED", false).await?;
    found.held.1 = more;
    for case in cases_ {
        let at = |stamp| time("", stamp).ok();
        let (start, end) = (at(case.effective_time), at(case.expire_time));
        let Some((start, end)) = start.zip(end) else {
            continue;
        };
        if start <= now && now < end {
            found.held.0 = found.held.0.saturating_add(1);
            found.high = found.high.saturating_add(usize::from(case.tier == "HIGH"));
            if end <= now + SOON {
                found.ending.push(case);
            }
        }
    }
    found
        .ending
        .sort_by_key(|case| case.expire_time.map(|end| (end.seconds, end.nanos)));
    let (mine, more) = cases(registry, "", true).await?;
    found.mine = (mine.len(), more);
    let request = v1::ListQueueRequest {
        // Due first: if any is overdue, the first is.
        page_size: 1,
        ..v1::ListQueueRequest::default()
    };
    let queue = registry.reports.list_queue(request).await;
    let queue = queue.map_err(|status| refused(&status))?.into_inner();
    found.waiting = queue.total;
    found.overdue = queue.items.iter().any(|item| item.overdue);
    Ok(found)
}

/// The latest cases, and whether there are more.
async fn cases(
    registry: &mut Registry,
    state: &str,
    waiting_for_me: bool,
) -> Result<(Vec<v1::Case>, bool), Exit> {
    let request = v1::ListCasesRequest {
        state: state.into(),
        waiting_for_me,
        page_size: PAGE,
        ..v1::ListCasesRequest::default()
    };
    let answer = registry.exceptions.list_cases(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    Ok((answer.cases, !answer.next_page_token.is_empty()))
}

fn count((n, more): (usize, bool), one: &str, many: &str) -> String {
    match (n, more) {
        (1, false) => format!("1 {one}"),
        (n, false) => format!("{n} {many}"),
        (n, true) => format!("{n} {many}, and there may be more"),
    }
}

impl Attention {
    pub(super) fn json(&self) -> Json {
        let ending: Vec<_> = self.ending.iter().map(|case| &case.id).collect();
        json!({"requestedInForce": self.held.0, "high": self.high, "endingWithinDay": ending, "waitingForYou": self.mine.0, "more": self.held.1 || self.mine.1, "waiting": self.waiting, "overdue": self.overdue})
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let held = count(
            self.held,
            "exception that was requested holds",
            "exceptions that were requested hold",
        );
        let high = match self.high {
            0 => String::new(),
            high => format!(", {high} of tier HIGH"),
        };
        let mut lines = vec![format!("  {held}{high}")];
        let mut says = |text: String, command: &str| {
            let mark = styled(BAD, "!");
            let line = format!("  {mark} {text}  {}", styled(DIM, command));
            lines.push(line.trim_end().to_owned());
        };
        for case in self.ending.iter().take(MOST) {
            let end = shown(case.expire_time);
            says(format!("{} ends {end}, owner {}", case.id, case.owner), "");
        }
        if let Some(more) = self.ending.len().checked_sub(MOST).filter(|more| *more > 0) {
            says(
                format!("{more} more end within a day"),
                "exeat exception list --state APPROVED",
            );
        }
        if self.mine.0 > 0 {
            let requests = count(self.mine, "request waits for you", "requests wait for you");
            says(requests, "exeat exception list --waiting-for-me");
        }
        if self.waiting > 0 {
            let waiting = usize::try_from(self.waiting).unwrap_or(usize::MAX);
            let waiting = (waiting, false);
            let waiting = count(waiting, "thing waits for people", "things wait for people");
            let overdue = if self.overdue {
                ", not all in time"
            } else {
                ""
            };
            says(format!("{waiting}{overdue}"), "exeat queue");
        }
        lines
    }
}
