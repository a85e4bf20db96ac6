//! The starter controls over 10,000 subjects, each as a run of its own, on one core.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures, prints and may fail"
)]

use std::{path::Path, time::Instant};

use exeat::{
    domain::Digest,
    engine::{
        Cases, Change,
        rounds::{round, runs_by_itself},
    },
    manifest::Bundle,
    testing,
};

const SUBJECTS: usize = 10_000;

fn main() {
    let files =
        Bundle::gather(Path::new("examples/policy/controls")).expect("the starter controls");
    let bundle = Bundle::read_files(files).expect("they are read");
    let snapshot = bundle.snapshot(1).expect("they fit");
    let subjects = (0..SUBJECTS).map(|n| {
        Change::PutSubject(testing::subject(&format!(
            "spiffe://acme.example/agent/{n}"
        )))
    });
    let digest = Digest::parse("sha256:bench").expect("a digest");
    let snapshot = snapshot
        .after(subjects.collect(), digest, 2)
        .expect("subjects");
    let now = testing::noon();
    let mut took = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let (mut controls, mut said) = (0, 0);
        for control in snapshot.controls() {
            if let Some(round) = round(&control.id, &snapshot, &Cases::default(), &|_| None, now) {
                controls += 1;
                said += round.passed
                    + round.elsewhere
                    + u64::try_from(round.faults.len()).expect("few");
            }
        }
        let all = snapshot.controls().count();
        let by_itself = snapshot
            .controls()
            .filter(|control| runs_by_itself(&control.id, &snapshot))
            .count();
        assert_eq!(controls, by_itself);
        took.push(began.elapsed().as_secs_f64() * 1e3);
        if took.len() == 5 {
            took.sort_by(f64::total_cmp);
            println!(
                "{controls} of {all} controls run by themselves; {said} verdicts in {:.0} ms (median of 5)",
                took.get(2).copied().unwrap_or_default()
            );
        }
    }
}
