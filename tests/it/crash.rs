//! Real processes, killed at random moments under load, with a checker outside.
//!
//! `EXEAT_KILLS=200` kills more often than the few of an ordinary run.

use std::{collections::BTreeSet, time::Duration};

use crate::support::Dice;
use crate::support::governed;
use crate::support::governed::{control, exception_until, subject};
use crate::support::processes::{Askers, Fleet, each_once};
use exeat::{
    runtime::clock::Clock,
    wire::v1::{self, Completion},
};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_revoked_comes_back() {
    let variable = |name: &str| {
        std::env::vars()
            .find(|(known, _)| known == name)
            .and_then(|(_, value)| value.parse::<usize>().ok())
    };
    let kills = variable("EXEAT_KILLS").unwrap_or(12);
    let seed = Dice::seed();
    println!("seed {seed}, {kills} kills; EXEAT_SEED={seed} repeats the choices");
    let mut dice = Dice::new(seed);
    let mut fleet = Fleet::new();
    let mut registry = fleet.registry();
    let mut client = fleet.client().await;
    let now = Clock::system().now().latest;
    let until = (now + governed::seconds(86_400)).to_string();
    let each = 3;
    let world: String = (0..kills * each)
        .map(|n| {
            exception_until(&format!("EX-{n}"), &format!("CT-R-{n}"), "agent", &until)
                .replace("actions: [risky]", &format!("actions: [risky-{n}]"))
        })
        .collect();
    let controls: String = (0..kills * each)
        .map(|n| control(&format!("CT-R-{n}"), &format!("risky-{n}"), "true"))
        .collect();
    let world =
        (controls + &control("CT-PLAIN", "plain", "false") + &subject("agent", None) + &world)
            .replace("2026-11-22T11:59:00Z", &now.to_string())
            .replace("2026-11-22T11:00:00Z", &now.to_string());
    client.apply(&world).await.unwrap();
    fleet.let_in(&mut client).await;
    let mut running = fleet.sidecar();
    let mut sidecar = fleet.answers().await;
    sidecar
        .until("agent", "risky-0", "ALLOW_BY_EXCEPTION")
        .await;

    let (mut promised, mut complete) = (BTreeSet::new(), BTreeSet::new());
    let mut ids = (0..).map(|n| format!("EX-{n}"));
    for kill in 0..kills {
        // One that the sidecar has acknowledged before anything dies.
        let id = ids.next().unwrap();
        let receipt = client.revoke(&id).await.unwrap();
        let request = v1::GetRevocationRequest {
            sequence: receipt.removal.unwrap().sequence,
            wait: true,
        };
        let answer = client.revocations.get_revocation(request).await.unwrap();
        let receipt = answer.into_inner().receipt.unwrap();
        assert_eq!(receipt.completion(), Completion::Complete, "kill {kill}");
        promised.insert(id.clone());
        complete.insert(id);
        let the_registry = dice.often(50);
        let moment = Duration::from_micros(u64::try_from(dice.roll(12_000)).unwrap());
        // Revocations under way while the process dies.
        let load = async {
            for _ in 1..each {
                let id = ids.next().unwrap();
                if client.revoke(&id).await.is_ok() {
                    promised.insert(id);
                }
            }
        };
        let death = async {
            sleep(moment).await;
            if the_registry {
                drop(registry.0.kill());
            } else {
                drop(running.0.kill());
            }
        };
        drop(timeout(Duration::from_secs(5), async { tokio::join!(load, death) }).await);
        if the_registry {
            // Meanwhile compliant calls go on.
            for _ in 0..20 {
                assert_eq!(
                    sidecar.outcome("agent", "plain").await,
                    "ALLOW OK",
                    "kill {kill}"
                );
            }
            drop(registry);
            registry = fleet.registry();
            client = fleet.client().await;
        } else {
            drop(running);
            running = fleet.sidecar();
            sidecar = fleet.answers().await;
        }
        for id in &complete {
            let action = id.replace("EX-", "risky-");
            let said = sidecar.outcome("agent", &action).await;
            assert!(
                !said.starts_with("ALLOW"),
                "kill {kill}: {id} was acknowledged: {said}"
            );
        }
        let mut removals = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListRevocationsRequest {
                page_size: 1_000,
                page_token,
            };
            let page = client.revocations.list_revocations(request).await.unwrap();
            let page = page.into_inner();
            removals.extend(page.removals);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let known: BTreeSet<String> = removals
            .into_iter()
            .filter_map(|removal| match removal.target?.target? {
                v1::target::Target::Exception(id) => Some(id),
                _ => None,
            })
            .collect();
        let lost: Vec<_> = promised.difference(&known).collect();
        assert!(
            lost.is_empty(),
            "kill {kill}: {lost:?} were promised and are not there"
        );
    }
    // In the end everything promised is refused, and what was not revoked is honoured again.
    for id in &promised {
        let action = id.replace("EX-", "risky-");
        sidecar.until("agent", &action, "EXC_REVOKED").await;
    }
    println!(
        "{} revocations promised, {} of them seen complete",
        promised.len(),
        complete.len()
    );
}

/// E1, E2: whichever process is killed, and when, every allow that was answered and rests on an
/// exception has its record at the registry, once.
#[tokio::test]
async fn e1_every_use_that_was_answered_is_at_the_registry_once() {
    let variable = |name: &str| {
        std::env::vars()
            .find(|(known, _)| known == name)
            .and_then(|(_, value)| value.parse::<usize>().ok())
    };
    let kills = variable("EXEAT_KILLS").unwrap_or(12);
    let seed = Dice::seed();
    println!("seed {seed}, {kills} kills; EXEAT_SEED={seed} repeats the choices");
    let mut dice = Dice::new(seed);
    let mut fleet = Fleet::new();
    let mut registry = fleet.registry();
    let mut client = fleet.client().await;
    fleet.begin(&mut client).await;
    let mut running = fleet.sidecar();
    let sidecar = fleet.answers().await;
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;

    let askers = Askers::start(&fleet, 8);
    for _ in 0..kills {
        // It is under load that they die, however slow the machine is.
        askers.more(&fleet).await;
        sleep(Duration::from_micros(
            u64::try_from(dice.roll(60_000)).unwrap(),
        ))
        .await;
        if dice.often(40) {
            drop(registry);
            registry = fleet.registry();
            client = fleet.client().await;
        } else {
            drop(running);
            running = fleet.sidecar();
            fleet.answers().await;
        }
    }
    let answered = askers.stop().await;
    assert!(answered.len() >= kills, "{}", answered.len());
    let recorded = each_once(&mut client, &answered).await;
    println!("{} answered, {recorded} recorded", answered.len());
    drop(running);
}
