//! The ledger: what the registry accepted is there, and whoever changes it is found out.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::support::governed::{
    Registry, Sidecar, control, domain, files, noon, seconds, subject, world,
};
use exeat::{
    audit::{self, Broken, Key, Note},
    engine::ledger::{Tree, leaf_hash},
    registry,
    runtime::clock::Clock,
    wire::v1,
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// L3: the ledger as static files, which grow with it and say nothing else of what they said.
#[tokio::test]
async fn l3_tiles_are_written_once_and_hold_what_is_signed() {
    let scene = three_changes().await;
    let folder = scene.scratch.path().join("tiles");
    let at = |name: &str| folder.join(name);
    let write = ["tiles", folder.to_str().unwrap()];
    let said = scene.told(&write).await;
    assert!(said.contains("3 changes in "), "{said}");
    let digests = std::fs::read(at("tile/0/000.p/3")).unwrap();
    let mut entries = &*std::fs::read(at("tile/entries/000.p/3")).unwrap();
    let mut tree = Tree::default();
    for digest in digests.chunks(32) {
        let length = usize::from(u16::from_be_bytes([entries[0], entries[1]]));
        let (text, rest) = entries[2..].split_at(length);
        let own = leaf_hash(std::str::from_utf8(text).unwrap());
        assert_eq!(own, digest);
        tree.append(own);
        entries = rest;
    }
    let note = std::fs::read_to_string(at("checkpoint")).unwrap();
    let signed = Note::read(&note).unwrap();
    assert_eq!((signed.size, signed.root), (3, tree.root()));

    // It grows; what was whole stays, and nothing is written twice.
    assert!(scene.told(&write).await.contains("0 files new"));
    for n in 0..254 {
        scene.apply(&domain(&format!("team-{n}"))).await;
    }
    let said = scene.told(&write).await;
    assert!(said.contains("257 changes in "), "{said}");
    let whole = std::fs::read(at("tile/0/000")).unwrap();
    assert_eq!((&whole[..96], whole.len()), (&*digests, 256 * 32));
    assert_eq!(std::fs::read(at("tile/1/000.p/1")).unwrap().len(), 32);

    // A folder of other changes is not written over.
    std::fs::write(at("tile/0/000"), vec![0; 256 * 32]).unwrap();
    let output = scene.audit(&write).await;
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && why.contains("tile/0/000 says something else"),
        "{why}"
    );
    std::fs::write(at("tile/0/000"), whole).unwrap();
    let other = three_changes().await;
    let output = other.audit(&write).await;
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(why.contains("more changes than are signed"), "{why}");
}

/// L2: whoever keeps a checkpoint is told whether the ledger goes on from it, without the rest.
#[tokio::test]
async fn l2_a_ledger_goes_on_from_a_checkpoint_that_was_kept_or_is_told_not_to() {
    let scene = three_changes().await;
    let (kept, key) = (scene.path("kept"), scene.registry.key.clone());
    std::fs::write(&kept, scene.told(&["checkpoint"]).await).unwrap();
    // By its bare name, as people call it.
    let asks = ["extends", "kept", "--key", &key];
    let said = scene.told(&asks).await;
    assert!(said.contains("of 3 changes goes on from the 3"), "{said}");
    for n in 0..4 {
        scene.apply(&domain(&format!("team-{n}"))).await;
    }
    let said = scene.told(&[&asks[..], &["--keep"]].concat()).await;
    assert!(said.contains("of 7 changes goes on from the 3"), "{said}");
    let said = scene.told(&asks).await;
    assert!(said.contains("of 7 changes goes on from the 7"), "{said}");

    // Another key, another ledger.
    let strange = format!("ed25519:{}", "1".repeat(64));
    let refused = scene.audit(&["extends", "kept", "--key", &strange]).await;
    let said = String::from_utf8_lossy(&refused.stdout);
    assert!(
        said.contains("not signed with a key that is trusted"),
        "{said}"
    );
    let other = three_changes().await;
    let keys = ["--key", &key, "--key", &other.registry.key];
    let refused = other
        .audit(&[&["extends", &kept][..], &keys].concat())
        .await;
    let said = String::from_utf8_lossy(&refused.stdout);
    assert!(said.contains("of different ledgers"), "{said}");
    assert_eq!(refused.status.code(), Some(3));
}

