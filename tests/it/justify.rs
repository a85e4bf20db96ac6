//! R13: whether a use was justified at the moment it was used, told by the registry afterwards.

use exeat::wire::v1::{self, Agreement, Outcome, Role, UsageKind};
use tonic::{Code, Status};

use crate::support::cases::{PLAIN, World, agent, approve, ask, look};
use crate::support::governed::{Client, control, seconds};

/// A map of texts.
fn fields<const N: usize>(texts: [(&str, &str); N]) -> Option<prost_types::Struct> {
    let value = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    Some(prost_types::Struct {
        fields: texts
            .into_iter()
            .map(|(name, text)| (name.to_owned(), value(text)))
            .collect(),
    })
}

async fn explain(client: &mut Client, id: &str) -> Result<v1::ExplainDecisionResponse, Status> {
    let request = v1::ExplainDecisionRequest {
        decision_id: id.into(),
    };
    let answer = client.explanations.explain_decision(request).await?;
    Ok(answer.into_inner())
}

/// What is kept of an exception's uses, the latest first; waits until `id` is among it.
async fn record(client: &mut Client, exception: &str, id: &str) -> v1::UsageRecord {
    for _ in 0..500 {
        let request = v1::ListUsageRequest {
            exception_id: exception.into(),
            ..v1::ListUsageRequest::default()
        };
        let answer = client.usage.list_usage(request).await.unwrap();
        let mut records = answer.into_inner().records.into_iter();
        let found = records.find_map(|kept| kept.record.filter(|r| r.decision_id == id));
        if let Some(found) = found {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{id} never came")
}

/// R13: everything it rested on is told as it was, whatever has become of it since, and asked again
/// it comes out the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r13_a_decision_is_explained_as_of_its_moment_and_comes_out_again() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let seen = look(&mut bob, &case.id).await;
    approve(&mut bob, &seen).await.unwrap();
    world.clock.advance(seconds(5));
    let sidecar = world.sidecar().await;
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    let plain = |request: &mut v1::CheckRequest| {
        request.subject = "agent".into();
        request.action = "risky".into();
        request.context = fields([("purpose", "work")]);
        request.request_id = "r-1".into();
    };
    let whole = sidecar.ask_with(plain).await.unwrap();
    assert_eq!(whole.outcome(), Outcome::AllowByException);
    let more = sidecar
        .ask_with(|request| {
            plain(request);
            request.request_id = "r-2".into();
            request.context = fields([("purpose", "work"), ("ticket", "x")]);
        })
        .await
        .unwrap();
    assert_eq!(more.outcome(), Outcome::AllowByException);
    record(&mut world.admin, &case.id, &more.id).await;

    // Since then nothing is as it was.
    world.clock.advance(seconds(1));
    world.admin.revoke(&case.id).await.unwrap();
    let other = control("CT-RISKY", "risky", "true").replace("title: CT-RISKY", "title: another")
        + &agent("agent").replace("name: m", "name: n");
    world.admin.apply(&other).await.unwrap();

    let told = explain(&mut alice, &whole.id).await.unwrap();
    assert_eq!(told.agreement(), Agreement::Same, "{}", told.remark);
    assert!(
        told.remark.contains("was taken back later"),
        "{}",
        told.remark
    );
    let again = told.again.clone().unwrap();
    assert_eq!(again.outcome(), Outcome::AllowByException);
    assert_eq!(again.exceptions[0].exception_id, case.id);
    assert!(!again.controls[0].clauses.is_empty());
    let object = |kind| told.objects.iter().find(|object| object.kind() == kind);
    let rule = object(v1::ObjectKind::Control).unwrap();
    assert_eq!((&*rule.id, rule.revision), ("CT-RISKY", 1));
    assert!(rule.manifest.contains("risky"), "{}", rule.manifest);
    assert_eq!(object(v1::ObjectKind::Subject).unwrap().revision, 1);
    assert_eq!(object(v1::ObjectKind::Exception).unwrap().id, case.id);
    let granted = &told.cases[0];
    assert_eq!((&*granted.id, &*granted.state), (&*case.id, "APPROVED"));
    for said in ["user:bob", "looked at all of it", "\"digest\""] {
        assert!(granted.record.contains(said), "{said}: {}", granted.record);
    }
    let kept = told.records[0].record.clone().unwrap();
    assert_eq!(kept.kind(), UsageKind::ReliedOn);
    // The lease and the clock, as they were.
    assert!(kept.removals_age_micros.is_some() && kept.state_age_micros.is_some());

    // What else was said is recorded nowhere.
    let told = explain(&mut alice, &more.id).await.unwrap();
    assert_eq!(told.agreement(), Agreement::SameAsRecorded);

    // What was refused because it was taken back comes out again too.
    sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let refused = sidecar
        .ask_with(|request| {
            plain(request);
            request.request_id = "r-3".into();
        })
        .await
        .unwrap();
    let kept = record(&mut world.admin, &case.id, &refused.id).await;
    assert_eq!(
        (kept.kind(), &*kept.reason),
        (UsageKind::Ineffective, "EXC_REVOKED")
    );
    let told = explain(&mut alice, &refused.id).await.unwrap();
    assert_eq!(told.agreement(), Agreement::Same, "{}", told.remark);
}

/// E7, R13: a record that says what cannot have been is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r13_a_record_that_lies_does_not_come_out_again() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let seen = look(&mut bob, &case.id).await;
    approve(&mut bob, &seen).await.unwrap();
    world.clock.advance(seconds(5));
    let sidecar = world.sidecar().await;
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    let honest = sidecar
        .ask_with(|request| {
            request.subject = "agent".into();
            request.action = "risky".into();
            request.context = fields([("purpose", "work")]);
        })
        .await
        .unwrap();
    let honest = record(&mut world.admin, &case.id, &honest.id).await;
    let token = world
        .admin
        .let_in("service:liar", Role::Sidecar, &["*"])
        .await;
    let mut liar = world.registry.sync_with(&token).await;
    let id = |n: u8| {
        format!(
            "{}{n:02x}",
            &honest.decision_id[..honest.decision_id.len() - 2]
        )
    };
    let mut elsewhere = honest.clone();
    elsewhere.decision_id = id(0xa1);
    elsewhere.action = "plain".into();
    let mut newer = honest.clone();
    newer.decision_id = id(0xa2);
    newer.snapshot_revision += 1_000;
    // A question with nothing beside what is recorded, which the exception did reach.
    let mut unreached = honest.clone();
    unreached.decision_id = id(0xa3);
    unreached.set_kind(UsageKind::OutOfScope);
    unreached.dimension = "purpose".into();
    let lies = [elsewhere.clone(), newer.clone(), unreached.clone()];
    let report = v1::ReportRequest {
        sequence: 1,
        observed: Vec::new(),
        usage: Some(v1::UsageBatch {
            spool_id: vec![9; 16],
            after: 0,
            digest_before: vec![0; 32],
            records: lies.iter().map(exeat::wire::encoded).collect(),
        }),
    };
    let answer = liar.report(tokio_stream::iter([report])).await.unwrap();
    answer.into_inner().message().await.unwrap().unwrap();

    let told = explain(&mut alice, &honest.decision_id).await.unwrap();
    assert_eq!(told.agreement(), Agreement::Same, "{}", told.remark);
    let told = explain(&mut alice, &unreached.decision_id).await.unwrap();
    assert_eq!(told.agreement(), Agreement::Different, "{}", told.remark);
    // Its digest is of another question: what was not recorded may be why.
    let told = explain(&mut alice, &elsewhere.decision_id).await.unwrap();
    assert_eq!(told.agreement(), Agreement::Untold);
    let told = explain(&mut alice, &newer.decision_id).await.unwrap();
    assert_eq!(told.agreement(), Agreement::Untold);
    assert!(told.remark.contains("never had"), "{}", told.remark);

    let refused = explain(&mut alice, "dec_1").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let unknown = explain(&mut alice, &id(0xff)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}
