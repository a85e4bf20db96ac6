//! What a receiver of telemetry is sent, held against what callers were told.

use std::collections::{BTreeMap, BTreeSet};

use exeat::{
    runtime::clock::Clock,
    telemetry::names,
    wire::v1::{self, Outcome, Role, check_service_client::CheckServiceClient},
};
use opentelemetry_proto::tonic::{
    metrics::v1::{HistogramDataPoint, Metric, metric::Data},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Endpoint, Identity, Server, ServerTlsConfig},
};

use crate::support::cases::{PLAIN, World, approve, ask, deciding};
use crate::support::collector::{Collector, attributes};
use crate::support::governed::{Registry, Sidecar, control, noon, seconds, subject, world};
use crate::support::receiver::Receiver;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

struct Scene {
    _scratch: tempfile::TempDir,
    _registry: Registry,
    sidecar: Sidecar,
}

impl Scene {
    async fn start(set: &[(&'static str, &str)]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
        let mut client = registry.client().await;
        let modelled = subject("modelled", None)
            + "model: {provider: acme, name: large, version: \"2\", digest: \"sha256:ab\"}\n";
        let answers_to = "framework_refs: [{framework: CSF_2_0, ref: ID.RA-07}]\n";
        let refused = control("CT-REFUSED", "refused", "true") + answers_to;
        let limited = world() + "usage_limits: {max_uses: 1000}\n";
        client
            .apply(&(modelled + &refused + &limited))
            .await
            .unwrap();
        let token = client.let_in("one", Role::Sidecar, &["*"]).await;
        let mut more = vec![
            ("insecure_asserted_identity", "true"),
            ("max_connections", "1024"),
        ];
        more.extend(set);
        let data = scratch.path().join("one");
        let (address, key) = (&registry.address, &registry.key);
        let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &more)
            .await
            .unwrap();
        Self {
            _scratch: scratch,
            _registry: registry,
            sidecar,
        }
    }

    async fn ask(
        &self,
        action: &str,
        purpose: &str,
        parent: Option<&str>,
    ) -> Result<v1::Decision, Status> {
        self.ask_as("agent", action, purpose, parent).await
    }

    /// Asks with `traceparent`, of a purpose, and with secrets wherever there is room for them.
    async fn ask_as(
        &self,
        subject: &str,
        action: &str,
        purpose: &str,
        parent: Option<&str>,
    ) -> Result<v1::Decision, Status> {
        let text = |text: &str| prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue(text.into())),
        };
        let map = |name: &str, value: &str| prost_types::Struct {
            fields: [
                (name.to_owned(), text(value)),
                ("args".into(), text("CANARY")),
                ("session_id".into(), text("s-7")),
            ]
            .into(),
        };
        let mut request = Request::new(v1::CheckRequest {
            subject: subject.into(),
            action: action.into(),
            resource: Some(v1::Resource {
                r#type: "tool".into(),
                id: "mcp://pay/refund".into(),
                properties: Some(map("body", "CANARY")),
            }),
            context: Some(map("purpose", purpose)),
            ..v1::CheckRequest::default()
        });
        if let Some(parent) = parent {
            let value = parent.parse().unwrap();
            request.metadata_mut().insert("traceparent", value);
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", self.sidecar.address)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let answer = CheckServiceClient::new(channel).check(request).await?;
        Ok(answer.into_inner().decision.unwrap())
    }

    /// What is lost and sent, as the metrics count it.
    async fn counted(&self, name: &str) -> BTreeMap<String, u64> {
        let page = self.sidecar.page("/metrics").await;
        page.lines()
            .filter_map(|line| {
                let (labels, n) = line.strip_prefix(name)?.rsplit_once(' ')?;
                Some((labels.to_owned(), n.parse().unwrap()))
            })
            .collect()
    }
}

/// A span with its attributes.
type Told = (Span, BTreeMap<String, String>);

