//! What GV.OV looks at, and controls from which exceptions are the rule (R12, R18, R42, R44).

use crate::support::cases::{Ask, DAY, EXCEPTED, PLAIN, World, agent, approve, ask, until};
use crate::support::governed;
use crate::support::governed::seconds;
use crate::support::reports::{LATER, hourly, report, story};
use exeat::{
    domain::{
        ControlId, ExceptionState, Granted, Pattern, Request, Selector, Set, Span, SubjectId,
    },
    engine::{
        Cases, Change,
        report::{About, Counted, Scene, report as made, utilisation},
        sprawl::redesign,
    },
    manifest::oscal_in::requests,
    testing::{case, control, noon, snapshot, subject},
    wire::{
        signed::{hex, sha256},
        v1::{self, ReportFormat},
    },
};
use serde_json::{Value as Json, json};
use tonic::Code;

#[tokio::test]
async fn r12_a_report_counts_what_is_and_was() {
    let mut world = story().await;
    let told = report(&mut world, ReportFormat::Json, |_| {})
        .await
        .unwrap();
    let read: Json = serde_json::from_str(&told.report).unwrap();
    let at = |path: &str| read.pointer(path).unwrap_or(&Json::Null).clone();
    assert_eq!(
        at("/exceptions/standing"),
        json!({"ACTIVE": 1, "PENDING": 1, "DENIED": 1})
    );
    assert_eq!(at("/exceptions/activeByControl"), json!({"CT-HIGH": 1}));
    assert_eq!(at("/exceptions/activeByDomain"), json!({"team": 1}));
    assert_eq!(at("/exceptions/activeByOwner"), json!({"user:alice": 1}));
    assert_eq!(at("/exceptions/activeByType"), json!({"WAIVER": 1}));
    assert_eq!(at("/exceptions/activeByRenewals"), json!({"0": 1}));
    // It applies to five agents, one of which passes.
    let density = json!([{"control": "CT-HIGH", "applies": 5, "excepted": 1, "density": 0.2, "least30d": 0, "redesign": null}]);
    assert_eq!(at("/density"), density);
    assert_eq!(
        at("/justifications"),
        json!({"alike": 3, "of": 3, "share": 1.0})
    );
    let moderate = at("/decisions/MODERATE");
    assert_eq!(
        moderate,
        json!({"byPeople": 2, "automatically": 0, "lapsed": 0, "lapsedShare": 0.0, "medianSeconds": 0, "p95Seconds": 600})
    );
    // Bob did not look before he approved.
    let approvals = json!({"count": 1, "unseen": 1, "hasty": 0, "rubberStampShare": 1.0, "persons": 1, "mostInAnHour": 1, "concentration": 1.0});
    assert_eq!(at("/approvals"), approvals);
    assert_eq!(at("/usageGaps"), json!({"count": 0, "records": 0}));
    assert_eq!(
        at("/overrides"),
        json!({"open": 0, "overdue": 0, "last30d": 0})
    );
    let findings = json!({"open": 4, "excepted": 1, "exceptedShare": 0.25, "requested": 1, "remediating": 0, "overdue": 0, "bySeverity": {"MEDIUM": 4}});
    assert_eq!(at("/findings"), findings);
    // Five agents and two controls; what is excepted does not pass.
    assert_eq!(
        at("/compliance"),
        json!({"passing": 6, "of": 10, "share": 0.6})
    );
    let csf = json!({"framework": "CSF_2_0", "answered": 1, "of": 106});
    assert!(at("/frameworks").as_array().unwrap().contains(&csf));
    assert!(at("/checkpoint").as_str().unwrap().contains("exeat"));
    // The digest is of the bytes, and the ledger holds it once it is recorded.
    assert_eq!(
        told.digest,
        format!("sha256:{}", hex(&sha256(told.report.as_bytes())))
    );
    assert_eq!(told.recorded_revision, 0);
    let recorded = report(&mut world, ReportFormat::Json, |asks| asks.record = true)
        .await
        .unwrap();
    let request = v1::ListLeavesRequest {
        after_revision: recorded.recorded_revision - 1,
        page_size: 1,
        ..v1::ListLeavesRequest::default()
    };
    let leaves = format!(
        "{:?}",
        world.admin.ledger.list_leaves(request).await.unwrap()
    );
    assert!(leaves.contains(&recorded.digest), "{leaves}");
    let mut viewer = world.admin.let_in("user:eve", v1::Role::Viewer, &[]).await;
    viewer = viewer.trim().to_owned();
    let mut eve = world.registry.client_with(&viewer).await;
    let asks = v1::GetReportRequest {
        record: true,
        ..v1::GetReportRequest::default()
    };
    let refused = eve.reports.get_report(asks).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Later the exception is over and the request has lapsed, whoever noted it.
    world.clock.advance(seconds(LATER));
    let told = report(&mut world, ReportFormat::Json, |_| {})
        .await
        .unwrap();
    let read: Json = serde_json::from_str(&told.report).unwrap();
    assert_eq!(read["exceptions"]["activeByTier"], json!({}));
    assert_eq!(read["findings"]["excepted"], json!(0));
    assert_eq!(read["findings"]["overdue"], json!(4));
    assert!(read["coverage"]["most"][0]["share365d"].as_f64().unwrap() > 0.005);
}

