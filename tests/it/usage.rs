//! What is recorded of exceptions: before the answer, once, and as proof.

use std::{collections::BTreeSet, path::Path};

use exeat::{
    runtime::clock::Clock,
    wire::{
        sync::stamp,
        v1::{self, Outcome, Role, UsageKind},
    },
};

use crate::support::cases::{Ask, DAY, PLAIN, World, approve, ask, until};
use crate::support::governed::{Client, Registry, Sidecar, noon, seconds, world};
use crate::support::{cases, governed, processes};

const BY_EXCEPTION: &str = "ALLOW_BY_EXCEPTION";

struct Fleet {
    scratch: tempfile::TempDir,
    clock: Clock,
    registry: Registry,
    client: Client,
}

impl Fleet {
    async fn start(world: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
        let mut client = registry.client().await;
        client.apply(world).await.unwrap();
        Self {
            scratch,
            clock,
            registry,
            client,
        }
    }

    async fn sidecar(&mut self, name: &str, more: &[(&'static str, &str)]) -> Sidecar {
        let token = self.client.let_in(name, Role::Sidecar, &["*"]).await;
        self.again(name, &token, more).await
    }

    async fn again(&self, name: &str, token: &str, more: &[(&'static str, &str)]) -> Sidecar {
        let Registry { address, key, .. } = &self.registry;
        let mut flags = vec![
            ("insecure_asserted_identity", "true"),
            ("max_connections", "1024"),
        ];
        flags.extend(more);
        let data = self.data(name);
        free(&data).await;
        Sidecar::start_with(&data, address, key, token, self.clock.clone(), &flags)
            .await
            .unwrap()
    }

    fn data(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path().join(name)
    }

    /// What a kind of record says, the latest first.
    async fn records(&mut self, exception: &str) -> Vec<v1::KeptUsage> {
        let request = v1::ListUsageRequest {
            exception_id: exception.into(),
            ..v1::ListUsageRequest::default()
        };
        let answer = self.client.usage.list_usage(request).await.unwrap();
        answer.into_inner().records
    }
}

/// Waits until nobody holds a sidecar's folder: what is killed here is the same process.
async fn free(data: &Path) {
    for name in ["lock", "evidence.lock"] {
        let Ok(file) = std::fs::File::open(data.join(name)) else {
            continue;
        };
        while file.try_lock().is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

async fn by_exception(sidecar: &Sidecar) -> bool {
    let decision = sidecar.ask("agent", "risky").await.unwrap();
    decision.outcome() == Outcome::AllowByException
}

/// What it takes for the sidecar to answer so the first time.
async fn ready(sidecar: &Sidecar) {
    sidecar.until("agent", "risky", BY_EXCEPTION).await;
}

fn with_limits(limits: &str) -> String {
    world() + &format!("usage_limits: {limits}\n")
}

/// R26, G4, E7: used so often, all in scope, no gaps, none after revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_a_use_is_told_to_the_registry_which_tells_its_scope_again() {
    let mut fleet = Fleet::start(&world()).await;
    let mut sidecar = fleet.sidecar("one", &[]).await;
    ready(&sidecar).await;
    for _ in 0..4 {
        assert!(by_exception(&sidecar).await);
    }
    let elsewhere = sidecar
        .ask_with(|request| {
            request.subject = "agent".into();
            request.action = "risky".into();
        })
        .await
        .unwrap();
    assert_eq!(elsewhere.outcome(), Outcome::Deny);
    let used = fleet
        .client
        .until_used("EX-1", |used| {
            used.out_of_scope == 1 && used.uses >= 5 && used.complete
        })
        .await;
    assert_eq!(used.uses, used.inside, "{used:?}");
    assert_eq!(
        (used.unproven, used.outside, used.untimely, used.unknown),
        (0, 0, 0, 0)
    );
    assert!(used.complete);
    let [missed] = used.missed.as_slice() else {
        panic!("{used:?}")
    };
    assert_eq!((&*missed.dimension, missed.count), ("purpose", 1));
    let [source] = used.sources.as_slice() else {
        panic!("{used:?}")
    };
    assert_eq!(source.sidecar, "one");
    assert!(source.gaps.is_empty() && source.received > used.uses);

    fleet.clock.advance(seconds(1));
    fleet.client.revoke("EX-1").await.unwrap();
    sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let after = fleet
        .client
        .until_used("EX-1", |used| used.ineffective > 0)
        .await;
    assert!(after.removed_time.is_some());
    assert_eq!(after.uses_after_removal, 0, "{after:?}");
    let records = fleet.records("EX-1").await;
    let first = records.last().unwrap();
    assert_eq!(first.standing, "INSIDE");
    let record = first.record.clone().unwrap();
    assert_eq!(record.kind(), UsageKind::ReliedOn);
    assert_eq!(
        (&*record.subject, &*record.action, &*record.resource_id),
        ("agent", "risky", "t")
    );
    assert_eq!(record.control_ids, ["CT-RISKY"]);
    assert_eq!(record.exception_revision, 1);
    sidecar.process.stop().await;
}

/// E2, E3: after any end of either side, everything that was answered is there, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_records_outlive_both_processes_and_are_counted_once() {
    let mut fleet = Fleet::start(&world()).await;
    let token = fleet.client.let_in("one", Role::Sidecar, &["*"]).await;
    let mut answered = BTreeSet::new();
    for round in 0..3 {
        let mut sidecar = fleet.again("one", &token, &[]).await;
        ready(&sidecar).await;
        for _ in 0..20 {
            let decision = sidecar.ask("agent", "risky").await.unwrap();
            assert_eq!(decision.outcome(), Outcome::AllowByException);
            answered.insert(decision.id);
        }
        if round == 1 {
            // What is reported now, nobody acknowledges.
            let data = fleet.data("registry");
            let (address, clock) = (fleet.registry.address.clone(), fleet.clock.clone());
            fleet.registry.process.kill().await;
            for _ in 0..20 {
                let decision = sidecar.ask("agent", "risky").await.unwrap();
                assert_eq!(decision.outcome(), Outcome::AllowByException);
                answered.insert(decision.id);
            }
            sidecar.process.kill().await;
            fleet.registry = Registry::start_at(&data, clock, &address, &[])
                .await
                .unwrap();
            fleet.client = fleet.registry.client().await;
        } else {
            sidecar.process.kill().await;
        }
    }
    let sidecar = fleet.again("one", &token, &[]).await;
    ready(&sidecar).await;
    let wanted = answered.len() as u64;
    let mut seen = Vec::new();
    for _ in 0..500 {
        let request = v1::ListUsageRequest {
            exception_id: "EX-1".into(),
            page_size: 1_000,
            ..v1::ListUsageRequest::default()
        };
        let answer = fleet.client.usage.list_usage(request).await.unwrap();
        seen = answer
            .into_inner()
            .records
            .into_iter()
            .filter_map(|kept| kept.record)
            .filter(|record| record.kind() == UsageKind::ReliedOn)
            .map(|record| record.decision_id)
            .collect();
        if answered.iter().all(|id| seen.contains(id)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let distinct: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(distinct.len(), seen.len(), "none twice");
    assert!(
        answered.is_subset(&distinct),
        "{} of {wanted}",
        distinct.len()
    );
    let used = fleet.client.used("EX-1").await;
    assert!(
        used.sources.iter().all(|source| source.gaps.is_empty()),
        "{used:?}"
    );
}

/// R16, E1, E4: what cannot be recorded is not allowed, and everything else goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e4_without_a_spool_no_exception_holds_and_compliant_calls_go_on() {
    let mut fleet = Fleet::start(&world()).await;
    let data = fleet.data("one");
    std::fs::create_dir_all(data.join("evidence.db")).unwrap();
    let sidecar = fleet.sidecar("one", &[]).await;
    sidecar
        .until(
            "agent",
            "risky",
            "DENY CONTROL_FAILED EXC_EVIDENCE_UNAVAILABLE",
        )
        .await;
    assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
    let page = sidecar.page("/metrics").await;
    assert!(page.contains("exeat_evidence_available 0.0"), "{page}");
    std::fs::remove_dir(data.join("evidence.db")).unwrap();
    ready(&sidecar).await;
    fleet.client.until_used("EX-1", |used| used.uses > 0).await;
    let page = sidecar.page("/metrics").await;
    assert!(page.contains("exeat_evidence_available 1.0"), "{page}");
}

/// E3: damage is found, told, and never skipped in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e3_a_record_that_was_damaged_on_disk_is_a_gap_that_the_registry_shows() {
    let mut fleet = Fleet::start(&world()).await;
    let token = fleet.client.let_in("one", Role::Sidecar, &["*"]).await;
    let mut sidecar = fleet.again("one", &token, &[]).await;
    ready(&sidecar).await;
    let before = fleet.client.until_used("EX-1", |used| used.uses > 0).await;
    // Nothing is reported any more: what is written stays on disk.
    let data = fleet.data("registry");
    let (address, clock) = (fleet.registry.address.clone(), fleet.clock.clone());
    fleet.registry.process.stop().await;
    for _ in 0..3 {
        assert!(by_exception(&sidecar).await);
    }
    sidecar.process.stop().await;
    damage(&fleet.data("one").join("evidence.db")).await;
    fleet.registry = Registry::start_at(&data, clock, &address, &[])
        .await
        .unwrap();
    fleet.client = fleet.registry.client().await;
    let sidecar = fleet.again("one", &token, &[]).await;
    ready(&sidecar).await;
    // What came before the rest did is no gap yet.
    let rest =
        |source: &v1::UsageSource| !source.gaps.is_empty() && source.received == source.written;
    let fits = |used: &v1::GetUsageResponse| used.sources.iter().any(rest);
    let used = fleet.client.until_used("EX-1", fits).await;
    let gaps: Vec<_> = used
        .sources
        .iter()
        .flat_map(|source| &source.gaps)
        .collect();
    let [gap] = gaps.as_slice() else {
        panic!("{used:?}")
    };
    assert_eq!(
        gap.first, gap.last,
        "one record, and the rest came: {used:?}"
    );
    assert_eq!(gap.reason, "lost");
    fleet
        .client
        .until_used("EX-1", |used| used.uses >= before.uses + 3)
        .await;
    // What was found is there for whoever looks into it.
    assert_eq!(set_aside(&fleet.data("one").join("evidence.db")).await, 1);
}

async fn set_aside(path: &Path) -> i64 {
    use sqlx::{Connection, sqlite::SqliteConnectOptions};
    let options = SqliteConnectOptions::new().filename(path);
    let file = sqlx::SqliteConnection::connect_with(&options).await;
    let mut file = file.unwrap();
    let found =
        sqlx::query_scalar("SELECT count(*) FROM damaged WHERE instr(records, 'rosky') > 0");
    let count = found.fetch_one(&mut file).await.unwrap();
    file.close().await.unwrap();
    count
}

/// Changes a byte of the oldest record but one.
async fn damage(path: &Path) {
    use sqlx::{Connection, sqlite::SqliteConnectOptions};
    let options = SqliteConnectOptions::new().filename(path);
    let mut file = sqlx::SqliteConnection::connect_with(&options)
        .await
        .unwrap();
    let changed = sqlx::query("UPDATE groups SET records = CAST(replace(records, CAST('risky' AS BLOB), CAST('rosky' AS BLOB)) AS BLOB) WHERE last = (SELECT last FROM groups ORDER BY last LIMIT 1 OFFSET 1)")
        .execute(&mut file)
        .await
        .unwrap();
    assert_eq!(changed.rows_affected(), 1);
    file.close().await.unwrap();
}

/// A10: all sidecars together use it no oftener than it may be used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_a_limit_holds_for_all_sidecars_together_and_over_restarts() {
    let mut fleet = Fleet::start(&with_limits("{max_uses: 7}")).await;
    let names = ["one", "two", "three"];
    let mut sidecars = Vec::new();
    for name in names {
        let sidecar = fleet.sidecar(name, &[]).await;
        sidecar.until("agent", "plain", "ALLOW OK").await;
        sidecars.push(sidecar);
    }
    let mut allowed = 0;
    for round in 0..30 {
        for sidecar in &sidecars {
            // None is put off for good by another's having asked first.
            fleet.clock.advance(seconds(2));
            allowed += usize::from(by_exception(sidecar).await);
        }
        if round == 3 {
            sidecars[0].process.kill().await;
            sidecars[0] = fleet.sidecar("one", &[]).await;
            sidecars[0].until("agent", "plain", "ALLOW OK").await;
        }
    }
    assert!((5..=7).contains(&allowed), "{allowed}");
    let said = sidecars[1].outcome("agent", "risky").await;
    assert!(said.contains("EXC_BUDGET_EXHAUSTED"), "{said}");
    let used = fleet
        .client
        .until_used("EX-1", |used| used.uses >= allowed as u64)
        .await;
    assert_eq!(used.max_uses, Some(7));
    assert!(used.reserved.unwrap() <= 7 && used.uses <= 7, "{used:?}");
}

/// OWASP NHI, E6: what callers say is nowhere, but for names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e6_no_argument_prompt_or_secret_is_recorded_anywhere() {
    const CANARY: &str = "c4n4ry-hunter2-AKIAIOSFODNN7EXAMPLE";
    let mut fleet = Fleet::start(&world()).await;
    let sidecar = fleet.sidecar("one", &[]).await;
    ready(&sidecar).await;
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.into())),
    };
    let decision = sidecar
        .ask_with(|request| {
            request.subject = "agent".into();
            request.action = "risky".into();
            let said = [("purpose", "work"), ("prompt", CANARY)];
            request.context = Some(prost_types::Struct {
                fields: said
                    .map(|(name, value)| (name.to_owned(), text(value)))
                    .into(),
            });
            let resource = request.resource.as_mut().unwrap();
            resource.properties = Some(prost_types::Struct {
                fields: [("password".to_owned(), text(CANARY))].into(),
            });
        })
        .await
        .unwrap();
    assert_eq!(decision.outcome(), Outcome::AllowByException);
    let mut found = false;
    for _ in 0..500 {
        let records = fleet.records("EX-1").await;
        found = records.iter().any(|kept| {
            kept.record
                .as_ref()
                .is_some_and(|record| record.decision_id == decision.id)
        });
        if found {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(found, "it is recorded");
    let mut files = 0;
    let mut folders = vec![fleet.scratch.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let holds = bytes
                .windows(CANARY.len())
                .any(|part| part == CANARY.as_bytes());
            assert!(!holds, "{} holds what a caller said", path.display());
        }
    }
    assert!(files > 5, "{files}");
    for page in ["/metrics", "/decisions", "/readyz"] {
        assert!(!sidecar.page(page).await.contains(CANARY), "{page}");
    }
}

