//! Where an exception goes: every state against every event, and the guards of each transition.

use std::num::NonZeroU8;

use exeat::{
    domain::{
        ApprovalRules, ApproverRole, Assurance, AutoBudget, Ballot, Case, Closure, Digest,
        Dimension, Evidence, ExceptionId, ExceptionState, Facet, Fingerprint, OnChange, Principal,
        Seat, Sensitivity, Severity, Span, Stage, StaleMode, Terms, Tier, TierRules, Tightening,
        Timestamp, Vote, Window,
    },
    engine::{
        Stakes,
        lifecycle::{Event, Refused, due, open, owed, step},
        satisfiable, tier,
    },
    testing::{case, noon},
};
use proptest::prelude::*;

fn digest(text: &str) -> Digest {
    Digest::parse(&format!("sha256:{text}")).unwrap()
}

fn seat(role: ApproverRole, quorum: u8) -> Seat {
    Seat {
        stage: Stage {
            role,
            quorum: NonZeroU8::new(quorum).unwrap(),
        },
        domain: None,
        step_up: false,
    }
}

fn terms(seats: &[Seat]) -> Terms {
    Terms {
        digest: digest("t"),
        submitted: noon(),
        tier: Tier::Moderate,
        inputs: vec![],
        seats: seats.to_vec(),
        after: vec![],
        review_evidence: false,
        deadline: Some(noon() + Span::from_hours(72)),
        controls: vec![],
        meanings: vec![],
        bound: Fingerprint::default(),
        revalidation: Some(Span::from_secs(600)),
        on_change: OnChange::Suspend,
        lineage: ExceptionId::parse("EX-1").unwrap(),
        renewal_count: 0,
        latest: None,
        owners: vec![],
        policies: vec![],
    }
}

fn vote(who: &str, role: ApproverRole, ballot: Ballot) -> Vote {
    Vote {
        approver: Principal::parse(who).unwrap(),
        person: who.into(),
        role,
        domain: None,
        approves: true,
        comment: "looked at all of it".into(),
        reviewed: vec![],
        digest: digest("t"),
        time: noon(),
        viewed: None,
        assurance: None,
        trace: None,
        ballot,
    }
}

fn closure() -> Closure {
    Closure {
        by: Principal::parse("user:alice").unwrap(),
        time: noon(),
        relaxed: "exports, twice".into(),
        restored: "the window was closed".into(),
        lessons: "exports need a queue".into(),
    }
}

fn run(case: &Case, event: Event, now: Timestamp) -> Result<Case, Refused> {
    step(case, event, now, |vote| Some(vote.person.clone()))
}

const OWNER: ApproverRole = ApproverRole::ControlOwner;
const OFFICER: ApproverRole = ApproverRole::RiskOfficer;

/// A case in `state`, reached as one is.
fn at(state: ExceptionState) -> Case {
    use ExceptionState as S;
    let draft = case("EX-1", &["CT-A"], "agent");
    if state == S::Draft {
        return draft;
    }
    let pending = run(&draft, Event::Submit(terms(&[seat(OWNER, 1)])), noon()).unwrap();
    let bob = || vote("user:bob", OWNER, Ballot::Initial);
    let approved = || {
        let event = Event::Vote(bob(), terms(&[seat(OWNER, 1)]));
        run(&pending, event, noon()).unwrap()
    };
    let from = |case: &Case, event| run(case, event, noon()).unwrap();
    match state {
        S::Draft => draft,
        S::Pending => pending,
        S::Approved => approved(),
        S::Suspended => from(&approved(), Event::Suspend("odd".into())),
        S::Denied => {
            let no = Vote {
                approves: false,
                ..bob()
            };
            from(&pending, Event::Vote(no, terms(&[seat(OWNER, 1)])))
        }
        S::Withdrawn => from(&pending, Event::Withdraw),
        S::Lapsed => from(&pending, Event::Lapse),
        S::Expired => {
            let end = noon() + Span::from_hours(1);
            run(&approved(), Event::Expire, end).unwrap()
        }
        S::Revoked => from(&approved(), Event::Revoke("gone".into())),
        S::Closed => from(&approved(), Event::Close("done".into())),
    }
}

