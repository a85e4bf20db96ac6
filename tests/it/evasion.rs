//! What somebody tries who wants an exception without the people who are to decide about it.

use crate::support::cases::{
    Ask, DAY, PLAIN, World, agent, approve, ask, lax, look, people, spare, until,
};
use crate::support::governed;
use crate::support::governed::{Client, control, files, seconds, subject};
use exeat::wire::v1;
use tonic::{Code, Status};

const SCAN: &str = "{evidence_id: scan, digest: \"sha256:5ca0\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}";
const TEST: &str = "{evidence_id: test, digest: \"sha256:7e57\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}";

/// What a HIGH request shows.
fn high() -> String {
    format!("usage_limits: {{max_uses: 10}}\nevidence:\n- {SCAN}\n- {TEST}\n")
}

fn risky(id: &str) -> String {
    agent(id).replace("risk_tier: LOW", "risk_tier: HIGH")
}

fn policy(tier: &str, field: &str) -> String {
    format!("---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: {tier}\n{field}\n")
}

fn person(id: &str, more: &str) -> String {
    format!("---\napiVersion: exeat/v1\nkind: Person\nid: user:{id}\n{more}\n")
}

fn domain(id: &str, more: &str) -> String {
    format!(
        "---\napiVersion: exeat/v1\nkind: Domain\nid: {id}\ndisplay_name: {id}\nowner: user:o\n{more}\n"
    )
}

