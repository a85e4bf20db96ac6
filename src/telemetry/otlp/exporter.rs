//! What is told of decisions and events, on its way to receivers. Nobody waits for it: what a
//! receiver does not take in time is lost, and counted.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Outcome, Timestamp, Trace},
    runtime::{
        clock::Clock,
        collector::{Collector, Parts, Refusal, Target},
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
    records::{self, Answered, ControlRun, Failed, Place, StateChange, Used},
    settings::{Sampler, Settings},
};

/// How long is waited after a first refusal that may pass; twice that after each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(30);
/// A batch that nobody takes for so long is lost: newer ones tell more.
const OLDEST: Duration = Duration::from_mins(5);
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
                    let at = target.place();
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
        let mut place = self.place(number, told.trace);
        let mut record = Vec::with_capacity(1_536);
        place.kept = told.decision.outcome != Outcome::Allow
            || !told.decision.failed.is_empty()
            || self.sampler.keeps(place, told.trace);
        let spans = self.spans.as_ref().filter(|_| place.kept);
        let mut alike = Vec::with_capacity(1_024);
        if spans.is_some() || self.events.is_some() {
            records::alike(&mut alike, told);
        }
        if let Some(lane) = spans {
            records::decision_span(&mut record, place, (told, &alike));
            self.add(lane, &record);
        }
        if let Some(lane) = &self.events {
            record.clear();
            records::decision_event(&mut record, place, (told, &alike));
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

    /// Tells what became of an exception in the `number`-th decision, or in several.
    pub fn usage(&self, number: Option<u64>, used: &Used<'_>) {
        let place = number.map(|number| self.place(number, used.usage.trace));
        self.event(|record| records::usage_event(record, place, used));
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
            kept: true,
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
            let now = self.clock.now().latest;
            batch.count = metrics(&mut batch.records, &page(), self.begun, now);
            // An older page is of no use once there is a newer one: it is not tried again for long.
            let given_up = async {
                if last {
                    return sleep(LAST).await;
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(lane.delay) => {}
                }
            };
            tokio::pin!(given_up);
            self.deliver(lane, batch, given_up).await;
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
        // One time for all that is left: what is not taken by then is lost with the process.
        let given_up = async {
            stop.cancelled().await;
            sleep(LAST).await;
        };
        tokio::pin!(given_up);
        loop {
            let batch = if stop.is_cancelled() {
                lane.outbox.rest()
            } else {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => continue,
                    batch = lane.outbox.next(lane.delay) => batch,
                }
            };
            if batch.count == 0 && stop.is_cancelled() {
                return;
            }
            if !self.deliver(lane, batch, given_up.as_mut()).await {
                break;
            }
        }
        let rest = std::iter::repeat_with(|| lane.outbox.rest().count);
        let lost = rest.take_while(|count| *count > 0).sum();
        self.told.lost(lane.signal.name, "unreachable", lost);
        tracing::warn!(
            signal = lane.signal.name,
            lost,
            "telemetry was lost at the end, beside what was being sent: its receiver does not take it"
        );
    }

    /// Sends a batch, again and again where that may help, until it is taken or lost; false if it
    /// was `given_up`.
    async fn deliver(
        &self,
        lane: &Lane,
        batch: Batch,
        mut given_up: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        if batch.count == 0 {
            return true;
        }
        let (signal, count) = (lane.signal, batch.count);
        let message = self.message(batch.records);
        let began = Instant::now();
        let mut pause = PAUSE;
        let mut told = false;
        loop {
            let sent = tokio::select! {
                biased;
                sent = lane.collector.send(signal.path, message.clone()) => sent,
                () = given_up.as_mut() => {
                    self.told.lost(signal.name, "unreachable", count);
                    return false;
                }
            };
            let Refusal { why, again } = match sent {
                Ok(answer) => {
                    self.taken(signal, &answer, count);
                    return true;
                }
                Err(refusal) => refusal,
            };
            let old = began.elapsed() > OLDEST;
            let Some(after) = again.filter(|_| !old) else {
                tracing::warn!(
                    signal = signal.name,
                    why,
                    lost = count,
                    "telemetry is refused"
                );
                let reason = if old { "unreachable" } else { "refused" };
                self.told.lost(signal.name, reason, count);
                return true;
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
            let wait = after.unwrap_or(pause).clamp(PAUSE, OLDEST);
            pause = (pause * 2).min(LONGEST);
            tokio::select! {
                () = sleep(wait) => {}
                () = given_up.as_mut() => {
                    self.told.lost(signal.name, "unreachable", count);
                    return false;
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

    /// The whole message around some records, in parts: the records are not copied for it.
    fn message(&self, records: Vec<u8>) -> Parts {
        let (mut scope, mut schema) = (Vec::new(), Vec::new());
        Writer(&mut scope).bytes(1, &self.scope);
        Writer(&mut schema).text(3, otel::SCHEMA);
        let length = |parts: &[&Vec<u8>]| parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let mut resource = Vec::new();
        Writer(&mut resource).bytes(1, &self.head);
        Writer(&mut resource).opened(2, length(&[&scope, &records, &schema]));
        let mut before = Vec::new();
        let all = length(&[&resource, &scope, &records, &schema, &schema]);
        Writer(&mut before).opened(1, all);
        before.extend(resource.into_iter().chain(scope));
        let after = [schema.as_slice(), &schema].concat();
        [before.into(), records.into(), after.into()]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Governing;

    fn lost(told: &Governing) -> Option<u64> {
        let now = crate::domain::Now::exactly(Timestamp::from_micros(0));
        let held = crate::telemetry::Governed {
            exceptions: &[],
            pending: &[],
            sidecars: 0,
            gaps: 0,
            entries: 0,
            revision: 0,
            read_only: false,
        };
        let page = told.text(&held, now);
        let line = "exeat_telemetry_lost_total{signal=\"events\",reason=\"unreachable\"} ";
        let count = page.lines().find_map(|it| it.strip_prefix(line))?;
        count.parse().ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_at_the_end_is_counted() {
        let set = [("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://127.0.0.1:9")];
        let set: Vec<_> = set
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let settings = Settings::read(&set).unwrap();
        let told = Governing::new();
        let clock = Clock::manual(Timestamp::from_micros(1));
        let exporter = Exporter::new(settings, "registry", 7, told.sending(), clock)
            .unwrap()
            .unwrap();
        let change = StateChange {
            exception: "EX-1",
            revision: 1,
            tier: "LOW",
            from: "",
            to: "PENDING",
            actor: "actor:1",
        };
        // So many that some are under way and others wait.
        for _ in 0..10_000 {
            exporter.state(Timestamp::from_micros(1), &change);
        }
        let stop = CancellationToken::new();
        let sending = Arc::clone(&exporter).send_events(stop.clone());
        let stopping = async {
            sleep(Duration::from_secs(30)).await;
            assert_eq!(lost(&told), None, "it is tried again until then");
            stop.cancel();
        };
        let (sent, ()) = tokio::join!(sending, stopping);
        sent.unwrap();
        assert_eq!(lost(&told), Some(10_000));
        assert_eq!(exporter.events.as_ref().unwrap().outbox.bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_nobody_takes_makes_room_for_newer_ones() {
        let set = ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT".to_owned()].map(|name| {
            let url = "http://127.0.0.1:9".to_owned();
            (name, url)
        });
        let settings = Settings::read(&set).unwrap();
        let told = Governing::new();
        let clock = Clock::manual(Timestamp::from_micros(1));
        let exporter = Exporter::new(settings, "registry", 7, told.sending(), clock)
            .unwrap()
            .unwrap();
        let change = StateChange {
            exception: "EX-1",
            revision: 1,
            tier: "LOW",
            from: "",
            to: "PENDING",
            actor: "actor:1",
        };
        exporter.state(Timestamp::from_micros(1), &change);
        let stop = CancellationToken::new();
        let sending = Arc::clone(&exporter).send_events(stop.clone());
        let hour = async {
            sleep(Duration::from_hours(1)).await;
            assert_eq!(lost(&told), Some(1), "within five minutes of an hour");
            stop.cancel();
        };
        let (sent, ()) = tokio::join!(sending, hour);
        sent.unwrap();
    }
}
