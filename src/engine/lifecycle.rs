//! Where an exception goes from where it is: the transitions T1–T16 of governance §7.2, and no
//! others.
//!
//! Pure: a case and an event in, the case afterwards out. Whoever runs it looks up what the world
//! says (terms, who holds which role) and keeps the result.

use std::{collections::BTreeSet, fmt};

use crate::domain::{
    Ballot, CLOSE, Case, Closure, Debt, Deviation, Digest, ExceptionState, Granted, LOOK_BACK,
    Seat, Span, Terms, Timestamp, Trace, Vote, Window,
};

/// Shortest comment of a vote.
const COMMENT: usize = 10;

/// Something that happens to a case.
#[derive(Clone, Debug)]
pub enum Event {
    /// The requester hands it in, on these terms (T2; T5 where nobody has to decide).
    Submit(Terms),
    /// Somebody decides, on the terms as they are now (T3, T5, T6; T11 of one that was granted).
    Vote(Vote, Terms),
    /// What was asked for, or what it was bound to, is no longer the same (T4).
    Outdate(Box<str>),
    /// The requester or owner takes it back (T7).
    Withdraw,
    /// Nobody decided in time (T8).
    Lapse,
    /// Something stands against it until it is looked at again (T10).
    Suspend(Box<str>),
    /// Something stands against it until that is gone (T10).
    Pause(Box<str>),
    /// What stood against it does so no more (T12).
    Resume(Box<str>),
    /// It is taken back (T13).
    Revoke(Box<str>),
    /// Its end has come (T14).
    Expire,
    /// It is no longer needed (T15).
    Close(Box<str>),
    /// It is written down how an override was undone; with it the override is closed.
    Record(Closure),
}

impl Event {
    /// Every event's name.
    pub const NAMES: [&'static str; 12] = [
        "submit", "vote", "outdate", "withdraw", "lapse", "suspend", "pause", "resume", "revoke",
        "expire", "close", "record",
    ];

    /// The event's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Submit(_) => "submit",
            Self::Vote(..) => "vote",
            Self::Outdate(_) => "outdate",
            Self::Withdraw => "withdraw",
            Self::Lapse => "lapse",
            Self::Suspend(_) => "suspend",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Revoke(_) => "revoke",
            Self::Expire => "expire",
            Self::Close(_) => "close",
            Self::Record(_) => "record",
        }
    }
}

/// Why an event does not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No transition leads out of the state with it.
    Illegal {
        /// The state.
        state: ExceptionState,
        /// The event's name.
        event: &'static str,
    },
    /// The terms are not those that the vote is bound to.
    Outdated,
    /// A guard stands against it.
    Guard(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Illegal { state, event } => {
                write!(f, "an exception that is {state} does not {event}")
            }
            Self::Outdated => f.write_str(
                "what was approved is no longer what would be granted; look at it again",
            ),
            Self::Guard(why) => f.write_str(why),
        }
    }
}

fn guard(fits: bool, why: impl FnOnce() -> String) -> Result<(), Refused> {
    if fits {
        Ok(())
    } else {
        Err(Refused::Guard(why()))
    }
}

