//! A registry's instruments.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};
use prometheus_client::registry::Registry;

use crate::domain::{ControlId, Exception, Now, Span, Tier, Timestamp};

use super::{
    groups::{Granted, Sending, TierLabels, build},
    names, number,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControlLabels {
    control: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RunLabels {
    control: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeliveryLabels {
    endpoint: String,
    result: &'static str,
}

/// From a minute to a month, in seconds.
const WAITS: [f64; 9] = [
    60.0,
    300.0,
    900.0,
    3_600.0,
    14_400.0,
    86_400.0,
    259_200.0,
    604_800.0,
    2_592_000.0,
];

fn waits() -> Histogram {
    Histogram::new(WAITS)
}

/// A registry's metrics.
#[derive(Clone, Debug)]
pub struct Governing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    granted: Granted,
    pending: Family<TierLabels, Gauge>,
    oldest: Family<TierLabels, Gauge<f64, AtomicU64>>,
    approvals: Family<TierLabels, Histogram, fn() -> Histogram>,
    runs: Family<RunLabels, Counter>,
    failing: Family<ControlLabels, Gauge>,
    last_run: Family<ControlLabels, Gauge<f64, AtomicU64>>,
    deliveries: Family<DeliveryLabels, Counter>,
    entries: Counter,
    broken: Counter,
    fenced: Counter,
    sidecars: Gauge,
    gaps: Gauge,
    records: Counter,
    revision: Gauge,
    read_only: Gauge,
    sending: Sending,
}

/// What a registry holds when its metrics are read.
#[derive(Clone, Copy, Debug)]
pub struct Governed<'a> {
    /// Every exception.
    pub exceptions: &'a [&'a Exception],
    /// The tiers of the cases that wait for a decision, and since when they do.
    pub pending: &'a [(Tier, Timestamp)],
    /// Sidecars that attend.
    pub sidecars: usize,
    /// Records of uses that are missing, in ranges.
    pub gaps: usize,
    /// Entries of the ledger.
    pub entries: u64,
    /// The log's revision.
    pub revision: u64,
    /// Whether nothing may be changed.
    pub read_only: bool,
}

impl Default for Governing {
    fn default() -> Self {
        Self::new()
    }
}

