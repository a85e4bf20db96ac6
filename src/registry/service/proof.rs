//! What a sidecar proves to hold, in the registry's own words: whether this log lost something, or
//! has become another.

use crate::{
    domain::{Era, Head},
    engine::Sum,
    registry::{
        authn::Caller,
        core::{Error, Registry},
        view::View,
    },
    wire::{
        signed::{Purpose, Trust},
        sync::{era, head, ledger_of, removal, sum},
        v1,
    },
};

/// What came of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proven {
    /// As far as this registry has been, in this history.
    Fits,
    /// Further than this registry is.
    Beyond(Era, Head),
    /// Another history than this registry's, from there on.
    Forked(Head),
}

/// What a sidecar saw of the ledger, in the registry's own words, against the ledger as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witnessed {
    /// It saw what is still so, or nothing that can be looked up.
    Fits,
    /// It saw another ledger: this one was changed since (L2).
    Differs,
}

/// Looks up what a sidecar saw of the ledger.
///
/// # Errors
///
/// A store that fails.
pub(super) async fn witnessed(
    proof: &v1::HeldProof,
    trust: &Trust,
    registry: &Registry,
) -> Result<Witnessed, Error> {
    let ours = registry.view().beginning.era;
    let beat: Option<v1::HeartbeatStatement> = trust
        .open(Purpose::Heartbeat, proof.heartbeat.as_ref())
        .ok();
    let snapshot: Option<v1::SnapshotStatement> =
        trust.open(Purpose::Snapshot, proof.snapshot.as_ref()).ok();
    let delta: Option<v1::DeltaStatement> = trust.open(Purpose::Delta, proof.delta.as_ref()).ok();
    let said = [
        beat.map(|said| (said.era, said.ledger)),
        snapshot.map(|said| (said.era, said.ledger)),
        delta.map(|said| (said.era, said.ledger)),
    ];
    for (of, ledger) in said.into_iter().flatten() {
        let same = era(of.as_ref()).is_ok_and(|era| era == ours);
        let Some(Ok((size, root))) = ledger.filter(|_| same).as_ref().map(ledger_of) else {
            continue;
        };
        // What is beyond this ledger is seen by its revision.
        if registry.root_at(size).await?.is_some_and(|now| now != root) {
            return Ok(Witnessed::Differs);
        }
    }
    Ok(Witnessed::Fits)
}

/// What of a statement counts.
struct Said {
    era: Era,
    head: Head,
}

/// Looks at the statements one by one; what is not ours, or of another epoch, proves nothing.
pub(super) fn proven(
    proof: &v1::HeldProof,
    caller: &Caller,
    trust: &Trust,
    view: &View,
    registry: &Registry,
) -> Proven {
    let ours = view.beginning.era;
    let v1::HeldProof {
        heartbeat,
        snapshot,
        delta,
        removals,
    } = proof;
    let mut said: Vec<Said> = Vec::new();
    let mut note = |of: Option<&v1::Era>, head: Head| {
        let era = era(of).ok().filter(|era| era.log == ours.log)?;
        said.push(Said { era, head });
        (era == ours).then_some(head)
    };
    let at = |revision| Head {
        revision,
        sequence: 0,
    };
    let mut forked = None;
    if let Ok(beat) = trust.open::<v1::HeartbeatStatement>(Purpose::Heartbeat, heartbeat.as_ref())
        && let Ok(head) = head(beat.head.as_ref())
    {
        note(beat.era.as_ref(), head);
    }
    let mut state = |of: Option<&v1::Era>, scope: &str, revision, after: &[u8]| {
        let head = note(of, at(revision))?;
        let theirs = sum(after).ok()?;
        // What a part of everything holds is worked out, and that may change; all of it is the log's.
        let same = caller.scope.is_all() && *scope == caller.scope.to_string();
        let known = same.then(|| known_sum(registry, view, caller, revision))??;
        (known != theirs).then_some(head)
    };
    if let Ok(v1::SnapshotStatement {
        era,
        revision,
        scope,
        sum,
        ..
    }) = trust.open(Purpose::Snapshot, snapshot.as_ref())
    {
        forked = forked.or(state(era.as_ref(), &scope, revision, &sum));
    }
    if let Ok(v1::DeltaStatement {
        era,
        through,
        scope,
        sum,
        ..
    }) = trust.open(Purpose::Delta, delta.as_ref())
    {
        forked = forked.or(state(era.as_ref(), &scope, through, &sum));
    }
    if let Ok(v1::RemovalsStatement {
        era,
        through,
        removals,
        ..
    }) = trust.open(Purpose::Removals, removals.as_ref())
    {
        let head = Head {
            revision: 0,
            sequence: through,
        };
        let same = note(era.as_ref(), head);
        let last = removals
            .into_iter()
            .last()
            .and_then(|last| removal(last).ok());
        if let (Some(head), Some(last)) = (same, last) {
            let place = usize::try_from(through.saturating_sub(1)).unwrap_or(usize::MAX);
            let known = view.removals.get(place);
            if known.is_some_and(|known| (known.act, &known.target) != (last.act, &last.target)) {
                forked = forked.or(Some(head));
            }
        }
    }
    if let Some(head) = forked {
        return Proven::Forked(head);
    }
    let beyond = said.into_iter().find(|said| {
        said.era.epoch > ours.epoch
            || (said.era == ours
                && (said.head.revision > view.head.revision
                    || said.head.sequence > view.head.sequence))
    });
    beyond.map_or(Proven::Fits, |said| Proven::Beyond(said.era, said.head))
}

/// The sum of what the caller's scope held at a revision, where that is still known.
fn known_sum(registry: &Registry, view: &View, caller: &Caller, revision: u64) -> Option<Sum> {
    if revision == view.head.revision {
        return Some(view.cohorts.get(&*caller.scope)?.sum());
    }
    registry.windows().get(&*caller.scope)?.sum_at(revision)
}
