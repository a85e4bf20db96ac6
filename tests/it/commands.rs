//! The commands of one who runs a registry, from outside, against real processes: what they say, and
//! with which exit code.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use crate::support::{
    governed::{Client, Sidecar, control, subject},
    ports::free_address,
    processes::{Fleet, Running, used},
};
use exeat::{runtime::clock::Clock, wire::v1};

/// The binary, with nothing of our own settings in its environment but these.
fn binary(set: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EXEAT_") {
            command.env_remove(name);
        }
    }
    command.envs(set.iter().copied());
    command
}

struct People {
    _registry: Running,
    _sidecar: Running,
    fleet: Fleet,
    client: Client,
    sidecar: Sidecar,
    token: String,
}

impl People {
    async fn start() -> Self {
        let mut fleet = Fleet::new();
        let registry = fleet.registry();
        let mut client = fleet.client().await;
        fleet.begin(&mut client).await;
        let process = fleet.sidecar();
        let sidecar = fleet.answers().await;
        let token = fs::read_to_string(fleet.path("r/admin.token")).unwrap();
        Self {
            _registry: registry,
            _sidecar: process,
            fleet,
            client,
            sidecar,
            token,
        }
    }

    /// Runs a command in the scratch folder; its exit code and what it said.
    fn say(&self, line: &str) -> (i32, String) {
        self.say_as(&self.token, line)
    }

    fn say_as(&self, token: &str, line: &str) -> (i32, String) {
        let output = binary(&[
            ("EXEAT_REGISTRY", &self.fleet.registry_at),
            ("EXEAT_TOKEN", token.trim()),
        ])
        .args(line.split_whitespace())
        .current_dir(self.fleet.scratch.path())
        .output()
        .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), said)
    }

    /// It ends well and says each of `parts`.
    fn says(&self, line: &str, parts: &[&str]) -> String {
        let (code, said) = self.say(line);
        assert_eq!(code, 0, "{line}: {said}");
        for part in parts {
            assert!(said.contains(part), "{line}: {part} is not in\n{said}");
        }
        said
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.fleet.scratch.path().join(name), text).unwrap();
    }
}

#[tokio::test]
async fn what_is_governed_is_applied_shown_and_taken_back_from_the_command_line() {
    let people = People::start().await;
    people
        .sidecar
        .until("agent", "risky", "ALLOW_BY_EXCEPTION")
        .await;
    people.says("get agents", &["agent", "user:admin"]);
    people.says("get controls", &["CT-PLAIN", "CT-RISKY"]);
    people.says("queue", &["DUE", "OWNER"]);
    people.says(
        "show control CT-RISKY",
        &["revision 1", "actions: [risky]", "owner: user:o"],
    );
    people.says(
        "agent show agent",
        &["Subject agent", "environment: prod", "user:o"],
    );

    let again = control("CT-NEW", "fresh", "true") + &control("CT-PLAIN", "plain", "1 > 2");
    people.write("new.yaml", &again);
    let changes = [
        "+ Control CT-NEW",
        "~ Control CT-PLAIN  revision 2",
        "failure_condition: \"false\" → \"1 > 2\"",
        "1 created, 1 updated, 0 removed, 0 unchanged",
    ];
    for line in ["apply -f new.yaml --dry-run", "diff -f new.yaml"] {
        let said = people.says(line, &changes);
        assert!(said.contains("nothing was changed"), "{line}: {said}");
    }
    assert_eq!(people.say("get control CT-NEW").0, 2);
    people.says("apply -f new.yaml", &changes);
    people.says(
        "diff -f new.yaml",
        &["0 created, 0 updated, 0 removed, 2 unchanged"],
    );
    people.says(
        "history control CT-PLAIN",
        &["2  20", "1  20", "→ \"1 > 2\""],
    );
    let json = people.says("get controls -o json", &[]);
    let ids: Vec<_> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["CT-NEW", "CT-PLAIN", "CT-RISKY"]);
    let (code, said) = people.say("apply -f new.yaml --expect Control/CT-NEW=7");
    assert!(
        code == 1 && said.contains("is at revision 1, not 7"),
        "{said}"
    );

    people.write("other.yaml", &subject("other", None));
    people.says("agent register -f other.yaml", &["+ Subject other"]);
    people.says("agent freeze agent", &["agent is frozen"]);
    people
        .sidecar
        .until("agent", "plain", "SUBJECT_LOCKED")
        .await;
    people.says("agent list", &["FROZEN", "other"]);
    people.says("agent thaw agent", &["agent is thawed"]);
    people.sidecar.until("agent", "plain", "ALLOW OK").await;
    // What was taken back stays so, and whoever applies or thaws it is told.
    people.says("agent freeze other", &["other is frozen"]);
    people.says(
        "apply -f other.yaml",
        &["= Subject other  revision 1  FROZEN", "1 unchanged"],
    );
    people.says("revoke subject other", &["is revoked"]);
    people.says(
        "diff -f other.yaml",
        &["= Subject other  revision 1  REVOKED"],
    );
    let (code, said) = people.say("agent thaw other");
    assert!(code == 1 && said.contains("it cannot be thawed"), "{said}");

    people.says(
        "exception revoke EX-1 --wait",
        &["is revoked", "COMPLETE  1 acknowledged"],
    );
    let said = people.sidecar.outcome("agent", "risky").await;
    assert!(said.contains("EXC_REVOKED"), "{said}");
    let (code, said) = people.say("exception revoke EX-9");
    assert!(code == 2 && said.contains("there never was"), "{said}");
    people.says("sidecars", &["service:s", "yes"]);
    people.says(
        "status",
        &["safe: ", "1 sidecars connected, 0 gone", "5 removals"],
    );
}

