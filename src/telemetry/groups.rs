//! Instruments that belong together: of the registry that is followed, of usage records, and of
//! telemetry itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};
use prometheus_client::registry::Registry;

use crate::domain::{Exception, ExceptionState, Now, Span, Tier};

use super::{names, number};

/// What is told of telemetry itself.
#[derive(Clone, Debug, Default)]
pub struct Sending {
    pub(super) lost: Family<SignalReasonLabels, Counter>,
    pub(super) sent: Family<SignalLabels, Counter>,
    pub(super) waiting: Family<SignalLabels, Gauge>,
    pub(super) unlogged: Family<ReasonLabels, Counter>,
}

impl Sending {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::TELEMETRY_LOST,
            "Spans, events and metrics that could not be sent",
            self.lost.clone(),
        );
        registry.register(
            names::TELEMETRY_SENT,
            "Spans, events and metrics that a receiver took",
            self.sent.clone(),
        );
        registry.register(
            names::TELEMETRY_WAITING,
            "Bytes of telemetry that wait to be sent",
            self.waiting.clone(),
        );
        registry.register(
            names::DECISIONS_UNLOGGED,
            "Decisions that are not in the decision log",
            self.unlogged.clone(),
        );
    }
}

impl Sending {
    /// Counts telemetry that was lost.
    pub fn lost(&self, signal: &'static str, reason: &'static str, count: u64) {
        self.lost
            .get_or_create(&SignalReasonLabels { signal, reason })
            .inc_by(count);
    }

    /// Counts telemetry that was taken.
    pub fn sent(&self, signal: &'static str, count: u64) {
        let labels = SignalLabels { signal };
        self.sent.get_or_create(&labels).inc_by(count);
    }

    /// Tells how much telemetry waits.
    pub fn waits(&self, signal: &'static str, bytes: usize) {
        let labels = SignalLabels { signal };
        self.waiting
            .get_or_create(&labels)
            .set(number(bytes as u64));
    }
}

/// How soon is soon.
const SOON: [(&str, Span); 3] = [
    ("24h", Span::from_days(1)),
    ("7d", Span::from_days(7)),
    ("30d", Span::from_days(30)),
];

/// What is told of exceptions in force.
#[derive(Debug, Default)]
pub(super) struct Granted {
    active: Family<TierLabels, Gauge>,
    expiring: Family<ExpiringLabels, Gauge>,
}

impl Granted {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::EXCEPTIONS_ACTIVE,
            "Exceptions in force",
            self.active.clone(),
        );
        registry.register(
            names::EXCEPTIONS_EXPIRING,
            "Exceptions in force that end soon",
            self.expiring.clone(),
        );
    }

    /// Counts exceptions as of `now`.
    pub(super) fn tell(&self, exceptions: &[&Exception], now: Now) {
        for tier in Tier::ALL {
            let in_force = |e: &&&Exception| {
                e.tier == tier
                    && e.state == ExceptionState::Approved
                    && e.effective_time <= now.earliest
                    && now.latest < e.expire_time
            };
            let active: Vec<_> = exceptions.iter().filter(in_force).collect();
            self.active
                .get_or_create(&TierLabels { tier: tier.name() })
                .set(number(active.len() as u64));
            for (within, span) in SOON {
                let soon = active.iter().filter(|e| e.expire_time <= now.latest + span);
                self.expiring
                    .get_or_create(&ExpiringLabels {
                        tier: tier.name(),
                        within,
                    })
                    .set(number(soon.count() as u64));
            }
        }
    }
}

/// Tells what runs.
pub(super) fn build(registry: &mut Registry) {
    let build: Family<BuildLabels, Gauge> = Family::default();
    build
        .get_or_create(&BuildLabels {
            version: env!("CARGO_PKG_VERSION"),
        })
        .set(1);
    registry.register(names::BUILD_INFO, "What runs", build);
}

/// What is told of usage records.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) bytes: Gauge,
    pub(super) limit: Gauge,
    pub(super) queue: Gauge,
    pub(super) dropped: Family<ReasonLabels, Counter>,
    pub(super) available: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(super) failures: Counter,
}