/// A request with another window.
async fn ask_for(client: &mut Client, asked: &Ask<'_>, window: &str) -> Result<v1::Case, Status> {
    let text = asked.text();
    let known = format!("window: {{duration: {}h}}", asked.hours);
    assert!(text.contains(&known));
    let text = text.replace(&known, &format!("window: {{{window}}}"));
    let request = v1::RequestExceptionRequest {
        file: files(&text).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = client.exceptions.request_exception(request).await?;
    Ok(answer.into_inner().case.unwrap())
}

async fn vote(client: &mut Client, case: &v1::Case, approve: bool) -> Result<v1::Case, Status> {
    let request = v1::DecideRequest {
        id: case.id.clone(),
        approve,
        comment: "looked at all of it".into(),
        digest: case.digest.clone(),
        reviewed_evidence: vec!["scan".into(), "test".into()],
    };
    let answer = client.exceptions.decide(request).await?;
    Ok(answer.into_inner().case.unwrap())
}

async fn give_up(client: &mut Client, case: &v1::Case) -> v1::Case {
    let request = v1::GiveUpRequest {
        id: case.id.clone(),
        reason: String::new(),
    };
    let answer = client.exceptions.give_up(request).await.unwrap();
    answer.into_inner().case.unwrap()
}

fn says(refused: &Status, parts: &[&str]) {
    for part in parts {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
}

/// M3: the domain of the subject decides, whatever domain a request names.
#[tokio::test]
async fn a_request_does_not_choose_its_deciders() {
    let mut world = World::start().await;
    let buddies =
        "apiVersion: exeat/v1\nkind: Group\nid: pals\nmembers: [\"user:dave\", \"user:carol\"]\n";
    let text = format!(
        "{}{}---\n{buddies}",
        risky("agent"),
        domain(
            "buddies",
            "approver_groups: {control_owner: pals, risk_officer: pals}"
        )
    );
    world.admin.apply(&text).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let more = format!("{}domain: buddies\n", high());
    let refused = ask(
        &mut alice,
        &Ask {
            more: &more,
            ..PLAIN
        },
    )
    .await
    .unwrap_err();
    says(&refused, &["`domain`", "buddies"]);
    // Each role sits in the subject's own domain.
    let case = ask(
        &mut alice,
        &Ask {
            more: &high(),
            ..PLAIN
        },
    )
    .await
    .unwrap();
    assert_eq!(
        case.open_seats,
        ["1 control_owner for team", "1 risk_officer for team"]
    );
}

/// A2: one person stays one person, whatever the directory learns between two votes.
#[tokio::test]
async fn one_person_does_not_become_two_between_votes() {
    let mut world = World::start().await;
    let both = people().replace(
        "\"user:carol\", \"user:bob2\"",
        "\"user:carol\", \"user:dave\"",
    );
    world.admin.apply(&(both + &risky("agent"))).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let case = ask(
        &mut alice,
        &Ask {
            more: &high(),
            ..PLAIN
        },
    )
    .await
    .unwrap();
    let mut dave = world.as_who("user:dave").await;
    assert_eq!(vote(&mut dave, &case, true).await.unwrap().state, "PENDING");
    world
        .admin
        .apply(&person("dave", "person_id: p-dave"))
        .await
        .unwrap();
    let refused = vote(&mut dave, &case, true).await.unwrap_err();
    says(&refused, &["one person counts once"]);
    assert_eq!(look(&mut dave, &case.id).await.state, "PENDING");
    // Two identities that turn out to be one person: only one of the votes counts.
    world
        .admin
        .apply(&(person("dave", "person_id: p-bob") + &person("bob", "")))
        .await
        .unwrap();
    let mut bob = world.as_who("user:bob").await;
    let case = ask(
        &mut alice,
        &Ask {
            more: &high(),
            ..PLAIN
        },
    )
    .await
    .unwrap();
    vote(&mut bob, &case, true).await.unwrap();
    vote(&mut dave, &case, true)
        .await
        .map(|case| case.state)
        .unwrap_or_default();
    let case = ask(
        &mut alice,
        &Ask {
            more: &high(),
            ..PLAIN
        },
    )
    .await
    .unwrap();
    vote(&mut bob, &case, true).await.unwrap();
    world
        .admin
        .apply(&person("bob", "person_id: p-bob"))
        .await
        .unwrap();
    assert!(vote(&mut dave, &case, true).await.is_err());
    assert_eq!(look(&mut bob, &case.id).await.state, "PENDING");
}

/// Who decides, and by which rules, is not an author's to say.
#[tokio::test]
async fn authors_do_not_say_who_decides() {
    let mut world = World::start().await;
    let token = world
        .admin
        .let_in("user:writer", v1::Role::Author, &[])
        .await;
    let mut writer = world.registry.client_with(&token).await;
    for text in [
        domain(
            "team",
            "approver_groups: {control_owner: risk, risk_officer: risk}",
        ),
        domain("new", ""),
        policy("LOW", "max_duration: 1d"),
        control("CT-RISKY", "risky", "true").replace("user:o", "user:writer"),
        subject("agent", Some("team")).replace("user:o", "user:writer"),
        subject("agent", None),
    ] {
        let refused = writer.apply(&text).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Code::PermissionDenied,
            "{text}: {refused:?}"
        );
    }
    // What they are for.
    let text = control("CT-NEW", "new", "true") + &agent("fresh");
    writer.apply(&text).await.unwrap();
}

/// A principal that was taken back asks nothing, owns nothing and decides nothing.
#[tokio::test]
async fn a_revoked_principal_neither_asks_nor_owns_nor_decides() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let revoke = |principal: &str| v1::RevokeRequest {
        target: Some(v1::Target {
            target: Some(v1::target::Target::Principal(principal.into())),
        }),
        ..v1::RevokeRequest::default()
    };
    world
        .admin
        .revocations
        .revoke(revoke("user:bob"))
        .await
        .unwrap();
    let refused = approve(&mut bob, &case).await.unwrap_err();
    says(&refused, &["`user:bob`", "revoked"]);
    world
        .admin
        .revocations
        .revoke(revoke("user:alice"))
        .await
        .unwrap();
    let refused = ask(&mut alice, &PLAIN).await.unwrap_err();
    says(&refused, &["`user:alice`", "revoked"]);
}

