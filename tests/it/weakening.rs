//! A control that is to deny less is decided by people, as an exception from it would be (R42).

use crate::support::cases::{DAY, World};
use crate::support::governed::{Client, Registry, control, domain, files, seconds};
use crate::support::{cases, governed};
use exeat::wire::v1;
use tonic::{Code, Status};

const REASON: &str = "the check moves into the gateway, which denies the same calls";

/// A control with everything that may be weakened.
fn full() -> String {
    "---\napiVersion: exeat/v1\nkind: Control\nid: CT-FULL\ntitle: full\nowner: user:o\nseverity: HIGH\nenforcement: HARD_MANDATORY\nbaseline_gate: true\nevaluation_modes: [RUNTIME, SCHEDULED]\nschedule: {cron: \"0 6 * * *\", time_zone: UTC}\nfailure_condition: \"subject.environment == 'prod' && subject.risk_tier == 'HIGH'\"\nparams: {most: 3}\napplies_to: {actions: [risky, plain]}\nevidence_requirements: [{source: s, facets: [model, tools], max_age: 1h, completeness: COMPLETE}]\nstate: ACTIVE\ntest_vectors:\n- {name: prod, world: {now_time: \"2026-11-22T12:00:00Z\", subject: {environment: prod, risk_tier: HIGH}}, expect: FAIL}\n- {name: dev, world: {now_time: \"2026-11-22T12:00:00Z\", subject: {environment: dev, risk_tier: HIGH}}, expect: PASS}\n".into()
}

async fn propose(client: &mut Client, text: &str, reason: &str) -> Result<v1::Proposal, Status> {
    let request = v1::ProposeControlRequest {
        file: files(text).pop(),
        reason: reason.into(),
        ..v1::ProposeControlRequest::default()
    };
    let answer = client.controls.propose_control(request).await?;
    Ok(answer.into_inner().proposal.unwrap())
}

async fn decide(
    client: &mut Client,
    proposal: &v1::Proposal,
    approve: bool,
) -> Result<v1::Proposal, Status> {
    let request = v1::DecideProposalRequest {
        id: proposal.id.clone(),
        approve,
        comment: "looked at the gateway's rules".into(),
        digest: proposal.digest.clone(),
    };
    let answer = client.controls.decide_proposal(request).await?;
    Ok(answer.into_inner().proposal.unwrap())
}

async fn found(client: &mut Client, id: &str) -> v1::Proposal {
    let request = v1::ListProposalsRequest {
        id: id.into(),
        all: true,
    };
    let answer = client.controls.list_proposals(request).await.unwrap();
    answer.into_inner().proposals.remove(0)
}

