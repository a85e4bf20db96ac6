//! A denial, a request for access over HTTP, its approval, and the question again (ecosystem b.1).

use envoy_types::{
    ext_authz::v3::pb::{CheckRequest, HttpResponse},
    pb::envoy::service::auth::v3::{
        AttributeContext, attribute_context, authorization_client::AuthorizationClient,
    },
};
use exeat::wire::v1;
use serde_json::{Value as Json, json};

use crate::support::{
    cases::{World, agent, approve, lax, look, spare, until},
    governed::{Client, Sidecar, control, files, seconds},
    http,
};

const BASE: &str = "https://registry.example.com";
const REQUESTS: &str = "/access/v1/requests";

struct Scene {
    world: World,
    sidecar: Sidecar,
    alice: Client,
    bob: Client,
    /// Alice's token.
    token: String,
}

impl Scene {
    async fn start() -> Self {
        let mut world = World::start_with(&[("access_url", BASE)]).await;
        let bob = world.as_who("user:bob").await;
        let viewer = v1::Role::Viewer;
        let token = world.admin.let_in("user:alice", viewer, &[]).await;
        let alice = world.registry.client_with(&token).await;
        let sidecar = Self::sidecar(&mut world, "s").await;
        Self {
            world,
            sidecar,
            alice,
            bob,
            token,
        }
    }

    /// One that stands next to the agent, and has heard where access is asked for.
    async fn sidecar(world: &mut World, name: &str) -> Sidecar {
        let identity = format!("service:{name}");
        let role = v1::Role::Sidecar;
        let token = world.admin.let_in(&identity, role, &["*"]).await;
        let (address, key) = (&world.registry.address, &world.registry.key);
        let more = [
            ("subject", "agent"),
            ("authzen_url", "https://pdp.example.com"),
        ];
        let data = world.scratch.path().join(name);
        let clock = world.clock.clone();
        let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &more)
            .await
            .unwrap();
        sidecar.until("agent", "risky", "CONTROL_FAILED").await;
        for _ in 0..2_000 {
            if metadata(&sidecar)
                .await
                .get("access_request_endpoint")
                .is_some()
            {
                return sidecar;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("the sidecar never heard where access is asked for");
    }

    async fn evaluate(&self, approval: Option<&Json>) -> Json {
        evaluate(&self.sidecar, approval).await
    }

    /// Calls the registry with a token; the status, the headers and the body.
    async fn call(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, String, Json) {
        let json = if body.is_empty() {
            ""
        } else {
            "content-type: application/json\r\n"
        };
        let headers = format!("{json}authorization: Bearer {token}\r\n");
        let address = &self.world.registry.address;
        let (status, head, body) = http::send(address, method, path, &headers, body).await;
        let told = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}"));
        (status, head, told)
    }

    async fn submit(&self, body: &Json) -> (u16, Json) {
        let body = body.to_string();
        let (status, _, told) = self.call("POST", REQUESTS, &self.token, &body).await;
        (status, told)
    }

    /// The same, which is refused; the name of the problem.
    async fn refused(&self, body: &Json) -> (u16, String, String) {
        let (status, problem) = self.submit(body).await;
        problem_of(status, &problem)
    }

    /// What a task has come to.
    async fn task(&self, id: &str) -> Json {
        let path = format!("{REQUESTS}/{id}");
        let (status, _, told) = self.call("GET", &path, &self.token, "").await;
        assert_eq!(status, 200, "{told}");
        told
    }
}

fn problem_of(status: u16, problem: &Json) -> (u16, String, String) {
    assert_eq!(problem["status"], status, "{problem}");
    let kind = problem["type"].as_str().unwrap();
    let name = kind.strip_prefix("urn:openid:authzen:access-request:error:");
    let detail = problem["detail"].as_str().unwrap().to_owned();
    (status, name.unwrap_or(kind).to_owned(), detail)
}

async fn metadata(sidecar: &Sidecar) -> Json {
    let path = "/.well-known/authzen-configuration";
    let (_, _, body) = http::send(&sidecar.address, "GET", path, "", "").await;
    serde_json::from_str(&body).unwrap()
}

async fn evaluate(sidecar: &Sidecar, approval: Option<&Json>) -> Json {
    evaluate_of(sidecar, "risky", approval).await
}

