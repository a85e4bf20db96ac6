//! Controls that run by themselves, and what they find (R2, R3, R5, F1-F4).

use std::time::Duration;

use crate::support::cases::{Ask, DAY, EXCEPTED, PLAIN, World, agent, approve, ask, until};
use crate::support::governed;
use crate::support::governed::{Client, Registry, noon, seconds};
use exeat::{
    domain::{ControlId, Fingerprint, Now, Question, Resource, SubjectId, Value},
    engine::{
        Cases, decide,
        rounds::{is_there, round},
    },
    manifest::Bundle,
    wire::v1,
};
use tonic::Code;

const HOUR: i64 = 3_600;

/// Fails for what is of risk MODERATE, hourly and at each question.
fn hourly(id: &str, condition: &str) -> String {
    format!(
        "---\napiVersion: exeat/v1\nkind: Control\nid: {id}\ntitle: {id}\nowner: user:o\nseverity: MEDIUM\nenforcement: SOFT_MANDATORY\nevaluation_modes: [RUNTIME, SCHEDULED]\nschedule: {{cron: \"0 * * * *\", time_zone: UTC}}\nstate: DEPRECATED\nfailure_condition: \"{condition}\"\napplies_to: {{actions: [risky], condition: \"subject.kind == 'AI_AGENT'\"}}\nevidence_requirements: [{{source: s}}]\n"
    )
}

fn of_risk(id: &str, tier: &str) -> String {
    agent(id).replace("risk_tier: LOW", &format!("risk_tier: {tier}"))
}

async fn listed(client: &mut Client, all: bool) -> Vec<v1::Finding> {
    let request = v1::ListFindingsRequest {
        all,
        ..v1::ListFindingsRequest::default()
    };
    let answer = client.findings.list_findings(request).await.unwrap();
    answer.into_inner().findings
}

fn told(findings: &[v1::Finding]) -> Vec<(&str, &str, &str, &str)> {
    findings
        .iter()
        .map(|found| {
            (
                found.control_id.as_str(),
                found.subject.as_str(),
                found.state.as_str(),
                found.disposition.as_str(),
            )
        })
        .collect()
}

async fn runs(client: &mut Client, control: &str) -> Vec<v1::ControlRun> {
    let request = v1::ListRunsRequest {
        control_id: control.into(),
        page_size: 0,
    };
    client
        .findings
        .list_runs(request)
        .await
        .unwrap()
        .into_inner()
        .runs
}

