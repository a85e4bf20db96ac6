//! One function for each parser that meets bytes of strangers. None may panic on any, whatever it makes
//! of them; and where something is written anew, it reads the same again.
//!
//! `cargo +nightly fuzz run NAME` feeds them; `cargo test` runs what was found worth keeping, below
//! `tests/corpora`.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each fuzzer is of one of them, and a test of all"
)]

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use exeat::{
    domain::{Timestamp, Value},
    engine::condition::{Names, Roots, compile, on_deep_stack, only_adds},
    manifest::{self, Bundle},
    wire::{
        self,
        access::{Denial, submitted},
        agentgateway as gateway,
        approval::{Shown, Vouched},
        authzen, carried, envoy, ext_mcp,
        harness::{self, Harness},
        json::strict,
        jwt::{Keys, Use},
        principal::claimed,
        relay::{Relay, Said},
        sse::Events,
        sync, usage, v1,
    },
};
use serde_json::Value as Json;

/// What Envoy asks.
pub fn ext_authz(bytes: &[u8]) {
    let Ok(request) = wire::decoded::<CheckRequest>(bytes) else {
        return;
    };
    let tokens = [("payload".into(), "user:".into())];
    match envoy::asked(&request, &tokens) {
        Ok(asked) => drop(format!("{asked:?}")),
        Err(invalid) => drop(wire::encoded(&envoy::malformed(&invalid))),
    }
}

/// A token, and the keys that may have signed it.
pub fn jwt(bytes: &[u8]) {
    let (keys, token) = bytes.split_at(bytes.len() / 2);
    let keys = Keys::parse(keys).unwrap_or_default();
    for of in [token, bytes] {
        let of = String::from_utf8_lossy(of);
        drop(
            keys.claims(&of, Use::Access)
                .map(|claims| format!("{claims:?}")),
        );
    }
    // What a token that was verified may say.
    if let Ok(said) = strict(bytes) {
        let text = |name: &str| said.get(name).and_then(|text| text.as_str());
        drop(claimed(
            text("sub").unwrap_or_default(),
            said.get("act"),
            text("iss"),
            "user:",
        ));
    }
}

/// A body of AuthZEN.
pub fn authzen(bytes: &[u8]) {
    let Ok(body) = strict(bytes) else { return };
    drop(authzen::single(&body));
    if let Ok(authzen::Asked::Many(several)) = authzen::several(&body) {
        for at in 0..several.len().min(64) {
            drop(several.item(at));
        }
    }
    for wanted in [
        authzen::Wanted::Subject,
        authzen::Wanted::Resource,
        authzen::Wanted::Action,
    ] {
        drop(authzen::searched(&body, wanted));
    }
}

/// What MCP clients and servers say, and agentgateway of them.
pub fn mcp(bytes: &[u8]) {
    let relay = Relay {
        server: "files".into(),
        agent: "agent".into(),
        purpose: Some("work".into()),
        omit_large: bytes.len().is_multiple_of(2),
        approval: Some("https://registry.example/ui/{decision}".into()),
    };
    match relay.said(bytes) {
        Said::Asks(asking) => {
            drop(asking.question(&relay, &[("t".into(), "sha256:1".into())].into()));
            drop(asking.undecided("nobody answers", false));
            drop(relay.verdict(*asking, &v1::Decision::default()));
        }
        Said::Refused(answer) => drop(answer.to_string()),
        Said::On(_) | Said::Cancels(_) | Said::Dropped(_) => {}
    }
    drop(carried::heard(bytes));
    // A line for a server stays one line, and says the same.
    let line = carried::one_line(bytes);
    if let Ok(said) = strict(bytes) {
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        assert_eq!(strict(&line), Ok(said));
    }
    // However a stream is cut, it is the same events.
    let whole = Events::default().push(bytes);
    let mut parted = Events::default();
    let parts: Result<Vec<_>, _> = bytes.chunks(3).map(|part| parted.push(part)).collect();
    assert_eq!(whole, parts.map(|parts| parts.concat()));
    for event in whole.into_iter().flatten() {
        if let Some(data) = event.data() {
            drop(carried::heard(&data));
            drop(event.with(Some(&data)));
        }
    }
    if let Ok(request) = wire::decoded::<gateway::McpRequest>(bytes) {
        drop(ext_mcp::asked(request));
    }
    if let Ok(response) = wire::decoded::<gateway::McpResponse>(bytes)
        && let Ok(Some(mut listing)) = ext_mcp::listed(response)
    {
        let (_, resources) = listing.asks();
        drop(listing.of_those(&vec![false; resources.len()]));
    }
}

/// What coding agents tell their hooks.
pub fn hook(bytes: &[u8]) {
    let Ok(event) = strict(bytes) else { return };
    for harness in [Harness::Claude, Harness::Codex, Harness::Gemini] {
        for omit_large in [false, true] {
            let event = harness::event(harness, event.clone(), "agent", Some("work"), omit_large);
            if let Ok(harness::Event::Asks(name, _)) = event {
                drop(harness::answer(harness, &name, &v1::Decision::default()));
            }
        }
    }
}