async fn evaluate_of(sidecar: &Sidecar, action: &str, approval: Option<&Json>) -> Json {
    let mut context = json!({"purpose": "work"});
    if let Some(approval) = approval {
        context["approval"] = approval.clone();
    }
    let body = json!({
        "subject": {"type": "agent", "id": "agent"},
        "action": {"name": action},
        "resource": {"type": "thing", "id": "t"},
        "context": context,
    });
    let headers = "content-type: application/json\r\n";
    let path = "/access/v1/evaluation";
    let address = &sidecar.address;
    let (status, _, told) = http::send(address, "POST", path, headers, &body.to_string()).await;
    assert_eq!(status, 200, "{told}");
    serde_json::from_str(&told).unwrap()
}

/// What asks for access after a denial.
fn asks(denied: &Json) -> Json {
    let context = &denied["context"];
    json!({
        "subject": {"type": "agent", "id": "agent"},
        "action": {"name": "risky"},
        "resource": {"type": "thing", "id": "t"},
        "denial": {
            "evaluation_id": context["evaluation_id"],
            "evaluated_at": context["evaluated_at"],
            "expires_at": context["access_request"]["expires_at"],
            "binding_token": context["access_request"]["binding_token"],
        },
        "context": {
            "business_justification": "the quarter closes on Friday and the batch has to run until then",
            "risk_statement": "a wrong entry reaches the ledger and has to be reversed by hand",
            "remediation_plan": "the control learns of batches",
            "owner": "user:alice",
            "evidence": [{
                "evidence_id": "scan",
                "digest": "sha256:5ca0",
                "required": true,
                "expire_time": "2027-11-22T00:00:00Z",
            }],
        },
        "client": {"source": {"external_url": "https://tracker.example.com/T-7"}},
    })
}

#[tokio::test]
async fn a_denial_is_asked_about_approved_and_asked_again() {
    let mut scene = Scene::start().await;
    let known = metadata(&scene.sidecar).await;
    assert_eq!(
        known["access_request_endpoint"],
        format!("{BASE}{REQUESTS}")
    );
    assert_eq!(known["jwks_uri"], format!("{BASE}/access/v1/jwks"));
    assert_eq!(
        known["capabilities"],
        json!(["urn:openid:authzen:capability:access-request"])
    );

    let denied = scene.evaluate(None).await;
    let request = &denied["context"]["access_request"];
    assert_eq!(denied["decision"], false);
    assert_eq!(request["endpoint"], format!("{BASE}{REQUESTS}"));
    let end = request["expires_at"].as_str().unwrap();
    assert!(end.starts_with("2026-11-22T12:10:00"), "{end}");

    let body = asks(&denied);
    let (status, asked) = scene.submit(&body).await;
    assert_eq!(status, 202, "{asked}");
    let task = &asked["task"];
    let id = task["id"].as_str().unwrap().to_owned();
    assert_eq!(task["status"], "pending");
    assert_eq!(task["status_endpoint"], format!("{BASE}{REQUESTS}/{id}"));
    assert_eq!(
        task["progress"],
        json!({
            "current_step": 1,
            "total_steps": 1,
            "awaiting": ["1 control_owner for team"],
            "step_name": "1 control_owner for team",
        })
    );
    assert_eq!(asked.get("result"), None);
    // It is a request like any other, of the scope of what was denied and no wider.
    let case = look(&mut scene.bob, &id).await;
    let record: Json = serde_json::from_str(&case.record).unwrap();
    let written = &record["request"];
    assert_eq!(
        written["scope"],
        json!({
            "subject_selector": {"ids": ["agent"]},
            "actions": ["risky"],
            "resources": ["t"],
            "environments": ["prod"],
            "purposes": ["work"],
        })
    );
    assert_eq!(written["decision_id"], denied["context"]["evaluation_id"]);
    assert_eq!(
        written["justification"]["ticket_ref"],
        "https://tracker.example.com/T-7"
    );

    // The same again is the same request; in other words it is another, and there is one already.
    let (status, again) = scene.submit(&body).await;
    assert_eq!((status, &again["task"]["id"]), (202, &task["id"]));
    // Denied again it is asked for again: that is the same too, as long as nobody has decided.
    let denied_again = scene.evaluate(None).await;
    let (status, again) = scene.submit(&asks(&denied_again)).await;
    assert_eq!((status, &again["task"]["id"]), (202, &task["id"]));
    let mut other = body.clone();
    other["context"]["remediation_plan"] = "the control is given up at last".into();
    let (status, name, why) = scene.refused(&other).await;
    assert_eq!((status, name.as_str()), (409, "duplicate_request"), "{why}");
    assert!(why.contains(&id), "{why}");

    let seen = look(&mut scene.bob, &id).await;
    approve(&mut scene.bob, &seen).await.unwrap();
    let approved = scene.task(&id).await;
    assert_eq!(approved["task"]["status"], "approved");
    assert_eq!(approved["task"].get("progress"), None);
    let result = &approved["result"];
    assert_eq!(result["mode"], "reevaluate");
    assert_eq!(result["approval"]["id"], *id);
    assert_eq!(result["approval"]["approved_until"], "2026-11-23T12:00:00Z");
    assert_eq!(result["approval"]["approved_at"], "2026-11-22T12:00:00Z");

    scene.world.clock.advance(seconds(1));
    scene
        .sidecar
        .until("agent", "risky", "ALLOW_BY_EXCEPTION")
        .await;
    let allowed = scene.evaluate(Some(&result["approval"])).await;
    assert_eq!(allowed["decision"], true);
    assert_eq!(allowed["context"]["approval"]["id"], *id);

    // What goes on from it is no second request about the denial.
    let mut renewal = written.clone();
    renewal["renews"] = id.clone().into();
    let renewal = v1::RequestExceptionRequest {
        file: files(&renewal.to_string()).pop(),
        dry_run: true,
        ..v1::RequestExceptionRequest::default()
    };
    let renewed = scene.alice.exceptions.request_exception(renewal).await;
    assert!(renewed.is_ok(), "{renewed:?}");

    // Taken back it counts no more, whatever is shown.
    scene.world.admin.revoke(&id).await.unwrap();
    scene
        .sidecar
        .until("agent", "risky", "CONTROL_FAILED")
        .await;
    let denied = scene.evaluate(Some(&result["approval"])).await;
    assert_eq!(denied["decision"], false);
    assert_eq!(denied["context"]["reason"], "exception_revoked", "{denied}");
    assert_eq!(denied["context"]["next_action"], "request");
    until(&mut scene.bob, &id, "REVOKED").await;
    let ended = scene.task(&id).await;
    assert_eq!(
        ended["task"]["status"], "approved",
        "what was decided stays"
    );
    assert_eq!(ended["result"]["approval"].get("state"), None);
}

