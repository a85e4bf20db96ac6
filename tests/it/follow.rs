//! A sidecar that follows a registry: push, lease, disk, restore, lies.

use std::path::Path;

use crate::support::governed;
use crate::support::governed::{
    Client, Registry, Sidecar, control, exception, noon, seconds, subject, world,
};
use crate::support::wire::Wire;
use exeat::{
    domain::Timestamp,
    registry,
    runtime::clock::Clock,
    wire::v1::{self, Completion},
};
use tonic::Code;

struct Both {
    scratch: tempfile::TempDir,
    clock: Clock,
    registry: Registry,
    client: Client,
    wire: Wire,
    token: String,
    sidecar: Sidecar,
}

impl Both {
    async fn start() -> Self {
        Self::with(&world(), &["*"]).await
    }

    async fn with(text: &str, scope: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let registry = Registry::start(&scratch.path().join("r"), clock.clone()).await;
        let mut client = registry.client().await;
        client.apply(text).await.unwrap();
        let token = client.let_in("service:s1", v1::Role::Sidecar, scope).await;
        let wire = Wire::to(registry.address.clone()).await;
        let sidecar = Sidecar::start(
            &scratch.path().join("s"),
            &wire.address.to_string(),
            &registry.key,
            &token,
            clock.clone(),
        )
        .await
        .unwrap();
        Self {
            scratch,
            clock,
            registry,
            client,
            wire,
            token,
            sidecar,
        }
    }

    fn data(&self) -> std::path::PathBuf {
        self.scratch.path().join("s")
    }

    /// Kills the sidecar, does something to its data, and starts it anew.
    async fn restart(&mut self, between: impl FnOnce(&Path)) {
        self.sidecar.process.kill().await;
        // A write that was under way ends in a thread of its own, and holds the folder until then.
        let lock = std::fs::File::open(self.data().join("lock")).unwrap();
        tokio::task::spawn_blocking(move || {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        })
        .await
        .unwrap();
        between(&self.data());
        self.sidecar = Sidecar::start(
            &self.data(),
            &self.wire.address.to_string(),
            &self.registry.key,
            &self.token,
            self.clock.clone(),
        )
        .await
        .unwrap();
    }
}

const EXCEPTED: &str = "ALLOW_BY_EXCEPTION";

#[tokio::test]
async fn a_revocation_reaches_the_sidecar_and_the_receipt_says_so() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    assert_eq!(both.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    let receipt = both.client.revoke("EX-1").await.unwrap();
    let sequence = receipt.removal.unwrap().sequence;
    both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let receipt = both.client.receipt(sequence, true).await;
    assert_eq!(receipt.completion(), Completion::Complete);
    assert_eq!(receipt.acknowledged, ["service:s1"]);
    assert_eq!(both.sidecar.outcome("agent", "plain").await, "ALLOW OK");
}

#[tokio::test]
async fn s3_without_the_registry_exceptions_end_at_the_lease_and_compliant_calls_go_on() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    both.wire.cut();
    let receipt = both.client.revoke("EX-1").await.unwrap();
    assert_eq!(receipt.outstanding.len(), 1);
    both.clock.advance(seconds(298));
    assert!(
        both.sidecar
            .outcome("agent", "risky")
            .await
            .starts_with(EXCEPTED),
        "the lease runs"
    );
    both.clock.advance(seconds(3));
    let said = both.sidecar.outcome("agent", "risky").await;
    assert!(said.contains("EXC_LEASE_LAPSED"), "{said}");
    assert_eq!(both.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    let page = both.sidecar.page("/metrics").await;
    assert!(
        page.contains("exeat_lease_remaining_seconds{tier=\"LOW\"} 0"),
        "{page}"
    );
    for wanted in [
        "exeat_lease_budget_seconds{tier=\"LOW\"} 300",
        "exeat_stale_refusals_total{tier=\"LOW\"} ",
        // Noon.
        "exeat_registry_last_contact_timestamp_seconds 17953488",
    ] {
        assert!(page.contains(wanted), "{wanted} is not in {page}");
    }
    // After the instant of the receipt it is bounded, whoever is silent.
    both.clock.advance(seconds(10));
    let receipt = both.client.receipt(1, false).await;
    assert_eq!(
        receipt.completion(),
        Completion::Bounded,
        "no lease is left: {receipt:?}"
    );
    // Back in contact it hears of the revocation first.
    both.wire.mend();
    both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
}