/// pdp §3: a proxy that asks again under the same id asks about the same use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_comes_again_is_one_use() {
    let mut fleet = Fleet::start(&with_limits("{max_uses: 2}")).await;
    let sidecar = fleet.sidecar("one", &[]).await;
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let ask = |id: &'static str, resource: &'static str| {
        sidecar.ask_with(move |request| {
            request.subject = "agent".into();
            request.action = "risky".into();
            request.request_id = id.into();
            request.resource.as_mut().unwrap().id = resource.into();
            let work = prost_types::Value {
                kind: Some(prost_types::value::Kind::StringValue("work".into())),
            };
            request.context = Some(prost_types::Struct {
                fields: [("purpose".to_owned(), work)].into(),
            });
        })
    };
    sidecar.until("agent", "risky", BY_EXCEPTION).await;
    for _ in 0..3 {
        let decision = ask("call-1", "t").await.unwrap();
        assert_eq!(
            decision.outcome(),
            Outcome::AllowByException,
            "{decision:?}"
        );
    }
    let other = ask("call-1", "u").await.unwrap();
    assert_eq!(
        other.outcome(),
        Outcome::Deny,
        "the same id for something else is another use"
    );
    // Nor is an id a way round the limit.
    let mut again = 0;
    while ask("call-1", "t").await.unwrap().outcome() == Outcome::AllowByException {
        again += 1;
        assert!(again < 20);
    }
    let later = ask("call-1", "t").await.unwrap();
    assert_eq!(later.outcome(), Outcome::Deny);
    let used = fleet.client.until_used("EX-1", |used| used.uses == 2).await;
    assert_eq!(used.reserved, Some(2), "{used:?}");
    let long = ask(Box::leak("x".repeat(129).into_boxed_str()), "t")
        .await
        .unwrap_err();
    assert!(long.message().contains("request_id"), "{long}");
}

