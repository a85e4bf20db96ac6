//! What fails and is about to be remedied: said by whoever answers for it, and no longer than it may stay.

use exeat::wire::v1;
use tonic::Code;

use crate::support::{
    cases::{Ask, DAY, PLAIN, World, agent, approve, ask},
    governed::{Client, Registry, noon, seconds},
};

const PLAN: &str = "the risk tier is lowered once the review is over";

fn in_days(days: i64) -> prost_types::Timestamp {
    exeat::wire::sync::stamp(noon() + seconds(days * DAY))
}

fn remedy(days: i64) -> v1::RemedyFindingRequest {
    v1::RemedyFindingRequest {
        control_id: "CT-HOUR".into(),
        subject: "bad".into(),
        plan: PLAN.into(),
        until: Some(in_days(days)),
    }
}

async fn found(client: &mut Client) -> v1::Finding {
    let request = v1::ListFindingsRequest::default();
    let answer = client.findings.list_findings(request).await.unwrap();
    let mut findings = answer.into_inner().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

/// How many findings wait for people.
async fn waiting(client: &mut Client) -> usize {
    let queue = client
        .reports
        .list_queue(v1::ListQueueRequest::default())
        .await;
    let items = queue.unwrap().into_inner().items;
    let of = |item: &&v1::QueueItem| item.kind() == v1::QueueKind::Finding;
    items.iter().filter(of).count()
}

async fn run(client: &mut Client) {
    let request = v1::RunControlRequest {
        control_id: "CT-HOUR".into(),
        dry_run: false,
    };
    client.findings.run_control(request).await.unwrap();
}

/// F1, F2: how a finding is disposed of is beside what it is and by when it is due, and a plan moves
/// neither.
#[tokio::test]
async fn f2_what_is_about_to_be_remedied_is_due_as_it_was() {
    let mut world = World::start().await;
    let bad = agent("bad").replace("risk_tier: LOW", "risk_tier: MODERATE");
    let control = "---\napiVersion: exeat/v1\nkind: Control\nid: CT-HOUR\ntitle: CT-HOUR\nowner: user:o\nseverity: MEDIUM\nenforcement: SOFT_MANDATORY\nevaluation_modes: [RUNTIME, SCHEDULED]\nschedule: {cron: \"0 0 1 1 *\", time_zone: UTC}\nstate: DEPRECATED\nfailure_condition: \"subject.risk_tier == 'MODERATE'\"\napplies_to: {actions: [risky]}\nevidence_requirements: [{source: s}]\n";
    let dave = bad.replace("principal: \"user:o\"", "principal: \"user:dave\"");
    world
        .admin
        .apply(&(control.to_owned() + &dave))
        .await
        .unwrap();
    run(&mut world.admin).await;
    let before = found(&mut world.admin).await;
    assert_eq!(
        (&*before.disposition, waiting(&mut world.admin).await),
        ("NONE", 1)
    );

    // Neither the control's nor the subject's.
    let (mut alice, mut dave, mut o) = (
        world.as_who("user:alice").await,
        world.as_who("user:dave").await,
        world.as_who("user:o").await,
    );
    let refused = alice.findings.remedy_finding(remedy(3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let with = |change: fn(&mut v1::RemedyFindingRequest)| {
        let mut request = remedy(3);
        change(&mut request);
        request
    };
    // 30 days are MEDIUM's.
    for (request, code, said) in [
        (
            remedy(31),
            Code::FailedPrecondition,
            "is to be remedied by 2026-12-22T12:00:00Z",
        ),
        (remedy(0), Code::InvalidArgument, "`until`: is over"),
        (
            with(|it| it.until = None),
            Code::InvalidArgument,
            "`until`: is not a time",
        ),
        (
            with(|it| it.plan = "soon".into()),
            Code::InvalidArgument,
            "`plan`: is shorter than 20",
        ),
        (
            with(|it| it.plan = format!("use ghp_{} for it", "a".repeat(36))),
            Code::InvalidArgument,
            "`plan`: looks like a secret",
        ),
        (
            with(|it| it.subject = "agent".into()),
            Code::NotFound,
            "not found to fail for `agent`",
        ),
    ] {
        let refused = dave.findings.remedy_finding(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().contains(said), "{refused:?}");
    }
    assert_eq!(
        found(&mut world.admin).await,
        before,
        "nothing of these is kept"
    );

    // The subject's owner, and then the control's says otherwise.
    dave.findings.remedy_finding(remedy(3)).await.unwrap();
    let answer = o.findings.remedy_finding(remedy(4)).await.unwrap();
    let now = found(&mut world.admin).await;
    assert_eq!(answer.into_inner().finding.unwrap(), now);
    assert_eq!(now.disposition, "REMEDIATING");
    let said = now.remedy.clone().unwrap();
    assert_eq!(
        (&*said.principal, &*said.plan, said.until),
        ("user:o", PLAN, Some(in_days(4)))
    );
    assert_eq!(
        (now.first_seen, now.due, &now.state),
        (before.first_seen, before.due, &before.state)
    );
    assert_eq!(waiting(&mut world.admin).await, 0);
    // It goes on to be found, and nobody is told anew.
    run(&mut world.admin).await;
    assert_eq!(found(&mut world.admin).await, now);
    // And over a restart.
    world.registry.process.stop().await;
    let data = world.scratch.path().join("r");
    world.registry = Registry::start_at(&data, world.clock.clone(), "127.0.0.1:0", &[])
        .await
        .unwrap();
    world.admin = world.registry.client().await;
    assert_eq!(found(&mut world.admin).await, now);

    // An exception that is asked for, or granted, is what it is disposed of by.
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let asks = Ask {
        control: "CT-HOUR",
        agent: "bad",
        hours: 24,
        ..PLAIN
    };
    let case = ask(&mut alice, &asks).await.unwrap();
    assert_eq!(
        found(&mut world.admin).await.disposition,
        "DEVIATION_REQUESTED"
    );
    approve(&mut bob, &case).await.unwrap();
    assert_eq!(
        found(&mut world.admin).await.disposition,
        "DEVIATION_APPROVED"
    );
    world.clock.advance(seconds(2 * DAY));
    assert_eq!(found(&mut world.admin).await.disposition, "REMEDIATING");
    // Once the time is over that was named, it waits for somebody again.
    world.clock.advance(seconds(2 * DAY));
    let late = found(&mut world.admin).await;
    assert_eq!((&*late.disposition, late.due), ("NONE", before.due));
    assert_eq!(waiting(&mut world.admin).await, 1);
    // And whoever is told of what is new is told, once (F4).
    run(&mut world.admin).await;
    let told = found(&mut world.admin).await.told;
    assert_eq!(told, Some(in_days(4)));
    run(&mut world.admin).await;
    assert_eq!(found(&mut world.admin).await.told, told);

    // What is found anew is another finding, which nobody has said anything about.
    let good = bad.replace("risk_tier: MODERATE", "risk_tier: LOW");
    for next in [&good, &bad] {
        world.admin.apply(next).await.unwrap();
        run(&mut world.admin).await;
    }
    let anew = found(&mut world.admin).await;
    assert_eq!((&*anew.disposition, anew.remedy), ("NONE", None));
    assert!(anew.first_seen.unwrap().seconds > before.first_seen.unwrap().seconds);
}
