//! Real processes, and what is asked of them.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use exeat::{domain::Timestamp, runtime::clock::Clock, wire::v1};
use tokio::{task::JoinHandle, time::sleep};
use tonic::transport::Endpoint;

use super::{
    governed::{self, Client, Sidecar, control, exception_until, subject},
    ports::free_address,
};

/// How often a process that was started is asked whether it is there.
const PATIENCE: u32 = 12_000;

/// A process that is killed when it is dropped.
pub struct Running(pub Child);

impl Running {
    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGKILL.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts the program, and writes what it says to `log`.
pub fn run(args: &[&str], log: &Path, set: &[(String, String)]) -> Running {
    let log = File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EXEAT_")) {
        command.env_remove(name);
    }
    command.envs(set.iter().cloned());
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

/// A registry and a sidecar, each a process of its own.
pub struct Fleet {
    pub scratch: tempfile::TempDir,
    pub registry_at: String,
    pub listen: String,
    pub operations: String,
    pub key: String,
    pub token: PathBuf,
    /// What both are started with.
    pub set: Vec<(String, String)>,
    /// How exceptions come into the registry.
    pub exceptions: &'static str,
    /// More flags of the sidecar's: who callers are among them.
    pub flags: Vec<String>,
}

impl Fleet {
    /// One that nobody has started.
    #[must_use]
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// One whose data is in `scratch`.
    #[must_use]
    pub fn within(scratch: tempfile::TempDir) -> Self {
        Self {
            token: scratch.path().join("token"),
            scratch,
            registry_at: free_address(),
            listen: free_address(),
            operations: free_address(),
            key: String::new(),
            set: Vec::new(),
            exceptions: "applied",
            flags: vec!["--insecure-asserted-identity".into()],
        }
    }

    /// Puts [`used`] in force as of now, and lets the sidecar in.
    pub async fn begin(&mut self, client: &mut Client) {
        let now = Clock::system().now().latest;
        client.apply(&used(now)).await.unwrap();
        self.let_in(client).await;
    }

    /// Lets the sidecar in, and notes the registry's key.
    pub async fn let_in(&mut self, client: &mut Client) {
        let token = client.let_in("service:s", v1::Role::Sidecar, &["*"]).await;
        std::fs::write(&self.token, token).unwrap();
        let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
        self.key = status.unwrap().into_inner().key_pin;
    }

    pub fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    pub fn registry(&self) -> Running {
        let args = [
            "registry",
            "--data",
            &self.path("r"),
            "--listen",
            &self.registry_at,
            "--operations",
            "127.0.0.1:0",
        ];
        let mut set = self.set.clone();
        set.push(("EXEAT_EXCEPTIONS".into(), self.exceptions.into()));
        run(&args, Path::new(&self.path("log")), &set)
    }

    pub fn sidecar(&self) -> Running {
        let data = self.path("s");
        self.starts(&[
            "--registry",
            &self.registry_at,
            "--registry-key",
            &self.key,
            "--registry-token-file",
            self.token.to_str().unwrap(),
            "--data",
            &data,
        ])
    }

    /// A sidecar of a folder that holds `world`, without a registry.
    pub fn alone(&self, world: &str) -> Running {
        let folder = self.scratch.path().join("policy");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.yaml"), world).unwrap();
        let folder = folder.display().to_string();
        self.starts(&["--bundle", &folder])
    }

    fn starts(&self, from: &[&str]) -> Running {
        let at = ["--listen", &self.listen, "--operations", &self.operations];
        let mut args = vec!["sidecar"];
        args.extend(from.iter().copied().chain(at));
        if !self.flags.iter().any(|flag| flag == "--unix") {
            args.extend(["--unix", "none"]);
        }
        args.extend(self.flags.iter().map(String::as_str));
        run(&args, Path::new(&self.path("log")), &self.set)
    }

    /// What was said so far, for whoever waits in vain.
    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub async fn client(&self) -> Client {
        for _ in 0..PATIENCE {
            let token = std::fs::read_to_string(self.scratch.path().join("r/admin.token"));
            let endpoint = Endpoint::from_shared(format!("http://{}", self.registry_at)).unwrap();
            if let (Ok(token), Ok(channel)) = (token, endpoint.connect().await) {
                return Client::over(channel, &token);
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("the registry does not answer: {}", self.log());
    }

    pub async fn answers(&self) -> Sidecar {
        let sidecar = Sidecar::at(&self.listen, &self.operations);
        for _ in 0..PATIENCE {
            if sidecar.try_ask("agent", "plain").await.is_ok() {
                return sidecar;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("the sidecar does not answer: {}", self.log());
    }
}

/// A control that fails for `risky`, one that passes for `plain`, an agent and its exception, as of
/// `now`.
pub fn used(now: Timestamp) -> String {
    let until = (now + governed::seconds(86_400)).to_string();
    let world = control("CT-RISKY", "risky", "true")
        + &control("CT-PLAIN", "plain", "false")
        + &subject("agent", None)
        + &exception_until("EX-1", "CT-RISKY", "agent", &until);
    world
        .replace("2026-11-22T11:59:00Z", &now.to_string())
        .replace("2026-11-22T11:00:00Z", &now.to_string())
}

/// Several who ask without a pause.
pub struct Askers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Askers {
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    pub fn start(fleet: &Fleet, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let ask = |_| {
            let (listen, operations) = (fleet.listen.clone(), fleet.operations.clone());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(asks(listen, operations, stop, answered))
        };
        Self {
            tasks: (0..count).map(ask).collect(),
            answered,
            stop,
        }
    }

    /// Waits until one more use is answered.
    pub async fn more(&self, fleet: &Fleet) {
        let before = self.answered.load(Ordering::SeqCst);
        for _ in 0..PATIENCE {
            if self.answered.load(Ordering::SeqCst) > before {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("no use is answered: {}", fleet.log());
    }

    /// The decisions that were answered and rest on an exception.
    pub async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut answered = Vec::new();
        for task in self.tasks {
            answered.extend(task.await.unwrap());
        }
        answered
    }
}

/// Asks until it is told to stop, whoever answers or not; the decisions that were answered and rest
/// on an exception.
async fn asks(
    sidecar: String,
    operations: String,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> Vec<String> {
    let sidecar = Sidecar::at(&sidecar, &operations);
    let mut answered = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match sidecar.try_ask("agent", "risky").await {
            Ok(decision) if decision.outcome() == v1::Outcome::AllowByException => {
                answered.push(decision.id);
                count.fetch_add(1, Ordering::SeqCst);
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

/// Every answered use is at the registry, and once; how many there are.
pub async fn each_once(client: &mut Client, answered: &[String]) -> usize {
    let mut recorded = BTreeMap::new();
    let mut lost = usize::MAX;
    for _ in 0..200 {
        recorded = relied_on(client).await;
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
    recorded.len()
}