#[tokio::test]
async fn every_stale_exception_is_explained_with_its_budget_and_the_last_contact() {
    let mut both = Both::start().await;
    both.client
        .apply(&exception("EX-2", "CT-RISKY", "agent"))
        .await
        .unwrap();
    both.sidecar.process.kill().await;
    let bound = [("subject", "agent")];
    let sidecar = Sidecar::start_with(
        &both.scratch.path().join("bound"),
        &both.wire.address.to_string(),
        &both.registry.key,
        &both.token,
        both.clock.clone(),
        &bound,
    )
    .await
    .unwrap();
    sidecar.until("agent", "risky", EXCEPTED).await;
    both.wire.cut();
    both.clock.advance(seconds(301));
    let explained = sidecar
        .ask_with(|request| {
            request.action = "risky".into();
            request.explain = true;
        })
        .await
        .unwrap();
    let ids: Vec<_> = explained
        .stale
        .iter()
        .map(|one| &*one.exception_id)
        .collect();
    assert_eq!(ids, ["EX-1", "EX-2"], "{explained:?}");
    for stale in &explained.stale {
        let wanted = "tier LOW: the registry heard within 5m";
        assert!(stale.wanted.starts_with(wanted), "{stale:?}");
        for part in ["heard 301.", "current 301.", " s ago (2026-11-22T12:00:0"] {
            assert!(stale.met.contains(part), "{part} is not in {stale:?}");
        }
    }
}

#[tokio::test]
async fn a_frozen_subject_is_denied_at_once_and_stays_so_without_the_registry() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "plain", "ALLOW OK").await;
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        note: "looks odd".into(),
    };
    both.client.revocations.freeze(freeze).await.unwrap();
    both.sidecar.until("agent", "plain", "SUBJECT_LOCKED").await;
    both.wire.cut();
    both.clock.advance(seconds(100_000));
    assert!(
        both.sidecar
            .outcome("agent", "plain")
            .await
            .contains("SUBJECT_LOCKED")
    );
    both.restart(|_| {}).await;
    both.sidecar.until("agent", "plain", "SUBJECT_LOCKED").await;
    both.wire.mend();
    let thaw = v1::ThawRequest {
        subject: "agent".into(),
        note: String::new(),
    };
    both.client.revocations.thaw(thaw).await.unwrap();
    both.sidecar.until("agent", "plain", "ALLOW").await;
}

#[tokio::test]
async fn after_a_restart_compliant_calls_are_answered_at_once_and_exceptions_wait() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    both.client
        .apply(&control("CT-NEW", "fresh", "true"))
        .await
        .unwrap();
    both.sidecar.until("agent", "fresh", "CONTROL_FAILED").await;
    both.wire.cut();
    both.restart(|_| {}).await;
    assert_eq!(both.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    assert!(
        both.sidecar
            .outcome("agent", "fresh")
            .await
            .contains("CONTROL_FAILED"),
        "deltas too"
    );
    let said = both.sidecar.outcome("agent", "risky").await;
    assert!(said.contains("EXC_LEASE_LAPSED"), "{said}");
    both.wire.mend();
    both.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn damaged_files_are_never_believed_and_always_told() {
    let flip = |path: &Path, at: usize| {
        let mut bytes = std::fs::read(path).unwrap();
        let place = at.min(bytes.len() - 1);
        bytes[place] ^= 0x10;
        std::fs::write(path, bytes).unwrap();
    };
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    both.client.revoke("EX-1").await.unwrap();
    both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    both.client.receipt(1, true).await;
    both.wire.cut();
    for (file, at) in [
        ("state", 400),
        ("state", 30),
        ("removals", 40),
        ("state", 0),
    ] {
        both.restart(|data| flip(&data.join(file), at)).await;
        assert_eq!(
            both.sidecar.outcome("agent", "plain").await,
            "Unavailable",
            "{file} at {at}"
        );
        let page = both.sidecar.page("/metrics").await;
        assert!(
            page.contains(&format!("exeat_disk_faults_total{{file=\"{file}\"}} 1")),
            "{page}"
        );
        // The registry sends it again.
        both.wire.mend();
        both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
        both.wire.cut();
    }
}

#[tokio::test]
async fn s1_an_older_copy_put_back_is_refused() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    let (state, removals) = (both.data().join("state"), both.data().join("removals"));
    let old = (
        std::fs::read(&state).unwrap(),
        std::fs::read(&removals).unwrap(),
    );
    both.client
        .apply(&control("CT-PLAIN", "plain", "true"))
        .await
        .unwrap();
    both.sidecar.until("agent", "plain", "CONTROL_FAILED").await;
    both.wire.cut();
    both.restart(|_| std::fs::write(&state, &old.0).unwrap())
        .await;
    assert_eq!(both.sidecar.outcome("agent", "plain").await, "Unavailable");
    both.wire.mend();
    both.sidecar.until("agent", "plain", "CONTROL_FAILED").await;

    both.client.revoke("EX-1").await.unwrap();
    both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    both.client.receipt(1, true).await;
    both.wire.cut();
    both.restart(|_| std::fs::write(&removals, &old.1).unwrap())
        .await;
    assert_eq!(both.sidecar.outcome("agent", "risky").await, "Unavailable");
}