fn by_decision(spans: &[Span]) -> BTreeMap<String, Vec<Told>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in spans {
        let attributes = attributes(&span.attributes);
        let id = attributes.get("exeat.decision.id").cloned();
        all.entry(id.unwrap_or_default())
            .or_default()
            .push((span.clone(), attributes));
    }
    all
}

/// Everything a caller was told is there, once, and nothing else of what it said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_denial_and_every_use_has_its_span_and_its_events_once() {
    let collector = Collector::start().await;
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%2Cb"),
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=pod-1"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ])
    .await;
    scene
        .sidecar
        .until("agent", "risky", "ALLOW_BY_EXCEPTION")
        .await;
    let mut told = Vec::new();
    for _ in 0..20 {
        told.push(scene.ask("plain", "work", None).await.unwrap());
        told.push(scene.ask("risky", "work", None).await.unwrap());
        told.push(scene.ask("risky", "leisure", None).await.unwrap());
    }
    let kept = scene
        .ask("plain", "work", Some(&format!("{PARENT}1")))
        .await
        .unwrap();
    let dropped = scene
        .ask("plain", "work", Some(&format!("{PARENT}0")))
        .await
        .unwrap();
    let modelled = scene.ask_as("modelled", "refused", "work", None);
    let modelled = modelled.await.unwrap();
    let wrong = scene.ask("", "work", None).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    scene.sidecar.process.stop().await;

    let spans = by_decision(&collector.spans());
    let events = collector.events();
    let said = |name: &str, of: &str, what: &str| {
        let told = events.iter().filter(|event| event.event_name == name);
        let mut told = told.map(|event| attributes(&event.attributes));
        let found = told.find(|it| it.get("exeat.decision.id").is_some_and(|id| id == of));
        found.unwrap().get(what).cloned().unwrap_or_default()
    };
    let [(_, of_span)] = spans[&modelled.id].as_slice() else {
        panic!("{:?}", spans[&modelled.id])
    };
    assert_eq!(of_span["gen_ai.provider.name"], "acme");
    assert_eq!(of_span["gen_ai.request.model"], "large");
    let reference = said(
        names::event::DECISION,
        &modelled.id,
        "security_rule.reference",
    );
    assert_eq!(reference, "CSF_2_0:ID.RA-07");
    // The n-th use says so, and how many are left: of the thousand as many as it took.
    let uses = told
        .iter()
        .filter(|it| it.outcome() == Outcome::AllowByException);
    let counts: Vec<u64> = uses
        .clone()
        .map(|it| {
            spans[&it.id][0].1["exeat.exception.use_count"]
                .parse()
                .unwrap()
        })
        .collect();
    let first = counts[0];
    assert_eq!(counts, (first..first + 20).collect::<Vec<_>>());
    let mut scopes = BTreeSet::new();
    for (use_count, decision) in counts.iter().zip(uses) {
        let usage = |what| said(names::event::USAGE, &decision.id, what);
        let left = usage("exeat.exception.remaining_uses");
        assert_eq!(left, (1_000 - use_count).to_string());
        scopes.insert(usage("exeat.exception.scope_digest"));
        let ends = "exeat.exception.expires_at";
        assert_eq!(usage(ends), spans[&decision.id][0].1[ends]);
    }
    assert!(
        scopes.len() == 1 && scopes.first().unwrap().starts_with("sha256:"),
        "{scopes:?}"
    );
    let mut decided: BTreeMap<String, u32> = BTreeMap::new();
    let mut used: BTreeMap<(String, String), u32> = BTreeMap::new();
    for event in &events {
        let attributes = attributes(&event.attributes);
        let id = attributes.get("exeat.decision.id").cloned();
        match event.event_name.as_str() {
            names::event::DECISION => *decided.entry(id.unwrap_or_default()).or_default() += 1,
            names::event::USAGE => {
                let kind = attributes["exeat.usage.kind"].clone();
                *used.entry((id.unwrap(), kind)).or_default() += 1;
            }
            other => panic!("{other}"),
        }
    }
    for decision in told.iter().chain([&kept, &dropped]) {
        let id = &decision.id;
        let spans = spans.get(id).map_or(&[][..], Vec::as_slice);
        let of = |kind: &str| used.get(&(id.clone(), kind.into())).copied();
        assert_eq!(
            decided.get(id),
            Some(&1),
            "each decision is an event: {decision:?}, of {} and {}",
            events.len(),
            decided.len()
        );
        match decision.outcome() {
            Outcome::Allow if *id == kept.id => {
                let [(span, _)] = spans else {
                    panic!("{spans:?}")
                };
                assert_eq!(span.trace_id[..2], [0x4b, 0xf9]);
                assert_eq!(span.parent_span_id[7], 0xb7);
                assert_ne!(span.span_id, span.parent_span_id);
            }
            Outcome::Allow => assert_eq!(spans.len(), 0, "by ratio"),
            Outcome::AllowByException => {
                let [(span, attributes)] = spans else {
                    panic!("{spans:?}")
                };
                assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
                assert_eq!(attributes["exeat.exception.id"], "EX-1");
                assert_eq!(attributes["exeat.exception.in_scope"], "true");
                assert!(attributes.contains_key("exeat.usage.sequence"));
                assert_eq!((of("RELIED_ON"), of("OUT_OF_SCOPE")), (Some(1), None));
            }
            Outcome::Deny => {
                let [(span, attributes)] = spans else {
                    panic!("{spans:?}")
                };
                assert_eq!(span.status, None, "a denial is no error");
                assert_eq!(span.kind(), SpanKind::Server);
                assert_eq!(span.name, "exeat.v1.CheckService/Check");
                let of_span = |name: &str| attributes.get(name).map_or("", String::as_str);
                for (name, value) in [
                    ("rpc.system.name", "grpc"),
                    ("rpc.response.status_code", "OK"),
                    ("gen_ai.agent.id", "agent"),
                    ("gen_ai.operation.name", "execute_tool"),
                    ("gen_ai.tool.name", "refund"),
                    ("session.id", "s-7"),
                    ("gen_ai.conversation.id", "s-7"),
                    ("exeat.decision.outcome", "deny"),
                    ("exeat.control.id", "CT-RISKY"),
                    ("exeat.control.failed", "CT-RISKY"),
                    ("exeat.exception.id", ""),
                    ("exeat.surface", "grpc"),
                ] {
                    assert_eq!(of_span(name), value, "{name}");
                }
                assert_eq!((of("RELIED_ON"), of("OUT_OF_SCOPE")), (None, Some(1)));
            }
            Outcome::Unspecified => panic!("no outcome"),
        }
    }
    let mut failed = spans[""].iter();
    // Until there was a snapshot there was no decision either.
    let invalid = |(_, of): &&Told| of["error.type"] != "NOT_READY";
    let (span, attributes_of) = failed.find(invalid).unwrap();
    assert_eq!(span.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(
        attributes_of["rpc.response.status_code"],
        "INVALID_ARGUMENT"
    );
    let ids: BTreeSet<_> = collector.spans().into_iter().map(|it| it.span_id).collect();
    assert_eq!(ids.len(), collector.spans().len(), "no two spans are one");

    let everything = format!("{:?}{events:?}", collector.spans());
    assert!(everything.contains("mcp") || everything.contains("refund"));
    assert!(!everything.contains("CANARY"), "no argument leaves");
    let known: BTreeSet<String> = names().into_iter().collect();
    let named = collector.spans().into_iter().flat_map(|it| it.attributes);
    for pair in named.chain(events.iter().flat_map(|it| it.attributes.clone())) {
        assert!(known.contains(&pair.key), "{} has no name", pair.key);
    }
    for resource in collector.resources() {
        assert_eq!(resource["service.name"], "exeat");
        assert_eq!(resource["k8s.pod.name"], "pod-1");
        assert!(resource["service.instance.id"].starts_with("sidecar-"));
    }
    assert!(
        collector
            .keys()
            .iter()
            .all(|key| key.as_deref() == Some("a,b"))
    );
}

