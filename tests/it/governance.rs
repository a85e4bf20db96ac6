//! Request, approve, use, revalidate, revoke: through the registry's services, with a sidecar that
//! follows it.

use crate::support::cases::{
    Ask, DAY, EXCEPTED, PLAIN, World, agent, approve, ask, lax, look, people, spare, until,
};
use crate::support::governed::{
    Client, Registry, Sidecar, control, exception, files, noon, seconds, subject,
};
use exeat::{domain::Timestamp, runtime::clock::Clock, wire::v1};
use tonic::Code;

#[tokio::test]
async fn an_exception_is_requested_decided_used_looked_at_again_and_ends() {
    let mut world = World::start().await;
    let sidecar = world.sidecar().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    sidecar.until("agent", "risky", "CONTROL_FAILED").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    assert_eq!(
        (case.state.as_str(), case.tier.as_str()),
        ("PENDING", "MODERATE"),
        "E14"
    );
    assert_eq!(case.open_seats, ["1 control_owner for team"]);
    assert!(
        sidecar
            .outcome("agent", "risky")
            .await
            .contains("CONTROL_FAILED")
    );

    // Who asked does not decide, nor the same person under another identity (A1).
    let mut alias = world.as_who("user:alice2").await;
    for who in [&mut alice, &mut alias] {
        let refused = approve(who, &case).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(
            refused.message().contains("does not decide"),
            "{}",
            refused.message()
        );
    }
    // Nor who is of another group, or gone (A3).
    for (who, why) in [
        ("user:carol", "is not control_owner"),
        // They are not even let in.
        ("user:left", "no active person"),
    ] {
        let mut who = world.as_who(who).await;
        let refused = approve(&mut who, &case).await.unwrap_err();
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    let waiting = v1::ListCasesRequest {
        waiting_for_me: true,
        ..v1::ListCasesRequest::default()
    };
    let listed = bob
        .exceptions
        .list_cases(waiting.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.cases.len(), 1);
    assert!(
        alice
            .exceptions
            .list_cases(waiting)
            .await
            .unwrap()
            .into_inner()
            .cases
            .is_empty()
    );

    let seen = look(&mut bob, &case.id).await;
    let granted = approve(&mut bob, &seen).await.unwrap();
    assert_eq!(granted.state, "APPROVED");
    // A sidecar is not sure of the time to the instant.
    world.clock.advance(seconds(1));
    sidecar.until("agent", "risky", EXCEPTED).await;

    // A requested exception is nobody's to apply, nor to prune.
    let copy = exception(&case.id, "CT-RISKY", "agent");
    let refused = world.admin.apply(&copy).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "R28: {refused:?}");
    world.admin.apply(&agent("elsewhere")).await.unwrap();
    let other = exception("EX-OTHER", "CT-RISKY", "elsewhere");
    let prune = v1::ApplyRequest {
        files: files(&other),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    world.admin.objects.apply(prune).await.unwrap();
    world.admin.revoke("EX-OTHER").await.unwrap();
    sidecar.until("agent", "risky", EXCEPTED).await;

    // What it was bound to changes: it waits until somebody looks at it again, and is bound anew.
    let changed = agent("agent").replace("permitted_ids: [work]", "permitted_ids: [work, play]");
    world.admin.apply(&changed).await.unwrap();
    let waits = until(&mut bob, &case.id, "SUSPENDED").await;
    assert!(
        waits.reason.contains("facet purpose of agent has changed"),
        "{}",
        waits.reason
    );
    sidecar.until("agent", "risky", "CONTROL_FAILED").await;
    let refused = approve(&mut bob, &seen).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "A5: {refused:?}");
    let again = approve(&mut bob, &waits).await.unwrap();
    assert_eq!(
        (again.state.as_str(), again.expire_time),
        ("APPROVED", granted.expire_time),
        "E10"
    );
    sidecar.until("agent", "risky", EXCEPTED).await;

    // Its end is enforced by the decision; the registry only records it.
    world.clock.advance(seconds(2 * DAY));
    let said = sidecar.outcome("agent", "risky").await;
    assert!(!said.contains(EXCEPTED), "{said}");
    until(&mut bob, &case.id, "EXPIRED").await;
    let refused = approve(&mut bob, &again).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    // For a month it says why it is not honoured; then it is sent to nobody, and its case stays.
    assert!(
        sidecar
            .outcome("agent", "risky")
            .await
            .contains("EXC_EXPIRED")
    );
    world.clock.advance(seconds(31 * DAY));
    sidecar
        .until_exactly("agent", "risky", "DENY CONTROL_FAILED")
        .await;
    assert_eq!(look(&mut bob, &case.id).await.state, "EXPIRED");
}

#[tokio::test]
async fn high_needs_two_persons_in_two_roles_who_saw_the_evidence() {
    let mut world = World::start().await;
    let risky = agent("agent").replace("risk_tier: LOW", "risk_tier: HIGH");
    world.admin.apply(&risky).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let refused = ask(&mut alice, &PLAIN).await.unwrap_err();
    assert!(
        refused.message().contains("evidence"),
        "E15: {}",
        refused.message()
    );
    let two = Ask {
        more: "usage_limits: {max_uses: 10}\nevidence:\n- {evidence_id: scan, digest: \"sha256:5ca0\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}\n- {evidence_id: test, digest: \"sha256:7e57\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}\n",
        ..PLAIN
    };
    let case = ask(&mut alice, &two).await.unwrap();
    assert_eq!(case.tier, "HIGH");
    assert_eq!(
        case.open_seats,
        ["1 control_owner for team", "1 risk_officer for team"]
    );
    let mut bob = world.as_who("user:bob").await;
    let unseen = v1::DecideRequest {
        id: case.id.clone(),
        approve: true,
        comment: "looked at all of it".into(),
        digest: case.digest.clone(),
        ..v1::DecideRequest::default()
    };
    let refused = bob.exceptions.decide(unseen).await.unwrap_err();
    assert!(
        refused.message().contains("`scan` was not reviewed"),
        "A4: {}",
        refused.message()
    );
    let one = approve(&mut bob, &case).await.unwrap();
    assert_eq!((one.state.as_str(), one.open_seats.len()), ("PENDING", 1));
    // The seat is filled, and who may fill it may still say no.
    let mut dave = world.as_who("user:dave").await;
    let no = v1::DecideRequest {
        id: case.id.clone(),
        comment: "the test is of another build".into(),
        digest: case.digest.clone(),
        ..v1::DecideRequest::default()
    };
    let second = ask(&mut alice, &two).await.unwrap();
    approve(&mut bob, &second).await.unwrap();
    let no = v1::DecideRequest {
        id: second.id.clone(),
        digest: second.digest.clone(),
        ..no
    };
    let denied = dave
        .exceptions
        .decide(no)
        .await
        .unwrap()
        .into_inner()
        .case
        .unwrap();
    assert_eq!(denied.state, "DENIED", "A6");
    // The other role, and still the same person (A2).
    let mut bob2 = world.as_who("user:bob2").await;
    let refused = approve(&mut bob2, &case).await.unwrap_err();
    assert!(
        refused.message().contains("one person counts once"),
        "{}",
        refused.message()
    );
    let mut carol = world.as_who("user:carol").await;
    // The first one leaves before the second decides: nobody is counted who may not (A3).
    let left =
        "apiVersion: exeat/v1\nkind: Person\nid: user:bob\nperson_id: p-bob\nactive: false\n";
    world.admin.apply(left).await.unwrap();
    let still = approve(&mut carol, &case).await.unwrap();
    assert_eq!(
        (still.state.as_str(), still.open_seats.as_slice()),
        ("PENDING", &["1 control_owner for team".to_owned()][..])
    );
}

