//! `exeat.v1.ExceptionService`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tonic::{Request, Response, Status};

use crate::{
    domain::{
        Ballot, Case, Digest, DomainId, ExceptionId, ExceptionState, Invalid, Principal, Seat,
        Span, Tier, Timestamp, Trace, Vote,
    },
    engine::{Electorate, lifecycle},
    manifest::{write_case, write_rules},
    registry::{
        asking::{Again, Decides},
        authn::Caller,
        cases::{standing, terms_of},
        core::Registry,
        role::Role,
        view::View,
    },
    wire::{Fault, Received, sync::stamp, v1},
};

use super::{notes::notes, opened, paging::paged, short};

/// Shortest part of a closure record, in characters.
const SAID: usize = 20;
/// Most looks at cases that are remembered.
const LOOKS: usize = 10_000;

/// When somebody first looked at terms.
type Looks = HashMap<(Box<str>, Digest), Timestamp>;

/// How long before a revalidation is due it is asked for, at the most.
const SOON: Span = Span::from_hours(24);

/// Answers for exceptions on their way.
#[derive(Clone, Debug)]
pub(crate) struct Exceptions {
    registry: Arc<Registry>,
    looks: Arc<Mutex<Looks>>,
}

fn id(text: &str) -> Result<ExceptionId, Fault> {
    ExceptionId::parse(text).map_err(|error| Fault::Invalid(error.under("id")))
}

/// A role that somebody may approve in, or why they may not.
type Part = Result<String, String>;

fn role_text(seat: &Seat) -> String {
    let domain = seat.domain.as_ref();
    let of = domain.map_or(String::new(), |domain| format!(" for {domain}"));
    format!("{}{of}", seat.stage.role)
}

fn seat_text(seat: &Seat) -> String {
    format!("{} {}", seat.stage.quorum, role_text(seat))
}

/// The case as it would be decided now: of one that was granted, on its terms as they are now.
fn current(view: &View, case: &Case, now: Timestamp) -> Case {
    let granted = matches!(
        case.state,
        ExceptionState::Approved | ExceptionState::Suspended
    );
    let terms = granted.then(|| terms_of(view, case, now).ok()).flatten();
    terms.map_or_else(|| case.clone(), |terms| case.on(terms))
}

/// Whether people are to look at a case now: what was granted only when it is due.
fn is_due(case: &Case, now: Timestamp) -> bool {
    let interval = case.terms.as_ref().and_then(|terms| terms.revalidation);
    // Within an hour there is no day to ask in.
    let quarter = interval.map_or(SOON, |interval| Span::from_micros(interval.micros() / 4));
    let soon = now + SOON.min(quarter);
    match case.state {
        ExceptionState::Pending | ExceptionState::Suspended => true,
        ExceptionState::Approved => {
            let next = case.granted.and_then(|granted| granted.next_revalidation);
            case.anew.is_some() || next.is_some_and(|next| next <= soon)
        }
        ExceptionState::Draft
        | ExceptionState::Denied
        | ExceptionState::Withdrawn
        | ExceptionState::Lapsed
        | ExceptionState::Expired
        | ExceptionState::Revoked
        | ExceptionState::Closed => false,
    }
}

/// Who has yet to decide about a case as it stands.
pub(in crate::registry) fn open_seats(view: &View, case: &Case, now: Timestamp) -> Vec<String> {
    let still = standing(view, case);
    let mut open: Vec<_> = if is_due(case, now) {
        let seats = lifecycle::open(case, &still).into_iter();
        seats.map(seat_text).collect()
    } else {
        Vec::new()
    };
    let owed = lifecycle::owed(case, &still).into_iter();
    open.extend(owed.map(|seat| format!("{} afterwards", seat_text(seat))));
    open
}

pub(super) fn message(view: &View, case: &Case, now: Timestamp) -> v1::Case {
    let case = &current(view, case, now);
    let terms = case.open_terms();
    let granted = case.granted;
    v1::Case {
        id: case.id.to_string(),
        state: case.state.name().to_owned(),
        reason: case.reason.to_string(),
        since: Some(stamp(case.since)),
        requester: case.requester.to_string(),
        owner: case.request.owner.to_string(),
        control_ids: case
            .request
            .controls
            .iter()
            .map(ToString::to_string)
            .collect(),
        tier: terms.map_or(String::new(), |terms| terms.tier.to_string()),
        digest: terms.map_or(String::new(), |terms| terms.digest.to_string()),
        deadline: terms.and_then(|terms| terms.deadline).map(stamp),
        open_seats: open_seats(view, case, now),
        effective_time: granted.map(|granted| stamp(granted.effective)),
        expire_time: granted.map(|granted| stamp(granted.expire)),
        next_revalidation_time: granted
            .and_then(|granted| granted.next_revalidation)
            .map(stamp),
        record: write_case(case),
        notes: Vec::new(),
        your_role: String::new(),
        not_yours: String::new(),
    }
}

