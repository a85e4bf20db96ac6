//! The ways in for those who do not speak our own protocol: each is a translator into the same
//! question and out of the same decision.

use std::collections::HashMap;

use envoy_types::{
    ext_authz::v3::pb::{CheckRequest, CheckResponse, HttpResponse},
    pb::{
        envoy::{
            config::core::v3::{HeaderMap, HeaderValue, Metadata},
            service::auth::v3::{
                AttributeContext, attribute_context as attributes,
                authorization_client::AuthorizationClient,
            },
        },
        google::protobuf::{Struct, Value, value::Kind},
    },
};
use exeat::wire::v1;
use serde_json::{Value as Json, json};

use crate::support::{
    governed::{Registry, Sidecar, control, exception, noon, subject, world},
    http,
};

struct Front {
    _scratch: tempfile::TempDir,
    registry: Registry,
    sidecar: Sidecar,
}

impl Front {
    async fn start(flags: &[(&'static str, &str)]) -> Self {
        Self::of(&world(), flags).await
    }

    async fn of(world: &str, flags: &[(&'static str, &str)]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = exeat::runtime::clock::Clock::manual(noon());
        let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
        let mut client = registry.client().await;
        client.apply(world).await.unwrap();
        let token = client.let_in("one", v1::Role::Sidecar, &["*"]).await;
        let mut all = vec![("max_connections", "1024")];
        all.extend(flags);
        let data = scratch.path().join("s");
        let (address, key) = (&registry.address, &registry.key);
        let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &all)
            .await
            .unwrap();
        Self {
            _scratch: scratch,
            registry,
            sidecar,
        }
    }

    async fn asserted() -> Self {
        let front = Self::start(&[("insecure_asserted_identity", "true")]).await;
        let sidecar = &front.sidecar;
        sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
        front
    }

    async fn envoy(&self, attributes: AttributeContext) -> Result<CheckResponse, tonic::Status> {
        let mut client = AuthorizationClient::new(self.sidecar.channel().await.unwrap());
        let request = CheckRequest {
            attributes: Some(attributes),
        };
        Ok(client.check(request).await?.into_inner())
    }

    /// Posts a body; the status, the headers in lower case, and the body.
    async fn post(&self, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        self.http("POST", path, headers, body).await
    }

    async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String, String) {
        http::send(&self.sidecar.address, method, path, headers, body).await
    }

    async fn evaluate(&self, body: &Json) -> Json {
        let json = "content-type: application/json\r\n";
        let (status, _, answer) = self
            .post("/access/v1/evaluation", json, &body.to_string())
            .await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }
}

/// A call that Envoy asks about.
fn call(method: &str, path: &str) -> AttributeContext {
    AttributeContext {
        source: Some(attributes::Peer {
            principal: "agent".into(),
            ..attributes::Peer::default()
        }),
        request: Some(attributes::Request {
            http: Some(attributes::HttpRequest {
                id: "1".into(),
                method: method.into(),
                path: path.into(),
                host: "api".into(),
                scheme: "https".into(),
                ..attributes::HttpRequest::default()
            }),
            ..attributes::Request::default()
        }),
        ..AttributeContext::default()
    }
}

fn http(attributes: &mut AttributeContext) -> &mut attributes::HttpRequest {
    attributes.request.as_mut().unwrap().http.as_mut().unwrap()
}

fn route(attributes: &mut AttributeContext, said: &[(&str, &str)]) {
    for (name, value) in said {
        let entry = ((*name).to_owned(), (*value).to_owned());
        attributes.context_extensions.extend([entry]);
    }
}

/// What Envoy makes of an answer (pdp §5): whether the call goes on, with which headers or which
/// status and body.
fn obeyed(answer: &CheckResponse) -> (bool, HashMap<String, String>, u16, Json) {
    let status = answer
        .status
        .as_ref()
        .expect("no answer is without a status");
    let read = |options: &[envoy_types::ext_authz::v3::pb::HeaderValueOption]| {
        let pairs = options.iter().map(|option| {
            assert_eq!(option.append_action, 2, "OVERWRITE_IF_EXISTS_OR_ADD");
            #[expect(deprecated, reason = "older Envoys read it")]
            let append = option.append.as_ref().map(|append| append.value);
            assert_eq!(append, Some(false));
            let header = option.header.clone().unwrap();
            (header.key, header.value)
        });
        pairs.collect::<HashMap<_, _>>()
    };
    match (status.code, answer.http_response.as_ref().unwrap()) {
        (0, HttpResponse::OkResponse(ok)) => {
            let headers = read(&ok.headers);
            for ours in [
                "x-exeat-decision-id",
                "x-exeat-outcome",
                "x-exeat-exception-id",
            ] {
                let removed = ok.headers_to_remove.iter().any(|name| name == ours);
                assert_ne!(removed, headers.contains_key(ours), "{ours} is ours alone");
            }
            (true, headers, 200, Json::Null)
        }
        (code, HttpResponse::DeniedResponse(denied)) if code != 0 => {
            let body = serde_json::from_str(&denied.body).unwrap();
            let http = u16::try_from(denied.status.as_ref().unwrap().code).unwrap();
            (false, read(&denied.headers), http, body)
        }
        other => panic!("neither a yes nor a no: {other:?}"),
    }
}

/// Issue line 1 of all surfaces: each question, through each of them, has one answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_surface_gives_the_same_answer() {
    let front = Front::asserted().await;
    let cases = [
        ("agent", "plain", Some("work"), "ALLOW"),
        ("agent", "risky", Some("work"), "ALLOW_BY_EXCEPTION"),
        ("agent", "risky", Some("fun"), "DENY"),
        ("agent", "risky", None, "DENY"),
        ("agent", "nothing", Some("work"), "DENY"),
        ("ghost", "plain", Some("work"), "DENY"),
    ];
    for (subject, action, purpose, wanted) in cases {
        let what = format!("{subject} {action} {purpose:?}");
        let ours = front
            .sidecar
            .ask_with(|request| {
                request.subject = subject.into();
                request.action = action.into();
                let said = purpose.map(|purpose| {
                    let kind = prost_types::value::Kind::StringValue(purpose.into());
                    (
                        "purpose".to_owned(),
                        prost_types::Value { kind: Some(kind) },
                    )
                });
                request.context = Some(prost_types::Struct {
                    fields: said.into_iter().collect(),
                });
            })
            .await
            .unwrap();
        let name = ours.outcome().as_str_name().trim_start_matches("OUTCOME_");
        assert_eq!(name, wanted, "{what}");
        let reasons: Vec<_> = ours
            .reasons()
            .map(|reason| {
                reason
                    .as_str_name()
                    .trim_start_matches("REASON_")
                    .to_owned()
            })
            .collect();

        let mut asked = call("POST", "/v1/anything");
        asked.source.as_mut().unwrap().principal = subject.into();
        route(
            &mut asked,
            &[
                ("exeat.action", action),
                ("exeat.resource_type", "thing"),
                ("exeat.resource", "t"),
                ("exeat.purpose", purpose.unwrap_or_default()),
            ],
        );
        let answer = front.envoy(asked).await.unwrap();
        let (goes_on, headers, status, body) = obeyed(&answer);
        assert_eq!(goes_on, wanted != "DENY", "{what}");
        assert_eq!(headers["x-exeat-outcome"], wanted.to_lowercase(), "{what}");
        let told = &answer.dynamic_metadata.as_ref().unwrap().fields["outcome"];
        assert_eq!(told.kind, Some(Kind::StringValue(wanted.to_lowercase())));
        if goes_on {
            let exception = headers.get("x-exeat-exception-id").map(String::as_str);
            let relied = wanted == "ALLOW_BY_EXCEPTION";
            assert_eq!(exception, relied.then_some("EX-1"), "{what}");
        } else {
            assert_eq!((status, &body["decision"]), (403, &json!(false)), "{what}");
            assert_eq!(body["context"]["reasons"], json!(reasons), "{what}");
        }

        let mut context = json!({});
        if let Some(purpose) = purpose {
            context["purpose"] = purpose.into();
        }
        let answer = front
            .evaluate(&json!({
                "subject": {"type": "identity", "id": subject},
                "action": {"name": action},
                "resource": {"type": "thing", "id": "t"},
                "context": context,
            }))
            .await;
        assert_eq!(
            answer["decision"],
            json!(wanted != "DENY"),
            "{what}: {answer}"
        );
        assert_eq!(
            answer["context"]["outcome"],
            wanted.to_lowercase(),
            "{what}"
        );
        if wanted == "ALLOW_BY_EXCEPTION" {
            assert_eq!(answer["context"]["approval"]["id"], "EX-1");
        }
        if wanted == "DENY" {
            assert_eq!(answer["context"]["reasons"], json!(reasons), "{what}");
        }
        // Whichever way it came, it is explained where it was decided.
        let id = answer["context"]["evaluation_id"].as_str().unwrap();
        assert!(id.starts_with("dec_"), "{id}");
    }
    let mut client = front.registry.client().await;
    let used = client.until_used("EX-1", |used| used.uses >= 4).await;
    assert_eq!(used.inside, used.uses, "{used:?}");
}

/// pdp §5: what can be read in more than one way is no question, and no answer lets it through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_envoy_and_the_upstream_may_read_differently_does_not_go_on() {
    let front = Front::asserted().await;
    let plain = |path: &str| {
        let mut asked = call("POST", path);
        route(&mut asked, &[("exeat.action", "plain")]);
        asked
    };
    for path in [
        "//v1",
        "/v1/../admin",
        "/v1/./a",
        "/v1/%2e%2e/admin",
        "/%72efunds/1",
        "/a%zz",
        "/a%28b%29",
        "/caf%c3%a9",
        "/a{b}",
        "/a%0",
        "/a%07",
        "/a%c0%af",
        "/a%2Fb",
        "/a%5cb",
        "/a%00",
        "/a;b=c",
        "/a\\b",
        "/a%252e",
        "/ä",
        "/a#b",
        "v1",
        "",
        "/a/..",
        "*",
    ] {
        let (goes_on, _, status, body) = obeyed(&front.envoy(plain(path)).await.unwrap());
        assert!(!goes_on && status == 400, "{path}: {status}");
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.starts_with("`path`"), "{path}: {detail}");
    }
    for path in [
        "/v1/a",
        "/v1/a?x=//../%2e",
        "/",
        "/a-b_c.d~e/%20f",
        "/caf%C3%A9(1)",
    ] {
        let (goes_on, ..) = obeyed(&front.envoy(plain(path)).await.unwrap());
        assert!(goes_on, "{path}");
    }
    let header = |key: &str, value: &[u8]| HeaderValue {
        key: key.into(),
        value: String::new(),
        raw_value: value.to_vec(),
    };
    let mcp = |headers: Vec<HeaderValue>, body: &str| {
        let mut asked = call("POST", "/mcp");
        route(
            &mut asked,
            &[("exeat.mcp_server", "mcp://crm"), ("exeat.action", "plain")],
        );
        let http = http(&mut asked);
        http.header_map = Some(HeaderMap { headers });
        http.raw_body = body.into();
        asked
    };
    let good = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
    let json = || header("Content-Type", b"application/json; charset=utf-8");
    let fine = front.envoy(mcp(vec![json()], good)).await.unwrap();
    assert!(obeyed(&fine).0);
    let partial = header("x-envoy-auth-partial-body", b"true");
    for (headers, body, path) in [
        (vec![json(), partial], good, "`body`"),
        (vec![json(), json()], good, "`headers.content-type`"),
        (
            vec![header("content-type", b"\xff\xfe")],
            good,
            "`headers.content-type`",
        ),
        (vec![header("content-type", b"text/plain")], good, "`body`"),
        (vec![json()], "", "`body`"),
        (vec![json()], "{", "`body`"),
        (vec![json()], "[]", "`body`"),
        (
            vec![json()],
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            "`body.params.name`",
        ),
    ] {
        let answer = front.envoy(mcp(headers, body)).await.unwrap();
        let (goes_on, _, status, told) = obeyed(&answer);
        assert!(!goes_on && status == 400, "{body}");
        let detail = told["detail"].as_str().unwrap();
        assert!(detail.starts_with(path), "{path}: {detail}");
    }
    // Nobody is behind it.
    let mut nobody = plain("/v1");
    nobody.source = None;
    let (goes_on, _, status, _) = obeyed(&front.envoy(nobody).await.unwrap());
    assert!(!goes_on && status == 401);
    let nothing = front.envoy(AttributeContext::default()).await.unwrap();
    assert!(!obeyed(&nothing).0);
}

