//! The examples, as a newcomer runs them, against a sidecar over the example bundle.

use std::process::{Command, Output};

use exeat::{runtime::clock::Clock, wire::v1};
use serde_json::Value as Json;

use crate::support::governed::{Registry, Sidecar, control, noon, world};

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads where its peers are"
)]
fn python() -> String {
    std::env::var("EXEAT_PYTHON").expect("EXEAT_PYTHON names a Python with peers")
}

async fn run(program: String, args: Vec<String>) -> Output {
    let run = move || Command::new(program).args(args).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Issue line 6: each under 60 lines of its own, and it does what it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_ask_before_they_act() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
    let mut client = registry.client().await;
    let tools = control("CT-TOOLS", "tools/call", "request.tool.name == 'wipe'");
    client.apply(&(world() + &tools)).await.unwrap();
    let token = client.let_in("one", v1::Role::Sidecar, &["*"]).await;
    let socket = scratch.path().join("exeat.sock").display().to_string();
    let flags = [
        ("insecure_asserted_identity", "true"),
        ("unix", socket.as_str()),
    ];
    let data = scratch.path().join("s");
    let (address, key) = (&registry.address, &registry.key);
    let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &flags)
        .await
        .unwrap();
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/agents");
    for file in ["grpc_agent.py", "authzen.sh"] {
        let lines = std::fs::read_to_string(format!("{examples}/{file}")).unwrap();
        assert!(lines.lines().count() < 60, "{file}");
    }
    for address in [sidecar.address.clone(), format!("unix:{socket}")] {
        for (tool, said, code) in [("refund", "allowed dec_", 0), ("wipe", "denied dec_", 3)] {
            let file = format!("{examples}/grpc_agent.py");
            let tool = format!("mcp://crm/{tool}");
            let args = vec![file, address.clone(), "agent".into(), tool];
            let done = run(python(), args).await;
            let out = text(&done.stdout);
            assert!(out.starts_with(said), "{out} {}", text(&done.stderr));
            assert_eq!(done.status.code(), Some(code), "{out}");
        }
    }
    // Where no control says no, the reason does.
    let file = format!("{examples}/grpc_agent.py");
    let args = vec![
        file,
        sidecar.address.clone(),
        "nobody".into(),
        "mcp://crm/refund".into(),
    ];
    let out = text(&run(python(), args).await.stdout);
    assert!(out.contains("SUBJECT_UNKNOWN"), "{out}");
    for (tool, decision) in [("refund", true), ("wipe", false)] {
        let url = format!("http://{}", sidecar.address);
        let tool = format!("mcp://crm/{tool}");
        let args = vec![format!("{examples}/authzen.sh"), url, "agent".into(), tool];
        let done = run("sh".into(), args).await;
        let told: Json = serde_json::from_slice(&done.stdout)
            .unwrap_or_else(|_| panic!("{} {}", text(&done.stdout), text(&done.stderr)));
        assert_eq!(told["decision"], decision, "{told}");
    }
}

/// Issue line 6: a middleware of LangChain has each tool decided, tells its model of a denial, and
/// runs nothing where nobody can say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_langchain_agent_runs_what_is_allowed() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
    let mut client = registry.client().await;
    let tools = control("CT-TOOLS", "tools/call", "request.tool.name == 'wipe'");
    client.apply(&(world() + &tools)).await.unwrap();
    let token = client.let_in("one", v1::Role::Sidecar, &["*"]).await;
    let flags = [("insecure_asserted_identity", "true")];
    let data = scratch.path().join("s");
    let (address, key) = (&registry.address, &registry.key);
    let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &flags)
        .await
        .unwrap();
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let lines = std::fs::read_to_string("examples/agents/langchain_agent.py").unwrap();
    assert!(lines.lines().count() < 60);
    let told = async |address: &str| {
        let url = format!("http://{address}");
        let args = ["tests/peers/langchain_agent.py", &url, "agent"].map(ToOwned::to_owned);
        let done = run(python(), args.into()).await;
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        serde_json::from_slice::<Json>(&done.stdout).unwrap_or_else(|_| panic!("{why}"))
    };
    let said = told(&sidecar.address).await;
    assert_eq!(said["ran"], serde_json::json!(["refund 3"]), "{said}");
    assert_eq!(said["told"]["refund"][0], "success");
    assert_eq!(said["told"]["wipe"][0], "error");
    let why = said["told"]["wipe"][1].as_str().unwrap();
    assert!(why.contains("CT-TOOLS"), "{why}");
    let nobody = told("127.0.0.1:1").await;
    assert_eq!(nobody["ran"], serde_json::json!([]), "{nobody}");
}

/// Issue line 6: manifests for Kubernetes and Istio are what the published schemas want, and the
/// sidecars in them start with what they are given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_as_published_and_their_sidecars_start() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test reads where its peers are"
    )]
    let tools = std::env::var("EXEAT_NPM").expect("EXEAT_NPM names the folder of node_modules");
    let files = [
        "examples/kubernetes/agent.yaml",
        "examples/istio/mesh.yaml",
        "examples/istio/tools.yaml",
    ];
    for file in files {
        let lines = std::fs::read_to_string(file).unwrap();
        assert!(lines.lines().count() < 60, "{file}");
    }
    let mut args = vec!["tests/peers/manifests.mjs".to_owned(), tools];
    args.extend(files.map(ToOwned::to_owned));
    let done = run("node".into(), args).await;
    let out = String::from_utf8(done.stdout).unwrap();
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{why}");
    let sidecars: Vec<Vec<String>> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(sidecars.len(), 2, "{out}");
    for args in sidecars {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().display().to_string();
        for folder in ["etc/exeat/policy", "run/exeat", "var/lib/exeat"] {
            std::fs::create_dir_all(scratch.path().join(folder)).unwrap();
        }
        let at = |path: &str| scratch.path().join(path);
        std::fs::write(at("etc/exeat/policy/a.yaml"), world()).unwrap();
        std::fs::write(at("etc/exeat/token"), "token").unwrap();
        let authority = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority).unwrap();
        std::fs::write(at("etc/exeat/ca.pem"), authority.pem()).unwrap();
        // In a folder and on ports of this test's own.
        let key = format!("ed25519:{}", "ab".repeat(32));
        let args: Vec<String> = args
            .iter()
            .map(|arg| {
                arg.replace("=/", &format!("={root}/"))
                    .replace("$(REGISTRY_KEY)", &key)
                    .replace("0.0.0.0:7431", "127.0.0.1:0")
            })
            .chain(["--listen=127.0.0.1:0".to_owned()])
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let log = at("log");
        let mut started = crate::support::processes::run(&args, &log, &[]);
        loop {
            let said = std::fs::read_to_string(&log).unwrap();
            if said.contains(" listening ") {
                break;
            }
            assert!(started.0.try_wait().unwrap().is_none(), "{args:?}: {said}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
