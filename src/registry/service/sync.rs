//! `exeat.v1.SyncService`: what sidecars follow.

use std::{collections::VecDeque, pin, sync::Arc};

use futures_util::{Stream, StreamExt, stream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    domain::{Era, Head, Invalid, Removal},
    engine::attendance::{Entered, STARTS, Start},
    registry::{
        attendants::{Attendant, Attendants},
        authn::{Caller, Guests},
        core::Registry,
        notifications::Deliveries,
        publication::Publication,
        view::View,
        way::acknowledge_ms,
    },
    runtime::publish::Changes,
    wire::{
        Fault, Received,
        signed::{Pin, Purpose, Trust},
        sync::{era, head, head_message, nonce_of, removal, start},
        v1::{self, attend_request, attend_response},
    },
};

use super::{
    opened,
    proof::{Proven, Witnessed, proven, witnessed},
    report::Reporting,
    usage::UsageCalls,
    watching::{At, Watcher},
};

/// How often sidecars send a nonce, in milliseconds.
const PING: u32 = 5_000;
/// Sidecars let in again a second, after a restart.
const ARRIVALS: usize = 500;

/// Waited for as long as the stream lives: made anew for each message, a thousand streams would
/// stand in line for one lock.
pub(super) type Ended = pin::Pin<Box<WaitForCancellationFutureOwned>>;

type Messages<T> = pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers sidecars.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(in crate::registry) registry: Arc<Registry>,
    pub(in crate::registry) publication: Arc<Publication>,
    pub(in crate::registry) attendants: Arc<Attendants>,
    pub(in crate::registry) guests: Arc<Guests>,
    pub(in crate::registry) stop: CancellationToken,
    /// Where it is told what callers saw; nowhere in a simulation.
    pub(in crate::registry) deliveries: Option<Deliveries>,
    /// Where uses of exceptions are kept; nowhere in a simulation.
    pub(in crate::registry) recording: Option<UsageCalls>,
    /// Where access is asked for over HTTP, if it is.
    pub(in crate::registry) access: Option<Arc<str>>,
}

/// A sidecar that attends.
struct Attending {
    sync: Sync,
    /// With the start that it greeted as, unless another has taken its place.
    caller: Caller,
    start: Start,
    era: Era,
    sent: u64,
    /// When it was last looked up whether it is still let in.
    looked: Option<u64>,
    incoming: Streaming<Received<v1::AttendRequest>>,
    changes: Changes,
    connection: CancellationToken,
    ended: Ended,
    waiting: VecDeque<v1::AttendResponse>,
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.connection.cancel();
    }
}

fn down(event: attend_response::Event) -> v1::AttendResponse {
    v1::AttendResponse { event: Some(event) }
}

impl Attending {
    /// The next message; nothing at the end. Removals go ahead of everything.
    async fn next(&mut self) -> Result<Option<v1::AttendResponse>, Fault> {
        loop {
            let view = self.sync.registry.view();
            if view.beginning.era != self.era {
                return Err(Fault::Conflict("a new epoch has begun".into()));
            }
            if let Some(why) = &view.read_only {
                return Err(Fault::Precondition(format!(
                    "the registry is read-only: {why}"
                )));
            }
            // What was taken back is told whoever is about to be told nothing more: it only removes.
            if view.head.sequence > self.sent
                && !matches!(
                    self.waiting.front().map(|m| &m.event),
                    Some(Some(attend_response::Event::Welcome(_)))
                )
            {
                let publication = &self.sync.publication;
                let (signed, through) = publication.removals(&self.sync.registry, &view, self.sent);
                self.sent = through;
                return Ok(Some(down(attend_response::Event::Removals(
                    (*signed).clone(),
                ))));
            }
            self.sync
                .still_since(&self.caller, &view, &mut self.looked)?;
            if let Some(message) = self.waiting.pop_front() {
                return Ok(Some(message));
            }
            tokio::select! {
                biased;
                // A removal first; whether it is over is looked at once nothing has changed.
                () = self.changes.changed() => {}
                () = &mut self.ended => {
                    if self.sync.stop.is_cancelled() {
                        return Ok(None);
                    }
                    return Err(Fault::Conflict("another sidecar with this identity has come".into()));
                }
                message = self.incoming.next() => match message {
                    None | Some(Err(_)) => return Ok(None),
                    // Seldom, and a large one: whoever waits for removals does not carry it along.
                    Some(Ok(Received { message, .. })) => Box::pin(self.hear(message?)).await?,
                },
            }
        }
    }