/// What a client sends never chooses which question is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_is_an_mcp_servers_only_where_it_says_so() {
    let front = Front::asserted().await;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.into())),
    };
    let read = |method: &str, name: &str| {
        let params = Struct {
            fields: [("name".to_owned(), text(name))].into(),
        };
        let params = Value {
            kind: Some(Kind::StructValue(params)),
        };
        let read = Struct {
            fields: [
                ("method".to_owned(), text(method)),
                ("params".to_owned(), params),
            ]
            .into(),
        };
        Some(Metadata {
            filter_metadata: [("envoy.filters.http.mcp".to_owned(), read)].into(),
            ..Metadata::default()
        })
    };
    let sent = |said: &[(&str, &str)]| {
        let mut asked = call("POST", "/admin");
        route(&mut asked, said);
        asked.metadata_context = read("ping", "");
        let http = http(&mut asked);
        http.headers = [("content-type".to_owned(), "application/json".to_owned())].into();
        http.body = ping.into();
        asked
    };
    // A ping where none is expected is a POST as any other, and no control speaks of it.
    assert!(!obeyed(&front.envoy(sent(&[])).await.unwrap()).0);
    let server = [("exeat.mcp_server", "mcp://crm")];
    assert!(obeyed(&front.envoy(sent(&server)).await.unwrap()).0);
    // A tool is named by the route's server and what the filter read.
    let mut asked = sent(&server);
    asked.metadata_context = read("tools/call", "refund");
    let answer = front.envoy(asked).await.unwrap();
    let (goes_on, headers, ..) = obeyed(&answer);
    assert!(!goes_on);
    let explained = front
        .sidecar
        .explain(&headers["x-exeat-decision-id"])
        .await
        .unwrap();
    let resource = explained.resource.unwrap();
    assert_eq!(
        (&*explained.action, &*resource.r#type, &*resource.id),
        ("tools/call", "tool", "mcp://crm/refund")
    );
    // Its streams and the end of a session are questions of their own.
    for (method, action) in [("GET", "stream"), ("DELETE", "session/end")] {
        let mut stream = call(method, "/admin");
        route(&mut stream, &server);
        http(&mut stream).headers = [
            ("accept".to_owned(), "text/event-stream".to_owned()),
            ("mcp-session-id".to_owned(), "1".to_owned()),
        ]
        .into();
        let (goes_on, headers, ..) = obeyed(&front.envoy(stream.clone()).await.unwrap());
        assert!(!goes_on, "no control speaks of it");
        let id = &headers["x-exeat-decision-id"];
        let explained = front.sidecar.explain(id).await.unwrap();
        assert_eq!(explained.action, action);
        route(&mut stream, &[("exeat.action", "plain")]);
        assert!(obeyed(&front.envoy(stream).await.unwrap()).0);
    }
    let mut put = call("PUT", "/admin");
    route(&mut put, &server);
    assert_eq!(obeyed(&front.envoy(put).await.unwrap()).2, 400);
    // What was read in part may be anything.
    let mut partly = sent(&server);
    let read = partly.metadata_context.as_mut().unwrap();
    let read = read
        .filter_metadata
        .get_mut("envoy.filters.http.mcp")
        .unwrap();
    read.fields
        .insert("is_exceeding_limit".into(), text("true"));
    assert_eq!(obeyed(&front.envoy(partly).await.unwrap()).2, 400);
    // Whoever is frozen does not even ping.
    let mut client = front.registry.client().await;
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        ..v1::FreezeRequest::default()
    };
    client.revocations.freeze(freeze).await.unwrap();
    front
        .sidecar
        .until("agent", "plain", "SUBJECT_LOCKED")
        .await;
    assert_eq!(obeyed(&front.envoy(sent(&server)).await.unwrap()).2, 403);
}

