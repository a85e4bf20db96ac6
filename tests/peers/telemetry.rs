//! Telemetry as those read it who are sent it: a receiver made from the official definitions, in a
//! process of its own; the parsers of Prometheus's formats over pages, dashboards and rules. What is
//! missing fails; nothing is skipped.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use exeat::{
    runtime::clock::Clock,
    wire::v1::{Outcome, Role},
};
use serde_json::Value as Json;

use crate::support::governed::{Registry, Sidecar, noon, world};

fn python() -> Command {
    let mut vars = std::env::vars();
    let set = vars.find(|(name, _)| name == "EXEAT_PYTHON");
    Command::new(set.map_or_else(|| "python3".into(), |(_, path)| path))
}

/// The other process.
struct Collector(Child);

impl Collector {
    fn start() -> (Self, String) {
        let mut child = python()
            .arg("tests/peers/collector.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("EXEAT_PYTHON: a Python with grpcio and opentelemetry-proto");
        let mut line = String::new();
        let out = child.stdout.as_mut().unwrap();
        // One byte at a time: the rest is read at the end.
        let mut byte = [0];
        while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(char::from(byte[0]));
        }
        assert!(
            line.starts_with("http://"),
            "the receiver did not start: {line}"
        );
        (Self(child), line)
    }

    /// Everything it was sent.
    fn end(mut self) -> Json {
        drop(self.0.stdin.take());
        let mut text = String::new();
        let out = self.0.stdout.take().unwrap();
        BufReader::new(out).read_to_string(&mut text).unwrap();
        assert!(self.0.wait().unwrap().success());
        serde_json::from_str(&text).expect(&text)
    }
}

fn attribute<'a>(record: &'a Json, name: &str) -> Option<&'a str> {
    let list = record["attributes"].as_array()?;
    let pair = list.iter().find(|pair| pair["key"] == name)?;
    pair["value"]["stringValue"].as_str()
}

/// How many records there are of each decision.
fn counted(records: &Json, wanted: impl Fn(&Json) -> bool) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    for record in records.as_array().unwrap().iter().filter(|it| wanted(it)) {
        if let Some(id) = attribute(record, "exeat.decision.id") {
            *counts.entry(id).or_default() += 1;
        }
    }
    counts
}

/// A client's answers and a receiver's records, one to one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_of_official_make_gets_what_callers_were_told() {
    let (collector, address) = Collector::start();
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let otel = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let mut more = otel.to_vec();
    more.push(("exceptions", "applied"));
    let data = scratch.path().join("registry");
    let mut registry = Registry::start_at(&data, clock.clone(), "127.0.0.1:0", &more)
        .await
        .unwrap();
    let mut client = registry.client().await;
    client.apply(&world()).await.unwrap();
    let token = client.let_in("one", Role::Sidecar, &["*"]).await;
    let mut more = otel.to_vec();
    more.push(("insecure_asserted_identity", "true"));
    let mut sidecar = Sidecar::start_with(
        &scratch.path().join("one"),
        &registry.address,
        &registry.key,
        &token,
        clock,
        &more,
    )
    .await
    .unwrap();
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    let mut told = Vec::new();
    for _ in 0..200 {
        for (subject, action) in [("agent", "risky"), ("nobody", "risky"), ("agent", "plain")] {
            told.push(sidecar.ask(subject, action).await.unwrap());
        }
    }
    client.revoke("EX-1").await.unwrap();
    let pages = [
        sidecar.page("/metrics").await,
        registry.page("/metrics").await,
    ];
    sidecar.process.stop().await;
    registry.process.stop().await;

    let got = collector.end();
    assert_eq!(got["unknown"], 0, "fields that the definitions do not know");
    let spans = counted(&got["spans"], |_| true);
    let of = |name: &'static str| move |event: &Json| event["eventName"] == name;
    let events = counted(&got["events"], of("exeat.decision"));
    let uses = counted(&got["events"], |event| {
        event["eventName"] == "exeat.exception.usage"
            && attribute(event, "exeat.usage.kind") == Some("RELIED_ON")
    });
    for decision in &told {
        let id = decision.id.as_str();
        assert_eq!((spans.get(id), events.get(id)), (Some(&1), Some(&1)));
        let used = u32::from(decision.outcome() == Outcome::AllowByException);
        assert_eq!(uses.get(id).copied().unwrap_or(0), used, "{id}");
    }
    assert!(
        counted(&got["events"], |_| true).len() >= told.len(),
        "nothing else is made up"
    );
    let step = got["events"].as_array().unwrap();
    assert!(step.iter().any(|event| {
        event["eventName"] == "exeat.exception.state_changed"
            && attribute(event, "exeat.exception.state.to") == Some("REVOKED")
    }));
    let metrics = got["metrics"].as_array().unwrap();
    for name in [
        "exeat.decisions",
        "exeat.exceptions_active",
        "exeat.audit_entries",
    ] {
        assert!(
            metrics.iter().any(|metric| metric["name"] == name),
            "{name}"
        );
    }

    // The same pages, by Prometheus's own parsers; and all that is drawn or told from them.
    let mut read = python();
    read.args([
        "tests/peers/observability.py",
        "tests/data/telemetry-names.txt",
        "examples/observability",
    ]);
    for (n, page) in pages.iter().enumerate() {
        let file = scratch.path().join(format!("page-{n}"));
        let (_, body) = page.split_once("\r\n\r\n").expect("a page");
        fs::write(&file, body).unwrap();
        read.arg(file);
    }
    let said = read
        .output()
        .expect("a Python with prometheus-client and promql-parser");
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{errors}");
    let mut lines = said.stdout.lines();
    println!("{}", lines.next().unwrap().unwrap());
}