impl Governing {
    /// Every instrument, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        build(&mut registry);
        let granted = Granted::default();
        granted.register(&mut registry);
        let sending = Sending::default();
        sending.register(&mut registry);
        let inner = Inner {
            granted,
            pending: Family::default(),
            oldest: Family::default(),
            approvals: Family::new_with_constructor(waits),
            runs: Family::default(),
            failing: Family::default(),
            last_run: Family::default(),
            deliveries: Family::default(),
            entries: Counter::default(),
            broken: Counter::default(),
            sidecars: Gauge::default(),
            fenced: Counter::default(),
            gaps: Gauge::default(),
            records: Counter::default(),
            revision: Gauge::default(),
            read_only: Gauge::default(),
            sending,
            registry,
        };
        Self {
            inner: Arc::new(inner.registered()),
        }
    }

    /// What is told of telemetry itself.
    pub fn sending(&self) -> Sending {
        self.inner.sending.clone()
    }

    /// A case that was decided after `waited`.
    pub fn decided(&self, tier: Tier, waited: Span) {
        let approvals = &self.inner.approvals;
        approvals
            .get_or_create(&TierLabels { tier: tier.name() })
            .observe(waited.as_secs_f64());
    }

    /// A control that ran, and how many subjects did not pass.
    pub fn ran(&self, control: &ControlId, failing: u64, at: Timestamp) {
        let inner = &self.inner;
        let result = if failing > 0 { "failing" } else { "passing" };
        let labels = || ControlLabels {
            control: control.to_string(),
        };
        let run = RunLabels {
            control: control.to_string(),
            result,
        };
        inner.runs.get_or_create_owned(&run).inc();
        inner
            .failing
            .get_or_create_owned(&labels())
            .set(number(failing));
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a time to come")]
        let seconds = at.micros() as f64 / 1e6;
        inner.last_run.get_or_create_owned(&labels()).set(seconds);
    }

    /// An attempt to tell an endpoint.
    pub fn delivered(&self, endpoint: &str, result: &'static str) {
        let labels = DeliveryLabels {
            endpoint: endpoint.to_owned(),
            result,
        };
        self.inner.deliveries.get_or_create_owned(&labels).inc();
    }

    /// Records of uses that came.
    pub fn recorded(&self, count: u64) {
        self.inner.records.inc_by(count);
    }

    /// A sidecar has come under the name of another that may still run.
    pub fn fenced(&self) {
        self.inner.fenced.inc();
    }

    /// The ledger is not the one that was signed.
    pub fn broken(&self) {
        self.inner.broken.inc();
    }

    /// Everything in the text format of Prometheus, as of `now`.
    pub fn text(&self, held: &Governed<'_>, now: Now) -> String {
        let inner = &*self.inner;
        inner.granted.tell(held.exceptions, now);
        for tier in Tier::ALL {
            let waiting = held.pending.iter().filter(|(of, _)| *of == tier);
            let labels = TierLabels { tier: tier.name() };
            let oldest = waiting.clone().map(|(_, since)| *since).min();
            let age = oldest.map_or(Span::ZERO, |since| (now.latest - since).max(Span::ZERO));
            inner.oldest.get_or_create(&labels).set(age.as_secs_f64());
            inner
                .pending
                .get_or_create(&labels)
                .set(number(waiting.count() as u64));
        }
        inner.sidecars.set(number(held.sidecars as u64));
        inner.gaps.set(number(held.gaps as u64));
        let entries = inner.entries.inner();
        entries.fetch_max(held.entries, Ordering::Relaxed);
        inner.revision.set(number(held.revision));
        inner.read_only.set(i64::from(held.read_only));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &inner.registry);
        text
    }
}

impl Inner {
    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            names::REQUESTS_PENDING,
            "Requests for exceptions that wait for a decision",
            self.pending.clone(),
        );
        registry.register(
            names::REQUESTS_PENDING_OLDEST,
            "How long the oldest request that waits for a decision has waited",
            self.oldest.clone(),
        );
        registry.register(
            names::APPROVAL_DURATION,
            "Time from a request to its decision",
            self.approvals.clone(),
        );
        registry.register(names::CONTROL_RUNS, "Runs of controls", self.runs.clone());
        registry.register(
            names::CONTROL_FAILING,
            "Subjects that did not pass at a control's last run",
            self.failing.clone(),
        );
        registry.register(
            names::CONTROL_LAST_RUN,
            "When a control ran last",
            self.last_run.clone(),
        );
        registry.register(
            names::WEBHOOK_DELIVERIES,
            "Attempts to tell endpoints",
            self.deliveries.clone(),
        );
        registry.register(
            names::AUDIT_ENTRIES,
            "Entries of the ledger",
            self.entries.clone(),
        );
        registry.register(
            names::AUDIT_VERIFY_FAILURES,
            "Times the ledger was not the one that was signed",
            self.broken.clone(),
        );
        registry.register(
            names::SIDECARS,
            "Sidecars that attend",
            self.sidecars.clone(),
        );
        registry.register(
            names::SIDECARS_FENCED,
            "Times a sidecar came under the name of another that may still run",
            self.fenced.clone(),
        );
        registry.register(
            names::USAGE_GAPS,
            "Ranges of usage records that are missing",
            self.gaps.clone(),
        );
        registry.register(
            names::USAGE_RECORDS,
            "Usage records that came",
            self.records.clone(),
        );
        registry.register(
            names::REGISTRY_REVISION,
            "The log's revision",
            self.revision.clone(),
        );
        registry.register(
            names::REGISTRY_READ_ONLY,
            "Whether nothing may be changed",
            self.read_only.clone(),
        );
        self
    }
}