/// T11: a window that is longer than the interval is looked at several times.
#[tokio::test]
async fn a_long_exception_is_looked_at_again_and_again() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let month = Ask {
        hours: 24 * 30,
        ..PLAIN
    };
    let case = ask(&mut alice, &month).await.unwrap();
    let granted = approve(&mut bob, &case).await.unwrap();
    let at = |case: &v1::Case| case.next_revalidation_time.map(|time| time.seconds);
    let begun = granted.effective_time.unwrap().seconds;
    assert_eq!(at(&granted), Some(begun + 14 * DAY));
    world.clock.advance(seconds(13 * DAY));
    let seen = look(&mut bob, &case.id).await;
    let once = approve(&mut bob, &seen).await.unwrap();
    assert_eq!(
        (once.state.as_str(), at(&once)),
        ("APPROVED", Some(begun + 27 * DAY))
    );
    world.clock.advance(seconds(14 * DAY));
    let waits = until(&mut bob, &case.id, "SUSPENDED").await;
    let waiting = v1::ListCasesRequest {
        waiting_for_me: true,
        ..v1::ListCasesRequest::default()
    };
    // Also by whoever approved it before.
    let listed = bob
        .exceptions
        .list_cases(waiting)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.cases.len(), 1);
    let twice = approve(&mut bob, &waits).await.unwrap();
    assert_eq!((twice.state.as_str(), at(&twice)), ("APPROVED", None));
    assert_eq!(twice.expire_time, granted.expire_time, "E10");
}

/// R35: the order in which windows are asked for does not matter.
#[tokio::test]
async fn later_windows_asked_for_first_count() {
    let mut world = World::start().await;
    let year =
        policy("MODERATE", "max_coverage_percent: 1") + &policy("HIGH", "max_coverage_percent: 1");
    world.admin.apply(&(year + &risky("agent"))).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let more = high();
    let asked = Ask {
        more: &more,
        ..PLAIN
    };
    ask_for(
        &mut alice,
        &asked,
        "start_time: \"2026-12-12T12:00:00Z\", duration: 48h",
    )
    .await
    .unwrap();
    let refused = ask(&mut alice, &asked).await.unwrap_err();
    says(&refused, &["2% of a year"]);
}

/// R35: an exception by class and one by the id of a member are of one subject.
#[tokio::test]
async fn a_class_and_its_member_meet() {
    let mut world = World::start().await;
    let year =
        policy("MODERATE", "max_coverage_percent: 1") + &policy("HIGH", "max_coverage_percent: 1");
    let member = risky("worker-1").replace("lifecycle_state", "class_id: workers\nlifecycle_state");
    world
        .admin
        .apply(&(year + &risky("workers") + &member))
        .await
        .unwrap();
    let mut alice = world.as_who("user:alice").await;
    let more = high();
    let asked = Ask {
        more: &more,
        agent: "worker-1",
        ..PLAIN
    };
    ask_for(
        &mut alice,
        &asked,
        "start_time: \"2026-11-24T12:00:00Z\", duration: 48h",
    )
    .await
    .unwrap();
    let text = asked
        .text()
        .replace("{ids: [\"worker-1\"]}", "{class_ids: [workers]}");
    let request = v1::RequestExceptionRequest {
        file: files(&text.replace("48h", "47h")).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let refused = alice
        .exceptions
        .request_exception(request)
        .await
        .unwrap_err();
    says(&refused, &["2% of a year"]);
    // Nobody leaves a class to begin anew who may not say who decides.
    let author = world.admin.let_in("user:dave", v1::Role::Author, &[]).await;
    let mut author = world.registry.client_with(&author).await;
    let moved = member.replace("class_id: workers", "class_id: others");
    let refused = author.apply(&moved).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
}

/// A renewal is counted over all that came before, and at the time it is granted.
#[tokio::test]
async fn renewals_are_counted_whatever_came_between() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let day = Ask { hours: 24, ..PLAIN };
    let far = ask_for(
        &mut alice,
        &day,
        "start_time: \"2026-12-20T12:00:00Z\", duration: 24h",
    )
    .await
    .unwrap();
    approve(&mut bob, &far).await.unwrap();
    give_up(&mut alice, &far).await;
    let second = ask(&mut alice, &day).await.unwrap();
    approve(&mut bob, &second).await.unwrap();
    give_up(&mut alice, &second).await;
    // The second renewal asks for HIGH, and HIGH for more evidence.
    let refused = ask(&mut alice, &day).await.unwrap_err();
    says(&refused, &["tier HIGH"]);

    world.admin.apply(&agent("other")).await.unwrap();
    let day = Ask {
        agent: "other",
        ..day
    };
    let one = ask(&mut alice, &day).await.unwrap();
    let two = ask(&mut alice, &day).await.unwrap();
    approve(&mut bob, &two).await.unwrap();
    let refused = approve(&mut bob, &one).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(look(&mut bob, &one.id).await.state, "DRAFT");
}

