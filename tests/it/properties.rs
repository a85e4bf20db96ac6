//! Laws of the decision, over generated worlds (reliability §3 D and T, governance R14).

use exeat::{
    domain::{
        Control, Decision, Digest, Effect, Enforcement, Evidenced, Exception, ExceptionState,
        Facet, Fingerprint, Lease, Now, Outcome, Question, Set, Span, Subject, Tier, TierRules,
        Timestamp, Value,
    },
    engine::{Change, Snapshot, Standing, attendance::Attendance, catalogue, decide, effective},
    testing::{control, exception, noon, question, snapshot, subject},
};
use proptest::{prelude::*, sample::select};

const SUBJECT: &str = "agent-a";

/// Conditions with every answer: fails, passes, and cannot tell.
const CONDITIONS: [&str; 4] = [
    "true",
    "false",
    "subject.owner.active",
    "subject.environment == 'prod'",
];

fn controls() -> impl Strategy<Value = Vec<Control>> {
    let one = (
        0..CONDITIONS.len(),
        select(vec![
            Enforcement::Advisory,
            Enforcement::SoftMandatory,
            Enforcement::HardMandatory,
        ]),
        any::<bool>(),
    );
    prop::collection::vec(one, 1..6).prop_map(|made| {
        made.into_iter()
            .enumerate()
            .map(|(at, (condition, enforcement, gate))| {
                let mut made = control(&format!("CT-{at}"), CONDITIONS[condition]);
                made.enforcement = enforcement;
                made.baseline_gate =
                    gate && enforcement == Enforcement::HardMandatory && condition == 1;
                made
            })
            .collect()
    })
}

fn exceptions(controls: Vec<Control>) -> impl Strategy<Value = Vec<Exception>> {
    let soft: Vec<String> = controls
        .iter()
        .filter(|c| c.enforcement != Enforcement::HardMandatory)
        .map(|c| c.id.to_string())
        .collect();
    let tiers = select(vec![Tier::Low, Tier::Incident]);
    let one = (
        prop::sample::subsequence(soft.clone(), 0..=soft.len()),
        -90..90_i64,
        1..120_i64,
        any::<(bool, bool)>(),
        tiers,
        select(ExceptionState::ALL.to_vec()),
        0..10_usize,
    );
    prop::collection::vec(one, 0..5).prop_map(|made| {
        made.into_iter()
            .enumerate()
            .filter(|(_, (ids, ..))| !ids.is_empty())
            .map(
                |(at, (ids, from, length, (here, narrow), tier, state, luck))| {
                    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                    let mut made = exception(&format!("EX-{at}"), &ids, SUBJECT);
                    made.effective_time = noon() + Span::from_secs(from * 60);
                    made.expire_time = made.effective_time + Span::from_secs(length * 60);
                    made.scope.environments =
                        Set::Of([if here { "prod" } else { "test" }.into()].into());
                    if narrow {
                        made.scope.resources =
                            Set::Of([exeat::domain::Pattern::parse("mcp://crm/").unwrap()].into());
                    }
                    made.tier = tier;
                    if tier == Tier::Incident {
                        made.bound = Fingerprint::new(
                            [Facet::Model, Facet::Tools, Facet::Environment]
                                .map(|f| (f, Digest::parse(&format!("sha256:{f}")).unwrap())),
                        );
                        made.next_revalidation_time = Some(
                            made.expire_time
                                .min(made.effective_time + Span::from_hours(1)),
                        );
                    }
                    // Most are in force, or little would ever be allowed.
                    made.state = if luck < 8 {
                        ExceptionState::Approved
                    } else {
                        state
                    };
                    made
                },
            )
            .collect()
    })
}

#[derive(Clone, Debug)]
struct World {
    controls: Vec<Control>,
    exceptions: Vec<Exception>,
    now: Now,
}

