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