/// A sidecar, who asked, who approved, and the exception that holds there.
async fn granted(world: &mut World) -> (Sidecar, Client, Client, v1::Case) {
    let sidecar = world.sidecar().await;
    let mut asker = world.as_who("user:alice").await;
    let mut owner = world.as_who("user:bob").await;
    let case = ask(&mut asker, &PLAIN).await.unwrap();
    approve(&mut owner, &case).await.unwrap();
    world.clock.advance(seconds(5));
    sidecar.until("agent", "risky", BY_EXCEPTION).await;
    (sidecar, asker, owner, case)
}

/// Governance §5, renewal by sleepwalking: whoever decides about one is told how the last was used,
/// and what is not as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_tells_how_what_it_goes_on_from_was_used_and_what_differs() {
    let mut world = World::start().await;
    let (_sidecar, mut asker, mut owner, case) = granted(&mut world).await;
    let used = world.admin.until_used(&case.id, |used| used.uses > 0).await;
    let renewal = |more: &'static str| Ask {
        hours: 24,
        more,
        ..PLAIN
    };
    let more = "evidence: [{evidence_id: test, digest: \"sha256:7e57\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}]\n";
    let next = ask(&mut asker, &renewal(more)).await.unwrap();
    let told = cases::look(&mut owner, &next.id).await.notes;
    let says = |part: &str| {
        assert!(
            told.iter().any(|note| note.contains(part)),
            "{part}: {told:?}"
        );
    };
    says(&format!("renewal 1: it goes on from {}", case.id));
    says(&format!(
        "what went before was used {} times, at last 2026-11-22T12:00:",
        used.uses
    ));
    says(&format!(
        "changed since {}: evidence, window.duration",
        case.id
    ));
    // The same again, of an agent that is no longer what it was.
    let changed =
        cases::agent("agent").replace("permitted_ids: [work]", "permitted_ids: [work, play]");
    world.admin.apply(&changed).await.unwrap();
    let again = ask(&mut asker, &Ask { hours: 48, ..PLAIN }).await.unwrap();
    let noted = cases::look(&mut owner, &again.id).await.notes;
    let wanted = format!("changed since {}: facet purpose", case.id);
    assert!(noted.contains(&wanted), "{noted:?}");
    says(&format!("justified word for word as {}", case.id));
}