/// T1–T16: what leads where; everything else leads nowhere.
#[test]
fn every_state_answers_every_event() {
    use ExceptionState as S;
    let later = noon() + Span::from_hours(2);
    let legal = |state, event: &str| {
        let leads: &[&str] = match state {
            S::Draft => &["submit", "withdraw"],
            S::Pending => &["vote", "outdate", "withdraw", "lapse"],
            S::Approved => &["suspend", "pause", "vote", "revoke", "expire", "close"],
            S::Suspended => &["vote", "revoke", "expire", "close"],
            _ => &[],
        };
        leads.contains(&event)
    };
    let mut seen = 0;
    for state in ExceptionState::ALL {
        let case = at(state);
        assert_eq!(case.state, state);
        let ballot = if state == S::Pending {
            Ballot::Initial
        } else {
            Ballot::Revalidation
        };
        let again = Vote {
            time: case.since,
            ..vote("user:carol", OWNER, ballot)
        };
        for event in [
            Event::Submit(terms(&[seat(OWNER, 1)])),
            Event::Vote(again, terms(&[seat(OWNER, 1)])),
            Event::Outdate("why".into()),
            Event::Withdraw,
            Event::Lapse,
            Event::Suspend("why".into()),
            Event::Pause("why".into()),
            Event::Resume("why".into()),
            Event::Revoke("why".into()),
            Event::Expire,
            Event::Close("why".into()),
            // Only overrides are to be undone, whatever their state.
            Event::Record(closure()),
        ] {
            let name = event.name();
            let now = if name == "expire" { later } else { case.since };
            let done = run(&case, event, now);
            assert_eq!(done.is_ok(), legal(state, name), "{state} {name}: {done:?}");
            if let Err(refused) = done {
                assert_eq!(refused, Refused::Illegal { state, event: name });
                let told = refused.to_string();
                assert!(told.contains(state.name()) && told.contains(name), "{told}");
            }
            seen += 1;
        }
        assert_eq!(
            state.is_final(),
            !Event::NAMES.iter().any(|name| legal(state, name))
        );
    }
    assert_eq!(seen, 10 * Event::NAMES.len());
}

/// T12: what is only paused goes on once nothing stands against it; what is suspended, or was to be
/// looked at in between, does not.
#[test]
fn what_is_paused_goes_on_and_what_is_suspended_does_not() {
    let go_on = || Event::Resume("gone".into());
    let paused = run(
        &at(ExceptionState::Approved),
        Event::Pause("gate".into()),
        noon(),
    )
    .unwrap();
    assert_eq!(paused.state, ExceptionState::Suspended);
    let later = noon() + Span::from_hours(1);
    let again = run(&paused, go_on(), later).unwrap();
    assert_eq!(
        (again.state, again.paused),
        (ExceptionState::Approved, None)
    );
    // Its use is judged from where it was, not from here.
    assert_eq!(again.since, at(ExceptionState::Approved).since);
    assert_eq!(again.granted, paused.granted, "its end stays");
    let changed = run(&paused, Event::Suspend("model".into()), noon()).unwrap();
    assert!(run(&changed, go_on(), noon()).is_err());
    assert!(run(&at(ExceptionState::Suspended), go_on(), noon()).is_err());
}

#[test]
fn two_seats_are_two_persons_and_one_denial_ends_it() {
    let two = || terms(&[seat(OWNER, 1), seat(OFFICER, 1)]);
    let draft = case("EX-1", &["CT-A"], "agent");
    let pending = run(&draft, Event::Submit(two()), noon()).unwrap();
    let bob = vote("user:bob", OWNER, Ballot::Initial);
    let one = run(&pending, Event::Vote(bob.clone(), two()), noon()).unwrap();
    assert_eq!(one.state, ExceptionState::Pending);
    assert_eq!(
        open(&one, &|vote: &Vote| Some(vote.person.clone())).len(),
        1
    );
    // The same person under another identity, in the other role.
    let alias = Vote {
        person: "user:bob".into(),
        ..vote("user:robert", OFFICER, Ballot::Initial)
    };
    let refused = run(&one, Event::Vote(alias, two()), noon()).unwrap_err();
    assert!(
        refused.to_string().contains("one person counts once"),
        "A2: {refused}"
    );
    let carol = vote("user:carol", OFFICER, Ballot::Initial);
    let both = run(&one, Event::Vote(carol.clone(), two()), noon()).unwrap();
    assert_eq!(both.state, ExceptionState::Approved);
    // A3: who no longer has the role when the last one votes does not count.
    let gone = |vote: &Vote| {
        let still = vote.approver.as_str() != "user:bob";
        still.then(|| vote.person.clone())
    };
    let short = step(&one, Event::Vote(carol.clone(), two()), noon(), gone).unwrap();
    assert_eq!(short.state, ExceptionState::Pending);
    let no = Vote {
        approves: false,
        ..carol
    };
    let denied = run(&one, Event::Vote(no, two()), noon()).unwrap();
    assert_eq!(denied.state, ExceptionState::Denied, "A6");
    let back = Vote {
        approves: false,
        ..bob
    };
    let denied = run(&one, Event::Vote(back, two()), noon()).unwrap();
    assert_eq!(denied.state, ExceptionState::Denied, "A7");
}

