//! Check over TCP beside an empty handler with the same messages over the same transport.
//!
//! Both servers are processes of their own, pinned to the first core and asked in turns by a client
//! on the second. Closed loop at 1, 8 and 64 in flight; open loop at a fixed rate, each answer timed
//! from when it was due. Only the ratios mean anything. Once more with the sidecar following a
//! registry, which is a third process.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures, prints and may fail"
)]

#[path = "../tests/support/governed.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]
mod governed;
#[path = "common/world.rs"]
mod world;

use std::{
    convert::Infallible,
    env, fs,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use exeat::{
    config,
    domain::Set,
    engine::{Change, Snapshot},
    runtime::clock::Clock,
    sidecar::Bound,
    testing,
    wire::v1::{self, check_service_client::CheckServiceClient},
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    metrics::v1::{metric::Data, number_data_point::Value as Number},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Context, Poll, Service},
    server::{Grpc, UnaryService},
    transport::{Channel, Server},
};
use world::{SUBJECT, world};

/// What the program itself allocates with, so that the empty handler differs by nothing else.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 15;
const SPELL: Duration = Duration::from_millis(600);
const OPEN_RATE: u32 = 4_000;

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // On a machine with one core there is nothing to choose.
    let _ = sched_setaffinity(None, &set);
}

/// The same, with one control that fails, and an exception that covers it: each answer waits for its
/// record.
fn excepted(world: Snapshot) -> Snapshot {
    let mut control = testing::control("BEN-EXC", "true");
    control.applies_to.actions = Set::of(vec!["tools/call".into()]).expect("a set");
    let mut exception = testing::exception("EX-USED", &["BEN-EXC"], SUBJECT);
    let now = Clock::system().now().latest;
    exception.effective_time = now;
    exception.expire_time = now + governed::seconds(86_400);
    let digest = world.digest().clone();
    let changes = vec![Change::PutControl(control), Change::PutException(exception)];
    let (world, errors) = world.taking(changes, digest, 2);
    assert!(errors.is_empty(), "{errors:?}");
    world
}

/// What a plain handler is: the transport's own codec, and an answer that is always the same.
#[derive(Clone)]
struct Empty(Arc<v1::CheckResponse>);

impl tonic::server::NamedService for Empty {
    const NAME: &'static str = "exeat.v1.CheckService";
}

#[tonic::async_trait]
trait Handler {
    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status>;
}

#[tonic::async_trait]
impl Handler for Empty {
    async fn check(
        &self,
        _: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        Ok(Response::new((*self.0).clone()))
    }
}

impl UnaryService<v1::CheckRequest> for Empty {
    type Response = v1::CheckResponse;
    type Future = BoxFuture<Response<v1::CheckResponse>, Status>;

    // As the generated code calls a handler.
    fn call(&mut self, request: Request<v1::CheckRequest>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move { Handler::check(&handler, request).await })
    }
}

impl Service<http::Request<Body>> for Empty {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(Grpc::new(codec).unary(method, request).await)
        })
    }
}

/// The answer the sidecar gives, so that both send as many bytes.
fn answer() -> v1::CheckResponse {
    let now = Some(prost_types::Timestamp {
        seconds: 1_795_348_800,
        nanos: 123_456_000,
    });
    v1::CheckResponse {
        decision: Some(v1::Decision {
            id: "dec_01a20426-78f6-775e-b22b-3a0000000001".into(),
            outcome: v1::Outcome::Allow.into(),
            reasons: vec![v1::Reason::Ok.into()],
            time: now,
            snapshot: Some(v1::SnapshotPosition {
                digest: "sha256:test".into(),
                revision: 1,
                age_seconds: 1.5,
            }),
            controls_passed: 10,
            next_action: v1::NextAction::None.into(),
            ..v1::Decision::default()
        }),
    }
}

