//! What waits for people, and nothing else (R8).

use std::sync::Arc;

use crate::{
    domain::{Disposition, ExceptionState, Finding, Timestamp},
    registry::{core::Registry, view::View},
    wire::{sync::stamp, v1},
};

use super::{
    exceptions::open_seats,
    findings::{disposed, pending},
    page,
};

/// What is due first comes first; what has no end comes last.
type Key = (Timestamp, Box<str>);

fn ordered(view: &View, now: Timestamp) -> Vec<(Key, v1::QueueItem)> {
    let mut items = Vec::new();
    let mut add = |kind: v1::QueueKind, key: &str, due: Option<Timestamp>, of: v1::QueueItem| {
        let item = v1::QueueItem {
            kind: kind.into(),
            due: due.map(stamp),
            overdue: due.is_some_and(|due| due <= now),
            ..of
        };
        let key = format!("{}/{key}", kind.as_str_name()).into();
        items.push(((due.unwrap_or(Timestamp::MAX), key), item));
    };
    for case in view.cases.values() {
        let of = |what: String| v1::QueueItem {
            exception_id: case.id.to_string(),
            owner: case.request.owner.to_string(),
            what,
            ..v1::QueueItem::default()
        };
        let id = case.id.as_str();
        let terms = case.terms.as_ref();
        match case.state {
            ExceptionState::Pending => {
                let due = terms.and_then(|terms| terms.deadline);
                let what = format!("waits for {}", open_seats(view, case, now).join(", "));
                add(v1::QueueKind::Decision, id, due, of(what));
            }
            ExceptionState::Suspended => {
                // From then on there is nothing to be looked at again.
                let due = case.granted.map(|granted| granted.expire);
                if due.is_none_or(|due| due > now) {
                    let what = format!("is suspended: {}", case.reason);
                    add(v1::QueueKind::Suspended, id, due, of(what));
                }
            }
            _ => {}
        }
        let debt = case.debt.as_ref();
        if let Some((debt, what)) = debt.and_then(|debt| Some((debt, debt.overdue(now)?))) {
            let due = if debt.looked.is_none() {
                debt.look_due.min(debt.closure_due)
            } else {
                debt.closure_due
            };
            let what = format!("{what} is overdue");
            add(v1::QueueKind::Closure, id, Some(due), of(what));
        }
    }
    let waiting = pending(view);
    let open = |finding: &&Arc<Finding>| finding.satisfied.is_none();
    for finding in view.findings.values().filter(open) {
        if disposed(view, &waiting, finding, now) != Disposition::None {
            continue;
        }
        let of = v1::QueueItem {
            control_id: finding.control.to_string(),
            subject: finding.subject.to_string(),
            owner: finding.owner.to_string(),
            what: finding.message.to_string(),
            ..v1::QueueItem::default()
        };
        let key = Finding::key(&finding.control, &finding.subject);
        add(v1::QueueKind::Finding, &key, Some(finding.due), of);
    }
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    items
}

/// A page of it.
pub(super) fn queue(registry: &Registry, asks: &v1::ListQueueRequest) -> v1::ListQueueResponse {
    let (view, now) = (registry.view(), registry.clock.now().latest);
    let token = |(due, key): &Key| format!("{} {key}", due.micros());
    let all = ordered(&view, now);
    let found = all
        .iter()
        .position(|(key, _)| token(key) == asks.page_token);
    let after = found.map_or(0, |at| at.saturating_add(1));
    let shown: Vec<_> = all.iter().skip(after).take(page(asks.page_size)).collect();
    let more = all.len() > after.saturating_add(shown.len());
    v1::ListQueueResponse {
        next_page_token: shown
            .last()
            .filter(|_| more)
            .map(|(key, _)| token(key))
            .unwrap_or_default(),
        items: shown.into_iter().map(|(_, item)| item.clone()).collect(),
        total: u32::try_from(all.len()).unwrap_or(u32::MAX),
    }
}
