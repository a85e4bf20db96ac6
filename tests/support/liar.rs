//! A registry with the right key that says what it is told to.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use exeat::{
    domain::{Era, LogId},
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
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

pub type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
pub type Watch = Box<dyn FnMut(usize, &v1::WatchRequest) -> Messages<v1::WatchResponse> + Send>;
pub type Beginning = Box<dyn FnMut(v1::EpochStatement) -> v1::EpochStatement + Send>;
pub type Beat = Box<dyn FnMut(v1::HeartbeatStatement) -> v1::HeartbeatStatement + Send>;

pub fn era() -> Era {
    Era {
        log: LogId([9; 16]),
        epoch: 1,
    }
}

/// A registry that says what a test wants it to.
#[derive(Clone)]
pub struct Liar {
    pub signer: Arc<Signer>,
    pub clock: Clock,
    /// What is said to the n-th watcher, from 0.
    pub watch: Arc<Mutex<Watch>>,
    /// What becomes of an honest heartbeat.
    pub beat: Arc<Mutex<Beat>>,
    /// What becomes of an honest beginning.
    pub beginning: Arc<Mutex<Beginning>>,
    pub watches: Arc<Mutex<usize>>,
    pub greetings: mpsc::UnboundedSender<u64>,
    pub nacks: mpsc::UnboundedSender<(u64, v1::Nack)>,
    /// Sent on each greeting, right after it.
    pub first: Arc<Mutex<Vec<attend_response::Event>>>,
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
        Ok(Response::new((self.watch.lock().unwrap())(turn, &request)))
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
                            ..v1::EpochStatement::default()
                        };
                        let epoch = (liar.beginning.lock().unwrap())(epoch);
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
                            ledger: None,
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

    async fn reserve(
        &self,
        _: Request<Received<v1::ReserveRequest>>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A set of objects as a signed snapshot at revision 1, one object a chunk.
#[derive(Clone)]
pub struct Whole {
    pub statement: v1::SnapshotStatement,
    pub chunks: Vec<v1::Chunk>,
}

impl Whole {
    pub fn of(text: &str) -> Self {
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
            bytes: chunks.iter().map(|chunk| chunk.content.len() as u64).sum(),
            sum: sum.to_bytes().to_vec(),
            time: None,
            first_exceptions: first,
            ledger: None,
        };
        Self { statement, chunks }
    }

    pub fn events(&self, signer: &Signer) -> Vec<v1::WatchResponse> {
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

/// The key it has.
pub fn signer() -> Arc<Signer> {
    Arc::new(Signer::of_seed(&[3; 32]).unwrap())
}

impl Liar {
    /// One that is honest until told otherwise, and what it hears: greetings, and refusals.
    pub fn new(
        clock: Clock,
        watch: Watch,
    ) -> (
        Self,
        mpsc::UnboundedReceiver<u64>,
        mpsc::UnboundedReceiver<(u64, v1::Nack)>,
    ) {
        let (greetings, greeted) = mpsc::unbounded_channel();
        let (nacks, nacked) = mpsc::unbounded_channel();
        let liar = Self {
            signer: signer(),
            clock,
            watch: Arc::new(Mutex::new(watch)),
            beat: Arc::new(Mutex::new(Box::new(|honest| honest))),
            beginning: Arc::new(Mutex::new(Box::new(|honest| honest))),
            watches: Arc::default(),
            greetings,
            nacks,
            first: Arc::default(),
        };
        (liar, greeted, nacked)
    }

    /// Answers from now on; where.
    pub async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = Server::builder()
            .add_service(SyncServiceServer::new(self.clone()).max_decoding_message_size(1 << 20))
            .serve_with_incoming(TcpListenerStream::new(listener));
        #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
        tokio::spawn(served);
        address
    }
}
