//! What there is to tell when something changed, and what time alone gives to tell.

use crate::domain::{
    Act, ApproverRole, Case, Digest, ExceptionState, Finding, Incident, News, Notice, Proposal,
    ProposalState, Removal, Request, Seat, Span, Target, Tier, Timestamp,
};

/// How long before an end it is told, beside at three quarters of the time.
const BEFORE: Span = Span::from_hours(24);
/// How long after its time a reminder is still one.
const NEWS: Span = Span::from_days(7);

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

fn roles(seats: &[Seat]) -> String {
    let roles: Vec<_> = seats
        .iter()
        .map(|seat| match &seat.domain {
            Some(domain) => format!("{} of {domain}", seat.stage.role),
            None => seat.stage.role.to_string(),
        })
        .collect();
    roles.join(", ")
}

/// What everybody is told of a case.
fn about(case: &Case, news: News, time: Timestamp) -> Notice {
    let request = &case.request;
    let mut notice = Notice::new(news, case.id.as_str(), time)
        .of(request.domain.clone())
        .with("state", &case.state.to_string())
        .with("deviation", request.deviation.name())
        .with("controls", &list(&request.controls))
        .with("requester", case.requester.as_str())
        .with("owner", request.owner.as_str());
    if let Some(terms) = case.open_terms() {
        notice = notice.with("tier", terms.tier.name());
    }
    if let Some(incident) = &request.incident {
        notice = notice.with("incident", incident);
    }
    if let Some(granted) = case.granted {
        notice = notice
            .with("effective_time", &granted.effective.to_string())
            .with("expire_time", &granted.expire.to_string());
    }
    notice
}

fn digest(case: &Case) -> Option<&Digest> {
    case.terms.as_ref().map(|terms| &terms.digest)
}

fn shown(case: &Case) -> Option<&Request> {
    case.anew.as_deref()
}

/// What there is to tell of a case that changed; nothing where only votes came.
pub fn of_case(before: Option<&Case>, after: &Case, time: Timestamp) -> Option<Notice> {
    use ExceptionState as State;
    let was = before.map_or(State::Draft, |before| before.state);
    let revalidated = |case: &Case| case.granted.and_then(|granted| granted.revalidated);
    let news = match (was, after.state) {
        // Asked for anew: who decides is to look at other terms.
        (State::Pending, State::Pending) if before.and_then(digest) != digest(after) => {
            News::ExceptionRequested
        }
        (State::Approved, State::Approved)
            if before.and_then(revalidated) != revalidated(after) =>
        {
            News::ExceptionRevalidated
        }
        // Other evidence is shown: whoever decides is to look at it.
        (State::Approved, State::Approved) | (State::Suspended, State::Suspended)
            if after.anew.is_some() && before.and_then(shown) != shown(after) =>
        {
            News::ExceptionRevalidationDue
        }
        (was, is) if was == is => return None,
        (State::Suspended, State::Approved) => News::ExceptionRevalidated,
        (_, State::Approved) => News::ExceptionApproved,
        (_, State::Pending) => News::ExceptionRequested,
        (_, State::Denied) => News::ExceptionDenied,
        // What was to be decided may be written again instead.
        (_, State::Withdrawn | State::Lapsed | State::Draft) => News::ExceptionLapsed,
        (_, State::Suspended) => News::ExceptionInvalidated,
        (_, State::Expired) => News::ExceptionExpired,
        (_, State::Revoked) => News::ExceptionRevoked,
        (_, State::Closed) => News::ExceptionClosed,
    };
    let mut notice = about(after, news, time);
    if !after.reason.is_empty() {
        notice = notice.with("reason", &after.reason);
    }
    if news == News::ExceptionRevalidationDue
        && let Some(granted) = after.granted
    {
        let ends = [
            Some(granted.expire),
            granted.next_revalidation,
            after.terms.as_ref().and_then(|terms| terms.latest),
        ];
        if let Some(due) = ends.into_iter().flatten().min() {
            notice = notice.with("due_time", &due.to_string());
        }
    }
    if news == News::ExceptionRequested
        && let Some(terms) = &after.terms
    {
        notice = notice
            .with("waits_for", &roles(&terms.seats))
            .with("digest", terms.digest.as_str());
        if let Some(deadline) = terms.deadline {
            notice = notice.with("decide_by", &deadline.to_string());
        }
    }
    // Whoever would have been asked hears of it, and has to look at it (T9).
    if let Some(debt) = &after.debt
        && news == News::ExceptionApproved
    {
        notice = notice
            .with("skipped", &roles(&debt.seats))
            .with("look_by", &debt.look_due.to_string())
            .with("close_by", &debt.closure_due.to_string());
    }
    Some(notice)
}