#[tokio::test]
async fn what_may_not_be_granted_is_refused_with_its_field() {
    let mut world = World::start().await;
    let hard = control("CT-HARD", "hard", "true").replace("SOFT_MANDATORY", "HARD_MANDATORY");
    let alone = subject("alone", None);
    world.admin.apply(&(hard + &alone)).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    for (asked, field, why) in [
        (
            Ask {
                control: "CT-HARD",
                action: "hard",
                ..PLAIN
            },
            "control_ids[0]",
            "cannot be waived",
        ),
        (
            Ask {
                control: "CT-PLAIN",
                action: "plain",
                ..PLAIN
            },
            "control_ids",
            "does not fail for anybody",
        ),
        (
            Ask {
                control: "CT-NONE",
                ..PLAIN
            },
            "control_ids[0]",
            "there is no control",
        ),
        (
            Ask {
                agent: "nobody",
                ..PLAIN
            },
            "scope.subject_selector.ids",
            "there is no subject",
        ),
        (
            Ask {
                hours: 24 * 31,
                ..PLAIN
            },
            "window.duration",
            "is more than",
        ),
        (Ask { more: "", ..PLAIN }, "evidence", "needs 1"),
        (
            Ask {
                control: "CT-RISKY, CT-RISKY",
                ..PLAIN
            },
            "control_ids[1]",
            "once more",
        ),
        (
            Ask {
                more: "renews: EX-999\n",
                ..PLAIN
            },
            "renews",
            "nobody asked for here",
        ),
        // Nobody but the control's owner may decide about it, who owns the subject: fine for
        // MODERATE; of no domain nobody else is left.
        (
            Ask {
                agent: "alone",
                more: "owner_is: x\n",
                ..PLAIN
            },
            "owner_is",
            "unknown field",
        ),
    ] {
        let refused = ask(&mut alice, &asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let told = refused.message();
        assert!(
            told.contains(field) && told.contains(why),
            "{field}: {told}"
        );
    }
    // Who decides is not an author's to say.
    let token = world
        .admin
        .let_in("user:writer", v1::Role::Author, &[])
        .await;
    let mut writer = world.registry.client_with(&token).await;
    let packed = people().replace("\"user:carol\"", "\"user:writer\"");
    let refused = writer.apply(&packed).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    // An agent asks for somebody, and only for somebody who is there.
    let mut asker = world.as_who("agent:asker").await;
    let refused = ask(&mut asker, &PLAIN).await.unwrap_err();
    assert!(
        refused.message().contains("on_behalf_of"),
        "{}",
        refused.message()
    );
    let more = format!("{}on_behalf_of: user:left\n", PLAIN.more);
    let refused = ask(
        &mut asker,
        &Ask {
            more: &more,
            ..PLAIN
        },
    )
    .await
    .unwrap_err();
    assert!(
        refused
            .message()
            .contains("`user:left` is not an active person"),
        "E13: {}",
        refused.message()
    );
    let more = format!("{}on_behalf_of: user:bob\n", PLAIN.more);
    let refused = ask(
        &mut asker,
        &Ask {
            more: &more,
            ..PLAIN
        },
    )
    .await;
    // Bob stands behind it, so he does not decide about it.
    let case = refused.unwrap();
    let mut bob = world.as_who("user:bob").await;
    let refused = approve(&mut bob, &case).await.unwrap_err();
    assert!(
        refused.message().contains("does not decide"),
        "A1: {}",
        refused.message()
    );
    // A dry run says as much and leaves nothing behind.
    let request = v1::RequestExceptionRequest {
        file: files(&PLAIN.text()).pop(),
        dry_run: true,
        ..v1::RequestExceptionRequest::default()
    };
    let answer = alice.exceptions.request_exception(request).await.unwrap();
    assert_eq!(answer.into_inner().case.unwrap().state, "PENDING");
    let all = v1::ListCasesRequest::default();
    let listed = alice.exceptions.list_cases(all).await.unwrap();
    assert_eq!(listed.into_inner().cases.len(), 1, "the agent's alone");
    let quorum = "apiVersion: exeat/v1\nkind: TierPolicy\ntier: MODERATE\napproval_stages: [{role: control_owner, quorum: 0}]\n";
    let refused = world.admin.apply(quorum).await.unwrap_err();
    assert!(
        refused.message().contains("quorum") && refused.message().contains("is 0"),
        "{}",
        refused.message()
    );
    let nobody = "apiVersion: exeat/v1\nkind: TierPolicy\ntier: HIGH\napproval_stages: [{role: control_owner, quorum: 2}]\n";
    let refused = world.admin.apply(nobody).await.unwrap_err();
    assert!(
        refused.message().contains("approval_stages"),
        "only tightens: {}",
        refused.message()
    );
}

#[tokio::test]
async fn low_is_automatic_within_a_budget_and_never_in_production() {
    let mut world = World::start().await;
    let text = spare("dev") + &lax("CT-A", "a") + &lax("CT-B", "b") + &lax("CT-C", "c");
    world.admin.apply(&text).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let low = |control, action| Ask {
        control,
        action,
        agent: "dev",
        environment: "dev",
        ..PLAIN
    };
    let mut first = String::new();
    for (control, action) in [("CT-A", "a"), ("CT-B", "b")] {
        let case = ask(&mut alice, &low(control, action)).await.unwrap();
        assert_eq!(
            (case.state.as_str(), case.tier.as_str()),
            ("APPROVED", "LOW")
        );
        first = case.id;
    }
    // Whom nobody asked nobody asks again: it is taken back, or it goes on.
    let automatic = v1::SuspendRequest {
        id: first,
        reason: "look at it".into(),
    };
    let refused = world.admin.exceptions.suspend(automatic).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("exeat exception revoke"),
        "{}",
        refused.message()
    );
    // The third of one subject needs a person.
    let third = ask(&mut alice, &low("CT-C", "c")).await.unwrap();
    assert_eq!(
        (third.state.as_str(), third.tier.as_str()),
        ("PENDING", "MODERATE")
    );
    assert!(third.record.contains("auto_budget"));
    // Its scope may not name production either.
    let prod = Ask {
        environment: "prod",
        ..low("CT-C", "c")
    };
    let refused = ask(&mut alice, &prod).await.map(|case| case.tier);
    assert_eq!(refused.unwrap(), "MODERATE");
}