/// R16, governance §7.3: where it is tried beyond its scope too often, it waits for people.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r16_too_many_attempts_beyond_the_scope_suspend_it() {
    let mut world = World::start().await;
    let (sidecar, _asker, mut owner, case) = granted(&mut world).await;
    let beyond = || async {
        let decision = sidecar
            .ask_with(|request| {
                request.subject = "agent".into();
                request.action = "risky".into();
            })
            .await;
        assert_eq!(decision.unwrap().outcome(), Outcome::Deny);
    };
    world.clock.advance(seconds(1));
    for _ in 0..3 {
        beyond().await;
    }
    let three = |used: &v1::GetUsageResponse| used.out_of_scope == 3;
    world.admin.until_used(&case.id, three).await;
    sidecar.until("agent", "risky", BY_EXCEPTION).await;
    beyond().await;
    let suspended = until(&mut world.admin, &case.id, "SUSPENDED").await;
    assert!(
        suspended.reason.contains("4 times within a day"),
        "{}",
        suspended.reason
    );
    sidecar.until("agent", "risky", "EXC_SUSPENDED").await;
    // Looked at again it holds, and what was before counts no more.
    world.clock.advance(seconds(1));
    let again = cases::look(&mut world.admin, &case.id).await;
    approve(&mut owner, &again).await.unwrap();
    world.clock.advance(seconds(5));
    sidecar.until("agent", "risky", BY_EXCEPTION).await;
}

/// Tells records as a sidecar that is named `two`.
async fn tell(world: &mut World, records: &[v1::UsageRecord]) {
    let token = world.admin.let_in("two", Role::Sidecar, &["*"]).await;
    let mut sync = world.registry.sync_with(&token).await;
    let report = v1::ReportRequest {
        sequence: 1,
        observed: Vec::new(),
        usage: Some(v1::UsageBatch {
            spool_id: vec![7; 16],
            after: 0,
            digest_before: vec![0; 32],
            records: records.iter().map(exeat::wire::encoded).collect(),
        }),
    };
    let answer = sync.report(tokio_stream::iter([report])).await.unwrap();
    answer.into_inner().message().await.unwrap().unwrap();
}