#[test]
fn a_vote_is_for_the_terms_it_saw_with_its_evidence_and_in_time() {
    let item = Evidence {
        id: "scan".into(),
        digest: digest("scan"),
        required: true,
        expire_time: noon() + Span::from_days(9),
        collect_time: None,
        source: None,
    };
    let mut draft = case("EX-1", &["CT-A"], "agent");
    draft.request.evidence = vec![item.clone()];
    let mut high = terms(&[seat(OWNER, 1)]);
    high.review_evidence = true;
    let pending = run(&draft, Event::Submit(high.clone()), noon()).unwrap();
    let bob = vote("user:bob", OWNER, Ballot::Initial);
    let cast = |vote: Vote, terms: Terms, now| run(&pending, Event::Vote(vote, terms), now);
    let refused = cast(bob.clone(), high.clone(), noon()).unwrap_err();
    assert!(
        refused.to_string().contains("`scan` was not reviewed"),
        "A4: {refused}"
    );
    let reviewed = Vote {
        reviewed: vec![(item.id, item.digest)],
        ..bob
    };
    let other = Vote {
        digest: digest("other"),
        ..reviewed.clone()
    };
    assert_eq!(
        cast(other, high.clone(), noon()).unwrap_err(),
        Refused::Outdated,
        "A5"
    );
    let mut changed = high.clone();
    changed.digest = digest("changed");
    assert_eq!(
        cast(reviewed.clone(), changed, noon()).unwrap_err(),
        Refused::Outdated
    );
    let late = noon() + Span::from_hours(72);
    let refused = cast(reviewed.clone(), high.clone(), late).unwrap_err();
    assert!(refused.to_string().contains("over"), "E11: {refused}");
    let silent = Vote {
        comment: "ok".into(),
        ..reviewed.clone()
    };
    assert!(cast(silent, high.clone(), noon()).is_err());
    assert!(cast(reviewed, high, noon()).is_ok());
}

/// A seat that asks for a step-up is filled with one alone; a no needs none, and where nobody asks
/// for one everybody may approve.
#[test]
fn a_seat_may_ask_for_a_step_up() {
    let strong = |seat: Seat| Seat {
        step_up: true,
        ..seat
    };
    let assured = |vote: Vote, stepped_up| Vote {
        assurance: Some(Assurance {
            said: "acr silver".into(),
            stepped_up,
        }),
        ..vote
    };
    let asks = terms(&[strong(seat(OWNER, 1)), seat(OFFICER, 1)]);
    let pending = run(
        &case("EX-1", &["CT-A"], "agent"),
        Event::Submit(asks.clone()),
        noon(),
    );
    let pending = pending.unwrap();
    let cast = |vote: Vote| run(&pending, Event::Vote(vote, asks.clone()), noon());
    let bob = vote("user:bob", OWNER, Ballot::Initial);
    for weak in [bob.clone(), assured(bob.clone(), false)] {
        let refused = cast(weak.clone()).unwrap_err();
        assert!(
            refused.to_string().contains("exeat login --step-up"),
            "{refused}"
        );
        let no = Vote {
            approves: false,
            ..weak
        };
        assert_eq!(cast(no).unwrap().state, ExceptionState::Denied);
    }
    assert_eq!(cast(assured(bob, true)).unwrap().votes.len(), 1);
    let carol = vote("user:carol", OFFICER, Ballot::Initial);
    assert_eq!(cast(carol).unwrap().votes.len(), 1);
    // Also of whoever looks at an override afterwards.
    let mut override_ = terms(&[]);
    override_.after = vec![strong(seat(OWNER, 1))];
    let begun = run(
        &case("EX-2", &["CT-A"], "agent"),
        Event::Submit(override_.clone()),
        noon(),
    );
    let begun = begun.unwrap();
    let look = |vote: Vote| run(&begun, Event::Vote(vote, override_.clone()), noon());
    let bob = vote("user:bob", OWNER, Ballot::Retroactive);
    assert!(look(bob.clone()).is_err());
    let looked = look(assured(bob, true)).unwrap().debt.unwrap().looked;
    assert_eq!(looked, Some((true, noon())));
}