/// E15: what counts as evidence is required, of one kind, and still proves something.
#[tokio::test]
async fn evidence_that_binds_nobody_does_not_count() {
    let mut world = World::start().await;
    world.admin.apply(&risky("agent")).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    for second in [
        TEST.replace("required: true", "required: false"),
        SCAN.to_owned(),
        TEST.replace("2027-11-22", "2026-11-22"),
    ] {
        let more = format!("usage_limits: {{max_uses: 10}}\nevidence:\n- {SCAN}\n- {second}\n");
        let refused = ask(
            &mut alice,
            &Ask {
                more: &more,
                ..PLAIN
            },
        )
        .await
        .unwrap_err();
        says(&refused, &["`evidence`", "tier HIGH needs 2"]);
    }
}

/// E10: what rests on a deployment approval ends with it, and does not begin without.
#[tokio::test]
async fn nothing_is_granted_beyond_a_deployment_approval() {
    let mut world = World::start().await;
    let deployed = |end: &str| {
        agent("agent").replace(
            "lifecycle_state",
            &format!("approvals: [{{kind: DEPLOYMENT, model_digest: \"sha256:5d7c\", requester: user:r, approvers: [user:s], effective_time: \"2026-11-01T00:00:00Z\", expire_time: \"{end}\"}}]\nlifecycle_state"),
        )
    };
    world
        .admin
        .apply(&deployed("2026-11-23T12:00:00Z"))
        .await
        .unwrap();
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let granted = approve(&mut bob, &case).await.unwrap();
    let lasts = granted.expire_time.unwrap().seconds - granted.effective_time.unwrap().seconds;
    assert_eq!(lasts, DAY);
    world
        .admin
        .apply(&deployed("2026-11-22T11:00:00Z"))
        .await
        .unwrap();
    until(&mut bob, &case.id, "SUSPENDED").await;
    let refused = ask(&mut alice, &PLAIN).await.unwrap_err();
    says(&refused, &["agent", "deployment approval"]);
}

/// T5: what is granted is held to the rules as they are then.
#[tokio::test]
async fn rules_that_tightened_while_it_waited_hold() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let strict = "approver_groups: {control_owner: owners, risk_officer: risk}\ntier_policy_overrides: {MODERATE: {min_evidence: 2}}";
    world.admin.apply(&domain("team", strict)).await.unwrap();
    let refused = approve(&mut bob, &case).await.unwrap_err();
    says(&refused, &["evidence", "needs 2"]);
    let softer = "approver_groups: {control_owner: owners, risk_officer: risk}\ntier_policy_overrides: {MODERATE: {on_context_change: REVOKE}}";
    world.admin.apply(&domain("team", softer)).await.unwrap();
    let refused = approve(&mut bob, &case).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(look(&mut bob, &case.id).await.state, "DRAFT", "E16");
}

