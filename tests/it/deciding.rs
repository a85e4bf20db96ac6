//! What whoever opens a request is told beside it: whether it is theirs to decide, whether anybody
//! can, and what became of others like it.

use crate::support::cases::{Ask, PLAIN, World, approve, ask, look, people};
use crate::support::governed::{Client, control};
use exeat::wire::v1;

async fn told(client: &mut Client, id: &str) -> (String, String, String) {
    let case = look(client, id).await;
    (case.your_role, case.not_yours, case.notes.join("\n"))
}

fn says(told: &str, part: &str) {
    assert!(told.contains(part), "{part} is not in: {told}");
}

/// A1, A2: each is told whether they may decide, and why not, before they try.
#[tokio::test]
async fn a1_whoever_looks_is_told_whether_they_may_decide() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let mut carol = world.as_who("user:carol").await;
    let mut left = world.as_who("agent:helper").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    says(&case.not_yours, "asked for it");
    let (role, no, _) = told(&mut bob, &case.id).await;
    assert_eq!((&*role, &*no), ("control_owner for team", ""));
    let (role, no, _) = told(&mut carol, &case.id).await;
    assert!(role.is_empty());
    says(&no, "is not control_owner for team");
    let (_, no, _) = told(&mut left, &case.id).await;
    says(&no, "only people decide");
    // Whoever comes with another role is told what they lack.
    let token = world.admin.let_in("user:dave", v1::Role::Viewer, &[]).await;
    let mut dave = world.registry.client_with(&token).await;
    let (role, no, _) = told(&mut dave, &case.id).await;
    assert!(role.is_empty());
    says(&no, "has role approver, and this is viewer");
    let approved = approve(&mut bob, &case).await.unwrap();
    // Nobody is to decide any more.
    assert_eq!((&*approved.your_role, &*approved.not_yours), ("", ""));
}

/// A2: a person who has decided is told so under any identity.
#[tokio::test]
async fn a2_who_has_decided_is_told_so_under_another_name() {
    let mut world = World::start().await;
    let two = people().replace(
        "risk_officer: risk}\n",
        "risk_officer: risk}\ntier_policy_overrides: {MODERATE: {approval_stages: [{role: control_owner, quorum: 1}, {role: risk_officer, quorum: 1}]}}\n",
    );
    world.admin.apply(&two).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let mut bob2 = world.as_who("user:bob2").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let (role, ..) = told(&mut bob2, &case.id).await;
    assert_eq!(role, "risk_officer for team");
    approve(&mut bob, &case).await.unwrap();
    let (role, no, _) = told(&mut bob2, &case.id).await;
    assert!(role.is_empty());
    says(&no, "has decided already");
}

/// A request that nobody is left to decide says so at once, not when it lapses.
#[tokio::test]
async fn a_request_without_people_to_decide_it_says_so() {
    let mut world = World::start().await;
    let control = control("CT-RISKY", "risky", "true");
    let control = control.replace("owner: user:o\n", "owner: user:alice\n");
    world.admin.apply(&control).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let nobody = "no longer enough people";
    let (.., notes) = told(&mut alice, &case.id).await;
    assert!(!notes.contains(nobody), "{notes}");
    // Of the control's owners only who asks is left.
    let fewer = people()
        .replace("owner: user:o\n", "owner: user:alice\n")
        .replace("\"user:bob\", ", "")
        .replace("\"user:dave\", ", "");
    world.admin.apply(&fewer).await.unwrap();
    let (.., notes) = told(&mut alice, &case.id).await;
    says(&notes, nobody);
    says(&notes, "or it lapses at ");
}

/// What became of others from the same control, and whether they were used at all.
#[tokio::test]
async fn what_became_of_others_from_the_same_control_is_told() {
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let first = ask(&mut alice, &PLAIN).await.unwrap();
    let (.., notes) = told(&mut bob, &first.id).await;
    assert!(!notes.contains("granted before"), "{notes}");
    approve(&mut bob, &first).await.unwrap();
    world.admin.revoke(&first.id).await.unwrap();
    let other = Ask { hours: 24, ..PLAIN };
    let second = ask(&mut alice, &other).await.unwrap();
    says(
        &second.notes.join("\n"),
        "granted before from the same controls: 1 REVOKED; no use recorded of 1",
    );
}