fn worlds() -> impl Strategy<Value = World> {
    let time = (
        0..40_i64,
        select(vec![0_i64, 1, 5, 20]),
        select(vec![
            None,
            Some(0_i64),
            Some(59),
            Some(299),
            Some(3_599),
            Some(4_000),
        ]),
        select(vec![Evidenced::Kept, Evidenced::Scarce, Evidenced::Lost]),
    );
    controls()
        .prop_flat_map(move |controls| (Just(controls.clone()), exceptions(controls), time.clone()))
        .prop_map(
            |(controls, exceptions, (minutes, doubt, lease, evidence))| {
                let earliest = noon() + Span::from_secs(minutes * 60);
                let lease = lease.map_or(Lease::Local, |age| Lease::Follows {
                    removals: Span::from_secs(age),
                    state: Span::from_secs(age / 2),
                });
                World {
                    controls,
                    exceptions,
                    now: Now {
                        earliest,
                        latest: earliest + Span::from_secs(doubt),
                        lease,
                        evidence,
                    },
                }
            },
        )
}

impl World {
    fn subject() -> Subject {
        subject(SUBJECT)
    }

    fn snapshot(&self) -> Snapshot {
        let controls = self.controls.iter().cloned().map(Change::PutControl);
        let exceptions = self.exceptions.iter().cloned().map(Change::PutException);
        snapshot(
            controls
                .chain([Change::PutSubject(Self::subject())])
                .chain(exceptions)
                .collect(),
        )
    }

    fn decide(&self) -> Decision {
        decide(&Self::question(), &self.snapshot(), self.now)
    }

    fn question() -> Question {
        question(SUBJECT)
    }
}