/// What is asked by HTTP is told by HTTP's names, and belongs to its caller's trace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_by_http_is_told_as_http() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let collector = Collector::start().await;
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ])
    .await;
    scene.sidecar.until("agent", "plain", "ALLOW").await;
    let post = async |body: &str| {
        let mut stream = tokio::net::TcpStream::connect(&scene.sidecar.address)
            .await
            .unwrap();
        let (length, parent) = (body.len(), format!("{PARENT}1"));
        let request = format!(
            "POST /access/v1/evaluation HTTP/1.1\r\nhost: pdp\r\nconnection: close\r\ncontent-type: application/json\r\ntraceparent: {parent}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let asks = |agent: &str| {
        format!(
            "{{\"subject\": {{\"type\": \"identity\", \"id\": \"{agent}\"}}, \"action\": {{\"name\": \"risky\"}}, \"resource\": {{\"type\": \"t\", \"id\": \"t\"}}}}"
        )
    };
    assert_eq!(post(&asks("agent")).await, "200");
    assert_eq!(post(&asks("")).await, "401");
    scene.sidecar.process.stop().await;
    let spans: Vec<_> = collector.spans();
    let mut statuses = Vec::new();
    for span in spans.iter().filter(|it| it.name.starts_with("POST")) {
        assert_eq!(span.name, "POST /access/v1/evaluation");
        assert_eq!(span.trace_id[..2], [0x4b, 0xf9], "its caller's");
        assert_eq!(span.parent_span_id[..2], [0x00, 0xf0]);
        let of = attributes(&span.attributes);
        assert_eq!(of["http.request.method"], "POST");
        assert_eq!(of["http.route"], "/access/v1/evaluation");
        assert!(!of.keys().any(|name| name.starts_with("rpc.")), "{of:?}");
        statuses.push((
            of["http.response.status_code"].clone(),
            span.status.is_some(),
        ));
    }
    assert_eq!(statuses, [("200".into(), false), ("401".into(), false)]);
}