/// The budget of an owner holds for the person, under any identity; that of a control for what was
/// granted, also where it was taken back.
#[tokio::test]
async fn the_budgets_of_an_owner_and_of_a_control_hold() {
    for (budget, by, taken_back) in [
        (
            "{per_owner: 1, per_subject: 2, per_control: 20}",
            "user:alice2",
            false,
        ),
        (
            "{per_owner: 10, per_subject: 2, per_control: 1}",
            "user:alice",
            true,
        ),
    ] {
        let mut world = World::start().await;
        let groups = "approver_groups: {control_owner: owners, risk_officer: risk}\n";
        let tighter =
            format!("{groups}tier_policy_overrides: {{LOW: {{auto_budget: {budget}}}}}\n");
        let text = people().replace(groups, &tighter)
            + &spare("dev")
            + &spare("dev2")
            + &lax("CT-A", "a")
            + &lax("CT-B", "b");
        world.admin.apply(&text).await.unwrap();
        let mut alice = world.as_who("user:alice").await;
        let low = |control, action, agent| Ask {
            control,
            action,
            agent,
            environment: "dev",
            ..PLAIN
        };
        let first = ask(&mut alice, &low("CT-A", "a", "dev")).await.unwrap();
        assert_eq!(first.state, "APPROVED", "{budget}");
        if taken_back {
            world.admin.revoke(&first.id).await.unwrap();
        }
        // Under the same name a new token takes the place of the one before.
        let mut other = world.as_who(by).await;
        // Of another subject; from the same control only where that is what counts.
        let (control, action) = if taken_back {
            ("CT-A", "a")
        } else {
            ("CT-B", "b")
        };
        let asked = low(control, action, "dev2").text();
        let request = v1::RequestExceptionRequest {
            file: files(&asked.replace("owner: user:alice", &format!("owner: {by}"))).pop(),
            ..v1::RequestExceptionRequest::default()
        };
        let second = other.exceptions.request_exception(request).await.unwrap();
        let second = second.into_inner().case.unwrap();
        assert_eq!(
            (second.state.as_str(), second.tier.as_str()),
            ("PENDING", "MODERATE"),
            "{budget}"
        );
        assert!(second.record.contains("auto_budget"), "{budget}");
        // Another control is another budget.
        if taken_back {
            let free = ask(&mut other, &low("CT-B", "b", "dev")).await.unwrap();
            assert_eq!(free.state, "APPROVED");
        }
    }
}

/// R35: asking anew does not begin anew.
#[tokio::test]
async fn coverage_is_counted_over_all_exceptions_of_a_year() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let month = Ask {
        hours: 24 * 30,
        ..PLAIN
    };
    let (mut tiers, mut last) = (Vec::new(), None);
    for round in 0..8 {
        // Metadata stays fresh.
        let day = format!("2026-11-22T11:{round:02}:30Z");
        world
            .admin
            .apply(&agent("agent").replace("2026-11-22T11:59:00Z", &day))
            .await
            .unwrap();
        match ask(&mut alice, &month).await {
            Ok(case) if case.tier == "MODERATE" => {
                tiers.push(case.tier.clone());
                let granted = approve(&mut bob, &case).await.unwrap();
                assert_eq!(granted.state, "APPROVED");
                world.clock.advance(seconds(30 * DAY));
                until(&mut bob, &case.id, "EXPIRED").await;
            }
            Ok(case) => panic!("{}", case.record),
            Err(refused) => {
                last = Some(refused);
                break;
            }
        }
    }
    // Two renewals at MODERATE; the third would be HIGH, which permits no window of a month.
    assert_eq!(tiers.len(), 2, "{last:?}");
    let told = last.unwrap();
    assert!(told.message().contains("tier HIGH"), "{}", told.message());
}