/// The first record of a use.
async fn first_use(world: &mut World, case: &str) -> v1::UsageRecord {
    world.admin.until_used(case, |used| used.uses > 0).await;
    let request = v1::ListUsageRequest {
        exception_id: case.into(),
        page_size: 1,
        page_token: String::new(),
    };
    let page = world.admin.usage.list_usage(request).await.unwrap();
    page.into_inner().records[0].record.clone().unwrap()
}

/// What a use after the removal looks like: counted, and listed with how long after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_after_a_revocation_are_listed_with_their_lag() {
    let mut world = World::start().await;
    let (_sidecar, _asker, _owner, case) = granted(&mut world).await;
    let record = first_use(&mut world, &case.id).await;
    world.clock.advance(seconds(20));
    let revoked = world.clock.now().latest;
    world.admin.revoke(&case.id).await.unwrap();
    let late = |id: &str, after: i64| {
        let mut late = record.clone();
        late.decision_id = id.into();
        late.time = Some(stamp(revoked + seconds(after)));
        late
    };
    world.clock.advance(seconds(60));
    tell(
        &mut world,
        &[
            late("dec_early", -5),
            late("dec_one", 3),
            late("dec_two", 7),
        ],
    )
    .await;
    let used = world
        .admin
        .until_used(&case.id, |used| used.uses_after_removal == 2)
        .await;
    assert!((used.longest_lag_seconds - 7.0).abs() < 0.01, "{used:?}");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_exeat"))
        .args(["exception", "usage", &case.id])
        .env("EXEAT_REGISTRY", &world.registry.address)
        .env("EXEAT_TOKEN", &world.registry.token)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let at = |part: &str| said.find(part).unwrap_or_else(|| panic!("{part}: {said}"));
    at("2 times after revocation, the last 7.0 s later");
    assert!(
        at("7.0 s late") < at("dec_two") && at("dec_two") < at("3.0 s late"),
        "{said}"
    );
    assert!(
        at("3.0 s late") < at("dec_one") && !said.contains("dec_early"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(3));
}

/// R26: what was allowed beyond its scope, as is recorded of it, suspends it at once: no sidecar that
/// works does that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_one_use_beyond_the_scope_suspends_it() {
    let mut world = World::start().await;
    let (sidecar, _asker, _owner, case) = granted(&mut world).await;
    let mut record = first_use(&mut world, &case.id).await;
    record.purpose = Some("fun".into());
    record.decision_id = "dec_other".into();
    tell(&mut world, &[record]).await;
    let suspended = until(&mut world.admin, &case.id, "SUSPENDED").await;
    assert!(
        suspended
            .reason
            .contains("relied on where it does not hold"),
        "{}",
        suspended.reason
    );
    sidecar.until("agent", "risky", "EXC_SUSPENDED").await;
}

/// Governance §7.3, §8: nobody keeps what is not used, nor what is used up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_used_is_closed_and_what_is_used_up_too() {
    let mut world = World::start().await;
    let sidecar = world.sidecar().await;
    let mut asker = world.as_who("user:alice").await;
    let mut owner = world.as_who("user:bob").await;
    let more = format!("{}usage_limits: {{max_uses: 2}}\n", PLAIN.more);
    let limited = Ask {
        more: &more,
        ..PLAIN
    };
    let limited = ask(&mut asker, &limited).await.unwrap();
    approve(&mut owner, &limited).await.unwrap();
    world.clock.advance(seconds(5));
    for _ in 0..2 {
        sidecar.until("agent", "risky", BY_EXCEPTION).await;
        world.clock.advance(seconds(2));
    }
    let closed = until(&mut world.admin, &limited.id, "CLOSED").await;
    assert!(closed.reason.contains("used 2 times"), "{}", closed.reason);

    let long = Ask {
        hours: 24 * 20,
        ..PLAIN
    };
    let idle = ask(&mut asker, &long).await.unwrap();
    approve(&mut owner, &idle).await.unwrap();
    world.clock.advance(seconds(5));
    sidecar.until("agent", "risky", BY_EXCEPTION).await;
    world.admin.until_used(&idle.id, |used| used.uses > 0).await;
    // Revalidated in time, and not used.
    world.clock.advance(seconds(13 * DAY));
    let again = cases::look(&mut owner, &idle.id).await;
    approve(&mut owner, &again).await.unwrap();
    world.clock.advance(seconds(DAY - 60));
    assert_eq!(cases::look(&mut owner, &idle.id).await.state, "APPROVED");
    world.clock.advance(seconds(120));
    let closed = until(&mut world.admin, &idle.id, "CLOSED").await;
    assert!(closed.reason.contains("not used for"), "{}", closed.reason);
}