/// The value of a metric's first series whose labels hold all of `labels`.
fn value(metrics: &[Metric], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    let metric = metrics.iter().rev().find(|metric| metric.name == name)?;
    let points = match metric.data.as_ref()? {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic, "{name}");
            &sum.data_points
        }
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    let point = points.iter().find(|point| {
        let of = attributes(&point.attributes);
        labels
            .iter()
            .all(|(name, value)| of.get(*name).is_some_and(|it| it == value))
    })?;
    match point.value? {
        Value::AsDouble(n) => Some(n),
        Value::AsInt(n) => i32::try_from(n).ok().map(f64::from),
    }
}

/// What /metrics tells and what a receiver is told are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_sent_as_the_page_has_them() {
    let collector = Collector::start().await;
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ])
    .await;
    scene
        .sidecar
        .until("agent", "risky", "ALLOW_BY_EXCEPTION")
        .await;
    for _ in 0..7 {
        scene.ask("risky", "leisure", None).await.unwrap();
    }
    let page = scene.sidecar.page("/metrics").await;
    scene.sidecar.process.stop().await;
    let metrics = collector.metrics();
    let denied = [("outcome", "deny"), ("control", "CT-RISKY")];
    assert_eq!(value(&metrics, "exeat.decisions", &denied), Some(7.0));
    let active = value(&metrics, "exeat.exceptions_active", &[("tier", "LOW")]);
    assert_eq!(active, Some(1.0));
    let duration = metrics
        .iter()
        .find(|metric| metric.name == "exeat.decision_duration")
        .unwrap();
    assert_eq!(duration.unit, "s");
    let Some(Data::Histogram(histogram)) = &duration.data else {
        panic!("{duration:?}")
    };
    let of_grpc = |point: &&HistogramDataPoint| attributes(&point.attributes)["surface"] == "grpc";
    let point = histogram.data_points.iter().find(of_grpc).unwrap();
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert!(point.count >= 8);
    let sent: BTreeSet<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for name in types.filter_map(|line| line.split(' ').next()) {
        let has_series = page.lines().any(|line| line.starts_with(name));
        let stem = name.trim_end_matches("_seconds").trim_end_matches("_bytes");
        let name = stem.replacen('_', ".", 1);
        assert!(!has_series || sent.contains(&*name), "{name} is not sent");
    }
}

