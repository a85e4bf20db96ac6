//! What a principal may ask the registry to do: apply manifests, and take back.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::yield_now;

use crate::{
    domain::{
        Act, Cause, ControlId, Deviation, Digest, DomainId, Edit, ExceptionId, Invalid, Kind, Name,
        Removal, SubjectId, Target, Tier, Transaction,
    },
    engine::{
        Change, Receipt, Snapshot, SnapshotError, Source,
        lifecycle::{Event, step},
    },
    manifest::{Bundle, Problem, change},
};

use super::{
    authn::Caller,
    cases,
    core::{Draft, Error, Planned, Registry},
    permission::{is_requested, may_apply, may_take_back},
    proposals::may_weaken,
    store::Heard,
    sweep::along,
    view::View,
};

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The registry cannot.
    Failed(Error),
    /// Manifests that cannot be taken, each fault with its place.
    Problems(Vec<Problem>),
    /// A field of the request.
    Invalid(Invalid),
    /// The caller may not.
    Forbidden(String),
    /// There is no such thing.
    NotFound(String),
    /// It is not as the caller expects it to be.
    Conflict(String),
    /// It is not in a state in which that can be done.
    Precondition(String),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// How an object fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was not there.
    Created,
    /// It was different.
    Updated,
    /// It is no more.
    Removed,
    /// It was so already.
    Unchanged,
}

/// One object of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// Which.
    pub name: Name,
    /// How it fared.
    pub fate: Fate,
    /// Its revision afterwards.
    pub revision: u64,
    /// Before.
    pub before: Option<std::sync::Arc<str>>,
    /// After.
    pub after: Option<std::sync::Arc<str>>,
}

/// What to apply, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Apply {
    /// Files by name.
    pub files: Vec<(String, String)>,
    /// Change nothing.
    pub dry_run: bool,
    /// Remove what is not among them, of the kinds that are.
    pub prune: bool,
    /// What must be at which revision.
    pub expected: Vec<(Name, u64)>,
}

/// What to take back.
#[derive(Clone, Debug)]
pub(super) struct Takes {
    /// What it does.
    pub act: Act,
    /// What it is about.
    pub target: Target,
    /// Why.
    pub cause: Cause,
    /// In words.
    pub note: Box<str>,
    /// The event that asks for it, if one does.
    pub heard: Option<Heard>,
}