    async fn hear(&mut self, message: v1::AttendRequest) -> Result<(), Fault> {
        use attend_request::Event;
        let registry = &self.sync.registry;
        let name = &*self.caller.identity;
        // What it says of itself would count for the one that has taken its place.
        if self.caller.start.is_none() && !matches!(message.event, Some(Event::GiveBack(_))) {
            return Err(fenced());
        }
        match message.event {
            Some(Event::Ping(ping)) => {
                if let Some(recording) = &self.sync.recording {
                    recording.usages.told(name, &self.start, &ping);
                }
                if !ping.nonce.is_empty() {
                    let nonce = nonce_of(&ping.nonce).map_err(Fault::Invalid)?;
                    let heartbeat = registry.heartbeat(name, &self.start, nonce).await?;
                    let heartbeat = heartbeat.ok_or_else(fenced)?;
                    let event = attend_response::Event::Heartbeat(heartbeat);
                    self.waiting.push_back(down(event));
                }
                if let Some(acknowledged) = ping.acknowledged {
                    let acknowledged = head(Some(&acknowledged)).map_err(Fault::Invalid)?;
                    if acknowledged.exceeds(registry.view().head) {
                        let fix = "acknowledge what was sent";
                        let what = "is beyond what this registry has sent";
                        return Err(Fault::Invalid(Invalid::new("acknowledged", what, fix)));
                    }
                    let mut attendance = registry.attendance();
                    if attendance.fenced(name, &self.start) {
                        return Err(fenced());
                    }
                    attendance.drained(name, acknowledged.sequence);
                    self.sync.attendants.acknowledge(name, acknowledged);
                    drop(attendance);
                }
            }
            Some(Event::Nack(mut nack)) => {
                nack.reason
                    .truncate(nack.reason.floor_char_boundary(1 << 10));
                tracing::warn!(
                    sidecar = name,
                    id = nack.id,
                    reason = nack.reason,
                    "a sidecar cannot take an object in"
                );
                self.sync.attendants.nack(name, nack);
            }
            Some(Event::GiveBack(given)) => {
                let trust = registry.trust().await?;
                let mut removals = Vec::new();
                for signed in &given.removals {
                    match given_back(&trust, self.era, signed) {
                        Ok(more) => removals.extend(more),
                        Err(why) => {
                            tracing::warn!(
                                sidecar = name,
                                why,
                                "a removal that is given back is not ours"
                            );
                        }
                    }
                }
                let lost = registry.take_in(name, removals).await?;
                if lost > 0 {
                    tracing::warn!(
                        sidecar = name,
                        lost,
                        "removals that were lost have been given back"
                    );
                }
            }
            Some(Event::Hello(_)) => {
                let fix = "say it once, at the beginning";
                return Err(Fault::Invalid(Invalid::new("hello", "came twice", fix)));
            }
            None => {
                let fix = "use a sidecar of this version";
                return Err(Fault::Invalid(Invalid::new("event", "is not known", fix)));
            }
        }
        Ok(())
    }
}