/// R42: what is asked about and never needed is closed as that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_needed_is_closed_as_that() {
    let mut world = World::start().await;
    let (_sidecar, mut asker, mut owner, used) = granted(&mut world).await;
    let record = first_use(&mut world, &used.id).await;
    let more = format!("{}preemptive: true\n", PLAIN.more);
    let spare = Ask {
        control: "CT-PLAIN",
        action: "plain",
        hours: 24 * 20,
        more: &more,
        ..PLAIN
    };
    let case = ask(&mut asker, &spare).await.unwrap();
    approve(&mut owner, &case).await.unwrap();
    world.clock.advance(seconds(1));
    // As a sidecar tells it once a minute.
    let mut idle = record.clone();
    idle.decision_id = "dec_idle".into();
    idle.kind = UsageKind::NotNeeded.into();
    idle.count = 40;
    idle.exception_id.clone_from(&case.id);
    idle.exception_revision = 1;
    idle.action = "plain".into();
    idle.control_ids.clear();
    idle.ordinal = 0;
    tell(&mut world, &[idle]).await;
    world
        .admin
        .until_used(&case.id, |used| used.not_needed == 40)
        .await;
    world.clock.advance(seconds(13 * DAY));
    let again = cases::look(&mut owner, &case.id).await;
    approve(&mut owner, &again).await.unwrap();
    world.clock.advance(seconds(DAY + 60));
    let closed = until(&mut world.admin, &case.id, "CLOSED").await;
    assert_eq!(
        closed.reason,
        "not needed for 14d: its controls held whenever it was asked about"
    );
}

/// E7, S9: what a sidecar says of subjects that it does not stand for counts for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e7_a_sidecar_is_believed_about_its_own_subjects_alone() {
    let mut fleet = Fleet::start(&world()).await;
    let other = governed::subject("other", None);
    fleet.client.apply(&other).await.unwrap();
    let honest = fleet.sidecar("one", &[]).await;
    ready(&honest).await;
    fleet.client.until_used("EX-1", |used| used.uses > 0).await;
    let record = fleet.records("EX-1").await[0].record.clone().unwrap();
    let scope = ["subject:other"];
    let token = fleet.client.let_in("liar", Role::Sidecar, &scope).await;
    let report = |record: v1::UsageRecord, after: u64, digest_before: Vec<u8>| v1::ReportRequest {
        sequence: 1,
        observed: Vec::new(),
        usage: Some(v1::UsageBatch {
            spool_id: vec![7; 16],
            after,
            digest_before,
            records: vec![exeat::wire::encoded(&record)],
        }),
    };
    let mut forged = record.clone();
    forged.set_kind(UsageKind::OutOfScope);
    forged.dimension = "purpose".into();
    let mut liar = fleet.registry.sync_with(&token).await;
    let answer = liar
        .report(tokio_stream::iter([report(forged, 0, vec![0; 32])]))
        .await
        .unwrap();
    let receipt = answer.into_inner().message().await.unwrap().unwrap();
    assert_eq!(receipt.usage.unwrap().acknowledged, 1);
    let used = fleet.client.used("EX-1").await;
    assert_eq!((used.out_of_scope, used.foreign), (0, 0), "{used:?}");
    // A use that it could not have seen is told apart.
    let second = report(record.clone(), 0, vec![0; 32]);
    let answer = liar.report(tokio_stream::iter([second])).await.unwrap();
    let refused = answer.into_inner().message().await.unwrap_err();
    assert!(refused.message().contains("do not follow"), "{refused}");
    let chained = exeat::engine::usage::chained;
    let mut forged = record.clone();
    forged.set_kind(UsageKind::OutOfScope);
    forged.dimension = "purpose".into();
    let before = chained(
        exeat::domain::Chained::default(),
        &exeat::wire::encoded(&forged),
    );
    let third = report(record, 1, before.digest.to_vec());
    let answer = liar.report(tokio_stream::iter([third])).await.unwrap();
    answer.into_inner().message().await.unwrap().unwrap();
    let used = fleet.client.used("EX-1").await;
    assert_eq!(used.foreign, 1, "{used:?}");
    assert_eq!(used.uses, used.inside, "{used:?}");
}

