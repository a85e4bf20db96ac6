//! What is told of decisions and events, on its way to receivers. Nobody waits for it: what a
//! receiver does not take in time is lost, and counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Outcome, Timestamp, Trace, Usage},
    runtime::{
        clock::Clock,
        collector::{Collector, Refusal, Target},
    },
    telemetry::{
        Sending,
        names::{self, otel},
    },
};

use super::{
    metrics::metrics,
    outbox::{Batch, Outbox},
    proto::{Found, Value, Writer, find},
    records::{self, Answered, ControlRun, Failed, Place, StateChange},
    settings::{Sampler, Settings},
};

/// How long is waited after a first refusal that may pass; twice that after each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(30);
/// How long the last of it may take once told to stop.
const LAST: Duration = Duration::from_secs(3);

/// A kind of telemetry with its method and the fields of its messages, which are numbered alike.
#[derive(Clone, Copy, Debug)]
struct Signal {
    name: &'static str,
    path: &'static str,
}

const SPANS: Signal = Signal {
    name: "spans",
    path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
};
const EVENTS: Signal = Signal {
    name: "events",
    path: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
};
const METRICS: Signal = Signal {
    name: "metrics",
    path: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
};

#[derive(Debug)]
struct Lane {
    signal: Signal,
    collector: Collector,
    outbox: Outbox,
    delay: Duration,
}

/// Telemetry on its way out; nothing of it where nothing is asked for.
#[derive(Debug)]
pub struct Exporter {
    spans: Option<Lane>,
    events: Option<Lane>,
    metrics: Option<Lane>,
    sampler: Sampler,
    /// The resource and the scope, as every message begins.
    head: Vec<u8>,
    scope: Vec<u8>,
    told: Sending,
    clock: Clock,
    begun: Timestamp,
    salt: u64,
    failures: AtomicU64,
}

impl Exporter {
    /// Gets ready to tell what `settings` ask for of a process that is a `service`, a `sidecar` or
    /// a `registry`. `salt` is of this start alone.
    ///
    /// # Errors
    ///
    /// Certificates or keys that cannot be read.
    pub fn new(
        settings: Settings,
        component: &str,
        salt: u64,
        told: Sending,
        clock: Clock,
    ) -> Result<Option<Arc<Self>>, String> {
        let (head, scope) = head(&settings.resource, component, salt);
        let lane = |target: Option<Target>, signal: Signal, delay| {
            target
                .map(|target| {
                    let at = target.url.to_string();
                    tracing::info!(signal = signal.name, to = at, "telemetry is sent");
                    Collector::new(target).map(|collector| Lane {
                        signal,
                        collector,
                        outbox: Outbox::default(),
                        delay,
                    })
                })
                .transpose()
        };
        let begun = clock.now().latest;
        let exporter = Self {
            spans: lane(settings.traces, SPANS, settings.span_delay)?,
            events: lane(settings.logs, EVENTS, settings.log_delay)?,
            metrics: lane(settings.metrics, METRICS, settings.metric_interval)?,
            sampler: settings.sampler,
            head,
            scope,
            told,
            clock,
            begun,
            salt,
            failures: AtomicU64::new(0),
        };
        let any = [&exporter.spans, &exporter.events, &exporter.metrics];
        Ok(any
            .iter()
            .any(|lane| lane.is_some())
            .then(|| Arc::new(exporter)))
    }

    fn add(&self, lane: &Lane, record: &[u8]) {
        let lost = lane.outbox.add(record);
        if lost > 0 {
            self.told.lost(lane.signal.name, "full", lost);
        }
    }

    /// Tells of a decision, the `number`-th.
    pub fn decision(&self, number: u64, told: &Answered<'_>) {
        let place = self.place(number, told.trace);
        let mut record = Vec::with_capacity(1_024);
        if let Some(lane) = &self.spans
            && (told.decision.outcome != Outcome::Allow
                || !told.decision.failed.is_empty()
                || self.sampler.keeps(place, told.trace))
        {
            records::decision_span(&mut record, place, told);
            self.add(lane, &record);
        }
        if let Some(lane) = &self.events {
            record.clear();
            records::decision_event(&mut record, place, told);
            if !told.decision.drift.is_empty() {
                self.add(lane, &record);
                record.clear();
                records::context_event(&mut record, place, told);
            }
            self.add(lane, &record);
        }
    }