/// What there is to tell of a finding that changed: that it is new, or covered no longer (F4), or
/// over.
pub fn of_finding(before: Option<&Finding>, after: &Finding, time: Timestamp) -> Option<Notice> {
    let was_open = before.is_some_and(|before| before.satisfied.is_none());
    let told = before.and_then(|before| before.told);
    let news = if after.satisfied.is_some() && was_open {
        News::ControlRecovered
    } else if after.told.is_some() && after.told != told {
        News::ControlFailed
    } else {
        return None;
    };
    let notice = Notice::new(news, &Finding::key(&after.control, &after.subject), time)
        .with("control", after.control.as_str())
        .with("subject", after.subject.as_str())
        .with("severity", after.severity.name())
        .with("result", after.fault.name())
        .with("owner", after.owner.as_str())
        .with("first_seen_time", &after.first_seen.to_string())
        .with("due_time", &after.due.to_string())
        .with("message", &after.message);
    Some(notice)
}

/// What there is to tell of something taken back. Of a requested exception its case tells.
pub fn of_removal(removal: &Removal, has_case: bool) -> Option<Notice> {
    let news = match (removal.act, &removal.target) {
        (Act::Freeze, _) => News::AgentFrozen,
        (Act::Thaw, _) => News::AgentThawed,
        (Act::Revoke, Target::Exception(_)) if has_case => return None,
        (Act::Revoke, Target::Exception(_)) => News::ExceptionRevoked,
        (Act::Revoke, _) => News::Revoked,
    };
    let domain = match &removal.target {
        Target::Domain(domain) => Some(domain.clone()),
        Target::Exception(_)
        | Target::Subject(_)
        | Target::Credential(_)
        | Target::Control(_)
        | Target::Principal(_) => None,
    };
    let notice = Notice::new(news, removal.target.id(), removal.time)
        .of(domain)
        .with("kind", removal.target.kind())
        .with("cause", removal.cause.name())
        .with("initiator", &removal.initiator);
    Some(notice)
}

/// What there is to tell of an incident that changed.
pub fn of_incident(after: &Incident, time: Timestamp) -> Notice {
    let news = if after.is_open() {
        News::IncidentOpened
    } else {
        News::IncidentResolved
    };
    Notice::new(news, after.id.as_str(), time)
        .of(Some(after.domain.clone()))
        .with("title", &after.title)
}

/// What there is to tell of a proposal that changed.
pub fn of_proposal(after: &Proposal, time: Timestamp) -> Option<Notice> {
    let news = match after.state {
        ProposalState::Pending if after.voices.is_empty() => News::ControlProposed,
        ProposalState::Pending => return None,
        ProposalState::Applied | ProposalState::Denied | ProposalState::Withdrawn => {
            News::ControlDecided
        }
    };
    let notice = Notice::new(news, &after.id, time)
        .with("control", after.control.as_str())
        .with("state", after.state.name())
        .with("weakens", &after.weakens)
        .with("proposer", after.proposer.as_str())
        .with("decide_by", &after.deadline().to_string());
    Some(match news {
        News::ControlProposed => notice.with(
            "waits_for",
            &list(&[ApproverRole::ControlOwner, ApproverRole::RiskOfficer]),
        ),
        _ => notice,
    })
}

/// Something that time alone gives to tell, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reminder {
    /// When.
    pub time: Timestamp,
    /// What tells it apart from every other: told twice, it is told once.
    pub key: Box<str>,
    news: News,
    due: Timestamp,
}