#[tokio::test]
async fn an_approval_that_has_not_arrived_is_worth_another_try() {
    let mut scene = Scene::start().await;
    let denied = scene.evaluate(None).await;
    let (_, asked) = scene.submit(&asks(&denied)).await;
    let id = asked["task"]["id"].as_str().unwrap().to_owned();
    scene.sidecar.process.stop().await;
    let seen = look(&mut scene.bob, &id).await;
    approve(&mut scene.bob, &seen).await.unwrap();
    let approval = scene.task(&id).await["result"]["approval"].clone();
    scene.world.registry.process.stop().await;

    // It follows from what it knew.
    let (address, key) = (&scene.world.registry.address, &scene.world.registry.key);
    let data = scene.world.scratch.path().join("s");
    let token = std::fs::read_to_string(data.with_extension("token")).unwrap();
    let clock = scene.world.clock.clone();
    let more = [("subject", "agent")];
    let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &more)
        .await
        .unwrap();
    let waits = evaluate(&sidecar, Some(&approval)).await;
    let context = &waits["context"];
    assert_eq!(
        waits["decision"], false,
        "S3: nothing is granted by what is shown"
    );
    assert_eq!(context["reason"], "grant_pending", "{waits}");
    assert_eq!(context["next_action"], "retry");
    assert_eq!(context["retry_after"], 1);
    assert_eq!(context.get("access_request"), None);

    // By another's word, or nobody's, it is nothing.
    let mut forged = approval.clone();
    let state = forged["state"].as_str().unwrap().to_owned();
    let (signed, _) = state.rsplit_once('.').unwrap();
    forged["state"] = format!("{signed}.{}", "A".repeat(86)).into();
    let unsaid = json!({"id": id});
    let other = json!({"id": "EX-99", "state": state});
    for shown in [&forged, &unsaid, &other] {
        let told = evaluate(&sidecar, Some(shown)).await;
        assert_eq!(told["decision"], false);
        assert_eq!(told["context"]["reason"], "approval_unverifiable", "{told}");
        assert_eq!(told["context"]["next_action"], "none");
    }
}