impl Recording {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::USAGE_SPOOL,
            "Bytes of usage records that are kept here",
            self.bytes.clone(),
        );
        registry.register(
            names::USAGE_SPOOL_LIMIT,
            "Most bytes of usage records that are kept here",
            self.limit.clone(),
        );
        registry.register(
            names::USAGE_QUEUE,
            "Usage records that the registry has not taken",
            self.queue.clone(),
        );
        registry.register(
            names::USAGE_DROPPED,
            "Usage records that could not be kept",
            self.dropped.clone(),
        );
        registry.register(
            names::EVIDENCE_AVAILABLE,
            "Whether uses can be recorded: 1, 0.5 with little room left, 0",
            self.available.clone(),
        );
        registry.register(
            names::USAGE_FAILURES,
            "Times the spool of usage records failed",
            self.failures.clone(),
        );
    }
}

/// How long removals took, from a millisecond to five minutes.
#[derive(Debug)]
pub(super) struct Propagation(pub(super) Histogram);

impl Default for Propagation {
    fn default() -> Self {
        Self(Histogram::new([
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0, 300.0,
        ]))
    }
}

/// What is told of the registry that is followed.
#[derive(Debug, Default)]
pub(super) struct Following {
    pub(super) connected: Family<LaneLabels, Gauge>,
    pub(super) lag: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(super) reconnects: Family<LaneLabels, Counter>,
    pub(super) refused: Family<ReasonLabels, Counter>,
    pub(super) resyncs: Family<ReasonLabels, Counter>,
    pub(super) sequence: Gauge,
    pub(super) propagation: Propagation,
    pub(super) lease: Family<TierLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub(super) budget: Family<TierLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub(super) last_contact: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(super) stale: Family<TierLabels, Counter>,
    pub(super) disk_faults: Family<FileLabels, Counter>,
    pub(super) clock_steps: Counter,
    pub(super) distrusted: Gauge,
    pub(super) fetched: Gauge,
    pub(super) fetches: Family<ResultLabels, Counter>,
}

impl Following {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::REGISTRY_CONNECTED,
            "Whether the registry is connected",
            self.connected.clone(),
        );
        registry.register(
            names::SYNC_LAG,
            "Seconds since everything was last known to be current",
            self.lag.clone(),
        );
        registry.register(
            names::SYNC_RECONNECTS,
            "Connections to the registry that broke and are made anew",
            self.reconnects.clone(),
        );
        registry.register(
            names::REGISTRY_REFUSED,
            "Statements of the registry that were refused",
            self.refused.clone(),
        );
        registry.register(
            names::REGISTRY_RESYNCS,
            "Times everything was fetched anew",
            self.resyncs.clone(),
        );
        registry.register(
            names::REVOCATION_PROPAGATION,
            "From when something was taken back to when that was in force here",
            self.propagation.0.clone(),
        );
        registry.register(
            names::REMOVALS_SEQUENCE,
            "Removals in force",
            self.sequence.clone(),
        );
        registry.register(
            names::LEASE_REMAINING,
            "Seconds for which exceptions are still honoured without the registry",
            self.lease.clone(),
        );
        registry.register(
            names::LEASE_BUDGET,
            "Seconds for which exceptions are honoured without the registry",
            self.budget.clone(),
        );
        registry.register(
            names::REGISTRY_LAST_CONTACT,
            "When everything was last known to be current",
            self.last_contact.clone(),
        );
        registry.register(
            names::STALE_REFUSALS,
            "Exceptions that were not honoured as the registry was not heard lately enough",
            self.stale.clone(),
        );
        registry.register(
            names::DISK_FAULTS,
            "Failures of the disk and damage found there",
            self.disk_faults.clone(),
        );
        registry.register(
            names::CLOCK_STEPS,
            "Times the clock was found set, or time lost",
            self.clock_steps.clone(),
        );
        registry.register(
            names::REGISTRY_DISTRUSTED,
            "Whether two histories of the registry were seen",
            self.distrusted.clone(),
        );
        registry.register(
            names::ENTITIES_FETCHED,
            "Subjects and resources that were fetched on demand and are held",
            self.fetched.clone(),
        );
        registry.register(
            names::ENTITY_FETCHES,
            "Fetches on demand",
            self.fetches.clone(),
        );
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct LaneLabels {
    pub(super) lane: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct FileLabels {
    pub(super) file: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct TierLabels {
    pub(super) tier: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct SignalLabels {
    pub(super) signal: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct SignalReasonLabels {
    pub(super) signal: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ExpiringLabels {
    pub(super) tier: &'static str,
    pub(super) within: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BuildLabels {
    pub(super) version: &'static str,
}
