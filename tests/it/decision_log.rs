//! The decision log, and what is told from it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use exeat::{
    runtime::clock::Clock,
    wire::v1::{Outcome, Role},
};
use serde_json::Value as Json;

use crate::support::governed::{Registry, Sidecar, noon, subject, world};
use crate::support::processes::{Fleet, Running, used};

fn exeat(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EXEAT_") {
            command.env_remove(name);
        }
    }
    command.args(args).output().expect("it runs")
}

fn said(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("an exit code"), text)
}

pub(crate) fn context(entries: &[(&str, &str)]) -> prost_types::Struct {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.into())),
    };
    prost_types::Struct {
        fields: entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), text(value)))
            .collect(),
    }
}

/// A bundle of the same world, changed.
fn bundle(folder: &Path, change: impl FnOnce(String) -> String) -> String {
    fs::create_dir_all(folder).unwrap();
    // What is approved in a registry stands in a folder as it is.
    fs::write(folder.join("world.yaml"), change(world())).unwrap();
    folder.display().to_string()
}

/// Every decision is a line, in order, with nothing a caller said but what is listed; and a changed
/// bundle is held against them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_is_a_line_that_can_be_replayed() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
    let mut client = registry.client().await;
    client.apply(&world()).await.unwrap();
    let token = client.let_in("one", Role::Sidecar, &["*"]).await;
    let log = scratch.path().join("log/decisions.jsonl");
    let path = log.display().to_string();
    let set = [
        ("insecure_asserted_identity", "true"),
        ("decision_log", path.as_str()),
        ("decision_log_values", "context.ticket"),
    ];
    let data = scratch.path().join("one");
    let (address, key) = (&registry.address, &registry.key);
    let mut sidecar = Sidecar::start_with(&data, address, key, &token, clock, &set)
        .await
        .unwrap();
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    let mut told = Vec::new();
    for (action, purpose) in [("plain", "work"), ("risky", "work"), ("risky", "leisure")] {
        for _ in 0..5 {
            let decision = sidecar
                .ask_with(|request| {
                    request.subject = "agent".into();
                    request.action = action.into();
                    request.context = Some(context(&[
                        ("purpose", purpose),
                        ("ticket", "INC-1"),
                        ("args", "CANARY"),
                    ]));
                })
                .await
                .unwrap();
            told.push(decision);
        }
    }
    sidecar.process.stop().await;

    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains("CANARY"), "{text}");
    let lines: Vec<Json> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<_> = lines
        .iter()
        .filter_map(|line| line["id"].as_str())
        .collect();
    let wanted: Vec<_> = told.iter().map(|decision| decision.id.as_str()).collect();
    assert!(ids.ends_with(&wanted), "{ids:?} {wanted:?}");
    for (line, decision) in lines.iter().rev().zip(told.iter().rev()) {
        let outcome = match decision.outcome() {
            Outcome::Allow => "allow",
            Outcome::AllowByException => "allow_by_exception",
            Outcome::Deny => "deny",
            Outcome::Unspecified => "",
        };
        assert_eq!(line["outcome"], outcome);
        assert_eq!(line["context"]["ticket"], "INC-1");
        assert_eq!(line["masked"][0], "context.args");
    }

    let at = |name: &str| scratch.path().join(name);
    let same = bundle(&at("same"), |world| world);
    let denies = bundle(&at("denies"), |world| {
        world.replacen(
            "failure_condition: \"false\"",
            "failure_condition: \"true\"",
            1,
        )
    });
    let allows = bundle(&at("allows"), |world| {
        world.replacen(
            "failure_condition: \"true\"",
            "failure_condition: \"false\"",
            1,
        )
    });
    let reads = bundle(&at("reads"), |world| {
        world.replacen(
            "failure_condition: \"false\"",
            "failure_condition: \"request.context.args == 'x'\"",
            1,
        )
    });
    let listed = |operator: &str| {
        bundle(&at(operator), |world| {
            world.replacen(
                "failure_condition: \"false\"",
                &format!("failure_condition: \"request.context.ticket {operator} 'INC-1'\""),
                1,
            )
        })
    };
    let (passes, fails) = (listed("!="), listed("=="));
    let others = at("others");
    fs::create_dir_all(&others).unwrap();
    fs::write(others.join("a.yaml"), subject("somebody-else", None)).unwrap();
    let others = others.display().to_string();
    let replay = |against: &str| {
        said(&exeat(&[
            "replay",
            "--log",
            &path,
            "--since",
            "2026-11-01T00:00:00Z",
            "--now",
            "2026-11-22T12:00:01Z",
            "--against",
            against,
            "-o",
            "json",
        ]))
    };
    for (against, exit, changes) in [
        (&same, 0, &[][..]),
        (&passes, 0, &[]),
        (&fails, 3, &["newly denied"]),
        (&denies, 3, &["newly denied"]),
        (&allows, 3, &["newly allowed", "needs no exception"]),
        (&reads, 3, &["cannot be told"]),
        (&others, 3, &["cannot be told"]),
    ] {
        let (code, text) = replay(against);
        assert_eq!(code, exit, "{against}: {text}");
        let told: Json = serde_json::from_str(&text).expect(&text);
        let groups = told["changes"].as_array().unwrap();
        let mut kinds: Vec<_> = groups
            .iter()
            .map(|group| group["change"].as_str().unwrap())
            .collect();
        kinds.dedup();
        assert_eq!(kinds, changes, "{against}: {text}");
        let count: u64 = groups
            .iter()
            .map(|group| group["count"].as_u64().unwrap())
            .sum();
        let all = told["decisions"].as_u64().unwrap();
        assert_eq!(count + told["same"].as_u64().unwrap(), all);
    }
    let (code, text) = said(&exeat(&["replay", "--log", &path, "--against", &denies]));
    assert_eq!(
        (code, text.contains("0 decisions")),
        (0, true),
        "a day ago: {text}"
    );
    let (code, text) = said(&exeat(&[
        "decisions",
        "--log",
        &path,
        "-n",
        "1",
        "--denied",
    ]));
    assert_eq!((code, text.lines().count()), (0, 1), "{text}");
    assert!(text.contains("risky"), "{text}");

    // What cannot be read is named with its place, and nothing is told.
    let torn = at("torn.jsonl");
    for (line, part) in [
        ("{\"apiVersion\":\"exeat/v1\"}\n", "a field is missing"),
        ("{\"apiVersion\":\"exeat/v9\",\"missed\":1}\n", "exeat/v9"),
    ] {
        fs::write(
            &torn,
            format!("{text_line}{line}", text_line = first(&text_of(&log))),
        )
        .unwrap();
        let torn = torn.display().to_string();
        let (code, text) = said(&exeat(&["replay", "--log", &torn, "--against", &same]));
        assert_eq!(code, 7, "{text}");
        assert!(
            text.contains("torn.jsonl:2: ") && text.contains(part),
            "{text}"
        );
    }
    fs::write(&torn, first(&text_of(&log)) + "{\"cut sho\n{\"half").unwrap();
    let torn = torn.display().to_string();
    let args = ["replay", "--log", &torn, "--against", &same];
    let (code, text) = said(&exeat(&args));
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("1 lines cannot be read, the first is"),
        "{text}"
    );
    assert!(text.contains("torn.jsonl:2"), "{text}");
    let (code, text) = said(&exeat(&["replay", "--log", "/nowhere", "--against", &same]));
    assert_eq!(code, 7, "{text}");
    let (code, text) = said(&exeat(&[
        "replay",
        "--log",
        &path,
        "--since",
        "soon",
        "--against",
        &same,
    ]));
    assert_eq!(
        (code, text.contains("--since: `soon`")),
        (2, true),
        "{text}"
    );
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn first(text: &str) -> String {
    text.lines().next().unwrap().to_owned() + "\n"
}

