//! What the clock and the world do to exceptions: recorded here, in force at sidecars already.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        Case, Cause, Debt, ExceptionState, Kind, Name, OnChange, Removal, Span, Terms, Timestamp,
    },
    engine::{
        Against, ByUse, against, by_use,
        lifecycle::{Event, due, step},
        rests_until, revised, rules_for, unused_from,
    },
};

use super::{
    beat::Beat,
    cases::{fade, nobody, planned, put, removal},
    core::{Draft, Planned, Registry},
    uses::Uses,
    view::View,
    workflow::Refused,
};

/// Most cases moved by one transaction.
const MOST: usize = 500;
/// How long an exception that ended still says at sidecars why it is not honoured.
const SHOWN: Span = Span::from_days(30);
/// In whose name.
const SYSTEM: &str = "service:registry";

/// What is to happen to a case now, and why.
fn demanded(view: &View, uses: &Uses, case: &Case, now: Timestamp) -> Option<(Event, Cause)> {
    if let (Some(event), _) = due(case, now) {
        return Some((event, Cause::Admin));
    }
    let terms = case.terms.as_ref()?;
    let pending = match case.state {
        ExceptionState::Pending => true,
        ExceptionState::Approved | ExceptionState::Suspended => false,
        ExceptionState::Draft
        | ExceptionState::Denied
        | ExceptionState::Withdrawn
        | ExceptionState::Lapsed
        | ExceptionState::Expired
        | ExceptionState::Revoked
        | ExceptionState::Closed => return None,
    };
    if !pending && view.snapshot.takes_back(case.id.as_str()) {
        return Some((Event::Revoke("taken back".into()), Cause::Admin));
    }
    let anew = pending.then(|| revised(terms, &view.snapshot)).flatten();
    let found = against(&case.request, terms, &view.snapshot, now);
    let found = match found {
        // What ends it or changes its ground is more than that it is to be seen anew.
        Some(Against::Ends(_) | Against::Changed(_)) => found,
        lesser => anew.or(lesser),
    };
    let Some(found) = found else {
        if pending {
            return None;
        }
        if case.paused.is_some() {
            let why = "what stood against it is gone";
            // The tier may want it looked at by now.
            let rules = rules_for(&case.request, terms.tier, &view.snapshot);
            let event = if rules.approval.auto_resume {
                Event::Resume(why.into())
            } else {
                Event::Suspend("its tier lets nothing go on by itself".into())
            };
            return Some((event, Cause::Admin));
        }
        return match used(view, uses, case, terms, now)? {
            ByUse::Closes(why) => Some((Event::Close(why.into()), Cause::Admin)),
            ByUse::Suspends(why) => Some((Event::Suspend(why.into()), Cause::Admin)),
        };
    };
    // What only waits may have to be looked at after all.
    let suspended = case.state == ExceptionState::Suspended && case.paused.is_none();
    let (why, of) = match found {
        Against::Ends(why) => (why, Cause::Offboarded),
        Against::Changed(why) => (why, Cause::ContextChanged),
        Against::Waits(why) if pending => (why, Cause::OwnerInactive),
        Against::Waits(why) => {
            return (!suspended).then(|| (Event::Suspend(why.into()), Cause::OwnerInactive));
        }
        Against::Breaches(_) if pending || case.state == ExceptionState::Suspended => return None,
        Against::Breaches(why) => {
            let rules = rules_for(&case.request, terms.tier, &view.snapshot);
            let event = if rules.approval.auto_resume {
                Event::Pause(why.into())
            } else {
                Event::Suspend(why.into())
            };
            return Some((event, Cause::ContextChanged));
        }
    };
    let over = of == Cause::Offboarded || terms.on_change == OnChange::Revoke;
    Some(match (pending, over, suspended) {
        (true, _, _) => (Event::Outdate(why.into()), of),
        (false, true, _) => (Event::Revoke(why.into()), of),
        (false, false, true) => return None,
        (false, false, false) => (Event::Suspend(why.into()), of),
    })
}

/// What stands against a case by how its exception was used.
fn used(view: &View, uses: &Uses, case: &Case, terms: &Terms, now: Timestamp) -> Option<ByUse> {
    let figures = uses.of(case.id.as_str(), now, Some(case.since))?;
    let rules = rules_for(&case.request, terms.tier, &view.snapshot);
    by_use(case, &rules, &figures, now)
}

/// When a case's exception counts as unused.
fn unused(view: &View, uses: &Uses, case: &Case) -> Option<Timestamp> {
    if case.state != ExceptionState::Approved {
        return None;
    }
    let terms = case.terms.as_ref()?;
    let figures = uses.of(case.id.as_str(), view.time, None)?;
    let rules = rules_for(&case.request, terms.tier, &view.snapshot);
    unused_from(case, &rules, &figures)
}

