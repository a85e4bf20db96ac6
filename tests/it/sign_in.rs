//! People sign in: with a password of ours, and with an issuer. The issuer here is one that lies as
//! told; a real one is in `tests/peers/provider.rs`.

use std::path::Path;

use crate::support::cases::{Ask, PLAIN, World, approve, ask, look};
use crate::support::governed::{Client, Registry, seconds};
use crate::support::issuer::Issuer;
use crate::support::{cases, governed};
use exeat::wire::{
    oauth::{challenge, unguessable},
    v1,
};
use serde_json::{Value as Json, json};
use tonic::{Code, Status};

const PASSWORD: &str = "correct horse battery";
const HOUR: i64 = 3_600;

/// Makes an account with a password.
async fn account(admin: &mut Client, identity: &str, role: &str) -> Result<v1::Account, Status> {
    let request = v1::PutAccountRequest {
        identity: identity.into(),
        role: role.into(),
        password: PASSWORD.into(),
    };
    let answer = admin.sessions.put_account(request).await?;
    Ok(answer.into_inner().account.unwrap())
}

/// Signs in with a password.
async fn enter(
    client: &mut Client,
    identity: &str,
    password: &str,
) -> Result<v1::SignedIn, Status> {
    let request = v1::SignInWithPasswordRequest {
        identity: identity.into(),
        password: password.into(),
    };
    let answer = client.sign_in.sign_in_with_password(request).await?;
    Ok(answer.into_inner().signed_in.unwrap())
}

async fn myself(client: &mut Client) -> Result<v1::Session, Status> {
    let answer = client
        .sessions
        .get_session(v1::GetSessionRequest {})
        .await?;
    Ok(answer.into_inner().session.unwrap())
}

