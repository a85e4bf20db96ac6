//! What waits for people, and nothing else (R8).

use std::{collections::HashMap, sync::Arc};

use crate::{
    domain::{Case, ControlId, Disposition, ExceptionState, Finding, Timestamp},
    registry::{core::Registry, view::View},
    wire::{Fault, sync::stamp, v1},
};

use super::{
    exceptions::open_seats,
    findings::{disposed, pending},
    paging::{Key, paged},
};

/// What is due first comes first; what has no end comes last.
fn waiting(view: &View, now: Timestamp) -> Vec<(Key, v1::QueueItem)> {
    let mut items = Vec::new();
    let mut add = |kind: v1::QueueKind, key: &str, due: Option<Timestamp>, of: v1::QueueItem| {
        let item = v1::QueueItem {
            kind: kind.into(),
            due: due.map(stamp),
            overdue: due.is_some_and(|due| due <= now),
            ..of
        };
        let key = format!("{}/{key}", kind.as_str_name()).into();
        items.push(((false, due.unwrap_or(Timestamp::MAX), key), item));
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
            // What is paused goes on by itself, and what it waits for is a finding.
            ExceptionState::Suspended if case.paused.is_none() => {
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
    let mut waiting: HashMap<&ControlId, Vec<&Arc<Case>>> = HashMap::new();
    for case in pending(view) {
        for control in &case.request.controls {
            waiting.entry(control).or_default().push(case);
        }
    }
    let open = |finding: &&Arc<Finding>| finding.satisfied.is_none();
    for finding in view.findings.values().filter(open) {
        let waiting = waiting.get(&finding.control).map_or(&[][..], Vec::as_slice);
        if disposed(view, waiting, finding, now) != Disposition::None {
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
    items
}

/// A page of it.
pub(super) fn queue(
    registry: &Registry,
    asks: &v1::ListQueueRequest,
) -> Result<v1::ListQueueResponse, Fault> {
    let (view, now) = (registry.view(), registry.clock.now().latest);
    let all = waiting(&view, now);
    let total = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let page = paged(all, Ord::cmp, (asks.page_size, &asks.page_token))?;
    Ok(v1::ListQueueResponse {
        next_page_token: page.next,
        items: page.items,
        total,
    })
}