/// The case after `event`, at `now`. `who` says which person stands behind a vote now, if whoever
/// cast it still may (A2, A3): who may no longer does not count.
///
/// # Errors
///
/// A transition that does not exist, or a guard of one that does.
pub fn step(
    case: &Case,
    event: Event,
    now: Timestamp,
    who: impl Fn(&Vote) -> Option<Box<str>>,
) -> Result<Case, Refused> {
    use ExceptionState::{
        Approved, Closed, Draft, Expired, Lapsed, Pending, Revoked, Suspended, Withdrawn,
    };
    let name = event.name();
    let to = |state: ExceptionState, reason: &str| Case {
        state,
        reason: reason.into(),
        since: now,
        again: None,
        paused: None,
        anew: case.anew.clone().filter(|_| !state.is_final()),
        ..case.clone()
    };
    match (case.state, event) {
        (_, Event::Vote(vote, _)) if vote.ballot == Ballot::Retroactive => {
            looked_back(case, vote, now, who)
        }
        (_, Event::Record(closure)) => recorded(case, closure, now),
        (Draft, Event::Submit(terms)) => submitted(case, terms, now),
        (Pending, Event::Vote(vote, terms)) => {
            let stored = case.terms.as_ref();
            if stored.is_none_or(|stored| stored.digest != terms.digest) {
                return Err(Refused::Outdated);
            }
            let in_time = |terms: &Terms| terms.deadline.is_none_or(|deadline| now < deadline);
            guard(stored.is_some_and(in_time), || {
                "the time to decide is over".into()
            })?;
            voted(case, vote, Ballot::Initial, now, who)
        }
        (Approved | Suspended, Event::Vote(vote, terms)) => {
            guard(vote.approves, || {
                "it was granted; take it back with `exeat exception revoke`".into()
            })?;
            voted(&case.on(terms), vote, Ballot::Revalidation, now, who)
        }
        (Pending, Event::Outdate(reason)) => Ok(Case {
            terms: None,
            ..to(Draft, &reason)
        }),
        // Also a draft, which nothing else ends.
        (Draft | Pending, Event::Withdraw) => Ok(to(Withdrawn, "withdrawn")),
        (Pending, Event::Lapse) => Ok(to(Lapsed, "not decided in time")),
        (Approved, Event::Suspend(reason)) => Ok(to(Suspended, &reason)),
        (Approved, Event::Pause(reason)) => Ok(Case {
            paused: Some(case.since),
            ..to(Suspended, &reason)
        }),
        // What only waited has to be looked at after all.
        (Suspended, Event::Suspend(reason)) if case.paused.is_some() => Ok(to(Suspended, &reason)),
        (Suspended, Event::Resume(reason)) if case.paused.is_some() => Ok(Case {
            since: case.paused.unwrap_or(now),
            ..to(Approved, &reason)
        }),
        (Approved | Suspended, Event::Revoke(reason)) => Ok(to(Revoked, &reason)),
        (Approved | Suspended, Event::Expire) => {
            let over = |granted: Granted| now >= granted.expire;
            guard(case.granted.is_some_and(over), || {
                "its end has not come".into()
            })?;
            Ok(to(Expired, "its end has come"))
        }
        (Approved | Suspended, Event::Close(reason)) => {
            let written = |debt: &Debt| debt.closure.is_some();
            guard(case.debt.as_ref().is_none_or(written), || {
                format!(
                    "it was an override: write down how it was undone with `exeat incident close {}`",
                    case.id
                )
            })?;
            Ok(to(Closed, &reason))
        }
        (state, _) => Err(Refused::Illegal { state, event: name }),
    }
}

/// T2, and T5 where nobody has to decide.
fn submitted(case: &Case, mut terms: Terms, now: Timestamp) -> Result<Case, Refused> {
    if let Window::Fixed { start, duration } = case.request.window {
        let end = start + duration;
        guard(end > now, || {
            format!("its window is over since {end}; name a later `window.start_time`, or none")
        })?;
        // Whoever decides does not find out at the end that there is nothing to give.
        if let Some(latest) = terms.latest {
            guard(start.max(now) < latest, || {
                format!(
                    "its window begins at {start}, and what it rests on ends at {latest}; begin earlier, or show evidence that holds longer"
                )
            })?;
        }
        terms.deadline = Some(terms.deadline.map_or(end, |deadline| deadline.min(end)));
    }
    let automatic = terms.seats.is_empty();
    let case = Case {
        terms: Some(terms),
        state: ExceptionState::Pending,
        reason: "submitted".into(),
        since: now,
        ..case.clone()
    };
    if automatic {
        let how = if case.request.deviation == Deviation::IncidentOverride {
            "begun by who is on call"
        } else {
            "approved automatically"
        };
        granted(&case, how, None, now)
    } else {
        Ok(case)
    }
}

