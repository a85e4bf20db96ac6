//! The binary from outside: exit codes and what is said.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use crate::support::processes::Running;

/// The binary, with nothing of our own settings in its environment.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EXEAT_") {
            command.env_remove(name);
        }
    }
    command.env_remove("XDG_RUNTIME_DIR");
    command
}

fn exeat(args: &[&str], folder: &Path) -> Output {
    binary()
        .args(args)
        .current_dir(folder)
        .output()
        .expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// A sidecar that is killed if the test does not stop it.
struct Sidecar(Child);

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

#[test]
fn the_demo_tells_its_story_and_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let output = binary()
        .arg("demo")
        .env("TMPDIR", scratch.path())
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(code(&output), 0, "{text}");
    for part in [
        "✗ DENIED  control ACME-PII-01",
        "tier HIGH, computed; waits for 1 control_owner for acme, 1 risk_officer for acme",
        "dana approves it herself   refused",
        "still waits for 1 risk_officer for acme",
        " is approved, signed, and in force at the sidecar",
        "✓ ALLOWED by exception  EX-",
        "model: sha256:",
        "purpose: customer-support ≠ billing",
        "would match, but EXC_REVOKED",
        "receipt: 1 of 1 sidecar rests on it",
        // A call that was on its way is answered before it is heard; the demo asks until it is refused.
        "all in scope, no gaps, ",
        " after revocation",
        "EXC_LEASE_LAPSED: tier HIGH: the registry heard within 1s",
        "nobody honours it",
        "compliant calls went on meanwhile, and still do",
        "params.row_limit = 1000",
        "RELIED_ON",
        "sam, who is on call, declares INC-7",
        "owes 1 control_owner for acme afterwards, 1 risk_officer for acme afterwards",
        "the override is revoked with it: refused again",
        "changes hold",
        "is not what was committed to",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(
        fs::read_dir(scratch.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

/// The README's word: every setting may be given as a flag.
#[test]
fn every_setting_of_the_sidecar_is_a_flag() {
    let scratch = tempfile::tempdir().unwrap();
    let help = said(&exeat(&["sidecar", "--help"], scratch.path()));
    for setting in exeat::config::Sidecar::SETTINGS {
        let flag = format!("--{}", setting.key.replace('_', "-"));
        let shown = help.split_whitespace().any(|word| word == flag);
        assert!(shown, "{flag}\n{help}");
    }
}

#[test]
fn a_new_folder_passes_its_own_tests_and_lint() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |args: &[&str]| exeat(args, scratch.path());
    assert_eq!(code(&at(&["init", "mine"])), 0);
    assert_eq!(code(&at(&["init", "mine"])), 2, "nothing is overwritten");
    let mine = scratch.path().join("mine");
    let test = exeat(&["test", "--coverage"], &mine);
    assert_eq!(code(&test), 0);
    assert!(
        said(&test).contains("6 passed, 0 failed, 0 skipped")
            && said(&test).contains("EX-0001 was never out of scope by action"),
        "{}",
        said(&test)
    );
    let junit = said(&exeat(&["test", "-o", "junit"], &mine));
    assert!(
        junit.contains("<testsuite name=\"exeat\" tests=\"6\" failures=\"0\""),
        "{junit}"
    );
    let lint = exeat(&["lint"], &mine);
    assert_eq!(code(&lint), 0, "{}", said(&lint));
    let late = exeat(&["lint", "--now", "2099-01-01T00:00:00Z"], &mine);
    assert!(
        code(&late) == 3 && said(&late).contains("EX-0001: ended"),
        "{}",
        said(&late)
    );

    let suite = mine.join("tests/agents_test.yaml");
    fs::write(
        &suite,
        fs::read_to_string(&suite)
            .unwrap()
            .replacen("outcome: allow}", "outcome: deny}", 1),
    )
    .unwrap();
    let failed = exeat(&["test"], &mine);
    assert!(
        code(&failed) == 3 && said(&failed).contains("expected deny"),
        "{}",
        said(&failed)
    );

    let control = mine.join("controls/acme-pii-01.yaml");
    fs::write(
        &control,
        fs::read_to_string(&control).unwrap().replace(
            "request.resource.properties.rows >",
            "request.resource.rows >",
        ),
    )
    .unwrap();
    let broken = exeat(&["lint"], &mine);
    assert!(
        code(&broken) == 7 && said(&broken).contains("controls/acme-pii-01.yaml:10:"),
        "{}",
        said(&broken)
    );
}

#[test]
fn a_sidecar_answers_the_command_line_and_ends_well() {
    let scratch = tempfile::tempdir().unwrap();
    assert_eq!(code(&exeat(&["init", "mine"], scratch.path())), 0);
    let mine = scratch.path().join("mine");
    let socket = scratch.path().join("s").display().to_string();
    let mut child = binary()
        .args([
            "sidecar",
            "--config",
            "exeat.yaml",
            "--listen",
            "127.0.0.1:0",
            "--operations",
            "127.0.0.1:0",
            "--unix",
            &socket,
        ])
        .current_dir(&mine)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut sidecar = Sidecar(child);
    let mut seen = Vec::new();
    // The log says when the bundle is in force; nothing waits for time to pass.
    for line in lines.by_ref() {
        seen.push(line);
        if seen.last().unwrap().contains("bundle in force") {
            break;
        }
    }
    let log = seen.join("\n");
    for part in [
        "setting key=\"bundle\" value=\".\" source=\"exeat.yaml:2\"",
        "setting key=\"unix\"",
        "source=\"--unix\"",
        "source=\"default\"",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
    let operations = log
        .split("operations=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap()
        .to_owned();
    let check = |args: &[&str]| exeat(&[&["check", "--socket", &socket], args].concat(), &mine);

    let allowed = check(&["billing-agent", "mcp://crm/search", "-c", "purpose=billing"]);
    assert!(
        code(&allowed) == 0 && said(&allowed).contains("✓ ALLOWED  2 controls passed"),
        "{}",
        said(&allowed)
    );
    let denied = check(&[
        "-",
        "mcp://crm/export_customers",
        "-a",
        "rows=48210",
        "-c",
        "purpose=billing",
    ]);
    assert_eq!(code(&denied), 4, "{}", said(&denied));
    for part in [
        "✗ DENIED  control ACME-PII-01 (rev 1)",
        "request.resource.properties.rows = 48210",
        "remedy    Page the query",
        "nearest   EX-0001 — would match, but purpose: customer-support ≠ billing",
        "next      an exception from ACME-PII-01 can be requested",
        "why       exeat explain dec_",
    ] {
        assert!(said(&denied).contains(part), "{part}\n{}", said(&denied));
    }
    let excepted = check(&[
        "-",
        "mcp://crm/export_customers",
        "-a",
        "rows=48210",
        "-c",
        "purpose=customer-support",
    ]);
    assert!(
        code(&excepted) == 0 && said(&excepted).contains("EX-0001"),
        "{}",
        said(&excepted)
    );
    assert_eq!(
        code(&check(&[
            "-",
            "mcp://crm/search",
            "-c",
            "purpose=marketing"
        ])),
        4
    );
    assert_eq!(
        code(&check(&["somebody", "mcp://crm/search"])),
        1,
        "another's question is refused"
    );

    let question = scratch.path().join("q.json");
    fs::write(&question, r#"{"action": "tools/call", "resource": {"type": "tool", "id": "mcp://crm/search"}, "context": {"purpose": "billing"}}"#).unwrap();
    let json = check(&["-f", question.to_str().unwrap(), "-o", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (told["apiVersion"].as_str(), told["outcome"].as_str()),
        (Some("exeat/v1"), Some("allow"))
    );
    fs::write(
        &question,
        r#"{"action": "x", "resource": {"type": "tool", "id": "y"}, "subjct": "z"}"#,
    )
    .unwrap();
    let wrong = check(&["-f", question.to_str().unwrap()]);
    assert!(
        code(&wrong) == 7 && said(&wrong).contains("q.json:1:") && said(&wrong).contains("subjct"),
        "{}",
        said(&wrong)
    );

    let id = told["id"].as_str().unwrap();
    let explained = exeat(&["explain", id, "--socket", &socket], &mine);
    let told = said(&explained);
    for part in [
        "controls   2 applied",
        "came       by grpc",
        "subject    billing-agent  prod  acme/claims-llm 4.2.1",
        "for billing",
    ] {
        assert!(
            code(&explained) == 0 && told.contains(part),
            "{part}: {told}"
        );
    }
    assert_eq!(
        code(&exeat(&["explain", "dec_x", "--socket", &socket], &mine)),
        2
    );
    let decisions = exeat(
        &[
            "decisions",
            "--operations",
            &operations,
            "--denied",
            "-o",
            "json",
        ],
        &mine,
    );
    let lines_: Vec<serde_json::Value> = String::from_utf8(decisions.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines_.len() == 2 && lines_.iter().all(|line| line["outcome"] == "deny"),
        "{lines_:?}"
    );

    terminate(&sidecar.0);
    let rest: Vec<_> = lines.collect();
    assert_eq!(sidecar.0.wait().unwrap().code(), Some(0), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.contains("SIGTERM: stopping"))
            && !Path::new(&socket).try_exists().unwrap()
    );
    let gone = check(&["-", "mcp://crm/search"]);
    assert!(
        code(&gone) == 6 && said(&gone).contains("start one with"),
        "{}",
        said(&gone)
    );
}

/// As many files may be open as the system lets it, and where those are too few it says so.
#[test]
fn a_sidecar_makes_room_for_its_connections() {
    let mut command = Command::new("sh");
    let limited = "ulimit -S -n 300; ulimit -H -n 400; exec \"$0\" \"$@\"";
    command
        .args(["-c", limited, env!("CARGO_BIN_EXE_exeat"), "sidecar"])
        .args(["--bundle", "examples/policy", "--subject", "agent"])
        .args(["--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0"])
        .args(["--unix", "none", "--log-format", "text"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut process = Running(command.spawn().unwrap());
    let errors = BufReader::new(process.0.stderr.take().unwrap());
    let mut lines = errors.lines().map(Result::unwrap);
    // Before it serves anybody.
    let told = lines
        .by_ref()
        .take_while(|line| !line.contains("listening"))
        .find(|line| line.contains("fewer files may be open"));
    let told = told.expect("it is told");
    assert!(told.contains("open_files=400 connections=2048"), "{told}");
}

#[test]
fn what_cannot_start_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |args: &[&str]| exeat(args, scratch.path());
    let none = at(&["sidecar"]);
    assert!(
        code(&none) == 2
            && said(&none).contains("neither `bundle` nor `registry` is set")
            && said(&none).contains("nothing says who callers are"),
        "{}",
        said(&none)
    );
    // What is said by half is told once.
    let half = at(&["sidecar", "--bundle", ".", "--token-keys", "k"]);
    assert!(
        code(&half) == 2
            && said(&half).contains("`token_audience` go together")
            && !said(&half).contains("nothing says"),
        "{}",
        said(&half)
    );
    fs::write(scratch.path().join("c.yaml"), "bundle: .\nlisten_to: x\n").unwrap();
    let unknown = at(&["sidecar", "--config", "c.yaml", "--subject", "a"]);
    assert!(
        code(&unknown) == 2 && said(&unknown).contains("c.yaml:2: `listen_to` is not a setting"),
        "{}",
        said(&unknown)
    );
    assert_eq!(code(&at(&["test"])), 7);
    assert_eq!(code(&at(&["lint"])), 7);
    assert_eq!(code(&at(&["schema", "Nonsense"])), 2);
    assert_eq!(code(&at(&["frobnicate"])), 2);
    let schema = at(&["schema", "control"]);
    assert!(
        code(&schema) == 0
            && serde_json::from_slice::<serde_json::Value>(&schema.stdout).unwrap()["title"]
                == "Control"
    );
}