/// As what `who` may approve a case now, or why they may not; nothing where nobody is to decide.
fn part(view: &View, case: &Case, who: &Principal, now: Timestamp) -> Option<Part> {
    let case = &current(view, case, now);
    let terms = case.open_terms()?;
    let still = standing(view, case);
    let admitted = |seats: Vec<&Seat>, tier: Tier, decided: bool| -> Option<Part> {
        if seats.is_empty() {
            return None;
        }
        if decided {
            return Some(Err(format!("`{who}` has decided already")));
        }
        let electorate = Electorate::new(&view.snapshot, &case.requester, &case.request, tier);
        let seat = electorate.seat(who, &seats).map(role_text);
        Some(seat.map_err(Option::unwrap_or_default))
    };
    let directory = view.snapshot.directory();
    let person = directory.person(who);
    let theirs = |vote: &&Vote| directory.person(&vote.approver) == person;
    // Whoever let it happen is not who looks at it afterwards.
    let decided = case.votes.iter().any(|vote| theirs(&vote));
    let afterwards = admitted(lifecycle::owed(case, &still), Tier::High, decided);
    if !is_due(case, now) || matches!(afterwards, Some(Ok(_))) {
        return afterwards;
    }
    let ballot = if case.state == ExceptionState::Pending {
        Ballot::Initial
    } else {
        Ballot::Revalidation
    };
    let decided = case.votes.iter().any(|vote| {
        let counts = vote.ballot == ballot && vote.time >= terms.submitted;
        counts && vote.digest == terms.digest && theirs(&vote)
    });
    admitted(lifecycle::open(case, &still), terms.tier, decided).or(afterwards)
}

