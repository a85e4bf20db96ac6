//! Real peers: an evaluator of the decision written in Python from the text of governance §7, and a
//! grpcio client that knows only the reflected schema. Missing Python fails; nothing is skipped.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use crate::support::Dice;
use exeat::{
    config,
    domain::{
        ClassId, Completeness, Control, ControlState, Digest, Enforcement, EvidenceNeed, Evidenced,
        Exception, ExceptionState, Facet, FacetState, Fingerprint, Lease, Lifecycle, Now, Pattern,
        Selector, Sensitivity, Set, Span, StaleMode, Subject, Tier, Timestamp, Value,
        WhenUngoverned,
    },
    engine::{Change, catalogue, decide},
    runtime::clock::Clock,
    sidecar::Bound,
    testing::{control, exception, noon, question, snapshot, subject},
};
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

fn variable(name: &str) -> Option<String> {
    std::env::vars()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value)
}

fn python() -> String {
    variable("EXEAT_PYTHON").unwrap_or_else(|| "python3".into())
}

/// Conditions with the names the evaluator knows them by.
const CONDITIONS: &[(&str, &str)] = &[
    ("never", "false"),
    ("always", "true"),
    ("high", "subject.risk_tier == 'HIGH'"),
    ("inactive", "!subject.owner.active"),
    (
        "inactive_or_prod",
        "!subject.owner.active || subject.environment == 'prod'",
    ),
    (
        "active_and_low",
        "subject.owner.active && subject.risk_tier == 'LOW'",
    ),
    ("purpose_b", "request.purpose == 'b'"),
    ("silent", "now - subject.heartbeat_time > duration('1h')"),
    ("has_owner", "has(subject.owner)"),
];
/// Those that read the subject alone.
const ABOUT_SUBJECT: &[usize] = &[0, 1, 2, 3, 4, 5, 8];
const SUBJECTS: &[&str] = &["agent-a", "agent-b", "agent-c"];
const PURPOSES: &[&str] = &["a", "b"];
const RESOURCES: &[&str] = &["mcp://crm/search", "mcp://crm/export", "mcp://pay/refund"];
const ACTIONS: &[&str] = &["tools/call", "read"];
const FACETS: [Facet; 4] = [
    Facet::Model,
    Facet::Tools,
    Facet::Purpose,
    Facet::Credentials,
];

struct Made {
    changes: Vec<Change>,
    question: exeat::domain::Question,
    now: Now,
    json: Json,
}

fn some<T: Clone>(dice: &mut Dice, from: &[T], of_a_hundred: usize) -> Vec<T> {
    from.iter()
        .filter(|_| dice.often(of_a_hundred))
        .cloned()
        .collect()
}

fn texts(items: &[&str]) -> Set<Box<str>> {
    Set::Of(items.iter().map(|text| (*text).into()).collect())
}