#[tokio::test]
async fn every_way_to_deny_less_is_refused_to_one_person_and_its_contrary_is_not() {
    let mut world = World::start().await;
    world.admin.apply(&full()).await.unwrap();
    for (from, to, how) in [
        (
            "HARD_MANDATORY\nbaseline_gate: true",
            "SOFT_MANDATORY",
            "enforcement goes from HardMandatory to SoftMandatory",
        ),
        (
            "severity: HIGH",
            "severity: MEDIUM",
            "severity goes from High to Medium",
        ),
        (
            "baseline_gate: true",
            "baseline_gate: false",
            "no longer a baseline gate",
        ),
        (
            "[RUNTIME, SCHEDULED]",
            "[SCHEDULED]",
            "no longer held against questions",
        ),
        ("0 6 * * *", "0 7 * * *", "schedule changes"),
        ("[risky, plain]", "[risky]", "no longer applies to all"),
        (
            "applies_to: {actions: [risky, plain]}",
            "applies_to: {actions: [risky, plain], condition: \"subject.environment == 'prod'\"}",
            "no longer applies to all",
        ),
        (
            "facets: [model, tools]",
            "facets: [model]",
            "demands less evidence",
        ),
        ("max_age: 1h", "max_age: 2h", "demands less evidence"),
        (
            "completeness: COMPLETE",
            "completeness: ANY",
            "demands less evidence",
        ),
        (
            "&& subject.risk_tier == 'HIGH'",
            "&& subject.risk_tier == 'HIGH' && subject.kind == 'SERVICE'",
            "its condition or its params change",
        ),
        ("most: 3", "most: 4", "its condition or its params change"),
        ("state: ACTIVE", "state: RETIRED", "no longer in force"),
    ] {
        let text = full().replace(from, to);
        assert_ne!(text, full(), "{from}");
        // Vectors that no longer hold are another fault, told first.
        let text = if how == "its condition or its params change" {
            text.replace(
                "environment: prod, risk_tier: HIGH}",
                "environment: prod, risk_tier: HIGH, kind: SERVICE}",
            )
        } else {
            text
        };
        let refused = world.admin.apply(&text).await.unwrap_err();
        assert!(
            refused.message().contains(how),
            "{to}: {}",
            refused.message()
        );
        assert!(
            refused.message().contains("exeat control propose"),
            "{}",
            refused.message()
        );
    }
    for (from, to) in [
        ("title: full", "title: all of it"),
        ("severity: HIGH", "severity: CRITICAL"),
        ("[risky, plain]", "[risky, plain, more]"),
        ("max_age: 1h", "max_age: 30m"),
        ("facets: [model, tools]", "facets: [model, tools, prompts]"),
    ] {
        world.admin.apply(&full().replace(from, to)).await.unwrap();
        // And back, which is less again where it was more.
        let back = world.admin.apply(&full()).await;
        assert_eq!(back.is_ok(), from == "title: full", "{from}");
        let other = full().replace("CT-FULL", "CT-NEW");
        world.admin.apply(&other).await.unwrap();
        break_in(&mut world).await;
    }
    // What it was, or more: known to fail for all that it did.
    let condition = "subject.environment == 'prod' && subject.risk_tier == 'HIGH'";
    let or = |more: &str| full().replace(condition, &format!("({condition}) || {more}"));
    world
        .admin
        .apply(&or("subject.environment == 'test'"))
        .await
        .unwrap();
    break_in(&mut world).await;
    // Vectors are chosen by whoever writes them: none of these is proof of anything.
    let shown = "test_vectors:\n- {name: zzz, world: {now_time: \"2026-11-22T12:00:00Z\", subject: {environment: zzz, risk_tier: HIGH}}, expect: FAIL}\n";
    for gutted in [
        format!(
            "({condition} && now < timestamp('2026-11-23T00:00:00Z')) || subject.environment == 'zzz'"
        ),
        format!(
            "({condition} || false) && now < timestamp('2026-11-23T00:00:00Z') || subject.environment == 'zzz'"
        ),
        format!(
            "({condition}) || true ? {condition} && now < timestamp('2026-11-23T00:00:00Z') || subject.environment == 'zzz' : false"
        ),
    ] {
        let text = full()
            .replace(condition, &gutted)
            .replace("test_vectors:\n", shown);
        let refused = world.admin.apply(&text).await.unwrap_err();
        assert!(
            refused
                .message()
                .contains("its condition or its params change"),
            "{gutted}: {}",
            refused.message()
        );
    }
    // Nor is there nobody to decide any more.
    let nobody = domain("team") + "approver_groups: {control_owner: owners}\n";
    let refused = world.admin.apply(&nobody).await.unwrap_err();
    assert!(
        refused
            .message()
            .contains("no domain at the top would name a risk officer"),
        "{}",
        refused.message()
    );
    let gone = v1::ApplyRequest {
        files: files(&control("CT-RISKY", "risky", "true")),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    let refused = world.admin.objects.apply(gone).await.unwrap_err();
    assert!(
        refused.message().contains("CT-FULL: it is removed"),
        "{}",
        refused.message()
    );
}

/// Makes the control what it was, past the rule: by a registry of one person.
async fn break_in(world: &mut World) {
    world.registry.process.stop().await;
    let data = world.scratch.path().join("r");
    let alone = [("weakening", "applied")];
    let mut lone = Registry::start_at(&data, world.clock.clone(), "127.0.0.1:0", &alone)
        .await
        .unwrap();
    lone.client().await.apply(&full()).await.unwrap();
    lone.process.stop().await;
    world.registry = Registry::start(&data, world.clock.clone()).await;
    world.admin = world.registry.client().await;
}

#[tokio::test]
async fn two_persons_in_two_roles_decide_and_whoever_proposed_is_neither() {
    let mut world = World::start().await;
    world.admin.apply(&full()).await.unwrap();
    let token = world.admin.let_in("user:dave", v1::Role::Author, &[]).await;
    let mut dave = world.registry.client_with(&token).await;
    let (mut bob, mut carol, mut alice) = (
        world.as_who("user:bob").await,
        world.as_who("user:carol").await,
        world.as_who("user:alice").await,
    );
    let mut bob2 = world.as_who("user:bob2").await;
    let weaker = full().replace("HARD_MANDATORY\nbaseline_gate: true", "SOFT_MANDATORY");
    let status = propose(&mut dave, &weaker, "because").await.unwrap_err();
    assert!(status.message().contains("reason"), "{}", status.message());
    let same = propose(&mut dave, &full(), REASON).await.unwrap_err();
    assert_eq!(same.code(), Code::FailedPrecondition);
    let proposal = propose(&mut dave, &weaker, REASON).await.unwrap();
    assert_eq!(
        (proposal.state.as_str(), &*proposal.open_roles),
        (
            "PENDING",
            &["control_owner".to_owned(), "risk_officer".to_owned()][..]
        )
    );
    // Nothing is so yet; not by who is neither, nor by whoever proposed it.
    let denied = decide(&mut alice, &proposal, true).await.unwrap_err();
    assert!(
        denied.message().contains(
            "has none of the roles that decide about CT-FULL: control_owner, risk_officer"
        ),
        "{}",
        denied.message()
    );
    let mut as_approver = world.as_who("user:dave").await;
    let denied = decide(&mut as_approver, &proposal, true).await.unwrap_err();
    assert!(
        denied.message().contains("proposed it"),
        "{}",
        denied.message()
    );
    let other = v1::Proposal {
        digest: "sha256:0".into(),
        ..proposal.clone()
    };
    assert_eq!(
        decide(&mut bob, &other, true).await.unwrap_err().code(),
        Code::Aborted
    );
    let one = decide(&mut bob, &proposal, true).await.unwrap();
    assert_eq!(
        (one.state.as_str(), &*one.open_roles),
        ("PENDING", &["risk_officer".to_owned()][..])
    );
    // One person under another identity is one person.
    let twice = decide(&mut bob2, &proposal, true).await.unwrap_err();
    assert!(
        twice.message().contains("one person counts once"),
        "{}",
        twice.message()
    );
    let done = decide(&mut carol, &proposal, true).await.unwrap();
    assert_eq!(done.state, "APPLIED");
    let request = v1::GetObjectRequest {
        kind: v1::ObjectKind::Control.into(),
        id: "CT-FULL".into(),
    };
    let stored = carol
        .objects
        .get_object(request)
        .await
        .unwrap()
        .into_inner()
        .object
        .unwrap();
    assert!(
        stored.manifest.contains("SOFT_MANDATORY"),
        "{}",
        stored.manifest
    );
    let late = decide(&mut carol, &proposal, true).await.unwrap_err();
    assert!(late.message().contains("is APPLIED"), "{}", late.message());
}

/// The people and the control, where the domain at the top also says this.
fn with(asks: &str) -> exeat::engine::Snapshot {
    let people = cases::people().replace(
        "approver_groups: {control_owner: owners, risk_officer: risk}\n",
        &format!("approver_groups: {{control_owner: owners, risk_officer: risk}}\n{asks}"),
    );
    let text = people + &full();
    let bundle = exeat::manifest::Bundle::read_files([("a.yaml".to_owned(), text)]).unwrap();
    bundle.snapshot(1).unwrap()
}

fn who(name: &str) -> exeat::domain::Principal {
    exeat::domain::Principal::parse(name).unwrap()
}

/// That the control is to be removed.
fn proposal(proposer: &str) -> exeat::domain::Proposal {
    let at = governed::noon();
    exeat::domain::Proposal {
        id: "CP-1".into(),
        control: exeat::domain::ControlId::parse("CT-FULL").unwrap(),
        base: 1,
        manifest: None,
        weakens: "removed".into(),
        reason: "something else denies it".into(),
        proposer: who(proposer),
        created: at,
        digest: exeat::domain::Digest::parse("sha256:0").unwrap(),
        voices: vec![],
        state: exeat::domain::ProposalState::Pending,
        since: at,
    }
}

/// R42: what weakens a control needs what a HIGH exception needs: as many persons, in every role that
/// the domain at the top asks for, and nobody can propose what nobody could decide.
#[test]
fn r42_as_many_decide_as_high_asks_for_in_each_of_its_roles() {
    use exeat::{
        domain::{ApproverRole, ProposalState},
        engine::{
            Deciders,
            proposals::{decidable, decided, wanted},
        },
    };
    let more = "tier_policy_overrides: {HIGH: {approval_stages: [{role: control_owner, quorum: 1}, {role: risk_officer, quorum: 2}, {role: domain_owner, quorum: 1}]}}\n";
    let (strict, lax) = (with(more), with(""));
    let at = governed::noon();
    let mut asked = proposal("user:dave");
    let open = |proposal: &_| wanted(proposal, &strict).unwrap();
    assert_eq!(
        (open(&asked).len(), wanted(&asked, &lax).unwrap().len()),
        (4, 2)
    );
    // Who owns both the control and the domain takes the place that nobody else could.
    for (name, role) in [
        ("user:o", ApproverRole::DomainOwner),
        ("user:alice2", ApproverRole::ControlOwner),
        ("user:carol", ApproverRole::RiskOfficer),
    ] {
        let said = ("compared both of them", None);
        asked = decided(&asked, &who(name), true, said, &strict, at).unwrap();
        assert_eq!(asked.voices.last().unwrap().role, role);
        assert_eq!(asked.state, ProposalState::Pending, "{name}");
    }
    assert_eq!(open(&asked), [ApproverRole::RiskOfficer]);
    let said = ("compared both of them", None);
    let done = decided(&asked, &who("user:bob2"), true, said, &strict, at).unwrap();
    assert_eq!(done.state, ProposalState::Applied);

    let deciders = |snapshot| Deciders::of(snapshot, &asked.control).unwrap();
    decidable(&who("user:dave"), &deciders(&strict), &strict).unwrap();
    decidable(&who("user:carol"), &deciders(&lax), &lax).unwrap();
    let nobody = decidable(&who("user:carol"), &deciders(&strict), &strict).unwrap_err();
    assert!(nobody.contains("not enough people"), "{nobody}");
}

/// R42: what weakens a control needs what a HIGH exception needs, a step-up too where it asks for one;
/// and who agreed without one counts no more once it does.
#[test]
fn r42_a_step_up_is_needed_where_high_asks_for_one() {
    use exeat::{
        domain::Assurance,
        engine::proposals::{decided, wanted},
    };
    let strict = with("tier_policy_overrides: {HIGH: {step_up: true}}\n");
    let lax = with("");
    let at = governed::noon();
    let proposal = proposal("user:alice");
    let assured = |stepped_up| Assurance {
        said: "corp: acr gold".into(),
        stepped_up,
    };
    let comment = "compared both of them";
    let weak = assured(false);
    let strong = assured(true);
    let bob = who("user:bob");
    for said in [None, Some(&weak)] {
        let refused = decided(&proposal, &bob, true, (comment, said), &strict, at);
        assert!(
            format!("{refused:?}").contains("exeat login --step-up"),
            "{refused:?}"
        );
        assert!(decided(&proposal, &bob, false, (comment, said), &strict, at).is_ok());
    }
    let one = decided(&proposal, &bob, true, (comment, Some(&strong)), &strict, at).unwrap();
    assert_eq!(wanted(&one, &strict).unwrap().len(), 1);
    let before = decided(&proposal, &bob, true, (comment, None), &lax, at).unwrap();
    assert_eq!(
        (
            wanted(&before, &lax).unwrap().len(),
            wanted(&before, &strict).unwrap().len()
        ),
        (1, 2)
    );
}

#[tokio::test]
async fn a_proposal_ends_with_one_no_its_time_and_its_control() {
    let mut world = World::start().await;
    world.admin.apply(&full()).await.unwrap();
    let token = world.admin.let_in("user:dave", v1::Role::Author, &[]).await;
    let mut dave = world.registry.client_with(&token).await;
    let mut bob = world.as_who("user:bob").await;
    let mut carol = world.as_who("user:carol").await;
    let weaker = full().replace("severity: HIGH", "severity: LOW");

    let proposal = propose(&mut dave, &weaker, REASON).await.unwrap();
    decide(&mut bob, &proposal, true).await.unwrap();
    // Also by whoever agreed.
    let no = decide(&mut bob, &proposal, false).await.unwrap();
    assert_eq!(no.state, "DENIED");
    decide(&mut carol, &proposal, true).await.unwrap_err();

    let late = propose(&mut dave, &weaker, REASON).await.unwrap();
    let changed = propose(&mut dave, &weaker, REASON).await.unwrap();
    let taken = propose(&mut dave, &weaker, REASON).await.unwrap();
    let withdraw = |id: &str| v1::WithdrawProposalRequest { id: id.into() };
    let token = world.admin.let_in("user:erin", v1::Role::Author, &[]).await;
    let mut erin = world.registry.client_with(&token).await;
    let status = erin
        .controls
        .withdraw_proposal(withdraw(&taken.id))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    dave.controls
        .withdraw_proposal(withdraw(&taken.id))
        .await
        .unwrap();
    assert_eq!(found(&mut bob, &taken.id).await.state, "WITHDRAWN");
    world
        .admin
        .apply(&full().replace("title: full", "title: other"))
        .await
        .unwrap();
    let status = decide(&mut bob, &changed, true).await.unwrap_err();
    assert!(
        status.message().contains("has changed since"),
        "{}",
        status.message()
    );
    assert_eq!(found(&mut bob, &changed.id).await.state, "OUTDATED");

    world
        .admin
        .apply(&full().replace("title: full", "title: third"))
        .await
        .unwrap();
    let again = propose(&mut dave, &weaker, REASON).await.unwrap();
    world.clock.advance(seconds(3 * DAY));
    let status = decide(&mut bob, &again, true).await.unwrap_err();
    assert!(
        status.message().contains("not decided in time"),
        "{}",
        status.message()
    );
    assert_eq!(found(&mut bob, &again.id).await.state, "LAPSED");
    assert_eq!(found(&mut bob, &late.id).await.state, "LAPSED");
}

#[tokio::test]
async fn where_nobody_is_named_to_decide_administrators_do() {
    let mut world = World::start().await;
    world.registry.process.stop().await;
    let data = world.scratch.path().join("alone");
    world.registry = Registry::start(&data, world.clock.clone()).await;
    world.admin = world.registry.client().await;
    let people = "---\napiVersion: exeat/v1\nkind: Person\nid: user:o\n---\napiVersion: exeat/v1\nkind: Group\nid: owners\nmembers: [\"user:o\"]\n";
    world.admin.apply(people).await.unwrap();
    let alone = domain("team") + "approver_groups: {control_owner: owners}\n";
    world.admin.apply(&(alone + &full())).await.unwrap();
    let weaker = full().replace("severity: HIGH", "severity: LOW");
    world.admin.apply(&weaker).await.unwrap();
    let status = propose(
        &mut world.admin,
        &full()
            .replace("severity: HIGH", "severity: LOW")
            .replace("max_age: 1h", "max_age: 5h"),
        REASON,
    )
    .await
    .unwrap_err();
    assert!(
        status.message().contains("nobody is named"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn a_control_is_removed_by_decision_and_not_from_under_an_exception() {
    let mut world = World::start().await;
    world.admin.apply(&full()).await.unwrap();
    let token = world.admin.let_in("user:dave", v1::Role::Author, &[]).await;
    let mut dave = world.registry.client_with(&token).await;
    let (mut alice, mut bob, mut carol) = (
        world.as_who("user:alice").await,
        world.as_who("user:bob").await,
        world.as_who("user:carol").await,
    );
    let removal = |id: &str| v1::ProposeControlRequest {
        remove: id.into(),
        reason: REASON.into(),
        ..v1::ProposeControlRequest::default()
    };
    let status = dave.controls.propose_control(removal("CT-NONE")).await;
    assert_eq!(status.unwrap_err().code(), Code::NotFound);
    let answer = dave.controls.propose_control(removal("CT-FULL")).await;
    let proposal = answer.unwrap().into_inner().proposal.unwrap();
    assert_eq!(
        (proposal.weakens.as_str(), proposal.after.as_str()),
        ("it is removed", "")
    );
    decide(&mut bob, &proposal, true).await.unwrap();
    assert_eq!(
        decide(&mut carol, &proposal, true).await.unwrap().state,
        "APPLIED"
    );
    let request = v1::GetObjectRequest {
        kind: v1::ObjectKind::Control.into(),
        id: "CT-FULL".into(),
    };
    let status = carol.objects.get_object(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    let case = cases::ask(&mut alice, &cases::PLAIN).await.unwrap();
    cases::approve(&mut bob, &case).await.unwrap();
    let status = dave
        .controls
        .propose_control(removal("CT-RISKY"))
        .await
        .unwrap_err();
    assert!(status.message().contains(&case.id), "{}", status.message());
}

/// R1: a control is answered for by somebody who is with us.
#[tokio::test]
async fn r1_nobody_who_left_owns_a_control() {
    let mut world = World::start().await;
    let orphan = control("CT-NEW", "new", "true").replace("owner: user:o", "owner: user:left");
    let refused = world.admin.apply(&orphan).await.unwrap_err();
    assert!(
        refused
            .message()
            .contains("CT-NEW: `owner`: `user:left` has left"),
        "{refused}"
    );
    // With their place, and with what is right beside them.
    let both = orphan + &control("CT-FINE", "fine", "true");
    assert!(world.admin.apply(&both).await.is_err());
    let fine = v1::GetObjectRequest {
        kind: v1::ObjectKind::Control.into(),
        id: "CT-FINE".into(),
    };
    assert!(world.admin.objects.get_object(fine).await.is_err());
}