fn allows(decision: &Decision) -> bool {
    decision.outcome != Outcome::Deny
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// D1: an allow by exception rests on exceptions that hold on every count.
    #[test]
    fn d1_what_is_relied_on_holds(world in worlds()) {
        let (snapshot, decision) = (world.snapshot(), world.decide());
        prop_assert_eq!(decision.outcome == Outcome::AllowByException, decision.relied_on().next().is_some());
        for relied in decision.relied_on() {
            prop_assert_eq!(relied.state, ExceptionState::Approved);
            prop_assert!(relied.effective_time <= world.now.earliest && world.now.latest < relied.expire_time);
            let rules = snapshot.tier(relied.tier);
            let subject = World::subject();
            prop_assert_eq!(effective(relied, rules, &subject, &Fingerprint::default(), world.now, Standing::default()), None);
            prop_assert!(decision.failed.iter().any(|result| relied.controls.contains(&result.control.id) && result.blocks()));
        }
    }

    /// D4: what cannot be told never passes, and a control that blocks and does not pass is covered or denies.
    #[test]
    fn d4_nothing_unknown_is_allowed(world in worlds()) {
        let decision = world.decide();
        let uncovered = decision.failed.iter().filter(|result| result.blocks()).any(|result| !decision.relied_on().any(|exception| exception.controls.contains(&result.control.id)));
        prop_assert_eq!(allows(&decision), !uncovered);
        let unknown = decide(&question("nobody"), &world.snapshot(), world.now);
        prop_assert_eq!(unknown.outcome, Outcome::Deny);
    }

    /// D5: what cannot be waived is never waived.
    #[test]
    fn d5_hard_controls_are_never_bypassed(world in worlds()) {
        let decision = world.decide();
        let hard = decision.failed.iter().any(|result| result.control.enforcement == Enforcement::HardMandatory);
        prop_assert!(!hard || decision.outcome == Outcome::Deny);
    }

    /// D6: another control, another revocation or more age never turn a deny into an allow.
    #[test]
    fn d6_more_of_what_denies_denies_more(world in worlds(), condition in 0..CONDITIONS.len(), revoked in 0..5_usize, older in 1..5_000_i64) {
        let before = world.decide();
        let mut stricter = world.clone();
        stricter.controls.push(control("CT-99", CONDITIONS[condition]));
        prop_assert!(allows(&before) || !allows(&stricter.decide()));
        let mut fewer = world.clone();
        if let Some(exception) = fewer.exceptions.get_mut(revoked) {
            exception.state = ExceptionState::Revoked;
        }
        prop_assert!(allows(&before) || !allows(&fewer.decide()));
        let mut stale = world.clone();
        if let Lease::Follows { removals, state } = &mut stale.now.lease {
            for age in [removals, state] {
                *age = Span::from_micros(age.micros() + older * 1_000_000);
            }
        }
        prop_assert!(allows(&before) || !allows(&stale.decide()));
        let mut blind = world.clone();
        for worse in [Evidenced::Scarce, Evidenced::Lost] {
            blind.now.evidence = blind.now.evidence.max(worse);
            prop_assert!(allows(&before) || !allows(&blind.decide()));
        }
        prop_assert!(blind.decide().outcome != Outcome::AllowByException, "E1: no record, no allow");
    }

    /// D8: the same inputs, in whatever order they arrived, give the same answer.
    #[test]
    fn d8_a_decision_is_a_function_of_its_inputs(world in worlds()) {
        let mut turned = world.clone();
        turned.controls.reverse();
        turned.exceptions.reverse();
        let told = |decision: &Decision| {
            let exceptions: Vec<_> = decision.exceptions.iter().map(|result| (result.exception.id.to_string(), result.effect)).collect();
            let controls: Vec<_> = decision.failed.iter().map(|result| (result.control.id.to_string(), result.verdict)).collect();
            (decision.outcome, decision.reasons.clone(), controls, exceptions, decision.valid_until, decision.passed)
        };
        prop_assert_eq!(told(&world.decide()), told(&turned.decide()));
    }

    /// D10: each control that fails is covered by one exception alone.
    #[test]
    fn d10_exceptions_never_combine(world in worlds()) {
        if world.decide().outcome == Outcome::AllowByException {
            for result in world.decide().failed.iter().filter(|result| result.blocks()) {
                let alone = world.exceptions.iter().any(|exception| {
                    let one = World { controls: world.controls.iter().filter(|c| c.id == result.control.id).cloned().collect(), exceptions: vec![narrowed(exception, result.control.id.as_str())], now: world.now };
                    exception.controls.contains(&result.control.id) && one.decide().outcome == Outcome::AllowByException
                });
                prop_assert!(alone, "{} is covered by nothing alone", result.control.id);
            }
        }
    }

    /// T5: whatever the doubt about the time, an exception only holds if it holds throughout.
    #[test]
    fn t5_doubt_resolves_against_the_exception(world in worlds()) {
        let decision = world.decide();
        if allows(&decision) {
            for at in [world.now.earliest, world.now.latest] {
                let sure = World { now: Now { earliest: at, latest: at, ..world.now }, ..world.clone() };
                // Conditions read the later end alone.
                prop_assert!(at != world.now.latest || allows(&sure.decide()));
                for exception in decision.relied_on() {
                    prop_assert!(exception.effective_time <= at && at < exception.expire_time);
                }
            }
        }
    }

    /// T2: an exception that has ended stays ended however the earlier end of the present moves back.
    #[test]
    fn t2_a_clock_set_back_revives_nothing(world in worlds(), back in 0..10_000_000_i64) {
        let decision = world.decide();
        let back = World { now: Now { earliest: Timestamp::from_micros(world.now.earliest.micros() - back * 1_000), ..world.now }, ..world.clone() };
        prop_assert!(allows(&decision) || !allows(&back.decide()));
    }

    /// What time alone can change, it changes no earlier than `valid_until`.
    #[test]
    fn an_answer_holds_until_it_says(world in worlds(), part in 0.0..1.0_f64) {
        let decision = world.decide();
        let until = decision.valid_until.min(world.now.latest + Span::from_days(2));
        if world.now.uncertainty() == Span::ZERO && until > world.now.latest && world.now.lease == Lease::Local {
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any instant in between does")]
            let ahead = Span::from_micros((((until - world.now.latest).micros() - 1) as f64 * part) as i64);
            let later = World { now: Now { earliest: world.now.earliest + ahead, latest: world.now.latest + ahead, ..world.now }, ..world.clone() };
            prop_assert_eq!(decision.outcome, later.decide().outcome);
        }
    }
}