#[tokio::test]
async fn what_a_denial_does_not_prove_is_not_asked_for() {
    let scene = Scene::start().await;
    let denied = scene.evaluate(None).await;
    let body = asks(&denied);
    let with = |pointer: &str, value: Json| {
        let mut body = body.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let without = |part: &str, name: &str| {
        let mut body = body.clone();
        body[part].as_object_mut().unwrap().remove(name);
        body
    };
    let unbound = "invalid_denial_binding";
    let token = body["denial"]["binding_token"].as_str().unwrap();
    let (head, rest) = token.split_once('.').unwrap();
    let changed = format!("{head}.{}{rest}", "A");
    for (body, kind, says) in [
        (with("/subject/id", "other".into()), unbound, "subject.id"),
        (with("/action/name", "plain".into()), unbound, "action.name"),
        (with("/resource/id", "u".into()), unbound, "resource.id"),
        (with("/resource/type", "u".into()), unbound, "resource.type"),
        (
            with("/denial/evaluation_id", "dec_1".into()),
            unbound,
            "another decision",
        ),
        (
            with("/denial/binding_token", changed.into()),
            unbound,
            "signature",
        ),
        (with("/denial/binding_token", "x".into()), unbound, "signed"),
        (
            without("denial", "binding_token"),
            "",
            "denial.binding_token",
        ),
        (
            without("context", "business_justification"),
            "",
            "context.business_justification",
        ),
        (
            with("/context/risk_statement", "none".into()),
            "",
            "context.risk_statement",
        ),
        (with("/context/owner", "agent:x".into()), "", "owner"),
        (
            with("/context/evidence", "scan".into()),
            "",
            "context.evidence",
        ),
        (with("/context", json!([])), "", "context"),
        (with("/client", json!({"source": 5})), "", "client.source"),
    ] {
        let (status, name, why) = scene.refused(&body).await;
        assert_eq!(status, 400, "{why}");
        let kind = if kind.is_empty() { "about:blank" } else { kind };
        assert_eq!(name, kind, "{why}");
        assert!(why.contains(says), "{why}, not {says}");
    }
    // What is not done is said, not passed over.
    for (name, value) in [
        ("items", json!([])),
        ("callback", json!({"endpoint": "https://pep.example.com"})),
        ("requested_access", json!({"emergency": true})),
    ] {
        let mut body = body.clone();
        body[name] = value;
        let (status, _, why) = scene.refused(&body).await;
        assert_eq!(status, 400);
        assert!(why.contains("is not taken here"), "{why}");
    }
    let mut past = body.clone();
    past["requested_access"] = json!({"requested_until": "2026-11-22T11:00:00Z"});
    let (_, _, why) = scene.refused(&past).await;
    assert!(why.contains("requested_access.requested_until"), "{why}");

    // Who calls is known, as on every other way in.
    let asked = body.to_string();
    let (status, head, problem) = scene.call("POST", REQUESTS, "nobody", &asked).await;
    assert_eq!(status, 401, "{problem}");
    assert!(head.contains("www-authenticate: bearer"), "{head}");
    assert!(head.contains("application/problem+json"), "{head}");
    let address = &scene.world.registry.address;
    let token = format!(
        "x-request-id: r-7\r\nauthorization: Bearer {}\r\n",
        scene.token
    );
    let (status, head, why) = http::send(address, "POST", REQUESTS, &token, &asked).await;
    assert_eq!(status, 400, "{why}");
    assert!(why.contains("Content-Type"), "{why}");
    assert!(head.contains("x-request-id: r-7"), "{head}");
    let large = format!("{token}content-type: application/json\r\n");
    let body_ = "x".repeat(65 << 10);
    let (status, head, _) = http::send(address, "POST", REQUESTS, &large, &body_).await;
    assert_eq!(status, 400);
    assert!(head.contains("application/problem+json"), "{head}");

    // After ten minutes nobody knows whether it would still be denied.
    scene.world.clock.advance(seconds(601));
    let (status, name, _) = scene.refused(&body).await;
    assert_eq!((status, name.as_str()), (410, "expired_denial"));
}

#[tokio::test]
async fn a_request_has_an_end_that_was_asked_for_and_can_be_cancelled() {
    let mut scene = Scene::start().await;
    let denied = scene.evaluate(None).await;
    let mut body = asks(&denied);
    body["requested_access"] = json!({"requested_until": "2026-11-22T18:00:00Z"});
    body["context"].as_object_mut().unwrap().remove("owner");
    // The subject's own owner answers for it where nobody else is named.
    let (status, told) = scene.submit(&body).await;
    assert_eq!(status, 202, "{told}");
    let id = told["task"]["id"].as_str().unwrap().to_owned();
    let case = look(&mut scene.alice, &id).await;
    assert_eq!(case.owner, "user:o");
    let record: Json = serde_json::from_str(&case.record).unwrap();
    assert_eq!(record["request"]["window"]["duration"], "21600s");

    let place = format!("{REQUESTS}/{id}");
    let cancel = format!("{place}/cancel");
    let viewer = v1::Role::Viewer;
    let carol = scene.world.admin.let_in("user:carol", viewer, &[]).await;
    let (status, _, problem) = scene.call("POST", &cancel, &carol, "").await;
    assert_eq!(status, 403, "{problem}");
    let (status, _, told) = scene.call("POST", &cancel, &scene.token, "").await;
    assert_eq!(
        (status, &told["task"]["status"]),
        (200, &"cancelled".into())
    );
    let (status, _, problem) = scene.call("POST", &cancel, &scene.token, "").await;
    assert_eq!(problem_of(status, &problem).1, "invalid_task_state");
    let (status, _, problem) = scene
        .call("GET", "/access/v1/requests/EX-99", &carol, "")
        .await;
    let (status, name, _) = problem_of(status, &problem);
    assert_eq!((status, name.as_str()), (404, "unknown_task"));
    // It may be asked about anew.
    let mut again = body.clone();
    again["context"]["remediation_plan"] = "the control is given up at last".into();
    let (status, told) = scene.submit(&again).await;
    assert_eq!(status, 202, "{told}");
}

#[tokio::test]
async fn a_registry_without_an_address_takes_no_requests() {
    let mut world = World::start().await;
    let role = v1::Role::Sidecar;
    let token = world.admin.let_in("service:s", role, &["*"]).await;
    let (address, key) = (&world.registry.address, &world.registry.key);
    let data = world.scratch.path().join("s");
    let more = [("subject", "agent")];
    let clock = world.clock.clone();
    let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &more)
        .await
        .unwrap();
    sidecar.until("agent", "risky", "CONTROL_FAILED").await;
    let denied = evaluate(&sidecar, None).await;
    assert_eq!(denied["context"]["requestable"], true);
    assert_eq!(denied["context"].get("access_request"), None);
    let (status, ..) = http::send(address, "POST", REQUESTS, "", "{}").await;
    assert_eq!(status, 404);
    let wrong = exeat::config::RegistryProcess::load(
        None,
        &[],
        &[("access_url", Some("https://x.example.com/path".into()))],
    );
    assert!(wrong.unwrap_err().to_string().contains("access_url"));
}

