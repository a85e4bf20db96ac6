//! The sidecar over its real sockets.

use std::{fs, path::Path, sync::Arc};

use crate::support::minutes;
use exeat::{
    config,
    domain::{Set, Span, Timestamp},
    engine::{Change, Snapshot},
    runtime::clock::Clock,
    sidecar::Bound,
    testing::{control, exception, noon, snapshot, subject},
    wire::v1::{self, check_service_client::CheckServiceClient},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::oneshot,
    task::JoinHandle,
};
use tonic::{
    Code,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

const SUBJECT: &str = "agent-a";

struct Running {
    address: String,
    operations: String,
    socket: std::path::PathBuf,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), String>>,
    _scratch: tempfile::TempDir,
}

enum Source {
    Fixed(Snapshot),
    Folder(std::path::PathBuf),
}

#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
async fn start(source: Source, clock: Clock, more: &[(&'static str, &str)]) -> Running {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("s");
    let bundle = match &source {
        Source::Folder(folder) => folder.display().to_string(),
        Source::Fixed(_) => "unused".into(),
    };
    let mut flags: Vec<(&'static str, Option<String>)> = vec![
        ("bundle", Some(bundle)),
        ("listen", Some("127.0.0.1:0".into())),
        ("operations", Some("127.0.0.1:0".into())),
        ("unix", Some(socket.display().to_string())),
        ("data", Some(scratch.path().display().to_string())),
        ("drain_timeout", Some("5s".into())),
    ];
    if !more
        .iter()
        .any(|(key, _)| ["peers", "trust_domain", "insecure_asserted_identity"].contains(key))
    {
        flags.push(("subject", Some(SUBJECT.into())));
    }
    flags.extend(
        more.iter()
            .map(|(key, value)| (*key, Some((*value).to_owned()))),
    );
    let settings = config::Sidecar::load(None, &[], &flags).unwrap();
    let bound = Bound::bind(settings, clock).await.unwrap();
    let (address, operations) = (bound.address().to_string(), bound.operations().to_string());
    let (stop, stopped) = oneshot::channel();
    let asked = async move { drop(stopped.await) };
    let served = tokio::spawn(async move {
        match source {
            Source::Fixed(snapshot) => bound.run_fixed(Arc::new(snapshot), asked).await,
            Source::Folder(_) => bound.run(asked).await,
        }
        .map_err(|error| error.to_string())
    });
    Running {
        address,
        operations,
        socket,
        stop: Some(stop),
        served,
        _scratch: scratch,
    }
}

impl Running {
    async fn tcp(&self) -> CheckServiceClient<Channel> {
        CheckServiceClient::new(
            Endpoint::from_shared(format!("http://{}", self.address))
                .unwrap()
                .connect()
                .await
                .unwrap(),
        )
    }

    async fn unix(&self) -> CheckServiceClient<Channel> {
        let path = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        CheckServiceClient::new(
            Endpoint::from_static("http://localhost")
                .connect_with_connector(connect)
                .await
                .unwrap(),
        )
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.operations).await.unwrap();
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap();
        (
            status,
            text.split_once("\r\n\r\n")
                .map(|(_, body)| body.to_owned())
                .unwrap_or_default(),
        )
    }

    async fn stop(mut self) -> Result<(), String> {
        drop(self.stop.take());
        self.served.await.unwrap()
    }
}

fn ask(subject: &str, purpose: &str) -> v1::CheckRequest {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.into())),
    };
    v1::CheckRequest {
        subject: subject.into(),
        action: "tools/call".into(),
        resource: Some(v1::Resource {
            r#type: "tool".into(),
            id: "mcp://crm/search".into(),
            properties: None,
        }),
        context: Some(prost_types::Struct {
            fields: [("purpose".to_owned(), text(purpose))].into(),
        }),
        ..v1::CheckRequest::default()
    }
}

