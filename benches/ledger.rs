//! Checking an exported ledger, reading the log against its ledger at a start, and what a change
//! takes until it is durable.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures, prints and may fail"
)]

#[path = "../tests/support/governed.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unreachable_pub
)]
mod governed;

use std::{fmt::Write as _, time::Instant};

use exeat::{
    audit::{Key, verify},
    domain::{Edit, Era, Kind, LogId, Name, Timestamp, Transaction},
    engine::ledger::{Tree, commitment, leaf_hash},
    manifest::{leaf_text, payloads},
    runtime::clock::Clock,
    wire::{
        note,
        signed::{Signer, hex},
    },
};
use governed::{Registry, domain};

const LEAVES: u64 = 200_000;
const COMMITS: usize = 300;

/// An export of as many changes, each with a manifest of half a kilobyte.
fn export(signer: &Signer) -> String {
    let era = Era {
        log: LogId([7; 16]),
        epoch: 1,
    };
    let (mut tree, mut text) = (Tree::default(), String::new());
    writeln!(text, "{{\"format\":\"exeat-ledger/v1\"}}").expect("text");
    for n in 0..LEAVES {
        let transaction = Transaction {
            revision: n + 1,
            time: Timestamp::from_micros(1_795_000_000_000_000),
            principal: "user:bench".into(),
            action: "vote".into(),
            edits: vec![Edit {
                name: Name::new(Kind::Case, &format!("EX-{n}")),
                revision: 1,
                manifest: Some(format!("{{\"text\":\"{}\"}}", "x".repeat(500)).into()),
            }],
            removals: Vec::new(),
        };
        let payloads: Vec<String> = payloads(&transaction, &[]).into_iter().flatten().collect();
        let salt = [9; 16];
        let commitments: Vec<_> = payloads
            .iter()
            .map(|payload| commitment(&salt, payload))
            .collect();
        let leaf = leaf_text(era, n + 1, transaction.time, &commitments);
        tree.append(leaf_hash(&leaf));
        let entries: Vec<_> = payloads
            .iter()
            .map(|payload| serde_json::json!({"salt": hex(&salt), "payload": payload}))
            .collect();
        let line = serde_json::json!({"position": n, "leaf": leaf, "entries": entries});
        writeln!(text, "{line}").expect("text");
    }
    let checkpoint = note::write(
        &note::Checkpoint {
            era,
            size: LEAVES,
            root: tree.root(),
        },
        &[signer],
    );
    writeln!(text, "{}", serde_json::json!({"checkpoint": checkpoint})).expect("text");
    text
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let (signer, _) = Signer::generate().expect("a key");
    let text = export(&signer);
    let keys = [Key::parse(&signer.pin().to_string()).expect("a key")];
    let began = Instant::now();
    let verified = verify(text.as_bytes(), &keys, &[]).expect("it holds");
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} changes of {} MB checked in {took:.2} s: {:.0} a second",
        verified.leaves,
        text.len() >> 20,
        f64::from(u32::try_from(verified.leaves).expect("few")) / took
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let scratch = tempfile::tempdir().expect("a folder");
        let clock = Clock::system();
        let mut registry = Registry::start(scratch.path(), clock.clone()).await;
        let mut client = registry.client().await;
        let mut took = Vec::with_capacity(COMMITS);
        for n in 0..COMMITS {
            let text = domain(&format!("d-{n}"));
            let began = Instant::now();
            client.apply(&text).await.expect("it is applied");
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        println!(
            "a change, durable and answered: median {:.2} ms of {COMMITS}",
            median(took)
        );
        drop(client);
        registry.process.stop().await;
        let began = Instant::now();
        let mut registry = Registry::start(scratch.path(), clock).await;
        println!(
            "a start that reads {COMMITS} changes against their ledger: {:.1} ms",
            began.elapsed().as_secs_f64() * 1e3
        );
        registry.process.stop().await;
    });
}