/// A sidecar answers a proxy for the subject it stands next to, and for nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_not_believed_speaks_for_nobody_else() {
    let front = Front::start(&[("subject", "agent")]).await;
    let asked = |principal: &str| {
        let mut asked = call("POST", "/v1");
        asked.source.as_mut().unwrap().principal = principal.into();
        route(&mut asked, &[("exeat.action", "plain")]);
        asked
    };
    let mut goes_on = false;
    for _ in 0..500 {
        if let Ok(answer) = front.envoy(asked("")).await {
            goes_on = obeyed(&answer).0;
        }
        if goes_on {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(goes_on, "the subject it stands next to");
    assert!(obeyed(&front.envoy(asked("agent")).await.unwrap()).0);
    let (goes_on, _, status, _) = obeyed(&front.envoy(asked("other")).await.unwrap());
    assert!(!goes_on && status == 403);
    let json = "content-type: application/json\r\n";
    let body = |id: &str| {
        json!({"subject": {"type": "t", "id": id}, "action": {"name": "plain"}, "resource": {"type": "t", "id": "t"}})
            .to_string()
    };
    let path = "/access/v1/evaluation";
    assert_eq!(front.post(path, json, &body("agent")).await.0, 200);
    assert_eq!(front.post(path, json, &body("other")).await.0, 403);
}

/// pdp §4: what certification asks of an evaluation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authzen_says_whose_fault_it_is() {
    let front = Front::asserted().await;
    let path = "/access/v1/evaluation";
    let json = "content-type: application/json\r\n";
    let good = json!({"subject": {"type": "identity", "id": "agent"}, "action": {"name": "plain"}, "resource": {"type": "t", "id": "t"}});
    let id = format!("{json}X-Request-ID: Abc-1\r\n");
    let (status, head, body) = front.post(path, &id, &good.to_string()).await;
    assert_eq!(status, 200, "{body}");
    assert!(
        head.contains("x-request-id: abc-1") && head.contains("content-type: application/json")
    );
    // Members that nobody knows are ignored, and so is an absent context.
    let mut more = good.clone();
    more["unknown"] = json!([1, {"a": null}]);
    assert_eq!(front.post(path, json, &more.to_string()).await.0, 200);
    for (pointer, value, named) in [
        ("/subject", Json::Null, "`subject`"),
        ("/subject", json!("agent"), "`subject`"),
        ("/subject/id", Json::Null, "`subject.id`"),
        ("/subject/type", json!(3), "`subject.type`"),
        ("/action/name", json!(1), "`action.name`"),
        ("/action", json!({}), "`action.name`"),
        ("/resource/id", json!({}), "`resource.id`"),
        ("/context", json!("x"), "`context`"),
    ] {
        let mut bad = good.clone();
        if pointer == "/context" {
            bad["context"] = value;
        } else {
            *bad.pointer_mut(pointer).unwrap() = value;
        }
        let (status, head, body) = front.post(path, &id, &bad.to_string()).await;
        assert_eq!(status, 400, "{pointer}: {body}");
        assert!(body.starts_with(named), "{pointer}: {body}");
        assert!(head.contains("x-request-id: abc-1"), "also with errors");
    }
    let text = good.to_string();
    for (headers, body) in [
        ("content-type: text/plain\r\n", text.as_str()),
        ("", text.as_str()),
        (json, "{"),
        (json, ""),
        (json, "[]"),
    ] {
        assert_eq!(
            front.post(path, headers, body).await.0,
            400,
            "{headers} {body}"
        );
    }
    assert_eq!(front.http("GET", path, "", "").await.0, 405);
    let url = "/.well-known/authzen-configuration";
    assert_eq!(
        front.http("GET", url, "", "").await.0,
        404,
        "never from a Host"
    );
}