/// What a registry does is told as well: each step of an exception, by nobody's name, and each run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_tells_of_steps_and_runs() {
    let collector = Collector::start().await;
    let mut world = World::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ])
    .await;
    let yearly = control("CT-YEARLY", "risky", "subject.kind == 'AI_AGENT'").replace(
        "state: DEPRECATED",
        "evaluation_modes: [SCHEDULED]\nschedule: {cron: \"0 0 1 1 *\", time_zone: UTC}\nstate: DEPRECATED",
    );
    world.admin.apply(&yearly).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let page = world.registry.page("/metrics").await;
    assert!(
        page.contains("exeat_requests_pending{tier=\"MODERATE\"} 1"),
        "{page}"
    );
    world.clock.advance(seconds(600));
    let page = world.registry.page("/metrics").await;
    assert!(
        page.contains("exeat_requests_pending_oldest_seconds{tier=\"MODERATE\"} 600.0"),
        "R10: {page}"
    );
    approve(&mut bob, &case).await.unwrap();
    world.admin.revoke(&case.id).await.unwrap();
    let request = v1::RunControlRequest {
        control_id: "CT-YEARLY".into(),
        ..v1::RunControlRequest::default()
    };
    world.admin.findings.run_control(request).await.unwrap();
    let page = world.registry.page("/metrics").await;
    for line in [
        "exeat_requests_pending{tier=\"MODERATE\"} 0",
        "exeat_requests_pending_oldest_seconds{tier=\"MODERATE\"} 0.0",
        "exeat_approval_duration_seconds_sum{tier=\"MODERATE\"} 600.0",
        "exeat_approval_duration_seconds_count{tier=\"MODERATE\"} 1",
        "exeat_registry_read_only 0",
        "exeat_control_failing{control=\"CT-YEARLY\"} 1",
        "exeat_control_runs_total{control=\"CT-YEARLY\",result=\"failing\"} 1",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    world.registry.process.stop().await;
    let events = collector.events();
    let of = |name: &str| {
        let events = events.iter().filter(|event| event.event_name == name);
        events
            .map(|event| attributes(&event.attributes))
            .collect::<Vec<_>>()
    };
    let steps: Vec<_> = of(names::event::STATE_CHANGED)
        .into_iter()
        .map(|of| {
            assert_eq!(of["exeat.exception.id"], case.id);
            assert!(of["exeat.actor.ref"].starts_with("actor:"));
            let from = of.get("exeat.exception.state.from").cloned();
            (
                from.unwrap_or_default(),
                of["exeat.exception.state.to"].clone(),
            )
        })
        .collect();
    let text = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(
        steps,
        [
            text("", "PENDING"),
            text("PENDING", "APPROVED"),
            text("APPROVED", "REVOKED")
        ]
    );
    let runs = of(names::event::CONTROL_RUN);
    assert!(
        runs.iter()
            .any(|of| of["exeat.control.id"] == "CT-YEARLY"
                && of["exeat.control.result"] == "failing"),
        "{runs:?}"
    );
    let said = format!("{events:?}");
    assert!(
        !said.contains("user:bob") && !said.contains("alice"),
        "{said}"
    );
    assert_eq!(
        value(&collector.metrics(), "exeat.registry_read_only", &[]),
        Some(0.0)
    );
}

