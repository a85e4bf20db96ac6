//! Requests and votes: load, decide, save, all in the writer's turn.

use std::sync::Arc;

use crate::{
    domain::{
        Assurance, Ballot, Case, Cause, Deviation, Digest, DomainId, ExceptionId, ExceptionState,
        Invalid, Kind, Name, Principal, Request, Terms, Timestamp, Trace, Vote,
    },
    engine::{
        Electorate,
        lifecycle::{self, Event, step},
    },
    manifest::read_request,
};

use super::{
    authn::Caller,
    cases::{nobody, permitted, planned, removal, standing, terms_of},
    core::{Draft, Registry},
    incidents::looked_back,
    permission::may_suspend,
    role::Role,
    view::View,
    workflow::Refused,
};

/// Most requests of one person that are not decided.
const OPEN: usize = 100;

/// What is asked for anew.
#[derive(Clone, Debug)]
pub(super) struct Again {
    /// Which exception.
    pub id: ExceptionId,
    /// Its terms, where they are to be these still.
    pub expected: Option<Digest>,
}

/// What somebody decides.
#[derive(Clone, Debug)]
pub(super) struct Decides {
    /// About which exception.
    pub id: ExceptionId,
    /// Whether they are for it.
    pub approves: bool,
    /// Why.
    pub comment: Box<str>,
    /// The terms they saw.
    pub digest: Digest,
    /// The evidence they looked at.
    pub reviewed: Vec<(Box<str>, Digest)>,
    /// When the terms were shown to them, if that is known.
    pub viewed: Option<Timestamp>,
    /// How they had signed in, if they had.
    pub assurance: Option<Assurance>,
    /// Where their call belongs, if they traced it.
    pub trace: Option<Trace>,
}

/// Who calls, as somebody who may ask and decide.
pub(super) fn principal(caller: &Caller) -> Result<Principal, Refused> {
    Principal::parse(&caller.identity).map_err(|_| {
        Refused::Forbidden(format!(
            "`{}` is nobody who asks or decides; use a token of `user:NAME` or `agent:NAME`",
            caller.identity
        ))
    })
}

pub(super) fn known<'a>(view: &'a View, id: &ExceptionId) -> Result<&'a Arc<Case>, Refused> {
    view.cases.get(id.as_str()).ok_or_else(|| {
        let applied = view.snapshot.exception(id.as_str()).is_some();
        Refused::NotFound(if applied {
            format!("{id} was applied by an administrator and never requested")
        } else {
            format!("there is no exception `{id}`")
        })
    })
}

/// An id that was never used; the log's revision, so that it grows.
fn fresh_id(view: &View, draft: Draft) -> Result<ExceptionId, Refused> {
    let mut number = draft.revision;
    loop {
        let text = format!("EX-{number}");
        let taken = [Kind::Case, Kind::Exception]
            .into_iter()
            .any(|kind| view.objects.get(&Name::new(kind, &text)).is_some());
        if !taken {
            return ExceptionId::parse(&text).map_err(Refused::Invalid);
        }
        number = number.saturating_add(1_000_000);
    }
}

/// About one denial somebody asks once, as long as that is open or in force; what goes on from it is
/// something else.
fn once(view: &View, case: &Case) -> Result<(), Refused> {
    let decision = case.request.decision.as_ref();
    let Some(decision) = decision.filter(|_| case.request.renews.is_none()) else {
        return Ok(());
    };
    let same = view.cases.values().find(|known| {
        let theirs = known.requester == case.requester && known.id != case.id;
        let same = known.request.decision.as_ref() == Some(decision);
        let stands = matches!(
            known.state,
            ExceptionState::Draft
                | ExceptionState::Pending
                | ExceptionState::Approved
                | ExceptionState::Suspended
        );
        theirs && same && stands
    });
    same.map_or(Ok(()), |known| {
        let why = format!("{decision} was asked about already: see {}", known.id);
        Err(Refused::Conflict(why))
    })
}