/// The exception, of one control alone.
fn narrowed(exception: &Exception, control: &str) -> Exception {
    let mut one = exception.clone();
    one.controls.retain(|id| id.as_str() == control);
    if one.controls.is_empty() {
        one.controls = exception.controls.clone();
        one.state = ExceptionState::Revoked;
    }
    one
}

fn soft(condition: &str) -> Change {
    Change::PutControl(control("CT-1", condition))
}

#[test]
fn r14_one_instant_before_the_end_allows_and_the_end_itself_denies() {
    let made = exception("EX-1", &["CT-1"], SUBJECT);
    let (start, end) = (made.effective_time, made.expire_time);
    let snapshot = snapshot(vec![
        soft("true"),
        Change::PutSubject(subject(SUBJECT)),
        Change::PutException(made),
    ]);
    let at = |micros: i64| {
        decide(
            &question(SUBJECT),
            &snapshot,
            Now::exactly(Timestamp::from_micros(micros)),
        )
    };
    assert_eq!(at(end.micros() - 1).outcome, Outcome::AllowByException);
    assert_eq!(at(end.micros()).outcome, Outcome::Deny);
    assert_eq!(at(start.micros()).outcome, Outcome::AllowByException);
    assert_eq!(at(start.micros() - 1).outcome, Outcome::Deny);
    assert_eq!(at(end.micros()).exceptions[0].effect, Effect::Expired);
    assert_eq!(at(noon().micros()).valid_until, end);
}

#[test]
fn r36_a_changed_facet_is_named_and_an_absent_one_counts_as_changed() {
    let mut other = subject(SUBJECT);
    other.facets.retain(|(facet, _)| *facet != Facet::Purpose);
    let changes = |subject| {
        vec![
            soft("true"),
            Change::PutSubject(subject),
            Change::PutException(exception("EX-1", &["CT-1"], SUBJECT)),
        ]
    };
    let stale = decide(
        &question(SUBJECT),
        &snapshot(changes(other)),
        Now::exactly(noon()),
    );
    assert_eq!(
        stale.exceptions[0].effect,
        Effect::ContextChanged(Facet::Purpose)
    );
    let mut asked = question(SUBJECT);
    asked.observed = Fingerprint::new([(Facet::Tools, Digest::parse("sha256:rugpull").unwrap())]);
    let pulled = decide(
        &asked,
        &snapshot(changes(subject(SUBJECT))),
        Now::exactly(noon()),
    );
    assert_eq!(
        (pulled.exceptions[0].effect, pulled.drift),
        (Effect::ContextChanged(Facet::Tools), vec![Facet::Tools])
    );
}

#[test]
fn r41_a_failing_gate_makes_every_exception_ineffective_whatever_is_asked() {
    let mut gate = control("CT-2", "true");
    gate.enforcement = Enforcement::HardMandatory;
    gate.baseline_gate = true;
    gate.applies_to.actions = Set::Of(["something/else".into()].into());
    let snapshot = snapshot(vec![
        soft("true"),
        Change::PutControl(gate),
        Change::PutSubject(subject(SUBJECT)),
        Change::PutException(exception("EX-1", &["CT-1"], SUBJECT)),
    ]);
    let decision = decide(&question(SUBJECT), &snapshot, Now::exactly(noon()));
    assert_eq!(
        (decision.outcome, decision.exceptions[0].effect),
        (Outcome::Deny, Effect::BaselineBreach)
    );
}

