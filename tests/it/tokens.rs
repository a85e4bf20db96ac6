//! Callers that are known by their tokens: of an issuer, and of a list.

use std::{fs, time::Duration};

use exeat::{
    runtime::clock::Clock,
    wire::{
        signed::{hex, sha256},
        v1,
    },
};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use crate::support::{
    governed::{Sidecar, control, seconds},
    issuer::Issuer,
    processes::{Fleet, Running, used},
};

/// A sidecar of a folder, which knows its callers by their tokens.
struct Stage {
    fleet: Fleet,
    issuer: Issuer,
    _process: Running,
    channel: Channel,
}

const PEOPLE: &str = "request.actor_kind == 'HUMAN' && subject.kind != 'HUMAN'";

impl Stage {
    async fn start() -> Self {
        let mut fleet = Fleet::new();
        let issuer = Issuer::start().await;
        let world = used(Clock::system().now().latest + seconds(-300))
            + &control("CT-HUMAN", "plain", PEOPLE)
            + &control("CT-WHOM", "whom", "request.context.on_behalf_of != 'dana'")
            + &control("CT-ACTOR", "who", "request.context.actor != 'dana'");
        let (keys, list) = (fleet.path("keys.json"), fleet.path("tokens"));
        fs::write(&keys, issuer.keys("a")).unwrap();
        fs::write(&list, "# nobody yet").unwrap();
        let flags = [
            ("--token-keys", keys.as_str()),
            ("--token-issuer", "https://issuer.example"),
            ("--token-audience", "exeat"),
            ("--agent-tokens", &list),
        ];
        let flags = flags.iter().flat_map(|(flag, value)| [*flag, value]);
        fleet.flags = flags.map(str::to_owned).collect();
        let process = fleet.alone(&world);
        let endpoint = Endpoint::from_shared(format!("http://{}", fleet.listen)).unwrap();
        let mut channel = endpoint.connect().await;
        for _ in 0..2_000 {
            if channel.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            channel = endpoint.connect().await;
        }
        let channel = channel.expect("the sidecar answers");
        let stage = Self {
            fleet,
            issuer,
            _process: process,
            channel,
        };
        stage.until(&stage.token(&json!({})), "Allow").await;
        stage
    }

    /// A token of `agent`, with more claims in place of its own.
    fn token(&self, more: &Json) -> String {
        let now = Clock::system().now().latest.micros() / 1_000_000;
        let mut claims = json!({"iss": "https://issuer.example", "aud": "exeat", "sub": "agent", "exp": now + 600, "iat": now});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.issuer.token("a", "at+jwt", &claims)
    }

