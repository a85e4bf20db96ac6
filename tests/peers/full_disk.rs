//! A disk that is really full, a sidecar's and a registry's: a small filesystem of its own, which root
//! may mount.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::governed::{Registry, Sidecar, control, noon, world};
use exeat::{runtime::clock::Clock, wire::v1};

/// A small filesystem.
struct Small(PathBuf);

impl Small {
    fn mounted(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "this test mounts a small filesystem: run it as root"
        );
        Self(at.to_owned())
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        std::fs::File::create(self.0.join("filler")).unwrap();
        self.fill_on();
    }

    /// Fills what there is again.
    fn fill_on(&self) {
        let mut options = std::fs::File::options();
        let mut filler = options.append(true).open(self.0.join("filler")).unwrap();
        for size in [4_096, 64, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test]
async fn s8_on_a_full_disk_nothing_is_wrong_nothing_is_promised_and_it_recovers() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("r"), clock.clone()).await;
    let mut client = registry.client().await;
    client.apply(&world()).await.unwrap();
    let token = client.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
    let data = scratch.path().join("s");
    let small = Small::mounted(&data, "512k");
    let mut sidecar = Sidecar::start(&data, &registry.address, &registry.key, &token, clock)
        .await
        .unwrap();
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    small.fill();
    // What cannot be kept is not put in force, and is told.
    // More than fits into what the last page of a file has left.
    let many: String = (0..40)
        .map(|n| control(&format!("CT-N{n}"), "fresh", "true"))
        .collect();
    client.apply(&many).await.unwrap();
    let counted = |page: &str| page.contains("exeat_disk_faults_total{");
    sidecar.until_page(counted).await;
    assert_eq!(sidecar.outcome("agent", "fresh").await, "DENY NO_CONTROL");
    assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
    // What is taken back is taken back at once, and not acknowledged: a restart would forget it.
    let receipt = client.revoke("EX-1").await.unwrap();
    let sequence = receipt.removal.unwrap().sequence;
    sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let receipt = client.receipt(sequence, false).await;
    assert_eq!(receipt.completion(), v1::Completion::Pending);
    assert!(receipt.acknowledged.is_empty(), "{receipt:?}");
    small.empty();
    sidecar.until("agent", "fresh", "CONTROL_FAILED").await;
    let receipt = client.receipt(sequence, true).await;
    assert_eq!(receipt.completion(), v1::Completion::Complete);
    assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
    sidecar.process.stop().await;
}

/// What is taken back is written with space that is kept for it, many times over, and heard by
/// sidecars that come anew; nothing else is written until there is room.
#[tokio::test]
async fn on_a_full_disk_a_registry_still_takes_back() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let folder = scratch.path().join("r");
    let small = Small::mounted(&folder, "24m");
    let mut registry = Registry::start(&folder, clock.clone()).await;
    let mut client = registry.client().await;
    client.apply(&world()).await.unwrap();
    let token = client.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
    let data = scratch.path().join("s");
    let (address, key) = (registry.address.clone(), registry.key.clone());
    let start = async |clock| Sidecar::start(&data, &address, &key, &token, clock).await;
    let mut first = Some(start(clock.clone()).await.unwrap());
    let before = first.as_ref().unwrap();
    before.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    for round in 0..2 {
        client
            .let_in(&format!("user:r{round}"), v1::Role::Viewer, &[])
            .await;
        small.fill();
        // Until the write-ahead log has no room of its own left either.
        let mut written = 0;
        let refused = loop {
            let more = control(&format!("CT-N{written}"), "fresh", &format!("{round} == 7"));
            match client.apply(&more).await {
                Ok(_) => written += 1,
                Err(refused) => break refused,
            }
            assert!(written < 2_000, "it never was full");
        };
        assert!(refused.message().contains("full"), "{refused:?}");
        if let Some(mut sidecar) = first.take() {
            client.revoke("EX-1").await.unwrap();
            sidecar.until("agent", "risky", "EXC_REVOKED").await;
            let receipt = client.receipt(1, true).await;
            assert_eq!(receipt.completion(), v1::Completion::Complete);
            sidecar.process.stop().await;
        }
        // One that comes anew is written down before it is told anything.
        let mut sidecar = start(clock.clone()).await.unwrap();
        for key in 0..40 {
            let credential = format!("key-{round}-{key}");
            let target = v1::target::Target::Credential(credential);
            let request = v1::RevokeRequest {
                target: Some(v1::Target {
                    target: Some(target),
                }),
                ..v1::RevokeRequest::default()
            };
            let receipt = client.revocations.revoke(request).await.unwrap();
            let sequence = receipt.into_inner().receipt.unwrap().removal.unwrap();
            let receipt = client.receipt(sequence.sequence, true).await;
            assert_eq!(receipt.completion(), v1::Completion::Complete);
            // Others take what there is in between: room on the disk, and in what the log has left.
            small.fill_on();
            let more = control(&format!("CT-K{key}"), "fresh", "true");
            drop(client.apply(&more).await);
        }
        let expel = v1::ExpelRequest {
            identity: format!("user:r{round}"),
        };
        client.fleet.expel(expel).await.unwrap();
        sidecar.process.stop().await;
        // It also begins again on a full disk.
        registry.process.stop().await;
        registry = Registry::start_at(&folder, clock.clone(), &address, &[])
            .await
            .unwrap();
        client = registry.client().await;
        let refused = client.revoke("EX-1").await.unwrap();
        assert_eq!(refused.removal.unwrap().sequence, 1);
        small.empty();
        client
            .apply(&control("CT-MORE", "fresh", "true"))
            .await
            .unwrap();
    }
}