/// Votes of an earlier submission do not come back with its terms.
#[test]
fn outdated_terms_void_every_vote() {
    let two = || terms(&[seat(OWNER, 1), seat(OFFICER, 1)]);
    let draft = case("EX-1", &["CT-A"], "agent");
    let pending = run(&draft, Event::Submit(two()), noon()).unwrap();
    let bob = vote("user:bob", OWNER, Ballot::Initial);
    let one = run(&pending, Event::Vote(bob.clone(), two()), noon()).unwrap();
    let back = run(&one, Event::Outdate("prompts changed".into()), noon()).unwrap();
    assert_eq!((back.state, &back.terms), (ExceptionState::Draft, &None));
    let now = noon() + Span::from_secs(1);
    let mut again = two();
    again.submitted = now;
    let pending = run(&back, Event::Submit(again.clone()), now).unwrap();
    assert_eq!(
        open(&pending, &|vote: &Vote| Some(vote.person.clone())).len(),
        2,
        "T4"
    );
    let carol = Vote {
        time: now,
        ..vote("user:carol", OFFICER, Ballot::Initial)
    };
    let one = run(&pending, Event::Vote(carol, again.clone()), now).unwrap();
    assert_eq!(one.state, ExceptionState::Pending);
    let bob = Vote { time: now, ..bob };
    let both = run(&one, Event::Vote(bob, again), now).unwrap();
    assert_eq!(both.state, ExceptionState::Approved);
}

#[test]
fn approval_moves_no_window_and_outlives_no_evidence() {
    let mut draft = case("EX-1", &["CT-A"], "agent");
    let (start, duration) = (noon() + Span::from_hours(1), Span::from_hours(2));
    draft.request.window = Window::Fixed { start, duration };
    let seats = [seat(OWNER, 1)];
    let pending = run(&draft, Event::Submit(terms(&seats)), noon()).unwrap();
    let deadline = pending.terms.as_ref().unwrap().deadline.unwrap();
    assert_eq!(
        deadline,
        start + duration,
        "E11: no later than the window's end"
    );
    let now = start + Span::from_hours(1);
    let bob = vote("user:bob", OWNER, Ballot::Initial);
    let approved = run(&pending, Event::Vote(bob.clone(), terms(&seats)), now).unwrap();
    let granted = approved.granted.unwrap();
    assert_eq!(
        (granted.effective, granted.expire),
        (now, start + duration),
        "E9"
    );
    let mut short = terms(&seats);
    short.latest = Some(noon() + Span::from_secs(60));
    let draft = case("EX-1", &["CT-A"], "agent");
    let pending = run(&draft, Event::Submit(short.clone()), noon()).unwrap();
    let approved = run(&pending, Event::Vote(bob, short), noon()).unwrap();
    assert_eq!(
        approved.granted.unwrap().expire,
        noon() + Span::from_secs(60),
        "E10"
    );
    let over = run(&draft, Event::Submit(terms(&seats)), noon());
    assert!(over.is_ok());
}

#[test]
fn revalidation_extends_nothing_and_binds_anew() {
    let approved = at(ExceptionState::Approved);
    let granted = approved.granted.unwrap();
    let overdue = granted.next_revalidation.unwrap();
    assert_eq!(overdue, noon() + Span::from_secs(600));
    let (event, next) = due(&approved, overdue);
    assert_eq!((event.unwrap().name(), next), ("suspend", None));
    let suspended = run(&approved, Event::Suspend("overdue".into()), overdue).unwrap();
    let now = overdue + Span::from_secs(5);
    let mut fresh = terms(&[seat(OWNER, 1)]);
    fresh.digest = digest("fresh");
    let carol = Vote {
        digest: digest("fresh"),
        time: now,
        ..vote("user:carol", OWNER, Ballot::Revalidation)
    };
    let back = run(&suspended, Event::Vote(carol, fresh), now).unwrap();
    assert_eq!(back.state, ExceptionState::Approved, "T11");
    let again = back.granted.unwrap();
    assert_eq!(again.expire, granted.expire, "E10");
    assert_eq!(again.next_revalidation, Some(now + Span::from_secs(600)));
    assert_eq!(back.terms.unwrap().digest, digest("fresh"));
}