/// One step from a use to the approval it rests on, across both processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_is_linked_to_its_approval() {
    let collector = Collector::start().await;
    let mut world = World::start().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let case = ask(&mut alice, &PLAIN).await.unwrap();
    let mut decides = Request::new(deciding(&case));
    let parent = format!("{PARENT}1").parse().unwrap();
    decides.metadata_mut().insert("traceparent", parent);
    bob.exceptions.decide(decides).await.unwrap();
    world.clock.advance(seconds(5));
    let token = world.admin.let_in("one", Role::Sidecar, &["*"]).await;
    let set = [
        ("insecure_asserted_identity", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let (address, key) = (&world.registry.address, &world.registry.key);
    let data = world.scratch.path().join("one");
    let mut sidecar = Sidecar::start_with(&data, address, key, &token, world.clock.clone(), &set)
        .await
        .unwrap();
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    sidecar.ask("agent", "plain").await.unwrap();
    sidecar.process.stop().await;
    let spans = collector.spans();
    let of = |outcome: &str| {
        let with = |span: &&Span| {
            let attributes = attributes(&span.attributes);
            attributes.get("exeat.decision.outcome").map(String::as_str) == Some(outcome)
        };
        spans.iter().rev().find(with).unwrap().clone()
    };
    let used = of("allow_by_exception");
    let [link] = used.links.as_slice() else {
        panic!("{used:?}")
    };
    assert_eq!((link.trace_id[0], link.span_id[7]), (0x4b, 0xb7));
    assert!(of("allow").links.is_empty());
}

/// A receiver that refuses, takes a part, or is not there: decisions go on, and all that is lost is
/// counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_taken_is_tried_again_or_counted() {
    let collector = Collector::start().await;
    // Tried again; taken, but for one; and then one request that is never taken.
    collector.refuse(Status::unavailable("later"));
    collector.reject(1);
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
    ])
    .await;
    scene.sidecar.until("agent", "plain", "ALLOW OK").await;
    let lost = "exeat_telemetry_lost_total";
    loop {
        let counted = scene.counted(lost).await;
        if counted.get("{signal=\"spans\",reason=\"rejected\"}") >= Some(&1) {
            break;
        }
        scene.ask("plain", "work", None).await.unwrap();
    }
    assert!(!collector.spans().is_empty());
    collector.refuse(Status::invalid_argument("never"));
    loop {
        let counted = scene.counted(lost).await;
        if counted.get("{signal=\"spans\",reason=\"refused\"}") >= Some(&1) {
            break;
        }
        scene.ask("plain", "work", None).await.unwrap();
    }
    scene.sidecar.process.stop().await;

    // Nobody is there at all, from the beginning to the end.
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
    ])
    .await;
    scene.sidecar.until("agent", "plain", "ALLOW OK").await;
    for _ in 0..50 {
        let decision = scene.ask("plain", "work", None).await.unwrap();
        assert_eq!(decision.outcome(), Outcome::Allow);
    }
    scene.sidecar.process.stop().await;
}

