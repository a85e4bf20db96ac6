//! Cases in the registry's log: what they rest on now, and what of them is written.

use std::sync::Arc;

use crate::{
    domain::{
        Act, Ballot, Case, Cause, Edit, ExceptionId, ExceptionState, Invalid, Kind, Name, Removal,
        Target, Terms, Tier, Timestamp, Transaction, Vote,
    },
    engine::{Asked, Change, Electorate, Snapshot, governing, lifecycle, rules_for, terms},
    manifest::{exception_of, read_json, terms_digest, write_case},
};

use super::{
    core::{Draft, Planned},
    uncovered::uncover,
    view::View,
    workflow::{Refused, digest},
};

impl From<lifecycle::Refused> for Refused {
    fn from(refused: lifecycle::Refused) -> Self {
        match &refused {
            lifecycle::Refused::Illegal { .. } | lifecycle::Refused::Guard(_) => {
                Self::Precondition(refused.to_string())
            }
            lifecycle::Refused::Outdated => Self::Conflict(refused.to_string()),
        }
    }
}

/// The terms of a case as things are, with their digest.
pub(super) fn terms_of(view: &View, case: &Case, now: Timestamp) -> Result<Terms, Invalid> {
    let window = case.granted.map_or_else(
        || case.request.window.ends(now),
        |granted| (granted.effective, granted.expire),
    );
    let asked = Asked {
        id: &case.id,
        requester: &case.requester,
        request: case.asked(),
        window,
        granted: case.granted.and(case.terms.as_ref()),
    };
    let mut terms = terms(asked, &view.snapshot, &view.cases, now)?;
    let domains = governing(case.asked(), &view.snapshot);
    // Who looks at an override afterwards is whom HIGH asks.
    let afterwards = (!terms.after.is_empty()).then_some(Tier::High);
    let policies = [Some(terms.tier), afterwards]
        .into_iter()
        .flatten()
        .map(|tier| Name::new(Kind::TierPolicy, tier.name()))
        .chain(
            domains
                .iter()
                .map(|id| Name::new(Kind::Domain, id.as_str())),
        );
    terms.policies = policies
        .filter_map(|name| {
            let revision = view.object(&name)?.revision;
            Some((name, revision))
        })
        .collect();
    terms.digest = terms_digest(case, &terms)?;
    Ok(terms)
}

/// Which person stands behind a vote now, if whoever cast it still may at the tier of its terms.
pub(super) fn standing<'a>(
    view: &'a View,
    case: &'a Case,
) -> impl Fn(&Vote) -> Option<Box<str>> + 'a {
    let electorate = |tier| Electorate::new(&view.snapshot, &case.requester, &case.request, tier);
    let terms = case.open_terms();
    let first = terms.map(|terms| (electorate(terms.tier), &terms.seats));
    // Who looks at an override afterwards is held to what HIGH is.
    let debt = case.debt.as_ref();
    let after = debt.map(|debt| (electorate(Tier::High), &debt.seats));
    move |vote| {
        let (electorate, seats) = match vote.ballot {
            Ballot::Initial | Ballot::Revalidation => first.as_ref(),
            Ballot::Retroactive => after.as_ref(),
        }?;
        let seat = seats
            .iter()
            .find(|seat| (seat.stage.role, &seat.domain) == (vote.role, &vote.domain));
        electorate.admit(&vote.approver, seat?).ok()?;
        Some(view.snapshot.directory().person(&vote.approver).into())
    }
}

/// Nobody's vote is looked at.
pub(super) fn nobody(_: &Vote) -> Option<Box<str>> {
    None
}