/// T5: opens the window.
fn granted(
    case: &Case,
    reason: &str,
    approval: Option<Trace>,
    now: Timestamp,
) -> Result<Case, Refused> {
    let (start, mut expire) = case.request.window.ends(now);
    let terms = case.terms.as_ref();
    // It does not outlive what it rests on.
    if let Some(latest) = terms.and_then(|terms| terms.latest) {
        expire = expire.min(latest);
    }
    // Approval moves no window, and opens none in the past.
    let effective = start.max(now);
    guard(expire > effective, || {
        "nothing would be left of its window".into()
    })?;
    let interval = terms.and_then(|terms| terms.revalidation);
    Ok(Case {
        state: ExceptionState::Approved,
        reason: reason.into(),
        since: now,
        granted: Some(Granted {
            effective,
            expire,
            next_revalidation: next(interval, effective, expire),
            revalidated: None,
            approval,
        }),
        debt: terms.and_then(|terms| owed_from(terms, now)),
        ..case.clone()
    })
}

/// What an override owes from the moment it begins.
fn owed_from(terms: &Terms, now: Timestamp) -> Option<Debt> {
    (!terms.after.is_empty()).then(|| Debt {
        seats: terms.after.clone(),
        look_due: now + LOOK_BACK,
        looked: None,
        closure_due: now + CLOSE,
        closure: None,
    })
}

fn next(interval: Option<Span>, from: Timestamp, expire: Timestamp) -> Option<Timestamp> {
    let next = from + interval?;
    (next < expire).then_some(next)
}

/// Whoever approves has looked at all the evidence that is required (A4).
fn reviewed(case: &Case, vote: &Vote) -> Result<(), Refused> {
    if !vote.approves {
        return Ok(());
    }
    let required = case.asked().evidence.iter().filter(|item| item.required);
    for item in required {
        let seen = |(id, digest): &(Box<str>, Digest)| *id == item.id && *digest == item.digest;
        guard(vote.reviewed.iter().any(seen), || {
            format!(
                "evidence `{}` was not reviewed; look at it and name it as reviewed",
                item.id
            )
        })?;
    }
    Ok(())
}

/// T3, T5, T6 and T11.
fn voted(
    case: &Case,
    vote: Vote,
    ballot: Ballot,
    now: Timestamp,
    who: impl Fn(&Vote) -> Option<Box<str>>,
) -> Result<Case, Refused> {
    let Some(terms) = case.open_terms() else {
        return Err(Refused::Outdated);
    };
    if vote.digest != terms.digest {
        return Err(Refused::Outdated);
    }
    guard(vote.ballot == ballot, || "it is another ballot".into())?;
    commented(&vote)?;
    let since = terms.submitted;
    let person = who(&vote).unwrap_or_else(|| vote.person.clone());
    let twice = counted(case, &terms.digest, ballot, since).any(|known| {
        let theirs = who(known).unwrap_or_else(|| known.person.clone());
        theirs == person || known.approver == vote.approver
    });
    // Whoever approved takes that back by denying (A7).
    guard(!(twice && vote.approves), || {
        format!(
            "{} has decided already; one person counts once",
            vote.approver
        )
    })?;
    strong(&vote, &terms.seats)?;
    if terms.review_evidence {
        reviewed(case, &vote)?;
    }
    let mut next_case = case.clone();
    let denies = !vote.approves;
    next_case.votes.push(vote);
    if denies {
        return Ok(Case {
            state: ExceptionState::Denied,
            reason: "denied".into(),
            since: now,
            ..next_case
        });
    }
    if !open_seats(&next_case, ballot, since, &who).is_empty() {
        return Ok(next_case);
    }
    match ballot {
        Ballot::Initial | Ballot::Retroactive => {
            // Of several approvals the last is the one that opens it.
            let approval = next_case.votes.last().and_then(|vote| vote.trace);
            granted(&next_case, "approved", approval, now)
        }
        Ballot::Revalidation => {
            let (interval, latest) = (terms.revalidation, terms.latest);
            let (again, anew) = (next_case.again.take(), next_case.anew.take());
            let mut next_case = Case {
                request: anew.map_or(next_case.request, |anew| *anew),
                state: ExceptionState::Approved,
                paused: None,
                reason: "revalidated".into(),
                since: now,
                // What it is bound to from now on is what they saw.
                terms: again.or(next_case.terms),
                ..next_case
            };
            if let Some(granted) = &mut next_case.granted {
                // Revalidation extends nothing.
                granted.expire = latest.map_or(granted.expire, |end| end.min(granted.expire));
                guard(now < granted.expire, || "its end has come".into())?;
                granted.revalidated = Some(now);
                granted.next_revalidation = next(interval, now, granted.expire);
            }
            Ok(next_case)
        }
    }
}

