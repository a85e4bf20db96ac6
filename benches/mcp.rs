//! What `exeat mcp wrap` adds to a call of a tool: a server spoken to directly and through it, side by
//! side, with a sidecar that decides each call.
//!
//! `cargo bench --bench mcp`; all processes are the release build, the server is this program.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value as Json, json};
use tokio::time::Instant;

const EXE: &str = env!("CARGO_BIN_EXE_exeat");
/// Calls that are measured of each, and those before.
const CALLS: usize = 5_000;
const WARM: usize = 500;

const WORLD: &str = r#"
apiVersion: exeat/v1
kind: Control
id: CT-WIPE
title: Nothing is dropped
remediation: Do not.
owner: user:o
severity: HIGH
enforcement: SOFT_MANDATORY
evidence_requirements: [{source: a bench}]
applies_to: {actions: [tools/call]}
failure_condition: "request.tool.name == 'wipe'"
state: DEPRECATED
---
apiVersion: exeat/v1
kind: Subject
id: agent
subject_kind: AI_AGENT
environment: prod
owner: {principal: "user:o", active: true}
purpose: {permitted_ids: [work]}
risk_tier: LOW
data_sensitivity: INTERNAL
lifecycle_state: ACTIVE
"#;

/// A process that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A server with one tool, which does nothing.
fn serve() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let asked: Json = serde_json::from_str(&line.unwrap()).unwrap();
        let result = if asked["method"] == "tools/list" {
            let schema = json!({"type": "object"});
            json!({"tools": [{"name": "search", "description": "Finds.", "inputSchema": schema}]})
        } else {
            json!({"content": [{"type": "text", "text": "found"}]})
        };
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
        writeln!(out, "{answer}").unwrap();
        out.flush().unwrap();
    }
}

/// Somebody who speaks to a server.
struct Client {
    _running: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    said: usize,
}

impl Client {
    fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            _running: Running(child),
            to,
            from: BufReader::new(from),
            said: 0,
        }
    }

    /// Whether a call was answered by the server.
    fn call(&mut self) -> bool {
        self.said += 1;
        let params = json!({"name": "search", "arguments": {"q": "somebody", "limit": 10}});
        let asked =
            json!({"jsonrpc": "2.0", "id": self.said, "method": "tools/call", "params": params});
        writeln!(self.to, "{asked}").unwrap();
        self.to.flush().unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        answer.contains("found")
    }

    /// How long calls take, in ms, in order.
    fn took(&mut self) -> Vec<f64> {
        // A sidecar that has just begun has nothing to decide from yet.
        while !self.call() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for _ in 0..WARM {
            assert!(self.call());
        }
        let mut took: Vec<f64> = (0..CALLS)
            .map(|_| {
                let began = Instant::now();
                assert!(self.call());
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        took.sort_by(f64::total_cmp);
        took
    }
}

fn sidecar(scratch: &Path) -> Running {
    let bundle = scratch.join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    std::fs::write(bundle.join("world.yaml"), WORLD).unwrap();
    let mut command = Command::new(EXE);
    command
        .args(["sidecar", "--subject", "agent", "--bundle"])
        .arg(bundle);
    command.arg("--data").arg(scratch.join("data"));
    command.arg("--unix").arg(scratch.join("s"));
    command.args(["--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0"]);
    Running(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

fn main() {
    if std::env::args().any(|arg| arg == "--serve") {
        return serve();
    }
    let scratch = tempfile::tempdir().unwrap();
    let _sidecar = sidecar(scratch.path());
    let server = std::env::current_exe().unwrap();
    let mut direct = Client::of(Command::new(&server).arg("--serve"));
    let mut wrap = Command::new(EXE);
    wrap.args([
        "mcp",
        "wrap",
        "--server",
        "mcp://crm",
        "--purpose",
        "work",
        "--socket",
    ]);
    wrap.arg(scratch.path().join("s"))
        .arg("--")
        .arg(&server)
        .arg("--serve");
    let mut wrapped = Client::of(&mut wrap);
    println!("a tool's call        p50 ms   p99 ms");
    for _ in 0..3 {
        let (direct, wrapped) = (direct.took(), wrapped.took());
        let at = |took: &[f64], q: f64| took[(took.len() as f64 * q) as usize];
        println!(
            "  directly           {:.3}    {:.3}",
            at(&direct, 0.5),
            at(&direct, 0.99)
        );
        println!(
            "  through mcp wrap   {:.3}    {:.3}",
            at(&wrapped, 0.5),
            at(&wrapped, 0.99)
        );
        println!(
            "  added              {:.3}",
            at(&wrapped, 0.5) - at(&direct, 0.5)
        );
    }
}
