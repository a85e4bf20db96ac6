//! A coding agent asks before it acts, through the program itself.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use exeat::{runtime::clock::Clock, wire::v1};
use serde_json::{Value as Json, json};

use crate::support::governed::{Registry, Sidecar, control, exception, noon, world};

fn exeat(args: &[&str], said: &[u8]) -> Output {
    let mut process = Command::new(env!("CARGO_BIN_EXE_exeat"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever does not read is not told.
    drop(process.stdin.take().unwrap().write_all(said));
    process.wait_with_output().unwrap()
}

async fn asked(harness: &str, at: &str, said: Vec<u8>) -> (Option<i32>, String, String) {
    let (harness, at) = (harness.to_owned(), at.to_owned());
    let run = move || {
        let args = [
            "hook",
            &harness,
            "--agent",
            "agent",
            "--purpose",
            "work",
            "--socket",
            &at,
        ];
        exeat(&args, &said)
    };
    let done = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

fn uses(tool: &str) -> Json {
    json!({"session_id": "s", "hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": {"rows": 3}, "tool_use_id": format!("toolu_{tool}")})
}

async fn front() -> (tempfile::TempDir, Registry, Sidecar) {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
    let mut client = registry.client().await;
    let tools = control(
        "CT-TOOLS",
        "tools/call",
        "request.tool.name in ['Write', 'query']",
    );
    let models = control("CT-MODELS", "models/use", "request.resource.id != 'm-1'");
    let granted = exception("EX-2", "CT-TOOLS", "agent")
        .replace("actions: [risky]", "actions: [\"tools/call\"]")
        .replace("resources: [ANY]", "resources: [\"mcp://db/query\"]");
    client
        .apply(&(world() + &tools + &models + &granted))
        .await
        .unwrap();
    let token = client.let_in("one", v1::Role::Sidecar, &["*"]).await;
    let flags = [("insecure_asserted_identity", "true")];
    let data = scratch.path().join("s");
    let (address, key) = (&registry.address, &registry.key);
    let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &flags)
        .await
        .unwrap();
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    (scratch, registry, sidecar)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_harness_is_answered_in_its_own_form() {
    let (_scratch, registry, sidecar) = front().await;
    let at = &sidecar.address;
    let ask = async |harness: &str, said: Json| {
        let (code, out, err) = asked(harness, at, said.to_string().into_bytes()).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        // One object, and nothing else.
        serde_json::from_str::<Json>(&out).unwrap()
    };
    // No opinion on what is allowed: the agent's own rules are for the agent.
    assert_eq!(ask("claude", uses("Bash")).await, json!({}));
    assert_eq!(ask("codex", uses("Bash")).await, json!({}));
    let by = ask("claude", uses("mcp__db__query")).await;
    let said = by["systemMessage"].as_str().unwrap();
    assert!(
        said.starts_with("exeat: allowed under EX-2 until 2026-11-28"),
        "{said}"
    );
    for harness in ["claude", "codex"] {
        let no = ask(harness, uses("Write")).await;
        let told = &no["hookSpecificOutput"];
        assert_eq!(told["hookEventName"], "PreToolUse");
        assert_eq!(told["permissionDecision"], "deny", "never `ask`");
        let why = told["permissionDecisionReason"].as_str().unwrap();
        assert!(why.contains("CT-TOOLS") && why.contains("dec_"), "{why}");
    }
    let gemini = json!({"hook_event_name": "BeforeTool", "tool_name": "Write", "tool_input": {}});
    let no = ask("gemini", gemini).await;
    assert_eq!(no["decision"], "deny");
    let page = sidecar.page("/metrics").await;
    let by_hook = "surface=\"hook\",control=\"CT-TOOLS\"";
    assert!(page.contains(by_hook), "{page}");
    let switch = |to: &str| json!({"hook_event_name": "PreModelSwitch", "to_model": to});
    assert_eq!(ask("claude", switch("m-1")).await, json!({}));
    let no = ask("claude", switch("m-2")).await;
    assert_eq!(no["hookSpecificOutput"]["hookEventName"], "PreModelSwitch");
    assert_eq!(no["hookSpecificOutput"]["permissionDecision"], "deny");
    let begins = json!({"hook_event_name": "SessionStart", "model": "m-1"});
    assert_eq!(ask("claude", begins).await, json!({}));

    let mut client = registry.client().await;
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        ..v1::FreezeRequest::default()
    };
    client.revocations.freeze(freeze).await.unwrap();
    sidecar.until("agent", "plain", "SUBJECT_LOCKED").await;
    let no = ask("claude", uses("Bash")).await;
    assert_eq!(no["continue"], false, "{no}");
    assert_eq!(no["hookSpecificOutput"]["permissionDecision"], "deny");
}

/// b.2, a.4: of the exit codes 2 alone blocks, so every failure of ours ends with it, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_blocks() {
    let (_scratch, _registry, mut sidecar) = front().await;
    let at = sidecar.address.clone();
    let good = uses("Bash").to_string().into_bytes();
    let mut large = uses("Bash");
    large["tool_input"] = json!({"a": vec!["x".repeat(100); 900]});
    let twice = br#"{"hook_event_name":"PreToolUse","tool_name":"Bash","tool_name":"Write"}"#;
    for said in [
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\xff".to_vec(),
        twice.to_vec(),
        json!({"hook_event_name": "PreToolUse"})
            .to_string()
            .into_bytes(),
        json!({"hook_event_name": "PreSomething"})
            .to_string()
            .into_bytes(),
    ] {
        let (code, out, err) = asked("claude", &at, said.clone()).await;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!((code, out.as_str()), (Some(2), ""), "{said}");
        assert!(err.contains("so it may not"), "{said}: {err}");
    }
    // Much is no failure.
    let (code, ..) = asked("claude", &at, large.to_string().into_bytes()).await;
    assert_eq!(code, Some(0));
    // What the command line does not know.
    assert_eq!(
        exeat(&["hook", "claude", "--agnet", "x"], &good)
            .status
            .code(),
        Some(2)
    );
    assert_eq!(exeat(&["hook", "nobody"], &good).status.code(), Some(2));
    // A subject that is no name.
    let args = ["hook", "claude", "--agent", " ", "--socket", &at];
    assert_eq!(exeat(&args, &good).status.code(), Some(2));
    // Nobody is there, and somebody who says nothing.
    sidecar.process.kill().await;
    let (code, _, err) = asked("claude", &at, good.clone()).await;
    assert_eq!(code, Some(2), "{err}");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let (code, _, err) = asked("claude", &at, good).await;
    assert_eq!(code, Some(2), "{err}");
}

/// Nothing of an agent's settings is lost, and what was put in comes out to the byte.
#[test]
fn a_hook_is_put_beside_what_is_there_and_comes_out_to_the_byte() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("settings.json");
    let path = file.to_str().unwrap();
    let before = "{\n    \"theme\": \"dark\",\n    \"hooks\": {\n        \"PreToolUse\": [\n            {\n                \"matcher\": \"Bash\",\n                \"hooks\": [\n                    {\n                        \"type\": \"command\",\n                        \"command\": \"lint\"\n                    }\n                ]\n            }\n        ]\n    },\n    \"big\": 12345678901234567890\n}\n";
    std::fs::write(&file, before).unwrap();
    let run = |args: &[&str]| {
        let mut all = vec!["--color", "never", "hook"];
        all.extend(args);
        all.extend(["claude", "--settings", path]);
        let done = exeat(&all, b"");
        let out = String::from_utf8(done.stdout).unwrap();
        (
            done.status.code(),
            out + &String::from_utf8(done.stderr).unwrap(),
        )
    };
    assert_eq!(run(&["status"]).0, Some(3));
    let (code, out) = run(&["install", "--dry-run", "--agent", "billing-agent"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("+ ") && out.contains("billing-agent"), "{out}");
    assert!(!out.contains("theme"), "what changes alone: {out}");
    assert!(out.contains("PreModelSwitch"), "{out}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert_eq!(run(&["install", "--agent", "billing-agent"]).0, Some(0));
    let once = std::fs::read_to_string(&file).unwrap();
    let json: Json = serde_json::from_str(&once).unwrap();
    let entry = &json["hooks"]["PreToolUse"][1]["hooks"][0];
    assert_eq!(entry["onFailure"], "block");
    assert_eq!(entry["timeout"], 3);
    assert_eq!(
        entry["args"],
        json!(["hook", "claude", "--agent", "billing-agent"])
    );
    assert!(Path::new(entry["command"].as_str().unwrap()).is_absolute());
    assert_eq!(
        json["hooks"]["PreToolUse"][0]["hooks"][0]["command"],
        "lint"
    );
    assert_eq!(run(&["status"]).0, Some(0));
    let (_, out) = run(&["install", "--agent", "billing-agent"]);
    assert!(out.contains("nothing to change"), "{out}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), once);
    assert_eq!(run(&["uninstall"]).0, Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);

    // What cannot be read is left as it is, and said where.
    for bad in ["{\n  \"hooks\": // mine\n}", "[]", "{\"hooks\": 3}"] {
        std::fs::write(&file, bad).unwrap();
        let (code, out) = run(&["install"]);
        assert_eq!(code, Some(7), "{out}");
        assert!(out.contains("nothing was changed"), "{out}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), bad);
    }
    // Where there is nothing, there is nothing but the hook.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(run(&["install"]).0, Some(0));
    assert_eq!(run(&["status"]).0, Some(0));
}

/// a.4: the doctor breaks the hook on purpose, and says so where that would not block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_breaks_the_hook_and_tells_what_comes_of_it() {
    let (scratch, _registry, sidecar) = front().await;
    let file = scratch.path().join("settings.json");
    let path = file.to_str().unwrap().to_owned();
    let at = sidecar.address.clone();
    let run = async |args: Vec<String>| {
        let run = move || {
            let all: Vec<&str> = ["--color", "never"]
                .into_iter()
                .chain(args.iter().map(String::as_str))
                .collect();
            exeat(&all, b"")
        };
        let done = tokio::task::spawn_blocking(run).await.unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let words = |line: &str| line.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
    let doctor = words(&format!("doctor claude --settings {path}"));
    let (code, out) = run(doctor.clone()).await;
    assert_eq!(code, Some(3), "{out}");
    let install = format!("hook install claude --settings {path} --agent agent --socket {at}");
    run(words(&install)).await;
    let (code, out) = run(doctor.clone()).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("ends with 2, which blocks"), "{out}");
    // What the installed hook would say of a tool.
    for agent in ["claude", "codex", "gemini"] {
        let file = scratch.path().join(format!("{agent}.json"));
        let path = file.to_str().unwrap();
        let tries = |tool: &str| words(&format!("hook test {agent} {tool} --settings {path}"));
        assert_eq!(run(tries("Bash")).await.0, Some(2), "nothing is installed");
        let install = format!("hook install {agent} --settings {path} --agent agent --socket {at}");
        run(words(&install)).await;
        let (code, out) = run(tries("Bash")).await;
        assert_eq!(
            (code, &*out),
            (Some(0), "✓ Bash: exeat has nothing against it\n")
        );
        let (code, out) = run(tries("Write -a rows=3")).await;
        assert_eq!(code, Some(3), "{out}");
        assert!(
            out.starts_with("✗ Write: Denied by control CT-TOOLS"),
            "{out}"
        );
        let broken = std::fs::read_to_string(&file)
            .unwrap()
            .replace(&at, "/nobody.sock");
        std::fs::write(&file, broken).unwrap();
        assert_eq!(run(tries("Bash")).await.0, Some(6), "it blocks");
    }
    let open = std::fs::read_to_string(&file)
        .unwrap()
        .replace("\"block\"", "\"allow\"");
    std::fs::write(&file, open).unwrap();
    let (code, out) = run(doctor).await;
    assert_eq!(code, Some(3), "{out}");
    assert!(out.contains("✗ a hook that does not run blocks"), "{out}");
}
