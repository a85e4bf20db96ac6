//! Every case in YAML through `decide` and through the socket: the answers must agree with the
//! file and with each other.

use std::{path::PathBuf, sync::Arc};

use exeat::{
    cli::{Suite, SuiteWorld, TestOutcome},
    config,
    domain::{Decision, Now},
    engine::decide,
    runtime::clock::Clock,
    sidecar::Bound,
    testing::noon,
    wire::v1::{self, check_service_client::CheckServiceClient},
};
use tokio::sync::oneshot;
use tonic::transport::Endpoint;

fn suites() -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir("tests/cases")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.push("examples/policy/bundle/claims_test.yaml".into());
    found.sort();
    assert!(found.len() >= 3);
    found
}

/// What both answers say, in one form.
type Told = (String, Vec<String>, Vec<String>, Vec<(String, String)>);

fn of_decision(decision: &Decision) -> Told {
    (
        decision.outcome.name().to_owned(),
        decision
            .reasons
            .iter()
            .map(|reason| reason.name().to_owned())
            .collect(),
        decision
            .failed
            .iter()
            .map(|result| result.control.id.to_string())
            .collect(),
        decision
            .exceptions
            .iter()
            .map(|result| {
                (
                    result.exception.id.to_string(),
                    result.effect.name().to_owned(),
                )
            })
            .collect(),
    )
}

fn of_message(decision: &v1::Decision) -> Told {
    let short = |name: &str, prefix: &str| name.strip_prefix(prefix).unwrap().to_owned();
    (
        short(decision.outcome().as_str_name(), "OUTCOME_").to_lowercase(),
        decision
            .reasons()
            .map(|reason| short(reason.as_str_name(), "REASON_"))
            .collect(),
        decision
            .controls
            .iter()
            .map(|control| control.control_id.clone())
            .collect(),
        decision
            .exceptions
            .iter()
            .map(|exception| {
                (
                    exception.exception_id.clone(),
                    short(exception.effect().as_str_name(), "EXCEPTION_EFFECT_"),
                )
            })
            .collect(),
    )
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
async fn every_case_is_answered_alike_by_the_engine_and_over_the_socket() {
    let mut asked_in_all = 0;
    for path in suites() {
        let world = SuiteWorld::read(&path).unwrap_or_else(|problems| {
            panic!(
                "{}",
                problems.iter().map(ToString::to_string).collect::<String>()
            )
        });
        for case in &world.suite.tests {
            let about = format!("{}: {}", path.display(), case.name);
            let asked = world
                .ask(case)
                .unwrap_or_else(|error| panic!("{about}: {error}"));
            let clock = Clock::manual(noon());
            let scratch = tempfile::tempdir().unwrap();
            let flags = [
                ("bundle", Some("unused".to_owned())),
                ("data", Some(scratch.path().display().to_string())),
                ("insecure_asserted_identity", Some("true".into())),
                ("listen", Some("127.0.0.1:0".into())),
                ("operations", Some("127.0.0.1:0".into())),
                ("unix", Some("none".into())),
            ];
            let bound = Bound::bind(
                config::Sidecar::load(None, &[], &flags).unwrap(),
                clock.clone(),
            )
            .await
            .unwrap();
            let address = format!("http://{}", bound.address());
            let (stop, stopped) = oneshot::channel::<()>();
            let served = tokio::spawn(bound.run_fixed(Arc::new(asked.snapshot.clone()), async {
                drop(stopped.await)
            }));
            let mut client = CheckServiceClient::new(
                Endpoint::from_shared(address)
                    .unwrap()
                    .connect()
                    .await
                    .unwrap(),
            );
            for (at, expect) in &asked.steps {
                let decision = decide(
                    &asked.question().unwrap(),
                    &asked.snapshot,
                    Now::exactly(*at),
                );
                assert_eq!(expect.difference(&decision), None, "{about} at {at}");
                clock.set(*at);
                let answer = client
                    .check(asked.request.clone())
                    .await
                    .unwrap_or_else(|status| panic!("{about}: {status}"));
                assert_eq!(
                    of_message(&answer.into_inner().decision.unwrap()),
                    of_decision(&decision),
                    "{about} at {at}"
                );
                asked_in_all += 1;
            }
            drop((stop, client));
            served.await.unwrap().unwrap();
        }
    }
    assert!(asked_in_all > 45, "{asked_in_all}");
}

#[test]
fn a_case_that_expects_otherwise_fails() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x_test.yaml");
    let text = std::fs::read_to_string("tests/cases/controls_test.yaml").unwrap();
    std::fs::write(
        &path,
        text.replacen("outcome: allow, control: CT-ADV", "outcome: deny", 1),
    )
    .unwrap();
    let world = SuiteWorld::read(&path).unwrap();
    let Suite { tests, .. } = &world.suite;
    let TestOutcome::Failed(why) = world.run(&tests[0], &mut Default::default()).unwrap() else {
        panic!("it passed")
    };
    assert!(
        why[0].starts_with("expected deny\n") && why[0].contains("actual allow OK"),
        "{why:?}"
    );
}