/// A receiver that takes its time costs no call any, and what does not fit meanwhile is counted: every
/// denial is either told or lost, and none is both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_holds_nobody_up() {
    const ASKED: usize = 12_000;
    let collector = Collector::start().await;
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
    ])
    .await;
    scene.sidecar.until("agent", "plain", "ALLOW OK").await;
    collector.holds(true);
    let item = v1::CheckRequest {
        subject: "agent".into(),
        action: "refused".into(),
        resource: Some(v1::Resource {
            r#type: "tool".into(),
            id: "mcp://pay/refund".into(),
            properties: None,
        }),
        ..v1::CheckRequest::default()
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", scene.sidecar.address)).unwrap();
    let mut client = CheckServiceClient::new(endpoint.connect().await.unwrap());
    let mut denied = BTreeSet::new();
    for _ in 0..ASKED / 100 {
        let batch = v1::BatchCheckRequest {
            items: vec![item.clone(); 100],
        };
        let answer = client.batch_check(batch).await.unwrap().into_inner();
        for item in answer.items {
            let Some(v1::batch_check_item::Result::Decision(decision)) = item.result else {
                panic!("{item:?}")
            };
            assert_eq!(decision.outcome(), Outcome::Deny);
            denied.insert(decision.id);
        }
    }
    assert_eq!(denied.len(), ASKED);
    let full = "{signal=\"spans\",reason=\"full\"}";
    let lost = scene.counted("exeat_telemetry_lost_total").await;
    let lost = lost.get(full).copied().unwrap_or_default();
    assert!(lost > 0, "more than waits was asked");
    collector.holds(false);
    let wanted = ASKED - usize::try_from(lost).unwrap();
    let told = || {
        let spans = by_decision(&collector.spans());
        let ours = spans.into_iter().filter(|(id, _)| denied.contains(id));
        ours.map(|(_, spans)| spans.len()).collect::<Vec<_>>()
    };
    while told().len() < wanted {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    scene.sidecar.process.stop().await;
    let told = told();
    assert_eq!((told.len(), told.iter().sum::<usize>()), (wanted, wanted));
}

/// Of plain allows a share is told, by their trace: all of it is kept or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_plain_allows_a_share_is_told_by_their_traces() {
    let collector = Collector::start().await;
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ])
    .await;
    scene.sidecar.until("agent", "plain", "ALLOW OK").await;
    let mut told = Vec::new();
    for n in 0..64_u64 {
        // The last seven bytes are the chance (W3C Trace Context 2): n of 64 parts. A trace of noughts
        // alone is none.
        let trace = format!("00-{:018x}{:014x}-00f067aa0ba902b7-00", n + 1, n << 50);
        for action in ["plain", "refused"] {
            let decision = scene.ask(action, "work", Some(&trace)).await.unwrap();
            told.push((decision.id, action == "refused" || n < 16));
        }
    }
    scene.sidecar.process.stop().await;
    let spans = by_decision(&collector.spans());
    for (id, kept) in told {
        assert_eq!(spans.contains_key(&id), kept, "{id}");
    }
}

/// What a caller sees to differ is an event, with the facets by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_sees_to_differ_is_an_event() {
    let collector = Collector::start().await;
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", &collector.address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ])
    .await;
    scene.sidecar.until("agent", "plain", "ALLOW OK").await;
    let digest = format!("sha256:{}", "0".repeat(64));
    let sees = |request: &mut v1::CheckRequest| {
        request.subject = "agent".into();
        request.observed = ["prompts", "tools"]
            .map(|facet| (facet.to_owned(), digest.clone()))
            .into();
    };
    let decision = scene.sidecar.ask_with(sees).await.unwrap();
    scene.sidecar.process.stop().await;
    let events = collector.events();
    let changed: Vec<_> = events
        .iter()
        .filter(|event| event.event_name == names::event::CONTEXT_CHANGED)
        .map(|event| attributes(&event.attributes))
        .collect();
    let [changed] = changed.as_slice() else {
        panic!("{changed:?}")
    };
    assert_eq!(changed["exeat.decision.id"], decision.id);
    assert_eq!(changed["gen_ai.agent.id"], "agent");
    let facets: BTreeSet<_> = changed["exeat.context.changed"].split(',').collect();
    assert_eq!(facets, BTreeSet::from(["prompts", "tools"]));
    assert!(changed["exeat.context.fingerprint"].starts_with("sha256:"));
}