/// What people write: manifests, requests, and what is taken over from elsewhere.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    drop(manifest::read_request("a.yaml", text, |_, _, _| None));
    drop(manifest::oscal_in::requests(text, Timestamp::MIN));
    for problem in Bundle::read_files([("a.yaml".to_owned(), text.to_owned())])
        .and_then(|bundle| {
            drop(bundle.snapshot(1));
            // What is kept of a manifest is the same one.
            for (name, json, _) in bundle.objects()? {
                let again = manifest::read_json(name.kind, 1, &json);
                assert!(again.is_ok(), "{name:?}: {json}: {again:?}");
            }
            Ok(())
        })
        .err()
        .into_iter()
        .flatten()
    {
        drop(problem.to_string());
    }
}

/// The source of a condition.
pub fn condition(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    let compiled = on_deep_stack(|| {
        for roots in [Roots::RUNTIME, Roots::SCHEDULED, Roots::EXCEPTION] {
            match compile(source, roots, &Value::Null, &mut Names::default()) {
                // What it was denies no less than itself.
                Ok(_) => assert!(only_adds(source, source), "{source}"),
                Err(fault) => drop((fault.message().len(), fault.position())),
            }
        }
    });
    assert!(compiled.is_ok());
}

/// What registries and sidecars say to each other.
pub fn sync(bytes: &[u8]) {
    if let Ok(object) = wire::decoded::<v1::SyncObject>(bytes)
        && let Ok(edit) = sync::edit(object)
    {
        let again = sync::edit(sync::object_message(&edit));
        assert_eq!(again.as_ref().ok(), Some(&edit));
        if let Some(manifest) = &edit.manifest {
            drop(manifest::read_json(edit.name.kind, edit.revision, manifest));
        }
    }
    if let Ok(message) = wire::decoded::<v1::Removal>(bytes)
        && let Ok(removal) = sync::removal(message)
    {
        let again = sync::removal(sync::removal_message(&removal));
        assert_eq!(again.ok(), Some(removal));
    }
    if let Ok(message) = wire::decoded::<v1::HeartbeatStatement>(bytes)
        && let Ok(heartbeat) = sync::heartbeat(&message)
    {
        let again = sync::heartbeat(&sync::heartbeat_message(&heartbeat));
        assert_eq!(again.ok(), Some(heartbeat));
    }
    if let Ok(message) = wire::decoded::<v1::EpochStatement>(bytes)
        && let Ok(beginning) = sync::beginning(&message)
    {
        let again = sync::beginning(&sync::beginning_message(&beginning));
        assert_eq!(again.ok(), Some(beginning));
    }
    if let Ok(message) = wire::decoded::<v1::UsageRecord>(bytes) {
        drop(usage::usage(message));
    }
    for part in [
        wire::decoded::<v1::WatchResponse>(bytes).is_ok(),
        wire::decoded::<v1::AttendResponse>(bytes).is_ok(),
        wire::decoded::<v1::AttendRequest>(bytes).is_ok(),
        wire::decoded::<v1::ReportRequest>(bytes).is_ok(),
        wire::decoded::<v1::ObjectList>(bytes).is_ok(),
    ] {
        let _: bool = part;
    }
    drop((sync::sum(bytes), sync::start(bytes), sync::nonce_of(bytes)));
}

/// A request for access, and what is shown once it is approved.
pub fn access(bytes: &[u8]) {
    let Ok(body) = strict(bytes) else {
        return;
    };
    if let Ok(submission) = submitted(&body) {
        let said = |at: &str| {
            body.pointer(at)
                .and_then(Json::as_str)
                .unwrap_or("")
                .to_owned()
        };
        let denial = Denial {
            decision: said("/denial/evaluation_id"),
            time: Timestamp::from_micros(1_795_348_800_000_000),
            subject: said("/subject/id"),
            action: said("/action/name"),
            kind: said("/resource/type"),
            resource: said("/resource/id"),
            environment: "prod".into(),
            purpose: "work".into(),
            controls: vec!["CT-1".into()],
        };
        match submission.request(&denial, Some("user:o")) {
            Ok(request) => {
                let request = request.to_string();
                if let Ok(read) = manifest::read_request("request", &request, |_, _, _| None) {
                    // Of nobody else than who was denied.
                    let written: Json = serde_json::from_str(&read.text).unwrap_or_default();
                    let ids = &written["scope"]["subject_selector"]["ids"];
                    assert_eq!(*ids, Json::from(vec![denial.subject.as_str()]));
                }
            }
            Err(trouble) => drop(trouble.problem().to_string()),
        }
        let now = denial.expire();
        assert!(Denial::read(&submission.token, &Keys::default(), now).is_err());
    }
    if let Json::Object(context) = body
        && let Some(shown) = Shown::of(&context)
        && let Some(state) = shown.state
    {
        let now = Timestamp::from_micros(0);
        assert!(Vouched::read(&state, &Keys::default(), now).is_err());
    }
}
