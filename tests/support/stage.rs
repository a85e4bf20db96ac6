//! A registry, a sidecar and the command line, as people have them, on the stage of a test.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
};

use exeat::{domain::Timestamp, runtime::clock::Clock, wire::v1};
use serde_json::Value as Json;

use super::{
    cases::{DAY, EXCEPTED, PLAIN, World, agent, people},
    governed::{Client, Sidecar, control, seconds},
    processes::{Fleet, Running},
};

/// What everybody begins with, as of `now`.
pub fn world(now: Timestamp) -> String {
    let world = people()
        + &control("CT-RISKY", "risky", "true")
        + &control("CT-PLAIN", "plain", "false")
        + &agent("agent");
    at(&world, now)
}

/// What is written as of the noon of tests, as of `now`.
pub fn at(text: &str, now: Timestamp) -> String {
    text.replace("2026-11-22T11:59:00Z", &now.to_string())
        .replace(
            "2027-11-22T00:00:00Z",
            &(now + seconds(360 * DAY)).to_string(),
        )
}

pub struct Stage {
    pub registry: Option<Running>,
    pub process: Running,
    pub fleet: Fleet,
    pub client: Client,
    pub sidecar: Sidecar,
    pub tokens: BTreeMap<String, String>,
    pub now: Timestamp,
}

impl Stage {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One whose sidecar has more flags.
    pub async fn start_with(flags: &[&str]) -> Self {
        let mut fleet = Fleet::new();
        fleet.flags.extend(flags.iter().map(ToString::to_string));
        Self::start_in(fleet).await
    }

    /// One in a fleet of which nobody is started.
    pub async fn start_in(fleet: Fleet) -> Self {
        let now = Clock::system().now().latest;
        Self::over(fleet, Some(&world(now))).await
    }

    /// Goes on from what came about in `past`, by a clock that was moved.
    pub async fn after(mut past: World) -> Self {
        past.registry.process.stop().await;
        // Another sidecar's, if there was one.
        drop(fs::remove_dir_all(past.scratch.path().join("s")));
        Self::over(Fleet::within(past.scratch), None).await
    }

    async fn over(mut fleet: Fleet, begins_with: Option<&str>) -> Self {
        fleet.exceptions = "requested";
        let registry = fleet.registry();
        let mut client = fleet.client().await;
        if let Some(text) = begins_with {
            client.apply(text).await.unwrap();
        }
        fleet.let_in(&mut client).await;
        let process = fleet.sidecar();
        let sidecar = fleet.answers().await;
        let admin = fs::read_to_string(fleet.path("r/admin.token")).unwrap();
        let tokens = BTreeMap::from([("admin".to_owned(), admin.trim().to_owned())]);
        let mut stage = Self {
            registry: Some(registry),
            process,
            fleet,
            client,
            sidecar,
            tokens,
            now: Clock::system().now().latest,
        };
        for name in ["alice", "bob", "bob2", "carol"] {
            stage.let_in(name).await;
        }
        stage
    }

    /// Gives somebody a token.
    pub async fn let_in(&mut self, name: &str) {
        let identity = format!("user:{name}");
        let token = self.client.let_in(&identity, v1::Role::Approver, &[]);
        self.tokens.insert(name.into(), token.await);
    }

    /// The registry is killed and started again.
    pub async fn restarts(&mut self) {
        drop(self.registry.take());
        self.registry = Some(self.fleet.registry());
        self.client = self.fleet.client().await;
    }

    /// What somebody's command says, and its exit code.
    pub fn tries(&self, who: &str, line: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EXEAT_")) {
            command.env_remove(name);
        }
        let output = command
            .envs(self.fleet.set.iter().cloned())
            .env("EXEAT_REGISTRY", &self.fleet.registry_at)
            .env("EXEAT_TOKEN", &self.tokens[who])
            .env("EXEAT_SOCKET", &self.fleet.listen)
            .current_dir(self.fleet.scratch.path())
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), said)
    }

    pub fn says(&self, who: &str, line: &str) -> String {
        let (code, said) = self.tries(who, line);
        assert_eq!(code, 0, "{who}: {line}: {said}");
        said
    }

    /// It is refused, for what `parts` say.
    pub fn refuses(&self, who: &str, line: &str, parts: &[&str]) {
        let (code, said) = self.tries(who, line);
        assert_ne!(code, 0, "{who}: {line}: {said}");
        for part in parts {
            assert!(said.contains(part), "{line}: {part} is not in\n{said}");
        }
    }

    pub fn write(&self, text: &str) {
        let path = self.fleet.scratch.path().join("a.yaml");
        fs::write(path, at(text, self.now)).unwrap();
    }

    pub fn apply(&self, text: &str) {
        self.applied(text);
    }

    /// The same; the log's revision afterwards.
    pub fn applied(&self, text: &str) -> u64 {
        self.write(text);
        let said = self.says("admin", "apply -f a.yaml");
        let (_, revision) = said.trim_end().rsplit_once(' ').unwrap();
        revision.parse().unwrap()
    }

    pub fn asks(&self, who: &str, text: &str) -> Json {
        self.write(text);
        let said = self.says(who, "exception request -f a.yaml -o json");
        serde_json::from_str(said.lines().next().unwrap()).unwrap()
    }

    pub fn shows(&self, id: &str) -> Json {
        let said = self.says("admin", &format!("exception show {id} -o json"));
        serde_json::from_str(said.lines().next().unwrap()).unwrap()
    }

    /// What it is once it is in a state: the sweep is a task of the registry's own.
    pub async fn until_shows(&self, id: &str, wanted: &str) -> Json {
        let mut case = self.shows(id);
        for _ in 0..500 {
            if state(&case) == wanted {
                return case;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            case = self.shows(id);
        }
        panic!("never {wanted}: {case}");
    }

    /// The command that approves it, having looked at all its evidence.
    pub fn approval(case: &Json) -> String {
        let (id, digest) = (text(case, "/case/id"), text(case, "/digest"));
        let evidence = case.pointer("/case/request/evidence");
        let evidence = evidence.and_then(Json::as_array).into_iter().flatten();
        let seen: String = evidence
            .map(|item| format!(" --reviewed {}", text(item, "/evidence_id")))
            .collect();
        format!("exception approve {id} --digest {digest} --comment looked-at-all-of-it{seen}")
    }

    /// Bob approves what alice asks, and it holds at the sidecar.
    pub async fn granted(&self) -> String {
        let case = self.asks("alice", &PLAIN.text());
        self.says("bob", &Self::approval(&case));
        self.sidecar.until("agent", "risky", EXCEPTED).await;
        text(&case, "/case/id")
    }
}

pub fn text(of: &Json, at: &str) -> String {
    let found = of.pointer(at).and_then(Json::as_str);
    found.unwrap_or_else(|| panic!("{at} in {of}")).to_owned()
}

pub fn state(case: &Json) -> String {
    text(case, "/case/state")
}