/// Until everybody has looked again, it stands and falls with what was granted.
#[test]
fn one_of_two_rebinds_nothing() {
    let two = |digest_: &str, at| Terms {
        submitted: at,
        digest: digest(digest_),
        bound: Fingerprint::new([(Facet::Model, digest(digest_))]),
        ..terms(&[seat(OWNER, 1), seat(OFFICER, 1)])
    };
    let draft = case("EX-1", &["CT-A"], "agent");
    let cast = |case: &Case, who, role, ballot, digest_: &str, now| {
        let vote = Vote {
            digest: digest(digest_),
            time: now,
            ..vote(who, role, ballot)
        };
        run(case, Event::Vote(vote, two(digest_, now)), now).unwrap()
    };
    let pending = run(&draft, Event::Submit(two("t", noon())), noon()).unwrap();
    let one = cast(&pending, "user:bob", OWNER, Ballot::Initial, "t", noon());
    let approved = cast(&one, "user:carol", OFFICER, Ballot::Initial, "t", noon());
    let now = noon() + Span::from_secs(5);
    let once = cast(
        &approved,
        "user:bob",
        OWNER,
        Ballot::Revalidation,
        "new",
        now,
    );
    assert_eq!(once.state, ExceptionState::Approved);
    let bound = |case: &Case| case.terms.clone().unwrap().bound;
    assert_eq!(bound(&once), bound(&approved), "E7");
    // Suspended meanwhile, the vote is void.
    let suspended = run(&once, Event::Suspend("model".into()), now).unwrap();
    assert_eq!(suspended.again, None);
    let later = now + Span::from_secs(5);
    let half = cast(
        &suspended,
        "user:carol",
        OFFICER,
        Ballot::Revalidation,
        "new",
        later,
    );
    assert_eq!(
        (half.state, bound(&half)),
        (ExceptionState::Suspended, bound(&approved))
    );
    let whole = cast(&half, "user:bob", OWNER, Ballot::Revalidation, "new", later);
    assert_eq!(whole.state, ExceptionState::Approved);
    assert_ne!(bound(&whole), bound(&approved));
    assert_eq!(whole.again, None);
}

#[test]
fn the_clock_lapses_expires_and_names_what_is_next() {
    let pending = at(ExceptionState::Pending);
    let deadline = noon() + Span::from_hours(72);
    assert!(matches!(due(&pending, noon()), (None, Some(next)) if next == deadline));
    assert_eq!(due(&pending, deadline).0.unwrap().name(), "lapse");
    let approved = at(ExceptionState::Approved);
    let end = approved.granted.unwrap().expire;
    assert_eq!(due(&approved, end).0.unwrap().name(), "expire");
    let early = run(&approved, Event::Expire, noon()).unwrap_err();
    assert!(matches!(early, Refused::Guard(_)));
    assert!(matches!(
        due(&at(ExceptionState::Closed), end),
        (None, None)
    ));
}

fn stakes() -> impl Strategy<Value = Stakes> {
    let tiers = prop::sample::select(vec![Tier::Low, Tier::Moderate, Tier::High]);
    let sensitivity = prop::sample::select(vec![
        Sensitivity::Public,
        Sensitivity::Internal,
        Sensitivity::Confidential,
        Sensitivity::Restricted,
    ]);
    let severity = prop::sample::select(vec![
        Severity::Low,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ]);
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (
        tiers,
        sensitivity,
        severity,
        flags,
        0_u64..60,
        0_u32..5,
        0_u32..150,
    )
        .prop_map(
            |(risk_tier, data_sensitivity, severity, flags, width, renewals, coverage)| Stakes {
                risk_tier,
                data_sensitivity,
                production: flags.0,
                severity,
                privileged: flags.1,
                third_party: flags.2,
                false_positive: flags.3,
                preemptive: flags.4,
                width,
                renewals,
                coverage,
            },
        )
}