/// A reader that follows misses nothing over rotations, however many there are between two looks;
/// what is gone before it was read is told.
#[test]
fn following_goes_on_over_rotations() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("decisions.jsonl");
    let older = |n: usize| scratch.path().join(format!("decisions.jsonl.{n}"));
    let mut next = 0;
    let mut write = || {
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        let mut file = file.unwrap();
        for _ in 0..3 {
            writeln!(file, "{{\"id\":\"dec_{next}\",\"outcome\":\"allow\"}}").unwrap();
            next += 1;
        }
    };
    write();
    let follower = Command::new(env!("CARGO_BIN_EXE_exeat"))
        .args(["decisions", "-f", "--output", "json", "--log"])
        .arg(&log)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut follower = Running(follower);
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    let mut read = |count: usize| -> Vec<String> {
        let lines = lines.by_ref().take(count);
        lines.map(Result::unwrap).collect()
    };
    let ids = |range: std::ops::Range<u32>| -> Vec<String> {
        let line = |n| format!("{{\"id\":\"dec_{n}\",\"outcome\":\"allow\"}}");
        range.map(line).collect()
    };
    assert_eq!(read(3), ids(0..3));
    // As two rotations do, one right after the other.
    write();
    fs::rename(&log, older(1)).unwrap();
    write();
    fs::rename(older(1), older(2)).unwrap();
    fs::rename(&log, older(1)).unwrap();
    write();
    assert_eq!(read(9), ids(3..12));
    // The file that is read is removed, and what came after it too.
    let beside = scratch.path().join("beside");
    fs::rename(&log, beside).unwrap();
    write();
    let told = read(4);
    assert!(told[0].contains("rotated_away"), "{told:?}");
    assert_eq!(told[1..], ids(12..15));
}

/// To standard output, for whoever gathers it there: each decision is a line of JSON, in order, beside
/// what is said to people on standard error.
#[tokio::test]
async fn standard_output_has_each_decision_as_a_line() {
    let mut fleet = Fleet::new();
    let log = ["--decision-log", "stdout"].map(str::to_owned);
    fleet.flags.extend(log);
    let mut process = fleet.alone(&used(Clock::system().now().latest));
    let sidecar = fleet.answers().await;
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let mut told = Vec::new();
    for action in ["plain", "risky", "plain"] {
        told.push(sidecar.ask("agent", action).await.unwrap().id);
    }
    process.signal("TERM");
    assert!(process.0.wait().unwrap().success());
    let log = fs::read_to_string(fleet.path("log")).unwrap();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let ids: Vec<String> = lines
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["id"].clone())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids[ids.len() - told.len()..], told, "{log}");
}