/// What a request says that it renews was asked for here.
fn goes_on_from(view: &View, case: &Case) -> Result<(), Refused> {
    let unknown = |id: &&ExceptionId| {
        view.cases.get(id.as_str()).is_none() && view.snapshot.exception(id.as_str()).is_none()
    };
    case.request
        .renews
        .as_ref()
        .filter(unknown)
        .map_or(Ok(()), |id| {
            let what = format!("names `{id}`, which nobody asked for here");
            let fix = "name the exception it goes on from, or leave it out";
            Err(Refused::Invalid(Invalid::new("renews", what, fix)))
        })
}

impl Registry {
    /// Asks for an exception, or anew for one that was not decided; approved at once where nobody
    /// has to decide. With `dry_run` it says what would be, and changes nothing.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        file: Option<(String, String)>,
        again: Option<Again>,
        dry_run: bool,
    ) -> Result<Arc<Case>, Refused> {
        let requester = principal(caller)?;
        let asked: Option<Request> = file
            .map(|(name, content)| {
                let view = self.view();
                read_request(&name, &content, |domain, subjects, word| {
                    meant(&view, domain, subjects, word)
                })
            })
            .transpose()
            .map_err(|problem| Refused::Problems(vec![problem]))?;
        let prepare = |view: &View, draft: Draft| {
            let case = if let Some(Again { id, expected }) = &again {
                let known = known(view, id)?;
                let terms = known.terms.as_ref().map(|terms| &terms.digest);
                let granted = [ExceptionState::Approved, ExceptionState::Suspended];
                let granted = granted.contains(&known.state);
                let same = if granted {
                    expected
                        .as_ref()
                        .is_none_or(|seen| saw(view, known, seen, draft.time))
                } else {
                    expected.is_none() || expected.as_ref() == terms
                };
                if !same {
                    return Err(Refused::Conflict(format!(
                        "{id} is not what you saw; look at it again"
                    )));
                }
                if granted {
                    let next = shown(view, draft, known, &requester, asked.as_ref())?;
                    return Ok((next, "exception evidence"));
                }
                amended(known, &requester, asked.as_ref(), draft.time)?
            } else {
                let request = asked.clone().ok_or_else(|| {
                    let fix = "send a manifest of kind Request";
                    Refused::Invalid(Invalid::new("file", "is missing", fix))
                })?;
                within_quota(view, &requester)?;
                let id = fresh_id(view, draft)?;
                drafted(id, requester.clone(), request, draft.time)
            };
            once(view, &case)?;
            goes_on_from(view, &case)?;
            let terms = terms_of(view, &case, draft.time).map_err(Refused::Invalid)?;
            let with_terms = case.on(terms.clone());
            permitted(view, draft, &with_terms)?;
            let next = step(&case, Event::Submit(terms), draft.time, nobody)?;
            let action = if next.state == ExceptionState::Approved {
                "exception approve automatically"
            } else {
                "exception request"
            };
            Ok::<_, Refused>((next, action))
        };
        // What cannot be granted, and what is only asked about, takes nobody's turn.
        let view = self.view();
        let (first, _) = prepare(&view, self.blank(&view))?;
        if dry_run {
            return Ok(Arc::new(first));
        }
        self.write(|view, draft| {
            let (next, action) = prepare(view, draft)?;
            let case = Arc::new(next.clone());
            let planned = planned(view, draft, &caller.identity, action, vec![next], vec![])?;
            Ok((Some(planned), case))
        })
        .await
    }

    /// Decides about an exception, or says that it still holds.
    ///
    /// # Errors
    ///
    /// What stands against it. Terms that changed void every vote: the case is a draft again.
    pub(super) async fn decide(
        &self,
        caller: &Caller,
        decides: Decides,
    ) -> Result<Arc<Case>, Refused> {
        let approver = principal(caller)?;
        let outcome = self
            .write(|view, draft| {
                let case = known(view, &decides.id)?;
                let plan = |next: Case, action: &str| {
                    let told = Arc::new(next.clone());
                    let planned =
                        planned(view, draft, &caller.identity, action, vec![next], vec![])?;
                    Ok::<_, Refused>((Some(planned), told))
                };
                if let Some(next) = looked_back(view, case, &approver, &decides, draft.time)? {
                    let revoked = next.state != case.state;
                    let by = &caller.identity;
                    let removal = removal(draft, 0, &next, Cause::RetroApprovalMissed, by);
                    let removals = revoked.then_some(removal).into_iter().collect();
                    let told = Arc::new(next.clone());
                    let action = "exception look back";
                    let planned = planned(view, draft, by, action, vec![next], removals)?;
                    return Ok((Some(planned), Ok(told)));
                }
                let pending = case.state == ExceptionState::Pending;
                // A no is to what was shown, whatever could be granted now.
                let shown = case.terms.clone().filter(|_| pending && !decides.approves);
                let terms = match shown {
                    Some(terms) => terms,
                    None => terms_of(view, case, draft.time).map_err(Refused::Invalid)?,
                };
                if pending
                    && case
                        .terms
                        .as_ref()
                        .is_none_or(|known| known.digest != terms.digest)
                {
                    // T4: what they were to decide about is no more.
                    let why =
                        "what it is bound to, or who decides, has changed since it was asked for";
                    let next = step(case, Event::Outdate(why.into()), draft.time, nobody)?;
                    let (planned, told) = plan(next, "exception outdate")?;
                    return Ok((planned, Err(told)));
                }
                // The same as were handed in: who has voted since then has voted on these.
                let handed_in = case.terms.clone().filter(|_| pending);
                let terms = handed_in.unwrap_or(terms);
                let vote = seated(view, case, &terms, &approver, &decides, draft.time)?;
                let on_terms = case.on(terms.clone());
                let still = standing(view, &on_terms);
                let next = step(case, Event::Vote(vote, terms), draft.time, still)?;
                if next.state == ExceptionState::Approved {
                    permitted(view, draft, &next)?;
                }
                let action = match next.state {
                    ExceptionState::Approved if pending => "exception approve",
                    ExceptionState::Denied => "exception deny",
                    _ => "exception vote",
                };
                let (planned, told) = plan(next, action)?;
                Ok((planned, Ok(told)))
            })
            .await?;
        outcome.map_err(|case| {
            Refused::Precondition(format!(
                "{}: {}; it is a draft again and has no votes, ask its requester to hand it in anew",
                case.id, case.reason
            ))
        })
    }

    /// Suspends an exception until everybody who decides has looked at it again (T10).
    ///
    /// # Errors
    ///
    /// What stands against it; who may not take it back does not suspend it either.
    pub(super) async fn suspend(
        &self,
        caller: &Caller,
        id: &ExceptionId,
        why: &str,
    ) -> Result<Arc<Case>, Refused> {
        self.write(|view, draft| {
            let case = known(view, id)?;
            let reason = format!("suspended by {}: {why}", caller.identity);
            let next = step(case, Event::Suspend(reason.into()), draft.time, nobody)?;
            looked_at_again(case)?;
            may_suspend(caller, view, id)?;
            let told = Arc::new(next.clone());
            let (by, action) = (&caller.identity, "exception suspend");
            let planned = planned(view, draft, by, action, vec![next], vec![])?;
            Ok((Some(planned), told))
        })
        .await
    }

    /// Takes a request back, or closes an exception that is no longer needed.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub(super) async fn give_up(
        &self,
        caller: &Caller,
        id: &ExceptionId,
        why: Option<Box<str>>,
    ) -> Result<Arc<Case>, Refused> {
        let who = principal(caller)?;
        self.write(|view, draft| {
            let case = known(view, id)?;
            let own = [&case.requester, &case.request.owner].contains(&&who);
            if !own && caller.role != Role::Admin {
                return Err(Refused::Forbidden(format!(
                    "{id} is given up by its requester, its owner or an administrator, and `{who}` is none"
                )));
            }
            let (event, action) = match &why {
                Some(why)
                    if !matches!(
                        case.state,
                        ExceptionState::Draft | ExceptionState::Pending
                    ) =>
                {
                    (Event::Close(why.clone()), "exception close")
                }
                _ => (Event::Withdraw, "exception withdraw"),
            };
            let next = step(case, event, draft.time, nobody)?;
            let told = Arc::new(next.clone());
            // Also where nobody hears of what changed, and after a restore.
            let closed = next.state == ExceptionState::Closed;
            let by = &caller.identity;
            let removal = removal(draft, 0, &next, Cause::ExpiredEarlyByOwner, by);
            let removals = closed.then_some(removal).into_iter().collect();
            let planned = planned(view, draft, by, action, vec![next], removals)?;
            Ok((Some(planned), told))
        })
        .await
    }
}