fn tightening() -> impl Strategy<Value = Tightening> {
    let span = || prop::option::of((1_i64..4_000_000).prop_map(Span::from_secs));
    let facets = prop::sample::subsequence(Facet::BINDABLE.to_vec(), 0..4);
    let allowed = prop::option::of(prop::sample::subsequence(
        vec![Dimension::Resource, Dimension::Purpose],
        0..3,
    ));
    let stages = prop::sample::subsequence(ApproverRole::ALL.to_vec(), 0..3);
    let numbers = (
        prop::option::of(0_usize..5),
        prop::option::of(1_usize..30),
        prop::option::of(0_u32..4),
        prop::option::of(0_u8..80),
        1_u8..4,
    );
    let change = prop::option::of(prop::sample::select(vec![
        OnChange::Suspend,
        OnChange::Revoke,
    ]));
    let flag = || prop::option::of(any::<bool>());
    let mode = prop::option::of(prop::sample::select(vec![
        StaleMode::Strict,
        StaleMode::BestEffort,
    ]));
    let budget = prop::option::of((0_u32..15, 0_u32..4, 0_u32..30).prop_map(
        |(per_owner, per_subject, per_control)| AutoBudget {
            per_owner,
            per_subject,
            per_control,
        },
    ));
    let spans = (
        span(),
        span(),
        span(),
        span(),
        span(),
        span(),
        span(),
        span(),
    );
    let flags = (flag(), flag(), flag(), flag(), flag(), flag(), flag());
    (
        spans,
        facets,
        allowed,
        stages,
        numbers,
        prop::option::of(0_u32..30),
        (change, mode, budget),
        flags,
    )
        .prop_map(
            |(spans, facets, allowed, stages, numbers, limit, (change, mode, budget), flags)| {
                Tightening {
                    max_duration: spans.0,
                    revalidation_interval: spans.1,
                    min_evidence: numbers.0,
                    bound_facets: facets,
                    any_allowed: allowed,
                    max_subjects: numbers.1,
                    max_uses_required: flags.0,
                    lease_ttl: spans.2,
                    max_staleness: spans.3,
                    stale_mode: mode,
                    max_clock_skew: spans.4,
                    usage_required: flags.1,
                    observed_required: flags.2,
                    facet_max_age: spans.5,
                    auto: budget,
                    stages: stages
                        .into_iter()
                        .map(|role| seat(role, numbers.4).stage)
                        .collect(),
                    deadline: spans.6,
                    max_renewals: numbers.2,
                    max_coverage: numbers.3,
                    review_evidence: flags.3,
                    step_up: flags.4,
                    on_change: change,
                    unused_after: spans.7,
                    out_of_scope_limit: limit,
                    auto_resume: flags.5,
                    preemptive: flags.6,
                }
            },
        )
}

/// M2: found once by the property below, of some hundred worlds.
#[test]
fn m2_what_is_stale_sooner_has_no_longer_lease() {
    let mut rules = TierRules::standard(Tier::Low);
    rules.stale_mode = StaleMode::BestEffort;
    rules.max_staleness = Span::from_secs(200);
    let sooner = Tightening {
        max_staleness: Some(Span::from_secs(1)),
        ..Tightening::default()
    };
    let below = rules.tightened(&sooner);
    assert_eq!(below.lease(), Span::from_secs(1));
    assert_eq!(below.tightened(&sooner), below);
    let strict = Tightening {
        stale_mode: Some(StaleMode::Strict),
        ..Tightening::default()
    };
    assert_eq!(below.tightened(&strict).lease(), Span::from_secs(1));
}