#[test]
fn a_compliant_subject_is_never_denied_because_of_an_exception() {
    let mut revoked = exception("EX-1", &["CT-1"], SUBJECT);
    revoked.state = ExceptionState::Revoked;
    let snapshot = snapshot(vec![
        soft("false"),
        Change::PutSubject(subject(SUBJECT)),
        Change::PutException(revoked),
        Change::PutException(exception("EX-2", &["CT-1"], SUBJECT)),
    ]);
    let decision = decide(&question(SUBJECT), &snapshot, Now::exactly(noon()));
    assert_eq!(decision.outcome, Outcome::Allow);
    assert_eq!(
        decision
            .exceptions
            .iter()
            .map(|r| (r.exception.id.as_str(), r.effect))
            .collect::<Vec<_>>(),
        [("EX-2", Effect::NotNeeded)]
    );
}

#[test]
fn tier_rules_are_never_looser_than_compiled() {
    for tier in Tier::ALL {
        let mut loose = TierRules::standard(tier);
        loose.lease_ttl = Span::from_micros(loose.lease_ttl.micros() + 1);
        assert!(loose.checked(tier).is_err(), "{tier}");
    }
}

fn decided(condition: &str, subject: Subject, asked: &Question) -> Decision {
    decide(
        asked,
        &snapshot(vec![soft(condition), Change::PutSubject(subject)]),
        Now::exactly(noon()),
    )
}

fn with_attribute(name: &str, value: Value) -> Subject {
    let mut made = subject(SUBJECT);
    if let Value::Record(fields) = &mut made.attributes {
        fields[catalogue::SUBJECT.place(name).unwrap()] = Some(value);
    }
    made
}

#[test]
fn a_resource_that_may_be_another_is_within_reach_of_every_control() {
    let mut guarded = control("CT-1", "true");
    guarded.applies_to.resources =
        Set::Of([exeat::domain::Pattern::parse("mcp://pay/").unwrap()].into());
    let snapshot = snapshot(vec![
        Change::PutControl(guarded),
        Change::PutControl(control("CT-2", "false")),
        Change::PutSubject(subject(SUBJECT)),
    ]);
    for (id, outcome) in [
        ("mcp://crm/search", Outcome::Allow),
        ("mcp://pay/refund", Outcome::Deny),
        ("mcp://pay/./refund", Outcome::Deny),
        ("mcp://crm/../pay/refund", Outcome::Deny),
        ("mcp://crm/%2e%2E/pay/refund", Outcome::Deny),
    ] {
        let mut asked = question(SUBJECT);
        asked.resource.id = id.into();
        assert_eq!(
            decide(&asked, &snapshot, Now::exactly(noon())).outcome,
            outcome,
            "{id}"
        );
    }
}

#[test]
fn d4_what_is_no_number_passes_nothing() {
    let mut asked = question(SUBJECT);
    for (amount, outcome) in [
        ("1.5", Outcome::Allow),
        ("20000", Outcome::Deny),
        ("NaN", Outcome::Deny),
        ("inf", Outcome::Deny),
        ("-inf", Outcome::Deny),
    ] {
        asked.context = Value::map([("amount".into(), Value::str(amount))]);
        assert_eq!(
            decided(
                "double(request.context.amount) > 10000.0",
                subject(SUBJECT),
                &asked
            )
            .outcome,
            outcome,
            "{amount}"
        );
    }
    asked.context = Value::map([("a".into(), Value::Int(0))]);
    assert_eq!(
        decided(
            "double(request.context.a) / double(request.context.a) > 0.5",
            subject(SUBJECT),
            &asked
        )
        .outcome,
        Outcome::Deny
    );
}

#[test]
fn r3_a_list_nobody_reported_is_no_pass_whatever_the_control_says_of_its_evidence() {
    let condition = "subject.credentials.exists(c, c.exposed)";
    let mut made = with_attribute("credentials", Value::List([].into()));
    assert_eq!(
        decided(condition, made.clone(), &question(SUBJECT)).outcome,
        Outcome::Allow
    );
    made.facets
        .retain(|(facet, _)| *facet != Facet::Credentials);
    let unreported = decided(condition, made, &question(SUBJECT));
    assert_eq!(
        (unreported.outcome, unreported.reason()),
        (Outcome::Deny, exeat::domain::Reason::ControlError)
    );
}