/// What a local word means in the domain that a request names, or its first subject's.
pub(super) fn meant(
    view: &View,
    domain: Option<&str>,
    subjects: &[String],
    word: &str,
) -> Option<Deviation> {
    let of_subject = || {
        let first = subjects.first()?;
        view.snapshot.subject(first)?.domain.clone()
    };
    let domain = match domain {
        Some(domain) => DomainId::parse(domain).ok(),
        None => of_subject(),
    };
    let words = view
        .snapshot
        .domains_above(&domain?)
        .flat_map(|domain| &domain.vocabulary);
    let mut known = words.filter(|(known, _)| known.eq_ignore_ascii_case(word));
    known.next().map(|(_, deviation)| *deviation)
}

/// Refuses one more request of a person who has many that are not decided.
fn within_quota(view: &View, requester: &Principal) -> Result<(), Refused> {
    let directory = view.snapshot.directory();
    let person = directory.person(requester);
    let open = view.cases.values().filter(|case| {
        let undecided = [ExceptionState::Draft, ExceptionState::Pending].contains(&case.state);
        undecided && directory.person(&case.requester) == person
    });
    if open.count() < OPEN {
        return Ok(());
    }
    Err(Refused::Precondition(format!(
        "`{requester}` has {OPEN} requests that are not decided; withdraw some first"
    )))
}