/// pdp §4: several questions at once, in each of the three ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authzen_answers_several_in_each_of_the_three_ways() {
    let front = Front::asserted().await;
    let ask = async |semantic: Option<&str>, actions: &[Json]| {
        let mut body = json!({
            "subject": {"type": "identity", "id": "agent"},
            "resource": {"type": "t", "id": "t"},
            "context": {"purpose": "work"},
            "evaluations": actions.to_vec(),
        });
        if let Some(semantic) = semantic {
            body["options"] = json!({"evaluations_semantic": semantic, "other": 1});
        }
        let json = "content-type: application/json\r\n";
        let path = "/access/v1/evaluations";
        let (status, _, answer) = front.post(path, json, &body.to_string()).await;
        (
            status,
            serde_json::from_str::<Json>(&answer).unwrap_or(answer.into()),
        )
    };
    let action = |name: &str| json!({"action": {"name": name}});
    let said = |answer: &Json| -> Vec<bool> {
        let items = answer["evaluations"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["decision"].as_bool().unwrap())
            .collect()
    };
    let three = [action("plain"), action("nothing"), action("risky")];
    let (_, all) = ask(None, &three).await;
    assert_eq!(said(&all), [true, false, true]);
    assert!(all.get("decision").is_none());
    let (_, first_no) = ask(Some("deny_on_first_deny"), &three).await;
    assert_eq!(said(&first_no), [true, false]);
    let back = [action("nothing"), action("plain"), action("risky")];
    let (_, first_yes) = ask(Some("permit_on_first_permit"), &back).await;
    assert_eq!(said(&first_yes), [false, true]);
    let (_, faulty) = ask(None, &[action("plain"), json!({"action": {}}), json!(3)]).await;
    assert_eq!(said(&faulty), [true, false, false]);
    let error = &faulty["evaluations"][1]["context"]["error"];
    assert_eq!(error["status"], 400);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("evaluations[1].action.name")
    );
    assert_eq!(ask(Some("sometimes"), &three).await.0, 400);
    let (status, whole) = ask(None, &[]).await;
    assert_eq!(
        status, 400,
        "with none it is one question, and that has no action: {whole}"
    );
    // Whole objects are inherited, never parts.
    let (_, other) = ask(None, &[json!({"action": {"name": "risky"}, "context": {}})]).await;
    assert_eq!(said(&other), [false], "no purpose");
}