proptest! {
    /// M2: whatever a domain demands, what it makes of the rules above is looser on no field, and
    /// demanding it again changes nothing.
    #[test]
    fn domains_only_tighten(
        tier in prop::sample::select(Tier::ALL.to_vec()),
        parent in tightening(),
        child in tightening(),
        available in any::<bool>(),
    ) {
        let mut standard = TierRules::standard(tier);
        if available {
            standard.stale_mode = StaleMode::BestEffort;
            standard.max_staleness = Span::from_secs(200);
        }
        let above = standard.tightened(&parent);
        let below = above.tightened(&child);
        let shorter = |a: Option<Span>, b: Option<Span>| match (a, b) {
            (Some(a), Some(b)) => a <= b,
            (None, Some(_)) => false,
            (_, None) => true,
        };
        // Taken apart, so that nobody adds a field and forgets it here.
        let TierRules {
            max_duration, revalidation_interval, min_evidence, bound_facets, any_allowed, max_subjects,
            max_uses_required, lease_ttl, max_staleness, stale_mode, max_clock_skew, usage_required,
            observed_required, facet_max_age, approval,
        } = below.clone();
        prop_assert!(max_duration <= above.max_duration);
        prop_assert!(shorter(revalidation_interval, above.revalidation_interval));
        prop_assert!(min_evidence >= above.min_evidence);
        prop_assert!(above.bound_facets.iter().all(|facet| bound_facets.contains(facet)));
        prop_assert!(any_allowed.iter().all(|any| above.any_allowed.contains(any)));
        prop_assert!(max_subjects <= above.max_subjects);
        prop_assert!(max_uses_required >= above.max_uses_required);
        prop_assert!(lease_ttl <= above.lease_ttl && max_staleness <= above.max_staleness);
        prop_assert!(stale_mode == StaleMode::Strict || above.stale_mode == StaleMode::BestEffort);
        prop_assert!(below.lease() <= above.lease());
        prop_assert!(max_clock_skew <= above.max_clock_skew);
        prop_assert!(usage_required >= above.usage_required);
        prop_assert!(observed_required >= above.observed_required);
        prop_assert!(facet_max_age <= above.facet_max_age);
        let ApprovalRules {
            stages, auto, deadline, max_renewals, max_coverage, review_evidence, step_up, on_change,
            unused_after, out_of_scope_limit, auto_resume, preemptive,
        } = approval;
        let (a, b) = (&above.approval, &below.approval);
        for stage in &a.stages {
            let same = stages.iter().find(|known| known.role == stage.role);
            prop_assert!(same.is_some_and(|same| same.quorum >= stage.quorum));
        }
        prop_assert!(auto.is_none_or(|less| a.auto.is_some_and(|more| !less.exceeds(more))));
        prop_assert!(auto.is_none() || stages.is_empty());
        prop_assert!(shorter(deadline, a.deadline));
        prop_assert!(max_renewals <= a.max_renewals && max_coverage <= a.max_coverage);
        prop_assert!(review_evidence >= a.review_evidence && on_change >= a.on_change);
        prop_assert!(step_up >= a.step_up);
        prop_assert!(shorter(unused_after, a.unused_after));
        prop_assert!(out_of_scope_limit <= a.out_of_scope_limit);
        prop_assert!(auto_resume <= a.auto_resume && preemptive <= a.preemptive);
        prop_assert_eq!(below.tightened(&child), below.clone());
        // What is not looser is in force as it is written.
        if above.loosened_by(&child).is_none() {
            prop_assert_eq!(below.max_duration, child.max_duration.unwrap_or(above.max_duration));
            prop_assert_eq!(b.max_renewals, child.max_renewals.unwrap_or(a.max_renewals));
            prop_assert_eq!(below.max_staleness, child.max_staleness.unwrap_or(above.max_staleness));
            prop_assert_eq!(usage_required, child.usage_required.unwrap_or(above.usage_required));
            prop_assert_eq!(step_up, child.step_up.unwrap_or(a.step_up));
        }
    }

    /// R39: more at stake in any one way never lowers the tier, and the tier is never less than
    /// what any of its inputs asks for.
    #[test]
    fn tiers_are_monotone(a in stakes(), b in stakes()) {
        let more = Stakes {
            risk_tier: a.risk_tier.max(b.risk_tier),
            data_sensitivity: a.data_sensitivity.max(b.data_sensitivity),
            production: a.production || b.production,
            severity: a.severity.max(b.severity),
            privileged: a.privileged || b.privileged,
            third_party: a.third_party || b.third_party,
            false_positive: a.false_positive || b.false_positive,
            preemptive: a.preemptive || b.preemptive,
            width: a.width.max(b.width),
            renewals: a.renewals.max(b.renewals),
            coverage: a.coverage.max(b.coverage),
        };
        let (of_a, inputs) = tier(&a);
        let (of_more, _) = tier(&more);
        prop_assert!(of_more >= of_a);
        prop_assert!(inputs.iter().all(|input| input.tier <= of_a));
    }

    /// Seats can be filled exactly if some choice of distinct persons fills them.
    #[test]
    fn a_quorum_is_satisfiable_if_distinct_persons_fill_it(
        seats in prop::collection::vec((1_u8..3, prop::collection::btree_set(0_usize..5, 0..5)), 0..4)
    ) {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let named: Vec<_> = seats
            .iter()
            .map(|(quorum, persons)| (*quorum, persons.iter().map(|at| NAMES[*at]).collect()))
            .collect();
        // Hall: any seats together have at least as many persons as they want.
        let all = (0..1_u32 << seats.len()).all(|choice| {
            let chosen = || seats.iter().enumerate().filter(|(at, _)| choice & (1 << at) != 0);
            let wanted: usize = chosen().map(|(_, (quorum, _))| usize::from(*quorum)).sum();
            let persons: std::collections::BTreeSet<_> =
                chosen().flat_map(|(_, (_, persons))| persons).collect();
            persons.len() >= wanted
        });
        prop_assert_eq!(satisfiable(&named), all);
    }
}