/// A request that begins (T1).
fn drafted(id: ExceptionId, requester: Principal, request: Request, now: Timestamp) -> Case {
    Case {
        id,
        requester,
        request,
        state: ExceptionState::Draft,
        reason: "being written".into(),
        since: now,
        created: now,
        terms: None,
        again: None,
        votes: Vec::new(),
        granted: None,
        debt: None,
        paused: None,
        anew: None,
    }
}

/// A case that is asked for anew: a draft, without votes (T4).
fn amended(
    case: &Case,
    requester: &Principal,
    asked: Option<&Request>,
    now: Timestamp,
) -> Result<Case, Refused> {
    if case.requester != *requester {
        return Err(Refused::Forbidden(format!(
            "{} was asked for by `{}`, and only they ask anew",
            case.id, case.requester
        )));
    }
    let case = if case.state == ExceptionState::Pending {
        step(case, Event::Outdate("amended".into()), now, nobody)?
    } else {
        case.clone()
    };
    Ok(match asked {
        Some(request) => Case {
            request: request.clone(),
            ..case
        },
        None => case,
    })
}

/// Whether somebody who saw terms with the digest `seen` saw all that is shown for an exception that
/// was granted: nobody takes back what another has shown meanwhile.
fn saw(view: &View, case: &Case, seen: &Digest, now: Timestamp) -> bool {
    let stored = case.again.as_ref().map(|terms| &terms.digest);
    case.anew.is_none()
        || stored == Some(seen)
        || terms_of(view, case, now).is_ok_and(|terms| terms.digest == *seen)
}