/// pdp §4: who may, to what, and what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authzen_searches_what_is_governed() {
    let front = Front::asserted().await;
    let search = async |what: &str, body: Json| {
        let json = "content-type: application/json\r\n";
        let path = format!("/access/v1/search/{what}");
        let (status, _, answer) = front.post(&path, json, &body.to_string()).await;
        (
            status,
            serde_json::from_str::<Json>(&answer).unwrap_or(answer.into()),
        )
    };
    let thing = json!({"type": "t", "id": "t"});
    let who = |kind: &str, action: &str| json!({"subject": {"type": kind, "id": "ignored"}, "action": {"name": action}, "resource": thing, "context": {"purpose": "work"}});
    let (_, found) = search("subject", who("ai_agent", "risky")).await;
    assert_eq!(
        found,
        json!({"results": [{"type": "ai_agent", "id": "agent"}]})
    );
    for (kind, action) in [("ai_agent", "nothing"), ("spaceship", "plain")] {
        let (status, found) = search("subject", who(kind, action)).await;
        assert_eq!((status, found), (200, json!({"results": []})));
    }
    let agent = json!({"type": "identity", "id": "agent"});
    let what = json!({"subject": agent, "resource": thing, "context": {"purpose": "work"}});
    let (_, found) = search("action", what).await;
    assert_eq!(
        found,
        json!({"results": [{"name": "plain"}, {"name": "risky"}]})
    );
    let named = json!({"subject": agent, "resource": thing, "action": {"name": "x"}});
    assert_eq!(search("action", named).await.0, 400);
    let to =
        json!({"subject": agent, "action": {"name": "plain"}, "resource": {"type": "ai_agent"}});
    let (_, found) = search("resource", to).await;
    assert_eq!(
        found,
        json!({"results": [{"type": "ai_agent", "id": "agent"}]})
    );
    // Nothing of it is a use.
    let mut client = front.registry.client().await;
    let used = client.until_used("EX-1", |used| used.uses > 0).await;
    assert_eq!(used.uses, 1, "that of the first question alone");
}

/// pdp §4: the certification's own questions, and twice the same answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authzen_answers_as_its_certification_wants() {
    let fixture = include_str!("../data/authzen/certification.yaml");
    let front = Front::of(fixture, &[("insecure_asserted_identity", "true")]).await;
    front.sidecar.until("alice", "nothing", "NO_CONTROL").await;
    let none = || json!({});
    let archived = || json!({"status": "archived"});
    for (who, role, action, said, record, status, wanted) in [
        ("alice", none(), "read", none(), "record-1", none(), true),
        ("alice", none(), "write", none(), "record-1", none(), true),
        ("bob", none(), "read", none(), "record-1", none(), true),
        ("bob", none(), "write", none(), "record-1", none(), false),
        (
            "alice",
            none(),
            "write",
            none(),
            "record-1",
            archived(),
            false,
        ),
        (
            "alice",
            json!({"role": "admin"}),
            "write",
            none(),
            "record-2",
            archived(),
            true,
        ),
        (
            "alice",
            none(),
            "delete",
            json!({"soft": true}),
            "record-1",
            none(),
            true,
        ),
        (
            "alice",
            none(),
            "delete",
            json!({"soft": false}),
            "record-1",
            none(),
            false,
        ),
        ("alice", none(), "delete", none(), "record-1", none(), false),
    ] {
        for context in [
            Json::Null,
            json!({}),
            json!({"time": "2026-11-22T12:00:00Z", "deep": {"a": [1]}}),
        ] {
            let mut asked = json!({
                "subject": {"type": "user", "id": who, "properties": role},
                "action": {"name": action, "properties": said},
                "resource": {"type": "record", "id": record, "properties": status},
            });
            if !context.is_null() {
                asked["context"] = context;
            }
            for _ in 0..2 {
                let told = front.evaluate(&asked).await;
                assert_eq!(told["decision"], json!(wanted), "{asked}: {told}");
            }
        }
    }
}