#[tokio::test]
async fn what_nobody_has_to_decide_is_granted_at_once() {
    let mut scene = Scene::start().await;
    let cheap = spare("agent") + &lax("CT-LAX", "cheap");
    scene.world.admin.apply(&cheap).await.unwrap();
    scene
        .sidecar
        .until("agent", "cheap", "CONTROL_FAILED")
        .await;
    let denied = evaluate_of(&scene.sidecar, "cheap", None).await;
    let mut body = asks(&denied);
    body["action"]["name"] = "cheap".into();
    let (status, told) = scene.submit(&body).await;
    assert_eq!(status, 201, "{told}");
    assert_eq!(told["task"]["status"], "approved");
    scene.world.clock.advance(seconds(1));
    let allowed = "ALLOW_BY_EXCEPTION";
    scene.sidecar.until("agent", "cheap", allowed).await;
    // For something else it is no approval.
    scene
        .sidecar
        .until("agent", "risky", "CONTROL_FAILED")
        .await;
    let approval = &told["result"]["approval"];
    let denied = scene.evaluate(Some(approval)).await;
    assert_eq!(denied["context"]["reason"], "out_of_scope", "{denied}");
    // Its end is told as that.
    scene.world.clock.advance(seconds(25 * 3_600));
    scene.sidecar.until("agent", "cheap", "EXPIRED").await;
    let denied = evaluate_of(&scene.sidecar, "cheap", Some(approval)).await;
    assert_eq!(denied["context"]["reason"], "approval_expired", "{denied}");
}