#[tokio::test]
async fn a_damaged_place_of_the_floor_and_damaged_keys_are_told() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    both.client.revoke("EX-1").await.unwrap();
    both.client.receipt(1, true).await;
    both.wire.cut();
    for place in [20, 532] {
        both.restart(|data| {
            let path = data.join("floor");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[place] ^= 0x10;
            std::fs::write(path, bytes).unwrap();
            if place > 512 {
                std::fs::write(data.join("trust"), [7; 40]).unwrap();
            }
        })
        .await;
        let page = both.sidecar.page("/metrics").await;
        assert!(
            page.contains("exeat_disk_faults_total{file=\"floor\"} 1"),
            "{page}"
        );
        assert_eq!(
            page.contains("exeat_disk_faults_total{file=\"trust\"} 1"),
            place > 512,
            "{page}"
        );
        // One place is enough; with none nothing can be told from an older copy.
        let plain = both.sidecar.outcome("agent", "plain").await;
        assert_eq!(plain == "ALLOW OK", place < 512, "{plain}");
    }
}

#[tokio::test]
async fn s1_a_whole_older_folder_is_told_by_what_the_registry_knows_was_acknowledged() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "plain", "ALLOW OK").await;
    let copy = both.scratch.path().join("copy");
    // Stopped meanwhile, so that the copy is of one moment.
    both.restart(|data| {
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(data).unwrap() {
            let file = file.unwrap();
            // What belongs to a connection of SQLite may go meanwhile.
            let _ = std::fs::copy(file.path(), copy.join(file.file_name()));
        }
    })
    .await;
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        note: String::new(),
    };
    both.client.revocations.freeze(freeze).await.unwrap();
    both.client.receipt(1, true).await;
    let page = both.sidecar.page("/metrics").await;
    assert!(!page.contains("exeat_disk_faults_total{"), "{page}");
    both.restart(|data| {
        for file in std::fs::read_dir(&copy).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), data.join(file.file_name())).unwrap();
        }
    })
    .await;
    both.sidecar.until("agent", "plain", "SUBJECT_LOCKED").await;
    both.sidecar
        .until_page(|page| page.contains("exeat_disk_faults_total{file=\"floor\"} 1"))
        .await;
}

#[tokio::test]
async fn a_write_that_was_cut_loses_nothing_but_itself() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    both.wire.cut();
    both.restart(|data| {
        let path = data.join("state");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend([0, 0, 1, 0, 3, 7, 7]);
        std::fs::write(&path, bytes).unwrap();
    })
    .await;
    assert_eq!(both.sidecar.outcome("agent", "plain").await, "ALLOW OK");
}

#[tokio::test]
async fn s4_what_a_restored_registry_lost_the_sidecar_gives_back() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    let folder = both.scratch.path().join("r");
    let copy = both.scratch.path().join("copy.db");
    registry::backup(&folder, &copy).await.unwrap();
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        note: String::new(),
    };
    both.client.revocations.freeze(freeze).await.unwrap();
    both.sidecar.until("agent", "plain", "SUBJECT_LOCKED").await;
    let thaw = v1::ThawRequest {
        subject: "agent".into(),
        note: String::new(),
    };
    both.client.revocations.thaw(thaw).await.unwrap();
    both.client.revoke("EX-1").await.unwrap();
    both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    both.client.receipt(3, true).await;

    let listen = both.registry.address.clone();
    both.registry.process.stop().await;
    let path = folder.join("registry.db");
    for end in ["-wal", "-shm"] {
        drop(std::fs::remove_file(format!("{}{end}", path.display())));
    }
    std::fs::rename(&copy, &path).unwrap();
    registry::recover(&folder, 0, both.clock.clone())
        .await
        .unwrap();
    let restored = Registry::start_at(&folder, both.clock.clone(), &listen, &[])
        .await
        .unwrap();
    let mut client = restored.client().await;
    // The sidecar says what it holds, and the registry takes it in under its own log.
    let mut found = Vec::new();
    for _ in 0..2_000 {
        let list = client
            .revocations
            .list_revocations(v1::ListRevocationsRequest::default());
        found = list.await.unwrap().into_inner().removals;
        if !found.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(
        found.len(),
        1,
        "what was thawed is not frozen anew: {found:?}"
    );
    assert!(
        both.sidecar
            .outcome("agent", "risky")
            .await
            .contains("EXC_REVOKED")
    );
    // And it follows again: what is applied now arrives.
    client
        .apply(&control("CT-NEW", "fresh", "true"))
        .await
        .unwrap();
    both.sidecar.until("agent", "fresh", "CONTROL_FAILED").await;
    assert!(
        both.sidecar
            .outcome("agent", "risky")
            .await
            .contains("EXC_REVOKED")
    );
}