/// E13: who asks is somebody, and who answers for what nobody decides has asked for it.
#[tokio::test]
async fn a_second_identity_does_not_ask_for_the_first() {
    let mut world = World::start().await;
    let mut alt = world.as_who("user:bob-alt").await;
    let refused = ask(&mut alt, &PLAIN).await.unwrap_err();
    says(&refused, &["`user:bob-alt` is not an active person"]);
    world
        .admin
        .apply(&(spare("dev") + &lax("CT-A", "a")))
        .await
        .unwrap();
    let mut carol = world.as_who("user:carol").await;
    let low = Ask {
        control: "CT-A",
        action: "a",
        agent: "dev",
        environment: "dev",
        ..PLAIN
    };
    let case = ask(&mut carol, &low).await.unwrap();
    assert_eq!(
        (case.state.as_str(), case.tier.as_str()),
        ("PENDING", "MODERATE"),
        "{}",
        case.record
    );
    // Nor does whoever says that they ask for her; her own agent does.
    let hers = spare("hers").replace("principal: \"user:o\"", "principal: \"user:alice\"");
    world.admin.apply(&(hers + &spare("idle"))).await.unwrap();
    let more = format!("{}on_behalf_of: user:alice\n", PLAIN.more);
    for (who, agent, state) in [
        ("user:carol", "idle", "PENDING"),
        ("agent:dev", "idle", "PENDING"),
        ("agent:nobody", "idle", "PENDING"),
        ("agent:hers", "hers", "APPROVED"),
    ] {
        let mut asking = world.as_who(who).await;
        let wanted = Ask {
            agent,
            more: &more,
            ..low
        };
        let case = ask(&mut asking, &wanted).await.unwrap();
        assert_eq!(case.state, state, "{who}: {}", case.record);
        give_up(&mut asking, &case).await;
    }
    // One that is out of use speaks for nobody, and nobody stands in for one under its whole name.
    let shadow = spare("agent:dev").replace("principal: \"user:o\"", "principal: \"user:alice\"");
    world.admin.apply(&shadow).await.unwrap();
    let freeze = v1::FreezeRequest {
        subject: "hers".into(),
        note: String::new(),
    };
    world.admin.revocations.freeze(freeze).await.unwrap();
    for who in ["agent:hers", "agent:dev"] {
        let mut asking = world.as_who(who).await;
        let wanted = Ask {
            agent: "idle",
            more: &more,
            ..low
        };
        let case = ask(&mut asking, &wanted).await.unwrap();
        assert_eq!(case.state, "PENDING", "{who}: {}", case.record);
        give_up(&mut asking, &case).await;
    }
}

/// A6: whoever may decide may say no, also when nobody could say yes.
#[tokio::test]
async fn a_no_needs_no_terms() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        note: String::new(),
    };
    world.admin.revocations.freeze(freeze).await.unwrap();
    assert!(approve(&mut bob, &case).await.is_err());
    let denied = vote(&mut bob, &case, false).await;
    // It was shown one item of evidence, and naming another is told.
    says(&denied.unwrap_err(), &["`test` is no evidence"]);
    let no = v1::DecideRequest {
        id: case.id.clone(),
        comment: "the agent is frozen".into(),
        digest: case.digest.clone(),
        ..v1::DecideRequest::default()
    };
    let denied = bob
        .exceptions
        .decide(no)
        .await
        .unwrap()
        .into_inner()
        .case
        .unwrap();
    assert_eq!(denied.state, "DENIED");
}

/// One requester does not fill the registry.
#[tokio::test]
async fn one_requester_has_so_many_open_requests() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    for _ in 0..100 {
        ask(&mut alice, &PLAIN).await.unwrap();
    }
    let refused = ask(&mut alice, &PLAIN).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    says(&refused, &["100"]);
}