/// Over agentgateway's ExtMcp the answers are those of everybody else, a denial says what to do, lists
/// show what may be used now, and what is no question is no denial either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agentgateway_asks_about_messages_and_shows_what_may_be_used() {
    use exeat::wire::agentgateway::{
        McpHeader, McpRequest, McpResponse, authorization_error::Code,
        ext_mcp_client::ExtMcpClient, mcp_request_result, mcp_response_result,
    };
    let of_tool = |id: &str, tool: &str, condition: &str| {
        control(id, "tools/call", condition).replace(
            "applies_to: {actions: [tools/call]}",
            &format!("applies_to: {{actions: [tools/call], resources: [\"crm/{tool}\"]}}"),
        )
    };
    let world = of_tool("CT-RISKY", "refund", "true")
        + &of_tool("CT-PLAIN", "read", "false")
        + &of_tool("CT-NEVER", "drop", "true")
        + &of_tool(
            "CT-ARGS",
            "pay",
            "request.resource.properties.arguments.amount > 5.0",
        )
        + &subject("agent", None)
        + &exception("EX-1", "CT-RISKY", "agent")
            .replace("actions: [risky]", "actions: [tools/call]");
    let front = Front::of(&world, &[("insecure_asserted_identity", "true")]).await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", front.sidecar.address));
    let channel = channel.unwrap().connect().await.unwrap();
    let mut gateway = ExtMcpClient::new(channel);
    let said = |entries: &[(&str, &str)]| prost_types::Struct {
        fields: entries
            .iter()
            .map(|(name, text)| {
                let kind = prost_types::value::Kind::StringValue((*text).into());
                ((*name).to_owned(), prost_types::Value { kind: Some(kind) })
            })
            .collect(),
    };
    let asked = |method: &str, params: Json, purpose: &str| McpRequest {
        service_names: vec!["crm".into()],
        method: method.into(),
        metadata_context: Some(said(&[("subject", "agent"), ("purpose", purpose)])),
        mcp_request: Some(params.to_string().into_bytes()),
        headers: vec![McpHeader {
            key: "traceparent".into(),
            value: b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_vec(),
        }],
    };
    let tool = |name: &str| json!({"name": name, "arguments": {"amount": 7}});
    // The snapshot is in force once the exception is.
    loop {
        let answer = gateway
            .check_request(asked("tools/call", tool("refund"), "work"))
            .await;
        if let Ok(answer) = answer
            && let Some(mcp_request_result::Result::Pass(_)) = answer.into_inner().result
        {
            break;
        }
    }
    for (name, purpose, passes) in [
        ("read", "work", true),
        ("refund", "work", true),
        ("refund", "fun", false),
        ("drop", "work", false),
        ("pay", "work", false),
        ("unknown", "work", false),
    ] {
        let answer = gateway
            .check_request(asked("tools/call", tool(name), purpose))
            .await;
        match answer.unwrap().into_inner().result.unwrap() {
            mcp_request_result::Result::Pass(_) => assert!(passes, "{name} {purpose}"),
            mcp_request_result::Result::Error(error) => {
                assert!(!passes, "{name} {purpose}: {error:?}");
                assert_eq!(error.code(), Code::PermissionDenied);
                let told: Json = serde_json::from_slice(error.mcp_error()).unwrap();
                assert!(error.reason.contains("dec_"), "{error:?}");
                assert_eq!(told["outcome"], "deny");
                let requestable = name == "drop" || name == "refund" || name == "pay";
                assert_eq!(told["requestable"], requestable, "{told}");
            }
        }
    }

    // The life of a connection goes on for whoever may speak at all.
    for (subject, passes) in [("agent", true), ("ghost", false)] {
        let mut request = asked("initialize", json!({}), "work");
        request.metadata_context = Some(said(&[("subject", subject)]));
        let answer = gateway.check_request(request).await.unwrap().into_inner();
        let passed = matches!(answer.result, Some(mcp_request_result::Result::Pass(_)));
        assert_eq!(passed, passes, "{subject}");
    }

    // What is no question says where.
    for (change, names) in [
        (
            Box::new(|it: &mut McpRequest| it.service_names.clear())
                as Box<dyn Fn(&mut McpRequest)>,
            "service_names",
        ),
        (
            Box::new(|it: &mut McpRequest| it.service_names.push("hr".into())),
            "service_names",
        ),
        (
            Box::new(|it: &mut McpRequest| it.mcp_request = Some(b"[]".to_vec())),
            "mcp_request",
        ),
        (
            Box::new(|it: &mut McpRequest| {
                it.mcp_request = Some(b"{\"name\":\"a\",\"name\":\"b\"}".to_vec())
            }),
            "mcp_request",
        ),
        (
            Box::new(|it: &mut McpRequest| it.method = "some/thing".into()),
            "method",
        ),
        (
            Box::new(|it: &mut McpRequest| it.mcp_request = None),
            "params.name",
        ),
        (
            Box::new(|it: &mut McpRequest| it.service_names = vec!["a".into(); 65]),
            "service_names",
        ),
        (
            Box::new(|it: &mut McpRequest| {
                let said = it.metadata_context.as_mut().unwrap();
                let kind = prost_types::value::Kind::NumberValue(5.0);
                said.fields
                    .insert("subject".into(), prost_types::Value { kind: Some(kind) });
            }),
            "metadata_context.subject",
        ),
    ] {
        let mut request = asked("tools/call", tool("read"), "work");
        change(&mut request);
        let answer = gateway.check_request(request).await.unwrap().into_inner();
        let Some(mcp_request_result::Result::Error(error)) = answer.result else {
            panic!("{names}: {answer:?}");
        };
        assert_eq!(error.code(), Code::Invalid, "{error:?}");
        assert!(error.reason.contains(names), "{error:?}");
    }
    // Nobody, and nobody who is known.
    let mut request = asked("tools/call", tool("read"), "work");
    request.metadata_context = None;
    let answer = gateway.check_request(request).await.unwrap().into_inner();
    let Some(mcp_request_result::Result::Error(error)) = answer.result else {
        panic!("{answer:?}");
    };
    assert_eq!(error.code(), Code::PermissionDenied, "{error:?}");
    assert!(error.reason.contains("`subject`"), "{error:?}");

    // A list shows what may be used, without a use of it.
    let mut client = front.registry.client().await;
    let before = client.until_used("EX-1", |used| used.uses >= 2).await.uses;
    let listed = |servers: &[&str], names: &[&str]| McpResponse {
        service_names: servers.iter().map(|name| (*name).to_owned()).collect(),
        method: "tools/list".into(),
        metadata_context: Some(said(&[("subject", "agent"), ("purpose", "work")])),
        mcp_response: json!({
            "tools": names
                .iter()
                .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}))
                .collect::<Vec<_>>(),
            "nextCursor": "n",
        })
        .to_string()
        .into_bytes(),
    };
    for (servers, names, left) in [
        (&["crm"][..], &["read", "refund"][..], None),
        (
            &["crm"],
            &["read", "drop", "refund", "a/b"],
            Some(&["read", "refund"][..]),
        ),
        (&["crm"], &["drop"], Some(&[])),
        (
            &["crm", "hr"],
            &["crm_read", "hr_read", "read", "crm_drop"],
            Some(&["crm_read"]),
        ),
    ] {
        let answer = gateway.check_response(listed(servers, names)).await;
        match (answer.unwrap().into_inner().result.unwrap(), left) {
            (mcp_response_result::Result::Pass(_), None) => {}
            (mcp_response_result::Result::Mutated(bytes), Some(left)) => {
                let told: Json = serde_json::from_slice(&bytes).unwrap();
                let tools = told["tools"].as_array().unwrap();
                let names: Vec<_> = tools
                    .iter()
                    .map(|it| it["name"].as_str().unwrap())
                    .collect();
                assert_eq!(names, left);
                assert_eq!(told["nextCursor"], "n");
            }
            (other, _) => panic!("{names:?}: {other:?}"),
        }
    }
    let many = vec!["read"; 1_001];
    let answer = gateway.check_response(listed(&["crm"], &many)).await;
    let answer = answer.unwrap().into_inner();
    assert!(
        matches!(answer.result, Some(mcp_response_result::Result::Error(ref error)) if error.reason.contains("1001 items")),
        "{answer:?}"
    );
    let answer = gateway.check_response(listed(&[], &["read"])).await;
    let answer = answer.unwrap().into_inner();
    assert!(
        matches!(answer.result, Some(mcp_response_result::Result::Error(ref error)) if error.reason.contains("service_names")),
        "{answer:?}"
    );
    let mut broken = listed(&["crm"], &[]);
    broken.mcp_response = b"{\"tools\": 5}".to_vec();
    let answer = gateway.check_response(broken).await.unwrap().into_inner();
    assert!(
        matches!(answer.result, Some(mcp_response_result::Result::Error(ref error)) if error.code() == Code::Invalid),
        "{answer:?}"
    );
    let mut other = listed(&["crm"], &[]);
    other.method = "tools/call".into();
    let answer = gateway.check_response(other).await.unwrap().into_inner();
    assert!(matches!(
        answer.result,
        Some(mcp_response_result::Result::Pass(_))
    ));
    let used = client.until_used("EX-1", |used| used.complete).await;
    assert_eq!(used.uses, before, "nothing is used up by looking");
    let page = front.sidecar.page("/metrics").await;
    assert!(page.contains("surface=\"ext_mcp\""), "{page}");
}