/// A registry on disk, and what `exeat audit` says of it.
struct Scene {
    scratch: tempfile::TempDir,
    clock: Clock,
    registry: Registry,
}

impl Scene {
    async fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let registry = Registry::start(&scratch.path().join("r"), clock.clone()).await;
        Self {
            scratch,
            clock,
            registry,
        }
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("r")
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    async fn apply(&self, text: &str) {
        self.registry.client().await.apply(text).await.unwrap();
    }

    async fn audit(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
        command
            .arg("audit")
            .args(args)
            .current_dir(self.scratch.path())
            .env("EXEAT_REGISTRY", &self.registry.address)
            .env("EXEAT_TOKEN", &self.registry.token);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// Audits and expects that it can.
    async fn told(&self, args: &[&str]) -> String {
        let output = self.audit(args).await;
        let said = String::from_utf8(output.stdout).unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}{why}");
        said
    }

    fn keys(&self) -> [Key; 1] {
        [Key::parse(&self.registry.key).unwrap()]
    }

    fn verified(&self, export: &str) -> Result<audit::Verified, Broken> {
        audit::verify(export.as_bytes(), &self.keys(), &[])
    }

    /// Stops it; starts it again after something was done to its file.
    async fn restarted(&mut self) -> Result<(), String> {
        self.registry.process.stop().await;
        self.registry =
            Registry::start_at(&self.data(), self.clock.clone(), "127.0.0.1:0", &[]).await?;
        Ok(())
    }
}

async fn three_changes() -> Scene {
    let scene = Scene::start().await;
    scene.apply(&domain("team")).await;
    scene
        .apply(&domain("team").replace("display_name: team", "display_name: crew"))
        .await;
    let mut client = scene.registry.client().await;
    let revoke = v1::RevokeRequest {
        target: Some(v1::Target {
            target: Some(v1::target::Target::Credential("leaked".into())),
        }),
        note: "seen in a repository".into(),
        ..v1::RevokeRequest::default()
    };
    client.revocations.revoke(revoke).await.unwrap();
    scene
}

#[tokio::test]
async fn every_accepted_change_is_an_entry_and_proves_itself_offline() {
    let scene = Scene::start().await;
    scene.apply(&world()).await;
    let mut client = scene.registry.client().await;
    client.revoke("EX-1").await.unwrap();
    // What is not accepted, or changes nothing, is none.
    client.apply("kind: Nonsense").await.unwrap_err();
    client
        .apply(&control("CT-PLAIN", "plain", "false"))
        .await
        .unwrap();
    let tail = scene.told(&["tail"]).await;
    for wanted in [
        "apply by administrator  user:admin",
        "+ Control CT-RISKY r1",
        "+ Exception EX-1 r1",
        "revoke  user:admin",
        "REVOKE exception EX-1: ADMIN",
    ] {
        assert!(tail.contains(wanted), "{wanted}: {tail}");
    }
    assert_eq!(tail.matches("user:admin").count(), 2, "{tail}");

    let (export, key) = (scene.path("all.jsonl"), scene.registry.key.clone());
    scene.told(&["export", "--out", &export]).await;
    let said = scene.told(&["verify", &export, "--key", &key]).await;
    assert!(
        said.starts_with("ok 11 entries in 2 changes hold"),
        "L1: {said}"
    );
    for what in ["2", "exception/EX-1", "control/CT-PLAIN"] {
        let receipt = scene.path("one.json");
        scene.told(&["prove", what, "--out", &receipt]).await;
        let said = scene.told(&["verify", &receipt, "--key", &key]).await;
        assert!(
            said.contains("is in a ledger of 2 changes, 0 of its entries erased"),
            "{said}"
        );
        let text = std::fs::read_to_string(&receipt).unwrap();
        let lie = text.replace("EX-1", "EX-2").replace("CT-PLAIN", "CT-OTHER");
        let broken = audit::prove(&lie, &scene.keys()).unwrap_err();
        assert!(
            broken.what.contains("is not what was committed to"),
            "{broken}"
        );
    }
    let other = Key::parse(&format!("ed25519:{}", "0".repeat(64))).unwrap();
    let text = std::fs::read_to_string(&export).unwrap();
    let broken = audit::verify(text.as_bytes(), &[other], &[]).unwrap_err();
    assert!(
        broken
            .what
            .contains("not signed with a key that is trusted"),
        "{broken}"
    );
    let missing = scene.audit(&["prove", "exception/EX-9"]).await;
    assert!(String::from_utf8_lossy(&missing.stderr).contains("never a Exception EX-9"));
    assert_eq!(missing.status.code(), Some(2));
}

