//! Many sidecars on one registry: how soon a revocation is everywhere, what an idle sidecar costs,
//! how soon all are back after a restart, and how a sidecar starts with much on its disk.
//!
//! `cargo bench --bench fleet`; both processes are the release binary, the streams are real gRPC. A
//! sidecar is three of them, each on a connection of its own: it attends, watches and may report.
//! `FLEET_SIDECARS=1000` says how many sidecars at the most; with `FLEET_SCOPES=own` no two of them may
//! hold the same.

#[path = "../tests/support/governed.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unreachable_pub
)]
mod governed;
#[path = "../tests/support/liar.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unreachable_pub
)]
mod liar;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use exeat::{
    domain::Timestamp,
    engine::{Sum, part},
    runtime::clock::Clock,
    wire::{
        Message,
        signed::Purpose,
        sync::era_message,
        v1::{self, attend_request, attend_response, watch_response},
    },
};
use futures_util::StreamExt as _;
use governed::{Client, Registry, control, exception_until, subject};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tonic::transport::Endpoint;

/// What the program itself allocates with; a thousand of these clients are sidecars.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EXE: &str = env!("CARGO_BIN_EXE_exeat");

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn run(args: &[&str], log: &Path) -> Running {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    let errors = log.try_clone().unwrap();
    Running(
        Command::new(EXE)
            .args(args)
            // A setting of the registry's, which a sidecar does not know.
            .envs((args.first() == Some(&"registry")).then_some(("EXEAT_EXCEPTIONS", "applied")))
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors))
            .spawn()
            .unwrap(),
    )
}

/// Resident memory in KiB.
fn resident(process: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * q).round() as usize;
    sorted[at]
}

/// What comes down a stream and goes up it: one call on bare HTTP/2, and no more of either than the
/// registry needs, so that what is measured is the registry and not a thousand clients that share
/// its cores.
struct Stream {
    socket: TcpStream,
    read: BytesMut,
    data: BytesMut,
}

/// HTTP/2's frames, and what their flags mean.
mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RESET: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GO_AWAY: u8 = 7;
    pub(super) const WINDOW: u8 = 8;
    pub(super) const ACKNOWLEDGES: u8 = 1;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
}

fn put_frame(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
}

impl Stream {
    async fn begin(address: &str, path: &str, token: &str) -> std::io::Result<Self> {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut out = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
        // Windows that nobody fills: there is nothing to be said of them afterwards.
        let mut settings = BytesMut::new();
        settings.put_u16(4);
        settings.put_u32(i32::MAX as u32);
        put_frame(&mut out, frame::SETTINGS, 0, 0, &settings);
        let more = i32::MAX as u32 - 65_535;
        put_frame(&mut out, frame::WINDOW, 0, 0, &more.to_be_bytes());
        let mut headers = BytesMut::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", address),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("authorization", &format!("Bearer {token}")),
        ] {
            // A literal that is not indexed; each length is one byte below 127.
            headers.put_u8(0);
            for text in [name, value] {
                assert!(text.len() < 127, "{name}");
                headers.put_u8(text.len() as u8);
                headers.put_slice(text.as_bytes());
            }
        }
        put_frame(&mut out, frame::HEADERS, frame::END_HEADERS, 1, &headers);
        socket.write_all(&out).await?;
        Ok(Self {
            socket,
            read: BytesMut::new(),
            data: BytesMut::new(),
        })
    }

    async fn send(&mut self, event: attend_request::Event) -> std::io::Result<()> {
        self.send_one(&v1::AttendRequest { event: Some(event) }, 0)
            .await
    }

    async fn send_one(&mut self, message: &impl Message, flags: u8) -> std::io::Result<()> {
        let message = exeat::wire::encoded(message);
        let mut payload = BytesMut::with_capacity(message.len() + 5);
        payload.put_u8(0);
        payload.put_u32(u32::try_from(message.len()).unwrap());
        payload.put_slice(&message);
        let mut out = BytesMut::with_capacity(payload.len() + 9);
        put_frame(&mut out, frame::DATA, flags, 1, &payload);
        self.socket.write_all(&out).await
    }

    /// The next message; nothing once the stream is over.
    async fn next<T: Message + Default>(&mut self) -> Option<T> {
        loop {
            if let Some(length) = self.data.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap());
                let end = 5 + usize::try_from(length).unwrap();
                if self.data.len() >= end {
                    let frame = self.data.split_to(end);
                    return exeat::wire::decoded(&frame[5..]).ok();
                }
            }
            match self.frame() {
                Some((frame::DATA, _, payload)) => self.data.extend_from_slice(&payload),
                Some((kind @ (frame::SETTINGS | frame::PING), 0, payload)) => {
                    let payload = if kind == frame::PING {
                        &payload[..]
                    } else {
                        &[]
                    };
                    let mut out = BytesMut::new();
                    put_frame(&mut out, kind, frame::ACKNOWLEDGES, 0, payload);
                    self.socket.write_all(&out).await.ok()?;
                }
                Some((frame::HEADERS, flags, _)) if flags & frame::END_STREAM != 0 => return None,
                Some((frame::RESET | frame::GO_AWAY, ..)) => return None,
                Some(_) => {}
                None => {
                    if self.socket.read_buf(&mut self.read).await.ok()? == 0 {
                        return None;
                    }
                }
            }
        }
    }

    /// A frame that has come as a whole.
    fn frame(&mut self) -> Option<(u8, u8, BytesMut)> {
        let head: [u8; 9] = self.read.get(..9)?.try_into().unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if self.read.len() < 9 + length {
            return None;
        }
        let mut whole = self.read.split_to(9 + length);
        Some((head[3], head[4], whole.split_off(9)))
    }
}

