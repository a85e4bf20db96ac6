//! A sidecar whose keys come from a SPIFFE Workload API, which is another process.

use std::{fs, path::Path, process::Command};

use exeat::runtime::clock::Clock;

use crate::support::{
    authority::Authority,
    governed::Sidecar,
    processes::{Fleet, Running, run, used},
};

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads where its peers are"
)]
fn python() -> String {
    std::env::var("EXEAT_PYTHON").expect("EXEAT_PYTHON names a Python with peers")
}

/// The authority of a Workload API.
struct Api(Authority);

impl Api {
    /// Puts keys where the Workload API reads them: `svid.der` last, which is what it looks at.
    fn gives(&self, folder: &Path, id: &str) {
        let (certificate, key) = self.0.issue(id);
        for (name, content) in [
            ("id", id.as_bytes()),
            ("bundle.der", self.0.certificate.der()),
            ("key.der", key.serialized_der()),
            ("svid.der", certificate.der()),
        ] {
            fs::write(folder.join("new"), content).unwrap();
            fs::rename(folder.join("new"), folder.join(name)).unwrap();
        }
    }

    /// What `id` is told.
    async fn says(&self, address: &str, id: &str) -> String {
        let channel = match self.0.connect(address, id).await {
            Ok(channel) => channel,
            Err(why) => return format!("{why:?}"),
        };
        match Sidecar::ask_over(channel, "", "plain").await {
            Ok(decision) => decision.outcome().as_str_name().to_owned(),
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        }
    }

    async fn until(&self, fleet: &Fleet, id: &str, wanted: &str) {
        let mut said = String::new();
        for _ in 0..2_000 {
            said = self.says(&fleet.listen, id).await;
            if said.contains(wanted) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let log = fs::read_to_string(fleet.path("log")).unwrap();
        panic!("never {wanted}: {said}\n{log}");
    }
}

const AGENT: &str = "spiffe://acme.example/agent/a";
const SIDECAR: &str = "spiffe://acme.example/sidecar";

/// Its certificate and whom it trusts are the Workload API's, and new ones are used as they come.
#[tokio::test]
async fn keys_come_from_a_workload_api_and_are_renewed() {
    let mut fleet = Fleet::new();
    let world = used(Clock::system().now().latest).replace("id: agent", &format!("id: {AGENT}"));
    let world = world.replace("[\"agent\"]", &format!("[\"{AGENT}\"]"));
    let keys = fleet.scratch.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let first = Api(Authority::new());
    first.gives(&keys, SIDECAR);
    let socket = fleet.path("workload.sock");
    let api = Command::new(python())
        .arg("tests/peers/workload_api.py")
        .arg(&socket)
        .arg(&keys)
        .spawn();
    let _api = Running(api.unwrap());
    let endpoint = format!("unix://{socket}");
    let flags = [
        "--workload-api",
        &endpoint,
        "--trust-domain",
        "acme.example",
    ];
    fleet.flags = flags.map(str::to_owned).to_vec();
    let _process = fleet.alone(&world);
    first.until(&fleet, AGENT, "OUTCOME_ALLOW").await;
    let elsewhere = "spiffe://other.example/agent/a";
    let said = first.says(&fleet.listen, elsewhere).await;
    assert!(said.starts_with("Unauthenticated"), "{said}");
    // Another authority: who was let in by the old one is not any more.
    let second = Api(Authority::new());
    second.gives(&keys, SIDECAR);
    second.until(&fleet, AGENT, "OUTCOME_ALLOW").await;
    let said = first.says(&fleet.listen, AGENT).await;
    assert!(!said.contains("OUTCOME_ALLOW"), "{said}");
}

/// Without one it does not start, and says what it waited for.
#[tokio::test]
async fn a_workload_api_that_is_none_is_named() {
    let fleet = Fleet::new();
    let said = |endpoint: &str, more: &[&str]| {
        let mut args = vec![
            "sidecar",
            "--bundle",
            "examples/policy",
            "--unix",
            "none",
            "--trust-domain",
            "acme.example",
            "--workload-api",
            endpoint,
        ];
        args.extend(more);
        let log = fleet.path("log");
        drop(fs::remove_file(&log));
        let mut process = run(&args, log.as_ref(), &[]);
        assert!(!process.0.wait().unwrap().success());
        fs::read_to_string(log).unwrap()
    };
    let told = said("/run/spire/agent.sock", &[]);
    assert!(
        told.contains("workload_api /run/spire/agent.sock"),
        "{told}"
    );
    let told = said(
        "unix:///run/spire/agent.sock",
        &["--tls-certificate", "a", "--tls-key", "b"],
    );
    assert!(told.contains("`workload_api` is in place of"), "{told}");
}