#[tokio::test]
async fn an_apply_with_something_wrong_changes_nothing_and_tells_all_of_it() {
    let people = People::start().await;
    people.write("bad.yaml", &control("CT-OK", "fresh", "true"));
    let wrong = control("CT-BAD", "fresh", "nonsense(")
        + &subject("o", None).replace("AI_AGENT", "ROBOT")
        + &subject("p", None).replace("LOW", "LOWEST");
    people.write("worse.yaml", &wrong);
    let (code, said) = people.say("apply -f bad.yaml -f worse.yaml");
    assert_eq!(code, 7, "{said}");
    for part in [
        "worse.yaml:10:30: Control CT-BAD: `failure_condition`",
        "nonsense(",
        "worse.yaml:17:15: unknown variant `ROBOT`",
        "unknown variant `LOWEST`",
        "nothing was changed",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert_eq!(people.say("get control CT-OK").0, 2);
}

#[tokio::test]
async fn whoever_lacks_a_role_is_told_which() {
    let mut people = People::start().await;
    people.write("new.yaml", &control("CT-NEW", "fresh", "true"));
    let viewer = people
        .client
        .let_in("service:v", v1::Role::Viewer, &[])
        .await;
    assert_eq!(people.say_as(&viewer, "get agents").0, 0);
    for (line, needs) in [
        ("apply -f new.yaml", "role admin or author"),
        ("agent freeze agent", "role approver, author or admin"),
        ("exception revoke EX-1", "role approver, author or admin"),
        ("access grant service:w --role viewer", "role admin"),
    ] {
        let (code, said) = people.say_as(&viewer, line);
        assert_eq!(code, 1, "{line}: {said}");
        for part in ["PermissionDenied", needs, "`service:v` has role viewer"] {
            assert!(said.contains(part), "{line}: {part} is not in {said}");
        }
    }
    let (code, said) = people.say_as("exeat_made_up", "get agents");
    assert!(
        code == 1 && said.contains("the token is not known"),
        "{said}"
    );
}

/// `exeat dev` over a folder; what it says, line by line.
fn dev(folder: &Path, listen: &str, operations: &str) -> (Running, mpsc::Receiver<String>) {
    let (registry, unix) = (free_address(), folder.join(".exeat.sock"));
    let mut child = binary(&[])
        .args(["dev", "--color", "never", "--registry-listen", &registry])
        .args(["--listen", listen, "--operations", operations, "--unix"])
        .arg(unix)
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (said, hears) = mpsc::channel();
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().unwrap()),
        Box::new(child.stderr.take().unwrap()),
    ];
    for pipe in pipes {
        let said = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                // Whoever no longer listens has heard enough.
                drop(said.send(line));
            }
        });
    }
    (Running(child), hears)
}

#[tokio::test]
async fn dev_applies_a_folder_whenever_it_changes_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::system().now().latest;
    let write = |text: &str| fs::write(folder.path().join("world.yaml"), text).unwrap();
    write(&used(now));
    let (listen, operations) = (free_address(), free_address());
    let (_running, said) = dev(folder.path(), &listen, &operations);
    let hears = |part: &str| {
        let mut all = Vec::new();
        while let Ok(line) = said.recv_timeout(Duration::from_secs(20)) {
            if line.contains(part) {
                return;
            }
            all.push(line);
        }
        panic!("{part} is not in {all:?}");
    };
    hears("4 changed");
    let sidecar = Sidecar::at(&listen, &operations);
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let strict = used(now).replace(
        "failure_condition: \"false\"",
        "failure_condition: \"true\"",
    );
    write(&strict);
    hears("1 changed");
    sidecar.until("agent", "plain", "CONTROL_FAILED").await;
    // What is wrong changes nothing, and is told with its place.
    write(&used(now).replace("failure_condition: \"false\"", "failure_condition: \"(\""));
    hears("world.yaml:22:22: Control CT-PLAIN");
    sidecar.until("agent", "plain", "CONTROL_FAILED").await;
    write(&used(now));
    hears("1 changed");
    sidecar.until("agent", "plain", "ALLOW OK").await;
}