/// The sidecars that are there, each once however often it came.
#[derive(Clone)]
struct Live(watch::Sender<BTreeSet<usize>>);

impl Live {
    fn new() -> (Self, watch::Receiver<BTreeSet<usize>>) {
        let (sender, receiver) = watch::channel(BTreeSet::new());
        (Self(sender), receiver)
    }

    fn add(&self, own: usize) {
        self.0.send_modify(|known| {
            known.insert(own);
        });
    }

    /// From now on those count who come anew.
    fn forget(&self) {
        self.0.send_modify(BTreeSet::clear);
    }
}

/// When removals came, and word of it once all that are waited for have: whoever waits is not woken
/// by each.
#[derive(Debug, Default)]
struct Arrivals {
    came: Mutex<Vec<(u64, Timestamp)>>,
    wanted: AtomicUsize,
    all: Notify,
}

impl Arrivals {
    fn add(&self, sequence: u64, at: Timestamp) {
        let mut came = self.came.lock().unwrap();
        came.push((sequence, at));
        if came.len() == self.wanted.load(Ordering::SeqCst) {
            self.all.notify_one();
        }
    }

    /// Forgets what came, and waits for so many from now on.
    fn expect(&self, wanted: usize) {
        self.came.lock().unwrap().clear();
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    async fn all(&self) -> Vec<(u64, Timestamp)> {
        self.all.notified().await;
        std::mem::take(&mut *self.came.lock().unwrap())
    }
}

/// What watchers have been sent.
#[derive(Debug, Default)]
struct Drained {
    deltas: AtomicU64,
    objects: AtomicU64,
}

/// What a sidecar may hold.
fn scope(of: usize) -> Vec<String> {
    if std::env::vars().any(|of| of == ("FLEET_SCOPES".into(), "own".into())) {
        return vec!["subject:agent".to_owned(), format!("demand:subject:f{of}")];
    }
    vec!["*".to_owned()]
}

/// A sidecar's other two connections: it watches from where everybody is, and has nothing to report.
async fn watch_idly(
    address: String,
    token: String,
    (era, revision): (v1::Era, u64),
    own: usize,
    drained: Arc<Drained>,
    live: Live,
) {
    let mut at = revision;
    loop {
        let watching = Stream::begin(&address, "/exeat.v1.SyncService/Watch", &token).await;
        let reporting = Stream::begin(&address, "/exeat.v1.SyncService/Report", &token).await;
        let (Ok(mut watching), Ok(reporting)) = (watching, reporting) else {
            tokio::time::sleep(Duration::from_millis(50 + dice() % 200)).await;
            continue;
        };
        let request = v1::WatchRequest {
            scope: scope(own).join(" "),
            era: Some(era.clone()),
            revision: at,
            ..v1::WatchRequest::default()
        };
        if watching
            .send_one(&request, frame::END_STREAM)
            .await
            .is_err()
        {
            continue;
        }
        let mut joined = false;
        while let Some(message) = watching.next::<v1::WatchResponse>().await {
            let Some(watch_response::Event::Delta(signed)) = message.event else {
                // All is sent anew to who was away too long; that is measured elsewhere.
                continue;
            };
            let delta: v1::DeltaStatement = exeat::wire::decoded(&signed.statement).unwrap();
            at = delta.through;
            drained.deltas.fetch_add(1, Ordering::Relaxed);
            let objects = delta.objects.len() as u64;
            drained.objects.fetch_add(objects, Ordering::Relaxed);
            // Resumed, and once for each connection.
            if !joined {
                joined = true;
                live.add(own);
            }
        }
        drop(reporting);
    }
}

/// One sidecar that attends: pings, acknowledges, and tells when removals come; again and again.
async fn attend(address: String, token: String, own: usize, heard: Arc<Arrivals>, live: Live) {
    let mut sequence = 0;
    loop {
        let Ok(stream) = Stream::begin(&address, "/exeat.v1.SyncService/Attend", &token).await
        else {
            // Spread, as a sidecar's are.
            tokio::time::sleep(Duration::from_millis(50 + dice() % 200)).await;
            continue;
        };
        let _over = attended(stream, own, &mut sequence, &heard, &live).await;
    }
}

async fn attended(
    mut stream: Stream,
    own: usize,
    sequence: &mut u64,
    heard: &Arrivals,
    live: &Live,
) -> Option<()> {
    let hello = v1::Hello {
        boot_nonce: vec![1; 16],
        ..v1::Hello::default()
    };
    stream
        .send(attend_request::Event::Hello(hello))
        .await
        .ok()?;
    let clock = Clock::system();
    let (mut spread, mut joined) = (0, false);
    let (mut ping_at, mut owed_at) = (Instant::now(), None);
    let mut timer = std::pin::pin!(tokio::time::sleep_until(ping_at));
    loop {
        let due = owed_at.map_or(ping_at, |owed: Instant| owed.min(ping_at));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        tokio::select! {
            biased;
            message = stream.next::<v1::AttendResponse>() => match message?.event? {
                attend_response::Event::Removals(signed) => {
                    let at = clock.now().latest;
                    let statement: v1::RemovalsStatement =
                        exeat::wire::decoded(&signed.statement).unwrap();
                    *sequence = statement.through;
                    heard.add(*sequence, at);
                    // As a sidecar does; that it has it on disk by then is not modelled.
                    let half = spread * 500;
                    let later = Duration::from_micros(half + dice() % (half + 1));
                    owed_at = Some(Instant::now() + later);
                }
                attend_response::Event::Welcome(welcome) => {
                    spread = u64::from(welcome.acknowledge_ms);
                }
                // Once for each connection: who waits for all of them counts none twice.
                attend_response::Event::Heartbeat(_) => if !joined {
                    joined = true;
                    live.add(own);
                }
            },
            () = &mut timer => {
                let mut ping = v1::Ping {
                    acknowledged: Some(v1::Head { revision: 0, sequence: *sequence }),
                    ..v1::Ping::default()
                };
                if due == ping_at {
                    ping.nonce = vec![7; 16];
                    ping_at += Duration::from_secs(5);
                }
                owed_at = None;
                stream.send(attend_request::Event::Ping(ping)).await.ok()?;
            }
        }
    }
}

/// When each removal was committed, as the registry logs it.
fn committed(log: &Path) -> BTreeMap<u64, Timestamp> {
    let text = std::fs::read_to_string(log).unwrap();
    let told = text.lines().filter(|line| line.contains("committed"));
    let mut committed = BTreeMap::new();
    for line in told {
        let (time, rest) = line.split_once(' ').unwrap();
        let (_, sequence) = rest.rsplit_once("sequence=").unwrap();
        // Changes of other objects say the same sequence later.
        let time = Timestamp::parse(time).unwrap();
        committed.entry(sequence.parse().unwrap()).or_insert(time);
    }
    committed
}

/// Spread well enough, and cheap: a thousand streams draw one with each removal (splitmix64).
fn dice() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let mut z = DRAWN.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A thread on which all that attend have their turns: they are many and have little to do, and what
/// is measured is not how they move from one core to another.
fn lane() -> tokio::runtime::Handle {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(bench());
}

async fn connect(address: &str, data: &Path) -> Client {
    loop {
        if let Ok(token) = std::fs::read_to_string(data.join("admin.token"))
            && let Ok(channel) = Endpoint::from_shared(format!("http://{address}"))
                .unwrap()
                .connect()
                .await
        {
            return Client::over(channel, &token);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench owns its tasks")]
async fn bench() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, log) = (scratch.path().join("r"), scratch.path().join("log"));
    let address = format!("127.0.0.1:{}", free_port());
    let serve = || {
        run(
            &[
                "registry",
                "--data",
                data.to_str().unwrap(),
                "--listen",
                &address,
                "--operations",
                "127.0.0.1:0",
                "--log",
                "warn,exeat::registry::core=debug",
            ],
            &log,
        )
    };
    let mut registry = serve();
    let mut client = connect(&address, &data).await;
    let now = Clock::system().now().latest;
    let until = (now + governed::seconds(86_400)).to_string();
    // Each for an action of its own, so that its revocation is seen in an answer, and from a control
    // of its own: that an exception holds elsewhere is recorded of each that its control has.
    let (mut many, mut controls) = (String::new(), String::new());
    for n in 0..600 {
        let (id, action) = (format!("CT-{n}"), format!("risky-{n}"));
        controls += &control(&id, &action, "true");
        many += &exception_until(&format!("EX-{n}"), &id, "agent", &until)
            .replace("actions: [risky]", &format!("actions: [{action}]"));
    }
    let many = many.replace("2026-11-22T11:00:00Z", &now.to_string());
    let world = control("CT-RISKY", "risky", "true")
        + &control("CT-PLAIN", "plain", "false")
        + &subject("agent", None);
    let world = world.replace("2026-11-22T11:59:00Z", &now.to_string());
    client
        .apply(&(world.clone() + &controls + &many))
        .await
        .unwrap();
    let token = client
        .let_in("service:fleet", v1::Role::Sidecar, &["*"])
        .await;
    let most: usize = std::env::vars()
        .find(|(name, _)| name == "FLEET_SIDECARS")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(1_000);

    // A real sidecar that answers a thousand Checks a second all the while.
    let key = client
        .fleet
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .key_pin;
    let own = client
        .let_in("service:real", v1::Role::Sidecar, &["*"])
        .await;
    let real = governed::Sidecar::start(
        &scratch.path().join("s"),
        &address,
        &key,
        &own,
        Clock::system(),
    )
    .await
    .unwrap();
    real.until("agent", "risky-0", "ALLOW_BY_EXCEPTION").await;
    let real = Arc::new(real);
    let (about, wanted) = watch::channel("plain".to_owned());
    let (refused, mut refusals) = mpsc::unbounded_channel();
    let checks = tokio::spawn({
        let real = Arc::clone(&real);
        async move { real.ask_often_about("agent", wanted, refused, 1_000).await }
    });

    println!(
        "revocation, from its commit to its arrival at every stream, and to the first refusal of a sidecar that is asked a thousand times a second (ms)"
    );
    println!(
        "{:>9} {:>8} {:>8} {:>8} {:>8} {:>11} {:>11}",
        "sidecars", "p50", "p99", "max", "all at", "refused p50", "refused p99"
    );
    let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
    let era = status.unwrap().into_inner().era.unwrap();
    let drained = Arc::new(Drained::default());
    let (watched, mut watches) = Live::new();
    let arrivals = Arc::new(Arrivals::default());
    let (live, mut lives) = Live::new();
    let lane = lane();
    let mut streams = 0;
    let mut next = 0;
    let before = resident(&registry);
    for wanted in [1, 100, 1_000].into_iter().filter(|wanted| *wanted <= most) {
        let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
        let revision = status.unwrap().into_inner().head.unwrap().revision;
        // Each stream is a sidecar of its own: an identity has one connection.
        for at in streams..wanted {
            let scope = scope(at);
            let scope: Vec<_> = scope.iter().map(String::as_str).collect();
            let token = client
                .let_in(&format!("service:f{at}"), v1::Role::Sidecar, &scope)
                .await;
            tokio::spawn(watch_idly(
                address.clone(),
                token.clone(),
                (era.clone(), revision),
                at,
                Arc::clone(&drained),
                watched.clone(),
            ));
            lane.spawn(attend(
                address.clone(),
                token,
                at,
                Arc::clone(&arrivals),
                live.clone(),
            ));
        }
        streams = wanted;
        lives.wait_for(|known| known.len() == wanted).await.unwrap();
        if wanted == 1_000 {
            // Whoever came first stands first in line. Now all come in any order, the real one too.
            live.forget();
            drop(registry);
            registry = serve();
            lives.wait_for(|known| known.len() == wanted).await.unwrap();
            client = connect(&address, &data).await;
            let connected = |status: v1::GetStatusResponse| status.sidecars_connected;
            let everybody = u32::try_from(wanted).unwrap() + 1;
            loop {
                let status = client.fleet.get_status(v1::GetStatusRequest {}).await;
                if connected(status.unwrap().into_inner()) == everybody {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let rounds = if wanted < 100 { 100 } else { 40 };
        let (mut seen, mut refused) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // Acknowledgements of the one before are in.
            tokio::time::sleep(Duration::from_millis(200)).await;
            arrivals.expect(wanted);
            about.send(format!("risky-{next}")).unwrap();
            let receipt = client.revoke(&format!("EX-{next}")).await.unwrap();
            next += 1;
            seen.extend(arrivals.all().await);
            let sequence = receipt.removal.unwrap().sequence;
            refused.push((sequence, refusals.recv().await.unwrap()));
            about.send("plain".into()).unwrap();
        }
        let committed = committed(&log);
        let (mut times, mut ends) = (Vec::new(), Vec::new());
        let mut rounds: BTreeMap<u64, Vec<(u64, Timestamp)>> = BTreeMap::new();
        for (sequence, at) in seen {
            rounds.entry(sequence).or_default().push((sequence, at));
        }
        for round in rounds.values() {
            let mut last = 0.0_f64;
            for (sequence, at) in round {
                let took = (*at - committed[sequence]).as_secs_f64() * 1e3;
                last = last.max(took);
                times.push(took);
            }
            ends.push(last);
        }
        let mut refused: Vec<_> = refused
            .into_iter()
            .map(|(sequence, at)| (at - committed[&sequence]).as_secs_f64() * 1e3)
            .collect();
        times.sort_by(f64::total_cmp);
        ends.sort_by(f64::total_cmp);
        refused.sort_by(f64::total_cmp);
        println!(
            "{wanted:>9} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>11.2} {:>11.2}",
            quantile(&times, 0.5),
            quantile(&times, 0.99),
            quantile(&times, 1.0),
            quantile(&ends, 0.5),
            quantile(&refused, 0.5),
            quantile(&refused, 0.99)
        );
    }
    // Settled, as an idle fleet is.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let after = resident(&registry);
    println!(
        "memory of the registry: {} MiB, {:.3} MB a sidecar",
        after / 1_024,
        (after.saturating_sub(before) * 1_024) as f64 / 1e6 / streams as f64
    );

    live.forget();
    watched.forget();
    drop(registry);
    let down = Instant::now();
    registry = serve();
    lives
        .wait_for(|known| known.len() == streams)
        .await
        .unwrap();
    let heard_at = down.elapsed().as_secs_f64();
    // A watch that goes on tells nothing until something changes.
    let mut client = connect(&address, &data).await;
    client.revoke(&format!("EX-{next}")).await.unwrap();
    watches
        .wait_for(|known| known.len() == streams)
        .await
        .unwrap();
    println!(
        "after kill -9 and restart all {streams} are heard again within {heard_at:.2} s, and watch again within {:.2} s",
        down.elapsed().as_secs_f64()
    );
    drop(token);

    // A decision's latency while metadata pours in.
    let mut quiet = real.ask_often_for("agent", "plain", 2_000).await;
    let before = (
        drained.deltas.load(Ordering::Relaxed),
        drained.objects.load(Ordering::Relaxed),
    );
    let poured = tokio::spawn(async move {
        let began = Instant::now();
        let mut changes = 0_u64;
        for round in 0..20 {
            let text: String = (0..2_000)
                .map(|n| {
                    subject(&format!("agent-{n}"), None)
                        .replace("11:59:00", &format!("11:{round:02}:00"))
                })
                .collect();
            client.apply(&text).await.unwrap();
            changes += 2_000;
        }
        changes as f64 / began.elapsed().as_secs_f64()
    });
    let mut busy = real.ask_often_for("agent", "plain", 4_000).await;
    let rate = poured.await.unwrap();
    for (name, times) in [("quiet", &mut quiet), ("busy", &mut busy)] {
        times.sort_by(f64::total_cmp);
        println!(
            "Check while {name}: p50 {:.3} ms, p99 {:.3} ms",
            quantile(times, 0.5),
            quantile(times, 0.99)
        );
    }
    println!("metadata changes taken by the registry meanwhile: {rate:.0} a second");
    let since = |count: &AtomicU64, before: u64| (count.load(Ordering::Relaxed) - before) as f64;
    println!(
        "watched meanwhile by {streams}: {:.0} deltas, {:.0} objects a second",
        since(&drained.deltas, before.0) / 40_000.0 * rate,
        since(&drained.objects, before.1) / 40_000.0 * rate
    );
    checks.abort();
    drop(registry);
    while_changes_arrive(&scratch, &world).await;
    cold_start(&scratch, &world, &until, &now.to_string()).await;
}

/// A decision's latency while 10,000 metadata changes a second arrive: signed as the registry signs
/// them, a hundred to a change, and made beforehand.
async fn while_changes_arrive(scratch: &tempfile::TempDir, world: &str) {
    const CHANGES: u64 = 500;
    const EACH: u64 = 100;
    let clock = Clock::system();
    let whole = liar::Whole::of(world);
    let signer = liar::signer();
    let bundle =
        exeat::manifest::Bundle::read_files([("a.yaml".to_owned(), subject("agent-@", None))])
            .unwrap();
    let manifest = bundle.objects().unwrap()[0].1.clone();
    let mut sum = Sum::from_slice(&whole.statement.sum).unwrap();
    let mut deltas = Vec::new();
    for change in 0..CHANGES {
        let mut objects = Vec::new();
        for n in 0..EACH {
            let (id, revision) = (format!("agent-{n}"), change + 1);
            let text = |revision: u64| {
                let minute = format!("11:{:02}:00", revision % 60);
                manifest
                    .replace("agent-@", &id)
                    .replace("11:59:00", &minute)
            };
            if change > 0 {
                sum.remove(&part(2, &id, change, &text(change)));
            }
            sum.add(&part(2, &id, revision, &text(revision)));
            objects.push(v1::SyncObject {
                kind: v1::ObjectKind::Subject.into(),
                id: id.clone(),
                revision,
                manifest: text(revision),
            });
        }
        let statement = v1::DeltaStatement {
            era: Some(era_message(liar::era())),
            scope: "*".into(),
            after: change + 1,
            through: change + 2,
            objects,
            sum: sum.to_bytes().to_vec(),
            touched: Vec::new(),
            classes_changed: false,
            ledger: None,
        };
        deltas.push(signer.seal(Purpose::Delta, &statement));
    }
    let told = Arc::new(AtomicU64::new(1));
    let (going, go) = watch::channel(false);
    let events = whole.events(&signer);
    let counted = Arc::clone(&told);
    let said = move |_, _: &v1::WatchRequest| -> liar::Messages<v1::WatchResponse> {
        let (deltas, counted, mut go) = (deltas.clone(), Arc::clone(&counted), go.clone());
        let ticks = Duration::from_micros(1_000_000 * EACH / 10_000);
        let first = futures_util::stream::iter(events.clone().into_iter().map(Ok));
        let rest = async move {
            go.wait_for(|go| *go).await.unwrap();
            let began = Instant::now();
            futures_util::stream::iter((0_u32..).zip(deltas)).then(move |(n, signed)| {
                let counted = Arc::clone(&counted);
                async move {
                    tokio::time::sleep_until(began + ticks * n).await;
                    counted.store(u64::from(n) + 2, Ordering::SeqCst);
                    Ok(v1::WatchResponse {
                        event: Some(watch_response::Event::Delta(signed)),
                    })
                }
            })
        };
        let rest = futures_util::stream::once(rest).flatten();
        Box::pin(first.chain(rest).chain(futures_util::stream::pending()))
    };
    let (feed, _greeted, _nacked) = liar::Liar::new(clock.clone(), Box::new(said));
    *feed.beat.lock().unwrap() = Box::new(move |mut said| {
        said.head = Some(v1::Head {
            revision: told.load(Ordering::SeqCst),
            sequence: 0,
        });
        said
    });
    let address = feed.serve().await;
    let key = signer.pin().to_string();
    let data = scratch.path().join("poured");
    let sidecar = governed::Sidecar::start(&data, &address, &key, "t", clock)
        .await
        .unwrap();
    sidecar.until("agent", "plain", "ALLOW").await;
    let mut quiet = sidecar.ask_often_for("agent", "plain", 2_000).await;
    going.send_replace(true);
    let mut busy = sidecar.ask_often_for("agent", "plain", 4_500).await;
    for (name, times) in [
        ("quiet", &mut quiet),
        ("10,000 changes a second arrive", &mut busy),
    ] {
        times.sort_by(f64::total_cmp);
        println!(
            "Check while {name}: p50 {:.3} ms, p99 {:.3} ms",
            quantile(times, 0.5),
            quantile(times, 0.99)
        );
    }
    let began = Instant::now();
    sidecar.until("agent-1", "plain", "ALLOW").await;
    let page = sidecar.page("/metrics").await;
    let line = page
        .lines()
        .find(|line| line.starts_with("exeat_snapshot_revision "));
    println!(
        "  {} of {CHANGES} in force, {:.2} s after the last was due",
        line.unwrap_or("nothing"),
        began.elapsed().as_secs_f64()
    );
}

/// From exec to the first correct answer with 100,000 exceptions on disk and no registry.
async fn cold_start(scratch: &tempfile::TempDir, world: &str, until: &str, now: &str) {
    let clock = Clock::system();
    let data = scratch.path().join("big");
    let registry = Registry::start(&data, clock.clone()).await;
    let mut client = registry.client().await;
    client.apply(world).await.unwrap();
    let one =
        exception_until("EX-@", "CT-RISKY", "agent", until).replace("2026-11-22T11:00:00Z", now);
    for part in 0..10 {
        let text: String = (0..10_000)
            .map(|n| {
                one.replace("EX-@", &format!("EX-{part}-{n}"))
                    .replace("[\"agent\"]", &format!("[\"agent-{part}-{}\"]", n % 1_000))
            })
            .collect();
        client.apply(&text).await.unwrap();
    }
    let token = client
        .let_in("service:cold", v1::Role::Sidecar, &["*"])
        .await;
    let folder = scratch.path().join("cold");
    let mut first =
        governed::Sidecar::start(&folder, &registry.address, &registry.key, &token, clock)
            .await
            .unwrap();
    let began = Instant::now();
    first.until("agent", "plain", "ALLOW").await;
    println!(
        "100,000 exceptions over the wire and in force: {:.2} s",
        began.elapsed().as_secs_f64()
    );
    first.process.stop().await;
    let (port, operations) = (free_port(), free_port());
    let (listen, operate) = (
        format!("127.0.0.1:{port}"),
        format!("127.0.0.1:{operations}"),
    );
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let process = run(
            &[
                "sidecar",
                "--registry",
                "127.0.0.1:1",
                "--registry-key",
                &registry.key,
                "--registry-token-file",
                folder.with_extension("token").to_str().unwrap(),
                "--data",
                folder.to_str().unwrap(),
                "--listen",
                &listen,
                "--operations",
                &operate,
                "--unix",
                "none",
                "--insecure-asserted-identity",
                "--log",
                "warn",
            ],
            &scratch.path().join("log"),
        );
        let sidecar = governed::Sidecar::at(&listen, &operate);
        loop {
            if let Ok(decision) = sidecar.try_ask("agent", "plain").await
                && decision.outcome() == v1::Outcome::Allow
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
        println!(
            "  {:.0} ms, {} MiB",
            times.last().unwrap(),
            resident(&process) / 1_024
        );
    }
    times.sort_by(f64::total_cmp);
    println!(
        "cold start to the first correct answer: {:.0} ms median",
        quantile(&times, 0.5)
    );
}
