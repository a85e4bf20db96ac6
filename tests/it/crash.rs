//! Real processes, killed at random moments under load, with a checker outside.
//!
//! `EXEAT_KILLS=200` kills more often than the few of an ordinary run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::Dice;
use crate::support::governed;
use crate::support::governed::{Client, Sidecar, control, exception_until, subject};
use exeat::{
    runtime::clock::Clock,
    wire::v1::{self, Completion},
};
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGKILL.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn run(args: &[&str], log: &Path) -> Running {
    let log = File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EXEAT_")) {
        command.env_remove(name);
    }
    // A setting of the registry's, which a sidecar does not know.
    if args.first() == Some(&"registry") {
        command.env("EXEAT_EXCEPTIONS", "applied");
    }
    let errors = log.try_clone().unwrap();
    Running(
        command
            .args(args)
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors))
            .spawn()
            .unwrap(),
    )
}

struct Fleet {
    scratch: tempfile::TempDir,
    registry_at: String,
    listen: String,
    operations: String,
    key: String,
    token: PathBuf,
}

impl Fleet {
    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    fn registry(&self) -> Running {
        let args = [
            "registry",
            "--data",
            &self.path("r"),
            "--listen",
            &self.registry_at,
            "--operations",
            "127.0.0.1:0",
        ];
        run(&args, Path::new(&self.path("log")))
    }

    fn sidecar(&self) -> Running {
        let args = [
            "sidecar",
            "--registry",
            &self.registry_at,
            "--registry-key",
            &self.key,
            "--registry-token-file",
            self.token.to_str().unwrap(),
            "--data",
            &self.path("s"),
            "--listen",
            &self.listen,
            "--operations",
            &self.operations,
            "--unix",
            "none",
            "--insecure-asserted-identity",
        ];
        run(&args, Path::new(&self.path("log")))
    }