fn commented(vote: &Vote) -> Result<(), Refused> {
    guard(vote.comment.trim().chars().count() >= COMMENT, || {
        format!("`comment` is shorter than {COMMENT} characters; say why")
    })
}

/// Whoever approves in a seat that asks for it has signed in with a step-up; a no needs none.
fn strong(vote: &Vote, seats: &[Seat]) -> Result<(), Refused> {
    let its = |seat: &&Seat| seat.stage.role == vote.role && seat.domain == vote.domain;
    let asks = seats.iter().find(its).is_some_and(|seat| seat.step_up);
    let assurance = vote.assurance.as_ref();
    let has = assurance.is_some_and(|assurance| assurance.stepped_up);
    guard(has || !asks || !vote.approves, || {
        "whoever approves this signs in with a step-up: `exeat login --step-up`, then approve again"
            .into()
    })
}

/// A vote on an override that has begun, and may be over: it changes what is owed, and of what is
/// over nothing else.
fn looked_back(
    case: &Case,
    vote: Vote,
    now: Timestamp,
    who: impl Fn(&Vote) -> Option<Box<str>>,
) -> Result<Case, Refused> {
    let (Some(debt), Some(terms)) = (&case.debt, &case.terms) else {
        return Err(Refused::Illegal {
            state: case.state,
            event: "vote",
        });
    };
    guard(debt.looked.is_none(), || {
        "it was looked at afterwards already".into()
    })?;
    if vote.digest != terms.digest {
        return Err(Refused::Outdated);
    }
    commented(&vote)?;
    strong(&vote, &debt.seats)?;
    // As HIGH asks for.
    reviewed(case, &vote)?;
    let person = who(&vote).unwrap_or_else(|| vote.person.clone());
    // Whoever let it happen is not who looks at it afterwards (A2).
    let twice = case.votes.iter().any(|known| {
        let theirs = who(known).unwrap_or_else(|| known.person.clone());
        known.approves && (theirs == person || known.approver == vote.approver)
    });
    guard(!(twice && vote.approves), || {
        format!(
            "{} has decided already; one person counts once",
            vote.approver
        )
    })?;
    let denies = !vote.approves;
    let mut next_case = case.clone();
    next_case.votes.push(vote);
    let all = owed(&next_case, &who).is_empty();
    if let Some(debt) = &mut next_case.debt
        && (denies || all)
    {
        debt.looked = Some((!denies, now));
    }
    let live = matches!(
        case.state,
        ExceptionState::Approved | ExceptionState::Suspended
    );
    if denies && live {
        next_case.state = ExceptionState::Revoked;
        next_case.reason = "its retroactive approval was denied".into();
        next_case.since = now;
    }
    Ok(next_case)
}

/// It is written down how an override was undone.
fn recorded(case: &Case, closure: Closure, now: Timestamp) -> Result<Case, Refused> {
    let Some(debt) = &case.debt else {
        return Err(Refused::Illegal {
            state: case.state,
            event: "record",
        });
    };
    guard(debt.closure.is_none(), || {
        "it was written down already".into()
    })?;
    let mut next_case = case.clone();
    if let Some(debt) = &mut next_case.debt {
        debt.closure = Some(closure);
    }
    let live = matches!(
        case.state,
        ExceptionState::Approved | ExceptionState::Suspended
    );
    if live {
        next_case.state = ExceptionState::Closed;
        next_case.reason = "closed with its record".into();
        next_case.since = now;
    }
    Ok(next_case)
}