/// E7: what the registry makes of a record depends on its words alone, once each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e7_a_use_that_was_withdrawn_is_none_and_a_scope_is_told_again() {
    let mut fleet = Fleet::start(&world()).await;
    let honest = fleet.sidecar("one", &[]).await;
    ready(&honest).await;
    fleet.client.until_used("EX-1", |used| used.uses > 0).await;
    let before = fleet.client.used("EX-1").await;
    let used = fleet.records("EX-1").await[0].record.clone().unwrap();
    let token = fleet.client.let_in("two", Role::Sidecar, &["*"]).await;
    let mut sync = fleet.registry.sync_with(&token).await;
    let make = |kind: UsageKind, change: &dyn Fn(&mut v1::UsageRecord)| {
        let mut record = used.clone();
        record.set_kind(kind);
        record.decision_id = "dec_other".into();
        change(&mut record);
        exeat::wire::encoded(&record)
    };
    let records = vec![
        make(UsageKind::ReliedOn, &|_| {}),
        make(UsageKind::Withdrawn, &|record| record.withdraws = Some(1)),
        // It says it was in scope by being there; its words say otherwise.
        make(UsageKind::ReliedOn, &|record| {
            record.purpose = Some("fun".into())
        }),
        make(UsageKind::ReliedOn, &|record| record.exception_revision = 9),
        make(UsageKind::ReliedOn, &|record| {
            record.time.as_mut().unwrap().seconds -= 86_400;
        }),
        // And the other way round.
        make(UsageKind::OutOfScope, &|record| {
            record.dimension = "purpose".into()
        }),
        make(UsageKind::OutOfScope, &|record| {
            record.dimension = "purpose".into();
            record.purpose = Some("fun".into());
        }),
        // Of a subject that is nowhere, and one that it does not name.
        make(UsageKind::ReliedOn, &|record| {
            record.subject = "ghost".into()
        }),
        b"no record at all".to_vec(),
    ];
    let count = records.len() as u64;
    let report = v1::ReportRequest {
        sequence: 1,
        observed: Vec::new(),
        usage: Some(v1::UsageBatch {
            spool_id: vec![9; 16],
            after: 0,
            digest_before: vec![0; 32],
            records,
        }),
    };
    for _ in 0..2 {
        let messages = tokio_stream::iter([report.clone()]);
        let answer = sync.report(messages).await.unwrap();
        let receipt = answer.into_inner().message().await.unwrap().unwrap();
        assert_eq!(receipt.usage.unwrap().acknowledged, count, "and once more");
    }
    let after = fleet.client.used("EX-1").await;
    assert_eq!(after.withdrawn, 1);
    // Whose use the record that nobody can read tells of, nobody can say.
    assert!(before.complete && !after.complete, "{after:?}");
    let gaps = after.sources.iter().flat_map(|source| &source.gaps);
    let told: Vec<_> = gaps
        .map(|gap| (&*gap.reason, gap.first, gap.last))
        .collect();
    assert_eq!(told, [("unreadable", count, count)], "{after:?}");
    assert_eq!(after.inside, before.inside, "{after:?}");
    // The ghost's is kept, and is beyond the scope.
    assert_eq!(
        (after.outside, after.unknown, after.untimely),
        (2, 1, 1),
        "{after:?}"
    );
    assert_eq!(after.uses, before.uses + 4);
    assert_eq!(after.out_of_scope, before.out_of_scope + 1, "{after:?}");
    let beyond = v1::ReportRequest {
        usage: Some(v1::UsageBatch {
            spool_id: vec![8; 16],
            after: u64::MAX,
            digest_before: vec![0; 32],
            records: vec![b"x".to_vec()],
        }),
        ..report
    };
    let messages = tokio_stream::iter([beyond]);
    let answer = sync.report(messages).await.unwrap();
    let refused = answer.into_inner().message().await.unwrap_err();
    assert!(refused.message().contains("usage.after"), "{refused}");
    ready(&honest).await;
}

/// Governance §7.3: whoever uses one of two exceptions does not try the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_of_one_exception_is_no_attempt_at_another() {
    let sibling = governed::exception("EX-2", "CT-RISKY", "agent")
        .replace("resources: [ANY]", "resources: [other]");
    let mut fleet = Fleet::start(&(world() + &sibling)).await;
    let sidecar = fleet.sidecar("one", &[]).await;
    ready(&sidecar).await;
    for _ in 0..3 {
        assert!(by_exception(&sidecar).await);
    }
    fleet.client.until_used("EX-1", |used| used.uses >= 4).await;
    let other = fleet.client.used("EX-2").await;
    assert_eq!((other.out_of_scope, other.uses), (0, 0), "{other:?}");
}

/// Y3: what was left when a process ended is reported by the next, whoever asks it or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn y3_a_spool_drains_without_anything_new() {
    let mut fleet = Fleet::start(&world()).await;
    let token = fleet.client.let_in("one", Role::Sidecar, &["*"]).await;
    let mut sidecar = fleet.again("one", &token, &[]).await;
    ready(&sidecar).await;
    fleet.client.until_used("EX-1", |used| used.uses > 0).await;
    let data = fleet.data("registry");
    let (address, clock) = (fleet.registry.address.clone(), fleet.clock.clone());
    fleet.registry.process.stop().await;
    for _ in 0..5 {
        assert!(by_exception(&sidecar).await);
    }
    let queue = |page: &str| {
        let mut lines = page.lines();
        let count = lines.find_map(|line| line.strip_prefix("exeat_usage_queue_records "));
        count.unwrap().parse::<u64>().unwrap()
    };
    let lost = "exeat_sync_reconnects_total{lane=\"attend\"} 1";
    let page = sidecar.until_page(|page| page.contains(lost)).await;
    assert!(queue(&page) >= 5, "{page}");
    sidecar.process.kill().await;
    fleet.registry = Registry::start_at(&data, clock, &address, &[])
        .await
        .unwrap();
    fleet.client = fleet.registry.client().await;
    let sidecar = fleet.again("one", &token, &[]).await;
    fleet.client.until_used("EX-1", |used| used.uses >= 6).await;
    sidecar.until_page(|page| queue(page) == 0).await;
}