/// Whose owner has left is told, though it is suspended by then.
#[tokio::test]
async fn r15_orphaned_exceptions_are_told() {
    let mut world = story().await;
    let left =
        "apiVersion: exeat/v1\nkind: Person\nid: user:alice\nperson_id: p-alice\nactive: false\n";
    world.admin.apply(left).await.unwrap();
    let told = report(&mut world, ReportFormat::Json, |_| {})
        .await
        .unwrap();
    let read: Json = serde_json::from_str(&told.report).unwrap();
    let orphaned = read["exceptions"]["orphaned"].as_array().unwrap();
    assert_eq!(orphaned.len(), 1, "{read}");
    assert_eq!(read["exceptions"]["standing"]["SUSPENDED"], json!(1));
}

#[tokio::test]
async fn r12_a_report_is_about_a_domain_and_what_is_below_it() {
    let mut world = story().await;
    let lab = agent("far").replace("domain: team", "domain: lab");
    let lab = lab.replace("risk_tier: LOW", "risk_tier: MODERATE");
    world.admin.apply(&lab).await.unwrap();
    let of = |domain: &'static str, framework: &'static str| {
        move |asks: &mut v1::GetReportRequest| {
            asks.domain = domain.into();
            asks.framework = framework.into();
        }
    };
    for (domain, framework, of_how_many, active) in [
        ("", "", 12, 1),
        ("team", "", 12, 1),
        ("lab", "", 2, 0),
        ("team", "CSF_2_0", 12, 1),
        ("team", "OWASP_NHI_2025", 0, 0),
    ] {
        let told = report(&mut world, ReportFormat::Json, of(domain, framework))
            .await
            .unwrap();
        let read: Json = serde_json::from_str(&told.report).unwrap();
        assert_eq!(
            read["compliance"]["of"],
            json!(of_how_many),
            "{domain} {framework}"
        );
        let standing = read["exceptions"]["standing"]["ACTIVE"]
            .as_u64()
            .unwrap_or(0);
        assert_eq!(standing, active, "{domain} {framework}");
    }
    let refused = report(&mut world, ReportFormat::Json, of("nowhere", ""))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let refused = report(&mut world, ReportFormat::Json, of("", "ISO"))
        .await
        .unwrap_err();
    assert!(refused.message().contains("CSF_2_0"), "{refused}");
}

