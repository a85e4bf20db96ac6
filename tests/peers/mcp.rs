//! `exeat mcp` between a client and a server of the official Python SDK, over both transports and in
//! both eras of the protocol (issue: front doors, line 4).

use std::process::{Child, Command, Stdio};

use exeat::{manifest::Bundle, runtime::clock::Clock, wire::v1};
use serde_json::Value as Json;

use crate::support::{
    governed::{Registry, Sidecar, control, exception, noon, subject},
    ports::free_port,
};

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads where its peers are"
)]
fn python() -> String {
    std::env::var("EXEAT_PYTHON").expect("EXEAT_PYTHON names a Python with peers")
}

const EXE: &str = env!("CARGO_BIN_EXE_exeat");
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");

/// A process that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn done(program: &str, args: Vec<String>) -> (Option<i32>, String) {
    let program = program.to_owned();
    let run = move || Command::new(program).args(args).output().unwrap();
    let done = tokio::task::spawn_blocking(run).await.unwrap();
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), if out.is_empty() { said } else { out })
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

async fn listens(port: u16) {
    for _ in 0..12_000 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("nobody listens on {port}");
}

/// Where a client finds the server: the arguments of the client's script after its mode. What listens
/// lives until it is dropped.
async fn between(
    transport: &str,
    server: &[String],
    flags: &[String],
) -> (Vec<String>, Vec<Running>) {
    if transport == "stdio" {
        let mut target = texts(&[EXE, "mcp", "wrap"]);
        target.extend(flags.iter().cloned());
        target.extend(["--".to_owned(), python()]);
        target.extend(server.iter().cloned());
        return (target, Vec::new());
    }
    let (behind, before) = (free_port(), free_port());
    let mut server = server.to_vec();
    server[1] = "http".to_owned();
    server.push(behind.to_string());
    let server = Command::new(python())
        .args(&server)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = Running(server.unwrap());
    let upstream = format!("http://127.0.0.1:{behind}/mcp");
    let proxy = Command::new(EXE)
        .args(["mcp", "proxy", "--upstream", &upstream])
        .args(["--listen", &format!("127.0.0.1:{before}")])
        .args(flags)
        .stderr(Stdio::null())
        .spawn();
    let proxy = Running(proxy.unwrap());
    listens(behind).await;
    listens(before).await;
    let target = format!("http://127.0.0.1:{before}/mcp");
    (vec![target], vec![server, proxy])
}

async fn seen(mode: &str, target: &[String]) -> Json {
    let mut args = vec![format!("{PEERS}/mcp_client.py"), mode.to_owned()];
    args.extend(target.iter().cloned());
    let (code, out) = done(&python(), args).await;
    assert_eq!(code, Some(0), "{out}");
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}"))
}

