//! What others tell the registry: proven, once, and never more than to take away (V4, T13).

use crate::support::cases::{Ask, EXCEPTED, PLAIN, World, approve, look};
use crate::support::governed::seconds;
use crate::support::issuer::Issuer;
use crate::support::{cases, governed};
use exeat::wire::{v1, webhook::Secrets};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";

/// Posts to the registry; the status and the body it answers with.
async fn post(world: &World, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&world.registry.address).await.unwrap();
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, body.to_owned())
}

/// Posts a message of Standard Webhooks, signed now.
async fn told(world: &World, id: &str, message: &Json) -> (u16, String) {
    let body = message.to_string();
    let time = world.clock.now().latest.micros() / 1_000_000;
    let signature = Secrets::parse(SECRET)
        .unwrap()
        .sign(id, time, body.as_bytes());
    let headers = format!(
        "webhook-id: {id}\r\nwebhook-timestamp: {time}\r\nwebhook-signature: {signature}\r\n"
    );
    post(world, "/events/pager", &headers, &body).await
}

/// A token that says what happened.
fn event_token(issuer: &Issuer, key: &str, claims: &Json) -> String {
    issuer.token(key, "secevent+jwt", claims)
}

fn event_of(
    issuer: &Issuer,
    world: &World,
    (id, kind, about): (&str, &str, &str),
    event: &Json,
) -> Json {
    let kind = format!("{CAEP}{kind}");
    json!({
        "iss": issuer.name(), "aud": "exeat", "jti": id,
        "iat": world.clock.now().latest.micros() / 1_000_000,
        "sub_id": {"format": "opaque", "id": about},
        "events": {kind: event},
    })
}

async fn pushed(world: &World, token: &str) -> (u16, String) {
    let headers = "content-type: application/secevent+jwt\r\n";
    post(world, "/events/idp", headers, token).await
}

async fn start(issuer: &Issuer) -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), SECRET).unwrap();
    let file = folder.path().join("webhooks.yaml");
    let text = format!(
        "sources:\n- {{name: pager, may: [incidents], secret_file: secret}}\n- {{name: idp, may: [credentials, sessions], issuer: \"{}\", audience: exeat, allow: [127.0.0.1]}}\n",
        issuer.name()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    (World::start_with(&[("webhooks", &file)]).await, folder)
}