/// One member that retires does not end what its class was granted.
#[tokio::test]
async fn one_retired_member_is_not_its_class() {
    let mut world = World::start().await;
    let member = |state: &str| {
        agent("worker-1").replace(
            "lifecycle_state: ACTIVE",
            &format!("class_id: workers\nlifecycle_state: {state}"),
        )
    };
    world
        .admin
        .apply(&(agent("workers") + &member("ACTIVE")))
        .await
        .unwrap();
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let by_class = |text: String| v1::RequestExceptionRequest {
        file: files(&text.replace("{ids: [\"agent\"]}", "{class_ids: [workers]}")).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let case = alice
        .exceptions
        .request_exception(by_class(PLAIN.text()))
        .await
        .unwrap();
    let case = approve(&mut bob, &case.into_inner().case.unwrap())
        .await
        .unwrap();
    world.admin.apply(&member("RETIRED")).await.unwrap();
    // The class itself changes after: by then the sweep has seen both.
    let changed = agent("workers").replace("permitted_ids: [work]", "permitted_ids: [work, play]");
    world.admin.apply(&changed).await.unwrap();
    until(&mut bob, &case.id, "SUSPENDED").await;
    alice
        .exceptions
        .request_exception(by_class(PLAIN.text()))
        .await
        .unwrap();
}

/// R39: production and power under other names.
#[tokio::test]
async fn risk_is_seen_under_other_names() {
    let mut world = World::start().await;
    let odd = |environment: &str| {
        spare("dev").replace("environment: dev", &format!("environment: {environment}"))
    };
    world
        .admin
        .apply(&(lax("CT-A", "a") + &lax("CT-D", "deleteUser")))
        .await
        .unwrap();
    let mut alice = world.as_who("user:alice").await;
    for environment in ["PROD", "live", "prd"] {
        world.admin.apply(&odd(environment)).await.unwrap();
        let asked = Ask {
            control: "CT-A",
            action: "a",
            agent: "dev",
            environment,
            ..PLAIN
        };
        let case = ask(&mut alice, &asked).await.unwrap();
        assert_eq!(case.tier, "MODERATE", "{environment}");
    }
    world.admin.apply(&spare("dev")).await.unwrap();
    let delete = Ask {
        control: "CT-D",
        action: "deleteUser",
        agent: "dev",
        environment: "dev",
        ..PLAIN
    };
    assert_eq!(ask(&mut alice, &delete).await.unwrap().tier, "MODERATE");
    // Before anything fails a person looks at it.
    let calm = control("CT-CALM", "calm", "false").replace("severity: HIGH", "severity: LOW");
    world.admin.apply(&calm).await.unwrap();
    let more = format!("{}preemptive: true\n", PLAIN.more);
    let early = Ask {
        control: "CT-CALM",
        action: "calm",
        agent: "dev",
        environment: "dev",
        more: &more,
        ..PLAIN
    };
    let case = ask(&mut alice, &early).await.unwrap();
    assert_eq!(
        (case.state.as_str(), case.tier.as_str()),
        ("PENDING", "MODERATE")
    );
    // Unless its tier permits none (T2).
    let strict = "---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: MODERATE\npreemptive: false\n";
    world.admin.apply(strict).await.unwrap();
    let refused = ask(&mut alice, &early).await.unwrap_err();
    assert!(refused.message().contains("preemptive"), "{refused}");
}

/// Who could sit in two seats takes the one that leaves the other to others.
#[tokio::test]
async fn seats_are_filled_so_that_all_can_be() {
    let mut world = World::start().await;
    // Dave alone is a risk officer, and an owner as well.
    let both = people().replace("\"user:carol\", \"user:bob2\"", "\"user:dave\"");
    world.admin.apply(&(both + &risky("agent"))).await.unwrap();
    let (mut alice, mut dave) = (
        world.as_who("user:alice").await,
        world.as_who("user:dave").await,
    );
    let mut bob = world.as_who("user:bob").await;
    let case = ask(
        &mut alice,
        &Ask {
            more: &high(),
            ..PLAIN
        },
    )
    .await
    .unwrap();
    let one = vote(&mut dave, &case, true).await.unwrap();
    assert_eq!(one.open_seats, ["1 control_owner for team"]);
    assert_eq!(vote(&mut bob, &case, true).await.unwrap().state, "APPROVED");
}

/// Who votes after another takes a seat that is still open, whoever else could fill that.
#[tokio::test]
async fn a_seat_that_is_filled_is_not_filled_again() {
    let mut world = World::start().await;
    let both = people().replace(
        "\"user:carol\", \"user:bob2\"",
        "\"user:carol\", \"user:dave\"",
    );
    world.admin.apply(&(both + &risky("agent"))).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let (mut bob, mut dave) = (
        world.as_who("user:bob").await,
        world.as_who("user:dave").await,
    );
    let asked = Ask {
        more: &high(),
        ..PLAIN
    };
    let case = ask(&mut alice, &asked).await.unwrap();
    let one = vote(&mut bob, &case, true).await.unwrap();
    assert_eq!(one.open_seats, ["1 risk_officer for team"]);
    let both = vote(&mut dave, &case, true).await.unwrap();
    assert_eq!(both.state, "APPROVED");
}

/// What its owner closes is taken back, not merely no longer listed.
#[tokio::test]
async fn what_is_closed_is_taken_back() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    approve(&mut bob, &case).await.unwrap();
    assert_eq!(give_up(&mut alice, &case).await.state, "CLOSED");
    let all = v1::ListRevocationsRequest::default();
    let removals = alice
        .revocations
        .list_revocations(all)
        .await
        .unwrap()
        .into_inner()
        .removals;
    assert_eq!(removals[0].reason, "EXPIRED_EARLY_BY_OWNER");
}