/// The subject with its tools, and what its exception is bound to of them.
fn governed_tools(pinned: &str) -> (String, String) {
    let tools = pinned.replace("approved: false", "approved: true");
    let with = format!("{}{tools}", subject("agent", None));
    let alone = [("s.yaml".to_owned(), with.clone())];
    let snapshot = Bundle::read_files(alone).unwrap().snapshot(1).unwrap();
    let fingerprint = &snapshot.subject("agent").unwrap().fingerprint;
    let tools = fingerprint
        .iter()
        .find(|(facet, _)| facet.name() == "tools");
    (with, tools.unwrap().1.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r36_what_a_model_may_call_and_sees_is_decided() {
    let scratch = tempfile::tempdir().unwrap();
    let pulled = scratch.path().join("pulled");
    let server = texts(&[
        &format!("{PEERS}/mcp_server.py"),
        "stdio",
        pulled.to_str().unwrap(),
    ]);
    let mut pin = texts(&["mcp", "pin", "--server", "mcp://crm", "--", &python()]);
    pin.extend(server.iter().cloned());
    let (code, pinned) = done(EXE, pin).await;
    assert_eq!(
        (code, pinned.matches("mcp://crm").count()),
        (Some(0), 4),
        "{pinned}"
    );

    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
    let mut client = registry.client().await;
    let (subject, tools) = governed_tools(&pinned);
    let named =
        |id: &str, name: &str| control(id, "tools/call", &format!("request.tool.name == '{name}'"));
    let excepted = exception("EX-DUMP", "CT-DUMP", "agent").replace("[risky]", "[tools/call]");
    let bound = excepted
        .lines()
        .find(|line| line.starts_with("  tools: "))
        .unwrap();
    let excepted = excepted.replace(bound, &format!("  tools: \"{tools}\""));
    let world = named("CT-DUMP", "dump")
        + &named("CT-WIPE", "wipe")
        + &named("CT-HIDDEN", "hidden").replace("SOFT_", "HARD_")
        + &control("CT-PLAIN", "plain", "false")
        + &subject
        + &excepted;
    client.apply(&world).await.unwrap();
    let token = client.let_in("one", v1::Role::Sidecar, &["*"]).await;
    let socket = scratch.path().join("exeat.sock").display().to_string();
    let flags = [
        ("insecure_asserted_identity", "true"),
        ("unix", socket.as_str()),
    ];
    let data = scratch.path().join("s");
    let (address, key) = (&registry.address, &registry.key);
    let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &flags).await;
    let sidecar = sidecar.unwrap();
    sidecar.until("agent", "plain", "ALLOW OK").await;

    let flags = texts(&[
        "--server",
        "mcp://crm",
        "--agent",
        "agent",
        "--purpose",
        "work",
        "--socket",
        &socket,
        "--approval-url",
        "https://exeat.example/new?d={decision}",
    ]);
    for transport in ["stdio", "http"] {
        let (target, running) = between(transport, &server, &flags).await;
        for (mode, protocol) in [("auto", "2026-07-28"), ("legacy", "2025-11-25")] {
            let about = format!("{transport} {mode}");
            let told = seen(mode, &target).await;
            assert_eq!(told["protocol"], protocol, "{about}");
            assert_eq!(
                told["tools"],
                serde_json::json!(["dump", "search"]),
                "{about}"
            );
            assert_eq!(told["search"]["text"], "found a", "{about}: {told}");
            assert_eq!(told["search"]["decision"], Json::Null, "{about}");
            // Allowed by exception, which its answer says; also where nothing was listed before.
            for call in ["unlisted", "dump"] {
                assert_eq!(told[call]["text"], "dumped t", "{about}: {told}");
                let decision = &told[call]["decision"];
                assert_eq!(decision["exception"], "EX-DUMP", "{about}: {told}");
                let id = decision["id"].as_str().unwrap();
                let why = sidecar.explain(id).await.unwrap();
                assert_eq!(why.resource.unwrap().id, "mcp://crm/dump");
                assert_eq!(why.surface, "mcp");
            }
            for (call, requestable) in [("wipe", true), ("hidden", false)] {
                let denied = &told[call];
                assert_eq!(denied["error"], true, "{about}: {told}");
                assert_eq!(denied["structured"]["requestable"], requestable, "{about}");
                let text = denied["text"].as_str().unwrap();
                assert_eq!(
                    text.contains("exeat.example/new?d=dec_"),
                    requestable,
                    "{text}"
                );
            }
            // A person is sent to the page where the protocol can.
            let pages = told["pages"].as_array().unwrap();
            assert_eq!(pages.len(), usize::from(mode == "auto"), "{about}: {told}");
        }
        drop(running);
    }

    // R9, governance §5 "approved model, changed context": another tool's description is changed, and
    // the exception no longer holds; what needs none goes on.
    std::fs::write(&pulled, "").unwrap();
    for transport in ["stdio", "http"] {
        let (target, running) = between(transport, &server, &flags).await;
        for mode in ["auto", "legacy"] {
            let told = seen(mode, &target).await;
            assert_eq!(told["search"]["text"], "found a", "{told}");
            for call in ["unlisted", "dump"] {
                assert_eq!(told[call]["error"], true, "{told}");
                let reasons = told[call]["structured"]["reasons"].to_string();
                assert!(reasons.contains("EXC_CONTEXT_CHANGED"), "{told}");
            }
            assert_eq!(told["tools"], serde_json::json!(["search"]), "{told}");
        }
        drop(running);
    }

    // With nobody to decide nothing is called and nothing shown, and that is no denial.
    let (target, running) = between("http", &server, &flags).await;
    drop(sidecar);
    for target in [target, between("stdio", &server, &flags).await.0] {
        let told = seen("auto", &target).await;
        for call in ["unlisted", "search", "wipe"] {
            assert_eq!(told[call]["code"], -32_603, "{told}");
            let text = told[call]["text"].as_str().unwrap();
            assert!(text.starts_with("exeat could not say"), "{text}");
        }
        let tools = told["tools"].as_str().unwrap();
        assert!(tools.starts_with("exeat could not say"), "{told}");
    }
    drop(running);
}
