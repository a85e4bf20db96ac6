//! Building a snapshot of 100,000 exceptions and 10,000 subjects, changing one thing of it, and
//! what it weighs.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures, prints and may fail"
)]

use std::{fs, time::Instant};

use exeat::{
    domain::Digest,
    engine::{Change, Snapshot},
    testing,
};

fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("a Linux machine");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("a figure");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<f64>().ok())
        .expect("a number")
        / 1024.0
}

fn median(mut micros: Vec<f64>) -> f64 {
    micros.sort_by(f64::total_cmp);
    micros.get(micros.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let digest = Digest::parse("sha256:bench").expect("a digest");
    let before = resident();
    let began = Instant::now();
    let mut snapshot = Snapshot::empty(digest.clone());
    let controls = (0..100)
        .map(|n| {
            Change::PutControl(testing::control(
                &format!("BEN-{n}"),
                "subject.environment == 'none'",
            ))
        })
        .collect();
    snapshot = snapshot
        .after(controls, digest.clone(), 1)
        .expect("controls");
    // In slices, so that the figure is the snapshot's and not the changes'.
    for slice in 0..10 {
        let subjects = (0..1_000)
            .map(|n| {
                Change::PutSubject(testing::subject(&format!(
                    "spiffe://acme.example/agent/{}",
                    slice * 1_000 + n
                )))
            })
            .collect();
        snapshot = snapshot
            .after(subjects, digest.clone(), 2)
            .expect("subjects");
    }
    for slice in 0..100 {
        let exceptions = (0..1_000)
            .map(|n| slice * 1_000 + n)
            .map(|n| {
                Change::PutException(testing::exception(
                    &format!("EX-{n}"),
                    &[&format!("BEN-{}", n % 100)],
                    &format!("spiffe://acme.example/agent/{}", n % 10_000),
                ))
            })
            .collect();
        snapshot = snapshot
            .after(exceptions, digest.clone(), 3)
            .expect("exceptions");
    }
    println!(
        "built 100 controls, 10,000 subjects, 100,000 exceptions in {:.0} ms; {:.0} MiB",
        began.elapsed().as_secs_f64() * 1e3,
        resident() - before
    );

    let time = |name: &str, change: &dyn Fn(usize) -> Change| {
        let mut micros = Vec::new();
        for n in 0..200 {
            let change = change(n);
            let began = Instant::now();
            let next = snapshot
                .after(vec![change], digest.clone(), 4)
                .expect("a change");
            micros.push(began.elapsed().as_secs_f64() * 1e6);
            drop(next);
        }
        println!("one {name}: median {:.0} µs", median(micros));
    };
    time("exception put", &|n| {
        Change::PutException(testing::exception(
            &format!("EX-{}", n * 497),
            &["BEN-7"],
            &format!("spiffe://acme.example/agent/{}", (n * 497) % 10_000),
        ))
    });
    time("exception removed", &|n| {
        Change::RemoveException(
            exeat::domain::ExceptionId::parse(&format!("EX-{}", n * 497)).expect("an id"),
        )
    });
    time("subject put", &|n| {
        Change::PutSubject(testing::subject(&format!(
            "spiffe://acme.example/agent/{}",
            n * 47
        )))
    });
    time("control put", &|n| {
        Change::PutControl(testing::control(
            &format!("BEN-{}", n % 100),
            "subject.environment == 'nowhere'",
        ))
    });
}