/// A secret in a text is refused with its place and without its value.
#[tokio::test]
async fn a_secret_in_a_request_is_not_kept() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    for secret in [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "-----BEGIN PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    ] {
        let text = PLAIN
            .text()
            .replace("ticket_ref: T-7", &format!("ticket_ref: \"{secret}\""));
        let request = v1::RequestExceptionRequest {
            file: files(&text).pop(),
            ..v1::RequestExceptionRequest::default()
        };
        let refused = alice
            .exceptions
            .request_exception(request)
            .await
            .unwrap_err();
        says(
            &refused,
            &["justification.ticket_ref", "secret", "a.yaml:9"],
        );
        assert!(!refused.message().contains(secret), "{}", refused.message());
    }
}

/// Nor in anything else that is written down.
#[tokio::test]
async fn a_secret_is_kept_nowhere() {
    const SECRET: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
    let mut world = World::start().await;
    let named =
        governed::domain("lab").replace("display_name: lab", &format!("display_name: {SECRET}"));
    let refused = world.admin.apply(&named).await.unwrap_err();
    says(
        &refused,
        &["display_name", "looks like a secret", "a.yaml:5"],
    );
    assert!(!refused.message().contains(SECRET), "{}", refused.message());
    let mut alice = world.as_who("user:alice").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let mut bob = world.as_who("user:bob").await;
    let decide = v1::DecideRequest {
        id: case.id.clone(),
        approve: true,
        comment: format!("looked with {SECRET}"),
        digest: case.digest.clone(),
        reviewed_evidence: Vec::new(),
    };
    let refused = bob.exceptions.decide(decide).await.unwrap_err();
    says(&refused, &["comment", "looks like a secret"]);
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        note: SECRET.into(),
    };
    let refused = world.admin.revocations.freeze(freeze).await.unwrap_err();
    says(&refused, &["note", "looks like a secret"]);
    let open = v1::OpenIncidentRequest {
        id: "INC-1".into(),
        domain: "team".into(),
        title: SECRET.into(),
    };
    let refused = world.admin.incidents.open_incident(open).await.unwrap_err();
    says(&refused, &["title", "looks like a secret"]);
}

#[tokio::test]
async fn what_is_taken_away_and_made_anew_is_still_an_administrators() {
    let mut world = World::start().await;
    world.admin.apply(&agent("moved")).await.unwrap();
    let token = world
        .admin
        .let_in("user:author", v1::Role::Author, &[])
        .await;
    let mut author = world.registry.client_with(&token).await;
    let moved = agent("moved").replace("domain: team", "domain: other");
    world.admin.apply(&governed::domain("other")).await.unwrap();
    let status = author.apply(&moved).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let without = v1::ApplyRequest {
        files: files(&agent("agent")),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    author.objects.apply(without).await.unwrap();
    let status = author.apply(&moved).await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::PermissionDenied,
        "{}",
        status.message()
    );
    author.apply(&agent("never-there")).await.unwrap();
}

#[tokio::test]
async fn nobody_applies_an_override() {
    let mut world = World::start().await;
    let override_ = governed::exception("EX-9", "CT-RISKY", "agent")
        .replace("tier: LOW", "tier: INCIDENT")
        .replace("WAIVER", "INCIDENT_OVERRIDE")
        + "incident_ref: INC-9\n";
    for text in [
        override_.clone(),
        override_.replace("tier: INCIDENT", "tier: LOW"),
        override_.replace("INCIDENT_OVERRIDE", "WAIVER"),
    ] {
        let status = world.admin.apply(&text).await.unwrap_err();
        assert!(
            status
                .message()
                .contains("is an override during an incident"),
            "{}",
            status.message()
        );
    }
}