    async fn client(&self) -> Client {
        loop {
            let token = std::fs::read_to_string(self.scratch.path().join("r/admin.token"));
            let endpoint = Endpoint::from_shared(format!("http://{}", self.registry_at)).unwrap();
            if let (Ok(token), Ok(channel)) = (token, endpoint.connect().await) {
                return Client::over(channel, &token);
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn answers(&self) -> Sidecar {
        let sidecar = Sidecar::at(&self.listen, &self.operations);
        while sidecar.try_ask("agent", "plain").await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        sidecar
    }
}

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
    let mut fleet = Fleet {
        scratch: tempfile::tempdir().unwrap(),
        registry_at: free_port(),
        listen: free_port(),
        operations: free_port(),
        key: String::new(),
        token: PathBuf::new(),
    };
    fleet.token = fleet.scratch.path().join("token");
    let mut registry = fleet.registry();
    let mut client = fleet.client().await;
    let now = Clock::system().now().latest;
    let until = (now + governed::seconds(86_400)).to_string();
    let each = 3;
    let world: String = (0..kills * each)
        .map(|n| exception_until(&format!("EX-{n}"), &format!("CT-R-{n}"), "agent", &until))
        .collect();
    let controls: String = (0..kills * each)
        .map(|n| control(&format!("CT-R-{n}"), &format!("risky-{n}"), "true"))
        .collect();
    let world =
        (controls + &control("CT-PLAIN", "plain", "false") + &subject("agent", None) + &world)
            .replace("actions: [risky]", "actions: [ANY]")
            .replace("2026-11-22T11:59:00Z", &now.to_string())
            .replace("2026-11-22T11:00:00Z", &now.to_string());
    // LOW exceptions name their actions; here each control is of one action, so all may be named.
    let all: Vec<String> = (0..kills * each).map(|n| format!("risky-{n}")).collect();
    let world = world.replace("actions: [ANY]", &format!("actions: [{}]", all.join(", ")));
    client.apply(&world).await.unwrap();
    let token = client.let_in("service:s", v1::Role::Sidecar, &["*"]).await;
    std::fs::write(&fleet.token, token).unwrap();
    let status = client
        .fleet
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap();
    fleet.key = status.into_inner().key_pin;
    let mut running = fleet.sidecar();
    let mut sidecar = fleet.answers().await;
    sidecar
        .until("agent", "risky-0", "ALLOW_BY_EXCEPTION")
        .await;

    let (mut promised, mut complete) = (BTreeSet::new(), BTreeSet::new());
    let mut next = 0;
    for kill in 0..kills {
        let the_registry = dice.often(50);
        let moment = Duration::from_micros(u64::try_from(dice.roll(12_000)).unwrap());
        // Revocations under way while the process dies.
        let load = async {
            for _ in 0..each {
                let id = format!("EX-{next}");
                next += 1;
                if let Ok(receipt) = client.revoke(&id).await {
                    promised.insert(id.clone());
                    let sequence = receipt.removal.unwrap().sequence;
                    let request = v1::GetRevocationRequest {
                        sequence,
                        wait: true,
                    };
                    let waiting = client.revocations.get_revocation(request);
                    if let Ok(Ok(answer)) = timeout(Duration::from_millis(100), waiting).await
                        && answer.into_inner().receipt.unwrap().completion() == Completion::Complete
                    {
                        complete.insert(id);
                    }
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
        let request = v1::ListRevocationsRequest {
            page_size: 1_000,
            ..v1::ListRevocationsRequest::default()
        };
        let list = client.revocations.list_revocations(request).await.unwrap();
        let known: BTreeSet<String> = list
            .into_inner()
            .removals
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
        "{} revocations promised, {} seen complete at once",
        promised.len(),
        complete.len()
    );
}

/// Asks until it is told to stop, whoever answers or not; the decisions that were answered and rest
/// on an exception.
async fn asks(sidecar: String, operations: String, stop: Arc<AtomicBool>) -> Vec<String> {
    let sidecar = Sidecar::at(&sidecar, &operations);
    let mut answered = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match sidecar.try_ask("agent", "risky").await {
            Ok(decision) if decision.outcome() == v1::Outcome::AllowByException => {
                answered.push(decision.id);
            }
            Ok(_) => sleep(Duration::from_millis(1)).await,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
    answered
}

/// The decisions that rest on the exception, as the registry has them, and how often each.
async fn relied_on(client: &mut Client) -> BTreeMap<String, usize> {
    let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListUsageRequest {
            exception_id: "EX-1".into(),
            page_size: 1_000,
            page_token,
        };
        let page = client.usage.list_usage(request).await.unwrap().into_inner();
        for record in page.records.into_iter().filter_map(|kept| kept.record) {
            if record.kind() == v1::UsageKind::ReliedOn {
                *recorded.entry(record.decision_id).or_default() += 1;
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return recorded;
        }
    }
}

/// E1, E2: whichever process is killed, and when, every allow that was answered and rests on an
/// exception has its record at the registry, once.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
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
    let mut fleet = Fleet {
        scratch: tempfile::tempdir().unwrap(),
        registry_at: free_port(),
        listen: free_port(),
        operations: free_port(),
        key: String::new(),
        token: PathBuf::new(),
    };
    fleet.token = fleet.scratch.path().join("token");
    let mut registry = fleet.registry();
    let mut client = fleet.client().await;
    let now = Clock::system().now().latest;
    let until = (now + governed::seconds(86_400)).to_string();
    let world = control("CT-RISKY", "risky", "true")
        + &control("CT-PLAIN", "plain", "false")
        + &subject("agent", None)
        + &exception_until("EX-1", "CT-RISKY", "agent", &until);
    let world = world
        .replace("2026-11-22T11:59:00Z", &now.to_string())
        .replace("2026-11-22T11:00:00Z", &now.to_string());
    client.apply(&world).await.unwrap();
    let token = client.let_in("service:s", v1::Role::Sidecar, &["*"]).await;
    std::fs::write(&fleet.token, token).unwrap();
    let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
    fleet.key = status.unwrap().into_inner().key_pin;
    let mut running = fleet.sidecar();
    let sidecar = fleet.answers().await;
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;

    let stop = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let (listen, operations) = (fleet.listen.clone(), fleet.operations.clone());
            tokio::spawn(asks(listen, operations, Arc::clone(&stop)))
        })
        .collect();
    for _ in 0..kills {
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
    stop.store(true, Ordering::SeqCst);
    let mut answered = Vec::new();
    for asker in askers {
        answered.extend(asker.await.unwrap());
    }
    assert!(answered.len() > kills, "{}", answered.len());
    let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
    let mut lost = usize::MAX;
    for _ in 0..200 {
        recorded = relied_on(&mut client).await;
        let missing = |id: &&String| !recorded.contains_key(*id);
        lost = answered.iter().filter(missing).count();
        if lost == 0 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(lost, 0, "of {} answered ones", answered.len());
    assert!(recorded.values().all(|count| *count == 1), "none twice");
    let complete = client.until_used("EX-1", |used| used.complete).await;
    assert_eq!(complete.uses, complete.inside, "{complete:?}");
    println!("{} answered, {} recorded", answered.len(), recorded.len());
    drop(running);
}
