//! A registry that holds the right key and means no good, or a wire that does: whatever comes, no
//! exception is honoured by it, and compliant calls go on (reliability §4.6).

#[path = "support/governed.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unreachable_pub
)]
mod governed;

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use exeat::{
    domain::{Era, LogId, Span},
    engine::{Sum, part},
    manifest::Bundle,
    runtime::clock::Clock,
    wire::{
        Received, encoded,
        signed::{Purpose, Signer, sha256},
        sync::{era_message, kind_message, stamp},
        v1::{
            self, attend_request, attend_response,
            sync_service_server::{SyncService, SyncServiceServer},
            watch_response,
        },
    },
};
use futures_util::{Stream, StreamExt, stream};
use governed::{Sidecar, control, noon, world};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

const EXCEPTED: &str = "ALLOW_BY_EXCEPTION OK";
const OFF: &str = "EXC_LEASE_LAPSED";

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Watch = Box<dyn FnMut(usize, &v1::WatchRequest) -> Vec<v1::WatchResponse> + Send>;
type Beat = Box<dyn FnMut(v1::HeartbeatStatement) -> v1::HeartbeatStatement + Send>;

fn era() -> Era {
    Era {
        log: LogId([9; 16]),
        epoch: 1,
    }
}

/// A registry that says what a test wants it to.
#[derive(Clone)]
struct Liar {
    signer: Arc<Signer>,
    clock: Clock,
    /// What is said to the n-th watcher, from 0; the stream then stays open.
    watch: Arc<Mutex<Watch>>,
    /// What becomes of an honest heartbeat.
    beat: Arc<Mutex<Beat>>,
    /// Whether a watch ends once everything is said.
    ends: bool,
    watches: Arc<Mutex<usize>>,
    greetings: mpsc::UnboundedSender<u64>,
    nacks: mpsc::UnboundedSender<(u64, v1::Nack)>,
    /// Sent on each greeting, right after it.
    first: Arc<Mutex<Vec<attend_response::Event>>>,
}

#[tonic::async_trait]
impl SyncService for Liar {
    type WatchStream = Messages<v1::WatchResponse>;
    type AttendStream = Messages<v1::AttendResponse>;
    type ReportStream = Messages<v1::ReportResponse>;

    async fn watch(
        &self,
        request: Request<Received<v1::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner().message.unwrap();
        let turn = {
            let mut turns = self.watches.lock().unwrap();
            *turns += 1;
            *turns - 1
        };
        let said = (self.watch.lock().unwrap())(turn, &request);
        let said = stream::iter(said.into_iter().map(Ok));
        Ok(Response::new(if self.ends && turn == 0 {
            Box::pin(said)
        } else {
            Box::pin(said.chain(stream::pending()))
        }))
    }

    async fn attend(
        &self,
        request: Request<Streaming<Received<v1::AttendRequest>>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let mut incoming = request.into_inner();
        let (down, messages) = mpsc::unbounded_channel();
        let liar = self.clone();
        let turn = u64::try_from(*self.watches.lock().unwrap()).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
        tokio::spawn(async move {
            let say = |event| {
                let message = v1::AttendResponse { event: Some(event) };
                down.send(Ok(message)).unwrap_or_default();
            };
            while let Some(Ok(Received { message, .. })) = incoming.next().await {
                match message.unwrap().event {
                    Some(attend_request::Event::Hello(_)) => {
                        let epoch = v1::EpochStatement {
                            era: Some(era_message(era())),
                            base: Some(v1::Head::default()),
                        };
                        say(attend_response::Event::Welcome(v1::Welcome {
                            epoch: Some(liar.signer.seal(Purpose::Epoch, &epoch)),
                            ping_ms: 100,
                            ..v1::Welcome::default()
                        }));
                        liar.greetings.send(turn).unwrap_or_default();
                        for event in liar.first.lock().unwrap().iter().cloned() {
                            say(event);
                        }
                    }
                    Some(attend_request::Event::Ping(ping)) if !ping.nonce.is_empty() => {
                        let honest = v1::HeartbeatStatement {
                            era: Some(era_message(era())),
                            head: Some(v1::Head {
                                revision: 1,
                                sequence: 0,
                            }),
                            time: Some(stamp(liar.clock.now().latest)),
                            nonce: ping.nonce,
                        };
                        let said = (liar.beat.lock().unwrap())(honest);
                        let signed = liar.signer.seal(Purpose::Heartbeat, &said);
                        say(attend_response::Event::Heartbeat(signed));
                    }
                    Some(attend_request::Event::Nack(nack)) => {
                        liar.nacks.send((turn, nack)).unwrap_or_default();
                    }
                    _ => {}
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            messages,
        ))))
    }