/// One control that only the purpose `testing` passes, and an exception for `export` until an hour past noon.
fn world() -> Snapshot {
    let mut made = exception("EX-1", &["CT-1"], SUBJECT);
    made.scope.purposes = Set::Of(["export".into()].into());
    snapshot(vec![
        Change::PutControl(control("CT-1", "request.purpose != 'testing'")),
        Change::PutSubject(subject(SUBJECT)),
        Change::PutSubject(subject("agent-b")),
        Change::PutException(made),
    ])
}

fn reasons(decision: &v1::Decision) -> Vec<v1::Reason> {
    decision.reasons().collect()
}

#[tokio::test]
async fn it_answers_over_tcp_and_the_unix_socket_at_once() {
    let running = start(Source::Fixed(world()), Clock::manual(noon()), &[]).await;
    for mut client in [running.tcp().await, running.unix().await] {
        let allowed = client
            .check(ask("", "testing"))
            .await
            .unwrap()
            .into_inner()
            .decision
            .unwrap();
        assert_eq!(
            (
                allowed.outcome(),
                allowed.controls_passed,
                reasons(&allowed)
            ),
            (v1::Outcome::Allow, 1, vec![v1::Reason::Ok])
        );
        assert!(allowed.controls.is_empty(), "passing controls are a count");
        let by_exception = client
            .check(ask(SUBJECT, "export"))
            .await
            .unwrap()
            .into_inner()
            .decision
            .unwrap();
        assert_eq!(by_exception.outcome(), v1::Outcome::AllowByException);
        assert_eq!(
            by_exception.valid_until.unwrap().seconds,
            (noon() + minutes(60)).micros() / 1_000_000
        );
        let denied = client
            .check(ask("", "mischief"))
            .await
            .unwrap()
            .into_inner()
            .decision
            .unwrap();
        assert_eq!(
            reasons(&denied),
            [v1::Reason::ControlFailed, v1::Reason::ExcOutOfScope]
        );
        assert_eq!(denied.next_action(), v1::NextAction::Request);
        assert_eq!(
            denied.nearest.as_ref().map(|near| (
                near.exception_id.as_str(),
                near.dimension.as_str(),
                near.wanted.as_str(),
                near.met.as_str()
            )),
            Some(("EX-1", "purpose", "export", "mischief"))
        );
        assert_eq!(denied.controls[0].clauses[0].reads[0].value, "'mischief'");
        assert_eq!(denied.remedy, "mend it");
        let all = client
            .check(v1::CheckRequest {
                explain: true,
                ..ask("", "testing")
            })
            .await
            .unwrap()
            .into_inner()
            .decision
            .unwrap();
        assert_eq!(
            all.controls.len(),
            1,
            "with explain passing controls are named"
        );
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn r14_the_end_of_an_exception_denies_over_the_wire() {
    let clock = Clock::manual(noon());
    let running = start(Source::Fixed(world()), clock.clone(), &[]).await;
    let mut client = running.tcp().await;
    clock.set(Timestamp::from_micros((noon() + minutes(60)).micros() - 1));
    assert_eq!(
        client
            .check(ask("", "export"))
            .await
            .unwrap()
            .into_inner()
            .decision
            .unwrap()
            .outcome(),
        v1::Outcome::AllowByException
    );
    clock.advance(Span::from_micros(1));
    let denied = client
        .check(ask("", "export"))
        .await
        .unwrap()
        .into_inner()
        .decision
        .unwrap();
    assert_eq!(
        reasons(&denied),
        [v1::Reason::ControlFailed, v1::Reason::ExcExpired]
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn max_uses_are_counted_and_then_denied() {
    let mut made = exception("EX-1", &["CT-1"], SUBJECT);
    made.usage_limits.max_uses = Some(2);
    let snapshot = snapshot(vec![
        Change::PutControl(control("CT-1", "true")),
        Change::PutSubject(subject(SUBJECT)),
        Change::PutException(made),
    ]);
    let running = start(Source::Fixed(snapshot), Clock::manual(noon()), &[]).await;
    let mut client = running.tcp().await;
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.push(
            client
                .check(ask("", "testing"))
                .await
                .unwrap()
                .into_inner()
                .decision
                .unwrap(),
        );
    }
    assert_eq!(
        outcomes
            .iter()
            .map(v1::Decision::outcome)
            .collect::<Vec<_>>(),
        [
            v1::Outcome::AllowByException,
            v1::Outcome::AllowByException,
            v1::Outcome::Deny
        ]
    );
    assert_eq!(
        reasons(&outcomes[2]),
        [v1::Reason::ControlFailed, v1::Reason::ExcBudgetExhausted]
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_decides_each_item_by_itself() {
    let running = start(Source::Fixed(world()), Clock::manual(noon()), &[]).await;
    let mut client = running.unix().await;
    let items = vec![
        ask("", "testing"),
        ask("", "mischief"),
        v1::CheckRequest::default(),
        ask("agent-b", "testing"),
        ask("", "testing"),
    ];
    let answers = client
        .batch_check(v1::BatchCheckRequest { items })
        .await
        .unwrap()
        .into_inner()
        .items;
    use v1::batch_check_item::Result::{Decision, Error};
    let told: Vec<_> = answers
        .iter()
        .map(|item| match item.result.as_ref().unwrap() {
            Decision(decision) => format!("{:?}", decision.outcome()),
            Error(error) => format!("{:?} {}", Code::from(error.code), error.field),
        })
        .collect();
    assert_eq!(
        told,
        [
            "Allow",
            "Deny",
            "InvalidArgument action",
            "PermissionDenied ",
            "Allow"
        ]
    );
    let many = v1::BatchCheckRequest {
        items: vec![ask("", "testing"); 101],
    };
    assert_eq!(
        client.batch_check(many).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        client
            .batch_check(v1::BatchCheckRequest { items: vec![] })
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_bad_request_names_its_field_and_touches_nothing_else() {
    use tonic_types::StatusExt;
    let running = start(Source::Fixed(world()), Clock::manual(noon()), &[]).await;
    let mut client = running.tcp().await;
    let value = |kind| prost_types::Value { kind: Some(kind) };
    let nest = |depth: usize| {
        (0..depth).fold(
            value(prost_types::value::Kind::BoolValue(true)),
            |inner, _| {
                value(prost_types::value::Kind::ListValue(
                    prost_types::ListValue {
                        values: vec![inner],
                    },
                ))
            },
        )
    };
    let with = |name: &str, given: prost_types::Value| v1::CheckRequest {
        context: Some(prost_types::Struct {
            fields: [(name.to_owned(), given)].into(),
        }),
        ..ask("", "testing")
    };
    let many = prost_types::Struct {
        fields: (0..257)
            .map(|n| {
                (
                    format!("a{n}"),
                    value(prost_types::value::Kind::BoolValue(true)),
                )
            })
            .collect(),
    };
    let cases = [
        (
            "action",
            v1::CheckRequest {
                action: String::new(),
                ..ask("", "testing")
            },
        ),
        (
            "resource",
            v1::CheckRequest {
                resource: None,
                ..ask("", "testing")
            },
        ),
        (
            "resource.type",
            v1::CheckRequest {
                resource: Some(v1::Resource {
                    id: "x".into(),
                    ..v1::Resource::default()
                }),
                ..ask("", "testing")
            },
        ),
        (
            "observed.modle",
            v1::CheckRequest {
                observed: [("modle".to_owned(), "sha256:x".to_owned())].into(),
                ..ask("", "testing")
            },
        ),
        (
            "observed.model",
            v1::CheckRequest {
                observed: [("model".to_owned(), "x".to_owned())].into(),
                ..ask("", "testing")
            },
        ),
        (
            "resource.properties.name",
            v1::CheckRequest {
                resource: Some(v1::Resource {
                    properties: Some(prost_types::Struct {
                        fields: [(
                            "name".to_owned(),
                            value(prost_types::value::Kind::StringValue("refund".into())),
                        )]
                        .into(),
                    }),
                    r#type: "tool".into(),
                    id: "mcp://crm/search".into(),
                }),
                ..ask("", "testing")
            },
        ),
        (
            "context.purpose",
            with("purpose", value(prost_types::value::Kind::BoolValue(true))),
        ),
        ("context.deep", with("deep", nest(20))),
        (
            "context.nothing",
            with("nothing", prost_types::Value { kind: None }),
        ),
        (
            "context.nan",
            with(
                "nan",
                value(prost_types::value::Kind::NumberValue(f64::NAN)),
            ),
        ),
        (
            "context.long",
            with(
                "long",
                value(prost_types::value::Kind::StringValue("x".repeat(9_000))),
            ),
        ),
        (
            "context.list",
            with(
                "list",
                value(prost_types::value::Kind::ListValue(
                    prost_types::ListValue {
                        values: vec![value(prost_types::value::Kind::BoolValue(true)); 1_001],
                    },
                )),
            ),
        ),
        (
            "context",
            v1::CheckRequest {
                context: Some(many),
                ..ask("", "testing")
            },
        ),
    ];
    for (field, request) in cases {
        let status = client.check(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let details = status.get_details_bad_request().unwrap();
        assert!(
            details.field_violations[0].field.starts_with(field),
            "{field}: {details:?}"
        );
        assert_eq!(
            client
                .check(ask("", "testing"))
                .await
                .unwrap()
                .into_inner()
                .decision
                .unwrap()
                .outcome(),
            v1::Outcome::Allow
        );
    }
    let huge = with(
        "huge",
        value(prost_types::value::Kind::StringValue("x".repeat(300 << 10))),
    );
    assert!(matches!(
        client.check(huge).await.unwrap_err().code(),
        Code::OutOfRange | Code::ResourceExhausted
    ));
    assert_eq!(
        client
            .check(ask("", "testing"))
            .await
            .unwrap()
            .into_inner()
            .decision
            .unwrap()
            .outcome(),
        v1::Outcome::Allow
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_the_callers_fault() {
    let sidecar = start(Source::Fixed(world()), Clock::manual(noon()), &[]).await;
    let channel = Endpoint::from_shared(format!("http://{}", sidecar.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    // A number where the subject's text should be.
    let answer = client
        .unary(
            tonic::Request::new(7_u32),
            http::uri::PathAndQuery::from_static("/exeat.v1.CheckService/Check"),
            tonic_prost::ProstCodec::<u32, v1::CheckResponse>::default(),
        )
        .await;
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("cannot be read"), "{status}");
    let after = sidecar.tcp().await.check(ask(SUBJECT, "testing")).await;
    assert!(after.is_ok(), "the next request is untouched");
    sidecar.stop().await.unwrap();
}

#[tokio::test]
async fn a_caller_asks_for_itself_alone_and_the_unverified_hear_codes() {
    let bound = start(Source::Fixed(world()), Clock::manual(noon()), &[]).await;
    assert_eq!(
        bound
            .tcp()
            .await
            .check(ask("agent-b", "testing"))
            .await
            .unwrap_err()
            .code(),
        Code::PermissionDenied
    );
    bound.stop().await.unwrap();

    let uid = rustix::process::geteuid().as_raw();
    let peers = format!("{uid}={SUBJECT}");
    let by_peer = start(
        Source::Fixed(world()),
        Clock::manual(noon()),
        &[("peers", &peers)],
    )
    .await;
    assert_eq!(
        by_peer
            .unix()
            .await
            .check(ask("", "testing"))
            .await
            .unwrap()
            .into_inner()
            .decision
            .unwrap()
            .outcome(),
        v1::Outcome::Allow
    );
    assert_eq!(
        by_peer
            .tcp()
            .await
            .check(ask(SUBJECT, "testing"))
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated,
        "TCP carries no user id"
    );
    by_peer.stop().await.unwrap();

    let asserted = start(
        Source::Fixed(world()),
        Clock::manual(noon()),
        &[("insecure_asserted_identity", "true")],
    )
    .await;
    let mut client = asserted.tcp().await;
    let denied = client
        .check(ask("agent-b", "mischief"))
        .await
        .unwrap()
        .into_inner()
        .decision
        .unwrap();
    assert_eq!(denied.outcome(), v1::Outcome::Deny);
    assert!(
        denied
            .controls
            .iter()
            .all(|control| control.clauses.is_empty() && control.owner.is_empty())
            && denied.nearest.is_none(),
        "{denied:?}"
    );
    assert_eq!(
        client.check(ask("", "testing")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    asserted.stop().await.unwrap();
}

#[tokio::test]
async fn a_spiffe_certificate_says_who_calls() {
    let scratch = tempfile::tempdir().unwrap();
    let spiffe = "spiffe://acme.example/agent/a";
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    let issue = |names: Vec<rcgen::SanType>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let uri = |text: &str| rcgen::SanType::URI(text.try_into().unwrap());
    let (server, server_key) = issue(vec![rcgen::SanType::DnsName(
        "localhost".try_into().unwrap(),
    )]);
    for (name, text) in [
        ("ca.pem", &ca_cert.pem()),
        ("cert.pem", &server),
        ("key.pem", &server_key),
    ] {
        fs::write(scratch.path().join(name), text).unwrap();
    }
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let made = snapshot(vec![
        Change::PutControl(control("CT-1", "false")),
        Change::PutSubject(subject(spiffe)),
    ]);
    let (certificate, key, client_ca) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let running = start(
        Source::Fixed(made),
        Clock::manual(noon()),
        &[
            ("tls_certificate", &certificate),
            ("tls_key", &key),
            ("tls_client_ca", &client_ca),
            ("trust_domain", "acme.example"),
        ],
    )
    .await;
    let connect = |identity: Option<(String, String)>| {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(tonic::transport::Certificate::from_pem(ca_cert.pem()))
            .domain_name("localhost");
        if let Some((certificate, key)) = identity {
            tls = tls.identity(tonic::transport::Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", running.address))
            .unwrap()
            .tls_config(tls)
            .unwrap();
        async move {
            let channel = endpoint
                .connect()
                .await
                .map_err(|error| error.to_string())?;
            CheckServiceClient::new(channel)
                .check(ask("", "testing"))
                .await
                .map_err(|status| format!("{:?}", status.code()))
        }
    };
    let allowed = connect(Some(issue(vec![uri(spiffe)])))
        .await
        .unwrap()
        .into_inner()
        .decision
        .unwrap();
    assert_eq!(allowed.outcome(), v1::Outcome::Allow);
    assert_eq!(
        connect(Some(issue(vec![uri("spiffe://other.example/agent/a")])))
            .await
            .unwrap_err(),
        "Unauthenticated"
    );
    assert_eq!(
        connect(Some(issue(vec![
            uri(spiffe),
            uri("spiffe://acme.example/agent/b")
        ])))
        .await
        .unwrap_err(),
        "Unauthenticated"
    );
    assert!(
        connect(None).await.is_err(),
        "a client without a certificate is turned away"
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn explain_replays_a_decision_and_shows_it_to_its_subject() {
    let clock = Clock::manual(noon());
    let running = start(Source::Fixed(world()), clock.clone(), &[]).await;
    let mut client = running.tcp().await;
    let mut asked = tonic::Request::new(ask("", "export"));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    asked
        .metadata_mut()
        .insert("traceparent", trace.parse().unwrap());
    let allowed = client.check(asked).await.unwrap();
    let allowed = allowed.into_inner().decision.unwrap();
    clock.advance(Span::from_days(2));
    let explained = client
        .explain(v1::ExplainRequest {
            decision_id: allowed.id.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    let trace_id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    assert_eq!(
        (&*explained.surface, &*explained.trace_id),
        ("grpc", &trace_id[..])
    );
    let again = explained.decision.unwrap();
    assert_eq!(
        (again.id, again.outcome, again.time, again.reasons),
        (
            allowed.id.clone(),
            allowed.outcome,
            allowed.time,
            allowed.reasons.clone()
        )
    );
    assert_eq!(again.controls.len(), 1);
    assert_eq!(
        client
            .explain(v1::ExplainRequest {
                decision_id: "nonsense".into()
            })
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    let other = allowed.id.replace("dec_0", "dec_1");
    assert_eq!(
        client
            .explain(v1::ExplainRequest { decision_id: other })
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn grpc_timeout_is_honoured() {
    let running = start(Source::Fixed(world()), Clock::system(), &[]).await;
    let mut client = running.tcp().await;
    for (timeout, code) in [
        ("0n", Code::DeadlineExceeded),
        ("5S", Code::Ok),
        ("soon", Code::InvalidArgument),
    ] {
        let mut request = tonic::Request::new(ask("", "testing"));
        request
            .metadata_mut()
            .insert("grpc-timeout", timeout.parse().unwrap());
        let code_ = client
            .check(request)
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok);
        // The transport may cut the call before we are asked; both say the deadline passed.
        assert!(
            code_ == code || code == Code::DeadlineExceeded && code_ == Code::Cancelled,
            "{timeout}: {code_:?}"
        );
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn accepted_connections_have_nodelay_set() {
    let tcp = exeat::runtime::listen::Tcp::bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(tcp.address()), tcp.accept());
    assert!(accepted.unwrap().nodelay().unwrap());
    drop(client);
}

const CONTROL: &str = "apiVersion: exeat/v1\nkind: Control\nid: CT-1\ntitle: t\nowner: user:o\nseverity: LOW\nenforcement: SOFT_MANDATORY\nstate: DEPRECATED\nevidence_requirements: [{source: s}]\nfailure_condition: ";

fn write(folder: &Path, condition: &str) {
    let subject = format!(
        "---\napiVersion: exeat/v1\nkind: Subject\nid: {SUBJECT}\nsubject_kind: AI_AGENT\nenvironment: prod\nowner: {{principal: 'user:o', active: true}}\npurpose: {{permitted_ids: [x]}}\nrisk_tier: LOW\ndata_sensitivity: PUBLIC\nlifecycle_state: ACTIVE\n"
    );
    fs::write(
        folder.join(".part"),
        format!("{CONTROL}{condition}\n{subject}"),
    )
    .unwrap();
    fs::rename(folder.join(".part"), folder.join("a.yaml")).unwrap();
}

/// Asks until the answer comes from `revision` of the bundle.
async fn at_revision(client: &mut CheckServiceClient<Channel>, revision: u64) -> v1::Decision {
    for _ in 0..10_000 {
        if let Ok(answer) = client.check(ask("", "testing")).await {
            let decision = answer.into_inner().decision.unwrap();
            if decision.snapshot.as_ref().unwrap().revision >= revision {
                return decision;
            }
        }
        tokio::task::yield_now().await;
    }
    panic!("revision {revision} never came into force");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_whose_snapshot_is_gone_are_told_as_missed() {
    let scratch = tempfile::tempdir().unwrap();
    write(scratch.path(), "'false'");
    let sidecar = start(
        Source::Folder(scratch.path().to_owned()),
        Clock::system(),
        &[],
    )
    .await;
    let mut client = sidecar.tcp().await;
    for revision in 1..=7 {
        write(scratch.path(), &format!("'{revision} == 0'"));
        at_revision(&mut client, revision).await;
    }
    let last = at_revision(&mut client, 7).await;
    let (status, lines) = sidecar.get("/decisions?last=10000").await;
    assert_eq!(status, 200);
    assert!(lines.contains(r#""missed":1"#), "{lines}");
    assert!(lines.contains(&last.id), "what came after them is told");
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_readiness_tell_whether_a_bundle_is_in_force() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(
        scratch.path().join("a.yaml"),
        "apiVersion: exeat/v1\nkind: Control\n",
    )
    .unwrap();
    let running = start(Source::Folder(scratch.path().into()), Clock::system(), &[]).await;
    let channel = Endpoint::from_shared(format!("http://{}", running.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let mut status = async |name: &str| {
        health
            .check(tonic_health::pb::HealthCheckRequest {
                service: name.into(),
            })
            .await
            .unwrap()
            .into_inner()
            .status()
    };
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
    assert_eq!(
        status("exeat.v1.CheckService").await,
        NotServing,
        "bound before anything loads"
    );
    let mut client = running.tcp().await;
    assert_eq!(
        client.check(ask("", "testing")).await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(running.get("/livez").await.0, 200);
    assert_eq!(running.get("/readyz").await.0, 503);

    write(scratch.path(), "1 == 2");
    assert_eq!(
        at_revision(&mut client, 1).await.outcome(),
        v1::Outcome::Allow
    );
    assert_eq!(running.get("/readyz").await.0, 200);
    while status("exeat.v1.CheckService").await != Serving {}

    // A bundle that is refused leaves the last good one in force, and readiness says so.
    let good = running.get("/readyz").await.1;
    write(scratch.path(), "subject.nonsense");
    let told = loop {
        let (code, text) = running.get("/readyz").await;
        assert_eq!(code, 200);
        if text != good {
            break text;
        }
    };
    assert!(
        told.contains("a.yaml:10:27: Control CT-1") && told.contains("nonsense"),
        "{told}"
    );
    assert_eq!(
        at_revision(&mut client, 1).await.outcome(),
        v1::Outcome::Allow
    );
    write(scratch.path(), "1 == 1");
    assert_eq!(
        at_revision(&mut client, 2).await.outcome(),
        v1::Outcome::Deny
    );

    let metrics = running.get("/metrics").await.1;
    for line in [
        "exeat_decisions_total{outcome=\"allow\",surface=\"grpc\",control=\"\",mode=\"enforce\"}",
        "exeat_decisions_total{outcome=\"deny\",surface=\"grpc\",control=\"CT-1\",mode=\"enforce\"}",
        "exeat_decision_errors_total{error_type=\"NOT_READY\"}",
        "exeat_bundle_loads_total{result=\"refused\"}",
        "exeat_snapshot_revision 2",
        "exeat_decision_duration_seconds_bucket",
        "exeat_build_info",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let lines = running.get("/decisions?last=1").await.1;
    assert!(
        lines.contains("\"outcome\":\"deny\"") && lines.contains("\"controls\":[\"CT-1\"]"),
        "{lines}"
    );
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
async fn reloading_under_load_never_mixes_two_bundles() {
    let scratch = tempfile::tempdir().unwrap();
    // In every bundle exactly one of the two fails: which, says its revision. A mix would have both or none.
    let bundle = |odd: bool| {
        let one = |id: &str, fails: bool| format!("{}{fails}\n---\n", CONTROL.replace("CT-1", id));
        let text = format!("{}{}", one("CT-1", odd), one("CT-2", !odd));
        fs::write(scratch.path().join(".part"), text).unwrap();
        fs::rename(scratch.path().join(".part"), scratch.path().join("b.yaml")).unwrap();
    };
    write(scratch.path(), "1 == 2");
    fs::write(
        scratch.path().join("a.yaml"),
        fs::read_to_string(scratch.path().join("a.yaml"))
            .unwrap()
            .replace("CT-1", "CT-3"),
    )
    .unwrap();
    bundle(true);
    let running = start(Source::Folder(scratch.path().into()), Clock::system(), &[]).await;
    at_revision(&mut running.tcp().await, 1).await;
    let mut askers = Vec::new();
    for _ in 0..4 {
        let mut client = running.tcp().await;
        askers.push(tokio::spawn(async move {
            let mut seen = std::collections::BTreeMap::new();
            for _ in 0..1_500 {
                let decision = client
                    .check(ask("", "testing"))
                    .await
                    .unwrap()
                    .into_inner()
                    .decision
                    .unwrap();
                let failed: Vec<_> = decision
                    .controls
                    .iter()
                    .map(|control| control.control_id.clone())
                    .collect();
                let snapshot = decision.snapshot.unwrap();
                assert_eq!(failed.len(), 1, "{failed:?} at {}", snapshot.revision);
                let known = seen
                    .entry(snapshot.digest)
                    .or_insert_with(|| failed.clone());
                assert_eq!(*known, failed, "one bundle, one answer");
            }
            seen.len()
        }));
    }
    let mut client = running.tcp().await;
    for n in 0..10_u64 {
        bundle(n % 2 == 1);
        at_revision(&mut client, n + 2).await;
    }
    for asker in askers {
        assert!(asker.await.unwrap() >= 1);
    }
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_found_before_anything_starts() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let flags = [
        ("bundle", Some("x".to_owned())),
        ("subject", Some("a".into())),
        ("listen", Some(taken.local_addr().unwrap().to_string())),
        ("operations", Some("127.0.0.1:0".into())),
        ("unix", Some("none".into())),
    ];
    let settings = config::Sidecar::load(None, &[], &flags).unwrap();
    let error = Bound::bind(settings, Clock::system())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot listen"), "{error}");
}

#[test]
fn settings_are_refused_with_key_and_source() {
    let load = |flags: &[(&'static str, Option<String>)], environment: &[(&str, &str)]| {
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        config::Sidecar::load(None, &environment, flags)
            .map(|_| ())
            .map_err(|wrong| wrong.to_string())
    };
    let flag = |key: &'static str, value: &str| (key, Some(value.to_owned()));
    let good = [flag("bundle", "x"), flag("subject", "a")];
    assert_eq!(load(&good, &[]), Ok(()));
    for (flags, environment, part) in [
        (
            vec![flag("subject", "a")],
            vec![],
            "neither `bundle` nor `registry` is set",
        ),
        (
            vec![flag("registry", "reg.example:7432"), flag("subject", "a")],
            vec![],
            "beyond loopback TLS is required; set registry_ca",
        ),
        (
            vec![flag("registry", "127.0.0.1:7432"), flag("subject", "a")],
            vec![],
            "nothing unsigned is believed",
        ),
        (
            vec![flag("bundle", "x")],
            vec![],
            "nothing says who callers are",
        ),
        (
            vec![
                flag("bundle", "x"),
                flag("subject", "a"),
                flag("peers", "0=b"),
            ],
            vec![],
            "more than one thing",
        ),
        (
            vec![
                flag("bundle", "x"),
                flag("subject", "a"),
                flag("listen", "0.0.0.0:7430"),
            ],
            vec![],
            "TLS is required",
        ),
        (
            good.to_vec(),
            vec![("EXEAT_LISTNE", "x")],
            "EXEAT_LISTNE: `listne` is not a setting",
        ),
        (
            good.to_vec(),
            vec![("EXEAT_DRAIN_TIMEOUT", "soon")],
            "EXEAT_DRAIN_TIMEOUT: `drain_timeout`",
        ),
        (
            vec![flag("bundle", "x"), flag("trust_domain", "a")],
            vec![],
            "needs tls_certificate",
        ),
    ] {
        let wrong = load(&flags, &environment).unwrap_err();
        assert!(wrong.contains(part), "{part}: {wrong}");
    }
}