/// R29, T13: the pager says that it is over, and the override is over with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_incident_begins_and_ends_as_the_pager_says() {
    let issuer = Issuer::start().await;
    let (mut world, _folder) = start(&issuer).await;
    let on_call = cases::people().replace("{control_owner", "{on_call: owners, control_owner");
    world.admin.apply(&on_call).await.unwrap();
    let opened = json!({"type": "incident.opened", "data": {"incident": "INC-1", "domain": "team", "title": "exports fail"}});
    assert_eq!(told(&world, "m1", &opened).await.0, 200);
    let during = Ask {
        hours: 2,
        more: "incident_ref: INC-1\n",
        ..PLAIN
    };
    let text = during.text().replace(
        "deviation_type: WAIVER",
        "deviation_type: INCIDENT_OVERRIDE",
    );
    let mut asker = world.as_who("user:alice").await;
    let request = v1::RequestExceptionRequest {
        file: governed::files(&text).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = asker.exceptions.request_exception(request).await.unwrap();
    let case = answer.into_inner().case.unwrap();
    let mut owner = world.as_who("user:bob").await;
    approve(&mut owner, &case).await.unwrap();
    let sidecar = world.sidecar().await;
    // A sidecar honours it once it is sure that it has begun.
    world.clock.advance(seconds(5));
    sidecar.until("agent", "risky", EXCEPTED).await;
    let resolved = json!({"type": "incident.resolved", "data": {"incident": "INC-1"}});
    let first = told(&world, "m2", &resolved).await;
    assert_eq!(
        first,
        (200, r#"{"done":"incident INC-1 is resolved"}"#.into())
    );
    sidecar.until("agent", "risky", "DENY").await;
    assert_eq!(look(&mut world.admin, &case.id).await.state, "REVOKED");
    // Once, however often it comes; and what begins anew under its id is not undone by it.
    let head = |world: &World| {
        let mut admin = world.admin.clone();
        async move {
            let status = admin.fleet.get_status(v1::GetStatusRequest {}).await;
            status.unwrap().into_inner().head.unwrap().revision
        }
    };
    let before = head(&world).await;
    assert_eq!(told(&world, "m2", &resolved).await, first);
    assert_eq!(told(&world, "m1", &opened).await.0, 200);
    assert_eq!(head(&world).await, before);
    // What is unknown yet may come again.
    let unknown = json!({"type": "incident.resolved", "data": {"incident": "INC-2"}});
    assert_eq!(told(&world, "m3", &unknown).await.0, 409);
    assert_eq!(
        told(&world, "m4", &json!({"type": "lunch.ready"})).await.0,
        200
    );
}

/// Who does not prove to be the source says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_proven_does_nothing() {
    let issuer = Issuer::start().await;
    let (mut world, _folder) = start(&issuer).await;
    let opened = json!({"type": "incident.opened", "data": {"incident": "INC-1", "domain": "team", "title": "x"}});
    let body = opened.to_string();
    let time = world.clock.now().latest.micros() / 1_000_000;
    let signed = |time: i64| {
        Secrets::parse(SECRET)
            .unwrap()
            .sign("m", time, body.as_bytes())
    };
    let old = time - 301;
    for headers in [
        String::new(),
        format!("webhook-id: m\r\nwebhook-timestamp: {time}\r\n"),
        format!("webhook-id: m\r\nwebhook-timestamp: {time}\r\nwebhook-signature: v1,AAAA\r\n"),
        format!(
            "webhook-id: n\r\nwebhook-timestamp: {time}\r\nwebhook-signature: {}\r\n",
            signed(time)
        ),
        format!(
            "webhook-id: m\r\nwebhook-timestamp: {old}\r\nwebhook-signature: {}\r\n",
            signed(old)
        ),
    ] {
        let (status, why) = post(&world, "/events/pager", &headers, &body).await;
        assert_eq!(status, 401, "{headers} {why}");
    }
    assert_eq!(post(&world, "/events/nobody", "", &body).await.0, 404);
    assert_eq!(
        told(&world, "m", &json!({"type": "incident.opened", "data": {}}))
            .await
            .0,
        400
    );
    assert_eq!(told(&world, "m", &json!([])).await.0, 400);
    // A pager speaks of incidents, and of nothing else.
    let session = json!({"type": "session.revoked", "data": {"subject": "agent"}});
    let (status, why) = told(&world, "m", &session).await;
    assert_eq!(
        (status, why.contains("speak of sessions")),
        (409, true),
        "{why}"
    );
    let large = json!({"type": "incident.opened", "data": "x".repeat(70_000)});
    assert_eq!(told(&world, "m", &large).await.0, 413);

    let revoked = json!({"event_timestamp": 1});
    let event = |change: &dyn Fn(&mut Json)| {
        let mut claims = event_of(
            &issuer,
            &world,
            ("j1", "session-revoked", "agent"),
            &revoked,
        );
        change(&mut claims);
        claims
    };
    let other = Issuer::start().await;
    let sent: [(String, &str); 6] = [
        (
            event_token(&other, "a", &event(&|_| {})),
            "authentication_failed",
        ),
        (
            event_token(&issuer, "a", &event(&|it| it["aud"] = "else".into())),
            "authentication_failed",
        ),
        (
            event_token(
                &issuer,
                "a",
                &event(&|it| it["iss"] = "https://else".into()),
            ),
            "authentication_failed",
        ),
        (event_token(&issuer, "b", &event(&|_| {})), "invalid_key"),
        (
            event_token(
                &issuer,
                "a",
                &event(&|it| it["iat"] = (time - 8 * 86_400).into()),
            ),
            "invalid_request",
        ),
        (
            event_token(&issuer, "a", &event(&|it| it["jti"] = Json::Null)),
            "invalid_request",
        ),
    ];
    for (token, code) in sent {
        let (status, why) = pushed(&world, &token).await;
        assert_eq!(status, 400, "{why}");
        assert!(why.contains(code), "{why}, not {code}");
    }
    let (status, _) = post(
        &world,
        "/events/idp",
        "",
        &event_token(&issuer, "a", &event(&|_| {})),
    )
    .await;
    assert_eq!(status, 400);
    let incidents = v1::ListIncidentsRequest { all: true };
    let incidents = world
        .admin
        .incidents
        .list_incidents(incidents)
        .await
        .unwrap();
    assert_eq!(incidents.into_inner().incidents, []);
    let removals = v1::ListRevocationsRequest::default();
    let removals = world
        .admin
        .revocations
        .list_revocations(removals)
        .await
        .unwrap();
    assert_eq!(removals.into_inner().removals.len(), 0);
}