#[tokio::test]
async fn a_registry_that_lost_what_a_sidecar_holds_stops_writing() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    let folder = both.scratch.path().join("r");
    let path = folder.join("registry.db");
    let listen = both.registry.address.clone();
    // As if the machine had gone back to an earlier image: nothing says that it is a copy.
    both.registry.process.stop().await;
    let old = std::fs::read(&path).unwrap();
    let note = folder.join("ledger.checkpoint");
    let signed = std::fs::read(&note).unwrap();
    let mut again = Registry::start_at(&folder, both.clock.clone(), &listen, &[])
        .await
        .unwrap();
    let mut client = again.client().await;
    client
        .apply(&control("CT-NEW", "fresh", "true"))
        .await
        .unwrap();
    both.sidecar.until("agent", "fresh", "CONTROL_FAILED").await;
    drop(client);
    again.process.stop().await;
    for end in ["-wal", "-shm"] {
        drop(std::fs::remove_file(format!("{}{end}", path.display())));
    }
    std::fs::write(&path, old).unwrap();
    std::fs::write(&note, signed).unwrap();
    let back = Registry::start_at(&folder, both.clock.clone(), &listen, &[])
        .await
        .unwrap();
    let mut client = back.client().await;
    let why = read_only(&mut client).await;
    assert!(why.contains("exeat registry recover"), "{why}");
    assert_eq!(both.sidecar.outcome("agent", "plain").await, "ALLOW OK");
}

#[tokio::test]
async fn a_registry_with_another_key_is_not_believed() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("r"), clock.clone()).await;
    let mut client = registry.client().await;
    client.apply(&world()).await.unwrap();
    let token = client.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
    let pinned = format!("ed25519:{}", "ab".repeat(32));
    let sidecar = Sidecar::start(
        &scratch.path().join("s"),
        &registry.address,
        &pinned,
        &token,
        clock,
    )
    .await
    .unwrap();
    let mut page = String::new();
    for _ in 0..2_000 {
        page = sidecar.page("/metrics").await;
        if page.contains("exeat_registry_refused_total{reason=\"signature\"}") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(page.contains("reason=\"signature\""), "{page}");
    let refused = sidecar.ask("agent", "plain").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "nothing to decide from");
}

#[tokio::test]
async fn s9_a_sidecar_holds_its_scope_alone_and_moves_follow() {
    let text = governed::domain("here")
        + &governed::domain("there")
        + &control("CT-RISKY", "risky", "true")
        + &control("CT-PLAIN", "plain", "false")
        + &subject("agent", Some("here"))
        + &subject("other", Some("there"))
        + &exception("EX-1", "CT-RISKY", "agent")
        + &exception("EX-2", "CT-RISKY", "other")
        + &control("CT-ODD", "odd", "true")
        + &exception("EX-3", "CT-ODD", "other").replace("actions: [risky]", "actions: [odd]");
    let mut both = Both::with(&text, &["domain:here"]).await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    assert!(
        both.sidecar
            .outcome("other", "plain")
            .await
            .contains("SUBJECT_UNKNOWN")
    );
    // Taken back while it is nothing to this sidecar, and still taken back once it is.
    both.client.revoke("EX-3").await.unwrap();
    let receipt = both.client.receipt(1, true).await;
    assert_eq!(receipt.completion(), Completion::Complete);
    let state = std::fs::read(both.data().join("state")).unwrap();
    let holds = |state: &[u8], text: &str| state.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds(&state, "EX-1") && !holds(&state, "EX-2"));
    both.client
        .apply(&subject("other", Some("here")))
        .await
        .unwrap();
    both.sidecar.until("other", "risky", EXCEPTED).await;
    let odd = both.sidecar.outcome("other", "odd").await;
    assert!(odd.contains("EXC_REVOKED"), "{odd}");
    both.client
        .apply(&subject("other", Some("there")))
        .await
        .unwrap();
    both.sidecar
        .until("other", "plain", "SUBJECT_UNKNOWN")
        .await;
    assert!(
        both.sidecar
            .outcome("agent", "risky")
            .await
            .starts_with(EXCEPTED)
    );
}