    async fn report(
        &self,
        _: Request<Streaming<Received<v1::ReportRequest>>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch(
        &self,
        _: Request<Received<v1::FetchRequest>>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A set of objects as a signed snapshot at revision 1, one object a chunk.
struct Whole {
    statement: v1::SnapshotStatement,
    chunks: Vec<v1::Chunk>,
}

impl Whole {
    fn of(text: &str) -> Self {
        let bundle = Bundle::read_files([("w.yaml".to_owned(), text.to_owned())]).unwrap();
        let mut objects = bundle.objects().unwrap();
        objects.sort_by_key(|(name, ..)| (name.kind.name() == "Exception", name.clone()));
        let (mut sum, mut chunks, mut first) = (Sum::default(), Vec::new(), 0);
        for (number, (name, manifest, _)) in (0_u32..).zip(&objects) {
            sum.add(&part(name.kind.number(), &name.id, 1, manifest));
            first += u32::from(name.kind.name() != "Exception");
            let list = v1::ObjectList {
                objects: vec![v1::SyncObject {
                    kind: kind_message(name.kind),
                    id: name.id.to_string(),
                    revision: 1,
                    manifest: manifest.clone(),
                }],
            };
            let content = encoded(&list);
            chunks.push(v1::Chunk { number, content });
        }
        let statement = v1::SnapshotStatement {
            era: Some(era_message(era())),
            revision: 1,
            scope: "*".into(),
            chunk_digests: chunks
                .iter()
                .map(|chunk| sha256(&chunk.content).to_vec())
                .collect(),
            bytes: 1,
            sum: sum.to_bytes().to_vec(),
            time: None,
            first_exceptions: first,
        };
        Self { statement, chunks }
    }

    fn events(&self, signer: &Signer) -> Vec<v1::WatchResponse> {
        let signed = signer.seal(Purpose::Snapshot, &self.statement);
        let chunks = self
            .chunks
            .iter()
            .cloned()
            .map(watch_response::Event::Chunk);
        [watch_response::Event::Snapshot(signed)]
            .into_iter()
            .chain(chunks)
            .map(|event| v1::WatchResponse { event: Some(event) })
            .collect()
    }
}

struct Scene {
    sidecar: Sidecar,
    clock: Clock,
    signer: Arc<Signer>,
    liar: Liar,
    greetings: mpsc::UnboundedReceiver<u64>,
    nacks: mpsc::UnboundedReceiver<(u64, v1::Nack)>,
    _scratch: tempfile::TempDir,
}

impl Scene {
    /// A sidecar that follows a liar, who says what `watch` makes.
    async fn with(
        ends: bool,
        watch: impl FnMut(usize, &v1::WatchRequest) -> Vec<v1::WatchResponse> + Send + 'static,
    ) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let signer = signer();
        let (greetings, greeted) = mpsc::unbounded_channel();
        let (nacks, nacked) = mpsc::unbounded_channel();
        let liar = Liar {
            signer: Arc::clone(&signer),
            clock: clock.clone(),
            watch: Arc::new(Mutex::new(Box::new(watch))),
            beat: Arc::new(Mutex::new(Box::new(|honest| honest))),
            ends,
            watches: Arc::default(),
            greetings,
            nacks,
            first: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = Server::builder()
            .add_service(SyncServiceServer::new(liar.clone()).max_decoding_message_size(1 << 20))
            .serve_with_incoming(TcpListenerStream::new(listener));
        #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
        tokio::spawn(served);
        let key = signer.pin().to_string();
        let data = scratch.path().join("s");
        let sidecar = Sidecar::start(&data, &address, &key, "t", clock.clone())
            .await
            .unwrap();
        Self {
            sidecar,
            clock,
            signer,
            liar,
            greetings: greeted,
            nacks: nacked,
            _scratch: scratch,
        }
    }

    fn beats(
        &self,
        beat: impl FnMut(v1::HeartbeatStatement) -> v1::HeartbeatStatement + Send + 'static,
    ) {
        *self.liar.beat.lock().unwrap() = Box::new(beat);
    }

    /// Waits until the sidecar has counted a refusal.
    async fn refused(&self, reason: &str) {
        let wanted = format!("exeat_registry_refused_total{{reason=\"{reason}\"}}");
        self.counted(&wanted).await;
    }

    async fn counted(&self, wanted: &str) {
        let mut page = String::new();
        for _ in 0..2_000 {
            page = self.sidecar.page("/metrics").await;
            if page.contains(wanted) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{wanted} is not in {page}");
    }
}

fn signer() -> Arc<Signer> {
    Arc::new(Signer::of_seed(&[3; 32]).unwrap())
}

/// Everything is right: what the others differ from.
#[tokio::test]
async fn an_honest_liar_is_believed() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn a_head_beyond_reason_is_refused_and_poisons_nothing() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    scene.beats(|mut said| {
        said.head = Some(v1::Head {
            revision: 1,
            sequence: u64::MAX,
        });
        said
    });
    scene.refused("far_ahead").await;
    scene.sidecar.until("agent", "risky", OFF).await;
    assert_eq!(scene.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    // It was not taken for the truth: an honest head is believed afterwards.
    scene.beats(|honest| honest);
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn a_time_beyond_reason_is_refused() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let far = noon() + Span::from_hours(49);
    scene.beats(move |mut said| {
        said.time = Some(stamp(far));
        said
    });
    scene.refused("far_ahead").await;
    scene.clock.advance(Span::from_secs(301));
    scene.sidecar.until("agent", "risky", OFF).await;
    scene.beats(|honest| honest);
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn a_chunk_of_another_snapshot_is_never_put_in_force() {
    let signer = signer();
    let (whole, other) = (
        Whole::of(&world()),
        Whole::of(&world().replace("2026-11-28", "2026-11-27")),
    );
    let scene = Scene::with(false, move |turn, _| {
        let mut spliced = whole.events(&signer);
        if turn < 4 {
            let last = other.chunks.last().cloned().unwrap();
            *spliced.last_mut().unwrap() = v1::WatchResponse {
                event: Some(watch_response::Event::Chunk(last)),
            };
        }
        spliced
    })
    .await;
    scene.refused("unreadable").await;
    // Nothing of it was in force before it came whole.
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let last = scene.liar.watches.lock().unwrap();
    assert!(*last > 4, "{last} watches");
}

#[tokio::test]
async fn a_change_of_another_history_or_with_another_outcome_is_not_taken() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = {
        let signer = Arc::clone(&signer);
        Scene::with(false, move |turn, _| {
            let mut events = whole.events(&signer);
            let mut statement = v1::DeltaStatement {
                era: Some(era_message(era())),
                scope: "*".into(),
                after: 1,
                through: 2,
                objects: vec![v1::SyncObject {
                    kind: v1::ObjectKind::Control.into(),
                    id: "CT-RISKY".into(),
                    revision: 2,
                    manifest: String::new(),
                }],
                // What was before: the removal of a control cannot come to that.
                sum: whole.statement.sum.clone(),
                touched: Vec::new(),
            };
            if turn == 1 {
                let log = LogId([8; 16]);
                statement.era = Some(era_message(Era { log, epoch: 1 }));
            }
            if turn < 2 {
                events.push(v1::WatchResponse {
                    event: Some(watch_response::Event::Delta(
                        signer.seal(Purpose::Delta, &statement),
                    )),
                });
            }
            events
        })
        .await
    };
    scene
        .counted("exeat_registry_resyncs_total{reason=\"digest\"} 1")
        .await;
    scene
        .counted("exeat_registry_resyncs_total{reason=\"era\"} 1")
        .await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn endless_data_is_not_taken_in() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |turn, _| match turn {
        0 => {
            let statement = v1::SnapshotStatement {
                bytes: u64::MAX,
                ..whole.statement.clone()
            };
            let signed = signer.seal(Purpose::Snapshot, &statement);
            vec![v1::WatchResponse {
                event: Some(watch_response::Event::Snapshot(signed)),
            }]
        }
        1 => {
            let statement = v1::SnapshotStatement {
                chunk_digests: vec![vec![0; 32]; 100_001],
                ..whole.statement.clone()
            };
            let signed = signer.seal(Purpose::Snapshot, &statement);
            vec![v1::WatchResponse {
                event: Some(watch_response::Event::Snapshot(signed)),
            }]
        }
        // More chunks than were announced.
        2 => {
            let mut events = whole.events(&signer);
            let last = events.last().cloned().unwrap();
            events.splice(1..1, std::iter::repeat_n(last, 1_000));
            events
        }
        // A message larger than any.
        3 => vec![v1::WatchResponse {
            event: Some(watch_response::Event::Chunk(v1::Chunk {
                number: 0,
                content: vec![0; 65 << 20],
            })),
        }],
        _ => whole.events(&signer),
    })
    .await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    assert!(*scene.liar.watches.lock().unwrap() > 4);
}

#[tokio::test]
async fn a_transfer_that_was_cut_goes_on_where_it_was() {
    let signer = signer();
    let whole = Whole::of(&world());
    let digest = sha256(&signer.seal(Purpose::Snapshot, &whole.statement).statement).to_vec();
    let asked: Arc<Mutex<Vec<(Vec<u8>, u32)>>> = Arc::default();
    let heard = Arc::clone(&asked);
    let scene = Scene::with(true, move |turn, request| {
        heard
            .lock()
            .unwrap()
            .push((request.snapshot_digest.clone(), request.next_chunk));
        let events = whole.events(&signer);
        if turn == 0 {
            return events[..3].to_vec();
        }
        // The statement, and what was still missing.
        let rest = usize::try_from(request.next_chunk).unwrap() + 1;
        [&events[..1], &events[rest..]].concat()
    })
    .await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let asked = asked.lock().unwrap();
    assert_eq!(asked[..2], [(vec![], 0), (digest, 2)]);
}

#[tokio::test]
async fn what_cannot_be_taken_is_told_again_at_each_greeting() {
    let signer = signer();
    let text = world() + &control("CT-ODD", "odd", "true");
    let mut whole = Whole::of(&text);
    // A control in a language of a later version.
    for (chunk, digest) in whole
        .chunks
        .iter_mut()
        .zip(&mut whole.statement.chunk_digests)
    {
        let mut list: v1::ObjectList = exeat::wire::decoded(&chunk.content).unwrap();
        for object in list
            .objects
            .iter_mut()
            .filter(|object| object.id == "CT-ODD")
        {
            object.manifest = object.manifest.replace(
                "\"failure_condition\":\"true\"",
                "\"failure_condition\":\"later()\"",
            );
        }
        chunk.content = encoded(&list);
        *digest = sha256(&chunk.content).to_vec();
    }
    let mut sum = Sum::default();
    for chunk in &whole.chunks {
        let list: v1::ObjectList = exeat::wire::decoded(&chunk.content).unwrap();
        for object in list.objects {
            let kind = u8::try_from(object.kind).unwrap();
            sum.add(&part(kind, &object.id, 1, &object.manifest));
        }
    }
    whole.statement.sum = sum.to_bytes().to_vec();
    let mut scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    let (_, nack) = scene.nacks.recv().await.unwrap();
    assert_eq!(nack.id, "CT-ODD");
    // S13: within its scope it cannot be told, elsewhere nothing changes.
    scene.sidecar.until("agent", "odd", "CONTROL_ERROR").await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    scene.greetings.recv().await.unwrap();
    // A message nobody understands ends the connection.
    let broken = scene.signer.seal(Purpose::Removals, &v1::Head::default());
    *scene.liar.first.lock().unwrap() = vec![attend_response::Event::Removals(broken)];
    scene.beats(|mut said| {
        said.era = None;
        said
    });
    scene.greetings.recv().await.unwrap();
    *scene.liar.first.lock().unwrap() = Vec::new();
    scene.beats(|honest| honest);
    let (_, again) = scene.nacks.recv().await.unwrap();
    assert_eq!(again.id, "CT-ODD");
}