    /// Tells of a call that had no decision.
    pub fn failed(&self, failed: &Failed) {
        // Decisions and failures are numbered apart.
        let number = self.failures.fetch_add(1, Ordering::Relaxed);
        let place = self.place(!number, failed.trace);
        if let Some(lane) = &self.spans {
            let mut record = Vec::with_capacity(256);
            records::failed_span(&mut record, place, failed);
            self.add(lane, &record);
        }
        self.event(|record| records::failed_event(record, place, failed));
    }

    fn event(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(lane) = &self.events {
            let mut record = Vec::with_capacity(512);
            write(&mut record);
            self.add(lane, &record);
        }
    }

    /// Tells what became of exceptions.
    pub fn usages(&self, usages: &[Usage]) {
        for usage in usages {
            self.event(|record| records::usage_event(record, usage));
        }
    }

    /// Tells of an exception that went from one state to another.
    pub fn state(&self, time: Timestamp, change: &StateChange<'_>) {
        self.event(|record| records::state_event(record, time, change));
    }

    /// Tells of a control that ran.
    pub fn run(&self, time: Timestamp, run: &ControlRun<'_>) {
        self.event(|record| records::run_event(record, time, run));
    }

    /// The trace of a call and the span of its answer; nobody else's, since they are mixed from
    /// this start's salt.
    fn place(&self, number: u64, trace: Option<Trace>) -> Place {
        let mixed = |n: u64| mix(self.salt ^ mix(number.wrapping_add(n << 56))).to_be_bytes();
        Place {
            trace: trace.map_or_else(
                || {
                    let mut id = [0; 16];
                    let halves = mixed(1).into_iter().chain(mixed(2));
                    id.iter_mut().zip(halves).for_each(|(to, from)| *to = from);
                    id
                },
                |trace| trace.trace,
            ),
            span: mixed(0),
            parent: trace.map(|trace| trace.span),
        }
    }

    /// Sends spans until stopped, and then what is left.
    pub async fn send_spans(self: Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        self.send(self.spans.as_ref(), stop).await;
        Ok(())
    }

    /// Sends events until stopped, and then what is left.
    pub async fn send_events(self: Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        self.send(self.events.as_ref(), stop).await;
        Ok(())
    }