#[tokio::test]
async fn t3_a_forward_jump_of_the_sidecars_clock_does_no_lasting_harm() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("r"), clock.clone()).await;
    let mut client = registry.client().await;
    client.apply(&world()).await.unwrap();
    let token = client.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
    // A year ahead of the registry: it is the registry's time that counts.
    let ahead = Clock::manual(Timestamp::parse("2027-11-22T12:00:00Z").unwrap());
    let sidecar = Sidecar::start(
        &scratch.path().join("s"),
        &registry.address,
        &registry.key,
        &token,
        ahead,
    )
    .await
    .unwrap();
    sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn over_tls_a_certificate_says_who_a_sidecar_is_and_a_forged_one_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let (data, other) = (scratch.path().join("r"), scratch.path().join("other"));
    let made = registry::init(&data, "acme.example", &[], None, clock.clone())
        .await
        .unwrap();
    assert_eq!(made.sidecar.identity, "spiffe://acme.example/sidecar/local");
    let again = registry::init(&data, "acme.example", &[], None, clock.clone()).await;
    assert!(again.is_err(), "an authority is not replaced");
    let forged = registry::init(&other, "acme.example", &[], None, clock.clone())
        .await
        .unwrap();
    let mut registry = Registry::start(&data, clock.clone()).await;
    let start = |name: &'static str, sidecar: registry::Issued| {
        Sidecar::start_tls(
            scratch.path().join(name),
            registry.address.clone(),
            registry.key.clone(),
            made.ca.clone(),
            sidecar,
            clock.clone(),
        )
    };
    let liar = start("liar", forged.sidecar).await.unwrap();
    let good = start("good", made.sidecar.clone()).await.unwrap();
    let mut client = registry.client_tls(&made.ca).await;
    client.apply(&world()).await.unwrap();
    good.until("agent", "risky", EXCEPTED).await;
    assert_eq!(
        liar.outcome("agent", "plain").await,
        "Unavailable",
        "gets nothing"
    );
    let sidecars = client
        .fleet
        .list_sidecars(v1::ListSidecarsRequest {})
        .await
        .unwrap();
    let names: Vec<_> = sidecars
        .into_inner()
        .sidecars
        .into_iter()
        .map(|s| s.name)
        .collect();
    assert_eq!(names, ["spiffe://acme.example/sidecar/local"]);
    // Plain text is not spoken.
    let plain =
        tonic::transport::Endpoint::from_shared(format!("http://{}", registry.address)).unwrap();
    let mut plain =
        v1::fleet_service_client::FleetServiceClient::new(plain.connect().await.unwrap());
    assert!(plain.get_status(v1::GetStatusRequest {}).await.is_err());
    // Who is shut out is cut off.
    let expel = v1::ExpelRequest {
        identity: made.sidecar.identity,
    };
    client.fleet.expel(expel).await.unwrap();
    client
        .apply(&control("CT-NEW", "fresh", "true"))
        .await
        .unwrap();
    for _ in 0..20 {
        assert!(
            !good
                .outcome("agent", "fresh")
                .await
                .contains("CONTROL_FAILED"),
            "gets no more"
        );
    }
    registry.process.stop().await;
}

#[tokio::test]
async fn a_new_key_is_followed_on_the_old_ones_word() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    let (folder, listen) = (both.scratch.path().join("r"), both.registry.address.clone());
    both.registry.process.stop().await;
    let (old, new) = registry::rotate(&folder, both.clock.clone()).await.unwrap();
    assert_eq!(old, both.registry.key);
    let again = Registry::start_at(&folder, both.clock.clone(), &listen, &[])
        .await
        .unwrap();
    assert_eq!(again.key, new);
    let mut client = again.client().await;
    client.revoke("EX-1").await.unwrap();
    both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    client
        .apply(&control("CT-NEW", "fresh", "true"))
        .await
        .unwrap();
    both.sidecar.until("agent", "fresh", "CONTROL_FAILED").await;
    // Kept on disk: what the new key signed is believed after a restart, without the registry.
    both.wire.cut();
    both.restart(|_| {}).await;
    assert!(
        both.sidecar
            .outcome("agent", "fresh")
            .await
            .contains("CONTROL_FAILED")
    );
}