#[tokio::test]
async fn what_waits_lapses_is_withdrawn_or_amended_and_survives_a_restart() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let first = ask(&mut alice, &PLAIN).await.unwrap();
    // What it is bound to changes before anybody decides: it is a draft again (T4).
    let changed = agent("agent").replace("permitted_ids: [work]", "permitted_ids: [work, play]");
    world.admin.apply(&changed).await.unwrap();
    until(&mut alice, &first.id, "DRAFT").await;
    let refused = approve(&mut bob, &first).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let again = v1::RequestExceptionRequest {
        id: first.id.clone(),
        ..v1::RequestExceptionRequest::default()
    };
    let refused = bob
        .exceptions
        .request_exception(again.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let amended = alice
        .exceptions
        .request_exception(again)
        .await
        .unwrap()
        .into_inner()
        .case
        .unwrap();
    assert_eq!(
        (amended.id.as_str(), amended.state.as_str()),
        (first.id.as_str(), "PENDING")
    );
    assert_ne!(amended.digest, first.digest);

    let give_up = |id: &str| v1::GiveUpRequest {
        id: id.into(),
        reason: String::new(),
    };
    let refused = bob
        .exceptions
        .give_up(give_up(&first.id))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let second = ask(&mut alice, &PLAIN).await.unwrap();
    let withdrawn = alice.exceptions.give_up(give_up(&second.id)).await.unwrap();
    assert_eq!(withdrawn.into_inner().case.unwrap().state, "WITHDRAWN");
    // Also a draft, which nothing else ends.
    world.admin.apply(&agent("spare")).await.unwrap();
    let spare = Ask {
        agent: "spare",
        ..PLAIN
    };
    let third = ask(&mut alice, &spare).await.unwrap();
    let retired = agent("spare").replace("ACTIVE", "RETIRED");
    world.admin.apply(&retired).await.unwrap();
    until(&mut alice, &third.id, "DRAFT").await;
    let mut gone = give_up(&third.id);
    gone.reason = "there is no such agent any more".into();
    let withdrawn = alice.exceptions.give_up(gone).await.unwrap();
    assert_eq!(withdrawn.into_inner().case.unwrap().state, "WITHDRAWN");

    world.registry.process.stop().await;
    let listen = world.registry.address.clone();
    let folder = world.scratch.path().join("r");
    world.registry = Registry::start_at(&folder, world.clock.clone(), &listen, &[])
        .await
        .unwrap();
    world.admin = world.registry.client().await;
    let mut bob = world.as_who("user:bob").await;
    assert_eq!(look(&mut bob, &first.id).await.record, amended.record);
    world.clock.advance(seconds(3 * DAY));
    let lapsed = until(&mut bob, &first.id, "LAPSED").await;
    assert_eq!(lapsed.reason, "not decided in time");
    let refused = approve(&mut bob, &amended).await.unwrap_err();
    assert!(
        refused.message().contains("LAPSED"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn one_takes_back_what_many_granted_and_so_does_the_system() {
    let mut world = World::start().await;
    let sidecar = world.sidecar().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let granted = async |alice: &mut Client, bob: &mut Client| {
        let case = ask(alice, &PLAIN).await.unwrap();
        approve(bob, &case).await.unwrap()
    };
    let case = granted(&mut alice, &mut bob).await;
    world.clock.advance(seconds(1));
    sidecar.until("agent", "risky", EXCEPTED).await;
    alice.revoke(&case.id).await.unwrap();
    assert_eq!(
        look(&mut bob, &case.id).await.state,
        "REVOKED",
        "in the same transaction"
    );
    sidecar.until("agent", "risky", "EXC_REVOKED").await;

    // The owner leaves: it waits; the subject retires: it is over, by a removal of the system's.
    let case = granted(&mut alice, &mut bob).await;
    world.clock.advance(seconds(1));
    sidecar.until("agent", "risky", EXCEPTED).await;
    let left =
        "apiVersion: exeat/v1\nkind: Person\nid: user:alice\nperson_id: p-alice\nactive: false\n";
    world.admin.apply(left).await.unwrap();
    let waits = until(&mut bob, &case.id, "SUSPENDED").await;
    assert!(
        waits.reason.contains("owner user:alice is not active"),
        "{}",
        waits.reason
    );
    let retired = agent("agent").replace("lifecycle_state: ACTIVE", "lifecycle_state: RETIRED");
    world.admin.apply(&retired).await.unwrap();
    let over = until(&mut bob, &case.id, "REVOKED").await;
    assert!(over.reason.contains("agent is retired"), "{}", over.reason);
    let removals = world
        .admin
        .revocations
        .list_revocations(v1::ListRevocationsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .removals;
    assert_eq!(removals[0].initiator, "service:registry");
}

/// R15: an owner is confirmed every ninety days, or what they own waits.
#[tokio::test]
async fn r15_an_owner_who_was_not_attested_lately_owns_nothing() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let attested = |time: Timestamp| {
        format!(
            "apiVersion: exeat/v1\nkind: Person\nid: user:alice\nperson_id: p-alice\nattest_time: \"{time}\"\n"
        )
    };
    let at = noon() + seconds(-89 * DAY);
    world.admin.apply(&attested(at)).await.unwrap();
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    approve(&mut bob, &case).await.unwrap();
    world.admin.apply(&agent("other")).await.unwrap();
    let short = Ask {
        agent: "other",
        hours: 12,
        ..PLAIN
    };
    let short = ask(&mut alice, &short).await.unwrap();
    approve(&mut bob, &short).await.unwrap();
    world.clock.advance(seconds(DAY - 1));
    // The sweep has been there by now, and nothing changes after that: by the clock alone.
    until(&mut bob, &short.id, "EXPIRED").await;
    assert_eq!(look(&mut bob, &case.id).await.state, "APPROVED");
    world.clock.advance(seconds(1));
    let waits = until(&mut bob, &case.id, "SUSPENDED").await;
    let why = "owner user:alice was not attested within 90 days";
    assert!(waits.reason.contains(why), "{}", waits.reason);
    let refused = ask(&mut alice, &PLAIN).await.unwrap_err();
    assert!(refused.message().contains("`owner`"), "{refused:?}");
    // What is confirmed only next year is not yet.
    let ahead = attested(at + seconds(400 * DAY));
    world.admin.apply(&ahead).await.unwrap();
    let refused = ask(&mut alice, &PLAIN).await.unwrap_err();
    assert!(refused.message().contains("`owner`"), "{refused:?}");
    let anew = attested(at + seconds(90 * DAY));
    world.admin.apply(&anew).await.unwrap();
    let again = look(&mut bob, &case.id).await;
    assert_eq!(approve(&mut bob, &again).await.unwrap().state, "APPROVED");
}

/// R14: no timer ends an exception. The registry's clock stands, so that nobody there ever notes the
/// end; the sidecar's goes on.
#[tokio::test]
async fn r14_an_end_is_an_end_where_no_timer_runs() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let short = PLAIN.text().replace("duration: 48h", "duration: 60s");
    let request = v1::RequestExceptionRequest {
        file: files(&short).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = alice.exceptions.request_exception(request).await.unwrap();
    let case = answer.into_inner().case.unwrap();
    approve(&mut bob, &case).await.unwrap();
    let token = world.admin.let_in("service:s1", v1::Role::Sidecar, &["*"]);
    let token = token.await;
    // It has begun, for whoever is not sure of the microsecond.
    world.clock.advance(seconds(5));
    let clock = Clock::manual(noon() + seconds(5));
    let sidecar = Sidecar::start(
        &world.scratch.path().join("s"),
        &world.registry.address,
        &world.registry.key,
        &token,
        clock.clone(),
    )
    .await
    .unwrap();
    sidecar.until("agent", "risky", EXCEPTED).await;
    clock.advance(seconds(53));
    assert_eq!(
        sidecar.outcome("agent", "risky").await,
        "ALLOW_BY_EXCEPTION OK"
    );
    clock.advance(seconds(4));
    let over = "DENY CONTROL_FAILED EXC_EXPIRED";
    assert_eq!(sidecar.outcome("agent", "risky").await, over);
    assert_eq!(look(&mut bob, &case.id).await.state, "APPROVED");
}

/// M2, M3: a domain may only tighten, and each domain that a scope reaches into has its say.
#[tokio::test]
async fn domains_tighten_and_each_has_its_say() {
    let mut world = World::start().await;
    let loose = |field: &str| {
        format!(
            "apiVersion: exeat/v1\nkind: Domain\nid: inner\nparent: team\ndisplay_name: Inner\nowner: user:o\ntier_policy_overrides: {{MODERATE: {{{field}}}}}\n"
        )
    };
    for field in [
        "max_duration: 31d",
        "max_renewals: 3",
        "approval_stages: [{role: control_owner, quorum: 0}]",
    ] {
        let refused = world.admin.apply(&loose(field)).await.unwrap_err();
        let name = field.split(':').next().unwrap();
        assert!(
            refused.message().contains("tier_policy_overrides.MODERATE"),
            "{}",
            refused.message()
        );
        assert!(
            refused.message().contains(name) || refused.message().contains("quorum"),
            "{}",
            refused.message()
        );
    }
    let other = "---\napiVersion: exeat/v1\nkind: Domain\nid: other\ndisplay_name: Other\nowner: user:o\napprover_groups: {control_owner: risk}\n";
    let strict = loose("max_duration: 24h, approval_stages: [{role: risk_officer, quorum: 1}]");
    let two = format!(
        "{strict}{other}{}{}",
        subject("deep", Some("inner")),
        subject("far", Some("other"))
    );
    world.admin.apply(&two).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let deep = Ask {
        agent: "deep",
        ..PLAIN
    };
    let refused = ask(&mut alice, &deep).await.unwrap_err();
    assert!(
        refused.message().contains("window.duration"),
        "{}",
        refused.message()
    );
    let case = ask(&mut alice, &Ask { hours: 24, ..deep }).await.unwrap();
    // R39: by which policies, as they were.
    let policies = "\"policies\":[{\"id\":\"inner\",\"kind\":\"Domain\",\"revision\":1},{\"id\":\"team\",\"kind\":\"Domain\",\"revision\":1}]";
    assert!(case.record.contains(policies), "{}", case.record);
    // A word of the domain's own, and what is said once more (R25, R33).
    let word = "---\napiVersion: exeat/v1\nkind: Domain\nid: far-off\nparent: other\ndisplay_name: F\nowner: user:o\nvocabulary: {dispensation: WAIVER}\n";
    world
        .admin
        .apply(&format!("{word}{}", subject("off", Some("far-off"))))
        .await
        .unwrap();
    let said = |word: &str| {
        let text = Ask {
            agent: "off",
            ..PLAIN
        }
        .text();
        v1::RequestExceptionRequest {
            file: files(&text.replace("deviation_type: WAIVER", &format!("local_term: {word}")))
                .pop(),
            ..v1::RequestExceptionRequest::default()
        }
    };
    let local = alice
        .exceptions
        .request_exception(said("Dispensation"))
        .await
        .unwrap();
    let local = local.into_inner().case.unwrap();
    assert!(
        local.record.contains("\"deviation_type\":\"WAIVER\""),
        "{}",
        local.record
    );
    let word_for_word = format!("justified word for word as {}", case.id);
    assert_eq!(local.notes, [word_for_word]);
    let refused = alice
        .exceptions
        .request_exception(said("indulgence"))
        .await
        .unwrap_err();
    assert!(
        refused.message().contains("`indulgence` is no word"),
        "{}",
        refused.message()
    );
    // Whom the parent names decides below as well.
    assert_eq!(
        case.open_seats,
        ["1 control_owner for inner", "1 risk_officer for inner"]
    );
    let both = Ask {
        agent: "agent\", \"far",
        ..PLAIN
    };
    let case = ask(&mut alice, &both).await.unwrap();
    assert_eq!(
        case.open_seats,
        ["1 control_owner for other", "1 control_owner for team"]
    );
    let mut bob = world.as_who("user:bob").await;
    let one = approve(&mut bob, &case).await.unwrap();
    assert_eq!(one.state, "PENDING");
}

/// R35: what was asked for before counts, under whatever id, and the nth renewal escalates.
#[tokio::test]
async fn a_year_has_so_many_days_and_a_tier_so_many_renewals() {
    let mut world = World::start().await;
    let policy = |tier: &str, field: &str| {
        format!("---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: {tier}\n{field}\n")
    };
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let once = policy("MODERATE", "max_renewals: 0");
    world.admin.apply(&once).await.unwrap();
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    approve(&mut bob, &case).await.unwrap();
    alice.revoke(&case.id).await.unwrap();
    let refused = ask(&mut alice, &PLAIN).await.unwrap_err();
    assert!(
        refused.message().contains("tier HIGH"),
        "{}",
        refused.message()
    );

    let week =
        policy("MODERATE", "max_coverage_percent: 1") + &policy("HIGH", "max_coverage_percent: 1");
    world.admin.apply(&(week + &agent("new"))).await.unwrap();
    let high = |window: &str| {
        let more = "usage_limits: {max_uses: 10}\nevidence:\n- {evidence_id: scan, digest: \"sha256:5ca0\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}\n- {evidence_id: test, digest: \"sha256:7e57\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}\n";
        let text = Ask {
            agent: "new",
            more,
            ..PLAIN
        }
        .text();
        v1::RequestExceptionRequest {
            file: files(&text.replace("window: {duration: 48h}", &format!("window: {{{window}}}")))
                .pop(),
            ..v1::RequestExceptionRequest::default()
        }
    };
    let far = alice
        .exceptions
        .request_exception(high("duration: 120h"))
        .await
        .unwrap_err();
    assert!(far.message().contains("2% of a year"), "{}", far.message());
    let first = alice
        .exceptions
        .request_exception(high("duration: 48h"))
        .await
        .unwrap();
    assert_eq!(first.into_inner().case.unwrap().state, "PENDING");
    let later = high("start_time: \"2026-11-26T12:00:00Z\", duration: 48h");
    let refused = alice.exceptions.request_exception(later).await.unwrap_err();
    assert!(
        refused.message().contains("2% of a year"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn r38_what_a_change_takes_the_ground_from_ends_in_the_same_transaction() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let mut granted = Vec::new();
    for name in ["first", "second", "third", "fourth"] {
        world.admin.apply(&agent(name)).await.unwrap();
        let wanted = Ask {
            agent: name,
            ..PLAIN
        };
        let case = ask(&mut alice, &wanted).await.unwrap();
        granted.push(approve(&mut bob, &case).await.unwrap());
    }
    // One retires, one changes its purpose, nothing happens to the third, and for the fourth somebody
    // else answers; all in one apply.
    let retired = agent("first").replace("lifecycle_state: ACTIVE", "lifecycle_state: RETIRED");
    let changed = agent("second").replace("permitted_ids: [work]", "permitted_ids: [work, play]");
    let handed_over = agent("fourth").replace("principal: \"user:o\"", "principal: \"user:bob\"");
    let done = world
        .admin
        .apply(&(retired + &changed + &agent("third") + &handed_over))
        .await
        .unwrap();
    let states = ["REVOKED", "SUSPENDED", "APPROVED", "SUSPENDED"];
    for (case, state) in granted.iter().zip(states) {
        assert_eq!(look(&mut bob, &case.id).await.state, state);
        let request = v1::GetObjectRequest {
            kind: v1::ObjectKind::Exception.into(),
            id: case.id.clone(),
        };
        let stored = bob.objects.get_object(request).await.unwrap();
        let stored = stored.into_inner().object.unwrap();
        assert_eq!(stored.log_revision == done.revision, state != "APPROVED");
        assert!(stored.manifest.contains(state));
    }
    let list = v1::ListRevocationsRequest::default();
    let removals = bob.revocations.list_revocations(list).await.unwrap();
    assert_eq!(removals.into_inner().removals.len(), 1, "pushed at once");
    // Whoever decides now knows for whom.
    let fourth = look(&mut bob, &granted[3].id).await;
    assert_eq!(
        fourth.reason,
        "user:bob answers for fourth, and user:o did when this was approved"
    );
    world.clock.advance(seconds(1));
    let again = approve(&mut bob, &fourth).await.unwrap();
    assert_eq!(again.state, "APPROVED");
}

/// R38, T4: a control that decides by something else has what was granted from it looked at again; one
/// that is only told otherwise does not, and what is still to be decided is seen anew either way.
#[tokio::test]
async fn r38_only_what_a_control_decides_by_moves_what_was_granted() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let granted = approve(&mut bob, &case).await.unwrap();
    world.admin.apply(&agent("second")).await.unwrap();
    let second = Ask {
        agent: "second",
        ..PLAIN
    };
    let waits = ask(&mut alice, &second).await.unwrap();
    let risky = control("CT-RISKY", "risky", "true");
    let told = risky.replace("title: CT-RISKY", "title: risky\nremediation: ask first");
    // Nor does a gate that fails for it hide that it is to be seen anew.
    let gate = control("CT-GATE", "risky", "subject.id == 'second'")
        .replace("SOFT_MANDATORY", "HARD_MANDATORY\nbaseline_gate: true");
    world.admin.apply(&gate).await.unwrap();
    assert_eq!(look(&mut bob, &waits.id).await.state, "PENDING");
    world.admin.apply(&told).await.unwrap();
    assert_eq!(look(&mut bob, &granted.id).await.state, "APPROVED");
    assert_eq!(look(&mut bob, &waits.id).await.state, "DRAFT");
    // What it was granted by is kept.
    world.registry.process.stop().await;
    let data = world.scratch.path().join("r");
    world.registry = Registry::start(&data, world.clock.clone()).await;
    world.admin = world.registry.client().await;
    let told = told.replace("ask first", "ask us first");
    world.admin.apply(&told).await.unwrap();
    assert_eq!(look(&mut world.admin, &granted.id).await.state, "APPROVED");
    let schedule =
        "evaluation_modes: [RUNTIME, SCHEDULED]\nschedule: {cron: \"0 6 * * *\", time_zone: UTC}\n";
    world.admin.apply(&(told.clone() + schedule)).await.unwrap();
    assert_eq!(look(&mut world.admin, &granted.id).await.state, "APPROVED");
    let told = told + schedule;
    let graver = told.replace("severity: HIGH", "severity: CRITICAL");
    world.admin.apply(&graver).await.unwrap();
    let moved = look(&mut world.admin, &granted.id).await;
    assert_eq!(moved.state, "SUSPENDED");
    assert_eq!(moved.reason, "control CT-RISKY has changed");
}

/// R38: what is revoked takes along what rests on it in the same transaction; what ends it ends also
/// what only waited to be looked at again, and what was never granted is not revoked.
#[tokio::test]
async fn r38_what_is_revoked_takes_along_what_rests_on_it() {
    let mut world = World::start().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let mut granted = Vec::new();
    for name in ["first", "second"] {
        world.admin.apply(&agent(name)).await.unwrap();
        let wanted = Ask {
            agent: name,
            ..PLAIN
        };
        let case = ask(&mut alice, &wanted).await.unwrap();
        let refused = world.admin.revoke(&case.id).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("is PENDING"), "{refused}");
        granted.push(approve(&mut bob, &case).await.unwrap());
    }
    let before = world.admin.fleet.get_status(v1::GetStatusRequest {}).await;
    let before = before.unwrap().into_inner().head.unwrap();
    let target = v1::target::Target::Subject("first".into());
    let request = v1::RevokeRequest {
        target: Some(v1::Target {
            target: Some(target),
        }),
        ..v1::RevokeRequest::default()
    };
    world.admin.revocations.revoke(request).await.unwrap();
    let object = v1::GetObjectRequest {
        kind: v1::ObjectKind::Exception.into(),
        id: granted[0].id.clone(),
    };
    let stored = bob.objects.get_object(object).await.unwrap();
    let stored = stored.into_inner().object.unwrap();
    assert_eq!(stored.log_revision, before.revision + 1);
    assert!(stored.manifest.contains("REVOKED"), "{}", stored.manifest);

    let changed = agent("second").replace("permitted_ids: [work]", "permitted_ids: [work, play]");
    world.admin.apply(&changed).await.unwrap();
    assert_eq!(look(&mut bob, &granted[1].id).await.state, "SUSPENDED");
    let retired = changed.replace("lifecycle_state: ACTIVE", "lifecycle_state: RETIRED");
    world.admin.apply(&retired).await.unwrap();
    assert_eq!(look(&mut bob, &granted[1].id).await.state, "REVOKED");
}

/// R28: nothing grants but a request, votes and their digest, not even an administrator's hand; and
/// what else stands beside it is not applied either.
#[tokio::test]
async fn r28_nobody_applies_an_exception_by_hand() {
    let mut world = World::start_with(&[("exceptions", "requested")]).await;
    let exception = exception("EX-900", "CT-RISKY", "agent");
    let beside = agent("beside") + &exception;
    for dry_run in [true, false] {
        let request = v1::ApplyRequest {
            files: files(&beside),
            dry_run,
            ..v1::ApplyRequest::default()
        };
        let refused = world.admin.objects.apply(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(
            refused.message().contains("exeat exception request"),
            "{refused}"
        );
    }
    let request = v1::GetObjectRequest {
        kind: v1::ObjectKind::Subject.into(),
        id: "beside".into(),
    };
    let nothing = world.admin.objects.get_object(request).await.unwrap_err();
    assert_eq!(nothing.code(), Code::NotFound);
    let sidecar = world.sidecar().await;
    sidecar
        .until_exactly("agent", "risky", "DENY CONTROL_FAILED")
        .await;
    // Where it is so set, to bring those over that are elsewhere.
    let mut open = World::start().await;
    open.admin.apply(&exception).await.unwrap();
}

/// Of two who change a request at once one does it again, and nothing that the other said is lost.
#[tokio::test]
async fn a_request_is_asked_for_anew_only_as_it_was_seen() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let first = ask(&mut alice, &PLAIN).await.unwrap();
    let anew = |hours| v1::RequestExceptionRequest {
        file: files(&Ask { hours, ..PLAIN }.text()).pop(),
        id: first.id.clone(),
        expected_digest: first.digest.clone(),
        ..v1::RequestExceptionRequest::default()
    };
    let second = alice.exceptions.request_exception(anew(24)).await.unwrap();
    let second = second.into_inner().case.unwrap();
    assert_ne!(second.digest, first.digest);
    let refused = alice
        .exceptions
        .request_exception(anew(12))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert_eq!(look(&mut alice, &first.id).await.digest, second.digest);
}

/// T12, governance §7.3: an exception waits while a baseline gate fails, and goes on by itself once
/// it passes; where its tier says so, somebody has to look at it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t12_an_exception_waits_for_a_baseline_gate_and_goes_on_by_itself() {
    let mut world = World::start().await;
    let mut asker = world.as_who("user:alice").await;
    let mut owner = world.as_who("user:bob").await;
    let gate = control("CT-GATE", "other", "subject.risk_tier == 'MODERATE'")
        .replace("SOFT_MANDATORY", "HARD_MANDATORY\nbaseline_gate: true");
    world.admin.apply(&gate).await.unwrap();
    let case = ask(&mut asker, &PLAIN).await.unwrap();
    let id = approve(&mut owner, &case).await.unwrap().id;
    world.clock.advance(seconds(5));
    let sidecar = world.sidecar().await;
    sidecar.until("agent", "risky", EXCEPTED).await;

    let failing = agent("agent").replace("risk_tier: LOW", "risk_tier: MODERATE");
    world.admin.apply(&failing).await.unwrap();
    let waits = until(&mut world.admin, &id, "SUSPENDED").await;
    assert!(
        waits.reason.contains("baseline gate CT-GATE fails"),
        "{}",
        waits.reason
    );
    sidecar.until("agent", "risky", "CONTROL_FAILED").await;
    world.admin.apply(&agent("agent")).await.unwrap();
    let again = until(&mut world.admin, &id, "APPROVED").await;
    assert_eq!(again.expire_time, waits.expire_time, "its end stays");
    world.clock.advance(seconds(5));
    sidecar.until("agent", "risky", EXCEPTED).await;

    let strict =
        "---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: MODERATE\nauto_resume: false\n";
    world.admin.apply(strict).await.unwrap();
    world.admin.apply(&failing).await.unwrap();
    until(&mut world.admin, &id, "SUSPENDED").await;
    world.admin.apply(&agent("agent")).await.unwrap();
    world.clock.advance(seconds(60));
    assert_eq!(look(&mut world.admin, &id).await.state, "SUSPENDED");
    let high = strict.replace("MODERATE", "HIGH").replace("false", "true");
    let refused = world.admin.apply(&high).await.unwrap_err();
    assert!(refused.message().contains("auto_resume"), "{refused}");
}

/// R16, R40: what is looked at again is looked at on evidence of today: shown by who answers for it,
/// in force once everybody has seen it, and without more time.
#[tokio::test]
async fn r16_evidence_is_shown_anew_and_counts_once_everybody_has_seen_it() {
    let mut world = World::start().await;
    let risky = agent("agent").replace("risk_tier: LOW", "risk_tier: HIGH");
    world.admin.apply(&risky).await.unwrap();
    let (mut alice, mut bob, mut carol) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
        world.as_who("user:carol").await,
    );
    let item = |id: &str, digest: &str, more: &str| {
        format!(
            "- {{evidence_id: {id}, digest: \"sha256:{digest}\", required: true, expire_time: \"2027-11-22T00:00:00Z\"{more}}}\n"
        )
    };
    let first = item("scan", "5ca0", "") + &item("test", "7e57", "");
    let asking = |evidence: &str, id: &str, hours: i64, expected: &str| {
        let more = format!("usage_limits: {{max_uses: 10}}\nevidence:\n{evidence}");
        let asked = Ask {
            more: &more,
            hours,
            ..PLAIN
        };
        v1::RequestExceptionRequest {
            file: files(&asked.text()).pop(),
            id: id.to_owned(),
            expected_digest: expected.to_owned(),
            ..v1::RequestExceptionRequest::default()
        }
    };
    let ask = async |client: &mut Client, request| {
        let answer = client.exceptions.request_exception(request).await?;
        Ok::<_, tonic::Status>(answer.into_inner().case.unwrap())
    };
    let case = ask(&mut alice, asking(&first, "", 48, "")).await.unwrap();
    approve(&mut bob, &case).await.unwrap();
    let granted = approve(&mut carol, &case).await.unwrap();
    assert_eq!(granted.state, "APPROVED");
    assert!(granted.open_seats.is_empty());
    world.clock.advance(seconds(3_600));

    let collected = ", collect_time: \"2026-11-22T12:30:00Z\", source: nightly scanner";
    let newer = item("scan2", "5ca2", collected) + &item("test", "7e57", "");
    let refused = ask(&mut bob, asking(&newer, &case.id, 48, "")).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    // Nothing else changes under that name.
    let refused = ask(&mut alice, asking(&newer, &case.id, 96, "")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("renewed"), "{refused:?}");
    let swapped = item("scan", "bad0", "") + &item("test", "7e57", "");
    let refused = ask(&mut alice, asking(&swapped, &case.id, 48, "")).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.message().contains("`scan` is shown already"),
        "{refused:?}"
    );
    let ahead = item("scan2", "5ca2", ", collect_time: \"2026-11-23T00:00:00Z\"");
    let refused = ask(
        &mut alice,
        asking(&(first.clone() + &ahead), &case.id, 48, ""),
    )
    .await;
    assert!(refused.unwrap_err().message().contains("in the future"));

    let shown = ask(&mut alice, asking(&newer, &case.id, 48, ""))
        .await
        .unwrap();
    assert_eq!(shown.state, "APPROVED");
    assert_eq!(shown.open_seats.len(), 2, "{:?}", shown.open_seats);
    assert_ne!(shown.digest, granted.digest);
    let stored = async |bob: &mut Client| {
        let request = v1::GetObjectRequest {
            kind: v1::ObjectKind::Exception.into(),
            id: case.id.clone(),
        };
        let stored = bob.objects.get_object(request).await.unwrap();
        stored.into_inner().object.unwrap().manifest
    };
    assert!(!stored(&mut bob).await.contains("scan2"));
    // Who has not seen this takes nothing of it back.
    let refused = ask(&mut alice, asking(&first, &case.id, 48, &granted.digest)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Aborted);
    let vote = |reviewed: &[&str]| v1::DecideRequest {
        id: case.id.clone(),
        approve: true,
        comment: "looked at all of it".into(),
        digest: shown.digest.clone(),
        reviewed_evidence: reviewed.iter().map(ToString::to_string).collect(),
    };
    let old = bob.exceptions.decide(vote(&["test"])).await.unwrap_err();
    assert!(
        old.message().contains("`scan2` was not reviewed"),
        "{}",
        old.message()
    );
    bob.exceptions
        .decide(vote(&["scan2", "test"]))
        .await
        .unwrap();
    assert!(!stored(&mut bob).await.contains("scan2"), "one of two");
    let seen = carol.exceptions.decide(vote(&["scan2", "test"])).await;
    let seen = seen.unwrap().into_inner().case.unwrap();
    assert_eq!(
        (seen.state.as_str(), seen.reason.as_str()),
        ("APPROVED", "revalidated")
    );
    let manifest = stored(&mut bob).await;
    assert!(manifest.contains("scan2") && manifest.contains("nightly scanner"));
    assert!(!manifest.contains("\"evidence_id\":\"scan\""), "{manifest}");
    assert_eq!(seen.expire_time, granted.expire_time);
    assert!(seen.open_seats.is_empty(), "{:?}", seen.open_seats);
}