#[tokio::test]
async fn l4_every_changed_bit_and_every_missing_doubled_or_swapped_line_is_found() {
    let scene = three_changes().await;
    let export = scene.told(&["export"]).await;
    let verified = scene.verified(&export).unwrap();
    assert_eq!((verified.leaves, verified.entries), (3, 8));
    for at in 0..export.len() {
        for bit in 0..8 {
            let mut bytes = export.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let outcome = audit::verify(&*bytes, &scene.keys(), &[]);
            assert!(
                outcome.is_err(),
                "byte {at}, bit {bit}, {:?}: {outcome:?}",
                String::from_utf8_lossy(&bytes[at.saturating_sub(20)..bytes.len().min(at + 20)])
            );
        }
    }
    let lines: Vec<&str> = export.lines().collect();
    let whole = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    assert_eq!(whole(&lines), export);
    for at in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(at);
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        let mut swapped = lines.clone();
        swapped.swap(at, (at + 1) % lines.len());
        for wrong in [without, twice, swapped, lines[..at].to_vec()] {
            assert!(
                scene.verified(&whole(&wrong)).is_err(),
                "line {at}: {wrong:?}"
            );
        }
    }
    for cut in 0..export.len() {
        let outcome = audit::verify(&export.as_bytes()[..cut], &scene.keys(), &[]);
        assert!(outcome.is_err(), "cut at {cut}: {outcome:?}");
    }
}