#[tokio::test]
async fn every_surface_says_how_to_ask() {
    let scene = Scene::start().await;
    let told = scene.sidecar.ask("agent", "risky").await.unwrap();
    let request = told.access_request.unwrap();
    assert_eq!(request.endpoint, format!("{BASE}{REQUESTS}"));
    assert_eq!(request.title, "CT-RISKY");
    // Whoever shows the proof to nobody need not have it made.
    assert_eq!(request.binding_token, "");
    let attributes = AttributeContext {
        request: Some(attribute_context::Request {
            http: Some(attribute_context::HttpRequest {
                method: "GET".into(),
                path: "/x".into(),
                host: "api".into(),
                ..attribute_context::HttpRequest::default()
            }),
            ..attribute_context::Request::default()
        }),
        context_extensions: [("action", "risky"), ("resource", "t"), ("purpose", "work")]
            .map(|(name, value)| (format!("exeat.{name}"), value.to_owned()))
            .into(),
        ..AttributeContext::default()
    };
    let asked = |attributes| CheckRequest {
        attributes: Some(attributes),
    };
    let channel = scene.sidecar.channel().await.unwrap();
    let mut envoy = AuthorizationClient::new(channel);
    let told = envoy.check(asked(attributes.clone())).await.unwrap();
    let Some(HttpResponse::DeniedResponse(denied)) = told.into_inner().http_response else {
        panic!("it is denied");
    };
    let mut headers = denied.headers.iter().filter_map(|it| it.header.as_ref());
    let url = headers.find(|header| header.key == "x-exeat-request-url");
    assert_eq!(url.unwrap().value, format!("{BASE}{REQUESTS}"));
    let body: Json = serde_json::from_str(&denied.body).unwrap();
    let (status, told) = scene.submit(&asks(&body)).await;
    assert_eq!(
        (status, &told["detail"]),
        (400, &"`resource.type` is not what was denied".into())
    );
    // Without a purpose nobody can hold for it alone.
    let mut unsaid = attributes;
    unsaid.context_extensions.remove("exeat.purpose");
    let told = envoy.check(asked(unsaid)).await.unwrap();
    let Some(HttpResponse::DeniedResponse(denied)) = told.into_inner().http_response else {
        panic!("it is denied");
    };
    let body: Json = serde_json::from_str(&denied.body).unwrap();
    assert_eq!(body["context"].get("access_request"), None, "{body}");
    // What needs no exception says nothing of the kind.
    let told = scene.sidecar.ask("agent", "plain").await.unwrap();
    assert_eq!(told.access_request, None);
    // Whoever holds the registry's public key sees that an approval is the registry's.
    let address = &scene.world.registry.address;
    let (status, _, keys) = http::send(address, "GET", "/access/v1/jwks", "", "").await;
    assert_eq!(status, 200);
    let keys: Json = serde_json::from_str(&keys).unwrap();
    assert_eq!(keys["keys"][0]["crv"], "Ed25519");
}

#[tokio::test]
async fn terms_that_changed_are_asked_for_anew_by_the_same_request() {
    let mut scene = Scene::start().await;
    let denied = scene.evaluate(None).await;
    let body = asks(&denied);
    let (_, asked) = scene.submit(&body).await;
    let id = asked["task"]["id"].as_str().unwrap().to_owned();
    let seen = look(&mut scene.bob, &id).await;
    let changed = agent("agent").replace("permitted_ids: [work]", "permitted_ids: [work, play]");
    scene.world.admin.apply(&changed).await.unwrap();
    until(&mut scene.bob, &id, "DRAFT").await;
    assert!(approve(&mut scene.bob, &seen).await.is_err());
    let waits = scene.task(&id).await;
    assert_eq!(waits["task"]["status"], "pending");
    assert_eq!(waits["task"].get("links"), None, "{waits}");
    let awaiting = waits["task"]["progress"]["awaiting"][0].as_str().unwrap();
    assert!(awaiting.contains("send it again"), "{awaiting}");
    let (status, again) = scene.submit(&body).await;
    assert_eq!((status, &again["task"]["id"]), (202, &asked["task"]["id"]));
    let seen = look(&mut scene.bob, &id).await;
    approve(&mut scene.bob, &seen).await.unwrap();
    assert_eq!(scene.task(&id).await["task"]["status"], "approved");
}

