//! Controls that are to deny less: proposed by one person, decided by others (R42).

use crate::{
    domain::{
        ControlId, Digest, Edit, Invalid, Kind, Name, Proposal, ProposalState, Timestamp,
        Transaction,
    },
    engine::{
        Change, Deciders,
        proposals::{Stands, decidable, decided, settled},
        weakened,
    },
    manifest::{Bundle, proposal_digest, write_proposal},
};

use super::{
    asking::principal,
    authn::Caller,
    core::{Draft, Planned, Registry},
    ledger::bare,
    role::Role,
    sweep::along,
    view::View,
    workflow::{Refused, checked, digest},
};

/// Shortest reason, in characters; that of an exception's business need (E4).
const REASON: usize = 40;

/// What is proposed.
#[derive(Clone, Debug)]
pub(super) enum Proposes {
    /// The control of a file, by its name and content.
    Changed(String, String),
    /// A control is to be removed.
    Removed(ControlId),
}

/// What somebody says of a proposal.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// They decide about what they saw.
    Decides {
        approves: bool,
        comment: String,
        digest: Digest,
    },
    /// They take it back.
    Withdraws,
}

impl From<Stands> for Refused {
    fn from(stands: Stands) -> Self {
        match stands {
            Stands::Forbidden(why) => Self::Forbidden(why),
            Stands::Settled(why) => Self::Precondition(why),
        }
    }
}

/// Refuses edits that make a control deny less, where there are people to decide about it.
pub(super) fn may_weaken(
    registry: &Registry,
    view: &View,
    edits: &[Edit],
    after: &crate::engine::Snapshot,
) -> Result<(), Refused> {
    if registry.weakens_at_will {
        return Ok(());
    }
    if Deciders::named(&view.snapshot) && !Deciders::named(after) {
        return Err(Refused::Precondition(
            "no domain at the top would name a risk officer any more, and nobody would decide about controls: name another with it".into(),
        ));
    }
    let controls = edits.iter().filter(|edit| edit.name.kind == Kind::Control);
    let mut weaker = Vec::new();
    for edit in controls {
        let id = ControlId::parse(&edit.name.id).map_err(Refused::Invalid)?;
        if Deciders::of(&view.snapshot, &id).is_none() {
            continue;
        }
        if let Some(how) = weakened(&view.snapshot, after, &id) {
            weaker.push(format!("{id}: {how}"));
        }
    }
    if weaker.is_empty() {
        return Ok(());
    }
    Err(Refused::Precondition(format!(
        "a control would deny less, and people decide about that: propose it with `exeat control propose`; {}",
        weaker.join("; ")
    )))
}

/// The edit that a proposal makes, with what it makes of everything.
fn made(view: &View, draft: Draft, proposal: &Proposal) -> Result<Planned, Refused> {
    let name = Name::new(Kind::Control, proposal.control.as_str());
    let revision = view.objects.get(&name).map_or(0, |stored| stored.revision);
    let bundle = match &proposal.manifest {
        Some(manifest) => {
            let file = (format!("{}.yaml", proposal.control), manifest.to_string());
            Some(Bundle::read_files([file]).map_err(Refused::Problems)?)
        }
        None => None,
    };
    let revision = revision.saturating_add(1);
    let changes = match &bundle {
        Some(bundle) => bundle
            .objects()
            .map_err(Refused::Problems)?
            .into_iter()
            .map(|(_, _, change)| change.at_revision(revision))
            .collect(),
        None => vec![Change::RemoveControl(proposal.control.clone())],
    };
    let edits = vec![Edit {
        name,
        revision,
        manifest: proposal.manifest.as_deref().map(Into::into),
    }];
    let snapshot = checked(view, draft, &edits, &changes, bundle.as_ref())?;
    Ok(Planned {
        transaction: Transaction {
            revision: draft.revision,
            time: draft.time,
            principal: "".into(),
            action: "".into(),
            edits,
            removals: Vec::new(),
        },
        changes,
        snapshot,
        cases: Vec::new(),
        findings: Vec::new(),
        heard: None,
    })
}

/// A proposal's record in a transaction.
fn recorded(
    view: &View,
    draft: Draft,
    proposal: &Proposal,
    mut planned: Planned,
    (by, action): (&str, &str),
) -> Result<Planned, Refused> {
    let name = Name::new(Kind::Proposal, &proposal.id);
    let revision = view.objects.get(&name).map_or(0, |stored| stored.revision);
    planned.transaction.principal = by.into();
    planned.transaction.action = action.into();
    planned.transaction.edits.push(Edit {
        name,
        revision: revision.saturating_add(1),
        manifest: Some(write_proposal(proposal).into()),
    });
    planned.changes.push(Change::PutProposal(proposal.clone()));
    let (snapshot, _) = view.snapshot.taking(
        planned.changes.clone(),
        digest(draft.revision)?,
        draft.revision,
    );
    planned.snapshot = snapshot;
    Ok(planned)
}