#[tokio::test]
async fn a_session_holds_until_its_end_over_a_restart_and_no_longer() {
    let mut world = World::start().await;
    let made = account(&mut world.admin, "user:bob", "approver")
        .await
        .unwrap();
    assert_eq!((&*made.identity, &*made.role), ("user:bob", "approver"));
    let mut nobody = world.registry.client_with("").await;
    let refused = myself(&mut nobody).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let v1::SignedIn { token, session } = enter(&mut nobody, "user:bob", PASSWORD).await.unwrap();
    let session = session.unwrap();
    assert_eq!(
        (&*session.identity, &*session.role),
        ("user:bob", "approver")
    );
    let other = enter(&mut nobody, "user:bob", PASSWORD)
        .await
        .unwrap()
        .token;
    assert_ne!(token, other);
    let mut bob = world.registry.client_with(&token).await;
    assert_eq!(myself(&mut bob).await.unwrap(), session);
    // A role is a role, however its holder came in.
    let refused = account(&mut bob, "user:bob", "admin").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // The store holds no token, and neither does the ledger a password.
    let data = world.scratch.path().join("r");
    for file in ["registry.db", "registry.db-wal"] {
        let bytes = std::fs::read(data.join(file)).unwrap_or_default();
        for secret in [token.as_str(), PASSWORD] {
            let found = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!found, "{file} holds {secret}");
        }
    }
    world.registry.process.stop().await;
    let address = world.registry.address.clone();
    let registry = Registry::start_at(&data, world.clock.clone(), &address, &[])
        .await
        .unwrap();
    let mut bob = registry.client_with(&token).await;
    assert_eq!(myself(&mut bob).await.unwrap().identity, "user:bob");
    // One ends, the other goes on.
    bob.sessions
        .end_session(v1::EndSessionRequest {})
        .await
        .unwrap();
    let refused = myself(&mut bob).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut bob = registry.client_with(&other).await;
    world.clock.advance(seconds(8 * HOUR - 1));
    assert!(myself(&mut bob).await.is_ok());
    world.clock.advance(seconds(1));
    let refused = myself(&mut bob).await.unwrap_err();
    assert!(refused.message().contains("session is over"), "{refused}");
    // Who has a token that was granted has no session to end.
    let mut admin = registry.client_with(&world.registry.token).await;
    let refused = admin
        .sessions
        .end_session(v1::EndSessionRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn wrong_passwords_tell_nothing_and_take_ever_longer() {
    let mut world = World::start().await;
    account(&mut world.admin, "user:bob", "viewer")
        .await
        .unwrap();
    let mut nobody = world.registry.client_with("").await;
    let wrong = enter(&mut nobody, "user:bob", "another password")
        .await
        .unwrap_err();
    let unknown = enter(&mut nobody, "user:rob", "another password")
        .await
        .unwrap_err();
    assert_eq!(
        (wrong.code(), wrong.message()),
        (unknown.code(), unknown.message())
    );
    for _ in 0..4 {
        let again = enter(&mut nobody, "user:bob", "another password")
            .await
            .unwrap_err();
        assert_eq!(again.message(), wrong.message());
    }
    for wait in [1, 2, 4] {
        let later = enter(&mut nobody, "user:bob", PASSWORD).await.unwrap_err();
        assert!(
            later.message().contains(&format!("try again in {wait} s")),
            "{later}"
        );
        world.clock.advance(seconds(wait));
        let again = enter(&mut nobody, "user:bob", "another password")
            .await
            .unwrap_err();
        assert_eq!(again.message(), wrong.message());
    }
    world.clock.advance(seconds(8));
    enter(&mut nobody, "user:bob", PASSWORD).await.unwrap();
    // What is right forgets the mistakes.
    let again = enter(&mut nobody, "user:bob", "another password")
        .await
        .unwrap_err();
    assert_eq!(again.message(), wrong.message());
    enter(&mut nobody, "user:bob", PASSWORD).await.unwrap();
    let long = "x".repeat(2_000);
    assert!(enter(&mut nobody, "user:bob", &long).await.is_err());
}

#[tokio::test]
async fn an_account_that_changes_or_goes_takes_its_sessions_along() {
    let mut world = World::start().await;
    for (identity, role, field) in [
        ("user:bob", "sidecar", "role"),
        ("user:bob", "", "role"),
        ("agent:bob", "viewer", "identity"),
        ("bob", "viewer", "identity"),
        ("user:bo\nb", "viewer", "identity"),
    ] {
        let refused = account(&mut world.admin, identity, role).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(field), "{refused}");
    }
    for password in ["tiny pass", &"x".repeat(2_000)] {
        let request = v1::PutAccountRequest {
            identity: "user:bob".into(),
            role: "viewer".into(),
            password: password.into(),
        };
        let refused = world.admin.sessions.put_account(request).await.unwrap_err();
        assert!(refused.message().contains("`password`"), "{refused}");
        assert!(!refused.message().contains(password));
    }
    let head = |admin: &Client| {
        let mut admin = admin.clone();
        async move {
            let status = admin.fleet.get_status(v1::GetStatusRequest {}).await;
            status.unwrap().into_inner().head.unwrap().revision
        }
    };
    let before = head(&world.admin).await;
    account(&mut world.admin, "user:bob", "viewer")
        .await
        .unwrap();
    assert_eq!(
        head(&world.admin).await,
        before + 1,
        "it stands in the ledger"
    );
    let mut nobody = world.registry.client_with("").await;
    let token = enter(&mut nobody, "user:bob", PASSWORD)
        .await
        .unwrap()
        .token;
    let mut bob = world.registry.client_with(&token).await;
    assert_eq!(myself(&mut bob).await.unwrap().role, "viewer");
    account(&mut world.admin, "user:bob", "author")
        .await
        .unwrap();
    assert!(myself(&mut bob).await.is_err(), "the old role");
    let token = enter(&mut nobody, "user:bob", PASSWORD)
        .await
        .unwrap()
        .token;
    let mut bob = world.registry.client_with(&token).await;
    assert_eq!(myself(&mut bob).await.unwrap().role, "author");
    let sessions = world
        .admin
        .sessions
        .list_sessions(v1::ListSessionsRequest {})
        .await;
    assert_eq!(sessions.unwrap().into_inner().sessions.len(), 1);
    let remove = |identity: &str| v1::RemoveAccountRequest {
        identity: identity.into(),
    };
    world
        .admin
        .sessions
        .remove_account(remove("user:bob"))
        .await
        .unwrap();
    assert!(myself(&mut bob).await.is_err());
    assert!(enter(&mut nobody, "user:bob", PASSWORD).await.is_err());
    let gone = world
        .admin
        .sessions
        .remove_account(remove("user:bob"))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

/// Who is revoked, shut out or no longer with us is not let in, and is out at once.
#[tokio::test]
async fn who_has_left_is_out_at_once() {
    let mut world = World::start().await;
    let mut nobody = world.registry.client_with("").await;
    for identity in ["user:bob", "user:carol", "user:dave", "user:left"] {
        account(&mut world.admin, identity, "viewer").await.unwrap();
    }
    let refused = enter(&mut nobody, "user:left", PASSWORD).await.unwrap_err();
    assert!(refused.message().contains("no active person"), "{refused}");
    let mut clients = Vec::new();
    for identity in ["user:bob", "user:carol", "user:dave"] {
        let token = enter(&mut nobody, identity, PASSWORD).await.unwrap().token;
        clients.push(world.registry.client_with(&token).await);
    }
    let [bob, carol, dave] = clients.as_mut_slice() else {
        unreachable!()
    };
    let left =
        "apiVersion: exeat/v1\nkind: Person\nid: user:bob\nperson_id: p-bob\nactive: false\n";
    world.admin.apply(left).await.unwrap();
    let refused = myself(bob).await.unwrap_err();
    assert!(refused.message().contains("no active person"), "{refused}");
    let revoke = v1::RevokeRequest {
        target: Some(v1::Target {
            target: Some(v1::target::Target::Principal("user:carol".into())),
        }),
        ..v1::RevokeRequest::default()
    };
    world.admin.revocations.revoke(revoke).await.unwrap();
    let refused = myself(carol).await.unwrap_err();
    assert!(refused.message().contains("revoked"), "{refused}");
    assert!(enter(&mut nobody, "user:carol", PASSWORD).await.is_err());
    // Who only ever signed in is shut out like everybody else, and their session does not wait.
    let expel = v1::ExpelRequest {
        identity: "user:dave".into(),
    };
    world.admin.fleet.expel(expel).await.unwrap();
    let refused = myself(dave).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = enter(&mut nobody, "user:dave", PASSWORD).await.unwrap_err();
    assert!(refused.message().contains("shut out"), "{refused}");
    let granted = world.admin.let_in("user:dave", v1::Role::Viewer, &[]).await;
    assert!(myself(dave).await.is_err(), "what was ended stays so");
    let mut dave = world.registry.client_with(&granted).await;
    assert!(myself(&mut dave).await.is_ok());
    // Who is taken out of the directory has left it.
    account(&mut world.admin, "user:alice2", "viewer")
        .await
        .unwrap();
    let token = enter(&mut nobody, "user:alice2", PASSWORD)
        .await
        .unwrap()
        .token;
    let mut alice = world.registry.client_with(&token).await;
    assert!(myself(&mut alice).await.is_ok());
    let inner =
        "apiVersion: exeat/v1\nkind: Group\nid: inner\nmembers: [\"user:bob\", \"user:dave\"]\n";
    world.admin.apply(inner).await.unwrap();
    let request = v1::ApplyRequest {
        files: governed::files(&people_without("alice2")),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    world.admin.objects.apply(request).await.unwrap();
    let refused = myself(&mut alice).await.unwrap_err();
    assert!(refused.message().contains("no active person"), "{refused}");
    assert!(enter(&mut nobody, "user:alice2", PASSWORD).await.is_err());
}

/// Everything of the world but one person.
fn people_without(id: &str) -> String {
    let all = cases::people()
        + &governed::control("CT-RISKY", "risky", "true")
        + &governed::control("CT-PLAIN", "plain", "false")
        + &cases::agent("agent");
    let others = all
        .split("---\n")
        .filter(|one| !one.contains(&format!("id: user:{id}\n")));
    let others: Vec<_> = others.collect();
    others
        .join("---\n")
        .replace(&format!("\"user:{id}\", "), "")
}

/// One approver shuts nobody out of the registry for good, and nobody does that to themselves.
#[tokio::test]
async fn people_are_revoked_by_administrators_alone() {
    let mut world = World::start().await;
    let mut bob = world.as_who("user:bob").await;
    let revoke = |who: &str| v1::RevokeRequest {
        target: Some(v1::Target {
            target: Some(v1::target::Target::Principal(who.into())),
        }),
        ..v1::RevokeRequest::default()
    };
    for who in ["user:admin", "user:carol"] {
        let refused = bob.revocations.revoke(revoke(who)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{who}");
    }
    bob.revocations.revoke(revoke("agent:a")).await.unwrap();
    let refused = world
        .admin
        .revocations
        .revoke(revoke("user:admin"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let remove = v1::RemoveAccountRequest {
        identity: "user:admin".into(),
    };
    let refused = world
        .admin
        .sessions
        .remove_account(remove)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

/// What the settings would not let in today is not in any more.
#[tokio::test]
async fn sessions_end_with_the_settings_that_allowed_them_and_are_in_no_copy() {
    let mut world = World::start().await;
    account(&mut world.admin, "user:bob", "viewer")
        .await
        .unwrap();
    let mut nobody = world.registry.client_with("").await;
    let token = enter(&mut nobody, "user:bob", PASSWORD)
        .await
        .unwrap()
        .token;
    let data = world.scratch.path().join("r");
    let copy = world.scratch.path().join("copy");
    exeat::registry::backup(&data, &copy).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&copy.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let sessions = exeat::registry::Sqlite::open_file(&copy)
        .await
        .unwrap()
        .people();
    assert_eq!(sessions.sessions().await.unwrap(), []);
    assert_eq!(sessions.accounts().await.unwrap().len(), 1);
    world.registry.process.stop().await;
    world.clock.advance(seconds(2 * HOUR));
    let file = world.scratch.path().join("sign_in.yaml");
    let path = file.display().to_string();
    for (settings, lives) in [
        ("session_lasts: 3h\n", true),
        ("session_lasts: 2h\n", false),
        (
            "passwords: false\nissuers: [{name: a, issuer: https://a.example, client_id: x, role: viewer}]\n",
            false,
        ),
    ] {
        std::fs::write(&file, settings).unwrap();
        let mut registry = Registry::start_at(
            &data,
            world.clock.clone(),
            "127.0.0.1:0",
            &[("sign_in", &path)],
        )
        .await
        .unwrap();
        let mut bob = registry.client_with(&token).await;
        assert_eq!(myself(&mut bob).await.is_ok(), lives, "{settings}");
        registry.process.stop().await;
    }
}

/// How people sign in with an issuer that is told what to say.
fn settings(folder: &Path, issuer: &str, more: &str) -> String {
    let file = folder.join("sign_in.yaml");
    let text = format!(
        "issuers:\n- name: corp\n  issuer: \"{issuer}\"\n  client_id: exeat\n  roles: [{{group: security, role: approver}}, {{group: staff, role: viewer}}]\n  step_up: {{acr: [gold], amr: [hwk]}}\n  allow: [127.0.0.1]\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

struct Door {
    issuer: Issuer,
    world: World,
    nobody: Client,
    _folder: tempfile::TempDir,
}

const BACK: &str = "http://127.0.0.1:4711/callback";

impl Door {
    async fn open(more: &str) -> Self {
        let issuer = Issuer::start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = settings(folder.path(), &issuer.name(), more);
        let world = World::start_with(&[("sign_in", &file)]).await;
        let nobody = world.registry.client_with("").await;
        Self {
            issuer,
            world,
            nobody,
            _folder: folder,
        }
    }

    fn now(&self) -> i64 {
        self.world.clock.now().latest.micros() / 1_000_000
    }

    async fn begin(&mut self, step_up: bool) -> (String, v1::BeginSignInResponse) {
        let verifier = unguessable().unwrap();
        let request = v1::BeginSignInRequest {
            redirect_uri: BACK.into(),
            code_challenge: challenge(&verifier).unwrap(),
            state: unguessable().unwrap(),
            step_up,
            ..v1::BeginSignInRequest::default()
        };
        let begun = self.nobody.sign_in.begin_sign_in(request).await.unwrap();
        (verifier, begun.into_inner())
    }

    /// What a token says that counts.
    fn claims(&self, nonce: &str) -> Json {
        let now = self.now();
        json!({
            "iss": self.issuer.name(), "aud": "exeat", "sub": "1", "nonce": nonce,
            "exp": now + 300, "iat": now, "auth_time": now, "acr": "silver",
            "preferred_username": "bob", "groups": ["staff", "security"],
        })
    }

    fn answers(&self, claims: &Json) {
        let token = self.issuer.token("a", "JWT", claims);
        let answer = json!({"id_token": token, "token_type": "Bearer"});
        self.issuer.pages.page("/token", &answer.to_string());
    }

    async fn finish(&mut self, verifier: &str, nonce: &str) -> Result<v1::SignedIn, Status> {
        let request = v1::FinishSignInRequest {
            redirect_uri: BACK.into(),
            code: "c".into(),
            code_verifier: verifier.into(),
            nonce: nonce.into(),
            ..v1::FinishSignInRequest::default()
        };
        let answer = self.nobody.sign_in.finish_sign_in(request).await?;
        Ok(answer.into_inner().signed_in.unwrap())
    }

    /// Signs in with a token that `change` was done to.
    async fn enter(&mut self, change: impl FnOnce(&mut Json)) -> Result<v1::SignedIn, Status> {
        let (verifier, begun) = self.begin(false).await;
        let mut claims = self.claims(&begun.nonce);
        change(&mut claims);
        self.answers(&claims);
        self.finish(&verifier, &begun.nonce).await
    }
}

#[tokio::test]
async fn a_token_counts_for_the_attempt_it_was_made_for() {
    let mut door = Door::open("").await;
    let signed_in = door.enter(|_| {}).await.unwrap();
    let session = signed_in.session.unwrap();
    assert_eq!(
        (&*session.identity, &*session.role),
        ("user:bob", "approver")
    );
    assert!(
        session.assurance.starts_with("corp: acr silver, at "),
        "{session:?}"
    );
    assert_eq!(session.stepped_up_until, None);
    let sent = door.issuer.pages.got();
    let sent = sent.iter().find(|got| got.path == "/token").unwrap();
    let body = String::from_utf8(sent.body.clone()).unwrap();
    assert!(
        body.contains("grant_type=authorization_code&client_id=exeat&code=c&"),
        "{body}"
    );
    let now = door.now();
    let (_, other) = door.begin(false).await;
    let changes: [(&str, Json); 9] = [
        ("nonce", json!(other.nonce)),
        ("nonce", Json::Null),
        ("aud", json!("other")),
        ("aud", json!(["exeat", "other"])),
        ("azp", json!("other")),
        ("iss", json!("https://else")),
        ("exp", json!(now - 61)),
        ("exp", Json::Null),
        ("sub", Json::Null),
    ];
    for (name, value) in changes {
        let refused = door.enter(|claims| claims[name] = value.clone()).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.code(),
            Code::Unauthenticated,
            "{name} {value}: {refused}"
        );
    }
    // Another's signature, and a token for something else.
    let (verifier, begun) = door.begin(false).await;
    let claims = door.claims(&begun.nonce);
    let forged = Issuer::start().await;
    for token in [
        forged.token("a", "JWT", &claims),
        door.issuer.token("a", "secevent+jwt", &claims),
        "x.y.z".to_owned(),
    ] {
        let answer = json!({"id_token": token});
        door.issuer.pages.page("/token", &answer.to_string());
        let refused = door.finish(&verifier, &begun.nonce).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    // What is within is nobody's business outside.
    let away = json!({
        "issuer": door.issuer.name(), "jwks_uri": door.issuer.at("/keys"),
        "authorization_endpoint": door.issuer.at("/auth"), "token_endpoint": "https://10.0.0.5/token",
    });
    let page = "/.well-known/openid-configuration";
    door.issuer.pages.page(page, &away.to_string());
    door.world.clock.advance(seconds(2 * HOUR));
    let (other, begun_later) = door.begin(false).await;
    let refused = door.finish(&other, &begun_later.nonce).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(!refused.message().contains("10.0.0.5"), "{refused}");
    let document = away
        .to_string()
        .replace("https://10.0.0.5/token", &door.issuer.at("/token"));
    door.issuer.pages.page(page, &document);
    door.world.clock.advance(seconds(2 * HOUR));
    let (verifier, begun) = door.begin(false).await;
    for answer in ["{}", "<html>", r#"{"error": "invalid_grant"}"#] {
        door.issuer.pages.page("/token", answer);
        let refused = door.finish(&verifier, &begun.nonce).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
}

/// Whoever did not begin here costs the issuer nothing.
#[tokio::test]
async fn an_attempt_is_whose_it_was_and_for_ten_minutes() {
    let mut door = Door::open("").await;
    let (verifier, begun) = door.begin(false).await;
    assert!(
        begun
            .authorization_url
            .contains("code_challenge_method=S256")
    );
    assert!(!begun.authorization_url.contains("prompt="));
    door.answers(&door.claims(&begun.nonce));
    let asked = || {
        let got = door.issuer.pages.got();
        got.iter().filter(|got| got.path == "/token").count()
    };
    let before = asked();
    let other = unguessable().unwrap();
    let refused = door.finish(&other, &begun.nonce).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::Unauthenticated,
        "another verifier: {refused}"
    );
    let refused = door.finish(&verifier, "AAAA").await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::Unauthenticated,
        "no nonce of ours: {refused}"
    );
    let refused = door.finish("short", &begun.nonce).await.unwrap_err();
    assert!(refused.message().contains("`code_verifier`"), "{refused}");
    door.world.clock.advance(seconds(600));
    let refused = door.finish(&verifier, &begun.nonce).await.unwrap_err();
    assert!(refused.message().contains("too long ago"), "{refused}");
    let got = door.issuer.pages.got();
    assert_eq!(
        got.iter().filter(|got| got.path == "/token").count(),
        before
    );
    let begins = |field: &'static str, value: &str| {
        let mut request = v1::BeginSignInRequest {
            redirect_uri: BACK.into(),
            code_challenge: challenge(&unguessable().unwrap()).unwrap(),
            state: unguessable().unwrap(),
            ..v1::BeginSignInRequest::default()
        };
        match field {
            "redirect_uri" => request.redirect_uri = value.into(),
            "code_challenge" => request.code_challenge = value.into(),
            "state" => request.state = value.into(),
            _ => request.issuer = value.into(),
        }
        request
    };
    for (field, value) in [
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", "http://localhost:1/"),
        ("code_challenge", "x"),
        ("state", "1"),
        ("issuer", "other"),
    ] {
        let refused = door
            .nobody
            .sign_in
            .begin_sign_in(begins(field, value))
            .await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(field), "{refused}");
    }
}

/// With several issuers a code of one could be brought to another, unless it is said whose it is.
#[tokio::test]
async fn issuers_that_say_not_who_they_are_have_a_path_of_their_own() {
    let (one, other) = (Issuer::start().await, Issuer::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sign_in.yaml");
    let path = file.display().to_string();
    let begins = |issuer: &str, back: &str| v1::BeginSignInRequest {
        issuer: issuer.into(),
        redirect_uri: format!("http://127.0.0.1:4711{back}"),
        code_challenge: challenge(&unguessable().unwrap()).unwrap(),
        state: unguessable().unwrap(),
        step_up: false,
    };
    for (paths, right) in [
        (["/callback", "/callback"], false),
        (["/callback", "/other"], true),
    ] {
        let issuers = [(&one, "a"), (&other, "b")].map(|(issuer, name)| {
            let path = if name == "a" { paths[0] } else { paths[1] };
            format!("- {{name: {name}, issuer: \"{}\", client_id: x, role: viewer, prefix: {name}-, redirect_path: {path}, allow: [127.0.0.1]}}\n", issuer.name())
        });
        std::fs::write(&file, format!("issuers:\n{}", issuers.concat())).unwrap();
        let world = World::start_with(&[("sign_in", &path)]).await;
        let mut nobody = world.registry.client_with("").await;
        let begun = nobody.sign_in.begin_sign_in(begins("b", paths[1])).await;
        assert_eq!(begun.is_ok(), right, "{begun:?}");
        let refused = nobody
            .sign_in
            .begin_sign_in(begins("b", "/else"))
            .await
            .unwrap_err();
        assert!(refused.message().contains(paths[1]), "{refused}");
    }
}

#[tokio::test]
async fn an_account_stays_who_it_was_and_nobody_takes_its_name() {
    let mut door = Door::open("").await;
    door.enter(|_| {}).await.unwrap();
    let named = |name: &str, subject: &str| {
        let (name, subject) = (json!(name), json!(subject));
        move |claims: &mut Json| {
            claims["preferred_username"] = name;
            claims["sub"] = subject;
        }
    };
    // Renamed there, the same here.
    let again = door.enter(named("robert", "1")).await.unwrap();
    assert_eq!(again.session.unwrap().identity, "user:bob");
    // Somebody else who is given the name later.
    let refused = door.enter(named("bob", "2")).await.unwrap_err();
    assert!(
        refused.message().contains("account remove user:bob"),
        "{refused}"
    );
    let refused = door.enter(named("admin", "3")).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::FailedPrecondition,
        "who made the registry"
    );
    let other = door.enter(named("carol", "4")).await.unwrap();
    assert_eq!(other.session.unwrap().identity, "user:carol");
    // A password of ours is of somebody else's, too.
    let refused = account(&mut door.world.admin, "user:bob", "admin")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    account(&mut door.world.admin, "user:dave", "viewer")
        .await
        .unwrap();
    let refused = door.enter(named("dave", "5")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let remove = v1::RemoveAccountRequest {
        identity: "user:bob".into(),
    };
    door.world
        .admin
        .sessions
        .remove_account(remove)
        .await
        .unwrap();
    let next = door.enter(named("bob", "2")).await.unwrap();
    assert_eq!(next.session.unwrap().identity, "user:bob");
}

#[tokio::test]
async fn groups_say_what_somebody_may_do() {
    let mut door = Door::open("").await;
    for (number, (groups, role)) in [
        (json!(["staff"]), Some("viewer")),
        (json!("security"), Some("approver")),
        (json!(["security", "staff"]), Some("approver")),
        (json!(["elsewhere"]), None),
        (json!([]), None),
        (Json::Null, None),
        (json!({"security": true}), None),
        (json!([["security"]]), None),
    ]
    .into_iter()
    .enumerate()
    {
        let entered = door
            .enter(|claims| {
                claims["sub"] = json!(format!("s{number}"));
                claims["preferred_username"] = json!(format!("p{number}"));
                claims["groups"] = groups.clone();
            })
            .await;
        match role {
            Some(role) => assert_eq!(entered.unwrap().session.unwrap().role, role, "{groups}"),
            None => {
                let refused = entered.unwrap_err();
                assert!(
                    refused.message().contains("in no group"),
                    "{groups}: {refused}"
                );
            }
        }
    }
    // Who cannot be asked for the groups says nothing of them: nobody gets what everybody else has.
    let mut door = Door::open("  role: viewer\n").await;
    let document = json!({
        "issuer": door.issuer.name(), "jwks_uri": door.issuer.at("/keys"),
        "authorization_endpoint": door.issuer.at("/auth"), "token_endpoint": door.issuer.at("/token"),
        "userinfo_endpoint": door.issuer.at("/me"),
    });
    let page = "/.well-known/openid-configuration";
    door.issuer.pages.page(page, &document.to_string());
    let (verifier, begun) = door.begin(false).await;
    let mut claims = door.claims(&begun.nonce);
    claims.as_object_mut().unwrap().remove("groups");
    let token = door.issuer.token("a", "JWT", &claims);
    let answer = json!({"id_token": token, "access_token": "more"});
    door.issuer.pages.page("/token", &answer.to_string());
    door.issuer.pages.always("503 Service Unavailable\r\n");
    let refused = door.finish(&verifier, &begun.nonce).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let said = json!({"sub": "1", "groups": ["security"]}).to_string();
    door.issuer.pages.page("/me", &said);
    let session = door
        .finish(&verifier, &begun.nonce)
        .await
        .unwrap()
        .session
        .unwrap();
    assert_eq!(session.role, "approver");

    let mut door = Door::open("  role: viewer\n  name_claim: email\n  prefix: corp-\n").await;
    let mail = |verified: Json| {
        move |claims: &mut Json| {
            claims["email"] = json!("bob@corp.example");
            claims["email_verified"] = verified;
            claims["groups"] = json!([]);
        }
    };
    for unverified in [Json::Null, json!(false), json!("true")] {
        let refused = door.enter(mail(unverified)).await.unwrap_err();
        assert!(refused.message().contains("verified"), "{refused}");
    }
    let session = door
        .enter(mail(json!(true)))
        .await
        .unwrap()
        .session
        .unwrap();
    assert_eq!(
        (&*session.identity, &*session.role),
        ("user:corp-bob@corp.example", "viewer")
    );
    let refused = door
        .enter(|claims| claims["preferred_username"] = json!("x"))
        .await;
    assert!(refused.unwrap_err().message().contains("no `email`"));
}

/// §8, A-rules: where a domain asks for it, whoever approves has a step-up, and lately; how they had
/// signed in stays with their vote.
#[tokio::test]
async fn a_vote_may_need_a_step_up() {
    let mut door = Door::open("").await;
    let asks = "apiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\napprover_groups: {control_owner: owners, risk_officer: risk}\ntier_policy_overrides: {HIGH: {step_up: true}, MODERATE: {step_up: true}}\n";
    door.world.admin.apply(asks).await.unwrap();
    let mut alice = door.world.as_who("user:alice").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    // A token that was granted is no step-up, and neither is a plain sign-in.
    let mut dave = door.world.as_who("user:dave").await;
    let shown = look(&mut dave, &case.id).await;
    let refused = approve(&mut dave, &shown).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("exeat login --step-up"),
        "{refused}"
    );
    let plain = door.enter(|_| {}).await.unwrap();
    let mut bob = door.world.registry.client_with(&plain.token).await;
    let shown = look(&mut bob, &case.id).await;
    let refused = approve(&mut bob, &shown).await.unwrap_err();
    assert!(
        refused.message().contains("exeat login --step-up"),
        "{refused}"
    );
    // One that is old, or of which nobody says when it was, is none.
    let now = door.now();
    for at in [Some(json!(now - 900)), None] {
        let weak = door.enter(|claims| {
            claims["acr"] = json!("gold");
            let fields = claims.as_object_mut().unwrap();
            fields.remove("auth_time");
            fields.extend(at.map(|at| ("auth_time".to_owned(), at)));
        });
        let session = weak.await.unwrap().session.unwrap();
        assert_eq!(session.stepped_up_until, None, "{session:?}");
    }
    let (_, begun) = door.begin(true).await;
    for asked in ["prompt=login", "max_age=0", "acr_values=gold"] {
        assert!(
            begun.authorization_url.contains(asked),
            "{}",
            begun.authorization_url
        );
    }
    let strong = door
        .enter(|claims| claims["amr"] = json!(["hwk"]))
        .await
        .unwrap();
    assert!(strong.session.as_ref().unwrap().stepped_up_until.is_some());
    let mut bob = door.world.registry.client_with(&strong.token).await;
    door.world.clock.advance(seconds(15 * 60));
    let refused = approve(&mut bob, &shown).await.unwrap_err();
    assert!(
        refused.message().contains("exeat login --step-up"),
        "it was a while ago: {refused}"
    );
    let strong = door
        .enter(|claims| claims["acr"] = json!("gold"))
        .await
        .unwrap();
    let mut bob = door.world.registry.client_with(&strong.token).await;
    let voted = approve(&mut bob, &shown).await.unwrap();
    let record: Json = serde_json::from_str(&voted.record).unwrap();
    let assurance = &record["votes"][0]["assurance"];
    assert_eq!(assurance["stepped_up"], json!(true));
    let said = assurance["said"].as_str().unwrap();
    assert!(
        said.starts_with("corp: acr gold, at 2026-11-22T12:15"),
        "{said}"
    );
    // A no needs none.
    let other = ask(&mut alice, &Ask { hours: 24, ..PLAIN }).await.unwrap();
    let deny = v1::DecideRequest {
        id: other.id.clone(),
        approve: false,
        comment: "not this one, thank you".into(),
        digest: other.digest.clone(),
        reviewed_evidence: vec![],
    };
    let denied = dave.exceptions.decide(deny).await.unwrap();
    assert_eq!(denied.into_inner().case.unwrap().state, "DENIED");
}

#[tokio::test]
async fn settings_that_let_in_nobody_or_too_many_do_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let right = "- {name: a, issuer: https://a.example, client_id: x, role: viewer}";
    let mut number = 0;
    for (text, place, what) in [
        ("session_lasts: 5s\n", "1:", "less than a minute"),
        ("passwords: false\n", "1:", "nobody could sign in"),
        (
            "issuers:\n- {name: a b, issuer: https://a.example, client_id: x, role: viewer}\n",
            "2:",
            "is no name",
        ),
        (
            "issuers:\n- {name: a, issuer: \"ftp://x\", client_id: x, role: viewer}\n",
            "2:",
            "issuer",
        ),
        (
            "issuers:\n- {name: a, issuer: https://a.example, client_id: \"\", role: viewer}\n",
            "2:",
            "client_id",
        ),
        (
            "issuers:\n- {name: a, issuer: https://a.example, client_id: x}\n",
            "2:",
            "nobody would be let in",
        ),
        (
            "issuers:\n- {name: a, issuer: https://a.example, client_id: x, role: sidecar}\n",
            "2:",
            "no role of a person",
        ),
        (
            "issuers:\n- {name: a, issuer: https://a.example, client_id: x, client_secret_file: none, role: viewer}\n",
            "2:",
            "client_secret_file",
        ),
        (
            "issuers:\n- {name: a, issuer: https://a.example, client_id: x, role: viewer, groop: x}\n",
            "2:",
            "groop",
        ),
        (
            &format!(
                "issuers:\n{right}\n- {{name: b, issuer: https://b.example, client_id: x, role: viewer}}\n"
            ),
            "3:",
            "told apart",
        ),
        (
            &format!(
                "issuers:\n{right}\n{}\n",
                right.replace("client_id: x", "client_id: x, prefix: p")
            ),
            "3:",
            "another issuer's already",
        ),
    ] {
        number += 1;
        let file = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&file, text).unwrap();
        let data = folder.path().join(format!("r{number}"));
        let path = file.display().to_string();
        let clock = exeat::runtime::clock::Clock::manual(governed::noon());
        let started = Registry::start_at(&data, clock, "127.0.0.1:0", &[("sign_in", &path)]).await;
        let why = started.err().unwrap_or_else(|| panic!("{text} starts"));
        assert!(
            why.contains(what) && why.contains(&format!("{number}.yaml:{place}")),
            "{text}: {why}"
        );
        assert!(!data.try_exists().unwrap(), "nothing is made before that");
    }
}