/// R34: what OSCAL says of a deviation is what we say of it; that it validates is a peer's to say
/// (`tests/peers/oscal.rs`).
#[tokio::test]
async fn r34_what_is_excepted_is_an_open_risk_in_oscal() {
    let mut world = story().await;
    let told = report(&mut world, ReportFormat::OscalAssessmentResults, |_| {})
        .await
        .unwrap();
    let read: Json = serde_json::from_str(&told.report).unwrap();
    let result = &read["assessment-results"]["results"][0];
    let mut status: Vec<_> = result["risks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|risk| {
            (
                risk["title"].as_str().unwrap().to_owned(),
                risk["status"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    status.sort();
    let expected = [
        ("CT-HIGH for four", "open"),
        ("CT-HIGH for one", "deviation-approved"),
        ("CT-HIGH for three", "open"),
        ("CT-HIGH for two", "deviation-requested"),
    ];
    assert_eq!(
        status,
        expected.map(|(title, status)| (title.to_owned(), status.to_owned()))
    );
    let findings = result["findings"].as_array().unwrap();
    let satisfied: Vec<_> = findings
        .iter()
        .filter(|one| one["target"]["status"]["state"] == "satisfied")
        .map(|one| one["target"]["target-id"].as_str().unwrap())
        .collect();
    assert_eq!(
        satisfied,
        ["CT-NEVER"],
        "what an exception covers is not satisfied"
    );
    let one = result["risks"].as_array().unwrap();
    let one = one
        .iter()
        .find(|risk| risk["status"] == "deviation-approved")
        .unwrap();
    assert_eq!(
        one["deadline"], "2026-11-24T12:10:00Z",
        "the end of the exception"
    );
    let kinds: Vec<_> = one["risk-log"]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["props"][0]["value"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["dr-submission", "status-update", "dr-approved"]);
    // The same thing has the same id in every document.
    let plan = report(&mut world, ReportFormat::OscalPoam, |_| {})
        .await
        .unwrap();
    let plan: Json = serde_json::from_str(&plan.report).unwrap();
    let plan = &plan["plan-of-action-and-milestones"];
    assert_eq!(plan["poam-items"].as_array().unwrap().len(), 4);
    assert_eq!(plan["risks"], result["risks"]);
    let nothing = report(&mut world, ReportFormat::OscalPoam, |asks| {
        asks.domain = "lab".into()
    })
    .await;
    assert_eq!(nothing.unwrap_err().code(), Code::NotFound);
}

/// R34: what OSCAL says of a deviation comes back as what was asked for.
#[tokio::test]
async fn r34_deviations_come_back_as_requests() {
    let mut world = story().await;
    let at = world.clock.now().latest;
    for format in [
        ReportFormat::OscalAssessmentResults,
        ReportFormat::OscalPoam,
    ] {
        let told = report(&mut world, format, |_| {}).await.unwrap();
        let drafted = requests(&told.report, at).unwrap();
        let titles: Vec<_> = drafted.iter().map(|one| &*one.title).collect();
        assert_eq!(
            titles,
            ["CT-HIGH for one", "CT-HIGH for two"],
            "what was denied is no deviation"
        );
        let one = &drafted[0];
        let asked: Json = serde_json::to_value(&one.request).unwrap();
        assert_eq!(asked["control_ids"], json!(["CT-HIGH"]));
        assert_eq!(asked["scope"]["subject_selector"], json!({"ids": ["one"]}));
        assert_eq!(asked["deviation_type"], "WAIVER");
        assert_eq!(asked["owner"], "user:alice");
        assert_eq!(asked["window"], json!({"duration": "48h"}));
        assert_eq!(asked["justification"]["ticket_ref"], "T-7");
        let need = asked["justification"]["business_need"].as_str().unwrap();
        assert!(need.starts_with("the quarter closes"), "{need}");
        assert_eq!(asked["evidence"][0]["evidence_id"], "scan");
        // What OSCAL does not say a person does, and then it can be asked for.
        assert_eq!(
            one.missing,
            [
                "scope.actions",
                "scope.resources",
                "scope.environments",
                "scope.purposes"
            ]
        );
        let mut filled = drafted[1].request.clone();
        filled["control_ids"] = json!(["CT-NEVER"]);
        filled["scope"]["actions"] = json!(["risky"]);
        filled["scope"]["resources"] = json!(["ANY"]);
        filled["scope"]["environments"] = json!(["prod"]);
        filled["scope"]["purposes"] = json!(["work"]);
        let request = v1::RequestExceptionRequest {
            file: governed::files(&filled.to_string()).pop(),
            dry_run: true,
            ..v1::RequestExceptionRequest::default()
        };
        let mut alice = world.as_who("user:alice").await;
        let refused = alice
            .exceptions
            .request_exception(request)
            .await
            .unwrap_err();
        assert!(
            refused.message().contains("does not fail"),
            "everything else is right: {refused}"
        );
    }
    for wrong in ["", "{}", "[]", "{\"catalog\": {}}"] {
        assert!(requests(wrong, at).is_err(), "{wrong}");
    }
    // Whatever else a document holds, or lacks.
    for strange in [
        json!({"assessment-results": {"results": [{"risks": [{"status": "deviation-approved"}]}]}}),
        json!({"plan-of-action-and-milestones": {"risks": [{"status": "deviation-requested", "deadline": "soon", "props": 5, "remediations": [1]}, 7]}}),
    ] {
        let drafted = requests(&strange.to_string(), at).unwrap();
        assert!(
            drafted[0].missing.contains(&"owner") && drafted[0].missing.contains(&"control_ids")
        );
    }
}

fn granted(id: &str, of: &str, from: i64, to: i64, words: &str) -> exeat::domain::Case {
    let at = |days: i64| noon() + Span::from_days(days);
    let mut made = case(id, &["CT-A"], of);
    made.request.justification.business_need = words.into();
    made.state = ExceptionState::Expired;
    made.since = at(to);
    made.granted = Some(Granted {
        effective: at(from),
        expire: at(to),
        next_revalidation: None,
        revalidated: None,
        approval: None,
    });
    made
}

fn kept(cases: &[exeat::domain::Case]) -> Cases {
    let mut kept = Cases::default();
    for case in cases {
        kept.put(case.id.clone(), std::sync::Arc::new(case.clone()));
    }
    kept
}

/// R42: more than one in five, at any time of a month; a day without is enough that it is not.
#[test]
fn r42_a_control_is_to_change_where_exceptions_are_the_rule_all_month() {
    let id = ControlId::parse("CT-A").unwrap();
    let mut changes = vec![Change::PutControl(control("CT-A", "false"))];
    changes.extend((0..5).map(|n| Change::PutSubject(subject(&format!("s{n}")))));
    let world = snapshot(changes);
    let why = |cases: &[exeat::domain::Case], day: i64| {
        redesign(&id, &kept(cases), &world, noon() + Span::from_days(day))
    };
    let one = granted("EX-1", "s0", 0, 90, "a");
    assert_eq!(
        why(std::slice::from_ref(&one), 60),
        None,
        "one in five is not more"
    );
    let two = [one.clone(), granted("EX-2", "s1", 0, 90, "b")];
    let said = why(&two, 60).unwrap();
    assert!(said.starts_with("more than one in five"), "{said}");
    assert!(why(&two, 30).is_some(), "the month is over");
    assert_eq!(why(&two, 29), None, "it is not");
    assert_eq!(why(&two, 90), None, "they are over");
    // Whatever exceptions it was: one goes on from the other.
    let renewed = [
        one.clone(),
        granted("EX-2", "s1", 0, 40, "b"),
        granted("EX-3", "s1", 40, 90, "c"),
    ];
    assert!(why(&renewed, 60).is_some());
    let broken = [
        one,
        granted("EX-2", "s1", 0, 40, "b"),
        granted("EX-3", "s1", 41, 90, "c"),
    ];
    assert_eq!(why(&broken, 60), None);
    assert!(why(&broken, 72).is_some());
}

/// R42: what is suspended is in force no more, who is retired dilutes nothing, and what an
/// administrator took back does not count.
#[test]
fn r42_what_counts_is_what_is_in_force_of_who_is_there() {
    let id = ControlId::parse("CT-A").unwrap();
    let world = |retired: usize| {
        let mut changes = vec![Change::PutControl(control("CT-A", "false"))];
        changes.extend((0..20).map(|n| {
            let mut made = subject(&format!("s{n}"));
            if n >= 20 - retired {
                made.lifecycle = exeat::domain::Lifecycle::Retired;
            }
            Change::PutSubject(made)
        }));
        snapshot(changes)
    };
    let at = noon() + Span::from_days(60);
    let three: Vec<_> = (0..3)
        .map(|n| {
            granted(
                &format!("EX-{n}"),
                &format!("s{n}"),
                0,
                90,
                &format!("w{n}"),
            )
        })
        .collect();
    assert_eq!(
        redesign(&id, &kept(&three), &world(0), at),
        None,
        "three of twenty"
    );
    assert!(
        redesign(&id, &kept(&three), &world(8), at).is_some(),
        "three of twelve"
    );
    let mut suspended = three.clone();
    for case in &mut suspended {
        case.state = ExceptionState::Suspended;
        case.since = noon() + Span::from_days(50);
    }
    assert_eq!(redesign(&id, &kept(&suspended), &world(8), at), None);
    let mut words = three;
    for (case, need) in words
        .iter_mut()
        .zip(["The  Quarter", "the quarter", "the quarter "])
    {
        case.request.justification.business_need = need.into();
        case.request.scope.subjects = three_of("s0");
    }
    let said = redesign(&id, &kept(&words), &world(0), at).unwrap();
    assert!(said.contains("in the same words"), "{said}");
}

fn three_of(id: &str) -> Selector {
    Selector::Ids([SubjectId::parse(id).unwrap()].into())
}

/// R44: the same words for the same subject three times within a year.
#[test]
fn r44_what_is_granted_again_and_again_is_the_rule() {
    let id = ControlId::parse("CT-A").unwrap();
    let subjects = (0..9).map(|n| Change::PutSubject(subject(&format!("s{n}"))));
    let mut changes = vec![Change::PutControl(control("CT-A", "false"))];
    changes.extend(subjects);
    let world = snapshot(changes);
    let why = |cases: &[exeat::domain::Case], day: i64| {
        redesign(&id, &kept(cases), &world, noon() + Span::from_days(day))
    };
    let same = |number: i64| {
        granted(
            &format!("EX-{number}"),
            "s0",
            number * 10,
            number * 10 + 2,
            "a",
        )
    };
    assert_eq!(why(&[same(1), same(2)], 40), None);
    let said = why(&[same(1), same(2), same(3)], 40).unwrap();
    assert!(
        said.contains("3 times") && said.ends_with("EX-1, EX-2, EX-3"),
        "{said}"
    );
    assert_eq!(
        why(&[same(1), same(2), same(3)], 10 + 365),
        None,
        "the first is a year ago"
    );
    let other = granted("EX-3", "s1", 30, 32, "a");
    assert_eq!(
        why(&[same(1), same(2), other], 40),
        None,
        "of another subject"
    );
    let words = granted("EX-3", "s0", 30, 32, "b");
    assert_eq!(why(&[same(1), same(2), words], 40), None, "in other words");
}

/// Its shares are of a year, and it counts once what overlaps.
#[test]
fn r18_evergreen_exceptions_are_told() {
    let changes = vec![
        Change::PutControl(control("CT-A", "false")),
        Change::PutSubject(subject("s0")),
        Change::PutSubject(subject("s1")),
    ];
    let world = snapshot(changes);
    let cases = kept(&[
        granted("EX-1", "s0", 0, 100, "a"),
        granted("EX-2", "s0", 50, 190, "b"),
        granted("EX-3", "s1", 0, 73, "c"),
    ]);
    let scene = Scene {
        snapshot: &world,
        cases: &cases,
        findings: &[],
        used: None,
    };
    let told = made(scene, &About::default(), noon() + Span::from_days(200));
    let control = ControlId::parse("CT-A").unwrap();
    let of = |id: &str| SubjectId::parse(id).unwrap();
    assert_eq!(
        told.shares,
        [(control.clone(), of("s0"), 521), (control, of("s1"), 200)]
    );
    assert_eq!((told.pairs, told.evergreen), (2, 1));
}

/// R18, R42, R44: the control's owner has a finding, and what is asked for next needs the domain's
/// owner as well.
#[tokio::test]
async fn r42_the_owner_hears_of_it_and_the_next_one_needs_the_domain_owner() {
    let mut world = World::start().await;
    let domain = "---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:dave\napprover_groups: {control_owner: owners, risk_officer: risk}\n";
    let text = hourly("CT-HIGH", "true") + domain;
    world.admin.apply(&text).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let mut carol = world.as_who("user:carol").await;
    let mut dave = world.as_who("user:dave").await;
    let asks = Ask {
        control: "CT-HIGH",
        hours: 2,
        more: "usage_limits: {max_uses: 10}\nevidence: [{evidence_id: scan, digest: \"sha256:5ca0\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}, {evidence_id: test, digest: \"sha256:7e57\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}]\n",
        ..PLAIN
    };
    // Of another agent, and no renewal.
    let other = Ask {
        agent: "fresh",
        hours: 1,
        ..asks
    };
    world.admin.apply(&agent("fresh")).await.unwrap();
    let before = ask(&mut alice, &other).await.unwrap();
    let owner = |case: &v1::Case| {
        case.open_seats
            .iter()
            .any(|seat| seat.contains("domain_owner"))
    };
    assert!(!owner(&before), "{:?}", before.open_seats);
    for _ in 0..3 {
        let case = ask(&mut alice, &asks).await.unwrap();
        let mut done = approve(&mut bob, &case).await.unwrap();
        // Renewed it is of a higher tier, and needs more of them.
        for who in [&mut carol, &mut dave] {
            if done.state != "APPROVED" {
                done = approve(who, &done).await.unwrap();
            }
        }
        assert_eq!(done.state, "APPROVED");
        world.clock.advance(seconds(DAY));
    }
    // The registry looks each hour of its clock; how long that takes here is no part of any claim.
    let finding = world.admin.until_found("EXG-REDESIGN").await;
    assert_eq!((&*finding.subject, &*finding.owner), ("CT-HIGH", "user:o"));
    assert!(
        finding.message.contains("3 times within a year"),
        "{finding:?}"
    );
    let next = ask(&mut alice, &other).await.unwrap();
    assert!(owner(&next), "{:?}", next.open_seats);
}

/// R12: a report is made when it is due, kept under that time, and its digest is in the ledger; what
/// was missed is made up for once, also after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_a_report_is_made_on_a_schedule_and_what_was_missed_is_made_up_for() {
    let mut world = World::start_with(&[("report_schedule", "0 6 * * *")]).await;
    let folder = world.scratch.path().join("r").join("reports");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&folder).into_iter().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            // Whole ones.
            .filter(|name| name.ends_with(".json"))
            .collect();
        names.sort();
        names
    };
    let until = async |count: usize| {
        for _ in 0..1_000 {
            if names().len() >= count {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        names()
    };
    world.clock.advance(seconds(DAY));
    assert_eq!(until(1).await, ["2026-11-23T06-00-00Z.json"]);
    world.clock.advance(seconds(3 * DAY));
    let kept = until(2).await;
    assert_eq!(kept[1..], ["2026-11-26T06-00-00Z.json"], "once for three");
    let report = std::fs::read(folder.join(&kept[1])).unwrap();
    let read: Json = serde_json::from_slice(&report).unwrap();
    assert_eq!(read["kind"], "Report");
    let digest = format!("sha256:{}", hex(&sha256(&report)));
    let request = v1::ListLeavesRequest {
        page_size: 1_000,
        ..v1::ListLeavesRequest::default()
    };
    let leaves = world.admin.ledger.list_leaves(request).await.unwrap();
    let leaves = leaves.into_inner().leaves;
    let noted = leaves
        .iter()
        .filter(|leaf| format!("{leaf:?}").contains(&digest));
    assert_eq!(noted.count(), 1, "{digest}");
    world.registry.process.stop().await;
    let data = world.scratch.path().join("r");
    let again = [("report_schedule", "0 6 * * *")];
    let registry =
        governed::Registry::start_at(&data, world.clock.clone(), "127.0.0.1:0", &again).await;
    world.clock.advance(seconds(DAY));
    assert_eq!(until(3).await[2..], ["2026-11-27T06-00-00Z.json"]);
    drop(registry);
    // What was due while it was away is made though none was made before.
    let young = world.scratch.path().join("young");
    let start = || governed::Registry::start_at(&young, world.clock.clone(), "127.0.0.1:0", &again);
    let mut first = start().await.unwrap();
    let since = young.join("reports").join("since");
    for _ in 0..1_000 {
        if since.try_exists().unwrap() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    first.process.stop().await;
    world.clock.advance(seconds(DAY));
    let _second = start().await.unwrap();
    let missed = young.join("reports").join("2026-11-28T06-00-00Z.json");
    for _ in 0..1_000 {
        if missed.try_exists().unwrap() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(missed.try_exists().unwrap(), "{missed:?}");
    let wrong = [("report_schedule", "every day")];
    let other = world.scratch.path().join("other");
    let refused =
        governed::Registry::start_at(&other, world.clock.clone(), "127.0.0.1:0", &wrong).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("report_schedule"), "{refused}");
}

/// Governance §9, 5, 6 and 8: what nobody uses, what nobody needs, and what is nearly missed.
#[test]
fn r18_a_report_tells_what_is_unused_unneeded_and_nearly_missed() {
    let granted = |id: &str, days: i64| {
        let mut case = case(id, &["CT-A"], "agent");
        case.state = ExceptionState::Approved;
        case.granted = Some(Granted {
            effective: noon() + Span::from_days(-days),
            expire: noon() + Span::from_days(9),
            next_revalidation: None,
            revalidated: None,
            approval: None,
        });
        case
    };
    let mut cases = Cases::default();
    for (id, days) in [("EX-USED", 20), ("EX-IDLE", 20), ("EX-NEW", 3)] {
        let case = granted(id, days);
        cases.put(case.id.clone(), case.into());
    }
    let counted = |uses, not_needed, missed: &[(&str, u64)]| Counted {
        uses,
        not_needed,
        missed: missed
            .iter()
            .map(|(name, n)| ((*name).into(), *n))
            .collect(),
        ..Counted::default()
    };
    let used = [
        (
            "EX-USED".into(),
            counted(5, 1, &[("purpose", 40), ("action", 3)]),
        ),
        ("EX-IDLE".into(), counted(0, 7, &[])),
    ]
    .into();
    let snapshot = snapshot(vec![
        Change::PutControl(control("CT-A", "true")),
        Change::PutSubject(subject("agent")),
    ]);
    let scene = Scene {
        snapshot: &snapshot,
        cases: &cases,
        findings: &[],
        used: Some(&used),
    };
    let told = made(scene, &About::default(), noon()).used.unwrap();
    let ids = |ids: &[exeat::domain::ExceptionId]| {
        ids.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told.uses, 5);
    assert_eq!(ids(&told.unused), ["EX-IDLE"], "a new one has time");
    assert_eq!(ids(&told.unneeded), ["EX-IDLE"]);
    assert_eq!(told.missed["purpose"], 40);
    assert!((told.days - 43.0).abs() < 1e-9, "{}", told.days);
}

/// Governance §9.7: what grants far more than is used is to be narrowed.
#[test]
fn r18_what_grants_far_more_than_is_used_is_to_be_narrowed() {
    let snapshot = snapshot(vec![
        Change::PutControl(control("CT-A", "true")),
        Change::PutSubject(subject("agent")),
        Change::PutSubject(subject("other")),
    ]);
    let mut request = case("EX-1", &["CT-A"], "agent").request;
    request.scope.actions = Set::Of(["read", "write"].map(Into::into).into());
    let patterns = ["a", "b/", "c"].map(|text| Pattern::parse(text).unwrap());
    request.scope.resources = Set::Of(patterns.into());
    let of = |request: &Request, uses: &[(&str, &str, &str)]| {
        let uses = uses.iter().map(|(subject, action, resource)| {
            (SubjectId::parse(subject).unwrap(), *action, *resource)
        });
        let uses: Vec<_> = uses.collect();
        let touched = uses.iter();
        let touched: Vec<_> = touched
            .map(|(subject, action, resource)| (subject, *action, *resource))
            .collect();
        let found = utilisation(request, &snapshot, &touched);
        (found.used, found.granted, found.is_low())
    };
    let one = ("agent", "read", "b/1");
    assert_eq!(of(&request, &[]), (0, 6, true));
    assert_eq!(of(&request, &[one]), (1, 6, true));
    // The same cell, and what is granted no longer.
    let same = [one, ("agent", "read", "b/2"), ("agent", "drop", "a")];
    assert_eq!(of(&request, &same), (1, 6, true));
    let two = [one, ("agent", "write", "b/1")];
    assert_eq!(of(&request, &two), (2, 6, false));
    // Whatever is taken any of counts as one.
    request.scope.resources = Set::Any;
    assert_eq!(of(&request, &[one, ("agent", "read", "z")]), (1, 2, false));
    let both = ["agent", "other"].map(|id| SubjectId::parse(id).unwrap());
    request.scope.subjects = Selector::Ids(both.into());
    assert_eq!(of(&request, &[one]), (1, 4, false));
}

async fn until_told(world: &mut World, fits: impl Fn(&Json) -> bool) -> Json {
    let mut told = Json::Null;
    for _ in 0..2_000 {
        let made = report(world, ReportFormat::Json, |_| {}).await.unwrap();
        told = serde_json::from_str(&made.report).unwrap();
        if fits(&told) {
            return told;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{told}");
}

/// R6, governance §9: what was allowed without people, how much of a scope is used, and how soon drift
/// suspends and a revocation is everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn r6_a_report_tells_reviews_avoided_and_how_soon_what_was_taken_back_was() {
    let mut world = World::start().await;
    let others = agent("other") + &agent("third");
    world.admin.apply(&others).await.unwrap();
    let sidecar = world.sidecar().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let wide = Ask {
        action: "risky, a1, a2, a3, a4, a5",
        hours: 480,
        ..PLAIN
    };
    let other = Ask {
        agent: "other",
        ..PLAIN
    };
    let third = Ask {
        agent: "third",
        ..PLAIN
    };
    let mut granted = Vec::new();
    for asked in [&wide, &other, &third] {
        let case = ask(&mut alice, asked).await.unwrap();
        approve(&mut bob, &case).await.unwrap();
        granted.push(case.id);
    }
    world.clock.advance(seconds(60));
    sidecar.until("agent", "risky", EXCEPTED).await;
    world
        .admin
        .until_used(&granted[0], |used| used.uses > 0)
        .await;
    for _ in 0..3 {
        assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
    }
    // Observed half a minute ago, and told of now.
    let drifted = agent("other").replace("11:59:00Z", "12:00:30Z")
        + "tools:\n- {server: s, name: t, definition_digest: \"sha256:t1\", permissions: [], approved: true}\n";
    world.admin.apply(&drifted).await.unwrap();
    until(&mut bob, &granted[1], "SUSPENDED").await;
    let removed = world.admin.revoke(&granted[2]).await.unwrap();
    let sequence = removed.removal.unwrap().sequence;
    world.admin.receipt(sequence, true).await;
    // Both are noted a little later: with the sidecar's next nonce, and when its turn is.
    until_told(&mut world, |told| {
        told["reviewsAvoided"]["allowedByControls"] == json!(3)
            && told["timeToRevoke"]["complete"] == json!(1)
    })
    .await;
    world.clock.advance(seconds(8 * DAY));
    let told = until_told(&mut world, |_| true).await;
    assert_eq!(
        told["reviewsAvoided"],
        json!({"allowedByControls": 3, "allowedAutomatically": 0, "approvals": 3})
    );
    assert_eq!(
        told["driftToSuspend"],
        json!({"count": 1, "medianSeconds": 30, "p95Seconds": 30})
    );
    let revoked = &told["timeToRevoke"];
    assert_eq!(
        (&revoked["complete"], &revoked["open"]),
        (&json!(1), &json!(0)),
        "{revoked}"
    );
    assert_eq!(revoked["medianMillis"], json!(0), "the clock stands");
    let usage = &told["usage"];
    assert_eq!(
        usage["scope"],
        json!({"untold": 0, "used": 1, "granted": 6, "share": 0.1667})
    );
    assert_eq!(
        usage["shrink"],
        json!([{"exception": granted[0], "used": 1, "granted": 6}])
    );
}