/// Puts cases, and what they grant, into a transaction.
pub(super) fn put(
    view: &View,
    draft: Draft,
    cases: Vec<Case>,
    planned: &mut Planned,
) -> Result<(), Refused> {
    for case in cases {
        let edit = |kind: Kind, manifest: String| {
            let name = Name::new(kind, case.id.as_str());
            let known = view.objects.get(&name);
            let revision = known.map_or(0, |stored| stored.revision);
            Edit {
                name,
                revision: revision.saturating_add(1),
                manifest: Some(manifest.into()),
            }
        };
        planned
            .transaction
            .edits
            .push(edit(Kind::Case, write_case(&case)));
        if case.granted.is_some()
            && let Some(manifest) = exception_of(&case, draft.time)
        {
            let edit = edit(Kind::Exception, manifest);
            let read = edit.manifest.as_deref().unwrap_or_default();
            let change = read_json(Kind::Exception, edit.revision, read);
            planned.changes.push(change.map_err(Refused::Invalid)?);
            planned.transaction.edits.push(edit);
        }
        planned.cases.push(Arc::new(case));
    }
    let changes = planned.changes.clone();
    let approved = planned
        .cases
        .iter()
        .any(|case| case.state == ExceptionState::Approved);
    let (snapshot, errors) = view
        .snapshot
        .taking(changes, digest(draft.revision)?, draft.revision);
    // What ends need not fit any more: it grants nothing either way.
    if let Some(error) = errors.into_iter().next().filter(|_| approved) {
        return Err(Refused::Invalid(error.invalid));
    }
    planned.snapshot = snapshot;
    uncover(view, planned, draft.time);
    Ok(())
}

/// A transaction with cases and removals.
pub(super) fn planned(
    view: &View,
    draft: Draft,
    principal: &str,
    action: &str,
    cases: Vec<Case>,
    removals: Vec<Removal>,
) -> Result<Planned, Refused> {
    let mut planned = Planned {
        transaction: Transaction {
            revision: draft.revision,
            time: draft.time,
            principal: principal.into(),
            action: action.into(),
            edits: Vec::new(),
            removals,
        },
        changes: Vec::new(),
        snapshot: view.snapshot.clone(),
        cases: Vec::new(),
        findings: Vec::new(),
        heard: None,
    };
    put(view, draft, cases, &mut planned)?;
    Ok(planned)
}

/// Leaves out of a transaction's world the exceptions that ended long ago; their cases stay.
pub(super) fn fade(
    view: &View,
    draft: Draft,
    ended: &[ExceptionId],
    planned: &mut Planned,
) -> Result<(), Refused> {
    for id in ended {
        let name = Name::new(Kind::Exception, id.as_str());
        let known = view.objects.get(&name);
        planned.transaction.edits.push(Edit {
            revision: known.map_or(1, |stored| stored.revision.saturating_add(1)),
            name,
            manifest: None,
        });
        planned.changes.push(Change::RemoveException(id.clone()));
    }
    let changes = planned.changes.clone();
    let (snapshot, _) = view
        .snapshot
        .taking(changes, digest(draft.revision)?, draft.revision);
    planned.snapshot = snapshot;
    Ok(())
}

/// The removal that takes an exception back (T13).
pub(super) fn removal(draft: Draft, place: usize, case: &Case, why: Cause, by: &str) -> Removal {
    let place = u64::try_from(place).unwrap_or(u64::MAX);
    Removal {
        sequence: draft.sequence.saturating_add(place),
        act: Act::Revoke,
        target: Target::Exception(case.id.clone()),
        cause: why,
        note: case.reason.clone(),
        initiator: by.into(),
        time: draft.time,
    }
}

/// Whether the exception that a case would grant is one that its tier permits, conditions and all.
pub(super) fn permitted(view: &View, draft: Draft, case: &Case) -> Result<(), Refused> {
    let granted = Case {
        state: ExceptionState::Approved,
        ..case.clone()
    };
    let Some(manifest) = exception_of(&granted, draft.time) else {
        return Ok(());
    };
    let change = read_json(Kind::Exception, 1, &manifest).map_err(Refused::Invalid)?;
    if let (Change::PutException(exception), Some(terms)) = (&change, &case.terms) {
        let rules = rules_for(&case.request, terms.tier, &view.snapshot);
        exception
            .clone()
            .checked(&rules)
            .map_err(Refused::Invalid)?;
    }
    let after: Result<Snapshot, _> =
        view.snapshot
            .after(vec![change], digest(draft.revision)?, draft.revision);
    match after {
        Ok(_) => Ok(()),
        Err(errors) => {
            let first = errors.into_iter().next();
            Err(first.map_or_else(
                || Refused::Precondition("it cannot be granted".into()),
                |error| Refused::Invalid(error.invalid),
            ))
        }
    }
}