/// Waits until a control has run so often; the time it may take is no part of any claim.
async fn ran(client: &mut Client, control: &str, times: usize) -> Vec<v1::ControlRun> {
    let mut found = Vec::new();
    for _ in 0..2_000 {
        found = runs(client, control).await;
        if found.len() >= times {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{control} did not run {times} times: {found:?}");
}

/// Every finding, once a run that was overdue is not: what is kept of it comes first.
async fn caught_up(client: &mut Client) -> Vec<v1::Finding> {
    for _ in 0..2_000 {
        let all = listed(client, true).await;
        let over = |found: &v1::Finding| found.control_id == "EXG-RUN" && found.satisfied.is_some();
        if all.iter().any(over) {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no run was caught up");
}

fn at(time: Option<prost_types::Timestamp>) -> i64 {
    time.unwrap().seconds
}

async fn run(client: &mut Client, control: &str, dry_run: bool) -> v1::RunControlResponse {
    let request = v1::RunControlRequest {
        control_id: control.into(),
        dry_run,
    };
    client
        .findings
        .run_control(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn a_control_runs_when_it_is_due_and_what_was_missed_is_caught_up_once() {
    let mut world = World::start().await;
    let service = agent("service").replace("AI_AGENT", "SERVICE");
    let control = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'");
    let everybody = of_risk("bad", "MODERATE") + &of_risk("good", "LOW") + &service;
    world.admin.apply(&(control + &everybody)).await.unwrap();
    assert!(runs(&mut world.admin, "CT-HOUR").await.is_empty());
    world.clock.advance(seconds(HOUR));
    let first = ran(&mut world.admin, "CT-HOUR", 1).await.remove(0);
    // The world's own agent and `good` pass, `service` is elsewhere.
    assert_eq!(
        (
            first.passed,
            first.failed,
            first.untold,
            first.elsewhere,
            first.missed
        ),
        (2, 1, 0, 1, 0),
        "R2"
    );
    let found = listed(&mut world.admin, false).await;
    assert_eq!(told(&found), [("CT-HOUR", "bad", "NOT_SATISFIED", "NONE")]);
    let status = world.admin.fleet.get_status(v1::GetStatusRequest {}).await;
    let failing = status.unwrap().into_inner().failing;
    let [failing] = failing.as_slice() else {
        panic!("{failing:?}")
    };
    assert_eq!(
        (&*failing.control_id, failing.count, at(failing.since)),
        ("CT-HOUR", 1, at(found[0].first_seen))
    );
    assert!(
        found[0]
            .message
            .contains("`subject.risk_tier == 'MODERATE'` holds"),
        "{}",
        found[0].message
    );

    // Five hours without the registry are one run, and a finding on the control's owner.
    world.registry.process.stop().await;
    world.clock.advance(seconds(5 * HOUR));
    let data = world.scratch.path().join("r");
    world.registry = Registry::start(&data, world.clock.clone()).await;
    world.admin = world.registry.client().await;
    let both = ran(&mut world.admin, "CT-HOUR", 2).await;
    assert_eq!((both.len(), both[0].missed), (2, 4));
    let all = caught_up(&mut world.admin).await;
    assert_eq!(
        told(&all),
        [
            ("CT-HOUR", "bad", "NOT_SATISFIED", "NONE"),
            ("EXG-RUN", "CT-HOUR", "SATISFIED", "NONE")
        ]
    );
    assert_eq!(all[1].owner, "user:o");
    // Nothing is due again before its time.
    let asked = run(&mut world.admin, "CT-HOUR", true).await;
    assert!(asked.changed.is_empty(), "nothing new is found");
    assert_eq!(
        runs(&mut world.admin, "CT-HOUR").await.len(),
        2,
        "a dry run keeps nothing"
    );
}

/// Where the registry's log ends.
async fn head(client: &mut Client) -> u64 {
    let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
    status.unwrap().into_inner().head.unwrap().revision
}

/// R2: a run that is due and cannot be done is a finding on the control's owner for as long as it cannot.
#[tokio::test]
async fn r2_a_run_that_cannot_be_done_is_a_finding_until_it_is() {
    cannot_be_done("").await;
}

/// R2: a run that was kept just before the process ended was done, though the finding was not ended.
#[tokio::test]
async fn r2_a_run_that_was_kept_before_a_crash_is_not_overdue() {
    cannot_be_done(
        "INSERT INTO runs (control, control_revision, due, time, revision, passed, failed, untold, elsewhere, took, missed)
         SELECT control, control_revision, due + 3600000000, time + 3600000000, revision, passed, failed, untold, elsewhere, took, missed FROM runs",
    )
    .await;
}

/// A run that is due and cannot be done, and a restart before which `kept` was still written.
async fn cannot_be_done(kept: &'static str) {
    let mut world = World::start().await;
    let control = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'");
    world.admin.apply(&control).await.unwrap();
    world.clock.advance(seconds(HOUR));
    ran(&mut world.admin, "CT-HOUR", 1).await;
    let path = world.scratch.path().join("r/registry.db");
    let statement = async |text: &'static str| {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let file = sqlx::SqlitePool::connect_with(options).await.unwrap();
        sqlx::raw_sql(text).execute(&file).await.unwrap();
        file.close().await;
    };
    statement("ALTER TABLE runs RENAME TO away").await;
    world.clock.advance(seconds(HOUR + 600));
    let found = world.admin.until_found("EXG-RUN").await;
    assert_eq!(found.owner, "user:o");
    let open = told(std::slice::from_ref(&found));
    assert_eq!(open, [("EXG-RUN", "CT-HOUR", "NOT_SATISFIED", "NONE")]);
    assert!(
        found.message.contains("cannot be done"),
        "{}",
        found.message
    );
    // Trying it once more is not doing it, and tells nobody anew.
    let before = head(&mut world.admin).await;
    let request = v1::RunControlRequest {
        control_id: "CT-HOUR".into(),
        dry_run: false,
    };
    let refused = world.admin.findings.run_control(request).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    assert_eq!(head(&mut world.admin).await, before);
    world.registry.process.stop().await;
    statement("ALTER TABLE away RENAME TO runs").await;
    statement(kept).await;
    let data = world.scratch.path().join("r");
    world.registry = Registry::start(&data, world.clock.clone()).await;
    world.admin = world.registry.client().await;
    ran(&mut world.admin, "CT-HOUR", 2).await;
    let all = caught_up(&mut world.admin).await;
    assert_eq!(told(&all), [("EXG-RUN", "CT-HOUR", "SATISFIED", "NONE")]);
    assert_eq!(at(all[0].first_seen), at(found.first_seen));
    assert_eq!(
        runs(&mut world.admin, "CT-HOUR").await.len(),
        2,
        "and not once more"
    );
}

/// R2: what no longer runs by itself, or is no more, is not overdue; it may still be to redesign.
#[test]
fn r2_what_runs_no_more_by_itself_is_not_overdue() {
    let found = |text: &str| {
        let bundle = Bundle::read_files([("a.yaml".to_owned(), text.to_owned())]).unwrap();
        let snapshot = bundle.snapshot(1).unwrap();
        ["EXG-RUN", "EXG-REDESIGN"].map(|finding| {
            let finding = ControlId::parse(finding).unwrap();
            let of = SubjectId::parse("CT-HOUR").unwrap();
            is_there(&finding, &of, &snapshot)
        })
    };
    let control = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'");
    let unscheduled = control
        .replace("schedule: {cron: \"0 * * * *\", time_zone: UTC}\n", "")
        .replace(", SCHEDULED", "");
    assert_eq!(found(&control), [true, true]);
    assert_eq!(found(&unscheduled), [false, true]);
    assert_eq!(found(&hourly("CT-OTHER", "true")), [false, false]);
}

/// R2: what else of a control is edited while its run is due moves no run, also where
/// the registry is restarted right then.
#[tokio::test]
async fn an_edit_while_a_run_is_due_does_not_lose_it() {
    for restarts in [false, true] {
        edited_while_due(restarts).await;
    }
}

async fn edited_while_due(restarts: bool) {
    let mut world = World::start().await;
    let spread = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'")
        .replace("time_zone: UTC", "time_zone: UTC, jitter: 30m");
    world.admin.apply(&spread).await.unwrap();
    world.clock.advance(seconds(HOUR + HOUR / 2));
    ran(&mut world.admin, "CT-HOUR", 1).await;
    world.clock.advance(seconds(HOUR / 2));
    let edited = spread.replace("title: CT-HOUR", "title: hourly");
    world.admin.apply(&edited).await.unwrap();
    assert_eq!(runs(&mut world.admin, "CT-HOUR").await.len(), 1);
    if restarts {
        world.registry.process.stop().await;
        let data = world.scratch.path().join("r");
        world.registry = Registry::start(&data, world.clock.clone()).await;
        world.admin = world.registry.client().await;
    }
    world.clock.advance(seconds(HOUR / 2));
    let both = ran(&mut world.admin, "CT-HOUR", 2).await;
    assert_eq!((both.len(), both[0].missed), (2, 0));
}

/// F4: what an exception covered between two runs is told of once it ends; what is gone with it is not.
#[tokio::test]
async fn what_was_covered_between_two_runs_is_told_of_when_it_ends() {
    let mut world = World::start().await;
    let everybody = of_risk("bad", "MODERATE") + &of_risk("worse", "MODERATE");
    let control = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'");
    world.admin.apply(&(control + &everybody)).await.unwrap();
    world.clock.advance(seconds(HOUR));
    ran(&mut world.admin, "CT-HOUR", 1).await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let mut granted = Vec::new();
    for agent in ["bad", "worse"] {
        let wanted = Ask {
            control: "CT-HOUR",
            agent,
            ..PLAIN
        };
        let case = ask(&mut alice, &wanted).await.unwrap();
        granted.push(approve(&mut bob, &case).await.unwrap());
    }
    let before = listed(&mut bob, false).await;
    world.clock.advance(seconds(60));
    world.admin.revoke(&granted[0].id).await.unwrap();
    let retired =
        of_risk("worse", "MODERATE").replace("lifecycle_state: ACTIVE", "lifecycle_state: RETIRED");
    world.admin.apply(&retired).await.unwrap();
    let after = listed(&mut bob, true).await;
    let told = |of: &[v1::Finding], subject: &str| {
        let mut of = of.iter();
        at(of.find(|finding| finding.subject == subject).unwrap().told)
    };
    assert!(told(&after, "bad") > told(&before, "bad"));
    assert_eq!(told(&after, "worse"), told(&before, "worse"));
}

/// F1: what an exception says is no finding is disposed of as that, once it is granted.
#[tokio::test]
async fn a_false_positive_is_told_as_that() {
    let mut world = World::start().await;
    let control = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'");
    let bad = of_risk("bad", "MODERATE");
    world.admin.apply(&(control + &bad)).await.unwrap();
    run(&mut world.admin, "CT-HOUR", false).await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let wanted = Ask {
        control: "CT-HOUR",
        agent: "bad",
        ..PLAIN
    };
    let text = wanted.text() + "defect_ref: BUG-7\n";
    let text = text.replace("WAIVER", "FALSE_POSITIVE");
    let request = v1::RequestExceptionRequest {
        file: governed::files(&text).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = alice.exceptions.request_exception(request).await.unwrap();
    let case = answer.into_inner().case.unwrap();
    let asked = listed(&mut bob, false).await;
    assert_eq!(asked[0].disposition, "DEVIATION_REQUESTED");
    approve(&mut bob, &case).await.unwrap();
    let said = listed(&mut bob, false).await;
    assert_eq!(
        told(&said),
        [("CT-HOUR", "bad", "NOT_SATISFIED", "FALSE_POSITIVE")]
    );
    assert_eq!(said[0].exception, case.id);
}

#[tokio::test]
async fn an_exception_changes_the_disposition_and_never_the_finding_nor_its_time() {
    let mut world = World::start().await;
    let control = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'");
    world
        .admin
        .apply(&(control + &of_risk("bad", "MODERATE")))
        .await
        .unwrap();
    let first = run(&mut world.admin, "CT-HOUR", false).await;
    assert_eq!(first.changed.len(), 1);
    let before = first.changed[0].clone();
    assert_eq!(before.told, before.first_seen, "F4: told of at once");
    assert_eq!(
        before.due.unwrap().seconds - before.first_seen.unwrap().seconds,
        30 * DAY
    );

    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let wanted = Ask {
        control: "CT-HOUR",
        agent: "bad",
        ..PLAIN
    };
    let case = ask(&mut alice, &wanted).await.unwrap();
    let asked = listed(&mut bob, false).await;
    assert_eq!(
        told(&asked),
        [("CT-HOUR", "bad", "NOT_SATISFIED", "DEVIATION_REQUESTED")]
    );
    approve(&mut bob, &case).await.unwrap();
    let excepted = listed(&mut bob, false).await;
    assert_eq!(
        told(&excepted),
        [("CT-HOUR", "bad", "NOT_SATISFIED", "DEVIATION_APPROVED")],
        "F1"
    );
    assert_eq!(excepted[0].exception, case.id);
    world.clock.advance(seconds(60));
    let again = run(&mut world.admin, "CT-HOUR", false).await;
    assert_eq!(
        (again.changed.len(), again.changed[0].told),
        (1, before.told),
        "R5: nobody is told"
    );

    // The same instant that it ends it is not disposed of, and that is told, once.
    world.admin.revoke(&case.id).await.unwrap();
    let bare = listed(&mut bob, false).await;
    assert_eq!(bare[0].disposition, "NONE", "F2");
    assert!(at(bare[0].told) > at(before.told), "F4");
    assert_eq!(
        (bare[0].first_seen, bare[0].due),
        (before.first_seen, before.due),
        "F2"
    );
    world.clock.advance(seconds(60));
    let quiet = run(&mut world.admin, "CT-HOUR", false).await;
    assert!(quiet.changed.is_empty(), "R5");

    // Remedied, it is satisfied; failing again it is another.
    world.admin.apply(&of_risk("bad", "LOW")).await.unwrap();
    let remedied = run(&mut world.admin, "CT-HOUR", false).await;
    assert_eq!(
        told(&remedied.changed),
        [("CT-HOUR", "bad", "SATISFIED", "NONE")]
    );
    world.clock.advance(seconds(60));
    world
        .admin
        .apply(&of_risk("bad", "MODERATE"))
        .await
        .unwrap();
    let anew = run(&mut world.admin, "CT-HOUR", false).await;
    let anew = &anew.changed[0];
    assert!(at(anew.first_seen) > at(before.first_seen) && at(anew.told) > at(before.told));
    assert_eq!(listed(&mut bob, true).await.len(), 1, "F3");
}

#[tokio::test]
async fn what_cannot_be_told_is_a_finding_and_what_is_gone_has_none() {
    let mut world = World::start().await;
    let silent = hourly("CT-TOLD", "subject.lineage.complete").replace(
        "evidence_requirements: [{source: s}]",
        "evidence_requirements: [{source: s, facets: [tools], max_age: 1h, completeness: COMPLETE}]",
    );
    let hourly = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'");
    world
        .admin
        .apply(&(silent.clone() + &hourly + &of_risk("bad", "MODERATE")))
        .await
        .unwrap();
    let untold = run(&mut world.admin, "CT-TOLD", false).await;
    let counts = untold.run.clone().unwrap();
    assert_eq!(
        (counts.passed, counts.failed, counts.untold),
        (0, 0, 2),
        "R3"
    );
    world.clock.advance(seconds(2 * HOUR));
    let stale = run(&mut world.admin, "CT-TOLD", false).await;
    assert!(stale.changed.iter().all(|found| found.result == "ERROR"));
    assert!(
        stale
            .changed
            .iter()
            .any(|found| found.message.contains("tools")),
        "{:?}",
        stale.changed
    );
    // R20: how old what it rests on is, of each; what nobody observed first.
    let later = of_risk("bad", "MODERATE").replace("11:59:00Z", "13:00:00Z");
    let aged = silent
        .replace("CT-TOLD", "CT-AGED")
        .replace("subject.lineage.complete", "false");
    world.admin.apply(&(later + &aged)).await.unwrap();
    let ages = async |client: &mut Client, control: &str| -> Vec<(String, String, Option<i64>)> {
        let told = run(client, control, true).await.evidence.into_iter();
        let noon = noon().micros() / 1_000_000;
        let since = |age: &v1::EvidenceAge| age.observed.map(|time| time.seconds - noon);
        told.map(|age| (age.subject.clone(), age.facet.clone(), since(&age)))
            .collect()
    };
    let of = |subject: &str, facet: &str, at| (subject.to_owned(), facet.to_owned(), at);
    assert_eq!(
        ages(&mut world.admin, "CT-AGED").await,
        [
            of("agent", "tools", Some(-60)),
            of("bad", "tools", Some(HOUR))
        ]
    );
    assert_eq!(
        ages(&mut world.admin, "CT-TOLD").await,
        [of("agent", "lineage", None), of("bad", "lineage", None)]
    );
    run(&mut world.admin, "CT-HOUR", false).await;

    // A control that is no more, and a subject that is no more.
    let gone = v1::ApplyRequest {
        files: governed::files(&(hourly + &governed::control("CT-RISKY", "risky", "true"))),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    let refused = world.admin.objects.apply(gone.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "that denies less");
    world.registry.process.stop().await;
    let data = world.scratch.path().join("r");
    let alone = [("weakening", "applied")];
    world.registry = Registry::start_at(&data, world.clock.clone(), "127.0.0.1:0", &alone)
        .await
        .unwrap();
    world.admin = world.registry.client().await;
    world.admin.objects.apply(gone).await.unwrap();
    for _ in 0..2_000 {
        let open = listed(&mut world.admin, false).await;
        if open.iter().all(|found| found.control_id == "CT-HOUR") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?}", listed(&mut world.admin, false).await);
}

#[tokio::test]
async fn what_does_not_run_by_itself_is_refused_with_why() {
    let mut world = World::start().await;
    let request = |control: &str| v1::RunControlRequest {
        control_id: control.into(),
        dry_run: false,
    };
    let status = world
        .admin
        .findings
        .run_control(request("CT-RISKY"))
        .await
        .unwrap_err();
    assert!(
        status.message().contains("does not run by itself"),
        "{}",
        status.message()
    );
    let status = world
        .admin
        .findings
        .run_control(request("CT-NONE"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let status = world
        .admin
        .findings
        .run_control(request("nonsense"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let token = world.admin.let_in("user:v", v1::Role::Viewer, &[]).await;
    let mut viewer = world.registry.client_with(&token).await;
    let status = viewer
        .findings
        .run_control(request("CT-RISKY"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[test]
fn r4_a_run_says_of_each_subject_what_a_question_is_told() {
    let conditions = [
        "subject.risk_tier == 'MODERATE'",
        "subject.environment == 'prod' && subject.risk_tier != 'LOW'",
        "subject.lineage.complete",
        "subject.tools.exists(t, t.approved)",
        "now - subject.owner.attest_time > duration('1h')",
        "!(subject.purpose.permitted_ids.exists(p, p == 'work'))",
        "has(subject.class_id)",
    ];
    let mut text = String::new();
    for (at, condition) in conditions.iter().enumerate() {
        text += &hourly(&format!("CT-{at}"), condition);
    }
    let tiers = ["LOW", "MODERATE", "HIGH"];
    for n in 0..24 {
        let mut one = governed::subject(&format!("s{n}"), None)
            .replace("risk_tier: LOW", &format!("risk_tier: {}", tiers[n % 3]));
        if n % 2 == 0 {
            one = one.replace("environment: prod", "environment: dev");
        }
        if n % 5 == 0 {
            one = one.replace("AI_AGENT", "SERVICE");
        }
        if n % 7 == 0 {
            one = one.replace("permitted_ids: [work]", "permitted_ids: [play]");
        }
        if n % 4 == 1 {
            one = one.replace("tools: {source: s, observed_time: \"2026-11-22T11:59:00Z\", completeness: COMPLETE}", "tools: {source: s, observed_time: \"2026-11-22T11:59:00Z\", completeness: PARTIAL}");
        }
        text += &one;
    }
    let snapshot = Bundle::read_files([("w.yaml".to_owned(), text)])
        .unwrap()
        .snapshot(1)
        .unwrap();
    let (mut seen, mut faults) = (0, 0);
    for control in snapshot.controls() {
        let round = round(&control.id, &snapshot, &Cases::default(), &|_| None, noon()).unwrap();
        for subject in snapshot.subjects() {
            let question = Question {
                subject: subject.id.clone(),
                action: "risky".into(),
                resource: Resource {
                    kind: "thing".into(),
                    id: "t".into(),
                    properties: Value::Map(Box::default()),
                },
                purpose: None,
                actor_kind: None,
                context: Value::Map(Box::default()),
                observed: Fingerprint::default(),
                tools: Vec::new(),
            };
            let decision = decide(&question, &snapshot, Now::exactly(noon()));
            let denied = decision
                .failed
                .iter()
                .any(|failed| failed.control.id == control.id);
            let found = round.faults.iter().any(|(id, ..)| *id == subject.id);
            assert_eq!(found, denied, "R4: {} of {}", control.id, subject.id);
            seen += 1;
            faults += usize::from(found);
        }
    }
    assert_eq!(seen, 24 * conditions.len());
    assert!(faults > 20 && faults < seen, "{faults}");
}

#[tokio::test]
async fn r30_exceptions_are_themselves_under_control() {
    let mut world = World::start().await;
    let of_exceptions = |id: &str, condition: &str| {
        hourly(id, condition)
            .replace("[RUNTIME, SCHEDULED]", "[SCHEDULED]")
            .replace(", condition: \"subject.kind == 'AI_AGENT'\"", "")
            // Only when asked: the schedule's own run would find it first.
            .replace("0 * * * *", "0 0 1 1 *")
    };
    let evergreen = of_exceptions("CT-GREEN", "exception.coverage_ratio_365d > 0.02");
    let closed = of_exceptions(
        "CT-CLOSED",
        "exception.deviation_type == 'INCIDENT_OVERRIDE' && exception.closure_state != 'COMPLETE' && now > exception.closure_due_time",
    );
    let used = of_exceptions("CT-USED", "exception.usage_gap_count > 0");
    let people = "---\napiVersion: exeat/v1\nkind: Group\nid: oncall\nmembers: [\"user:carol\"]\n---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\napprover_groups: {control_owner: owners, risk_officer: risk, on_call: oncall}\n";
    world
        .admin
        .apply(&(evergreen + &closed + &used + people))
        .await
        .unwrap();
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let waiver = ask(
        &mut alice,
        &Ask {
            hours: 200,
            ..PLAIN
        },
    )
    .await
    .unwrap();
    approve(&mut bob, &waiver).await.unwrap();
    let green = run(&mut world.admin, "CT-GREEN", false).await;
    assert_eq!(
        told(&green.changed),
        [("CT-GREEN", waiver.id.as_str(), "NOT_SATISFIED", "NONE")]
    );

    // An override that nobody looked at within a day, though it is long over.
    let declares = v1::OpenIncidentRequest {
        id: "INC-1".into(),
        domain: "team".into(),
        title: "exports fail".into(),
    };
    world.admin.incidents.open_incident(declares).await.unwrap();
    let during = Ask {
        hours: 1,
        more: "incident_ref: INC-1\n",
        ..PLAIN
    }
    .text()
    .replace("WAIVER", "INCIDENT_OVERRIDE");
    let request = v1::RequestExceptionRequest {
        file: governed::files(&during).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let mut carol = world.as_who("user:carol").await;
    let case = alice.exceptions.request_exception(request).await.unwrap();
    let case = case.into_inner().case.unwrap();
    approve(&mut carol, &case).await.unwrap();
    let quiet = run(&mut world.admin, "CT-CLOSED", false).await;
    assert!(quiet.changed.is_empty(), "{:?}", quiet.changed);
    world.clock.advance(seconds(25 * HOUR));
    let open = run(&mut world.admin, "CT-CLOSED", false).await;
    assert_eq!(
        told(&open.changed),
        [("CT-CLOSED", case.id.as_str(), "NOT_SATISFIED", "NONE")]
    );

    // How they were used is known, too: neither was, and nothing is missing.
    let used = run(&mut world.admin, "CT-USED", false).await;
    let used = used.run.unwrap();
    assert_eq!((used.failed, used.untold), (0, 0), "{used:?}");
    assert!(used.passed > 0);
}

/// R30: the control over how exceptions are used goes by what sidecars told.
#[tokio::test(flavor = "multi_thread")]
async fn r30_how_an_exception_is_used_is_under_control_too() {
    const USED: &str = "EXG-EXC-04";
    let mut world = World::start().await;
    let sidecar = world.sidecar().await;
    let control = std::fs::read_to_string("examples/policy/controls/exg-exc-04.yaml").unwrap();
    let control = control
        .replace("user:security-lead", "user:o")
        .replace("*/30 * * * *", "0 0 1 1 *");
    world.admin.apply(&control).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let mut granted = Vec::new();
    world.admin.apply(&agent("idle")).await.unwrap();
    for agent in ["agent", "idle"] {
        let long = Ask {
            agent,
            hours: 24 * 20,
            ..PLAIN
        };
        let case = ask(&mut alice, &long).await.unwrap();
        approve(&mut bob, &case).await.unwrap();
        granted.push(case.id);
    }
    world.clock.advance(seconds(60));
    sidecar.until("agent", "risky", EXCEPTED).await;
    world
        .admin
        .until_used(&granted[0], |used| used.uses > 0)
        .await;
    let early = run(&mut world.admin, USED, true).await.run.unwrap();
    assert_eq!((early.passed, early.failed), (2, 0));
    // Of two of a week, one was used.
    world.clock.advance(seconds(8 * DAY));
    let week = run(&mut world.admin, USED, true).await;
    let counts = week.run.unwrap();
    assert_eq!((counts.passed, counts.failed), (1, 1));
    assert_eq!(week.changed[0].subject, granted[1]);
}

/// R43: what nothing answers to is said, what fails is counted, and an exception hides none of it.
#[tokio::test]
async fn coverage_tells_what_nothing_answers_to() {
    let mut world = World::start().await;
    let answers = |control: String, id: &str| {
        control + &format!("framework_refs: [{{framework: OWASP_NHI_2025, ref: \"{id}\"}}]\n")
    };
    let moderate = "subject.risk_tier == 'MODERATE'";
    let controls = answers(hourly("CT-HOUR", moderate), "NHI5:2025")
        + &answers(hourly("CT-LATER", moderate), "NHI7:2025").replace("DEPRECATED", "DRAFT")
        + &of_risk("m1", "MODERATE")
        + &of_risk("m2", "MODERATE");
    world.admin.apply(&controls).await.unwrap();
    run(&mut world.admin, "CT-HOUR", false).await;
    let excepted = Ask {
        control: "CT-HOUR",
        agent: "m1",
        ..PLAIN
    };
    let mut asker = world.as_who("user:alice").await;
    let case = ask(&mut asker, &excepted).await.unwrap();
    let mut owner = world.as_who("user:bob").await;
    approve(&mut owner, &case).await.unwrap();
    world.clock.advance(seconds(5));
    let get = |framework: &str| v1::GetCoverageRequest {
        framework: framework.into(),
    };
    let answer = world
        .admin
        .findings
        .get_coverage(get("OWASP_NHI_2025"))
        .await;
    let covered = answer.unwrap().into_inner().coverage;
    assert_eq!(covered.len(), 10);
    let five = &covered[4];
    assert_eq!(
        (&*five.id, &*five.controls),
        ("NHI5:2025", &["CT-HOUR".to_owned()][..])
    );
    assert_eq!((five.failing, five.excepted), (2, 1));
    let seven = &covered[6];
    assert_eq!(
        (seven.controls.len(), &*seven.drafts),
        (0, &["CT-LATER".to_owned()][..])
    );
    assert_eq!((covered[3].controls.len(), covered[3].failing), (0, 0));
    let all = world.admin.findings.get_coverage(get("")).await.unwrap();
    assert_eq!(all.into_inner().coverage.len(), 188);
    let unknown = world
        .admin
        .findings
        .get_coverage(get("SOC2"))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
}

/// R36: an approved subject that is no longer what was approved is a finding that names the facets,
/// and stays one and the same while it does.
#[tokio::test]
async fn r36_a_finding_names_the_facet_that_changed_since_the_approval() {
    let mut world = World::start().await;
    let condition = "!subject.approvals.exists(a, a.kind == 'DEPLOYMENT' && a.fingerprint == subject.fingerprint.combined)";
    let files = [("agent.yaml".to_owned(), governed::subject("agent", None))];
    let plain = Bundle::read_files(files).unwrap().snapshot(1).unwrap();
    let approved = &plain.subject("agent").unwrap().combined;
    let with = |more: &str| {
        agent("agent")
            + &format!(
                "approvals: [{{kind: DEPLOYMENT, fingerprint: \"{approved}\", requester: \"user:alice\", approvers: [\"user:bob\"], effective_time: \"2026-11-22T11:00:00Z\", expire_time: \"2026-12-22T11:00:00Z\"}}]\n{more}"
            )
    };
    let all = hourly("CT-CTX", condition) + &with("");
    world.admin.apply(&all).await.unwrap();
    assert!(
        run(&mut world.admin, "CT-CTX", false)
            .await
            .changed
            .is_empty()
    );
    let tools = with(
        "tools: [{server: \"mcp://crm\", name: wipe, definition_digest: \"sha256:70\", permissions: [delete], approved: false}]\n",
    );
    world.admin.apply(&tools).await.unwrap();
    for fresh in [true, false] {
        let found = run(&mut world.admin, "CT-CTX", false).await.changed;
        assert_eq!(found.len(), usize::from(fresh), "{found:?}");
    }
    let found = listed(&mut world.admin, false).await.pop().unwrap();
    assert!(
        found.message.contains(
            "facets tools, permissions have changed since revision 2, which was approved"
        ),
        "{}",
        found.message
    );
}

/// R8: one queue of what waits for people, due first: requests, what fails and nobody asked about,
/// and what is suspended; nothing that is excepted or decided.
#[tokio::test]
async fn r8_one_queue_holds_what_waits_for_people_and_nothing_else() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let control = hourly("CT-HOUR", "subject.risk_tier == 'MODERATE'");
    let everybody = of_risk("bad", "MODERATE") + &agent("second") + &agent("third");
    world.admin.apply(&(control + &everybody)).await.unwrap();
    run(&mut world.admin, "CT-HOUR", false).await;
    let waits = ask(&mut alice, &PLAIN).await.unwrap();
    let mut granted = Vec::new();
    for agent in ["second", "third"] {
        let case = ask(&mut alice, &Ask { agent, ..PLAIN }).await.unwrap();
        granted.push(approve(&mut bob, &case).await.unwrap().id);
    }
    let queue = async |client: &mut Client, page_size| {
        let mut request = v1::ListQueueRequest {
            page_size,
            page_token: String::new(),
        };
        let mut items = Vec::new();
        loop {
            let answer = client.reports.list_queue(request.clone()).await;
            let answer = answer.unwrap().into_inner();
            items.extend(answer.items);
            request.page_token = answer.next_page_token;
            if request.page_token.is_empty() {
                assert_eq!(answer.total as usize, items.len());
                return items;
            }
        }
    };
    let kinds = |items: &[v1::QueueItem]| -> Vec<_> {
        let of = |item: &v1::QueueItem| {
            let about = [&item.exception_id, &item.control_id, &item.subject];
            let about: Vec<_> = about.into_iter().filter(|id| !id.is_empty()).collect();
            let about: Vec<_> = about.into_iter().cloned().collect();
            (item.kind(), about.join(" "))
        };
        items.iter().map(of).collect()
    };
    let found = queue(&mut world.admin, 1).await;
    let decision = (v1::QueueKind::Decision, waits.id.clone());
    let finding = (v1::QueueKind::Finding, "CT-HOUR bad".to_owned());
    assert_eq!(kinds(&found), [decision.clone(), finding]);
    assert_eq!(found[0].what, "waits for 1 control_owner for team");
    assert_eq!(found[1].owner, "user:o");
    assert!(found[0].due.unwrap().seconds < found[1].due.unwrap().seconds);

    // One is suspended, and somebody asks for an exception from what fails.
    let changed = agent("second").replace("permitted_ids: [work]", "permitted_ids: [work, play]");
    world.admin.apply(&changed).await.unwrap();
    until(&mut bob, &granted[0], "SUSPENDED").await;
    let bad = Ask {
        control: "CT-HOUR",
        agent: "bad",
        ..PLAIN
    };
    let asked = ask(&mut alice, &bad).await.unwrap();
    let found = queue(&mut world.admin, 0).await;
    let suspended = (v1::QueueKind::Suspended, granted[0].clone());
    let mut wanted = vec![decision, (v1::QueueKind::Decision, asked.id), suspended];
    let mut kinds = kinds(&found);
    kinds.sort();
    wanted.sort();
    assert_eq!(kinds, wanted);
    assert!(found.iter().all(|item| !item.overdue));
    // A page goes on after where the last one ended, though what was there is no more.
    let mut request = v1::ListQueueRequest {
        page_size: 2,
        page_token: String::new(),
    };
    let answer = world.admin.reports.list_queue(request.clone()).await;
    let first = answer.unwrap().into_inner();
    let gone = v1::GiveUpRequest {
        id: first.items[1].exception_id.clone(),
        reason: String::new(),
    };
    alice.exceptions.give_up(gone).await.unwrap();
    request.page_token = first.next_page_token;
    let answer = world.admin.reports.list_queue(request.clone()).await;
    let second = answer.unwrap().into_inner();
    assert_eq!(second.items[0], found[2]);
    // Nobody asks about what fails any more.
    assert_eq!(second.items[1].kind(), v1::QueueKind::Finding);
    assert_eq!((second.items.len(), second.total), (2, 3));
    request.page_token = "nonsense".into();
    let refused = world.admin.reports.list_queue(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        found
            .iter()
            .any(|item| item.what.starts_with("is suspended: "))
    );
}