/// A set and what the evaluator reads for it: nothing means any.
fn set(dice: &mut Dice, from: &[&'static str], any: usize) -> (Set<Box<str>>, Json) {
    let items = some(dice, from, 60);
    if dice.often(any) || items.is_empty() {
        (Set::Any, Json::Null)
    } else {
        (texts(&items), json!(items))
    }
}

fn resources(dice: &mut Dice) -> (Set<Pattern>, Json) {
    let items = some(
        dice,
        &[
            "mcp://crm/",
            "mcp://crm/export",
            "mcp://pay/refund",
            "mcp://",
        ],
        40,
    );
    if dice.often(40) || items.is_empty() {
        return (Set::Any, Json::Null);
    }
    (
        Set::Of(
            items
                .iter()
                .map(|text| Pattern::parse(text).unwrap())
                .collect(),
        ),
        json!(items),
    )
}

fn minutes(dice: &mut Dice, from: i64, to: i64) -> Timestamp {
    // Often exactly on an edge.
    let at = if dice.often(15) {
        0
    } else {
        from + i64::try_from(dice.roll(usize::try_from(to - from).unwrap())).unwrap()
    };
    noon() + Span::from_secs(at * 60)
}

fn make_control(dice: &mut Dice, at: usize) -> (Control, Json) {
    let enforcement = [
        Enforcement::Advisory,
        Enforcement::SoftMandatory,
        Enforcement::SoftMandatory,
        Enforcement::SoftMandatory,
        Enforcement::HardMandatory,
    ][dice.roll(5)];
    let code = if enforcement == Enforcement::HardMandatory {
        [0, 0, 0, 3, 6][dice.roll(5)]
    } else {
        dice.roll(CONDITIONS.len())
    };
    let mut made = control(&format!("CT-{at}"), CONDITIONS[code].1);
    made.enforcement = enforcement;
    made.baseline_gate = enforcement == Enforcement::HardMandatory && dice.often(40);
    made.state = [
        ControlState::Draft,
        ControlState::Retired,
        ControlState::Deprecated,
    ][if dice.often(92) { 2 } else { dice.roll(2) }];
    made.runtime = code == 6 || dice.often(90);
    if !made.runtime {
        made.schedule = Some(exeat::domain::Schedule {
            cron: "* * * * *".into(),
            time_zone: "UTC".into(),
            jitter: Span::ZERO,
        });
    }
    let (actions, actions_) = set(dice, ACTIONS, 60);
    let (types, types_) = set(dice, &["tool", "file"], 80);
    let (patterns, patterns_) = resources(dice);
    let (reach, reach_) = if dice.often(30) {
        let code = ABOUT_SUBJECT[dice.roll(ABOUT_SUBJECT.len())];
        (Some(CONDITIONS[code].1.into()), json!(CONDITIONS[code].0))
    } else {
        (None, Json::Null)
    };
    made.applies_to = exeat::domain::Reach {
        actions,
        resource_types: types,
        resources: patterns,
        condition: reach,
    };
    let mut needs = Vec::new();
    if dice.often(25) {
        let max_age = dice
            .often(70)
            .then(|| Span::from_secs(60 * i64::try_from(dice.roll(40)).unwrap()));
        made.evidence = vec![EvidenceNeed {
            source: "s".into(),
            facets: some(dice, &FACETS, 40),
            max_age,
            complete: dice.often(60),
        }];
        needs = made.evidence.clone();
    }
    let json = json!({
        "id": made.id.as_str(), "enforcement": made.enforcement.name(), "gate": made.baseline_gate, "runtime": made.runtime,
        "state": match made.state { ControlState::Draft => "DRAFT", ControlState::Active => "ACTIVE", ControlState::Deprecated => "DEPRECATED", ControlState::Retired => "RETIRED" },
        "actions": actions_, "resource_types": types_, "resources": patterns_, "applies_to": reach_, "fails": CONDITIONS[code].0,
        "evidence": needs.iter().map(|need| json!({"facets": need.facets.iter().map(|f| f.name()).collect::<Vec<_>>(), "max_age": need.max_age.map(Span::micros), "complete": need.complete})).collect::<Vec<_>>(),
    });
    (made, json)
}

fn digest(dice: &mut Dice, facet: Facet) -> Digest {
    let text = if dice.often(90) {
        format!("sha256:{facet}")
    } else {
        "sha256:other".into()
    };
    Digest::parse(&text).unwrap()
}

fn make_subject(dice: &mut Dice, id: &str) -> (Subject, Json) {
    let mut made = subject(id);
    let owner = dice.often(80).then(|| dice.often(75));
    let risk = *dice.pick(&[&"HIGH", &"LOW"]);
    let environment = *dice.pick(&[&"prod", &"test"]);
    let heartbeat = dice.often(80).then(|| minutes(dice, -120, 1));
    let mut attributes = vec![
        ("id".into(), Value::str(id)),
        ("environment".into(), Value::str(environment)),
    ];
    if dice.often(90) {
        attributes.push(("risk_tier".into(), Value::str(risk)));
    }
    let has_risk = attributes.len() == 3;
    if let Some(active) = owner {
        attributes.push((
            "owner".into(),
            Value::map([("active".into(), Value::Bool(active))]),
        ));
    }
    if let Some(at) = heartbeat {
        attributes.push(("heartbeat_time".into(), Value::Time(at)));
    }
    made.attributes = catalogue::conform(
        Value::map(attributes),
        catalogue::Type::Record(&catalogue::SUBJECT),
    )
    .unwrap();
    made.class = dice.often(50).then(|| ClassId::parse("class-1").unwrap());
    made.environment = environment.into();
    made.lifecycle = [Lifecycle::Retired, Lifecycle::Active, Lifecycle::Suspended]
        [if dice.often(95) { 1 } else { dice.roll(3) }];
    made.lock = dice.often(4).then(|| "frozen".into());
    made.data_sensitivity = [
        Sensitivity::Public,
        Sensitivity::Internal,
        Sensitivity::Confidential,
        Sensitivity::Restricted,
    ][dice.roll(4)];
    made.facets = some(dice, &FACETS, 93)
        .into_iter()
        .map(|facet| {
            (
                facet,
                FacetState {
                    source: "s".into(),
                    observed_time: minutes(dice, -30, 1),
                    completeness: if dice.often(85) {
                        Completeness::Complete
                    } else {
                        Completeness::Partial
                    },
                },
            )
        })
        .collect();
    made.fingerprint = Fingerprint::new(
        FACETS
            .into_iter()
            .filter(|facet| *facet != Facet::Credentials)
            .map(|facet| (facet, digest(dice, facet))),
    );
    let json = json!({
        "id": id, "class": made.class.as_ref().map(|class| class.as_str()), "lifecycle": made.lifecycle.name(), "locked": made.lock.is_some(),
        "environment": environment, "data_sensitivity": made.data_sensitivity.name(),
        "attributes": {"owner_active": owner, "risk_tier": has_risk.then_some(risk), "environment": environment, "heartbeat_time": heartbeat.map(Timestamp::micros)},
        "facets": made.facets.iter().map(|(facet, state)| (facet.name().to_owned(), json!({"observed_time": state.observed_time.micros(), "complete": state.completeness == Completeness::Complete}))).collect::<serde_json::Map<_, _>>(),
        "fingerprint": made.fingerprint.iter().map(|(facet, digest)| (facet.name().to_owned(), json!(digest.as_str()))).collect::<serde_json::Map<_, _>>(),
    });
    (made, json)
}

fn make_exception(dice: &mut Dice, at: usize, soft: &[String]) -> Option<(Exception, Json)> {
    let ids = some(dice, soft, 60);
    if ids.is_empty() {
        return None;
    }
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut made = exception(&format!("EX-{at}"), &named, "agent-a");
    let subjects = some(dice, SUBJECTS, 70);
    let (selector, selected) = if dice.often(25) || subjects.is_empty() {
        (
            Selector::Classes([ClassId::parse("class-1").unwrap()].into()),
            json!({"ids": null, "classes": ["class-1"]}),
        )
    } else {
        (
            Selector::Ids(
                subjects
                    .iter()
                    .map(|id| exeat::domain::SubjectId::parse(id).unwrap())
                    .collect(),
            ),
            json!({"ids": subjects, "classes": null}),
        )
    };
    // LOW permits ANY of resources alone; the other dimensions are listed.
    let listed = |dice: &mut Dice, from: &[&'static str]| {
        let items = some(dice, from, 80);
        let items = if items.is_empty() {
            from.to_vec()
        } else {
            items
        };
        (texts(&items), json!(items))
    };
    let (actions, actions_) = listed(dice, ACTIONS);
    let (environments, environments_) = listed(dice, &["prod", "test"]);
    let (purposes, purposes_) = listed(dice, PURPOSES);
    let (patterns, patterns_) = resources(dice);
    let code = dice.roll(CONDITIONS.len());
    let matching = dice.often(20).then_some(code);
    let compensating: Vec<usize> = if dice.often(30) {
        vec![[1, 2, 4, 8, 6][dice.roll(5)]; 1 + dice.roll(2)]
    } else {
        vec![]
    };
    let top = dice.often(30).then(|| {
        [
            Sensitivity::Public,
            Sensitivity::Internal,
            Sensitivity::Confidential,
            Sensitivity::Restricted,
        ][dice.roll(4)]
    });
    made.scope = exeat::domain::Scope {
        subjects: selector,
        actions,
        resources: patterns,
        environments,
        purposes,
        data_sensitivity_max: top,
        match_condition: matching.map(|code| CONDITIONS[code].1.into()),
    };
    made.compensating_conditions = compensating
        .iter()
        .map(|code| CONDITIONS[*code].1.into())
        .collect();
    made.effective_time = minutes(dice, -60, 20);
    made.expire_time =
        made.effective_time + Span::from_secs(60 * (1 + i64::try_from(dice.roll(120)).unwrap()));
    made.next_revalidation_time = dice
        .often(20)
        .then(|| made.effective_time + Span::from_secs(60))
        .filter(|at| *at <= made.expire_time);
    if dice.often(20) {
        made.evidence = vec![exeat::domain::Evidence {
            id: "ev".into(),
            digest: digest(dice, Facet::Model),
            required: dice.often(70),
            expire_time: minutes(dice, -30, 60),
            collect_time: None,
            source: None,
        }];
    }
    made.bound = Fingerprint::new(
        [Facet::Model, Facet::Tools, Facet::Purpose]
            .map(|facet| (facet, Digest::parse(&format!("sha256:{facet}")).unwrap())),
    );
    made.state = if dice.often(90) {
        ExceptionState::Approved
    } else {
        ExceptionState::ALL[dice.roll(10)]
    };
    let mut scope = json!({"actions": actions_, "resources": patterns_, "environments": environments_, "purposes": purposes_, "data_sensitivity_max": top.map(Sensitivity::name), "match": matching.map(|code| CONDITIONS[code].0)});
    scope
        .as_object_mut()
        .unwrap()
        .extend(selected.as_object().unwrap().clone());
    let json = json!({
        "id": made.id.as_str(), "controls": ids, "tier": "LOW", "state": made.state.name(), "scope": scope,
        "effective_time": made.effective_time.micros(), "expire_time": made.expire_time.micros(), "next_revalidation_time": made.next_revalidation_time.map(Timestamp::micros),
        "evidence": made.evidence.iter().map(|e| json!({"required": e.required, "expire_time": e.expire_time.micros()})).collect::<Vec<_>>(),
        "bound": made.bound.iter().map(|(facet, digest)| (facet.name().to_owned(), json!(digest.as_str()))).collect::<serde_json::Map<_, _>>(),
        "compensating": compensating.iter().map(|code| CONDITIONS[*code].0).collect::<Vec<_>>(),
    });
    Some((made, json))
}

fn make(dice: &mut Dice) -> Made {
    let mut changes = Vec::new();
    let (mut controls, mut subjects, mut exceptions) = (Vec::new(), Vec::new(), Vec::new());
    let mut soft = Vec::new();
    for at in 0..=dice.roll(6) {
        let (control, json) = make_control(dice, at);
        if control.enforcement != Enforcement::HardMandatory {
            soft.push(control.id.to_string());
        }
        changes.push(Change::PutControl(control));
        controls.push(json);
    }
    let ungoverned = [
        None,
        Some(WhenUngoverned::Allow),
        Some(WhenUngoverned::Deny),
    ][dice.roll(3)];
    let domain = exeat::domain::DomainId::parse("d").unwrap();
    changes.push(Change::PutDomain(exeat::domain::Domain {
        id: domain.clone(),
        parent: None,
        display_name: "d".into(),
        owner: exeat::domain::Principal::parse("user:o").unwrap(),
        when_ungoverned: ungoverned,
        vocabulary: vec![],
        approvers: vec![],
        self_activation: None,
        tightens: vec![],
    }));
    for id in SUBJECTS.iter().take(2) {
        let (mut subject, json) = make_subject(dice, id);
        subject.domain = Some(domain.clone());
        changes.push(Change::PutSubject(subject));
        subjects.push(json);
    }
    let mut rules = exeat::domain::TierRules::standard(Tier::Low);
    rules.stale_mode = if dice.often(50) {
        StaleMode::Strict
    } else {
        StaleMode::BestEffort
    };
    rules.usage_required = dice.often(30);
    rules.observed_required = dice.often(10);
    rules.facet_max_age = Span::from_secs(60 * (25 + i64::try_from(dice.roll(60)).unwrap()));
    for at in 0..dice.roll(5) {
        if let Some((exception, json)) = make_exception(dice, at, &soft) {
            changes.push(Change::PutException(exception));
            exceptions.push(json);
        }
    }
    let mut asked = question(if dice.often(4) {
        SUBJECTS[2]
    } else {
        SUBJECTS[dice.roll(2)]
    });
    asked.action = (*dice.pick(&[&ACTIONS[0], &ACTIONS[1]])).into();
    asked.resource.kind = if dice.often(85) {
        "tool".into()
    } else {
        "file".into()
    };
    asked.resource.id = RESOURCES[dice.roll(RESOURCES.len())].into();
    asked.purpose = dice.often(90).then(|| PURPOSES[dice.roll(2)].into());
    asked.observed = Fingerprint::new(
        some(dice, &[Facet::Model, Facet::Tools, Facet::Purpose], 25)
            .into_iter()
            .map(|facet| (facet, digest(dice, facet))),
    );
    let earliest = minutes(dice, -5, 30);
    let age = dice
        .often(50)
        .then(|| Span::from_secs([0, 299, 300, 3_599, 3_600][dice.roll(5)]));
    let state = Span::from_secs([0, 0, 3_599, 3_600][dice.roll(4)]);
    let now = Now {
        earliest,
        latest: earliest + Span::from_secs([0, 0, 0, 1, 30, 31][dice.roll(6)]),
        lease: age.map_or(Lease::Local, |age| Lease::Follows {
            removals: age,
            state,
        }),
        evidence: match dice.roll(20) {
            0 => Evidenced::Scarce,
            1 | 2 => Evidenced::Lost,
            _ => Evidenced::Kept,
        },
    };
    let json = json!({
        "now": {"earliest": now.earliest.micros(), "latest": now.latest.micros(), "lease_age": age.map(Span::micros), "state_age": state.micros(), "evidence": format!("{:?}", now.evidence)},
        "question": {"subject": asked.subject.as_str(), "action": asked.action, "resource_type": asked.resource.kind, "resource": asked.resource.id, "purpose": asked.purpose, "observed": asked.observed.iter().map(|(facet, digest)| (facet.name().to_owned(), json!(digest.as_str()))).collect::<serde_json::Map<_, _>>()},
        "controls": controls, "subjects": subjects, "exceptions": exceptions, "when_no_control": if ungoverned == Some(WhenUngoverned::Allow) { "ALLOW" } else { "DENY" },
        "tiers": {"LOW": {"lease_ttl": rules.lease_ttl.micros(), "max_staleness": rules.max_staleness.micros(), "strict": rules.stale_mode == StaleMode::Strict, "max_clock_skew": rules.max_clock_skew.micros(), "usage_required": rules.usage_required, "observed_required": rules.observed_required, "facet_max_age": rules.facet_max_age.micros()}},
    });
    changes.push(Change::PutTier(Tier::Low, rules));
    Made {
        changes,
        question: asked,
        now,
        json,
    }
}

#[test]
fn the_independent_evaluator_agrees() {
    let worlds: usize = variable("EXEAT_WORLDS")
        .and_then(|n| n.parse().ok())
        .unwrap_or(3_000);
    let seed = Dice::seed();
    println!("EXEAT_SEED={seed} EXEAT_WORLDS={worlds}");
    let mut dice = Dice::new(seed);
    let mut child = Command::new(python())
        .arg("tests/peers/oracle.py")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut stdin = child.stdin.take().unwrap();
    let (mut ours, mut asked) = (Vec::with_capacity(worlds), Vec::with_capacity(worlds));
    for _ in 0..worlds {
        let made = make(&mut dice);
        let decision = decide(&made.question, &snapshot(made.changes), made.now);
        let mut reasons: Vec<_> = decision
            .reasons
            .iter()
            .map(|reason| reason.name())
            .collect();
        reasons.sort_unstable();
        ours.push(format!("{} {}", decision.outcome.name(), reasons.join(",")));
        asked.push(made.json.to_string());
    }
    let lines = asked.join("\n");
    let writer = std::thread::spawn(move || {
        stdin.write_all(lines.as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "the evaluator failed");
    let theirs: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(theirs.len(), worlds);
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(
            ours, theirs,
            "seed {seed}, world {at} (left: Rust, right: Python)\n{}",
            asked[at]
        );
    }
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for answer in &ours {
        for part in answer.split([' ', ',']) {
            *counts.entry(part).or_default() += 1;
        }
    }
    println!("{worlds} worlds agree: {counts:?}");
    for answer in [
        "allow",
        "allow_by_exception",
        "deny",
        "EXC_OUT_OF_SCOPE",
        "EXC_EXPIRED",
        "EXC_CONTEXT_CHANGED",
        "EXC_COMPENSATION_FAILED",
        "EXC_LEASE_LAPSED",
        "CLOCK_SKEW",
        "EXC_EVIDENCE_UNAVAILABLE",
        "BASELINE_BREACH",
        "NO_CONTROL",
        "CONTROL_ERROR",
    ] {
        assert!(
            counts
                .get(answer)
                .is_some_and(|count| count * 2_000 > worlds),
            "{answer} is hardly ever met: {counts:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
async fn a_grpcio_client_that_knows_only_the_reflected_schema_is_served() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("s");
    let flags = [
        ("bundle", Some("unused".to_owned())),
        ("subject", Some("agent-a".into())),
        ("listen", Some("127.0.0.1:0".into())),
        ("operations", Some("127.0.0.1:0".into())),
        ("unix", Some(socket.display().to_string())),
        ("data", Some(scratch.path().display().to_string())),
    ];
    let bound = Bound::bind(
        config::Sidecar::load(None, &[], &flags).unwrap(),
        Clock::manual(noon()),
    )
    .await
    .unwrap();
    let address = bound.address();
    let world = snapshot(vec![
        Change::PutControl(control("CT-1", "request.purpose != 'testing'")),
        Change::PutSubject(subject("agent-a")),
    ]);
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(bound.run_fixed(Arc::new(world), async { drop(stopped.await) }));
    for target in [address.to_string(), format!("unix:{}", socket.display())] {
        let output = tokio::task::spawn_blocking(move || {
            Command::new(python())
                .args(["tests/peers/client.py", &target, "agent-a"])
                .output()
        })
        .await
        .unwrap()
        .expect("Python runs");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    drop(stop);
    served.await.unwrap().unwrap();
}