#[tokio::test]
async fn l2_a_past_that_was_written_anew_with_the_registrys_own_key_contradicts_what_was_kept() {
    let mut scene = Scene::start().await;
    scene.apply(&domain("team")).await;
    let copy = scene.scratch.path().join("copy.db");
    registry::backup(&scene.data(), &copy).await.unwrap();
    scene.apply(&domain("other")).await;
    let kept = scene.told(&["checkpoint"]).await;
    let before = scene.told(&["export"]).await;
    std::fs::write(scene.path("kept"), &kept).unwrap();

    // The file of before, as if nothing had been after it.
    scene.registry.process.stop().await;
    let file = scene.data().join("registry.db");
    for end in ["-wal", "-shm"] {
        drop(std::fs::remove_file(format!("{}{end}", file.display())));
    }
    std::fs::rename(&copy, &file).unwrap();
    registry::recover(&scene.data(), 0, scene.clock.clone())
        .await
        .unwrap();
    scene.registry = Registry::start(&scene.data(), scene.clock.clone()).await;
    scene.apply(&domain("third")).await;
    let after = scene.told(&["export"]).await;
    // It holds by itself: whoever has the key and the file can do that. What was kept says no.
    assert_eq!(scene.verified(&after).unwrap().leaves, 3);
    let since = [Note::read(&kept).unwrap()];
    audit::verify(before.as_bytes(), &scene.keys(), &since).unwrap();
    let broken = audit::verify(after.as_bytes(), &scene.keys(), &since).unwrap_err();
    assert!(
        broken.what.contains("are not those that were signed"),
        "{broken}"
    );
    std::fs::write(scene.path("after"), &after).unwrap();
    let args = [
        "verify",
        &scene.path("after"),
        "--key",
        &scene.registry.key,
        "--since",
        &scene.path("kept"),
    ];
    let output = scene.audit(&args).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[tokio::test]
async fn l2_a_sidecar_that_saw_another_ledger_stops_the_registry() {
    let mut scene = Scene::start().await;
    let mut admin = scene.registry.client().await;
    let token = admin.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
    let author = admin.let_in("user:author", v1::Role::Author, &[]).await;
    scene.apply(&domain("team")).await;
    scene.registry.process.stop().await;
    let file = scene.data().join("registry.db");
    std::fs::copy(&file, scene.path("copy.db")).unwrap();

    let follow = async |scene: &Scene| {
        let data = scene.scratch.path().join("s");
        let (address, key) = (&scene.registry.address, &scene.registry.key);
        Sidecar::start(&data, address, key, &token, scene.clock.clone())
            .await
            .unwrap()
    };
    scene.registry = Registry::start(&scene.data(), scene.clock.clone()).await;
    let world = control("CT-PLAIN", "plain", "false") + &subject("agent", None);
    scene.apply(&world).await;
    let mut sidecar = follow(&scene).await;
    sidecar.until("agent", "plain", "ALLOW").await;
    sidecar.process.stop().await;
    scene.registry.process.stop().await;

    // The same objects at the same revision, by somebody else.
    std::fs::copy(scene.path("copy.db"), &file).unwrap();
    let beside = scene.data().join("ledger.checkpoint");
    let mut known = Registry::start(&scene.data(), scene.clock.clone()).await;
    let status = known.client().await.apply(&world).await.unwrap_err();
    assert!(
        status.message().contains("run `exeat registry recover`"),
        "{}",
        status.message()
    );
    known.process.stop().await;
    // Whoever can do that can do away with what lies beside it.
    std::fs::remove_file(beside).unwrap();
    scene.registry = Registry::start(&scene.data(), scene.clock.clone()).await;
    let mut other = scene.registry.client_with(&author).await;
    other.apply(&world).await.unwrap();
    let _sidecar = follow(&scene).await;
    let mut client = scene.registry.client().await;
    let mut why = String::new();
    for _ in 0..2_000 {
        let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
        why = status.unwrap().into_inner().read_only;
        if !why.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(why.contains("saw another ledger"), "{why:?}");
}

#[tokio::test]
async fn l5_what_is_erased_is_gone_and_the_ledger_proves_as_before() {
    // Long enough that no digest or token holds it by chance.
    const MARK: &str = "employee-4711";
    let mut scene = Scene::start().await;
    let person = format!("apiVersion: exeat/v1\nkind: Person\nid: user:gone\nperson_id: {MARK}\n");
    let stays = "---\napiVersion: exeat/v1\nkind: Person\nid: user:stays\n";
    scene.apply(&format!("{person}{stays}")).await;
    let refused = scene.audit(&["erase", "user:gone"]).await;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("remove it first"), "{why}");
    let prune = v1::ApplyRequest {
        files: files(stays),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    let mut client = scene.registry.client().await;
    client.objects.apply(prune).await.unwrap();
    let kept = scene.told(&["checkpoint"]).await;
    assert!(scene.told(&["export"]).await.contains(MARK));
    let said = scene.told(&["erase", "user:gone"]).await;
    assert!(
        said.starts_with("1 manifests of user:gone are erased"),
        "{said}"
    );

    let export = scene.told(&["export"]).await;
    assert!(!export.contains(MARK));
    let verified = audit::verify(
        export.as_bytes(),
        &scene.keys(),
        &[Note::read(&kept).unwrap()],
    );
    let verified = verified.unwrap();
    assert_eq!((verified.leaves, verified.erased), (3, 1));
    let tail = scene.told(&["tail"]).await;
    assert!(
        tail.contains("(erased)") && tail.contains("erase Person user:gone"),
        "{tail}"
    );
    // Also while it runs.
    let data = scene.data();
    let files = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(
            !bytes
                .windows(MARK.len())
                .any(|part| part == MARK.as_bytes()),
            "{}",
            file.display()
        );
    }
    // Who comes back under that name is somebody new.
    scene.apply(&format!("{person}{stays}")).await;
    scene.restarted().await.unwrap();
}

/// A copy of the files of a registry that has stopped.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

async fn statement(data: &Path, statements: &str) {
    let options = SqliteConnectOptions::new()
        .filename(data.join("registry.db"))
        .foreign_keys(false);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let text = sqlx::AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn l3_a_registry_whose_file_was_changed_does_not_begin() {
    let mut scene = Scene::start().await;
    scene.apply(&world()).await;
    let mut client = scene.registry.client().await;
    client.revoke("EX-1").await.unwrap();
    scene.apply(&domain("team")).await;
    drop(client);
    scene.registry.process.stop().await;
    let granted = "UPDATE edits SET erased = 1, manifest = replace(manifest, 'risky', 'plain') WHERE kind = 3; UPDATE objects SET manifest = replace(manifest, 'risky', 'plain') WHERE kind = 3";
    let another = "UPDATE edits SET erased = 1, id = 'EX-7' WHERE kind = 3; UPDATE objects SET id = 'EX-7' WHERE kind = 3";
    let somebody = "UPDATE edits SET erased = 1, kind = 6, manifest = NULL WHERE kind = 3; DELETE FROM objects WHERE kind = 3";
    let changes = [
        (
            "UPDATE log SET principal = 'user:mallory' WHERE revision = 1",
            "revision 1 of the log",
        ),
        (
            "UPDATE log SET time = time + 1 WHERE revision = 3",
            "revision 3 of the log",
        ),
        (
            "UPDATE edits SET manifest = replace(manifest, 'WAIVER', 'MITIGATED')",
            "revision 1 of the log",
        ),
        (
            "UPDATE edits SET erased = 1, manifest = NULL WHERE kind = 1",
            "has lost what is never erased",
        ),
        (
            "UPDATE removals SET target_id = 'EX-2'",
            "revision 2 of the log",
        ),
        ("DELETE FROM removals", "revision 2 of the log"),
        (
            "INSERT INTO removals SELECT 2, 900000000, act, target_kind, 'EX-9', cause, note, initiator, time FROM removals",
            "does not lead to what was taken back",
        ),
        // An exception that nobody asked for (R28), said to be erased, or to be a person's.
        (
            "UPDATE objects SET manifest = replace(manifest, 'EX-1', 'EX-3')",
            "does not lead to",
        ),
        (granted, "revision 1 of the log"),
        (another, "revision 1 of the log"),
        (somebody, "revision 1 of the log"),
        (
            "DELETE FROM objects WHERE kind = 5",
            "leads to Domain team, which is gone",
        ),
        (
            "UPDATE objects SET revision = 1 WHERE kind = 5",
            "does not lead to Domain team",
        ),
        (
            "UPDATE leaves SET leaf = replace(leaf, 'epoch 1', 'epoch 2') WHERE position = 1",
            "revision 2 of the log",
        ),
        (
            "UPDATE leaves SET position = 7 WHERE position = 2",
            "is not in its ledger's tree|is not where its leaf says",
        ),
        (
            "UPDATE nodes SET hash = zeroblob(32) WHERE level = 1",
            "is not in its ledger's tree",
        ),
        (
            "DELETE FROM nodes WHERE leaf = 0",
            "is not in its ledger's tree",
        ),
        ("UPDATE registry SET epoch = 2", "begins another epoch"),
        (
            "DELETE FROM checkpoints",
            "nothing is signed about the ledger",
        ),
        (
            "UPDATE checkpoints SET note = replace(note, char(10) || '3' || char(10), char(10) || '2' || char(10))",
            "not signed with this registry's key",
        ),
        // The last change, with every trace of it but what was signed.
        (
            "DELETE FROM nodes WHERE leaf = 2; DELETE FROM leaves WHERE revision = 3; DELETE FROM edits WHERE revision = 3; DELETE FROM objects WHERE kind = 5; DELETE FROM log WHERE revision = 3",
            "is not the one that was signed at 3 entries",
        ),
    ];
    for (n, (done, said)) in changes.into_iter().enumerate() {
        // A folder each: whoever was refused may not have let go of theirs.
        let data = scene.scratch.path().join(format!("changed-{n}"));
        copied(&scene.data(), &data);
        statement(&data, done).await;
        let refused = Registry::start_at(&data, scene.clock.clone(), "127.0.0.1:0", &[]).await;
        let why = refused.err().unwrap_or_default();
        let told = said.split('|').any(|said| why.contains(said));
        assert!(told, "L3, {done}: {why}");
    }
    scene.registry = Registry::start(&scene.data(), scene.clock.clone()).await;
    scene.apply(&domain("more")).await;
}

#[tokio::test]
async fn a_log_that_is_older_than_the_ledger_enters_it_once() {
    let mut scene = three_changes().await;
    scene.registry.process.stop().await;
    let older = "DELETE FROM leaves; DELETE FROM nodes; DELETE FROM checkpoints; UPDATE registry SET entered = 0";
    statement(&scene.data(), older).await;
    std::fs::remove_file(scene.data().join("ledger.checkpoint")).unwrap();
    scene.registry = Registry::start(&scene.data(), scene.clock.clone()).await;
    scene.apply(&domain("more")).await;
    let export = scene.told(&["export"]).await;
    assert_eq!(scene.verified(&export).unwrap().leaves, 4);
    scene.restarted().await.unwrap();
    // What has no leaf afterwards was put there by somebody else.
    scene.registry.process.stop().await;
    let planted = "INSERT INTO log (revision, epoch, time, principal, action) VALUES (5, 1, 1900000000000000, 'user:x', 'apply')";
    statement(&scene.data(), planted).await;
    scene.clock.advance(seconds(1_000_000_000));
    let refused = Registry::start_at(&scene.data(), scene.clock.clone(), "127.0.0.1:0", &[]).await;
    let why = refused.err().unwrap_or_default();
    assert!(why.contains("revision 5 of the log has no leaf"), "{why}");
}

#[tokio::test]
async fn a_ledger_verifies_under_the_old_key_and_the_new_one_after_a_rotation() {
    let mut scene = three_changes().await;
    let old = scene.keys();
    scene.registry.process.stop().await;
    registry::rotate(&scene.data(), scene.clock.clone())
        .await
        .unwrap();
    scene.registry = Registry::start(&scene.data(), scene.clock.clone()).await;
    assert_ne!(scene.keys(), old);
    let export = scene.told(&["export"]).await;
    for keys in [old.clone(), scene.keys()] {
        audit::verify(export.as_bytes(), &keys, &[]).unwrap();
    }
    scene.apply(&domain("more")).await;
    let export = scene.told(&["export"]).await;
    scene.verified(&export).unwrap();
    audit::verify(export.as_bytes(), &old, &[]).unwrap_err();
}

#[tokio::test]
async fn nothing_is_erased_unsaid_and_two_checkpoints_of_one_size_are_both_held_to() {
    let scene = three_changes().await;
    let export = scene.told(&["export"]).await;
    let lines: Vec<&str> = export.lines().collect();
    for (line, entry) in [(1, 0), (1, 1), (1, 2), (3, 1)] {
        for forged in [true, false] {
            let mut read: serde_json::Value = serde_json::from_str(lines[line]).unwrap();
            let gone = &mut read["entries"][entry];
            *gone = if forged {
                serde_json::json!({"erased": true, "payload": "{\"action\":\"approve\",\"principal\":\"user:boss\"}"})
            } else {
                serde_json::json!({"erased": true})
            };
            let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            changed[line] = read.to_string();
            let text: String = changed.iter().map(|line| format!("{line}\n")).collect();
            let broken = scene.verified(&text).unwrap_err();
            let wanted = if forged {
                "something is shown of it"
            } else {
                "never erased"
            };
            assert!(broken.what.contains(wanted), "L4, {line} {entry}: {broken}");
        }
    }
    // One who kept what two registries signed for one size has the proof that one of them lied.
    let kept = Note::read(&scene.told(&["checkpoint"]).await).unwrap();
    let mut other = kept.clone();
    other.root = [7; 32];
    for since in [[kept.clone(), other.clone()], [other.clone(), kept.clone()]] {
        audit::verify(export.as_bytes(), &scene.keys(), &since).unwrap_err();
    }
    audit::verify(export.as_bytes(), &scene.keys(), &[kept.clone(), kept]).unwrap();
}