/// The same world as manifests, for a registry.
fn manifests() -> String {
    let condition = "subject.risk_tier == 'NONE' || subject.environment != 'prod' || now < subject.metadata_update_time";
    let mut text = String::new();
    for n in 0..100 {
        let action = if n < 10 { "tools/call" } else { "other" };
        text += &governed::control(&format!("BEN-{n}"), action, condition);
    }
    let now = Clock::system().now().latest;
    let until = (now + governed::seconds(86_400)).to_string();
    let one = governed::exception_until("EX-@", "BEN-99", "agent-@", &until)
        .replace("2026-11-22T11:00:00Z", &now.to_string());
    for n in 0..10_000 {
        let id = if n == 7 {
            SUBJECT.to_owned()
        } else {
            format!("agent-{n}")
        };
        text += &governed::subject(&id, None).replace(
            "facets:",
            "metadata_update_time: \"2026-11-01T00:00:00Z\"\nfacets:",
        );
        text += &one
            .replace("EX-@", &format!("EX-{n}"))
            .replace("agent-@", &id);
    }
    text
}

/// Where the followed registry is, and what the sidecar needs to follow it.
const FOLLOWED: &str = "EXEAT_BENCH_REGISTRY";
const EXPORTED: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

struct Followed {
    registry: Child,
    _scratch: tempfile::TempDir,
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

/// Starts a registry with the world in it; the settings of who follows it.
async fn followed() -> (Followed, String) {
    let scratch = tempfile::tempdir().expect("a folder");
    let (data, log) = (scratch.path().join("r"), scratch.path().join("log"));
    let log = fs::File::create(log).expect("a file");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let registry = Command::new(env!("CARGO_BIN_EXE_exeat"))
        .args(["registry", "--data", &data.display().to_string()])
        .args(["--listen", &address, "--log", "warn"])
        .env("EXEAT_EXCEPTIONS", "applied")
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("a registry");
    let followed = Followed {
        registry,
        _scratch: scratch,
    };
    let mut client = loop {
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
        if let Ok(token) = fs::read_to_string(data.join("admin.token"))
            && let Ok(channel) = endpoint.connect().await
        {
            break governed::Client::over(channel, &token);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    client.apply(&manifests()).await.expect("applied");
    let token = client
        .let_in("service:bench", v1::Role::Sidecar, &["*"])
        .await;
    let file = followed._scratch.path().join("token");
    fs::write(&file, token).expect("written");
    let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
    let key = status.expect("a status").into_inner().key_pin;
    let data = followed._scratch.path().join("s");
    let settings = format!("{address}\n{key}\n{}\n{}", file.display(), data.display());
    (followed, settings)
}

async fn serve(what: &str) {
    if what == "empty" {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder()
            .add_service(Empty(Arc::new(answer())))
            .serve_with_incoming(incoming)
            .await
            .expect("served");
        return;
    }
    let mut flags = vec![
        ("subject", Some(SUBJECT.to_owned())),
        ("listen", Some("127.0.0.1:0".into())),
        ("operations", Some("127.0.0.1:0".into())),
        ("unix", Some("none".into())),
    ];
    let settings = env::vars().find(|(name, _)| name == FOLLOWED);
    let keys = ["registry", "registry_key", "registry_token_file", "data"];
    if let (true, Some((_, settings))) = (what == "following", settings) {
        let values = settings.lines().map(|value| Some(value.to_owned()));
        flags.extend(keys.into_iter().zip(values));
    } else {
        flags.push(("bundle", Some("unused".into())));
        let data = env::temp_dir().join(format!("exeat-bench-{}", std::process::id()));
        flags.push(("data", Some(data.display().to_string())));
    }
    let set: Vec<_> = env::vars()
        .filter(|(name, _)| name.starts_with("OTEL_"))
        .collect();
    let bound = Bound::bind(
        config::Sidecar::load(None, &set, &flags).expect("settings"),
        Clock::system(),
    )
    .await
    .expect("bound");
    println!("{}", bound.address());
    if what == "following" {
        bound.run(std::future::pending()).await.expect("served");
        return;
    }
    let world = match what {
        "all" => world(1_000, 1_000),
        "excepted" => excepted(world(100, 10)),
        _ => world(100, 10),
    };
    bound
        .run_fixed(Arc::new(world), std::future::pending())
        .await
        .expect("served");
}

struct Peer {
    name: &'static str,
    child: Child,
    clients: Vec<CheckServiceClient<Channel>>,
}

impl Peer {
    async fn start(name: &'static str, followed: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("a path"))
            .args(["--serve", name])
            .env(
                if name == "exported" {
                    EXPORTED
                } else {
                    FOLLOWED
                },
                followed,
            )
            .env("OTEL_METRIC_EXPORT_INTERVAL", "2000")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().expect("its output"));
        std::io::BufRead::read_line(&mut out, &mut line).expect("an address");
        let mut clients = Vec::new();
        while clients.len() < 4 {
            let endpoint = Channel::from_shared(format!("http://{}", line.trim()))
                .expect("an address")
                .tcp_nodelay(true);
            if let Ok(channel) = endpoint.connect().await {
                let mut client = CheckServiceClient::new(channel);
                while client.check(request()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                clients.push(client);
            }
        }
        Self {
            name,
            child,
            clients,
        }
    }

    /// Processor time used so far, in seconds, and memory, in MiB.
    fn used(&self) -> (f64, f64) {
        let of = |file: &str| {
            fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
                .expect("a Linux machine")
        };
        // The scheduler counts nanoseconds where `stat` counts ticks.
        let nanos: f64 = fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .expect("threads")
            .filter_map(|thread| {
                fs::read_to_string(thread.ok()?.path().join("schedstat"))
                    .ok()?
                    .split(' ')
                    .next()?
                    .parse::<f64>()
                    .ok()
            })
            .sum();
        let kib = of("status")
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .split(' ')
                    .next()?
                    .parse::<f64>()
                    .ok()
            })
            .expect("memory");
        (nanos / 1e9, kib / 1024.0)
    }
}

fn request() -> v1::CheckRequest {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.into())),
    };
    let map = |entries: &[(&str, &str)]| prost_types::Struct {
        fields: entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), text(value)))
            .collect(),
    };
    v1::CheckRequest {
        subject: SUBJECT.into(),
        action: "tools/call".into(),
        resource: Some(v1::Resource {
            r#type: "tool".into(),
            id: "mcp://crm/search".into(),
            properties: Some(map(&[("definition_digest", "sha256:71aa90fe")])),
        }),
        context: Some(map(&[
            ("purpose", "testing"),
            ("actor_kind", "AI_AGENT"),
            ("session", "01a20426-78f6-775e-b22b"),
        ])),
        observed: [
            ("model".to_owned(), "sha256:model".to_owned()),
            ("tools".to_owned(), "sha256:tools".to_owned()),
        ]
        .into(),
        request_id: String::new(),
        ..v1::CheckRequest::default()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    cpu: f64,
}