/// L4: whoever has the ledger can tell whether any record was changed, left out or put in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_usage_records_are_those_that_the_ledger_speaks_of() {
    use exeat::audit::{Key, hold, verify};
    let scratch = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::start(&world()).await;
    let sidecar = fleet.sidecar("one", &[]).await;
    ready(&sidecar).await;
    for _ in 0..3 {
        assert!(by_exception(&sidecar).await);
    }
    fleet.client.until_used("EX-1", |used| used.uses >= 4).await;
    let file = |name: &str| scratch.path().join(name);
    let write = |what: &'static str, to: &Path| {
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_exeat"))
            .args(["audit", what, "--out"])
            .arg(to)
            .args(["--registry", &fleet.registry.address])
            .env("EXEAT_TOKEN", fleet.registry.token.trim())
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        std::fs::read_to_string(to).unwrap()
    };
    let keys = [Key::parse(&fleet.registry.key).unwrap()];
    let mut ledger = None;
    for _ in 0..200 {
        let export = write("export", &file("all.jsonl"));
        let held = verify(export.as_bytes(), &keys, &[]).unwrap();
        if !held.usage.is_empty() {
            ledger = Some(held);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let mut ledger = ledger.expect("the ledger speaks of records");
    let records = write("usage", &file("usage.jsonl"));
    let held = hold(records.as_bytes(), &ledger).unwrap();
    assert!(held.records >= 4 && held.missing == 0, "{held:?}");
    let lines: Vec<&str> = records.lines().collect();
    let told = serde_json::from_str::<serde_json::Value>(lines[1]).unwrap();
    let all = told["records"].as_array().unwrap().clone();
    let with = |records: Vec<serde_json::Value>| {
        let mut line = told.clone();
        line["records"] = records.into();
        format!("{}\n{line}\n", lines[0])
    };
    let mut changed = all.clone();
    changed[0] = base64_of(b"something else").into();
    let mut swapped = all.clone();
    swapped.swap(0, 1);
    let said: usize = ledger.usage[0]
        .split('-')
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap()
        .parse()
        .unwrap();
    for (what, forged) in [
        ("changed", with(changed)),
        ("swapped", with(swapped)),
        ("left out", with(all[1..].to_vec())),
        ("cut", with(all[..said - 1].to_vec())),
        ("all gone", format!("{}\n", lines[0])),
    ] {
        assert!(hold(forged.as_bytes(), &ledger).is_err(), "{what}");
    }
    // Left out with the chain told, as if they had never come: the ledger knows nothing of that.
    let chained = exeat::engine::usage::chained;
    let before = all[..said - 1]
        .iter()
        .fold(exeat::domain::Chained::default(), |before, record| {
            chained(before, &from_base64(record.as_str().unwrap()))
        });
    let mut line = told.clone();
    line["after"] = (said - 1).into();
    line["before"] = exeat::wire::signed::hex(&before.digest).into();
    line["records"] = all[said - 1..].to_vec().into();
    let forged = format!("{}\n{line}\n", lines[0]);
    let wrong = hold(forged.as_bytes(), &ledger).unwrap_err().to_string();
    assert!(wrong.contains("are left out"), "{wrong}");
    // Where it does say so, they are missing and nothing is forged.
    let words: Vec<_> = ledger.usage[0].split(' ').collect();
    ledger.usage.insert(
        0,
        format!(
            "missing {} {} 1-{} sha256:{}",
            words[0],
            words[1],
            said - 1,
            exeat::wire::signed::hex(&before.digest)
        ),
    );
    let held = hold(forged.as_bytes(), &ledger).unwrap();
    assert_eq!(held.missing, said as u64 - 1, "{held:?}");
}

fn from_base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// E4: a spool that is full switches exceptions off and nothing else, until the registry has taken
/// what is in it; nothing that was answered is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e4_a_full_spool_switches_exceptions_off_until_it_is_drained() {
    let mut fleet = Fleet::start(&world()).await;
    let sidecar = fleet.sidecar("one", &[("evidence_size", "1MiB")]).await;
    ready(&sidecar).await;
    fleet.client.until_used("EX-1", |used| used.uses > 0).await;
    let data = fleet.data("registry");
    let (address, clock) = (fleet.registry.address.clone(), fleet.clock.clone());
    fleet.registry.process.stop().await;
    let mut answered = 1_u64;
    while by_exception(&sidecar).await {
        answered += 1;
        assert!(answered < 20_000, "it never fills");
    }
    let said = sidecar.outcome("agent", "risky").await;
    assert!(said.contains("EXC_EVIDENCE_UNAVAILABLE"), "{said}");
    assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
    let page = sidecar.page("/metrics").await;
    assert!(
        page.contains("exeat_evidence_available 0.5"),
        "LOW goes first"
    );
    fleet.registry = Registry::start_at(&data, clock, &address, &[])
        .await
        .unwrap();
    fleet.client = fleet.registry.client().await;
    ready(&sidecar).await;
    let all = |used: &v1::GetUsageResponse| used.uses >= answered;
    let used = fleet.client.until_used("EX-1", all).await;
    assert!(
        used.sources.iter().all(|source| source.gaps.is_empty()),
        "{used:?}"
    );
}

/// A10: a registry that hangs costs a limited exception its use, and no call its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_a_registry_that_hangs_leaves_time_for_an_answer() {
    let mut fleet = processes::Fleet::new();
    let registry = fleet.registry();
    let mut client = fleet.client().await;
    let limited = processes::used(Clock::system().now().latest) + "usage_limits: {max_uses: 900}\n";
    client.apply(&limited).await.unwrap();
    fleet.let_in(&mut client).await;
    let _sidecar = fleet.sidecar();
    let sidecar = fleet.answers().await;
    // Everything is current; nothing is reserved before it is asked for.
    sidecar.until("agent", "plain", "ALLOW OK").await;
    registry.signal("STOP");
    let said = sidecar.outcome("agent", "risky").await;
    assert!(said.starts_with("DENY") && said.contains("EXC_"), "{said}");
    registry.signal("CONT");
    sidecar.until("agent", "risky", BY_EXCEPTION).await;
}