/// Waits until the registry says why it takes no changes.
async fn read_only(client: &mut Client) -> String {
    for _ in 0..2_000 {
        let status = client
            .fleet
            .get_status(v1::GetStatusRequest {})
            .await
            .unwrap();
        let why = status.into_inner().read_only;
        if !why.is_empty() {
            return why;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it takes changes");
}

#[tokio::test]
async fn s12_a_registry_that_has_become_another_is_noticed_even_when_it_is_further() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    let folder = both.scratch.path().join("r");
    let path = folder.join("registry.db");
    let listen = both.registry.address.clone();
    both.registry.process.stop().await;
    let old = std::fs::read(&path).unwrap();
    let note = folder.join("ledger.checkpoint");
    let signed = std::fs::read(&note).unwrap();
    let mut again = Registry::start_at(&folder, both.clock.clone(), &listen, &[])
        .await
        .unwrap();
    let mut client = again.client().await;
    client
        .apply(&control("CT-NEW", "fresh", "true"))
        .await
        .unwrap();
    both.sidecar.until("agent", "fresh", "CONTROL_FAILED").await;
    both.wire.cut();
    drop(client);
    again.process.stop().await;
    for end in ["-wal", "-shm"] {
        drop(std::fs::remove_file(format!("{}{end}", path.display())));
    }
    std::fs::write(&path, old).unwrap();
    std::fs::write(&note, signed).unwrap();
    let back = Registry::start_at(&folder, both.clock.clone(), &listen, &[])
        .await
        .unwrap();
    // Other changes, and as many: numbers alone do not tell.
    let mut client = back.client().await;
    for id in ["CT-ONE", "CT-TWO"] {
        client.apply(&control(id, "fresh", "false")).await.unwrap();
    }
    both.wire.mend();
    let why = read_only(&mut client).await;
    assert!(why.contains("saw another ledger"), "{why}");
    let refused = client.apply(&control("CT-X", "x", "true")).await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
}

/// What a greeting is answered, and what a nonce after it is.
async fn greeted(
    registry: &Registry,
    token: &str,
    hello: v1::Hello,
) -> Result<(v1::Welcome, Result<(), tonic::Status>), tonic::Status> {
    use exeat::wire::v1::{
        attend_request::Event, attend_response::Event as Down,
        sync_service_client::SyncServiceClient,
    };
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", registry.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut sync = SyncServiceClient::with_interceptor(channel, governed::Token::of(token));
    let hello = v1::AttendRequest {
        event: Some(Event::Hello(hello)),
    };
    let ping = v1::AttendRequest {
        event: Some(Event::Ping(v1::Ping {
            nonce: vec![9; 16],
            ..v1::Ping::default()
        })),
    };
    let up = tokio_stream::iter([hello, ping]);
    let mut down = sync
        .attend(tokio_stream::StreamExt::chain(
            up,
            tokio_stream::pending::<v1::AttendRequest>(),
        ))
        .await?
        .into_inner();
    let Some(Down::Welcome(welcome)) = down.message().await?.unwrap().event else {
        panic!("no greeting");
    };
    Ok((welcome, down.message().await.map(drop)))
}

async fn era(client: &mut Client) -> Option<v1::Era> {
    let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
    status.unwrap().into_inner().era
}

#[tokio::test]
async fn a8_a_claim_without_proof_stops_nobody() {
    let mut both = Both::start().await;
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    let token = both
        .client
        .let_in("service:liar", v1::Role::Sidecar, &["*"])
        .await;
    let hello = v1::Hello {
        boot_nonce: vec![7; 16],
        era: era(&mut both.client).await,
        held: Some(v1::Head {
            revision: 1 << 40,
            sequence: 1 << 40,
        }),
        ..v1::Hello::default()
    };
    let refused = greeted(&both.registry, &token, hello).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    both.client.revoke("EX-1").await.unwrap();
    both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
}

#[tokio::test]
async fn s3_a_twin_honours_nothing_once_fenced_and_is_waited_out_where_it_cannot_hear() {
    for parted in [false, true] {
        let mut both = Both::start().await;
        both.sidecar.until("agent", "risky", EXCEPTED).await;
        if parted {
            both.wire.cut();
            // So long that nothing is left of its connection at the registry either.
            let mut attended = true;
            while attended {
                let status = both.client.fleet.get_status(v1::GetStatusRequest {}).await;
                attended = status.unwrap().into_inner().sidecars_connected > 0;
            }
        }
        let folder = both.scratch.path().join("twin");
        if parted {
            // A copy of its folder proves nothing: the lock on that one is another.
            std::fs::create_dir(&folder).unwrap();
            for file in std::fs::read_dir(both.data()).unwrap() {
                let file = file.unwrap();
                let _ = std::fs::copy(file.path(), folder.join(file.file_name()));
            }
            std::fs::remove_file(folder.join("evidence.db")).unwrap_or_default();
        }
        let twin = Sidecar::start(
            &folder,
            &both.registry.address,
            &both.registry.key,
            &both.token,
            both.clock.clone(),
        )
        .await
        .unwrap();
        twin.until("agent", "risky", EXCEPTED).await;
        let fenced = |page: &str| page.contains("exeat_sidecars_fenced_total 1");
        both.registry.until_page(fenced).await;
        if !parted {
            both.sidecar
                .until("agent", "risky", "EXC_LEASE_LAPSED")
                .await;
        }
        both.client.revoke("EX-1").await.unwrap();
        twin.until("agent", "risky", "EXC_REVOKED").await;
        if parted {
            // It goes on to the end of its lease, and the receipt says so.
            let said = both.sidecar.outcome("agent", "risky").await;
            assert!(said.starts_with(EXCEPTED), "{said}");
        } else {
            // What is taken back is heard there, though nobody waits for it.
            both.sidecar.until("agent", "risky", "EXC_REVOKED").await;
            let fenced =
                |page: &str| page.contains("exeat_registry_refused_total{reason=\"fenced\"} 1");
            both.sidecar.until_page(fenced).await;
            assert_eq!(both.sidecar.outcome("agent", "plain").await, "ALLOW OK");
            // What needs no exception goes on there, unless its subject is frozen.
            let freeze = v1::FreezeRequest {
                subject: "agent".into(),
                ..v1::FreezeRequest::default()
            };
            both.client.revocations.freeze(freeze).await.unwrap();
            both.sidecar.until("agent", "plain", "SUBJECT_LOCKED").await;
            let thaw = v1::ThawRequest {
                subject: "agent".into(),
                ..v1::ThawRequest::default()
            };
            both.client.revocations.thaw(thaw).await.unwrap();
            both.sidecar.until("agent", "plain", "ALLOW OK").await;
        }
        let mut receipt = both.client.receipt(1, false).await;
        for _ in 0..2_000 {
            if receipt.acknowledged == ["service:s1"] {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            receipt = both.client.receipt(1, false).await;
        }
        let outstanding: Vec<_> = receipt
            .outstanding
            .iter()
            .map(|one| &*one.sidecar)
            .collect();
        assert_eq!(outstanding, ["service:s1 (fenced)"], "{receipt:?}");
        assert_eq!(receipt.completion(), Completion::Pending, "{receipt:?}");
        both.clock.advance(seconds(310));
        let said = both.sidecar.outcome("agent", "risky").await;
        let why = if parted {
            "EXC_LEASE_LAPSED"
        } else {
            "EXC_REVOKED"
        };
        assert!(said.contains(why), "{said}");
        let receipt = both.client.receipt(1, false).await;
        assert_eq!(receipt.completion(), Completion::Bounded, "{receipt:?}");
    }
}

#[tokio::test]
async fn s3_a_receipt_waits_out_a_lease_that_was_shortened_and_tiers_do_not_change() {
    let mut both = Both::start().await;
    let policy = |mode: &str| {
        format!(
            "---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: LOW\nlease_ttl: 5m\nmax_staleness: 1h\nstale_mode: {mode}\n"
        )
    };
    both.client.apply(&policy("BEST_EFFORT")).await.unwrap();
    both.sidecar.until("agent", "risky", EXCEPTED).await;
    both.wire.cut();
    both.client.apply(&policy("STRICT")).await.unwrap();
    let receipt = both.client.revoke("EX-1").await.unwrap();
    let until = |receipt: &v1::RemovalReceipt| receipt.effective_by.unwrap().seconds;
    let now = both.clock.now().latest.micros() / 1_000_000;
    assert!(until(&receipt) > now + 3_500, "{receipt:?}");
    // So also after the registry was started anew.
    let listen = both.registry.address.clone();
    both.registry.process.stop().await;
    let folder = both.scratch.path().join("r");
    both.registry = Registry::start_at(&folder, both.clock.clone(), &listen, &[])
        .await
        .unwrap();
    let mut client = both.registry.client().await;
    let receipt = client.receipt(1, false).await;
    assert!(until(&receipt) > now + 3_500, "{receipt:?}");

    let higher = exception("EX-2", "CT-RISKY", "agent");
    client.apply(&higher).await.unwrap();
    let moderate = higher.replace("tier: LOW", "tier: MODERATE");
    let refused = client.apply(&moderate).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("does not change"), "{refused:?}");
}

#[tokio::test]
async fn of_two_sidecars_with_one_identity_the_earlier_is_fenced() {
    let mut both = Both::start().await;
    let token = both
        .client
        .let_in("service:twin", v1::Role::Sidecar, &["*"])
        .await;
    let hello = |boot| v1::Hello {
        boot_nonce: vec![boot; 16],
        ..v1::Hello::default()
    };
    let counts = async |both: &Both, boot| {
        let (welcome, answered) = greeted(&both.registry, &token, hello(boot)).await.unwrap();
        assert_eq!(welcome.fenced, answered.is_err(), "{answered:?}");
        let code = answered.err().map(|refused| refused.code());
        assert_eq!(code, welcome.fenced.then_some(Code::Aborted));
        !welcome.fenced
    };
    for boot in [1, 1, 2, 2] {
        assert!(counts(&both, boot).await);
    }
    assert!(!counts(&both, 1).await);
    assert!(counts(&both, 2).await);
    // It stays so over a restart of the registry.
    let listen = both.registry.address.clone();
    both.registry.process.stop().await;
    let folder = both.scratch.path().join("r");
    both.registry = Registry::start_at(&folder, both.clock.clone(), &listen, &[])
        .await
        .unwrap();
    assert!(!counts(&both, 1).await);
    assert!(counts(&both, 2).await);
}

#[tokio::test]
async fn everything_that_can_be_revoked_takes_its_exceptions_along() {
    use v1::target::Target;
    let credentials = "credentials:\n  - {id: key-1, kind: API_KEY, state: ACTIVE, store: SECRET_MANAGER, exposed: false}\n";
    let mut text = governed::domain("lab") + &control("CT-PLAIN", "plain", "false");
    for n in 1..=6 {
        let owned = |text: String| text.replace("user:alice", &format!("user:owner{n}"));
        let agent = format!("agent-{n}");
        let metadata = subject(&agent, (n == 4).then_some("lab"));
        text += &if n == 3 {
            // Credentials are no part of what the exception is bound to.
            metadata + credentials
        } else {
            metadata
        };
        text += &control(
            &format!("CT-{n}"),
            "risky",
            &format!("subject.id == 'agent-{n}'"),
        );
        text += &owned(exception(&format!("EX-{n}"), &format!("CT-{n}"), &agent));
    }
    let mut both = Both::with(&text, &["*"]).await;
    for n in 1..=6 {
        both.sidecar
            .until(&format!("agent-{n}"), "risky", EXCEPTED)
            .await;
    }
    let targets = [
        (1, Target::Exception("EX-1".into()), "EXC_REVOKED"),
        (2, Target::Subject("agent-2".into()), "SUBJECT_RETIRED"),
        (3, Target::Credential("key-1".into()), "EXC_REVOKED"),
        (4, Target::Domain("lab".into()), "EXC_REVOKED"),
        (5, Target::Control("CT-5".into()), "EXC_REVOKED"),
        (6, Target::Principal("user:owner6".into()), "EXC_REVOKED"),
    ];
    for (n, target, outcome) in targets {
        let agent = format!("agent-{n}");
        assert!(
            both.sidecar
                .outcome(&agent, "risky")
                .await
                .starts_with(EXCEPTED)
        );
        let request = v1::RevokeRequest {
            target: Some(v1::Target {
                target: Some(target),
            }),
            ..v1::RevokeRequest::default()
        };
        let answer = both.client.revocations.revoke(request.clone()).await;
        let sequence = answer
            .unwrap()
            .into_inner()
            .receipt
            .unwrap()
            .removal
            .unwrap()
            .sequence;
        both.sidecar.until(&agent, "risky", outcome).await;
        let receipt = both.client.receipt(sequence, true).await;
        assert_eq!(receipt.completion(), Completion::Complete);
        // Once is enough.
        let again = both.client.revocations.revoke(request).await;
        let again = again.unwrap().into_inner().receipt.unwrap();
        assert_eq!(again.removal.unwrap().sequence, sequence);
    }
    assert_eq!(both.sidecar.outcome("agent-1", "plain").await, "ALLOW OK");
}

#[tokio::test]
async fn new_certificates_are_used_without_a_restart_and_broken_ones_are_not() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let (data, other) = (scratch.path().join("r"), scratch.path().join("other"));
    let made = registry::init(&data, "acme.example", &[], None, clock.clone())
        .await
        .unwrap();
    let next = registry::init(&other, "acme.example", &[], None, clock.clone())
        .await
        .unwrap();
    let registry = Registry::start(&data, clock.clone()).await;
    let mut client = registry.client_tls(&made.ca).await;
    let shakes = |ca: std::path::PathBuf| {
        let address = registry.address.clone();
        async move {
            let pem = std::fs::read(ca).unwrap();
            let tls = tonic::transport::ClientTlsConfig::new()
                .ca_certificate(tonic::transport::Certificate::from_pem(pem));
            tonic::transport::Endpoint::from_shared(format!("https://{address}"))
                .unwrap()
                .tls_config(tls)
                .unwrap()
                .connect()
                .await
                .is_ok()
        }
    };
    assert!(shakes(made.ca.clone()).await && !shakes(next.ca.clone()).await);
    std::fs::write(&made.registry.key, "no key").unwrap();
    assert!(shakes(made.ca.clone()).await, "the old ones go on");
    std::fs::copy(&next.registry.key, &made.registry.key).unwrap();
    std::fs::copy(&next.registry.certificate, &made.registry.certificate).unwrap();
    let mut shook = false;
    for _ in 0..2_000 {
        shook = shakes(next.ca.clone()).await;
        if shook {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(shook && !shakes(made.ca.clone()).await);
    // Who was connected stays so.
    client.apply(&world()).await.unwrap();
}