impl Registry {
    /// Proposes a control that denies less.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub(super) async fn propose(
        &self,
        caller: &Caller,
        proposes: Proposes,
        reason: &str,
    ) -> Result<Proposal, Refused> {
        let who = principal(caller)?;
        if reason.trim().chars().count() < REASON {
            return Err(Refused::Invalid(Invalid::new(
                "reason",
                format!("is shorter than {REASON} characters"),
                "say why the control is to deny less, and what takes its place",
            )));
        }
        let (control, manifest): (_, Option<Box<str>>) = match proposes {
            Proposes::Removed(id) => (id, None),
            Proposes::Changed(name, content) => {
                let bundle = Bundle::read_files([(name, content)]).map_err(Refused::Problems)?;
                let mut objects = bundle.objects().map_err(Refused::Problems)?.into_iter();
                match (objects.next(), objects.next()) {
                    (Some((name, json, _)), None) if name.kind == Kind::Control => (
                        ControlId::parse(&name.id).map_err(Refused::Invalid)?,
                        Some(json.into()),
                    ),
                    _ => {
                        let fix = "propose one control at a time; apply everything else";
                        let what = "is not one Control";
                        return Err(Refused::Invalid(Invalid::new("file", what, fix)));
                    }
                }
            }
        };
        self.write(|view, draft| {
            if manifest.is_none() && view.snapshot.control(&control).is_none() {
                return Err(Refused::NotFound(format!("there is no control `{control}`")));
            }
            let name = Name::new(Kind::Control, control.as_str());
            let base = view.object(&name).map_or(0, |stored| stored.revision);
            let mut proposal = Proposal {
                id: format!("CP-{}", draft.revision).into(),
                control: control.clone(),
                base,
                manifest,
                weakens: "".into(),
                reason: reason.into(),
                proposer: who,
                created: draft.time,
                digest: Digest::parse("sha256:0").map_err(Refused::Invalid)?,
                voices: Vec::new(),
                state: ProposalState::Pending,
                since: draft.time,
            };
            let after = made(view, draft, &proposal)?;
            let how = weakened(&view.snapshot, &after.snapshot, &control);
            let deciders = Deciders::of(&view.snapshot, &control);
            let Some((how, deciders)) = how.zip(deciders) else {
                return Err(Refused::Precondition(format!(
                    "{control} would deny no less, or nobody is named to decide about it: apply it with `exeat apply`"
                )));
            };
            decidable(&proposal.proposer, &deciders, &view.snapshot)
                .map_err(Refused::Precondition)?;
            proposal.weakens = how.into();
            proposal.digest = proposal_digest(&proposal).map_err(Refused::Invalid)?;
            let by = (&*caller.identity, "control propose");
            let planned = recorded(view, draft, &proposal, bare(view, draft, "", ""), by)?;
            Ok((Some(planned), proposal))
        })
        .await
    }

    /// Decides about a proposal, or takes it back. With the last decision the control is so, in the
    /// same transaction.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub(super) async fn say(
        &self,
        caller: &Caller,
        id: &str,
        says: Says,
    ) -> Result<Proposal, Refused> {
        let who = principal(caller)?;
        self.write(|view, draft| {
            let known = view.snapshot.directory().proposal(id);
            let proposal =
                known.ok_or_else(|| Refused::NotFound(format!("there is no proposal `{id}`")))?;
            let (next, action) = match says {
                Says::Withdraws => {
                    if proposal.proposer != who && caller.role != Role::Admin {
                        return Err(Refused::Forbidden(format!(
                            "{id} is withdrawn by `{}`, who proposed it",
                            proposal.proposer
                        )));
                    }
                    if proposal.state != ProposalState::Pending {
                        let state = proposal.state.name();
                        return Err(Refused::Precondition(format!("{id} is {state}")));
                    }
                    let next = Proposal {
                        state: ProposalState::Withdrawn,
                        since: draft.time,
                        ..proposal.clone()
                    };
                    (next, "control withdraw")
                }
                Says::Decides {
                    approves,
                    comment,
                    digest,
                } => {
                    if digest != proposal.digest {
                        return Err(Refused::Conflict(format!(
                            "{id} is not what you saw; look at it again"
                        )));
                    }
                    let snapshot = &view.snapshot;
                    let assurance = caller.assurance(draft.time);
                    let said = (&*comment, assurance.as_ref());
                    let next = decided(proposal, &who, approves, said, snapshot, draft.time)?;
                    let action = match next.state {
                        ProposalState::Applied => "control weaken",
                        ProposalState::Denied => "control deny",
                        ProposalState::Pending | ProposalState::Withdrawn => "control vote",
                    };
                    (next, action)
                }
            };
            let planned = if next.state == ProposalState::Applied {
                let mut planned = made(view, draft, &next)?;
                along(view, &self.uses, draft, &mut planned)?;
                planned
            } else {
                bare(view, draft, "", "")
            };
            let by = (&*caller.identity, action);
            let planned = recorded(view, draft, &next, planned, by)?;
            Ok((Some(planned), next))
        })
        .await
    }
}

/// Where a proposal stands at a time, with what the clock and the control say.
pub(super) fn standing_of(view: &View, proposal: &Proposal, now: Timestamp) -> &'static str {
    let over = settled(proposal, &view.snapshot, now).is_some();
    match proposal.state {
        ProposalState::Pending if now >= proposal.deadline() => "LAPSED",
        ProposalState::Pending if over => "OUTDATED",
        state => state.name(),
    }
}