impl Reminder {
    /// Whether it still is one: an end that has come is told as such, and what nobody was told for
    /// long is told no more. That is shorter than it is kept that it was told.
    pub fn is_news(&self, now: Timestamp) -> bool {
        let begun = matches!(
            self.news,
            News::ExceptionActivated | News::ExceptionOutOfScope
        );
        now < self.time + NEWS && (begun || now < self.due)
    }

    /// What it says of its case.
    pub fn notice(&self, case: &Case, now: Timestamp) -> Notice {
        let when = if self.news == News::ExceptionOutOfScope {
            "tried_time"
        } else {
            "due_time"
        };
        about(case, self.news, now).with(when, &self.due.to_string())
    }
}

/// When it is told that something between `from` and `to` is near: at three quarters of the time,
/// and a day before where that is later than half of it.
fn near(from: Timestamp, to: Timestamp) -> Vec<(&'static str, Timestamp)> {
    let length = to - from;
    let mut times = vec![("75%", from + Span::from_micros(length.micros() / 4 * 3))];
    if length.micros() > 2 * BEFORE.micros()
        && let Some(day) = to.checked_sub(BEFORE)
    {
        times.push(("24h", day));
    }
    times
}

/// Everything that time gives to tell of a case as it is, past or to come; and that it was `tried`
/// beyond its scope since it holds, which is told at once where more than LOW is at stake (R18).
pub fn reminders(case: &Case, tried: Option<Timestamp>) -> Vec<Reminder> {
    let mut told = Vec::new();
    let tier = case.terms.as_ref().map(|terms| terms.tier);
    if let Some(tried) = tried
        && case.state == ExceptionState::Approved
        && tier.is_some_and(|tier| tier != Tier::Low)
    {
        let news = News::ExceptionOutOfScope;
        told.push(Reminder {
            time: tried,
            key: format!("{}/{}/{}", case.id, news.name(), case.since.micros()).into(),
            news,
            due: tried,
        });
    }
    let mut remind = |news: News, from: Timestamp, to: Timestamp| {
        for (which, time) in near(from, to) {
            told.push(Reminder {
                time,
                key: format!("{}/{}/{}/{which}", case.id, news.name(), to.micros()).into(),
                news,
                due: to,
            });
        }
    };
    if let Some(debt) = &case.debt {
        if debt.looked.is_none() {
            remind(News::ExceptionDebtDue, case.created, debt.look_due);
        }
        if debt.closure.is_none() {
            remind(News::ExceptionDebtDue, case.created, debt.closure_due);
        }
    }
    match (case.state, &case.terms, case.granted) {
        (ExceptionState::Pending, Some(terms), _) => {
            if let Some(deadline) = terms.deadline {
                remind(News::ExceptionUndecided, terms.submitted, deadline);
            }
        }
        (ExceptionState::Approved | ExceptionState::Suspended, terms, Some(granted)) => {
            remind(News::ExceptionExpiring, granted.effective, granted.expire);
            let again = terms.as_ref().and_then(|terms| terms.revalidation);
            if let (Some(next), Some(again)) = (granted.next_revalidation, again)
                // What ends with it is told as an end.
                && next < granted.expire
                && let Some(from) = next.checked_sub(again)
            {
                remind(News::ExceptionRevalidationDue, from, next);
            }
            if granted.effective > case.since && case.state == ExceptionState::Approved {
                told.push(Reminder {
                    time: granted.effective,
                    key: format!("{}/activated", case.id).into(),
                    news: News::ExceptionActivated,
                    due: granted.effective,
                });
            }
        }
        (
            ExceptionState::Draft
            | ExceptionState::Pending
            | ExceptionState::Approved
            | ExceptionState::Suspended
            | ExceptionState::Denied
            | ExceptionState::Withdrawn
            | ExceptionState::Lapsed
            | ExceptionState::Expired
            | ExceptionState::Revoked
            | ExceptionState::Closed,
            _,
            _,
        ) => {}
    }
    told
}