/// V2, T10: many grant it, and any one who answers for it takes it back, or has it looked at again:
/// whatever role they come in.
#[tokio::test]
async fn v2_whoever_answers_for_it_takes_it_back_or_has_it_looked_at_again() {
    let mut world = World::start().await;
    let sidecar = world.sidecar().await;
    let (mut alice, mut bob) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
    );
    let mut viewers = Vec::new();
    for identity in ["user:o", "user:bob2", "user:dave"] {
        let token = world.admin.let_in(identity, v1::Role::Viewer, &[]).await;
        viewers.push(world.registry.client_with(&token).await);
    }
    let [owns, approved, neither] = viewers.as_mut_slice() else {
        panic!("three viewers")
    };
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let suspend = |reason: &str| v1::SuspendRequest {
        id: case.id.clone(),
        reason: reason.into(),
    };
    let early = owns.exceptions.suspend(suspend("look at it")).await;
    let early = early.unwrap_err();
    assert!(
        early.code() == Code::FailedPrecondition && early.message().contains("PENDING"),
        "{early:?}"
    );
    approve(&mut bob, &case).await.unwrap();
    world.clock.advance(seconds(1));
    sidecar.until("agent", "risky", EXCEPTED).await;

    let refused = neither.exceptions.suspend(suspend("look at it")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("to answer for it"),
        "{}",
        refused.message()
    );
    let mute = owns.exceptions.suspend(suspend(" ")).await.unwrap_err();
    assert_eq!(mute.code(), Code::InvalidArgument);
    // The owner of its control and domain.
    let said = owns.exceptions.suspend(suspend("the batch is wrong")).await;
    let said = said.unwrap().into_inner().case.unwrap();
    assert_eq!(
        (said.state.as_str(), said.reason.as_str()),
        ("SUSPENDED", "suspended by user:o: the batch is wrong")
    );
    sidecar.until("agent", "risky", "EXC_SUSPENDED").await;
    let twice = owns.exceptions.suspend(suspend("again")).await.unwrap_err();
    assert_eq!(twice.code(), Code::FailedPrecondition, "{twice:?}");
    // Nothing but everybody's look lets it go on.
    world.clock.advance(seconds(3_600));
    let waits = look(&mut bob, &case.id).await;
    assert_eq!(waits.state, "SUSPENDED");
    approve(&mut bob, &waits).await.unwrap();
    world.clock.advance(seconds(1));
    sidecar.until("agent", "risky", EXCEPTED).await;
    // Who approved it, under another name.
    assert_eq!(
        neither.revoke(&case.id).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    // Its owner stops an agent in any role, and lets it go on in none but an administrator's.
    let freeze = || v1::FreezeRequest {
        subject: "agent".into(),
        ..v1::FreezeRequest::default()
    };
    let refused = neither.revocations.freeze(freeze()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    owns.revocations.freeze(freeze()).await.unwrap();
    sidecar.until("agent", "risky", "SUBJECT_LOCKED").await;
    let thaw = v1::ThawRequest {
        subject: "agent".into(),
        ..v1::ThawRequest::default()
    };
    let refused = owns.revocations.thaw(thaw.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.admin.revocations.thaw(thaw).await.unwrap();
    sidecar.until("agent", "risky", EXCEPTED).await;
    approved.revoke(&case.id).await.unwrap();
    sidecar.until("agent", "risky", "EXC_REVOKED").await;
}

/// A1: for whom an agent or a service says that it asks nobody confirms: neither who answers for it nor
/// whom it serves decides.
#[tokio::test]
async fn a1_whoever_an_agent_serves_does_not_decide() {
    let mut world = World::start().await;
    let bobs = agent("bobs").replace("principal: \"user:o\"", "principal: \"user:bob\"");
    let second = |text: &str| text.replace("id: bobs", "id: bobs-2");
    let third = |text: &str| text.replace("id: bobs", "id: bobs-3");
    let all = second(&bobs) + &third(&bobs) + &bobs + &agent("other") + &agent("other-2");
    world.admin.apply(&all).await.unwrap();
    let mut bob = world.as_who("user:bob").await;
    let mut dave = world.as_who("user:dave").await;
    let more = format!("{}on_behalf_of: user:alice\n", PLAIN.more);
    for (who, subject, decides) in [
        ("agent:bobs", "bobs", false),
        // Bob's agent asks for another's.
        ("agent:bobs", "other", false),
        ("agent:nobodys", "bobs-2", false),
        ("agent:nobodys", "other-2", true),
        // Somebody else asks, and below HIGH its owner may decide.
        ("user:alice", "bobs-3", true),
    ] {
        let mut asks = world.as_who(who).await;
        let asked = Ask {
            agent: subject,
            more: &more,
            ..PLAIN
        };
        let case = ask(&mut asks, &asked).await.unwrap();
        assert_eq!((&*case.state, &*case.tier), ("PENDING", "MODERATE"));
        match approve(&mut bob, &case).await {
            Ok(case) => assert!(decides && case.state == "APPROVED", "{who} for {subject}"),
            Err(refused) => {
                assert!(!decides, "{who} for {subject}: {refused:?}");
                assert!(refused.message().contains("does not decide"), "{refused:?}");
                let case = approve(&mut dave, &case).await.unwrap();
                assert_eq!(case.state, "APPROVED");
            }
        }
    }
}

/// E4, T2: blanks say nothing, and what can never be granted waits for nobody.
#[tokio::test]
async fn what_says_nothing_or_can_never_be_is_refused_at_once() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let blank = " ".repeat(60);
    let need = "the quarter closes on Friday and the batch has to run until then";
    for (was, is, said) in [
        (need, format!("\"{blank}\""), "business_need"),
        ("ticket_ref: T-7", "ticket_ref: \" \"".into(), "ticket_ref"),
        (
            "window: {duration: 48h}",
            "window: {start_time: \"2028-01-01T00:00:00Z\", duration: 4h}".into(),
            "what it rests on ends at 2027-11-22T00:00:00Z",
        ),
        (
            "window: {duration: 48h}",
            "window: {start_time: \"2026-11-01T00:00:00Z\", duration: 4h}".into(),
            "name a later `window.start_time`",
        ),
    ] {
        let text = PLAIN.text();
        assert!(text.contains(was), "{was}");
        let request = v1::RequestExceptionRequest {
            file: files(&text.replace(was, &is)).pop(),
            ..v1::RequestExceptionRequest::default()
        };
        let refused = alice.exceptions.request_exception(request).await;
        let refused = refused.unwrap_err();
        assert!(refused.message().contains(said), "{said}: {refused:?}");
    }
    let all = v1::ListCasesRequest::default();
    let listed = alice.exceptions.list_cases(all).await.unwrap();
    assert!(listed.into_inner().cases.is_empty());
    // What was kept before it was asked for so is read as it was.
    let kept = ask(&mut alice, &PLAIN).await.unwrap().record;
    for (was, is) in [
        ("[\"CT-RISKY\"]", "[\"CT-RISKY\",\"CT-RISKY\"]"),
        ("\"ticket_ref\":\"T-7\"", "\"ticket_ref\":\" \""),
    ] {
        assert!(kept.contains(was), "{kept}");
        exeat::manifest::read_case(&kept.replace(was, is)).unwrap();
    }
}