#[tokio::test]
async fn of_many_that_ask_at_once_for_the_same_one_exception_comes() {
    let mut scene = Scene::start().await;
    let cheap = spare("agent") + &lax("CT-LAX", "cheap");
    scene.world.admin.apply(&cheap).await.unwrap();
    scene
        .sidecar
        .until("agent", "cheap", "CONTROL_FAILED")
        .await;
    let denied = evaluate_of(&scene.sidecar, "cheap", None).await;
    let mut body = asks(&denied);
    body["action"]["name"] = "cheap".into();
    let asked = (0..8).map(|_| scene.submit(&body));
    let told = futures_util::future::join_all(asked).await;
    for (status, told_) in &told {
        assert_eq!(
            (*status, &told_["task"]["id"]),
            (201, &told[0].1["task"]["id"])
        );
    }
    // One denial is good for one request, also once that is granted.
    body["context"]["remediation_plan"] = "the control is given up at last".into();
    let (status, name, _) = scene.refused(&body).await;
    assert_eq!((status, name.as_str()), (409, "duplicate_request"));
    let listed = v1::ListCasesRequest::default();
    let listed = scene.alice.exceptions.list_cases(listed).await.unwrap();
    assert_eq!(listed.into_inner().cases.len(), 1);
}

#[tokio::test]
async fn who_is_let_in_no_more_proves_nothing() {
    let mut scene = Scene::start().await;
    let denied = scene.evaluate(None).await;
    let expel = v1::ExpelRequest {
        identity: "service:s".into(),
    };
    scene.world.admin.fleet.expel(expel).await.unwrap();
    let (status, name, why) = scene.refused(&asks(&denied)).await;
    assert_eq!((status, name.as_str()), (400, "invalid_denial_binding"));
    assert!(why.contains("no such subject"), "{why}");
}

#[tokio::test]
async fn an_approval_that_covers_a_part_leaves_the_rest_to_be_asked_for() {
    let mut scene = Scene::start().await;
    let denied = scene.evaluate(None).await;
    let (_, asked) = scene.submit(&asks(&denied)).await;
    let id = asked["task"]["id"].as_str().unwrap().to_owned();
    let seen = look(&mut scene.bob, &id).await;
    approve(&mut scene.bob, &seen).await.unwrap();
    scene.world.clock.advance(seconds(1));
    scene
        .sidecar
        .until("agent", "risky", "ALLOW_BY_EXCEPTION")
        .await;
    let approval = scene.task(&id).await["result"]["approval"].clone();
    // Another control fails since.
    let more = control("CT-MORE", "risky", "true");
    scene.world.admin.apply(&more).await.unwrap();
    scene
        .sidecar
        .until("agent", "risky", "CONTROL_FAILED")
        .await;
    let told = scene.evaluate(Some(&approval)).await;
    let context = &told["context"];
    assert_eq!(context["reason"], "out_of_scope", "{told}");
    assert_eq!(context["next_action"], "request");
    assert!(context["access_request"]["binding_token"].is_string());
    let from = context["requestable_controls"].to_string();
    assert!(from.contains("CT-MORE"), "{from}");

    // What is suspended is told as that, also of several questions that share what is shown.
    let suspend = v1::SuspendRequest {
        id: id.clone(),
        reason: "looked at again".into(),
    };
    scene.world.admin.exceptions.suspend(suspend).await.unwrap();
    scene.sidecar.until("agent", "risky", "SUSPENDED").await;
    let body = json!({
        "subject": {"type": "agent", "id": "agent"},
        "action": {"name": "risky"},
        "context": {"purpose": "work", "approval": approval},
        "evaluations": [{"resource": {"type": "thing", "id": "t"}}],
    });
    let headers = "content-type: application/json\r\n";
    let path = "/access/v1/evaluations";
    let address = &scene.sidecar.address;
    let (_, _, told) = http::send(address, "POST", path, headers, &body.to_string()).await;
    let told: Json = serde_json::from_str(&told).unwrap();
    let context = &told["evaluations"][0]["context"];
    assert_eq!(context["reason"], "exception_suspended", "{told}");
    assert_eq!(context["next_action"], "retry");
}