fn figures(mut micros: Vec<f64>, took: f64, cpu: f64) -> Figures {
    micros.sort_by(f64::total_cmp);
    let at = |part: f64| {
        micros
            .get(((micros.len() as f64 * part) as usize).min(micros.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    Figures {
        rate: micros.len() as f64 / took,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        cpu: cpu * 1e6 / micros.len() as f64,
    }
}

async fn closed(peer: &Peer, in_flight: usize) -> Figures {
    let outcome = if peer.name == "excepted" {
        v1::Outcome::AllowByException
    } else {
        v1::Outcome::Allow
    };
    let (before, began) = (peer.used().0, Instant::now());
    let askers: Vec<_> = (0..in_flight)
        .map(|n| {
            let mut client = peer.clients[n % peer.clients.len()].clone();
            tokio::spawn(async move {
                let mut micros = Vec::new();
                while began.elapsed() < SPELL {
                    let asked = Instant::now();
                    let answer = client
                        .check(request())
                        .await
                        .expect("an answer")
                        .into_inner();
                    assert_eq!(answer.decision.expect("a decision").outcome(), outcome);
                    micros.push(asked.elapsed().as_secs_f64() * 1e6);
                }
                micros
            })
        })
        .collect();
    let mut micros = Vec::new();
    for asker in askers {
        micros.extend(asker.await.expect("asked"));
    }
    figures(
        micros,
        began.elapsed().as_secs_f64(),
        peer.used().0 - before,
    )
}

/// Calls go out when they are due, whether or not earlier ones were answered.
async fn open(peer: &Peer, rate: u32) -> Figures {
    let (before, began) = (peer.used().0, Instant::now());
    let mut askers = Vec::new();
    let mut due = Duration::ZERO;
    while due < SPELL {
        tokio::time::sleep_until((began + due).into()).await;
        // All that are due by now: a late tick sends several, each timed from when it was due.
        while due <= began.elapsed() && due < SPELL {
            let mut client = peer.clients[askers.len() % peer.clients.len()].clone();
            let at = began + due;
            askers.push(tokio::spawn(async move {
                client.check(request()).await.expect("an answer");
                at.elapsed().as_secs_f64() * 1e6
            }));
            due += Duration::from_secs(1) / rate;
        }
    }
    let mut micros = Vec::new();
    for asker in askers {
        micros.push(asker.await.expect("asked"));
    }
    figures(
        micros,
        began.elapsed().as_secs_f64(),
        peer.used().0 - before,
    )
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = of.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn tell(load: &str, exeat: &[Figures], empty: &[Figures]) {
    let ratio =
        |of: fn(&Figures) -> f64| median(exeat.iter().zip(empty).map(|(a, b)| of(a) / of(b)));
    let one = |name: &str, figures: &[Figures]| {
        let m = |of: fn(&Figures) -> f64| median(figures.iter().map(of));
        println!(
            "{load:<14} {name:<6} {:>8.0}/s  p50 {:>7.0} µs  p99 {:>7.0}  p99.9 {:>7.0}  CPU {:>5.1} µs/call",
            m(|f| f.rate),
            m(|f| f.p50),
            m(|f| f.p99),
            m(|f| f.p999),
            m(|f| f.cpu)
        );
    };
    one("exeat", exeat);
    one("empty", empty);
    println!(
        "{load:<14} ratio  throughput {:.2}  p50 {:.2}  p99 {:.2}  CPU {:.2}",
        ratio(|f| f.rate),
        ratio(|f| f.p50),
        ratio(|f| f.p99),
        ratio(|f| f.cpu)
    );
}

async fn compare(name: &'static str, followed: &str) {
    let (mut exeat, mut empty) = (
        Peer::start(name, followed).await,
        Peer::start("empty", "").await,
    );
    println!(
        "memory before load: exeat {:.1} MiB, empty {:.1} MiB",
        exeat.used().1,
        empty.used().1
    );
    for in_flight in [64, 8, 1] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(closed(&exeat, in_flight).await);
            theirs.push(closed(&empty, in_flight).await);
        }
        tell(&format!("{in_flight} in flight"), &ours, &theirs);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(open(&exeat, OPEN_RATE).await);
        theirs.push(open(&empty, OPEN_RATE).await);
    }
    tell("open 4,000/s", &ours, &theirs);
    println!(
        "memory after load: exeat {:.1} MiB, empty {:.1} MiB",
        exeat.used().1,
        empty.used().1
    );
    for peer in [&mut exeat, &mut empty] {
        peer.child
            .kill()
            .unwrap_or_else(|error| panic_free(peer.name, &error));
        let _ = peer.child.wait();
    }
}

/// What a receiver of telemetry was sent.
#[derive(Clone, Debug, Default)]
struct Sink {
    spans: Arc<AtomicU64>,
    events: Arc<AtomicU64>,
    /// What the sender says it lost.
    lost: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let parts = request.into_inner().resource_spans;
        let scoped = parts.iter().flat_map(|part| &part.scope_spans);
        let count: usize = scoped.map(|scoped| scoped.spans.len()).sum();
        self.spans.fetch_add(count as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Sink {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let parts = request.into_inner().resource_logs;
        let scoped = parts.iter().flat_map(|part| &part.scope_logs);
        let count: usize = scoped.map(|scoped| scoped.log_records.len()).sum();
        self.events.fetch_add(count as u64, Ordering::Relaxed);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let parts = request.into_inner().resource_metrics;
        let scoped = parts.iter().flat_map(|part| &part.scope_metrics);
        for metric in scoped.flat_map(|scoped| &scoped.metrics) {
            if let ("exeat.telemetry_lost", Some(Data::Sum(sum))) = (&*metric.name, &metric.data) {
                let lost = sum.data_points.iter().filter_map(|point| point.value);
                let lost = lost.map(|value| match value {
                    Number::AsDouble(n) => n as u64,
                    Number::AsInt(n) => n as u64,
                });
                self.lost.store(lost.sum(), Ordering::Relaxed);
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// With everything sent to a receiver, at four fifths of what it can do: what is lost is said.
async fn exported() {
    let sink = Sink::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder()
        .add_service(TraceServiceServer::new(sink.clone()))
        .add_service(LogsServiceServer::new(sink.clone()))
        .add_service(MetricsServiceServer::new(sink.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));
    let mut exeat = Peer::start("exported", &address).await;
    let mut empty = Peer::start("empty", "").await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(closed(&exeat, 64).await);
        theirs.push(closed(&empty, 64).await);
    }
    tell("64 in flight", &ours, &theirs);
    let most = median(ours.iter().map(|figures| figures.rate));
    let rate = (most * 0.8) as u32;
    let settle = async || {
        let mut before = u64::MAX;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = sink.spans.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    };
    settle().await;
    let seen = || [&sink.spans, &sink.events, &sink.lost].map(|it| it.load(Ordering::Relaxed));
    let before = seen();
    let (mut ours, mut theirs, mut answers) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let figures = open(&exeat, rate).await;
        answers += figures.rate * began.elapsed().as_secs_f64();
        ours.push(figures);
        theirs.push(open(&empty, rate).await);
    }
    tell(&format!("open {rate}/s"), &ours, &theirs);
    settle().await;
    let [spans, events, lost] = seen().map(|n| n as f64);
    println!(
        "of about {answers:.0} answers: {:.0} spans, {:.0} events received, {:.0} said to be lost",
        spans - before[0] as f64,
        events - before[1] as f64,
        lost - before[2] as f64
    );
    println!("memory: exeat {:.1} MiB", exeat.used().1);
    for peer in [&mut exeat, &mut empty] {
        let _ = peer.child.kill();
        let _ = peer.child.wait();
    }
}

fn panic_free(name: &str, error: &std::io::Error) {
    println!("{name} was gone already: {error}");
}

fn main() {
    let serving: Vec<String> = env::args().collect();
    let serves = serving
        .iter()
        .position(|arg| arg == "--serve")
        .and_then(|at| serving.get(at + 1));
    pin(usize::from(serves.is_none()));
    // The same runtime as the binary's.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let only = serving.iter().position(|arg| arg == "--only");
    let only = only.and_then(|at| serving.get(at + 1));
    runtime.block_on(async {
        match serves {
            None if only.is_some_and(|only| only == "excepted") => {
                compare("excepted", "").await;
            }
            None if only.is_some_and(|only| only == "exported") => exported().await,
            Some(what) => serve(what).await,
            None => {
                println!("100 controls, 10 applicable, 10,000 exceptions, metrics on");
                compare("exeat", "").await;
                println!("the same, following a registry");
                let (registry, settings) = followed().await;
                compare("following", &settings).await;
                drop(registry);
                println!("the same, allowed by exception: each use recorded and synced first");
                compare("excepted", "").await;
                println!(
                    "a span, an event and metrics of every call sent, at 80 % of what it can do"
                );
                exported().await;
                println!("1,000 controls, all applicable, 10,000 exceptions");
                compare("all", "").await;
            }
        }
    });
}
