//! A registry and a sidecar, each a process of its own, over a wire that is cut, stands still or
//! drips (reliability §10.2).

use std::time::Duration;

use crate::support::{
    governed::{Client, Sidecar, control},
    processes::{Fleet, Running},
    wire::{Passage, Wire},
};
use exeat::{runtime::clock::Clock, wire::v1::Completion};

const EXCEPTED: &str = "ALLOW_BY_EXCEPTION";
const LAPSED: &str = "EXC_LEASE_LAPSED";

/// Exceptions are honoured for two seconds without the registry.
const SHORT: &str =
    "---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: LOW\nlease_ttl: 2s\nmax_staleness: 3s\n";

struct Parted {
    _registry: Running,
    _sidecar: Running,
    wire: Wire,
    client: Client,
    sidecar: Sidecar,
    _fleet: Fleet,
}

impl Parted {
    /// Both run, and the exception is honoured.
    async fn start() -> Self {
        let mut fleet = Fleet::new();
        let registry = fleet.registry();
        let mut client = fleet.client().await;
        fleet.begin(&mut client).await;
        client.apply(SHORT).await.unwrap();
        let wire = Wire::to(fleet.registry_at.clone()).await;
        fleet.registry_at = wire.address.to_string();
        let process = fleet.sidecar();
        let sidecar = fleet.answers().await;
        sidecar.until("agent", "risky", EXCEPTED).await;
        Self {
            _registry: registry,
            _sidecar: process,
            wire,
            client,
            sidecar,
            _fleet: fleet,
        }
    }

    /// Exceptions end, and compliant calls go on.
    async fn ends(&self) {
        self.sidecar.until("agent", "risky", LAPSED).await;
        assert_eq!(self.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    }
}

#[tokio::test]
async fn s3_over_a_wire_that_is_cut_exceptions_end_and_begin_again() {
    let mut parted = Parted::start().await;
    let now = Clock::system().now().latest.micros() / 1_000_000;
    parted.wire.cut();
    parted.ends().await;
    let receipt = parted.client.revoke("EX-1").await.unwrap();
    // It may know the standard's lease alone; after that nobody can honour it.
    assert_eq!(receipt.completion(), Completion::Pending, "{receipt:?}");
    let bounded = receipt.effective_by.unwrap().seconds - now;
    assert!((280..=305).contains(&bounded), "{receipt:?}");
    parted.wire.mend();
    parted.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let receipt = parted.client.receipt(1, true).await;
    assert_eq!(receipt.completion(), Completion::Complete, "{receipt:?}");
}

#[tokio::test]
async fn s3_over_a_wire_that_stands_still_either_way_exceptions_end() {
    let mut parted = Parted::start().await;
    parted.wire.down(Passage::Frozen);
    parted.ends().await;
    parted.wire.mend();
    parted.sidecar.until("agent", "risky", EXCEPTED).await;
    // The same where nonces do not arrive.
    parted.wire.up(Passage::Frozen);
    parted.ends().await;
    parted.client.revoke("EX-1").await.unwrap();
    parted.wire.mend();
    parted.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let receipt = parted.client.receipt(1, true).await;
    assert_eq!(receipt.completion(), Completion::Complete, "{receipt:?}");
}

#[tokio::test]
async fn s14_over_a_wire_that_drips_a_change_is_given_up_and_removals_arrive() {
    let mut parted = Parted::start().await;
    // Five kilobytes a second.
    parted.wire.down(Passage::Drip(100));
    let large: String = (0..400)
        .map(|n| control(&format!("CT-{n}"), "other", "true"))
        .collect();
    parted.client.apply(&large).await.unwrap();
    parted.client.revoke("EX-1").await.unwrap();
    parted.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let none = "NO_CONTROL";
    assert!(
        parted
            .sidecar
            .outcome("agent", "other")
            .await
            .contains(none)
    );
    assert_eq!(parted.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    parted.wire.mend();
    let fails = "CONTROL_FAILED";
    for _ in 0..20 {
        if parted
            .sidecar
            .outcome("agent", "other")
            .await
            .contains(fails)
        {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    parted.sidecar.until("agent", "other", fails).await;
}