/// Who acts through an agent's identity is seen behind a proxy as well, and for whom an agent acts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_acts_beside_a_caller_is_seen_behind_proxies() {
    let people = "request.actor_kind == 'HUMAN' && subject.kind != 'HUMAN'";
    let whom = "!has(request.context.on_behalf_of) || request.context.on_behalf_of != 'idp:dana'";
    let world = world()
        + &control("CT-PEOPLE", "seen", people)
        + &control("CT-WHOM", "whom", whom)
        + &subject("idp:agent", None);
    let flags = [
        ("insecure_asserted_identity", "true"),
        ("proxy_tokens", "issuer=idp:"),
    ];
    let front = Front::of(&world, &flags).await;
    front.sidecar.until("idp:agent", "plain", "ALLOW OK").await;
    let agent = json!({"sub": "agent", "sub_profile": "ai_agent"});
    let cases = [
        (json!({"sub": "agent"}), "plain", "200"),
        (
            json!({"sub": "agent", "act": {"sub": "dana"}}),
            "seen",
            "403",
        ),
        (
            json!({"sub": "agent", "act": {"sub": "dana", "sub_profile": "service"}}),
            "seen",
            "200",
        ),
        (json!({"sub": "dana", "act": agent}), "whom", "200"),
        (json!({"sub": "agent"}), "whom", "403"),
        (
            json!({"sub": "agent", "act": {"name": "dana"}}),
            "plain",
            "401",
        ),
        (
            json!({"sub": "agent", "iss": "a", "act": {"sub": "dana", "iss": "b"}}),
            "plain",
            "401",
        ),
        (json!({"sub": "agent", "act": "dana"}), "plain", "401"),
        (json!({"act": agent}), "plain", "401"),
    ];
    for (payload, action, wanted) in cases {
        let mut asked = call("GET", "/v1");
        asked.source = None;
        let said = [
            ("exeat.action", action),
            ("exeat.resource_type", "thing"),
            ("exeat.resource", "t"),
        ];
        route(&mut asked, &said);
        let http = http(&mut asked);
        // A client's word for it is not the proxy's.
        http.headers = [("x-act".to_owned(), "nobody".to_owned())].into();
        let fields = [("issuer".to_owned(), envoy_value(&payload))].into();
        asked.metadata_context = Some(Metadata {
            filter_metadata: [("envoy.filters.http.jwt_authn".to_owned(), Struct { fields })]
                .into(),
            ..Metadata::default()
        });
        let (goes_on, _, status, told) = obeyed(&front.envoy(asked).await.unwrap());
        let status = if goes_on { 200 } else { status };
        assert_eq!(status.to_string(), wanted, "{payload} {action}: {told}");
    }
}

