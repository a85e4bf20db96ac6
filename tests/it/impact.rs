//! What a request would have changed of what was denied before: told to whoever decides.

use std::process::Command;

use exeat::wire::v1::Role;
use serde_json::Value as Json;

use crate::support::{
    cases::{Ask, PLAIN, World, agent, approve, ask},
    governed::{Sidecar, control, files},
};

const NOW: &str = "2026-11-22T12:00:01Z";

/// What whoever decides is shown, as text or for programs.
fn reviewed(world: &World, id: &str, log: &str, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EXEAT_") {
            command.env_remove(name);
        }
    }
    command
        .args(["exception", "review", id, "--log", log])
        .args(["--registry", &world.registry.address])
        .args(["--token", &world.registry.token])
        .args(more);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

fn impact(world: &World, id: &str, log: &str) -> Json {
    let more = [
        "--now",
        NOW,
        "--since",
        "2026-11-22T00:00:00Z",
        "-o",
        "json",
    ];
    let (code, text) = reviewed(world, id, log, &more);
    assert_eq!(code, 0, "{text}");
    let told: Json = serde_json::from_str(&text).expect(&text);
    told["impact"].clone()
}

/// Which denials it would have ended, by what it is as it was asked for: what the log leaves out is
/// only missed where the exception's own conditions read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_review_tells_which_denials_it_would_have_ended() {
    let mut world = World::start().await;
    let big = control("CT-BIG", "risky", "size(request.context.args) > 3").replace(
        "state: DEPRECATED\n",
        "state: ACTIVE\ntest_vectors:\n- {name: long, world: {now_time: \"2026-11-22T12:00:00Z\", request: {context: {args: long}}}, expect: FAIL}\n- {name: short, world: {now_time: \"2026-11-22T12:00:00Z\", request: {context: {args: s}}}, expect: PASS}\n",
    );
    world.admin.apply(&(big + &agent("other"))).await.unwrap();
    let log = world.scratch.path().join("decisions.jsonl");
    let log = log.display().to_string();
    let token = world.admin.let_in("one", Role::Sidecar, &["*"]).await;
    let set = [
        ("insecure_asserted_identity", "true"),
        ("decision_log", log.as_str()),
    ];
    let (data, clock) = (world.scratch.path().join("s"), world.clock.clone());
    let (address, key) = (&world.registry.address, &world.registry.key);
    let mut sidecar = Sidecar::start_with(&data, address, key, &token, clock, &set)
        .await
        .unwrap();
    sidecar.until("agent", "plain", "ALLOW OK").await;
    for (subject, action, purpose, args, count) in [
        // By both controls, and by one.
        ("agent", "risky", "work", "CANARY", 4),
        ("agent", "risky", "work", "x", 3),
        ("agent", "risky", "leisure", "x", 2),
        ("other", "risky", "work", "x", 1),
        ("agent", "plain", "work", "x", 5),
    ] {
        for _ in 0..count {
            let context = [("purpose", purpose), ("args", args)];
            let asked = sidecar.ask_with(|request| {
                request.subject = subject.into();
                request.action = action.into();
                request.context = Some(crate::decision_log::context(&context));
            });
            asked.await.unwrap();
        }
    }
    sidecar.process.stop().await;

    let mut alice = world.as_who("user:alice").await;
    let both = format!("{}preemptive: true\n", PLAIN.more);
    let both = Ask {
        control: "CT-RISKY, CT-BIG",
        more: &both,
        ..PLAIN
    };
    let reads = "compensating_conditions: [\"request.context.args == 'x'\"]\n";
    let reads = format!("{}{reads}", PLAIN.more);
    let reads = Ask {
        more: &reads,
        ..PLAIN
    };
    let long = Ask {
        hours: 24 * 20,
        ..PLAIN
    };
    for (asked, denials, ended, untold) in [
        // What another control denies as well is not ended.
        (&PLAIN, 10, 3, 0),
        (&both, 10, 7, 0),
        // Looked at again before its end.
        (&long, 10, 3, 0),
        (&reads, 10, 0, 7),
    ] {
        let case = ask(&mut alice, asked).await.unwrap();
        assert_eq!(case.state, "PENDING");
        let told = impact(&world, &case.id, &log);
        assert_eq!(told["denials"], denials, "{told}");
        assert_eq!(told["ended"], ended, "{told}");
        let each = told["untold"].as_object().unwrap().iter();
        let each: Vec<_> = each.map(|(why, n)| (why, n.as_u64().unwrap())).collect();
        assert_eq!(each.iter().map(|(_, n)| n).sum::<u64>(), untold, "{told}");
        // What it would not have ended although it is in its scope, and why.
        let stays = told["stays"].as_object().unwrap();
        let others = if ended == 3 { 4 } else { 0 };
        let by_big = stays.get("CT-BIG denies it as well");
        assert_eq!(by_big.and_then(Json::as_u64).unwrap_or(0), others, "{told}");
        assert_eq!(stays.len(), usize::from(others > 0), "{told}");
        assert!(
            each.iter().all(|(why, _)| why.contains("context.args")),
            "{told}"
        );
        let calls = told["calls"].as_array().unwrap();
        assert_eq!(calls.len(), usize::from(ended > 0), "{told}");
        for call in calls {
            assert_eq!(call["subject"], "agent");
            assert_eq!(call["what"], "risky t");
            assert_eq!(call["count"], ended);
        }
    }
    // Also of one that is to begin later, as far as it may be used.
    let later = PLAIN.text().replace(
        "window: {duration: 48h}",
        "window: {start_time: \"2026-11-25T00:00:00Z\", duration: 4h}\nusage_limits: {max_uses: 2}",
    );
    let request = exeat::wire::v1::RequestExceptionRequest {
        file: files(&later).pop(),
        ..exeat::wire::v1::RequestExceptionRequest::default()
    };
    let answer = alice.exceptions.request_exception(request).await.unwrap();
    let told = impact(&world, &answer.into_inner().case.unwrap().id, &log);
    assert_eq!(
        (&told["ended"], &told["maxUses"]),
        (&Json::from(3), &Json::from(2))
    );
    let case = ask(&mut alice, &both).await.unwrap();
    let at = ["--now", NOW, "--since", "1h"];
    let (code, text) = reviewed(&world, &case.id, &log, &at);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("impact       would have ended 7 of 10 denials by its controls"),
        "{text}"
    );
    assert!(
        text.contains(
            "wants        waive CT-RISKY and CT-BIG for agent: risky on t, in prod, for work; 48h from its approval"
        ),
        "{text}"
    );
    assert!(text.contains("breadth      ░░░░░ narrow"), "{text}");
    // A log that is not there is an error, and never an exception without effect.
    let (code, text) = reviewed(&world, &case.id, "/nowhere", &at);
    assert_eq!(code, 7, "{text}");
    let (code, text) = reviewed(&world, &case.id, &log, &["--since", "soon"]);
    assert_eq!(
        (code, text.contains("--since: `soon`")),
        (2, true),
        "{text}"
    );

    // And of one that is granted.
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let mut bob = world.as_who("user:bob").await;
    approve(&mut bob, &case).await.unwrap();
    assert_eq!(impact(&world, &case.id, &log)["ended"], 3);
    // What that covers by now another does not end.
    let case = ask(&mut alice, &both).await.unwrap();
    let told = impact(&world, &case.id, &log);
    assert_eq!(told["ended"], 4, "{told}");
}