/// Over TLS to a receiver that wants a certificate: with ours it is told, and without one, or under
/// another authority, what is lost is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_behind_tls_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let signed = |name: &str, by: &rcgen::Issuer<'_, rcgen::KeyPair>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let made = params.signed_by(&key, by).unwrap();
        std::fs::write(path(&format!("{name}.pem")), made.pem()).unwrap();
        std::fs::write(path(&format!("{name}-key.pem")), key.serialize_pem()).unwrap();
        (made.pem(), key.serialize_pem())
    };
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let made = params.self_signed(&key).unwrap();
        std::fs::write(path(name), made.pem()).unwrap();
        (made.pem(), rcgen::Issuer::new(params, key))
    };
    let (ca, issuer) = authority("ca.pem");
    authority("another.pem");
    let (certificate, key) = signed("receiver", &issuer);
    signed("client", &issuer);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(ca));
    let server = Server::builder().tls_config(tls).unwrap();
    let collector = Collector::over(server, "https").await;
    let (client, client_key) = (path("client.pem"), path("client-key.pem"));
    let ours = [
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", client.as_str()),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", client_key.as_str()),
    ];
    for (authority, shown, told) in [
        ("ca.pem", &ours[..], true),
        ("ca.pem", &[][..], false),
        ("another.pem", &ours[..], false),
    ] {
        let ca = path(authority);
        let mut set = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", &ca),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ];
        set.extend(shown);
        let mut scene = Scene::start(&set).await;
        scene.sidecar.until("agent", "plain", "ALLOW OK").await;
        let decision = scene.ask("refused", "work", None).await.unwrap();
        scene.sidecar.process.stop().await;
        let seen = by_decision(&collector.spans());
        assert_eq!(
            seen.contains_key(&decision.id),
            told,
            "{authority} {shown:?}"
        );
    }
}

/// OTLP over HTTP: one path for each signal, and a receiver that asks for time gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_each_signal_has_its_path() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    let receiver = Receiver::start().await;
    receiver.always("200 OK\r\n");
    receiver.answer(&["503 Service Unavailable\r\nRetry-After: 0\r\n"]);
    let endpoint = format!("http://{}", receiver.address);
    let mut scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
    ])
    .await;
    scene.sidecar.until("agent", "plain", "ALLOW OK").await;
    let decision = scene.ask("plain", "work", None).await.unwrap();
    scene.sidecar.process.stop().await;
    let got = receiver.got();
    let paths: BTreeSet<_> = got.iter().map(|got| got.path.as_str()).collect();
    assert_eq!(
        paths,
        BTreeSet::from(["/v1/logs", "/v1/metrics", "/v1/traces"])
    );
    let mut seen = BTreeSet::new();
    for got in &got {
        assert_eq!(got.header("content-type"), "application/x-protobuf");
        assert_eq!(got.header("authorization"), "Bearer x");
        if got.path == "/v1/traces" {
            let request: ExportTraceServiceRequest = prost::Message::decode(&*got.body).unwrap();
            let parts = request.resource_spans.into_iter();
            let spans = parts
                .flat_map(|part| part.scope_spans)
                .flat_map(|it| it.spans);
            seen.extend(spans.filter_map(|span| {
                attributes(&span.attributes)
                    .get("exeat.decision.id")
                    .cloned()
            }));
        }
    }
    assert!(seen.contains(&decision.id));
}

/// A setting that is not understood is named, and the process does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_variable_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
    let (address, key) = (&registry.address, &registry.key);
    let set = [
        ("insecure_asserted_identity", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
    ];
    let data = scratch.path().join("one");
    let why = Sidecar::start_with(&data, address, key, "t", clock, &set)
        .await
        .err()
        .expect("it does not start");
    assert!(why.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: "), "{why}");
}

/// Every name there is: whatever is written as text in the one file of names.
fn names() -> Vec<String> {
    let text = include_str!("../../src/telemetry/names.rs");
    let constants = text.split("const ").skip(1);
    constants
        .filter_map(|rest| rest.split('"').nth(1).map(str::to_owned))
        .collect()
}

/// Names are what dashboards, alerts and queries are built on: none changes by accident.
#[test]
fn names_are_held_by_a_snapshot() {
    let now = names().join("\n") + "\n";
    let path = "tests/data/telemetry-names.txt";
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == now,
        "names changed; if that is meant, {path} is to be:\n{now}"
    );
}