/// R38: a session or credential that its provider revokes stops what rests on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_revokes_is_heard() {
    let issuer = Issuer::start().await;
    let (mut world, _folder) = start(&issuer).await;
    let sidecar = world.sidecar().await;
    sidecar.until_exactly("agent", "plain", "ALLOW OK").await;
    let revoked = json!({"event_timestamp": 1});
    let claims = event_of(
        &issuer,
        &world,
        ("j1", "session-revoked", "agent"),
        &revoked,
    );
    let token = event_token(&issuer, "a", &claims);
    assert_eq!(pushed(&world, &token).await, (202, String::new()));
    sidecar.until("agent", "plain", "SUBJECT_LOCKED").await;
    // People looked, and the same event does not lock it again.
    let thaw = v1::ThawRequest {
        subject: "agent".into(),
        ..v1::ThawRequest::default()
    };
    world.admin.revocations.thaw(thaw).await.unwrap();
    assert_eq!(pushed(&world, &token).await.0, 202);
    sidecar.until_exactly("agent", "plain", "ALLOW OK").await;

    // Named as part of more, and by another issuer (RFC 9493).
    let user = |issuer: &str| json!({"format": "complex", "user": {"format": "iss_sub", "iss": issuer, "sub": "agent"}, "session": {"format": "opaque", "id": "x"}});
    let mut claims = event_of(&issuer, &world, ("j7", "session-revoked", ""), &revoked);
    claims["sub_id"] = user("https://other.example");
    let foreign = pushed(&world, &event_token(&issuer, "a", &claims)).await;
    assert_eq!(foreign.0, 400, "{foreign:?}");
    assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
    let alice = json!({"format": "email", "email": "alice@example.com"});
    let us = json!({"format": "opaque", "id": "agent"});
    for (id, about) in [
        ("j8", user(&issuer.name())),
        (
            "j9",
            json!({"format": "complex", "user": alice, "application": us}),
        ),
        (
            "j10",
            json!({"format": "aliases", "identifiers": [alice, us]}),
        ),
    ] {
        claims["jti"] = id.into();
        claims["sub_id"] = about;
        assert_eq!(
            pushed(&world, &event_token(&issuer, "a", &claims)).await.0,
            202
        );
        sidecar.until("agent", "plain", "SUBJECT_LOCKED").await;
        let thaw = v1::ThawRequest {
            subject: "agent".into(),
            ..v1::ThawRequest::default()
        };
        world.admin.revocations.thaw(thaw).await.unwrap();
        sidecar.until_exactly("agent", "plain", "ALLOW OK").await;
    }

    // The provider signs with another key from now on.
    issuer.publish("b");
    world.clock.advance(seconds(11));
    let change = json!({"change_type": "revoke", "credential_type": "x509"});
    let with = cases::agent("agent")
        + "credentials: [{id: cred-7, kind: API_KEY, state: ACTIVE, issue_time: \"2026-11-01T00:00:00Z\", scopes: [], environments: [prod], bound_subjects: [agent], store: SECRET_MANAGER, exposed: false}]\n";
    world.admin.apply(&with).await.unwrap();
    for (id, credential) in [("j2", "cred-7"), ("j5", "dana@example.com")] {
        let claims = event_of(
            &issuer,
            &world,
            (id, "credential-change", credential),
            &change,
        );
        assert_eq!(
            pushed(&world, &event_token(&issuer, "b", &claims)).await.0,
            202
        );
    }
    let mut both = event_of(
        &issuer,
        &world,
        ("j6", "session-revoked", "agent"),
        &revoked,
    );
    both["events"][format!("{CAEP}credential-change")] = change;
    assert_eq!(
        pushed(&world, &event_token(&issuer, "b", &both)).await.0,
        400
    );
    let claims = event_of(
        &issuer,
        &world,
        ("j3", "credential-change", "agent"),
        &json!({"change_type": "create"}),
    );
    assert_eq!(
        pushed(&world, &event_token(&issuer, "b", &claims)).await.0,
        202
    );
    let claims = event_of(
        &issuer,
        &world,
        ("j4", "session-revoked", "somebody"),
        &revoked,
    );
    assert_eq!(
        pushed(&world, &event_token(&issuer, "b", &claims)).await.0,
        202
    );
    let removals = v1::ListRevocationsRequest::default();
    let removals = world
        .admin
        .revocations
        .list_revocations(removals)
        .await
        .unwrap();
    let targets: Vec<_> = removals
        .into_inner()
        .removals
        .into_iter()
        .map(|removal| (removal.initiator, removal.target.unwrap().target.unwrap()))
        .collect();
    assert_eq!(targets.len(), 9, "{targets:?}");
    let wanted = v1::target::Target::Credential("cred-7".into());
    assert_eq!(targets[0], ("service:idp".into(), wanted));
}

/// A provider that cannot be reached is no proof, and no reason to forget what it said.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_away_is_asked_again() {
    let issuer = Issuer::start().await;
    let (world, _folder) = start(&issuer).await;
    let document = "/.well-known/openid-configuration";
    let right = json!({"issuer": issuer.name(), "jwks_uri": issuer.at("/keys")}).to_string();
    let wrong = json!({"issuer": "https://else", "jwks_uri": issuer.at("/keys")}).to_string();
    let claims = event_of(
        &issuer,
        &world,
        ("j1", "session-revoked", "agent"),
        &json!({}),
    );
    let token = event_token(&issuer, "a", &claims);
    issuer.pages.page(document, &wrong);
    let (status, why) = pushed(&world, &token).await;
    assert_eq!(status, 503, "{why}");
    // Anybody could have asked: why is in the log.
    assert!(why.contains("keys cannot be had"), "{why}");
    // Not asked at every event.
    issuer.pages.page(document, &right);
    assert_eq!(pushed(&world, &token).await.0, 503);
    world.clock.advance(seconds(11));
    assert_eq!(pushed(&world, &token).await.0, 202);
}
