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

/// What there is to see to.
#[derive(Debug, Default)]
pub(super) struct Attention {
    active: usize,
    high: usize,
    ending: Vec<v1::Case>,
    waiting: u32,
    overdue: bool,
    mine: usize,
}

/// Asks the registry.
pub(super) async fn attention(
    registry: &mut Registry,
    now: Option<prost_types::Timestamp>,
) -> Result<Attention, Exit> {
    let mut found = Attention::default();
    let soon = time("", now).ok().map(|now| now + SOON);
    for case in cases(registry, "APPROVED", false).await? {
        found.active = found.active.saturating_add(1);
        found.high = found.high.saturating_add(usize::from(case.tier == "HIGH"));
        let end: Option<Timestamp> = time("", case.expire_time).ok();
        if end.zip(soon).is_some_and(|(end, soon)| end <= soon) {
            found.ending.push(case);
        }
    }
    found
        .ending
        .sort_by_key(|case| case.expire_time.map(|end| (end.seconds, end.nanos)));
    found.mine = cases(registry, "", true).await?.len();
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

async fn cases(
    registry: &mut Registry,
    state: &str,
    waiting_for_me: bool,
) -> Result<Vec<v1::Case>, Exit> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListCasesRequest {
            state: state.into(),
            waiting_for_me,
            page_size: 1_000,
            page_token,
        };
        let answer = registry.exceptions.list_cases(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        all.extend(answer.cases);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

impl Attention {
    pub(super) fn json(&self) -> Json {
        let ending: Vec<_> = self.ending.iter().map(|case| &case.id).collect();
        json!({"exceptions": self.active, "high": self.high, "endingWithinDay": ending, "waitingForYou": self.mine, "waiting": self.waiting, "overdue": self.overdue})
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let count = |n: usize, one: &str, many: &str| match n {
            1 => format!("1 {one}"),
            n => format!("{n} {many}"),
        };
        let held = count(self.active, "exception holds", "exceptions hold");
        let mut lines = vec![format!("  {held}, {} of them HIGH", self.high)];
        let mut says = |text: String, command: &str| {
            let mark = styled(BAD, "!");
            let line = format!("  {mark} {text}  {}", styled(DIM, command));
            lines.push(line.trim_end().to_owned());
        };
        for case in self.ending.iter().take(MOST) {
            let end = shown(case.expire_time);
            says(
                format!(
                    "{} ({}) ends {end}, owner {}",
                    case.id, case.tier, case.owner
                ),
                "",
            );
        }
        if let Some(more) = self.ending.len().checked_sub(MOST).filter(|more| *more > 0) {
            says(
                format!("{more} more end within a day"),
                "exeat exception list --state APPROVED",
            );
        }
        if self.mine > 0 {
            let requests = count(self.mine, "request waits for you", "requests wait for you");
            says(requests, "exeat exception list --waiting-for-me");
        }
        if self.waiting > 0 {
            let waiting = usize::try_from(self.waiting).unwrap_or(usize::MAX);
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