impl Registry {
    /// Makes objects be what manifests say: all of them, or nothing.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub(super) async fn apply(
        &self,
        caller: &Caller,
        apply: Apply,
    ) -> Result<(u64, Vec<Applied>), Refused> {
        let bundle = Bundle::read_files(apply.files.clone()).map_err(Refused::Problems)?;
        let mut changes = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for (name, json, change) in bundle.objects().map_err(Refused::Problems)? {
            changes.insert(name.clone(), change);
            wanted.insert(name, json);
        }
        self.write(|view, draft| {
            expect(view, &apply.expected)?;
            let mut applied = Vec::with_capacity(wanted.len());
            for (name, json) in &wanted {
                let known = view.objects.get(name);
                let before = known.and_then(|stored| stored.manifest.clone());
                let revision = known.map_or(0, |stored| stored.revision);
                let same = before.as_deref() == Some(json.as_str());
                applied.push(Applied {
                    name: name.clone(),
                    fate: match (&before, same) {
                        (_, true) => Fate::Unchanged,
                        (None, false) => Fate::Created,
                        (Some(_), false) => Fate::Updated,
                    },
                    revision: revision.saturating_add(u64::from(!same)),
                    before,
                    after: Some(json.as_str().into()),
                });
            }
            if apply.prune {
                applied.extend(pruned(view, &wanted));
            }
            let edits: Vec<Edit> = applied
                .iter()
                .filter(|applied| applied.fate != Fate::Unchanged)
                .map(|applied| Edit {
                    name: applied.name.clone(),
                    revision: applied.revision,
                    manifest: applied.after.clone(),
                })
                .collect();
            may_apply(caller, view, &edits, self.applies_exceptions)?;
            let changes = edits
                .iter()
                .map(|edit| match changes.remove(&edit.name) {
                    Some(known) => Ok(known.at_revision(edit.revision)),
                    None => change(edit).map_err(Refused::Invalid),
                })
                .collect::<Result<Vec<_>, _>>()?;
            not_in_an_emergency(&changes)?;
            let snapshot = checked(view, draft, &edits, &changes, Some(&bundle))?;
            may_weaken(self, view, &edits, &snapshot)?;
            if apply.dry_run || edits.is_empty() {
                return Ok((None, (view.head.revision, applied)));
            }
            let exceptions = edits.iter().any(|edit| edit.name.kind == Kind::Exception);
            let transaction = Transaction {
                revision: draft.revision,
                time: draft.time,
                principal: caller.identity.clone(),
                // Nobody approved these: whoever reads the log is to know.
                action: if exceptions {
                    "apply by administrator"
                } else {
                    "apply"
                }
                .into(),
                edits,
                removals: Vec::new(),
            };
            let mut planned = Planned {
                transaction,
                changes,
                snapshot,
                cases: Vec::new(),
                findings: Vec::new(),
                heard: None,
            };
            along(view, &self.uses, draft, &mut planned)?;
            Ok((Some(planned), (draft.revision, applied)))
        })
        .await
    }

    /// Takes something back, freezes or thaws. Once done it stays done; doing it again tells how
    /// far the first has come.
    ///
    /// # Errors
    ///
    /// A target that is not there, or that the caller may not take back.
    pub(super) async fn take_back(
        &self,
        caller: &Caller,
        takes: Takes,
    ) -> Result<(Removal, Receipt), Refused> {
        let removal = self
            .write(|view, draft| {
                may_take_back(caller, view, &takes)?;
                if let Some(known) = done_already(view, &takes) {
                    return Ok((None, known));
                }
                let removal = Removal {
                    sequence: draft.sequence,
                    act: takes.act,
                    target: takes.target.clone(),
                    cause: takes.cause,
                    note: takes.note.clone(),
                    initiator: caller.identity.clone(),
                    time: draft.time,
                };
                let action = match takes.act {
                    Act::Revoke => "revoke",
                    Act::Freeze => "freeze",
                    Act::Thaw => "thaw",
                };
                let mut drafted =
                    removing(view, draft, &caller.identity, action, vec![removal.clone()])?;
                match (takes.act, &takes.target) {
                    (Act::Revoke, Target::Exception(id)) => {
                        with_case(view, draft, id, &takes, &mut drafted)?;
                    }
                    (Act::Revoke, _) => along(view, &self.uses, draft, &mut drafted)?,
                    (Act::Freeze | Act::Thaw, _) => {}
                }
                drafted.heard.clone_from(&takes.heard);
                Ok((Some(drafted), removal))
            })
            .await?;
        // It names everybody: those who send the removal go first.
        yield_now().await;
        let receipt = self.receipt(&removal);
        Ok((removal, receipt))
    }

    /// Takes in removals that a sidecar holds and this registry lost; tells how many there were.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(super) async fn take_in(
        &self,
        sidecar: &str,
        given: Vec<Removal>,
    ) -> Result<usize, Refused> {
        self.write(|view, draft| {
            let mut lost: Vec<Removal> = Vec::new();
            for removal in given
                .iter()
                .filter(|removal| missing(view, removal, &given))
            {
                let twice = lost
                    .iter()
                    .any(|known| (known.act, &known.target) == (removal.act, &removal.target));
                if twice {
                    continue;
                }
                let place = u64::try_from(lost.len()).unwrap_or(u64::MAX);
                lost.push(Removal {
                    sequence: draft.sequence.saturating_add(place),
                    ..removal.clone()
                });
            }
            if lost.is_empty() {
                return Ok((None, 0));
            }
            let count = lost.len();
            let drafted = removing(view, draft, sidecar, "give back", lost)?;
            Ok((Some(drafted), count))
        })
        .await
    }
}

/// Notes in the exception's case that it is taken back, in the same transaction (T13).
fn with_case(
    view: &View,
    draft: Draft,
    id: &ExceptionId,
    takes: &Takes,
    drafted: &mut Planned,
) -> Result<(), Refused> {
    let Some(case) = view.cases.get(id.as_str()) else {
        return Ok(());
    };
    let event = Event::Revoke(takes.cause.name().into());
    // One that is over already is taken back all the same.
    if let Ok(next) = step(case, event, draft.time, cases::nobody) {
        cases::put(view, draft, vec![next], drafted)?;
    }
    Ok(())
}

