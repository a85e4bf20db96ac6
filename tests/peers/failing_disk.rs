//! A disk that fails: calls of real processes answered with EIO and ENOSPC by a layer that is
//! loaded before the C library.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::governed::{Sidecar, control};
use crate::support::processes::{Askers, Fleet, each_once};

/// What is done to a process's files.
struct Faults(PathBuf);

impl Faults {
    /// Nothing yet, for files below `under` of whatever `fleet` starts.
    fn of(fleet: &mut Fleet, under: &str) -> Self {
        let layer = fleet.path("faults.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &layer])
            .arg("tests/peers/faults.c")
            .arg("-ldl")
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "this test builds tests/peers/faults.c with `cc`: install a C compiler"
        );
        let file = fleet.path("faults");
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        fleet.set = vec![
            variable("LD_PRELOAD", &layer),
            variable("FAULTS", &file),
            variable("FAULTS_UNDER", &fleet.path(under)),
        ];
        let faults = Self(file.into());
        faults.are("");
        faults
    }

    /// From now on; never seen half.
    fn are(&self, what: &str) {
        let beside = self.0.with_extension("new");
        std::fs::write(&beside, what).unwrap();
        std::fs::rename(beside, &self.0).unwrap();
    }
}

/// `EIO`, `ENOSPC`, now and then or always.
const KINDS: [&str; 5] = [
    "sync 5 100",
    "write 5 100",
    "write 28 100",
    "sync 5 30",
    "write 5 10",
];

async fn compliant_calls_go_on(sidecar: &Sidecar, kind: &str) {
    for _ in 0..50 {
        assert_eq!(
            sidecar.outcome("agent", "plain").await,
            "ALLOW OK",
            "{kind}"
        );
    }
}

/// E1, E2, E4: what a failing disk did not keep is not allowed; a sync that failed is never believed
/// again; once it works exceptions hold again, and every use that was answered is there once.
#[tokio::test]
async fn e2_a_disk_that_fails_costs_exceptions_and_no_record() {
    let mut fleet = Fleet::new();
    let registry = fleet.registry();
    let mut client = fleet.client().await;
    fleet.begin(&mut client).await;
    let faults = Faults::of(&mut fleet, "s/evidence");
    let mut running = fleet.sidecar();
    let mut sidecar = fleet.answers().await;
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    let askers = Askers::start(&fleet, 8);
    for kind in KINDS {
        faults.are(kind);
        let failing = "CONTROL_FAILED EXC_EVIDENCE_UNAVAILABLE";
        sidecar.until("agent", "risky", failing).await;
        compliant_calls_go_on(&sidecar, kind).await;
        if kind.starts_with("write 28") {
            // It dies in the middle of it, and starts on a disk that still fails.
            drop(running);
            running = fleet.sidecar();
            sidecar = fleet.answers().await;
            assert!(
                sidecar.outcome("agent", "risky").await.starts_with("DENY"),
                "{kind}"
            );
            compliant_calls_go_on(&sidecar, kind).await;
        }
        faults.are("");
        sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
        for _ in 0..50 {
            let said = sidecar.outcome("agent", "risky").await;
            assert!(said.starts_with("ALLOW_BY_EXCEPTION"), "{kind}: {said}");
        }
    }
    let answered = askers.stop().await;
    let recorded = each_once(&mut client, &answered).await;
    println!("{} answered, {recorded} recorded", answered.len());
    let log = std::fs::read_to_string(Path::new(&fleet.path("log"))).unwrap();
    assert!(
        log.contains(
            "uses of exceptions cannot be recorded; no exception is honoured until they can"
        ),
        "{log}"
    );
    drop((running, registry));
}

/// E2: while the registry's disk fails it acknowledges nothing, and afterwards everything is there.
#[tokio::test]
async fn e2_a_registry_whose_disk_fails_acknowledges_nothing_it_has_not() {
    let mut fleet = Fleet::new();
    let faults = Faults::of(&mut fleet, "r/");
    let mut registry = fleet.registry();
    let mut client = fleet.client().await;
    fleet.begin(&mut client).await;
    let running = fleet.sidecar();
    let sidecar = fleet.answers().await;
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    let askers = Askers::start(&fleet, 4);
    for (n, kind) in KINDS.into_iter().enumerate() {
        client.until_used("EX-1", |used| used.uses > 0).await;
        faults.are(kind);
        let more = control(&format!("CT-{n}"), "none", "true");
        if kind.ends_with("100") {
            client.apply(&more).await.expect_err(kind);
        }
        compliant_calls_go_on(&sidecar, kind).await;
        for _ in 0..50 {
            let said = sidecar.outcome("agent", "risky").await;
            assert!(said.starts_with("ALLOW_BY_EXCEPTION"), "{kind}: {said}");
        }
        if kind == "sync 5 100" {
            drop(registry);
            faults.are("");
            registry = fleet.registry();
            client = fleet.client().await;
        }
        faults.are("");
        // Nothing has to be started anew for it.
        client.apply(&more).await.expect(kind);
    }
    let answered = askers.stop().await;
    let recorded = each_once(&mut client, &answered).await;
    println!("{} answered, {recorded} recorded", answered.len());
    drop((running, registry));
}