impl Exceptions {
    pub(in crate::registry) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            looks: Arc::default(),
        }
    }

    fn told(&self, caller: &Caller, case: &Case) -> v1::Case {
        let (view, now) = (self.registry.view(), self.registry.clock.now().latest);
        let who = Principal::parse(&caller.identity).ok();
        let part = who.and_then(|who| part(&view, case, &who, now));
        let decides = matches!(caller.role, Role::Admin | Role::Approver);
        let (your_role, not_yours) = match part {
            None => (String::new(), String::new()),
            Some(Ok(_)) if !decides => {
                let why = format!(
                    "whoever decides has role approver, and this is {}",
                    caller.role.name()
                );
                (String::new(), why)
            }
            Some(Ok(role)) => (role, String::new()),
            Some(Err(why)) => (String::new(), why),
        };
        v1::Case {
            notes: notes(&view, &self.registry.uses, case, now),
            your_role,
            not_yours,
            ..message(&view, case, now)
        }
    }

    async fn requested(
        &self,
        request: Request<Received<v1::RequestExceptionRequest>>,
    ) -> Result<v1::RequestExceptionResponse, Fault> {
        let (caller, message) = opened(request)?;
        let v1::RequestExceptionRequest {
            file,
            id: again,
            dry_run,
            expected_digest,
        } = message;
        let again = (!again.is_empty()).then(|| id(&again)).transpose()?;
        let expected = (!expected_digest.is_empty())
            .then(|| Digest::parse(&expected_digest))
            .transpose()
            .map_err(|error| Fault::Invalid(error.under("expected_digest")))?;
        let again = again.map(|id| Again { id, expected });
        let file = file.map(|v1::ManifestFile { name, content }| (name, content));
        let case = self.registry.ask(&caller, file, again, dry_run).await?;
        Ok(v1::RequestExceptionResponse {
            case: Some(self.told(&caller, &case)),
        })
    }

    fn rules(
        &self,
        request: Request<Received<v1::GetRulesRequest>>,
    ) -> Result<v1::GetRulesResponse, Fault> {
        let (_, v1::GetRulesRequest { domain }) = opened(request)?;
        let view = self.registry.view();
        let domains: Vec<DomainId> = if domain.is_empty() {
            Vec::new()
        } else {
            let id = DomainId::parse(&domain).map_err(|e| Fault::Invalid(e.under("domain")))?;
            if view.snapshot.domains_above(&id).next().is_none() {
                return Err(Fault::NotFound(format!("there is no domain `{id}`")));
            }
            vec![id]
        };
        let domains: Vec<&DomainId> = domains.iter().collect();
        let rules = Tier::ALL.map(|tier| write_rules(tier, &view.snapshot.rules(tier, &domains)));
        Ok(v1::GetRulesResponse {
            rules: rules.into(),
        })
    }

    fn got(
        &self,
        request: Request<Received<v1::GetCaseRequest>>,
    ) -> Result<v1::GetCaseResponse, Fault> {
        let (caller, v1::GetCaseRequest { id: text }) = opened(request)?;
        let id = id(&text)?;
        let view = self.registry.view();
        let case = view
            .cases
            .get(id.as_str())
            .ok_or_else(|| Fault::NotFound(format!("there is no exception `{id}` on its way")))?;
        let now = self.registry.clock.now().latest;
        let told = self.told(&caller, case);
        self.looked(&caller, &told.digest, now);
        Ok(v1::GetCaseResponse { case: Some(told) })
    }

    /// Notes that somebody looked at terms.
    fn looked(&self, caller: &Caller, digest: &str, now: Timestamp) {
        let Ok(digest) = Digest::parse(digest) else {
            return;
        };
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= LOOKS {
            looks.clear();
        }
        looks
            .entry((caller.identity.clone(), digest))
            .or_insert(now);
    }

    fn listed(
        &self,
        request: Request<Received<v1::ListCasesRequest>>,
    ) -> Result<v1::ListCasesResponse, Fault> {
        let (caller, message_) = opened(request)?;
        let v1::ListCasesRequest {
            state,
            waiting_for_me,
            page_size,
            page_token,
        } = message_;
        let state = if state.is_empty() {
            None
        } else {
            let known = ExceptionState::parse(&state.to_ascii_uppercase());
            let unknown = || {
                let fix = "use a state such as PENDING or APPROVED";
                Fault::Invalid(Invalid::new("state", format!("`{state}` is no state"), fix))
            };
            Some(known.ok_or_else(unknown)?)
        };
        let who = Principal::parse(&caller.identity).ok();
        let view = self.registry.view();
        let now = self.registry.clock.now().latest;
        let found = view
            .cases
            .values()
            .filter(|case| state.is_none_or(|state| case.state == state))
            .filter(|case| {
                let mut who = who.iter();
                let mine = |who| matches!(part(&view, case, who, now), Some(Ok(_)));
                !waiting_for_me || who.any(mine)
            })
            .map(|case| ((false, case.created, case.id.as_str().into()), case));
        // The latest first.
        let page = paged(found.collect(), |a, b| b.cmp(a), (page_size, &page_token))?;
        let cases = page.items.into_iter();
        Ok(v1::ListCasesResponse {
            cases: cases.map(|case| message(&view, case, now)).collect(),
            next_page_token: page.next,
        })
    }

    async fn decided(
        &self,
        request: Request<Received<v1::DecideRequest>>,
    ) -> Result<v1::DecideResponse, Fault> {
        let trace = request.metadata().get("traceparent");
        let trace = trace.and_then(|text| Trace::parse(text.to_str().ok()?));
        let (caller, message) = opened(request)?;
        let v1::DecideRequest {
            id: text,
            approve,
            comment,
            digest,
            reviewed_evidence,
        } = message;
        let id = id(&text)?;
        let digest = Digest::parse(&digest).map_err(|_| {
            let fix = "send the digest of the terms you looked at";
            Fault::Invalid(Invalid::new("digest", "is missing", fix))
        })?;
        let view = self.registry.view();
        let evidence = view
            .cases
            .get(id.as_str())
            .map(|case| case.asked().evidence.clone())
            .unwrap_or_default();
        let mut reviewed = Vec::new();
        for name in reviewed_evidence {
            let item = evidence.iter().find(|item| *item.id == *name);
            let item = item.ok_or_else(|| {
                let what = format!("`{name}` is no evidence of {id}");
                Fault::Invalid(Invalid::new(
                    "reviewed_evidence",
                    what,
                    "see `exeat exception show`",
                ))
            })?;
            reviewed.push((item.id.clone(), item.digest.clone()));
        }
        let viewed = {
            let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks
                .get(&(caller.identity.clone(), digest.clone()))
                .copied()
        };
        let decides = Decides {
            id,
            approves: approve,
            comment: short("comment", comment)?,
            digest,
            reviewed,
            viewed,
            assurance: caller.assurance(self.registry.clock.now().latest),
            trace,
        };
        let case = self.registry.decide(&caller, decides).await?;
        Ok(v1::DecideResponse {
            case: Some(self.told(&caller, &case)),
        })
    }

    async fn closed(
        &self,
        request: Request<Received<v1::CloseOverrideRequest>>,
    ) -> Result<v1::CloseOverrideResponse, Fault> {
        let (caller, message) = opened(request)?;
        let v1::CloseOverrideRequest {
            id: text,
            relaxed,
            restored,
            lessons,
        } = message;
        let said = |field: &str, text: String| {
            if text.trim().chars().count() < SAID {
                let what = format!("is shorter than {SAID} characters");
                let fix = "say what was relaxed, how it was restored and what is learnt from it";
                return Err(Fault::Invalid(Invalid::new(field, what, fix)));
            }
            short(field, text)
        };
        let record = [
            said("relaxed", relaxed)?,
            said("restored", restored)?,
            said("lessons", lessons)?,
        ];
        let case = self
            .registry
            .close_override(&caller, &id(&text)?, record)
            .await?;
        Ok(v1::CloseOverrideResponse {
            case: Some(self.told(&caller, &case)),
        })
    }

    async fn given_up(
        &self,
        request: Request<Received<v1::GiveUpRequest>>,
    ) -> Result<v1::GiveUpResponse, Fault> {
        let (caller, v1::GiveUpRequest { id: text, reason }) = opened(request)?;
        let why = if reason.is_empty() {
            "no longer needed".into()
        } else {
            reason
        };
        let case = self
            .registry
            .give_up(&caller, &id(&text)?, Some(short("reason", why)?))
            .await?;
        Ok(v1::GiveUpResponse {
            case: Some(self.told(&caller, &case)),
        })
    }

    async fn suspended(
        &self,
        request: Request<Received<v1::SuspendRequest>>,
    ) -> Result<v1::SuspendResponse, Fault> {
        let (caller, v1::SuspendRequest { id: text, reason }) = opened(request)?;
        if reason.trim().is_empty() {
            let fix = "say why: whoever looks at it again reads it";
            return Err(Fault::Invalid(Invalid::new("reason", "is missing", fix)));
        }
        let why = short("reason", reason)?;
        let case = self.registry.suspend(&caller, &id(&text)?, &why).await?;
        Ok(v1::SuspendResponse {
            case: Some(self.told(&caller, &case)),
        })
    }
}