    async fn asks(
        &self,
        token: &str,
        change: impl FnOnce(&mut v1::CheckRequest),
    ) -> Result<v1::Decision, Status> {
        let mut request = v1::CheckRequest {
            action: "plain".into(),
            resource: Some(v1::Resource {
                r#type: "thing".into(),
                id: "t".into(),
                properties: None,
            }),
            ..v1::CheckRequest::default()
        };
        // As any caller would say; a token's word stands before it.
        let said = exeat::wire::json::proto("AI_AGENT".into());
        let context = request.context.get_or_insert_default();
        context.fields.insert("actor_kind".into(), said);
        change(&mut request);
        let mut request = Request::new(request);
        if !token.is_empty() {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = v1::check_service_client::CheckServiceClient::new(self.channel.clone());
        let answer = client.check(request).await?;
        Ok(answer.into_inner().decision.unwrap())
    }

    async fn until(&self, token: &str, wanted: &str) {
        let mut said = String::new();
        for _ in 0..1_000 {
            said = self.says(token).await;
            if said.starts_with(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {wanted}: {said}");
    }

    /// What its page of readiness says, once that `fits`.
    async fn ready(&self, fits: impl Fn(&str) -> bool) {
        let mut page = String::new();
        for _ in 0..1_000 {
            page = Sidecar::at("", &self.fleet.operations)
                .page("/readyz")
                .await;
            if fits(&page) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{page}");
    }

    /// Who it is that asks; else why nobody does.
    async fn says(&self, token: &str) -> String {
        match self.asks(token, |_| {}).await {
            Ok(decision) => format!("{:?} {}", decision.outcome(), decision.remedy),
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        }
    }
}

#[tokio::test]
async fn a_token_says_who_asks_and_for_whom() {
    let stage = Stage::start().await;
    let good = stage.token(&json!({}));
    let allowed = stage.asks(&good, |_| {}).await.unwrap();
    assert_eq!(allowed.outcome(), v1::Outcome::Allow);
    // What comes again is known by heart, and is the same one.
    let again = stage.asks(&good, |request| request.subject = "agent".into());
    assert_eq!(again.await.unwrap().outcome(), v1::Outcome::Allow);
    let other = stage.asks(&good, |request| request.subject = "other".into());
    let refused = other.await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");

    let stranger = Issuer::start().await;
    let forged = stranger.token("a", "JWT", &json!({"iss": "https://issuer.example", "aud": "exeat", "sub": "agent", "exp": 4_000_000_000_u64}));
    let cut = good.rsplit_once('.').unwrap().0.to_owned() + ".";
    for (token, why) in [
        (String::new(), "bring one token"),
        ("x".into(), "is no signed token"),
        (forged, "has a signature that does not fit"),
        (cut, "the token"),
        (stage.token(&json!({"exp": null})), "`exp` is no time"),
        (stage.token(&json!({"exp": 1_000_000_000})), "is over"),
        (stage.token(&json!({"aud": "other"})), "is not for `exeat`"),
        (
            stage.token(&json!({"iss": "https://other.example"})),
            "was not issued by",
        ),
        (
            stage.token(&json!({"nbf": 4_000_000_000_u64})),
            "of the future",
        ),
        (stage.token(&json!({"sub": ""})), "the token's `sub`"),
        (
            stage.token(&json!({"act": {"name": "x"}})),
            "`act` names nobody",
        ),
    ] {
        let said = stage.says(&token).await;
        assert!(
            said.starts_with("Unauthenticated") && said.contains(why),
            "{why}: {said}"
        );
    }
    let federated =
        json!({"iss": "https://partner.example", "sub": "agent", "sub_profile": "ai_agent"});
    let federated = stage.token(&json!({"sub": "dana", "act": federated}));
    let said = stage.says(&federated).await;
    assert!(said.contains("of another issuer"), "{said}");
    // What nobody here knows is no word for not being a person.
    let unknown = json!({"act": {"sub": "dana", "sub_profile": "employee"}});
    let denied = stage.asks(&stage.token(&unknown), |_| {}).await.unwrap();
    assert_eq!(denied.outcome(), v1::Outcome::Deny);
    // A delegation is kept: the agent that acts is who is governed, and for whom it acts is known.
    let delegated = json!({"sub": "dana", "act": {"sub": "agent", "sub_profile": "ai_agent"}});
    let delegated = stage.token(&delegated);
    let allowed = stage.asks(&delegated, |_| {}).await.unwrap();
    assert_eq!(allowed.outcome(), v1::Outcome::Allow);
    // For whom, and who acts: as the token says, and not as the call does.
    let forged = |request: &mut v1::CheckRequest, action: &str, said: &str| {
        request.action = action.into();
        let context = &mut request.context.as_mut().unwrap().fields;
        for name in ["on_behalf_of", "actor"] {
            context.insert(name.to_owned(), exeat::wire::json::proto(said.into()));
        }
    };
    let service = json!({"act": {"sub": "dana", "sub_profile": "service"}});
    let service = stage.token(&service);
    for (token, action, allowed) in [
        (&delegated, "whom", true),
        (&delegated, "who", false),
        (&service, "who", true),
        (&service, "whom", false),
    ] {
        for said in ["eve", "dana"] {
            let asked = stage.asks(token, |request| forged(request, action, said));
            let is = asked.await.unwrap().outcome() == v1::Outcome::Allow;
            assert_eq!(is, allowed, "{action} {said}");
        }
    }
    assert_eq!(
        stage.asks(&service, |_| {}).await.unwrap().outcome(),
        v1::Outcome::Allow,
        "a service is no person"
    );
    // A person who acts through an agent's identity is seen, whatever the call says of it.
    let person = stage.token(&json!({"act": {"sub": "dana"}}));
    let denied = stage.asks(&person, |_| {}).await.unwrap();
    assert_eq!(denied.outcome(), v1::Outcome::Deny, "EXG-HUM-01");
    assert_eq!(denied.controls[0].control_id, "CT-HUMAN");
    let body = json!({"subject": {"type": "agent", "id": "agent"}, "action": {"name": "plain"}, "resource": {"type": "thing", "id": "t"}, "context": {"actor_kind": "AI_AGENT"}});
    let answer = async |token: &str, path: &str| {
        let mut body = body.clone();
        if path.starts_with("search") {
            body.as_object_mut().unwrap().remove("action");
        }
        let body = body.to_string();
        let mut stream = TcpStream::connect(&stage.fleet.listen).await.unwrap();
        let request = format!(
            "POST /access/v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let over_http = answer(&person, "evaluation").await;
    assert!(over_http.contains("\"decision\":false"), "{over_http}");
    let over_http = answer(&good, "evaluation").await;
    assert!(over_http.contains("\"decision\":true"), "{over_http}");
    // What is found is what would be allowed.
    let found = answer(&good, "search/action").await;
    assert!(found.contains("{\"name\":\"plain\"}"), "{found}");
    let found = answer(&person, "search/action").await;
    assert!(found.contains("\"results\":["), "{found}");
    assert!(!found.contains("plain"), "{found}");
    // Whoever is not known is told how to be.
    let unknown = answer("x", "evaluation").await.to_lowercase();
    assert!(unknown.starts_with("http/1.1 401"), "{unknown}");
    assert!(unknown.contains("www-authenticate: bearer"), "{unknown}");
}

/// Keys are followed; what cannot be used at two looks counts no more, and takes no listed token with it.
#[tokio::test]
async fn keys_that_are_taken_back_sign_nothing() {
    let stage = Stage::start().await;
    let keys = stage.fleet.path("keys.json");
    let old = stage.token(&json!({}));
    // Known by heart until its key goes.
    stage.until(&old, "Allow").await;
    let next = Issuer::start().await;
    let replace = |content: &str| {
        fs::write(stage.fleet.path("new"), content).unwrap();
        fs::rename(stage.fleet.path("new"), &keys).unwrap();
    };
    replace(&next.keys("b"));
    stage
        .until(&old, "Unauthenticated the token is signed with a key")
        .await;
    let claims = json!({"iss": "https://issuer.example", "aud": "exeat", "sub": "agent", "exp": 4_000_000_000_u64});
    let new = next.token("b", "at+jwt", &claims);
    stage.until(&new, "Allow").await;
    let mine = "0123456789";
    let digest = hex(&sha256(mine.as_bytes()));
    fs::write(
        stage.fleet.path("tokens"),
        format!("sha256:{digest} agent\n"),
    )
    .unwrap();
    stage.until(mine, "Allow").await;
    replace("{\"keys\": [");
    stage.until(&new, "Unauthenticated").await;
    stage
        .ready(|page| page.contains("ok: revision") && page.contains("keys.json: "))
        .await;
    assert!(stage.says(mine).await.starts_with("Allow"));
    replace(&next.keys("b"));
    stage.until(&new, "Allow").await;
    stage.ready(|page| !page.contains("keys.json")).await;
}

/// A token of a list counts while it is listed.
#[tokio::test]
async fn a_listed_token_counts_while_it_is_listed() {
    let stage = Stage::start().await;
    let exeat = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_exeat"))
            .args(args)
            .env("EXEAT_SOCKET", &stage.fleet.listen)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), said)
    };
    let list = stage.fleet.path("tokens");
    let (code, token) = exeat(&["hook", "token", "agent", "--list", &list]);
    assert_eq!(code, 0);
    let token = token.trim().to_owned();
    assert!(!fs::read_to_string(&list).unwrap().contains(&token));
    stage.until(&token, "Allow").await;
    let file = stage.fleet.path("mine");
    fs::write(&file, &token).unwrap();
    let ask = [
        "check",
        "-",
        "t",
        "--type",
        "thing",
        "--action",
        "plain",
        "-c",
        "actor_kind=AI_AGENT",
    ];
    let (code, said) = exeat(&[&ask[..], &["--agent-token-file", &file]].concat());
    assert_eq!(code, 0, "{said}");
    assert_ne!(exeat(&ask).0, 0, "nobody in particular is refused");
    // Without a sidecar that somebody named, and beyond this machine, it is brought to nobody.
    for there in ["10.1.2.3:7430", "sidecar.example:7430"] {
        let refused = std::process::Command::new(env!("CARGO_BIN_EXE_exeat"))
            .args(ask)
            .args(["--agent-token-file", &file, "--socket", there])
            .output()
            .unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("in clear"), "{said}");
    }
    // A line that cannot be read lists nothing, and whoever is taken off beside it is off.
    let listed = fs::read_to_string(&list).unwrap();
    fs::write(&list, format!("agent\n{listed}")).unwrap();
    let wrong = "tokens:1: is no `sha256:DIGEST SUBJECT`";
    stage.ready(|page| page.contains(wrong)).await;
    assert!(stage.says(&token).await.starts_with("Allow"));
    fs::write(&list, "agent\n").unwrap();
    stage.until(&token, "Unauthenticated").await;
    fs::write(&list, &listed).unwrap();
    stage.until(&token, "Allow").await;
    // Nor is anybody on a list that is gone.
    fs::remove_file(&list).unwrap();
    stage.until(&token, "Unauthenticated").await;
    let issued = stage.token(&json!({}));
    assert!(stage.says(&issued).await.starts_with("Allow"));
}