/// What nobody decided about nobody looks at again.
fn looked_at_again(case: &Case) -> Result<(), Refused> {
    let nobody = case
        .terms
        .as_ref()
        .is_some_and(|terms| terms.seats.is_empty());
    if nobody {
        return Err(Refused::Precondition(format!(
            "{} was approved automatically, and nobody looks at it again; take it back with `exeat exception revoke {}`",
            case.id, case.id
        )));
    }
    Ok(())
}

/// An exception that was granted, and for which other evidence is shown: the same in everything else,
/// and nothing rests on it before everybody has looked again.
fn shown(
    view: &View,
    draft: Draft,
    case: &Case,
    who: &Principal,
    asked: Option<&Request>,
) -> Result<Case, Refused> {
    if ![&case.requester, &case.request.owner].contains(&who) {
        return Err(Refused::Forbidden(format!(
            "evidence for {} is shown by its requester or its owner, and `{who}` is neither",
            case.id
        )));
    }
    looked_at_again(case)?;
    if case.debt.is_some() {
        return Err(Refused::Precondition(format!(
            "{} is an override: it is looked at afterwards on what it began with",
            case.id
        )));
    }
    let bare = |request: &Request| Request {
        evidence: Vec::new(),
        text: "".into(),
        ..request.clone()
    };
    let Some(asked) = asked.filter(|asked| bare(asked) == bare(&case.request)) else {
        return Err(Refused::Precondition(format!(
            "{} is {}: evidence is shown for it with `exeat evidence add`, and for anything else it is renewed",
            case.id, case.state
        )));
    };
    let before = case.request.evidence.iter().chain(&case.asked().evidence);
    let other = before
        .filter(|item| {
            asked
                .evidence
                .iter()
                .any(|new| new.id == item.id && new != *item)
        })
        .map(|item| &item.id);
    if let Some(id) = { other }.next() {
        return Err(Refused::Invalid(Invalid::new(
            "evidence",
            format!("`{id}` is shown already, as something else"),
            "an item stays what it is; give what takes its place another id",
        )));
    }
    let case = Case {
        anew: Some(Box::new(asked.clone())),
        ..case.clone()
    };
    let terms = terms_of(view, &case, draft.time).map_err(Refused::Invalid)?;
    Ok(case.on(terms))
}

/// The vote of `approver`, in an open seat that they may fill.
fn seated(
    view: &View,
    case: &Case,
    terms: &Terms,
    approver: &Principal,
    decides: &Decides,
    now: Timestamp,
) -> Result<Vote, Refused> {
    let on_terms = case.on(terms.clone());
    let still = standing(view, &on_terms);
    // Who may decide may say no, though others have filled the seat.
    let open = if decides.approves || lifecycle::open(&on_terms, &still).is_empty() {
        lifecycle::open(&on_terms, &still)
    } else {
        terms.seats.iter().collect()
    };
    let electorate = Electorate::new(&view.snapshot, &case.requester, &case.request, terms.tier);
    let seat = electorate.seat(approver, &open).map_err(|why| {
        why.map_or_else(
            || {
                Refused::Precondition(format!(
                    "{} is {} and waits for nobody's decision",
                    case.id, case.state
                ))
            },
            Refused::Forbidden,
        )
    })?;
    let directory = view.snapshot.directory();
    Ok(Vote {
        approver: approver.clone(),
        person: directory.person(approver).into(),
        role: seat.stage.role,
        domain: seat.domain.clone(),
        approves: decides.approves,
        comment: decides.comment.clone(),
        reviewed: decides.reviewed.clone(),
        digest: decides.digest.clone(),
        time: now,
        viewed: decides.viewed,
        assurance: decides.assurance.clone(),
        trace: decides.trace,
        ballot: if case.state == ExceptionState::Pending {
            Ballot::Initial
        } else {
            Ballot::Revalidation
        },
    })
}