#[tonic::async_trait]
impl v1::exception_service_server::ExceptionService for Exceptions {
    async fn get_rules(
        &self,
        request: Request<Received<v1::GetRulesRequest>>,
    ) -> Result<Response<v1::GetRulesResponse>, Status> {
        Ok(Response::new(self.rules(request)?))
    }

    async fn request_exception(
        &self,
        request: Request<Received<v1::RequestExceptionRequest>>,
    ) -> Result<Response<v1::RequestExceptionResponse>, Status> {
        Ok(Response::new(self.requested(request).await?))
    }

    async fn get_case(
        &self,
        request: Request<Received<v1::GetCaseRequest>>,
    ) -> Result<Response<v1::GetCaseResponse>, Status> {
        Ok(Response::new(self.got(request)?))
    }

    async fn list_cases(
        &self,
        request: Request<Received<v1::ListCasesRequest>>,
    ) -> Result<Response<v1::ListCasesResponse>, Status> {
        Ok(Response::new(self.listed(request)?))
    }

    async fn decide(
        &self,
        request: Request<Received<v1::DecideRequest>>,
    ) -> Result<Response<v1::DecideResponse>, Status> {
        Ok(Response::new(self.decided(request).await?))
    }

    async fn give_up(
        &self,
        request: Request<Received<v1::GiveUpRequest>>,
    ) -> Result<Response<v1::GiveUpResponse>, Status> {
        Ok(Response::new(self.given_up(request).await?))
    }

    async fn suspend(
        &self,
        request: Request<Received<v1::SuspendRequest>>,
    ) -> Result<Response<v1::SuspendResponse>, Status> {
        Ok(Response::new(self.suspended(request).await?))
    }

    async fn close_override(
        &self,
        request: Request<Received<v1::CloseOverrideRequest>>,
    ) -> Result<Response<v1::CloseOverrideResponse>, Status> {
        Ok(Response::new(self.closed(request).await?))
    }
}