/// Whether a removal among those given back is one this registry lost. A thaw is none: it adds
/// authority, like grants. A freeze is only where nothing later is known about the subject.
fn missing(view: &View, removal: &Removal, given: &[Removal]) -> bool {
    let removed = view.snapshot.removed();
    match (removal.act, &removal.target) {
        (Act::Revoke, target) => !removed.revokes(target),
        (Act::Freeze, target @ Target::Subject(_)) => {
            let later = |known: &Removal| {
                known.act != Act::Revoke && known.target == *target && known.time >= removal.time
            };
            let ended = given
                .iter()
                .any(|known| known.act == Act::Thaw && later(known));
            !ended && !view.removals.iter().any(|known| later(known))
        }
        (Act::Freeze | Act::Thaw, _) => false,
    }
}

fn removing(
    view: &View,
    draft: Draft,
    principal: &str,
    action: &str,
    removals: Vec<Removal>,
) -> Result<Planned, Refused> {
    let transaction = Transaction {
        revision: draft.revision,
        time: draft.time,
        principal: principal.into(),
        action: action.into(),
        edits: Vec::new(),
        removals,
    };
    let (snapshot, _) = view
        .snapshot
        .taking(Vec::new(), digest(draft.revision)?, draft.revision);
    Ok(Planned {
        transaction,
        changes: Vec::new(),
        snapshot,
        cases: Vec::new(),
        findings: Vec::new(),
        heard: None,
    })
}

pub(super) fn digest(revision: u64) -> Result<Digest, Refused> {
    Digest::parse(&format!("revision:{revision}")).map_err(Refused::Invalid)
}

/// An override belongs to an incident and owes for it: it is asked for, and nobody applies one.
fn not_in_an_emergency(changes: &[Change]) -> Result<(), Refused> {
    let overrides = changes.iter().find_map(|change| match change {
        Change::PutException(exception)
            if exception.deviation == Deviation::IncidentOverride
                || exception.tier == Tier::Incident =>
        {
            Some(&exception.id)
        }
        _ => None,
    });
    match overrides {
        Some(id) => Err(Refused::Precondition(format!(
            "{id} is an override during an incident: ask for it with `exeat exception request`"
        ))),
        None => Ok(()),
    }
}

fn expect(view: &View, expected: &[(Name, u64)]) -> Result<(), Refused> {
    for (name, revision) in expected {
        let found = view.object(name).map_or(0, |stored| stored.revision);
        if found != *revision {
            return Err(Refused::Conflict(format!(
                "{name} is at revision {found}, not {revision}; look at what changed and try again"
            )));
        }
    }
    Ok(())
}

/// Objects of the kinds that are wanted and that are not among them.
fn pruned<'a>(
    view: &'a View,
    wanted: &'a BTreeMap<Name, String>,
) -> impl Iterator<Item = Applied> + 'a {
    let kinds: BTreeSet<Kind> = wanted.keys().map(|name| name.kind).collect();
    let mut gone: Vec<_> = view
        .objects
        .values()
        .filter(|stored| {
            stored.manifest.is_some()
                && kinds.contains(&stored.name.kind)
                && !wanted.contains_key(&stored.name)
                && !is_requested(view, &stored.name)
        })
        .collect();
    gone.sort_by(|a, b| a.name.cmp(&b.name));
    gone.into_iter().map(|stored| Applied {
        name: stored.name.clone(),
        fate: Fate::Removed,
        revision: stored.revision.saturating_add(1),
        before: stored.manifest.clone(),
        after: None,
    })
}