/// The cases `among` them that move by themselves, `most` at once, and what is taken back with them, after the
/// `first` that a transaction takes back already.
fn moves(
    view: &View,
    uses: &Uses,
    draft: Draft,
    (first, most): (usize, usize),
    among: impl Fn(&Case) -> bool,
) -> (Vec<Case>, Vec<Removal>) {
    let (mut next, mut removals) = (Vec::new(), Vec::new());
    for case in view.cases.values().filter(|case| among(case)) {
        if next.len() >= most {
            break;
        }
        let Some((event, cause)) = demanded(view, uses, case, draft.time) else {
            continue;
        };
        let revokes = matches!(event, Event::Revoke(_));
        let Ok(after) = step(case, event, draft.time, nobody) else {
            continue;
        };
        tracing::info!(exception = %case.id, from = %case.state, to = %after.state, reason = &*after.reason, "an exception moves by itself");
        if revokes && !view.snapshot.takes_back_itself(&case.id) {
            let place = first.saturating_add(removals.len());
            removals.push(removal(draft, place, &after, cause, SYSTEM));
        }
        next.push(after);
    }
    (next, removals)
}

/// Moves, in the same transaction, every case that what is planned moves: what a change takes the
/// ground from does not stand for a moment (R38).
///
/// # Errors
///
/// Cases that cannot be written.
pub(super) fn along(
    view: &View,
    uses: &Uses,
    draft: Draft,
    planned: &mut Planned,
) -> Result<(), Refused> {
    let mut removed = (**view.snapshot.removed()).clone();
    for removal in &planned.transaction.removals {
        removed.add(0, removal);
    }
    let mut after = View {
        snapshot: planned.snapshot.removing(Arc::new(removed)),
        ..view.clone()
    };
    for case in &planned.cases {
        after.cases.put(case.id.clone(), Arc::clone(case));
    }
    let first = planned.transaction.removals.len();
    // A revocation is not held up by looking at what it has nothing to do with.
    let revokes = first > 0;
    let among = |case: &Case| !revokes || after.snapshot.takes_back(case.id.as_str());
    let (next, removals) = moves(&after, uses, draft, (first, usize::MAX), among);
    if next.is_empty() {
        return Ok(());
    }
    planned.transaction.removals.extend(removals);
    put(view, draft, next, planned)
}

/// When a case's exception is to be sent to nobody any more; nothing while it may hold, or once
/// it is not.
fn fades(view: &View, case: &Case) -> Option<Timestamp> {
    let name = || Name::new(Kind::Exception, case.id.as_str());
    // What is owed for is still looked at.
    let owes = |debt: &Debt| debt.looked.is_none() || debt.closure.is_none();
    let settled = !case.debt.as_ref().is_some_and(owes);
    let shown = case.state.is_final() && settled && view.object(&name()).is_some();
    shown.then(|| case.since + SHOWN)
}

/// Whether that time has come.
fn faded(view: &View, case: &Case, now: Timestamp) -> bool {
    fades(view, case).is_some_and(|end| end <= now)
}

impl Registry {
    /// Moves every case that is due; tells when the next is due by the clock alone.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(super) async fn sweep(&self) -> Result<Option<Timestamp>, Refused> {
        let looked = loop {
            let (view, now) = (self.view(), self.clock.now().latest);
            // Nobody's turn is taken to find that nothing is due.
            let mut cases = view.cases.values();
            let due = |case: &Case| {
                demanded(&view, &self.uses, case, now).is_some() || faded(&view, case, now)
            };
            if !cases.any(|case| due(case)) {
                break now;
            }
            let moved = self
                .write(|view, draft| {
                    let (next, removals) = moves(view, &self.uses, draft, (0, MOST), |_| true);
                    let ended: Vec<_> = view
                        .cases
                        .values()
                        .filter(|case| faded(view, case, draft.time))
                        .map(|case| case.id.clone())
                        .take(MOST)
                        .collect();
                    let moved = next.len().saturating_add(ended.len());
                    if moved == 0 {
                        return Ok((None, 0));
                    }
                    let mut planned =
                        planned(view, draft, SYSTEM, "exception sweep", next, removals)?;
                    fade(view, draft, &ended, &mut planned)?;
                    Ok((Some(planned), moved))
                })
                .await?;
            if moved == 0 {
                break now;
            }
        };
        // What came to be due while it looked is due at once.
        let (view, now) = (self.view(), looked);
        let next = view.cases.values().flat_map(|case| {
            let unused = unused(&view, &self.uses, case);
            let open = case.state == ExceptionState::Pending || due(case, now).1.is_some();
            let rests = open.then(|| rests_until(&case.request, &view.snapshot, now));
            [
                due(case, now).1,
                fades(&view, case),
                unused,
                rests.flatten(),
            ]
        });
        Ok(next.flatten().min())
    }
}

/// Records, until stopped, what the clock and changes do to exceptions.
pub(super) async fn sweeps(registry: Arc<Registry>, stop: CancellationToken) -> Result<(), String> {
    let mut beat = Beat::new(&registry, &stop);
    let mut next = None;
    loop {
        let due = next.is_some_and(|next| next <= registry.clock.now().latest);
        if beat.looks(due) {
            match registry.sweep().await {
                Ok(later) => next = later,
                Err(refused) => {
                    tracing::error!(
                        ?refused,
                        "exceptions cannot be moved; they end at their sidecars all the same"
                    );
                    beat.failed();
                }
            }
        }
        if !beat.next().await {
            return Ok(());
        }
    }
}