/// The removals of a statement that this log once signed.
fn given_back(trust: &Trust, ours: Era, signed: &v1::Signed) -> Result<Vec<Removal>, String> {
    let statement: v1::RemovalsStatement = trust
        .open(Purpose::Removals, Some(signed))
        .map_err(|error| error.to_string())?;
    let of = era(statement.era.as_ref()).map_err(|error| error.to_string())?;
    if of.log != ours.log {
        return Err("it is of another log".into());
    }
    let removals = statement.removals.into_iter().map(removal);
    removals
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// Why no nonce of a start that another has taken the place of is answered.
fn fenced() -> Fault {
    Fault::Fenced(
        "another sidecar with this identity has come since; give each an identity of its own"
            .into(),
    )
}

impl Sync {
    /// Whether a sidecar is still let in, with the scope it came with, and none has taken its place.
    pub(super) fn still(&self, caller: &Caller) -> Result<(), Fault> {
        let name = &*caller.identity;
        self.guests.welcome(name).map_err(Fault::Unauthenticated)?;
        if self.guests.scope_of(name).as_deref() != Some(&*caller.scope) {
            return Err(Fault::Unauthenticated(
                "this sidecar is no longer let in as it was; come again".into(),
            ));
        }
        let start = caller.start.as_ref();
        if start.is_some_and(|start| self.registry.attendance().fenced(name, start)) {
            return Err(fenced());
        }
        Ok(())
    }

    /// The same of one that was looked up before: only where somebody came or went since. A removal
    /// goes out to a thousand, and nobody stands in line for a lock to hear what they heard before.
    pub(super) fn still_since(
        &self,
        caller: &Caller,
        view: &View,
        looked: &mut Option<u64>,
    ) -> Result<(), Fault> {
        // What changes while it is looked up is looked up again.
        let now = self.registry.turnover(view);
        if *looked != Some(now) {
            self.still(caller)?;
            *looked = Some(now);
        }
        Ok(())
    }

    /// Takes in the start that a sidecar greets as; tells whether another has taken its place.
    async fn enters(
        &self,
        identity: &str,
        boot: &[u8],
        over: &[Vec<u8>],
    ) -> Result<(Start, bool), Fault> {
        let invalid = |error: Invalid| Fault::Invalid(error.under("hello"));
        let begun = start(boot).map_err(invalid)?;
        let over = over.iter().rev().take(STARTS);
        let over = over
            .map(|start_| start(start_))
            .collect::<Result<Vec<_>, _>>();
        let over = over.map_err(invalid)?;
        let entered = self.registry.attends(identity, begun, &over).await?;
        match entered {
            Entered::Known | Entered::New | Entered::Fenced => {}
            Entered::Fencing => {
                self.registry.witness.metrics.fenced();
                tracing::warn!(
                    sidecar = identity,
                    "another start of this sidecar has come, and does not hold the folder of the one before: that one is fenced; if both run, give each an identity of its own"
                );
            }
        }
        Ok((begun, entered == Entered::Fenced))
    }

    async fn greet(
        &self,
        mut caller: Caller,
        mut incoming: Streaming<Received<v1::AttendRequest>>,
    ) -> Result<Attending, Fault> {
        let first = match incoming.next().await {
            Some(Ok(Received { message, .. })) => message?.event,
            Some(Err(_)) | None => None,
        };
        let Some(attend_request::Event::Hello(hello)) = first else {
            let fix = "begin with it";
            return Err(Fault::Invalid(Invalid::new("hello", "is missing", fix)));
        };
        let changes = self.registry.changes();
        let (view, _) = self.registry.cohort(&caller.scope).await?;
        let ours = view.beginning.era;
        let held = hello.held.map_or_else(Head::default, |held| Head {
            revision: held.revision,
            sequence: held.sequence,
        });
        let theirs = hello
            .era
            .as_ref()
            .map(|of| era(Some(of)).map_err(Fault::Invalid))
            .transpose()?;
        if let Some(theirs) = theirs {
            if theirs.log != ours.log {
                return Err(Fault::Precondition(format!(
                    "`{}` follows log {}, and this is log {}; if the registry was replaced, remove the sidecar's data",
                    caller.identity, theirs.log, ours.log
                )));
            }
            let trust = self.registry.trust().await?;
            let proof = hello.proof.unwrap_or_default();
            let seen = witnessed(&proof, &trust, &self.registry).await?;
            let lost = |view: &View| {
                if seen == Witnessed::Differs {
                    return Some(format!(
                        "`{}` saw another ledger, in this registry's own words: the file was changed by something else than this program; put the right one back",
                        caller.identity
                    ));
                }
                let what = match proven(&proof, &caller, &trust, view, &self.registry) {
                    Proven::Fits => return None,
                    Proven::Beyond(of, at) => format!(
                        "`{}` holds {of} revision {} and removal {} in this registry's own words, and it has come to {ours} revision {} and removal {}",
                        caller.identity,
                        at.revision,
                        at.sequence,
                        view.head.revision,
                        view.head.sequence
                    ),
                    Proven::Forked(at) => format!(
                        "`{}` holds another history in this registry's own words, at revision {} or removal {}",
                        caller.identity, at.revision, at.sequence
                    ),
                };
                Some(format!(
                    "{what}: it was put back from an older copy; run `exeat registry recover`"
                ))
            };
            if lost(&view).is_some()
                && let Some(why) = self.registry.stop_writing_if(lost).await
            {
                return Err(Fault::Precondition(why));
            }
            let beyond = theirs.epoch > ours.epoch || (theirs == ours && held.exceeds(view.head));
            if beyond {
                // Whoever has no proof stops nobody else.
                tracing::error!(sidecar = %caller.identity, revision = held.revision, sequence = held.sequence, "it says it holds more than this registry, and cannot prove it; if the registry was put back from an older copy, run `exeat registry recover`");
                return Err(Fault::Precondition(
                    "this sidecar says it holds more than the registry and cannot prove it".into(),
                ));
            }
        }
        if let Some(why) = &view.read_only {
            return Err(Fault::Precondition(format!(
                "the registry is read-only: {why}"
            )));
        }
        let (begun, fenced) = self
            .enters(&caller.identity, &hello.boot_nonce, &hello.over)
            .await?;
        // Whoever is fenced is still let in: what is taken back is taken back there as well.
        caller.start = (!fenced).then_some(begun);
        let connection = self.stop.child_token();
        let known = if fenced {
            Head::default()
        } else {
            self.attendants.acknowledged(&caller.identity)
        };
        if theirs == Some(ours) && known.exceeds(held) {
            tracing::warn!(sidecar = %caller.identity, acknowledged = ?known, ?held, "it holds less than was acknowledged under its identity: an older copy of its data was put back, or two sidecars have one identity");
        }
        let attendant = Attendant {
            connection: connection.clone(),
            scope: caller.scope.to_string(),
            acknowledged: if theirs == Some(ours) {
                held
            } else {
                Head::default()
            },
            version: hello.version.chars().take(64).collect(),
            nacks: Vec::new(),
            denial_key: Pin::from_slice(&hello.denial_key).map(|pin| (pin.id(), pin)),
        };
        if fenced {
            let connection = connection.clone();
            self.attendants
                .enter_fenced(&caller.identity, begun, connection);
        } else {
            self.attendants.enter(&caller.identity, attendant);
        }
        let crowd = self.attendants.known().len() / ARRIVALS;
        let welcome = v1::Welcome {
            epoch: Some(self.registry.epoch_statement(&view, self.access.as_deref())),
            ping_ms: PING,
            jitter_ms: u32::try_from(crowd.max(1))
                .unwrap_or(60)
                .saturating_mul(1_000),
            keys: self.registry.key_statements().await?,
            scope: caller.scope.to_string(),
            acknowledge_ms: acknowledge_ms(&self.guests),
            acknowledged: Some(head_message(known)),
            fenced,
        };
        Ok(Attending {
            sync: self.clone(),
            caller,
            start: begun,
            era: ours,
            sent: if theirs == Some(ours) {
                held.sequence
            } else {
                0
            },
            looked: None,
            incoming,
            changes,
            ended: Box::pin(connection.clone().cancelled_owned()),
            connection,
            waiting: VecDeque::from([down(attend_response::Event::Welcome(welcome))]),
        })
    }
}

#[tonic::async_trait]
impl v1::sync_service_server::SyncService for Sync {
    type WatchStream = Messages<v1::WatchResponse>;
    type AttendStream = Messages<v1::AttendResponse>;
    type ReportStream = Messages<v1::ReportResponse>;

    async fn reserve(
        &self,
        request: Request<Received<v1::ReserveRequest>>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        let (caller, message) = opened(request)?;
        Ok(Response::new(self.reserved(&caller, message).await?))
    }

    async fn fetch(
        &self,
        request: Request<Received<v1::FetchRequest>>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        let (caller, message) = opened(request)?;
        Ok(Response::new(self.fetched(&caller, message)?))
    }

    async fn report(
        &self,
        request: Request<Streaming<Received<v1::ReportRequest>>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (_, mut extensions, incoming) = request.into_parts();
        let caller = extensions
            .remove::<Caller>()
            .ok_or_else(|| Fault::Unauthenticated("nobody vouches for the caller".into()))?;
        let reporting = Reporting {
            sync: self.clone(),
            caller,
            incoming,
        };
        let messages = stream::unfold(Some(reporting), |reporting| async {
            let mut reporting = reporting?;
            match reporting.next().await {
                Ok(message) => Some((Ok(message?), Some(reporting))),
                Err(fault) => Some((Err(fault.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn watch(
        &self,
        request: Request<Received<v1::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, message) = opened(request)?;
        let v1::WatchRequest {
            era: held,
            revision,
            snapshot_digest,
            next_chunk,
            at_least,
            scope,
        } = message;
        let changes = self.registry.changes_later();
        let (view, _) = self
            .registry
            .cohort(&caller.scope)
            .await
            .map_err(Fault::from)?;
        let ours = view.beginning.era;
        let same = held
            .as_ref()
            .map(|held| era(Some(held)).map_err(Fault::Invalid))
            .transpose()?
            == Some(ours)
            && scope == caller.scope.to_string();
        if at_least > view.head.revision {
            let why = "the sidecar holds more than this registry does";
            return Err(Fault::Precondition(why.into()).into());
        }
        let watcher = Watcher {
            at_least,
            looked: None,
            sync: self.clone(),
            caller,
            era: ours,
            at: if same && snapshot_digest.is_empty() {
                At::Revision(revision)
            } else {
                let cut = !snapshot_digest.is_empty();
                At::Nothing(cut.then_some((snapshot_digest, next_chunk)))
            },
            changes,
            stopping: Box::pin(self.stop.clone().cancelled_owned()),
        };
        // In a box: it is moved with each message.
        let messages = stream::unfold(Some(Box::new(watcher)), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(message) => Some((Ok(message?), Some(watcher))),
                Err(fault) => Some((Err(fault.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn attend(
        &self,
        request: Request<Streaming<Received<v1::AttendRequest>>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let (_, mut extensions, incoming) = request.into_parts();
        let caller = extensions
            .remove::<Caller>()
            .ok_or_else(|| Fault::Unauthenticated("nobody vouches for the caller".into()))?;
        let sync = self.clone();
        // The answer begins at once; what is heard first decides what it says.
        let messages = stream::unfold(
            Some(Err(Box::new((sync, caller, incoming)))),
            |state: Option<Result<Box<Attending>, Box<(Self, Caller, _)>>>| async {
                let mut attending = match state? {
                    Ok(attending) => attending,
                    Err(first) => {
                        let (sync, caller, incoming) = *first;
                        match Box::pin(sync.greet(caller, incoming)).await {
                            Ok(attending) => Box::new(attending),
                            Err(fault) => return Some((Err(fault.into()), None)),
                        }
                    }
                };
                match attending.next().await {
                    Ok(message) => Some((Ok(message?), Some(Ok(attending)))),
                    Err(fault) => Some((Err(fault.into()), None)),
                }
            },
        );
        Ok(Response::new(Box::pin(messages)))
    }
}