/// The snapshot after `edits`, if everything fits; what does not is told with its place in what was
/// read, if anything was.
pub(super) fn checked(
    view: &View,
    draft: Draft,
    edits: &[Edit],
    changes: &[Change],
    bundle: Option<&Bundle>,
) -> Result<Snapshot, Refused> {
    let mut problems = Vec::new();
    for edit in edits {
        if edit.name.kind == Kind::Exception
            && edit.manifest.is_some()
            && let Ok(target) = Target::parse("exception", &edit.name.id)
            && view.snapshot.removed().revokes(&target)
        {
            let message =
                "was revoked, and that is for good; ask for a new exception under another id";
            let unplaced = || Problem::whole("", format!("{} {message}", edit.name));
            problems.push(
                bundle.map_or_else(unplaced, |bundle| bundle.problem_with(&edit.name, message)),
            );
        }
    }
    let (snapshot, errors) =
        view.snapshot
            .taking(changes.to_vec(), digest(draft.revision)?, draft.revision);
    problems.extend(errors.iter().map(|error| {
        let unplaced = || Problem::whole("", error.to_string());
        bundle.map_or_else(unplaced, |bundle| bundle.problem(error))
    }));
    problems.extend(left_hanging(&snapshot, edits));
    problems.extend(ownerless(&snapshot, changes).map(|error| {
        let unplaced = || Problem::whole("", error.to_string());
        bundle.map_or_else(unplaced, |bundle| bundle.problem(&error))
    }));
    if problems.is_empty() {
        return Ok(snapshot);
    }
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Err(Refused::Problems(problems))
}

/// Controls that somebody would answer for who has left (R1).
fn ownerless(after: &Snapshot, changes: &[Change]) -> impl Iterator<Item = SnapshotError> {
    changes.iter().filter_map(|change| match change {
        Change::PutControl(control) if after.directory().has_left(&control.owner) => {
            Some(SnapshotError {
                source: Source {
                    kind: Kind::Control.name(),
                    id: control.id.to_string(),
                },
                invalid: Invalid::new(
                    "owner",
                    format!("`{}` has left", control.owner),
                    "name who answers for it now",
                ),
                fault: None,
            })
        }
        _ => None,
    })
}

/// What would name a control or a domain that is no more.
fn left_hanging(after: &Snapshot, edits: &[Edit]) -> Vec<Problem> {
    let gone = |kind: Kind, id: &str| {
        edits
            .iter()
            .any(|edit| edit.name.kind == kind && edit.manifest.is_none() && &*edit.name.id == id)
    };
    let any = |kind: Kind| {
        let mut gone = edits.iter().filter(|edit| edit.manifest.is_none());
        gone.any(|edit| edit.name.kind == kind)
    };
    let hangs = |what: &str, id: &str, by: &str, from: &str| {
        Problem::whole(
            "",
            format!(
                "{what} {id} cannot be removed: {by} {from} names it; remove or change that first"
            ),
        )
    };
    let mut problems = Vec::new();
    if any(Kind::Control) {
        problems.extend(after.exceptions().filter_map(|exception| {
            let mut named = exception.controls.iter().map(ControlId::as_str);
            let control = named.find(|id| gone(Kind::Control, id))?;
            Some(hangs(
                "Control",
                control,
                "Exception",
                exception.id.as_str(),
            ))
        }));
    }
    if any(Kind::Domain) {
        let named = |domain: &Option<DomainId>| {
            let domain = domain.as_ref()?;
            gone(Kind::Domain, domain.as_str()).then(|| domain.to_string())
        };
        problems.extend(after.subjects().filter_map(|subject| {
            let domain = named(&subject.domain)?;
            Some(hangs("Domain", &domain, "Subject", subject.id.as_str()))
        }));
        problems.extend(after.exceptions().filter_map(|exception| {
            let domain = named(&exception.domain)?;
            Some(hangs("Domain", &domain, "Exception", exception.id.as_str()))
        }));
    }
    problems
}

/// The removal that already did this.
fn done_already(view: &View, takes: &Takes) -> Option<Removal> {
    let removed = view.snapshot.removed();
    let frozen = |id: &SubjectId| removed.freezes(id);
    let done = match (takes.act, &takes.target) {
        (Act::Revoke, target) => removed.revokes(target),
        (Act::Freeze, Target::Subject(id)) => frozen(id),
        (Act::Thaw, Target::Subject(id)) => !frozen(id),
        (Act::Freeze | Act::Thaw, _) => true,
    };
    if !done {
        return None;
    }
    view.removals
        .iter()
        .rev()
        .find(|removal| removal.act == takes.act && removal.target == takes.target)
        .map(|removal| (**removal).clone())
}
