//! A sidecar whose disk is really full: a small filesystem of its own, which root may mount.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::governed::{Registry, Sidecar, control, noon, world};
use exeat::{runtime::clock::Clock, wire::v1};

/// A filesystem of half a megabyte.
struct Small(PathBuf);

impl Small {
    fn mounted(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
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
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
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
    let small = Small::mounted(&data);
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