/// A token that cannot be read is nobody's: neither the sidecar's own subject's, nor of whoever another
/// token names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_cannot_be_read_is_nobodys() {
    for identity in [("subject", "agent"), ("insecure_asserted_identity", "true")] {
        let front = Front::start(&[identity, ("proxy_tokens", "first=idp:,second=idp:")]).await;
        front.sidecar.until("agent", "plain", "ALLOW OK").await;
        let good = json!({"sub": "agent"});
        for first in [
            json!({"sub": "Dana Smith"}),
            json!({"sub": "x".repeat(600)}),
            json!({"sub": "agent", "act": "dana"}),
            json!({"sub": "agent", "act": {"sub": "dana", "iss": "b"}}),
            json!({"sub": ""}),
            json!({}),
            json!(null),
        ] {
            let mut asked = call("GET", "/v1");
            asked.source = None;
            let said = [
                ("exeat.action", "plain"),
                ("exeat.resource_type", "thing"),
                ("exeat.resource", "t"),
            ];
            route(&mut asked, &said);
            let fields = [("first", &first), ("second", &good)];
            let fields = fields.map(|(name, said)| (name.to_owned(), envoy_value(said)));
            let verified = Struct {
                fields: fields.into(),
            };
            asked.metadata_context = Some(Metadata {
                filter_metadata: [("envoy.filters.http.jwt_authn".to_owned(), verified)].into(),
                ..Metadata::default()
            });
            let (goes_on, _, status, told) = obeyed(&front.envoy(asked).await.unwrap());
            assert_eq!((goes_on, status), (false, 401), "{first}: {told}");
        }
    }
}

/// The same behind agentgateway, whose configuration says it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_acts_beside_a_caller_is_seen_behind_agentgateway() {
    use exeat::wire::agentgateway::{McpRequest, ext_mcp_client::ExtMcpClient, mcp_request_result};
    let people = "request.actor_kind == 'HUMAN' && subject.kind != 'HUMAN'";
    let world = world() + &control("CT-TOOL", "tools/call", people);
    let front = Front::of(&world, &[("insecure_asserted_identity", "true")]).await;
    front.sidecar.until("agent", "plain", "ALLOW OK").await;
    let mut gateway = ExtMcpClient::new(front.sidecar.channel().await.unwrap());
    for (act, wanted) in [
        (json!(null), "pass"),
        (json!({"sub": "dana", "sub_profile": "service"}), "pass"),
        (json!({"sub": "dana"}), "PermissionDenied"),
        (json!("dana"), "`metadata_context.act`"),
        (json!({"sub": ""}), "`metadata_context.act`"),
        (json!({"sub": "dana", "iss": "idp"}), "PermissionDenied"),
        (
            json!({"sub": "dana", "iss": "other"}),
            "`metadata_context.act`",
        ),
    ] {
        let said =
            json!({"subject": "agent", "actor_kind": "AI_AGENT", "issuer": "idp", "act": act});
        let asked = McpRequest {
            service_names: vec!["crm".into()],
            method: "tools/call".into(),
            metadata_context: Some(exeat::wire::json::fields(said.as_object().unwrap().clone())),
            mcp_request: Some(br#"{"name": "read"}"#.to_vec()),
            headers: Vec::new(),
        };
        let told = match gateway.check_request(asked).await {
            Ok(answer) => match answer.into_inner().result.unwrap() {
                mcp_request_result::Result::Pass(_) => "pass".to_owned(),
                mcp_request_result::Result::Error(error) => {
                    format!("{:?} {}", error.code(), error.reason)
                }
            },
            Err(status) => status.to_string(),
        };
        assert!(told.contains(wanted), "{act}: {told}");
    }
}

fn envoy_value(json: &Json) -> Value {
    let kind = match json {
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Object(entries) => {
            let entries = entries.iter();
            let fields = entries.map(|(name, json)| (name.clone(), envoy_value(json)));
            Kind::StructValue(Struct {
                fields: fields.collect(),
            })
        }
        _ => Kind::NullValue(0),
    };
    Value { kind: Some(kind) }
}

#[tokio::test]
async fn over_plain_http_nothing_but_an_answer_is_200() {
    let front = Front::start(&[("subject", "agent")]).await;
    front.sidecar.until("agent", "plain", "ALLOW").await;
    let prefix = "/ext_authz;action=plain&purpose=work";
    let (status, head, why) = front.http("GET", &format!("{prefix}/x"), "", "").await;
    assert_eq!(status, 200, "{why}");
    let taken = "x-envoy-auth-headers-to-remove: x-exeat-exception-id,x-exeat-request-url";
    assert!(head.contains(taken), "{head}");
    // Envoy takes any 200 for a yes: whatever is asked elsewhere, or cannot be asked, has none.
    for path in [
        "/",
        "/records",
        "/ext_auth/x",
        "/ext_authz%20/x",
        "/ext_authz*",
        "/exeat.v1.NoService/Check",
        "*",
    ] {
        let (status, ..) = front.http("GET", path, "", "").await;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    let (status, ..) = front.http("CONNECT", "api:443", "", "").await;
    assert!((400..500).contains(&status), "CONNECT: {status}");
    // A client's own patience is none of ours: the transport would answer for us.
    for path in ["/ext_authz/x", prefix, "/ext_authz"] {
        let (status, _, why) = front.http("POST", path, "grpc-timeout: 0n\r\n", "x").await;
        assert_eq!(status, 400, "{path}");
        assert!(why.contains("grpc-timeout"), "{why}");
    }
    for said in [
        "nope=1",
        "action=",
        "action=a&action=b",
        "action=a;purpose=b",
    ] {
        let (status, ..) = front
            .http("GET", &format!("/ext_authz;{said}/x"), "", "")
            .await;
        assert_eq!(status, 400, "{said}");
    }
}