    /// Sends the page of metrics now and then until stopped, and then once more.
    pub async fn send_metrics(
        self: Arc<Self>,
        page: impl Fn() -> String + Send,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let Some(lane) = &self.metrics else {
            stop.cancelled().await;
            return Ok(());
        };
        loop {
            let last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                () = sleep(lane.delay) => false,
            };
            let mut batch = Batch::default();
            batch.count = metrics(
                &mut batch.records,
                &page(),
                self.begun,
                self.clock.now().latest,
            );
            // An older page is of no use once there is a newer one: it is not tried again for long.
            let within = if last { LAST } else { lane.delay };
            self.deliver(lane, batch, sleep(within)).await;
            if last {
                return Ok(());
            }
        }
    }

    /// Brings the metrics of what waits up to date.
    pub fn measure(&self) {
        for lane in [&self.spans, &self.events].into_iter().flatten() {
            let waits = lane.outbox.bytes();
            self.told.waits(lane.signal.name, waits);
        }
    }

    async fn send(&self, lane: Option<&Lane>, stop: CancellationToken) {
        let Some(lane) = lane else {
            return stop.cancelled().await;
        };
        while !stop.is_cancelled() {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                batch = lane.outbox.next(lane.delay) => batch,
            };
            let given_up = async {
                stop.cancelled().await;
                sleep(LAST).await;
            };
            self.deliver(lane, batch, given_up).await;
        }
        let end = async {
            loop {
                let batch = lane.outbox.rest();
                if batch.count == 0 {
                    return;
                }
                self.deliver(lane, batch, std::future::pending()).await;
            }
        };
        // What is not taken by then is lost with the process, which says so.
        if tokio::time::timeout(LAST, end).await.is_err() {
            tracing::warn!(
                signal = lane.signal.name,
                "telemetry was lost at the end: its receiver does not take it"
            );
        }
    }

    /// Sends a batch, again and again where that may help, until it is taken or `given_up`.
    async fn deliver(&self, lane: &Lane, batch: Batch, given_up: impl Future<Output = ()>) {
        if batch.count == 0 {
            return;
        }
        let signal = lane.signal;
        let message = self.message(&batch.records);
        tokio::pin!(given_up);
        let mut pause = PAUSE;
        let mut told = false;
        loop {
            let sent = tokio::select! {
                biased;
                sent = lane.collector.send(signal.path, message.clone()) => sent,
                () = &mut given_up => {
                    return self.told.lost(signal.name, "unreachable", batch.count);
                }
            };
            let Refusal { why, again } = match sent {
                Ok(answer) => return self.taken(signal, &answer, batch.count),
                Err(refusal) => refusal,
            };
            let Some(after) = again else {
                tracing::warn!(
                    signal = signal.name,
                    why,
                    lost = batch.count,
                    "telemetry is refused"
                );
                return self.told.lost(signal.name, "refused", batch.count);
            };
            if !told {
                tracing::warn!(
                    signal = signal.name,
                    why,
                    "telemetry is not taken; it is tried again, and what does not fit is counted in {}_total",
                    names::TELEMETRY_LOST
                );
                told = true;
            }
            let wait = after.unwrap_or(pause).min(LONGEST * 10);
            pause = (pause * 2).min(LONGEST);
            tokio::select! {
                () = sleep(wait) => {}
                () = &mut given_up => {
                    return self.told.lost(signal.name, "unreachable", batch.count);
                }
            }
        }
    }

    /// Counts what was taken, and what of it was not after all.
    fn taken(&self, signal: Signal, answer: &[u8], count: u64) {
        let mut rejected = 0;
        if let Some(Found::Bytes(partial)) = find(answer, 1) {
            if let Some(Found::Number(n)) = find(partial, 1) {
                rejected = n.min(count);
            }
            let why = match find(partial, 2) {
                Some(Found::Bytes(why)) => String::from_utf8_lossy(why).into_owned(),
                Some(Found::Number(_)) | None => String::new(),
            };
            if rejected > 0 || !why.is_empty() {
                tracing::warn!(
                    signal = signal.name,
                    why,
                    rejected,
                    "a receiver took a part of the telemetry"
                );
            }
        }
        if rejected > 0 {
            self.told.lost(signal.name, "rejected", rejected);
        }
        self.told.sent(signal.name, count.saturating_sub(rejected));
    }

    /// The whole message around some records.
    fn message(&self, records: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(records.len().saturating_add(1_024));
        Writer(&mut out).message(1, |resource| {
            resource.bytes(1, &self.head);
            resource.message(2, |scoped| {
                scoped.bytes(1, &self.scope);
                scoped.0.extend_from_slice(records);
                scoped.text(3, otel::SCHEMA);
            });
            resource.text(3, otel::SCHEMA);
        });
        out.into()
    }
}

impl Sampler {
    /// Whether a plain allow is kept.
    fn keeps(self, place: Place, trace: Option<Trace>) -> bool {
        if let Some(trace) = trace.filter(|_| self.parent) {
            return trace.sampled;
        }
        // By the trace's own chance, so that all of it is kept or nothing.
        let [.., b0, b1, b2, b3, b4, b5, b6] = place.trace;
        let chance = u64::from_be_bytes([0, b0, b1, b2, b3, b4, b5, b6]);
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^56 parts are told apart to 2^53"
        )]
        let part = chance as f64 / (1_u64 << 56) as f64;
        part < self.ratio
    }
}

/// A bijection that leaves no pattern (splitmix64's finalizer).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// What a process is known by, and what made the telemetry.
fn head(resource: &[(String, String)], component: &str, salt: u64) -> (Vec<u8>, Vec<u8>) {
    let mut known: Vec<(&str, String)> = vec![
        (otel::SERVICE, "exeat".into()),
        (otel::SERVICE_VERSION, env!("CARGO_PKG_VERSION").into()),
        (otel::SERVICE_INSTANCE, format!("{component}-{salt:016x}")),
        ("telemetry.sdk.language", "rust".into()),
        ("telemetry.sdk.name", "exeat".into()),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").into()),
    ];
    known.retain(|(name, _)| resource.iter().all(|(set, _)| set != name));
    let mut head = Vec::new();
    let set = resource.iter().map(|(name, value)| (name.as_str(), value));
    for (name, value) in known.iter().map(|(name, value)| (*name, value)).chain(set) {
        Writer(&mut head).attribute(1, name, Value::Text(value));
    }
    let mut scope = Vec::new();
    Writer(&mut scope).text(1, otel::SCOPE);
    Writer(&mut scope).text(2, env!("CARGO_PKG_VERSION"));
    (head, scope)
}
