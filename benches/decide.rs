//! `decide()` by controls, applicable controls and exceptions: nanoseconds and allocations.
//!
//! Each figure is the median of rounds in which all settings take turns, so that a machine that
//! grows slower or faster meanwhile moves them all.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures, prints and may fail"
)]

use std::{hint::black_box, time::Instant};

use exeat::{
    domain::{Now, Outcome, Question, Set, Value},
    engine::{Change, Snapshot, catalogue, decide},
    testing,
};

const ROUNDS: usize = 15;
const CALLS: usize = 20_000;

struct Setting {
    name: String,
    snapshot: Snapshot,
    questions: Vec<Question>,
    expected: Outcome,
    nanos: Vec<f64>,
    allocations: u64,
}

/// `controls` controls of which `applicable` are held against the action asked for.
fn setting(controls: usize, applicable: usize, exceptions: usize, covered: bool) -> Setting {
    let subjects = exceptions.clamp(1, 10_000);
    let mut changes = Vec::new();
    for n in 0..controls {
        // Three comparisons; none of them fails.
        let condition = "subject.risk_tier == 'NONE' || subject.environment != 'prod' || now < subject.metadata_update_time";
        let failing = covered && n == 0;
        let mut control = testing::control(
            &format!("BEN-{n}"),
            if failing {
                "subject.environment == 'prod'"
            } else {
                condition
            },
        );
        let action = if n < applicable {
            "tools/call"
        } else {
            "other"
        };
        control.applies_to.actions = Set::of(vec![action.into()]).expect("a set");
        changes.push(Change::PutControl(control));
    }
    for n in 0..subjects {
        let mut subject = testing::subject(&format!("spiffe://acme.example/agent/{n}"));
        if let Value::Record(fields) = &mut subject.attributes {
            let place = catalogue::SUBJECT
                .place("metadata_update_time")
                .expect("a field");
            *fields.get_mut(place).expect("a place") = Some(Value::Time(testing::noon()));
        }
        changes.push(Change::PutSubject(subject));
    }
    for n in 0..exceptions {
        // Of controls that are not asked about: what is in force elsewhere must cost nothing here.
        let elsewhere = controls.saturating_sub(applicable).max(1);
        let last = controls.saturating_sub(1);
        let of = if covered {
            0
        } else {
            last.saturating_sub(n / subjects % elsewhere)
        };
        let id = format!("BEN-{of}");
        changes.push(Change::PutException(testing::exception(
            &format!("EX-{n}"),
            &[&id],
            &format!("spiffe://acme.example/agent/{}", n % subjects),
        )));
    }
    let questions = (0..64)
        .map(|n| {
            testing::question(&format!(
                "spiffe://acme.example/agent/{}",
                (n * 7_919) % subjects
            ))
        })
        .collect();
    let name = format!(
        "{controls:>6} controls {applicable:>4} applicable {exceptions:>8} exceptions{}",
        if covered { "  (allowed by one)" } else { "" }
    );
    let expected = if covered {
        Outcome::AllowByException
    } else {
        Outcome::Allow
    };
    Setting {
        name,
        snapshot: testing::snapshot(changes),
        questions,
        expected,
        nanos: Vec::new(),
        allocations: 0,
    }
}

fn main() {
    let mut settings = vec![
        setting(10, 1, 100, false),
        setting(10, 10, 100, false),
        setting(100, 10, 100, false),
        setting(100, 10, 10_000, false),
        setting(100, 10, 100_000, false),
        setting(100, 10, 1_000_000, false),
        setting(100, 100, 10_000, false),
        setting(1_000, 10, 10_000, false),
        setting(10_000, 10, 10_000, false),
        setting(100, 10, 10_000, true),
    ];
    let now = Now::exactly(testing::noon());
    for _ in 0..ROUNDS {
        for setting in &mut settings {
            let began = Instant::now();
            for question in setting.questions.iter().cycle().take(CALLS) {
                let decision = decide(black_box(question), black_box(&setting.snapshot), now);
                assert_eq!(black_box(decision).outcome, setting.expected);
            }
            setting
                .nanos
                .push(began.elapsed().as_nanos() as f64 / CALLS as f64);
        }
    }
    for setting in &mut settings {
        let counted = allocation_counter::measure(|| {
            for question in &setting.questions {
                black_box(decide(question, &setting.snapshot, now));
            }
        });
        setting.allocations = counted.count_total;
        setting.nanos.sort_by(f64::total_cmp);
        let at = |part: usize| {
            setting
                .nanos
                .get(setting.nanos.len() * part / 10)
                .copied()
                .unwrap_or_default()
        };
        println!(
            "{}  median {:>8.0} ns  (p10 {:>8.0}, p90 {:>8.0})  {} allocations in {} calls",
            setting.name,
            at(5),
            at(1),
            at(9),
            setting.allocations,
            setting.questions.len()
        );
    }
    let median = |part: &str| {
        settings
            .iter()
            .find(|s| s.name.contains(part))
            .map_or(0.0, |s| {
                s.nanos.get(ROUNDS / 2).copied().unwrap_or_default()
            })
    };
    println!(
        "ratio 1,000,000 / 10,000 exceptions: {:.2}",
        median(" 100 controls   10 applicable  1000000")
            / median(" 100 controls   10 applicable    10000")
    );
}
