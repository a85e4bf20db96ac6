//! Cases as the registry keeps them: canonical JSON, written and read here alone.

use std::{collections::BTreeMap, num::NonZeroU8};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::domain::{
    ApproverRole, Assurance, Ballot, Case, Closure, ControlId, Debt, Digest, DomainId, ExceptionId,
    ExceptionState, Facet, Fingerprint, Granted, Invalid, Kind, Name, OnChange, Principal, Request,
    Seat, Span, Stage, SubjectId, Terms, Tier, TierInput, Timestamp, Trace, Vote,
};

use super::{
    fingerprint::{canonical, digest},
    request,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseRecord {
    id: String,
    requester: String,
    request: Json,
    state: String,
    reason: String,
    since: String,
    created: String,
    terms: Option<TermsRecord>,
    #[serde(default)]
    again: Option<TermsRecord>,
    votes: Vec<VoteRecord>,
    granted: Option<GrantedRecord>,
    #[serde(default)]
    debt: Option<DebtRecord>,
    #[serde(default)]
    paused: Option<String>,
    #[serde(default)]
    anew: Option<Json>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DebtRecord {
    seats: Vec<SeatRecord>,
    look_due: String,
    looked: Option<LookedRecord>,
    closure_due: String,
    closure: Option<ClosureRecord>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LookedRecord {
    approved: bool,
    time: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClosureRecord {
    by: String,
    time: String,
    relaxed: String,
    restored: String,
    lessons: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsRecord {
    digest: String,
    submitted: String,
    tier: String,
    inputs: Vec<InputRecord>,
    seats: Vec<SeatRecord>,
    #[serde(default)]
    after: Vec<SeatRecord>,
    review_evidence: bool,
    deadline: Option<String>,
    controls: BTreeMap<String, u64>,
    /// Not in what was kept before it was.
    #[serde(default)]
    meanings: BTreeMap<String, String>,
    bound: BTreeMap<String, String>,
    revalidation: Option<i64>,
    on_change: String,
    lineage: String,
    renewal_count: u32,
    latest: Option<String>,
    /// Not in what was kept before owners were.
    #[serde(default)]
    owners: BTreeMap<String, String>,
    #[serde(default)]
    policies: Vec<PolicyRecord>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyRecord {
    kind: String,
    id: String,
    revision: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputRecord {
    what: String,
    value: String,
    tier: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeatRecord {
    role: String,
    quorum: u8,
    domain: Option<String>,
    #[serde(default)]
    step_up: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VoteRecord {
    approver: String,
    person: String,
    role: String,
    domain: Option<String>,
    approves: bool,
    comment: String,
    reviewed: BTreeMap<String, String>,
    digest: String,
    time: String,
    viewed: Option<String>,
    #[serde(default)]
    assurance: Option<AssuranceRecord>,
    #[serde(default)]
    trace: Option<String>,
    ballot: String,
}

/// How somebody had signed in, as it is kept.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AssuranceRecord {
    said: String,
    stepped_up: bool,
}

impl AssuranceRecord {
    pub(super) fn parse(&self) -> Assurance {
        Assurance {
            said: self.said.as_str().into(),
            stepped_up: self.stepped_up,
        }
    }
}

pub(super) fn assurance_of(assurance: &Assurance) -> Json {
    json!({"said": assurance.said, "stepped_up": assurance.stepped_up})
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantedRecord {
    effective: String,
    expire: String,
    next_revalidation: Option<String>,
    #[serde(default)]
    revalidated: Option<String>,
    #[serde(default)]
    approval: Option<String>,
}

fn unknown(what: &str, text: &str) -> Invalid {
    Invalid::new(what, format!("`{text}` is not known"), "")
}

fn time(text: &str) -> Result<Timestamp, Invalid> {
    Timestamp::parse(text)
}

pub(super) fn some_time(text: Option<&String>) -> Result<Option<Timestamp>, Invalid> {
    text.map(|text| time(text)).transpose()
}

fn some_domain(text: Option<&String>) -> Result<Option<DomainId>, Invalid> {
    text.map(|text| DomainId::parse(text)).transpose()
}

fn role(text: &str) -> Result<ApproverRole, Invalid> {
    ApproverRole::parse(text).ok_or_else(|| unknown("role", text))
}

fn tier(text: &str) -> Result<Tier, Invalid> {
    Tier::parse(text).ok_or_else(|| unknown("tier", text))
}

fn request_from(record: &Json) -> Result<Request, Invalid> {
    let mut text = String::new();
    canonical(record, &mut text);
    request::of_json(&text)
}

/// A case as it was kept.
///
/// # Errors
///
/// What cannot be read.
pub fn read_case(text: &str) -> Result<Case, Invalid> {
    let record: CaseRecord = serde_json::from_str(text)
        .map_err(|error| Invalid::new("", format!("is no case: {error}"), ""))?;
    Ok(Case {
        id: ExceptionId::parse(&record.id)?,
        requester: Principal::parse(&record.requester)?,
        request: request_from(&record.request)?,
        state: ExceptionState::parse(&record.state)
            .ok_or_else(|| unknown("state", &record.state))?,
        reason: record.reason.into(),
        since: time(&record.since)?,
        created: time(&record.created)?,
        terms: record.terms.as_ref().map(TermsRecord::parse).transpose()?,
        again: record.again.as_ref().map(TermsRecord::parse).transpose()?,
        votes: record
            .votes
            .iter()
            .map(VoteRecord::parse)
            .collect::<Result<_, _>>()?,
        granted: record
            .granted
            .as_ref()
            .map(|granted| {
                Ok::<_, Invalid>(Granted {
                    effective: time(&granted.effective)?,
                    expire: time(&granted.expire)?,
                    next_revalidation: some_time(granted.next_revalidation.as_ref())?,
                    revalidated: some_time(granted.revalidated.as_ref())?,
                    approval: granted.approval.as_deref().and_then(Trace::parse),
                })
            })
            .transpose()?,
        debt: record.debt.as_ref().map(DebtRecord::parse).transpose()?,
        paused: some_time(record.paused.as_ref())?,
        anew: record
            .anew
            .as_ref()
            .map(|anew| request_from(anew).map(Box::new))
            .transpose()?,
    })
}

impl DebtRecord {
    fn parse(&self) -> Result<Debt, Invalid> {
        let looked = self.looked.as_ref();
        let closure = self.closure.as_ref().map(|closure| {
            Ok::<_, Invalid>(Closure {
                by: Principal::parse(&closure.by)?,
                time: time(&closure.time)?,
                relaxed: closure.relaxed.as_str().into(),
                restored: closure.restored.as_str().into(),
                lessons: closure.lessons.as_str().into(),
            })
        });
        Ok(Debt {
            seats: seats_from(&self.seats)?,
            look_due: time(&self.look_due)?,
            looked: looked
                .map(|looked| Ok::<_, Invalid>((looked.approved, time(&looked.time)?)))
                .transpose()?,
            closure_due: time(&self.closure_due)?,
            closure: closure.transpose()?,
        })
    }
}

fn seats_from(records: &[SeatRecord]) -> Result<Vec<Seat>, Invalid> {
    let seat = |seat: &SeatRecord| {
        let quorum = NonZeroU8::new(seat.quorum).ok_or_else(|| unknown("quorum", "0"))?;
        Ok(Seat {
            stage: Stage {
                role: role(&seat.role)?,
                quorum,
            },
            domain: some_domain(seat.domain.as_ref())?,
            step_up: seat.step_up,
        })
    };
    records.iter().map(seat).collect()
}

impl TermsRecord {
    fn parse(&self) -> Result<Terms, Invalid> {
        let mut bound = Vec::new();
        for (facet, digest) in &self.bound {
            bound.push((Facet::parse_bindable(facet)?, Digest::parse(digest)?));
        }
        let input = |input: &InputRecord| {
            Ok(TierInput {
                what: input.what.as_str().into(),
                value: input.value.as_str().into(),
                tier: tier(&input.tier)?,
            })
        };
        Ok(Terms {
            digest: Digest::parse(&self.digest)?,
            submitted: time(&self.submitted)?,
            tier: tier(&self.tier)?,
            inputs: self
                .inputs
                .iter()
                .map(input)
                .collect::<Result<_, Invalid>>()?,
            seats: seats_from(&self.seats)?,
            after: seats_from(&self.after)?,
            review_evidence: self.review_evidence,
            deadline: some_time(self.deadline.as_ref())?,
            controls: self
                .controls
                .iter()
                .map(|(id, revision)| Ok((ControlId::parse(id)?, *revision)))
                .collect::<Result<_, Invalid>>()?,
            meanings: self
                .meanings
                .iter()
                .map(|(id, meaning)| Ok((ControlId::parse(id)?, Digest::parse(meaning)?)))
                .collect::<Result<_, Invalid>>()?,
            bound: Fingerprint::new(bound),
            revalidation: self.revalidation.map(Span::from_micros),
            on_change: match self.on_change.as_str() {
                "REVOKE" => OnChange::Revoke,
                "SUSPEND" => OnChange::Suspend,
                other => return Err(unknown("on_change", other)),
            },
            lineage: ExceptionId::parse(&self.lineage)?,
            renewal_count: self.renewal_count,
            latest: some_time(self.latest.as_ref())?,
            owners: self
                .owners
                .iter()
                .map(|(id, owner)| Ok((SubjectId::parse(id)?, owner.as_str().into())))
                .collect::<Result<_, Invalid>>()?,
            policies: self
                .policies
                .iter()
                .map(|policy| {
                    let kind = Kind::parse(&policy.kind);
                    let kind = kind.ok_or_else(|| unknown("kind", &policy.kind))?;
                    Ok((Name::new(kind, &policy.id), policy.revision))
                })
                .collect::<Result<_, Invalid>>()?,
        })
    }
}

impl VoteRecord {
    fn parse(&self) -> Result<Vote, Invalid> {
        let reviewed = self.reviewed.iter();
        Ok(Vote {
            approver: Principal::parse(&self.approver)?,
            person: self.person.as_str().into(),
            role: role(&self.role)?,
            domain: some_domain(self.domain.as_ref())?,
            approves: self.approves,
            comment: self.comment.as_str().into(),
            reviewed: reviewed
                .map(|(id, digest)| Ok((id.as_str().into(), Digest::parse(digest)?)))
                .collect::<Result<_, Invalid>>()?,
            digest: Digest::parse(&self.digest)?,
            time: time(&self.time)?,
            viewed: some_time(self.viewed.as_ref())?,
            assurance: self.assurance.as_ref().map(AssuranceRecord::parse),
            trace: self.trace.as_deref().and_then(Trace::parse),
            ballot: Ballot::parse(&self.ballot).ok_or_else(|| unknown("ballot", &self.ballot))?,
        })
    }
}

pub(super) fn request_of(request: &Request) -> Json {
    // Written by ourselves, from what was read as JSON.
    serde_json::from_str(&request.text).unwrap_or_default()
}

fn told(time: Option<Timestamp>) -> Json {
    time.map_or(Json::Null, |time| time.to_string().into())
}

fn domain_of(domain: Option<&DomainId>) -> Json {
    domain.map_or(Json::Null, |domain| domain.as_str().into())
}

fn seats_of(seats: &[Seat]) -> Json {
    let seats = seats.iter().map(|seat| {
        let mut record = json!({
            "role": seat.stage.role.name(),
            "quorum": seat.stage.quorum.get(),
            "domain": domain_of(seat.domain.as_ref()),
        });
        // Said only where it is demanded: what was decided before there was such a demand keeps
        // its digest.
        if let Some(fields) = record.as_object_mut().filter(|_| seat.step_up) {
            fields.insert("step_up".into(), true.into());
        }
        record
    });
    seats.collect()
}

pub(super) fn bound_of(bound: &Fingerprint) -> Json {
    let entries = bound
        .iter()
        .map(|(facet, digest)| (facet.name().to_owned(), digest.as_str().into()));
    Json::Object(entries.collect())
}

fn on_change(change: OnChange) -> &'static str {
    match change {
        OnChange::Revoke => "REVOKE",
        OnChange::Suspend => "SUSPEND",
    }
}

fn controls_of(terms: &Terms) -> Json {
    let entries = terms
        .controls
        .iter()
        .map(|(id, revision)| (id.to_string(), (*revision).into()));
    Json::Object(entries.collect())
}

/// The digest over everything that approvers see, and that may not change beneath their votes
/// (E16).
///
/// # Errors
///
/// None for a request that was read.
pub fn terms_digest(case: &Case, terms: &Terms) -> Result<Digest, Invalid> {
    let mut seen = json!({
        "id": case.id.as_str(),
        "request": request_of(case.asked()),
        "requester": case.requester.as_str(),
        "tier": terms.tier.name(),
        "seats": seats_of(&terms.seats),
        "review_evidence": terms.review_evidence,
        "revalidation": terms.revalidation.map(Span::micros),
        "on_change": on_change(terms.on_change),
        "controls": controls_of(terms),
        "bound": bound_of(&terms.bound),
        "lineage": terms.lineage.as_str(),
        "renewal_count": terms.renewal_count,
        "latest": told(terms.latest),
    });
    if let Some(fields) = seen.as_object_mut() {
        if !terms.after.is_empty() {
            fields.insert("after".into(), seats_of(&terms.after));
        }
        // What was handed in before owners were part of it keeps its digest, and its votes.
        let before = case
            .terms
            .as_ref()
            .is_some_and(|known| known.owners.is_empty());
        if !terms.owners.is_empty() && !before {
            fields.insert("owners".into(), owners_of(terms));
        }
    }
    digest(&seen)
}

fn terms_of(terms: &Terms) -> Json {
    let inputs = terms
        .inputs
        .iter()
        .map(|input| json!({"what": input.what, "value": input.value, "tier": input.tier.name()}));
    json!({
        "digest": terms.digest.as_str(),
        "submitted": terms.submitted.to_string(),
        "tier": terms.tier.name(),
        "inputs": inputs.collect::<Json>(),
        "seats": seats_of(&terms.seats),
        "after": seats_of(&terms.after),
        "review_evidence": terms.review_evidence,
        "deadline": told(terms.deadline),
        "controls": controls_of(terms),
        "meanings": terms.meanings.iter().map(|(id, meaning)| (id.to_string(), meaning.as_str().into())).collect::<serde_json::Map<String, Json>>(),
        "bound": bound_of(&terms.bound),
        "revalidation": terms.revalidation.map(Span::micros),
        "on_change": on_change(terms.on_change),
        "lineage": terms.lineage.as_str(),
        "renewal_count": terms.renewal_count,
        "latest": told(terms.latest),
        "owners": owners_of(terms),
        "policies": terms.policies.iter().map(policy_of).collect::<Json>(),
    })
}

fn policy_of((name, revision): &(Name, u64)) -> Json {
    json!({"kind": name.kind.name(), "id": name.id, "revision": revision})
}

fn owners_of(terms: &Terms) -> Json {
    let owners = terms.owners.iter();
    owners
        .map(|(id, owner)| (id.to_string(), Json::from(&**owner)))
        .collect()
}

fn debt_of(debt: &Debt) -> Json {
    let looked = debt
        .looked
        .map(|(approved, time)| json!({"approved": approved, "time": time.to_string()}));
    let closure = debt.closure.as_ref().map(|closure| {
        json!({
            "by": closure.by.as_str(),
            "time": closure.time.to_string(),
            "relaxed": closure.relaxed,
            "restored": closure.restored,
            "lessons": closure.lessons,
        })
    });
    json!({
        "seats": seats_of(&debt.seats),
        "look_due": debt.look_due.to_string(),
        "looked": looked,
        "closure_due": debt.closure_due.to_string(),
        "closure": closure,
    })
}

/// A case as it is kept.
pub fn write_case(case: &Case) -> String {
    let votes = case.votes.iter().map(|vote| {
        let reviewed = vote
            .reviewed
            .iter()
            .map(|(id, digest)| (id.to_string(), digest.as_str().into()));
        json!({
            "approver": vote.approver.as_str(),
            "person": vote.person,
            "role": vote.role.name(),
            "domain": domain_of(vote.domain.as_ref()),
            "approves": vote.approves,
            "comment": vote.comment,
            "reviewed": Json::Object(reviewed.collect()),
            "digest": vote.digest.as_str(),
            "time": vote.time.to_string(),
            "viewed": told(vote.viewed),
            "assurance": vote.assurance.as_ref().map(assurance_of),
            "trace": vote.trace.map(|trace| trace.to_string()),
            "ballot": vote.ballot.name(),
        })
    });
    let granted = case.granted.map(|granted| {
        json!({
            "effective": granted.effective.to_string(),
            "expire": granted.expire.to_string(),
            "next_revalidation": told(granted.next_revalidation),
            "revalidated": told(granted.revalidated),
            "approval": granted.approval.map(|trace| trace.to_string()),
        })
    });
    let record = json!({
        "id": case.id.as_str(),
        "requester": case.requester.as_str(),
        "request": request_of(&case.request),
        "anew": case.anew.as_deref().map(request_of),
        "state": case.state.name(),
        "reason": case.reason,
        "since": case.since.to_string(),
        "created": case.created.to_string(),
        "terms": case.terms.as_ref().map(terms_of),
        "again": case.again.as_ref().map(terms_of),
        "votes": votes.collect::<Json>(),
        "granted": granted,
        "debt": case.debt.as_ref().map(debt_of),
        "paused": told(case.paused),
    });
    let mut text = String::new();
    canonical(&record, &mut text);
    text
}
