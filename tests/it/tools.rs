//! Tools as whoever asks has seen them, and which of some things may be used.

use exeat::{
    domain::{Facet, SeenTool, Subject},
    engine::{Change, as_seen},
    manifest::SubjectManifest,
    runtime::clock::Clock,
    testing::{question, snapshot},
    wire::v1::{self, Standing, check_service_client::CheckServiceClient},
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::support::governed::{Registry, Sidecar, control, exception, noon, subject};

/// The server, the name, the digest and the permissions of a tool.
type Tool = (String, String, String, Vec<String>);

fn governed(tools: &[Tool]) -> Subject {
    let tools: Vec<Json> = tools
        .iter()
        .map(|(server, name, digest, permissions)| {
            json!({"server": server, "name": name, "definition_digest": digest,
                "permissions": permissions, "approved": true})
        })
        .collect();
    let manifest = json!({
        "apiVersion": "exeat/v1", "kind": "Subject", "id": "agent", "subject_kind": "AI_AGENT",
        "environment": "prod", "owner": {"principal": "user:o", "active": true},
        "purpose": {"permitted_ids": ["work"]}, "risk_tier": "LOW", "data_sensitivity": "INTERNAL",
        "lifecycle_state": "ACTIVE", "tools": tools,
    });
    let manifest: SubjectManifest = serde_json::from_value(manifest).unwrap();
    manifest.parse().unwrap()
}

proptest! {
    /// R36, U2: a facet as it was seen is what it would be if the tools were registered so, in
    /// whatever order and whatever they are called.
    #[test]
    fn r36_tools_as_seen_are_as_they_would_be_registered(
        names in prop::collection::btree_set(("[a-c\"\\\\é\u{10000}]{1,3}", "[a-c\\n\"]{1,3}"), 1..6),
        permissions in prop::collection::vec("[a-c\"\\\\\\t]{0,3}", 0..4),
        changed in prop::collection::vec(any::<bool>(), 6),
    ) {
        let tool = |digest: &str, (server, name): &(String, String)| {
            (server.clone(), name.clone(), digest.to_owned(), permissions.clone())
        };
        let before: Vec<Tool> = names.iter().map(|of| tool("sha256:before", of)).collect();
        let digests = names.iter().zip(&changed);
        let mut after: Vec<Tool> = digests
            .map(|(of, changed)| tool(if *changed { "sha256:after" } else { "sha256:before" }, of))
            .collect();
        let seen = after.iter().map(|(server, name, digest, _)| SeenTool {
            server: server.as_str().into(),
            name: name.as_str().into(),
            definition_digest: digest.as_str().into(),
        });
        let mut asked = question("agent");
        asked.tools = seen.collect();
        after.reverse();
        let snapshot = snapshot(vec![Change::PutSubject(governed(&before))]);
        let asked = as_seen(asked, &snapshot);
        let after = governed(&after);
        prop_assert!(asked.tools.is_empty());
        prop_assert_eq!(asked.observed.get(Facet::Tools), after.fingerprint.get(Facet::Tools));
    }
}

fn tool(name: &str) -> v1::Resource {
    v1::Resource {
        r#type: "tool".into(),
        id: format!("mcp://crm/{name}"),
        properties: None,
    }
}

fn asks(subject: &str, resources: Vec<v1::Resource>) -> v1::FilterResourcesRequest {
    let purpose = prost_types::value::Kind::StringValue("work".into());
    let purpose = prost_types::Value {
        kind: Some(purpose),
    };
    v1::FilterResourcesRequest {
        check: Some(v1::CheckRequest {
            subject: subject.into(),
            action: "risky".into(),
            context: Some(prost_types::Struct {
                fields: [("purpose".to_owned(), purpose)].into(),
            }),
            ..v1::CheckRequest::default()
        }),
        resources,
    }
}

#[tokio::test]
async fn what_may_be_used_is_told_and_nothing_recorded_of_it() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("r"), clock.clone()).await;
    let mut client = registry.client().await;
    let named = |name: &str| format!("request.tool.name == '{name}'");
    let hard = control("CT-HARD", "risky", &named("hard")).replace("SOFT_", "HARD_");
    let world = control("CT-WIPE", "risky", &named("wipe"))
        + &control("CT-DUMP", "risky", &named("dump"))
        + &hard
        + &control("CT-PLAIN", "plain", "false")
        + &subject("agent", None)
        + &subject("frozen", None).replace("\nfacets:", "\nlock: under investigation\nfacets:")
        + &exception("EX-1", "CT-DUMP", "agent");
    client.apply(&world).await.unwrap();
    let token = client.let_in("one", v1::Role::Sidecar, &["*"]).await;
    let flags = [("insecure_asserted_identity", "true")];
    let data = scratch.path().join("s");
    let (address, key) = (&registry.address, &registry.key);
    let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &flags).await;
    let sidecar = sidecar.unwrap();
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let mut checks = CheckServiceClient::new(sidecar.channel().await.unwrap());

    let tools = ["search", "wipe", "dump", "hard"].map(tool).to_vec();
    let told = checks.filter_resources(asks("agent", tools)).await.unwrap();
    let told: Vec<_> = told.into_inner().standings().collect();
    use Standing::{Denied, Permitted, Requestable};
    assert_eq!(told, [Permitted, Requestable, Permitted, Denied]);
    let told = checks.filter_resources(asks("agent", vec![])).await;
    assert_eq!(told.unwrap().into_inner().standings.len(), 0);
    // The exception that one of them rests on was not used.
    let used = client.used("EX-1").await;
    assert_eq!(used.uses, 0, "{used:?}");

    let mut beside = asks("agent", vec![]);
    beside.check.as_mut().unwrap().resource = Some(tool("search"));
    let unnamed = v1::Resource {
        id: String::new(),
        ..tool("x")
    };
    let many = vec![tool("search"); 1_001];
    for (asked, code, named) in [
        (beside, Code::InvalidArgument, "`check.resource`: is there"),
        (
            asks("agent", vec![tool("search"), unnamed]),
            Code::InvalidArgument,
            "`resources[1].id`: is missing",
        ),
        (
            asks("agent", many),
            Code::InvalidArgument,
            "`resources`: has 1001 items",
        ),
        (
            asks("frozen", vec![tool("search")]),
            Code::PermissionDenied,
            "frozen",
        ),
        (asks("nobody", vec![]), Code::PermissionDenied, "not known"),
    ] {
        let status = checks.filter_resources(asked).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(named), "{status:?}");
    }
    // What was seen of a tool is well-formed, and said once.
    for (seen, named) in [
        (vec![("", "a", "sha256:x")], "seen_tools[0].server"),
        (vec![("s", "", "sha256:x")], "seen_tools[0].name"),
        (vec![("s", "a", "")], "seen_tools[0].definition_digest"),
        (
            vec![("s", "a", "sha256:x"), ("s", "a", "sha256:y")],
            "`seen_tools[1].name`: is there twice",
        ),
        (
            vec![("s", "a", "sha256:x"); 1_001],
            "`seen_tools`: has 1001",
        ),
    ] {
        let told = sidecar.ask_with(|request| {
            request.subject = "agent".into();
            let seen = seen.iter().map(|(server, name, digest)| v1::SeenTool {
                server: (*server).into(),
                name: (*name).into(),
                definition_digest: (*digest).into(),
            });
            request.seen_tools = seen.collect();
        });
        let status = told.await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(named), "{status:?}");
    }
}
