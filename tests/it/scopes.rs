//! Who may hold what, when that changes under a sidecar that runs.

use crate::support::governed::{
    Client, Registry, Sidecar, control, domain, exception, noon, subject, world,
};
use exeat::{
    registry,
    runtime::clock::Clock,
    wire::{
        signed::{Pin, Purpose, Trust},
        v1::{self, attend_request, attend_response},
    },
};
use tokio_stream::StreamExt;
use tonic::Code;

const EXCEPTED: &str = "ALLOW_BY_EXCEPTION OK";

/// A registry and a sidecar that is known by its certificate.
struct Known {
    scratch: tempfile::TempDir,
    registry: Registry,
    client: Client,
    sidecar: Sidecar,
    identity: String,
}

impl Known {
    async fn with(text: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let data = scratch.path().join("r");
        let made = registry::init(&data, "acme.example", &[], None, clock.clone())
            .await
            .unwrap();
        let registry = Registry::start(&data, clock.clone()).await;
        let mut client = registry.client_tls(&made.ca).await;
        client.apply(text).await.unwrap();
        let identity = made.sidecar.identity.clone();
        let sidecar = Sidecar::start_tls(
            scratch.path().join("s"),
            registry.address.clone(),
            registry.key.clone(),
            made.ca.clone(),
            made.sidecar,
            clock,
        )
        .await
        .unwrap();
        Self {
            scratch,
            registry,
            client,
            sidecar,
            identity,
        }
    }
}

#[tokio::test]
async fn s9_a_scope_that_changes_is_in_force_though_nothing_else_does() {
    let text = control("CT-RISKY", "risky", "true")
        + &control("CT-PLAIN", "plain", "false")
        + &domain("lab")
        + &domain("office")
        + &subject("agent", Some("lab"))
        + &subject("other", Some("office"))
        + &exception("EX-1", "CT-RISKY", "agent")
        + &exception("EX-2", "CT-RISKY", "other");
    let mut known = Known::with(&text).await;
    known.sidecar.until("agent", "risky", EXCEPTED).await;
    known.sidecar.until("other", "risky", EXCEPTED).await;
    let identity = known.identity.clone();
    let narrowed = known
        .client
        .let_in(&identity, v1::Role::Sidecar, &["domain:lab"]);
    narrowed.await;
    known
        .sidecar
        .until("other", "plain", "SUBJECT_UNKNOWN")
        .await;
    known.sidecar.until("agent", "risky", EXCEPTED).await;
    let resyncs = "exeat_registry_resyncs_total{reason=\"scope\"} 1";
    known
        .sidecar
        .until_page(|page| page.contains(resyncs))
        .await;
    let widened = known.client.let_in(
        &identity,
        v1::Role::Sidecar,
        &["domain:lab", "domain:office"],
    );
    widened.await;
    known.sidecar.until("other", "risky", EXCEPTED).await;
    known.sidecar.process.stop().await;
    known.registry.process.stop().await;
    drop(known.scratch);
}

#[tokio::test]
async fn who_was_revoked_is_told_nothing_more() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::start(&scratch.path().join("r"), Clock::manual(noon())).await;
    let mut client = registry.client().await;
    client.apply(&world()).await.unwrap();
    let token = client.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
    let mut sync = registry.sync_with(&token).await;
    let hello = attend_request::Event::Hello(v1::Hello {
        boot_nonce: vec![1; 16],
        ..v1::Hello::default()
    });
    let hello = tokio_stream::iter([v1::AttendRequest { event: Some(hello) }]);
    let attending = sync.attend(hello.chain(tokio_stream::pending())).await;
    let mut attending = attending.unwrap().into_inner();
    attending.next().await.unwrap().unwrap();
    let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
    let watching = sync.watch(v1::WatchRequest {
        era: status.unwrap().into_inner().era,
        ..v1::WatchRequest::default()
    });
    let mut watching = watching.await.unwrap().into_inner();
    watching.next().await.unwrap().unwrap();
    let request = v1::RevokeRequest {
        target: Some(v1::Target {
            target: Some(v1::target::Target::Principal("service:s1".into())),
        }),
        ..v1::RevokeRequest::default()
    };
    client.revocations.revoke(request).await.unwrap();
    let mut ends = Vec::new();
    while let Some(message) = attending.next().await {
        ends.extend(message.err());
    }
    while let Some(message) = watching.next().await {
        ends.extend(message.err());
    }
    let codes: Vec<_> = ends.iter().map(tonic::Status::code).collect();
    assert_eq!(codes, [Code::Unauthenticated, Code::Unauthenticated]);
}

#[tokio::test]
async fn s3_a_name_that_followed_becomes_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::start(&scratch.path().join("r"), Clock::manual(noon())).await;
    let mut client = registry.client().await;
    client.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
    let viewer = v1::GrantRequest {
        identity: "service:s1".into(),
        role: v1::Role::Viewer.into(),
        scope: Vec::new(),
    };
    let expel = v1::ExpelRequest {
        identity: "service:s1".into(),
    };
    let refused = client.fleet.grant(viewer.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    client.fleet.expel(expel).await.unwrap();
    let refused = client.fleet.grant(viewer).await.unwrap_err();
    assert!(
        refused.message().contains("is or was a sidecar"),
        "{refused}"
    );
    // What it was, it may be again.
    client.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
}

#[tokio::test]
async fn what_was_taken_back_comes_in_parts_that_can_be_given_back() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::start(&scratch.path().join("r"), Clock::manual(noon())).await;
    let mut client = registry.client().await;
    client.apply(&world()).await.unwrap();
    for turn in 0..200 {
        let (subject, note) = ("agent".to_owned(), "n".repeat(1_000));
        if turn % 2 == 0 {
            let request = v1::FreezeRequest { subject, note };
            client.revocations.freeze(request).await.unwrap();
        } else {
            let request = v1::ThawRequest { subject, note };
            client.revocations.thaw(request).await.unwrap();
        }
    }
    let token = client.let_in("service:s1", v1::Role::Sidecar, &["*"]).await;
    let mut sync = registry.sync_with(&token).await;
    let hello = attend_request::Event::Hello(v1::Hello {
        boot_nonce: vec![1; 16],
        ..v1::Hello::default()
    });
    let hello = tokio_stream::iter([v1::AttendRequest { event: Some(hello) }]);
    let attending = sync.attend(hello.chain(tokio_stream::pending())).await;
    let mut attending = attending.unwrap().into_inner();
    let trust = Trust::new(Pin::parse(&registry.key).unwrap());
    let (mut through, mut parts) = (0, 0);
    while through < 200 {
        let message = attending.next().await.unwrap().unwrap();
        let Some(attend_response::Event::Removals(signed)) = message.event else {
            continue;
        };
        assert!(
            signed.statement.len() <= 150 << 10,
            "{}",
            signed.statement.len()
        );
        let statement: v1::RemovalsStatement =
            trust.live().open(Purpose::Removals, Some(&signed)).unwrap();
        assert_eq!(statement.after, through, "S5");
        through = statement.through;
        assert_eq!(statement.removals.last().unwrap().sequence, through);
        parts += 1;
    }
    assert!(parts > 1);
}