/// An override that has begun, and owes a look of two and its record.
fn overridden() -> Case {
    let terms = Terms {
        tier: Tier::Incident,
        after: vec![seat(OWNER, 1), seat(OFFICER, 1)],
        ..terms(&[seat(ApproverRole::OnCall, 1)])
    };
    let draft = case("EX-1", &["CT-A"], "agent");
    let pending = run(&draft, Event::Submit(terms.clone()), noon()).unwrap();
    assert_eq!(pending.debt, None);
    let yes = vote("user:carol", ApproverRole::OnCall, Ballot::Initial);
    run(&pending, Event::Vote(yes, terms), noon()).unwrap()
}

#[test]
fn an_override_owes_a_look_of_others_and_its_record_in_any_state() {
    let begun = overridden();
    let debt = begun.debt.clone().unwrap();
    assert_eq!(
        (debt.look_due, debt.closure_due),
        (noon() + Span::from_hours(24), noon() + Span::from_hours(72)),
        "T9"
    );
    assert_eq!(debt.overdue(noon() + Span::from_hours(23)), None);
    assert_eq!(
        debt.overdue(debt.look_due),
        Some("its retroactive approval")
    );
    let who = |vote: &Vote| Some(vote.person.clone());
    assert_eq!(owed(&begun, &who).len(), 2);
    let terms = begun.terms.clone().unwrap();
    let look = |who: &str, role| Event::Vote(vote(who, role, Ballot::Retroactive), terms.clone());
    // Whoever let it happen does not look at it as well (A2).
    let refused = run(&begun, look("user:carol", OWNER), noon()).unwrap_err();
    assert!(
        refused.to_string().contains("one person counts once"),
        "{refused}"
    );
    // It is closed with its record only (T15); taken back by anybody who may.
    let refused = run(&begun, Event::Close("done".into()), noon()).unwrap_err();
    assert!(
        refused.to_string().contains("exeat incident close EX-1"),
        "{refused}"
    );
    let end = begun.granted.unwrap().expire;
    let over = run(&begun, Event::Expire, end).unwrap();
    for case in [&begun, &over] {
        let one = run(case, look("user:bob", OWNER), noon()).unwrap();
        assert_eq!((one.state, owed(&one, &who).len()), (case.state, 1));
        let twice = run(&one, look("user:bob", OFFICER), noon()).unwrap_err();
        assert!(
            twice.to_string().contains("one person counts once"),
            "{twice}"
        );
        let two = run(&one, look("user:dave", OFFICER), noon()).unwrap();
        let looked = two.debt.as_ref().unwrap();
        assert_eq!(
            (two.state, looked.looked),
            (case.state, Some((true, noon())))
        );
        assert_eq!(looked.overdue(debt.closure_due), Some("its closure record"));
        let again = run(&two, look("user:erin", OFFICER), noon()).unwrap_err();
        assert!(
            again.to_string().contains("looked at afterwards already"),
            "{again}"
        );
        let written = run(&two, Event::Record(closure()), noon()).unwrap();
        let live = case.state == ExceptionState::Approved;
        let state = if live {
            ExceptionState::Closed
        } else {
            case.state
        };
        assert_eq!(written.state, state, "T15");
        assert_eq!(written.debt.as_ref().unwrap().overdue(Timestamp::MAX), None);
        run(&written, Event::Record(closure()), noon()).unwrap_err();
        // One no is enough; of what is in force it is the end.
        let no = Vote {
            approves: false,
            ..vote("user:bob", OWNER, Ballot::Retroactive)
        };
        let denied = run(case, Event::Vote(no, terms.clone()), noon()).unwrap();
        let state = if live {
            ExceptionState::Revoked
        } else {
            case.state
        };
        assert_eq!(denied.state, state, "V2");
        assert_eq!(denied.debt.unwrap().looked, Some((false, noon())));
    }
}