/// The seats of those who have yet to look at an override that has begun.
pub fn owed<'a>(case: &'a Case, who: &impl Fn(&Vote) -> Option<Box<str>>) -> Vec<&'a Seat> {
    let Some(debt) = case.debt.as_ref().filter(|debt| debt.looked.is_none()) else {
        return Vec::new();
    };
    let looked = case
        .votes
        .iter()
        .filter(|vote| vote.ballot == Ballot::Retroactive && vote.approves);
    unfilled(&debt.seats, looked, who)
}

/// The votes that count: for what it is now, and cast since it came to be so.
fn counted<'a>(
    case: &'a Case,
    digest: &'a Digest,
    ballot: Ballot,
    since: Timestamp,
) -> impl Iterator<Item = &'a Vote> {
    case.votes.iter().filter(move |vote| {
        vote.ballot == ballot && vote.digest == *digest && vote.approves && vote.time >= since
    })
}

/// The seats that are not filled by distinct persons who still may.
fn open_seats<'a>(
    case: &'a Case,
    ballot: Ballot,
    since: Timestamp,
    who: &impl Fn(&Vote) -> Option<Box<str>>,
) -> Vec<&'a Seat> {
    let Some(terms) = case.open_terms() else {
        return Vec::new();
    };
    unfilled(
        &terms.seats,
        counted(case, &terms.digest, ballot, since),
        who,
    )
}

/// The seats that distinct persons who still may have not filled.
fn unfilled<'a>(
    seats: &'a [Seat],
    votes: impl Iterator<Item = &'a Vote>,
    who: &impl Fn(&Vote) -> Option<Box<str>>,
) -> Vec<&'a Seat> {
    let mut persons = BTreeSet::new();
    let standing: Vec<&Vote> = votes
        .filter(|vote| who(vote).is_some_and(|person| persons.insert(person)))
        .collect();
    let open = |seat: &&Seat| {
        let fills = |vote: &&&Vote| (vote.role, &vote.domain) == (seat.stage.role, &seat.domain);
        standing.iter().filter(fills).count() < usize::from(seat.stage.quorum.get())
    };
    seats.iter().filter(open).collect()
}

/// The seats that are still to be filled, of a case that is to be decided, or looked at again.
pub fn open<'a>(case: &'a Case, who: &impl Fn(&Vote) -> Option<Box<str>>) -> Vec<&'a Seat> {
    match case.state {
        ExceptionState::Pending => {
            let since = case
                .terms
                .as_ref()
                .map_or(case.since, |terms| terms.submitted);
            open_seats(case, Ballot::Initial, since, who)
        }
        ExceptionState::Approved | ExceptionState::Suspended => {
            if let Some(terms) = &case.again {
                return open_seats(case, Ballot::Revalidation, terms.submitted, who);
            }
            // Nobody has begun to look again: who did before does not count.
            let terms = case.terms.iter();
            terms.flat_map(|terms| &terms.seats).collect()
        }
        ExceptionState::Draft
        | ExceptionState::Denied
        | ExceptionState::Withdrawn
        | ExceptionState::Lapsed
        | ExceptionState::Expired
        | ExceptionState::Revoked
        | ExceptionState::Closed => Vec::new(),
    }
}

/// What the clock alone demands of a case, and when the clock next demands something.
pub fn due(case: &Case, now: Timestamp) -> (Option<Event>, Option<Timestamp>) {
    let at = |event: fn() -> Event, time: Option<Timestamp>| match time {
        Some(time) if time <= now => (Some(event()), None),
        later => (None, later),
    };
    match (case.state, &case.terms, case.granted) {
        (ExceptionState::Pending, Some(terms), _) => at(|| Event::Lapse, terms.deadline),
        (ExceptionState::Approved | ExceptionState::Suspended, _, Some(granted)) => {
            let over = at(|| Event::Expire, Some(granted.expire));
            if over.0.is_some() || case.state == ExceptionState::Suspended {
                return over;
            }
            let revalidate = at(
                || Event::Suspend("revalidation is overdue".into()),
                granted.next_revalidation,
            );
            match revalidate {
                (None, None) => over,
                sooner => sooner,
            }
        }
        _ => (None, None),
    }
}