#[test]
fn r3_what_was_observed_in_the_future_is_not_fresh() {
    let mut needy = control("CT-1", "false");
    needy.evidence[0].facets = vec![Facet::Tools];
    needy.evidence[0].max_age = Some(Span::from_hours(2));
    for (ahead, outcome) in [
        (-1, Outcome::Allow),
        (4 * 60, Outcome::Allow),
        (6 * 60, Outcome::Deny),
        (3_600 * 24 * 365, Outcome::Deny),
    ] {
        let mut made = subject(SUBJECT);
        for (_, state) in &mut made.facets {
            state.observed_time = noon() + Span::from_secs(ahead);
        }
        let snapshot = snapshot(vec![
            Change::PutControl(needy.clone()),
            Change::PutSubject(made),
        ]);
        assert_eq!(
            decide(&question(SUBJECT), &snapshot, Now::exactly(noon())).outcome,
            outcome,
            "{ahead}"
        );
    }
}

#[test]
fn a_use_that_is_counted_is_good_for_one_answer() {
    let mut limited = exception("EX-1", &["CT-1"], SUBJECT);
    limited.usage_limits.max_uses = Some(3);
    let snapshot = snapshot(vec![
        soft("true"),
        Change::PutSubject(subject(SUBJECT)),
        Change::PutException(limited),
    ]);
    let decision = decide(&question(SUBJECT), &snapshot, Now::exactly(noon()));
    assert_eq!(
        (decision.outcome, decision.valid_until),
        (Outcome::AllowByException, noon())
    );
}

#[test]
fn comparing_what_the_caller_sent_is_bounded() {
    let deep = |seed: i64| {
        Value::List(
            (0..900)
                .map(|n| Value::List((0..50).map(|m| Value::Int(seed + n * m)).collect()))
                .collect(),
        )
    };
    let mut asked = question(SUBJECT);
    asked.context = Value::map([("a".into(), deep(0)), ("b".into(), deep(0))]);
    let many: Vec<_> = (0..40).map(|n: i64| n.to_string()).collect();
    let condition = format!(
        "[{}].all(x, request.context.a == request.context.b)",
        many.join(", ")
    );
    let decision = decided(&condition, subject(SUBJECT), &asked);
    let exeat::domain::Verdict::Indeterminate(trouble) = decision.failed[0].verdict else {
        panic!("it was told")
    };
    assert_eq!(
        (decision.outcome, trouble.kind),
        (Outcome::Deny, exeat::domain::TroubleKind::BudgetExceeded)
    );
}

proptest! {
    /// S3: that a removal is over is said of it exactly when its receipt says that nobody is outstanding.
    #[test]
    fn s3_a_removal_is_over_when_its_receipt_is_complete(
        known in proptest::collection::vec((0_usize..3, 0_i64..400, 0_u64..4), 0..6),
        lease in proptest::option::of(1_i64..200),
        sequence in 1_u64..4,
        at in 0_i64..600,
    ) {
        let mut attendance = Attendance::new(Span::ZERO);
        for (n, (how, answered, drained)) in known.iter().enumerate() {
            let name = format!("s{n}");
            match how {
                0 => attendance.expect(&name, false),
                1 => attendance.expect(&name, true),
                _ => attendance.answer(&name, Span::from_secs(*answered)),
            }
            attendance.drained(&name, *drained);
            if *answered % 5 == 0 {
                attendance.expect_another(&name);
            }
        }
        let (lease, at) = (lease.map(Span::from_secs), Span::from_secs(at));
        let receipt = attendance.receipt(sequence, lease, at);
        prop_assert_eq!(attendance.is_over(sequence, lease, at), receipt.complete(at));
        prop_assert_eq!(receipt.complete(at), receipt.outstanding.is_empty());
    }
}
