//! Instruments, made once and passed down; the usual decision touches no map.

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};
use prometheus_client::registry::Registry;

use crate::domain::{Decision, Effect, Evidenced, Exception, Now, Outcome, Span, Tier, Timestamp};

use super::{
    groups::{
        FileLabels, Following, Granted, LaneLabels, ReasonLabels, Recording, ResultLabels, Sending,
        TierLabels, build,
    },
    names, number,
};

/// How a registry that is followed is seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How long ago everything was current; none if that is not known.
    pub age: Option<Span>,
    /// When that was, by the system's clock.
    pub last_contact: Option<Timestamp>,
    /// The removals in force.
    pub sequence: u64,
    /// For how long each tier's exceptions are still honoured, and are at the most.
    pub leases: [(Span, Span); 4],
    /// Whether two histories were seen.
    pub distrusted: bool,
}

/// The way a question came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `exeat.v1`.
    Grpc,
    /// Envoy's external authorization.
    ExtAuthz,
    /// AuthZEN over HTTP.
    AuthZen,
    /// agentgateway's `ExtMcp`.
    ExtMcp,
    /// A hook of a coding agent.
    Hook,
    /// A proxy between an MCP client and a server.
    Mcp,
}

impl Surface {
    /// Every surface.
    pub const ALL: [Self; 6] = [
        Self::Grpc,
        Self::ExtAuthz,
        Self::AuthZen,
        Self::ExtMcp,
        Self::Hook,
        Self::Mcp,
    ];

    /// The name as written in metrics, spans and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::ExtAuthz => "ext_authz",
            Self::AuthZen => "authzen",
            Self::ExtMcp => "ext_mcp",
            Self::Hook => "hook",
            Self::Mcp => "mcp",
        }
    }
}

/// The process's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    /// Of each surface: plain allows, and how long decisions took.
    usual: [(Counter, Histogram); Surface::ALL.len()],
    errors: Family<ErrorLabels, Counter>,
    uses: Family<ExceptionLabels, Counter>,
    out_of_scope: Family<ExceptionLabels, Counter>,
    changes: Family<KindLabels, Counter>,
    granted: Granted,
    age: Gauge<f64, AtomicU64>,
    revision: Gauge,
    loads: Family<ResultLabels, Counter>,
    following: Following,
    recording: Recording,
    sending: Sending,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecisionLabels {
    outcome: &'static str,
    surface: &'static str,
    control: String,
    mode: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    error_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ExceptionLabels {
    control: String,
    tier: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SurfaceLabels {
    surface: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// Buckets of the decision histogram, in seconds.
const BUCKETS: [f64; 11] = [
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3,
];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Every instrument, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let decisions: Family<DecisionLabels, Counter> = Family::default();
        let durations: Family<SurfaceLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let usual = Surface::ALL.map(|surface| {
            let labels = SurfaceLabels {
                surface: surface.name(),
            };
            (
                labelled(&decisions, "allow", surface, ""),
                durations.get_or_create_owned(&labels),
            )
        });
        let (errors, uses, out_of_scope, changes, loads) = Default::default();
        let (age, revision) = (Gauge::default(), Gauge::default());
        build(&mut registry);
        let granted = Granted::default();
        granted.register(&mut registry);
        registry.register(
            names::DECISIONS,
            "Decisions, by outcome and deciding control",
            decisions.clone(),
        );
        registry.register(
            names::DECISION_DURATION,
            "Time from a request's arrival to its answer",
            durations,
        );
        registry.register(
            names::DECISION_ERRORS,
            "Calls that had no decision",
            Family::clone(&errors),
        );
        registry.register(
            names::EXCEPTION_USES,
            "Decisions that relied on an exception",
            Family::clone(&uses),
        );
        registry.register(
            names::EXCEPTION_OUT_OF_SCOPE,
            "Questions an exception did not reach",
            Family::clone(&out_of_scope),
        );
        registry.register(
            names::CONTEXT_CHANGES,
            "Facets seen to differ from what is governed",
            Family::clone(&changes),
        );
        registry.register(
            names::SNAPSHOT_AGE,
            "Seconds since the snapshot was confirmed to be current",
            age.clone(),
        );
        registry.register(
            names::SNAPSHOT_REVISION,
            "The snapshot's revision",
            revision.clone(),
        );
        registry.register(
            names::BUNDLE_LOADS,
            "Loads of the bundle",
            Family::clone(&loads),
        );
        let following = Following::default();
        following.register(&mut registry);
        let recording = Recording::default();
        recording.register(&mut registry);
        let sending = Sending::default();
        sending.register(&mut registry);
        let inner = Inner {
            registry,
            decisions,
            usual,
            errors,
            uses,
            out_of_scope,
            changes,
            granted,
            age,
            revision,
            loads,
            following,
            recording,
            sending,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// How many decisions allowed and rest on no exception.
    pub fn allowed(&self) -> u64 {
        let allowed = self.inner.usual.iter().map(|(allowed, _)| allowed.get());
        allowed.fold(0, u64::saturating_add)
    }

    /// Counts a decision that took `took`.
    pub fn decided(&self, decision: &Decision, surface: Surface, took: Span) {
        let inner = &*self.inner;
        let [
            of_grpc,
            of_ext_authz,
            of_authzen,
            of_ext_mcp,
            of_hook,
            of_mcp,
        ] = &inner.usual;
        let (allowed, duration) = match surface {
            Surface::Grpc => of_grpc,
            Surface::ExtAuthz => of_ext_authz,
            Surface::AuthZen => of_authzen,
            Surface::ExtMcp => of_ext_mcp,
            Surface::Hook => of_hook,
            Surface::Mcp => of_mcp,
        };
        duration.observe(took.as_secs_f64());
        if decision.outcome == Outcome::Allow
            && decision.failed.is_empty()
            && decision.exceptions.is_empty()
            && decision.drift.is_empty()
        {
            allowed.inc();
            return;
        }
        let control = decision
            .failed
            .iter()
            .find(|result| result.blocks())
            .map_or("", |result| result.control.id.as_str());
        labelled(&inner.decisions, decision.outcome.name(), surface, control).inc();
        for result in &decision.exceptions {
            let tier = result.exception.tier.name();
            let family = match result.effect {
                Effect::LeaseLapsed => {
                    let stale = &inner.following.stale;
                    stale.get_or_create(&TierLabels { tier }).inc();
                    continue;
                }
                Effect::ReliedOn => &inner.uses,
                Effect::OutOfScope(_) => &inner.out_of_scope,
                _ => continue,
            };
            for control in decision
                .failed
                .iter()
                .filter(|failed| result.exception.controls.contains(&failed.control.id))
            {
                family
                    .get_or_create(&ExceptionLabels {
                        control: control.control.id.to_string(),
                        tier,
                    })
                    .inc();
            }
        }
        for facet in &decision.drift {
            inner
                .changes
                .get_or_create(&KindLabels { kind: facet.name() })
                .inc();
        }
    }

    /// Counts a call without a decision.
    pub fn failed(&self, error_type: &'static str) {
        self.inner
            .errors
            .get_or_create(&ErrorLabels { error_type })
            .inc();
    }

    /// Counts a load of the bundle.
    pub fn loaded(&self, result: &'static str) {
        self.inner
            .loads
            .get_or_create(&ResultLabels { result })
            .inc();
    }

    /// Tells whether a connection to the registry stands.
    pub fn connected(&self, lane: &'static str, connected: bool) {
        let lanes = &self.inner.following.connected;
        lanes
            .get_or_create(&LaneLabels { lane })
            .set(i64::from(connected));
    }

    /// A connection to the registry does not stand; if one stood, it is to be made anew.
    pub fn disconnected(&self, lane: &'static str) {
        let following = &self.inner.following;
        let labels = LaneLabels { lane };
        if following.connected.get_or_create(&labels).set(0) != 0 {
            following.reconnects.get_or_create(&labels).inc();
        }
    }

    /// Counts a statement of the registry that was refused.
    pub fn refused(&self, reason: &'static str) {
        let refused = &self.inner.following.refused;
        refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a time everything is fetched anew.
    pub fn resync(&self, reason: &'static str) {
        let resyncs = &self.inner.following.resyncs;
        resyncs.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Something that was taken back so long ago is in force.
    pub fn taken_back(&self, ago: Span) {
        let propagation = &self.inner.following.propagation;
        propagation.0.observe(ago.as_secs_f64().max(0.0));
    }

    /// Counts a failure of the disk, or damage found there.
    pub fn disk_fault(&self, file: &'static str) {
        let faults = &self.inner.following.disk_faults;
        faults.get_or_create(&FileLabels { file }).inc();
    }

    /// Counts a clock that was set, or time that was lost.
    pub fn clock_step(&self) {
        self.inner.following.clock_steps.inc();
    }

    /// Tells how full the spool of usage records is, and whether anything can be recorded.
    pub fn usage_spool(&self, (records, bytes): (u64, u64), limit: u64, evidenced: Evidenced) {
        let recording = &self.inner.recording;
        recording.queue.set(number(records));
        recording.bytes.set(number(bytes));
        recording.limit.set(number(limit));
        recording.available.set(match evidenced {
            Evidenced::Kept => 1.0,
            Evidenced::Scarce => 0.5,
            Evidenced::Lost => 0.0,
        });
    }

    /// Counts a failure of the spool: nothing can be recorded.
    pub fn usage_failed(&self) {
        self.inner.recording.failures.inc();
        self.inner.recording.available.set(0.0);
    }

    /// Counts usage records that could not be kept.
    pub fn usage_dropped(&self, reason: &'static str, count: u64) {
        let dropped = &self.inner.recording.dropped;
        dropped
            .get_or_create(&ReasonLabels { reason })
            .inc_by(count);
    }

    /// What is told of telemetry itself.
    pub fn sending(&self) -> Sending {
        self.inner.sending.clone()
    }

    /// Counts decisions that could not be logged.
    pub fn unlogged(&self, reason: &'static str, count: u64) {
        if count > 0 {
            let unlogged = &self.inner.sending.unlogged;
            unlogged
                .get_or_create(&ReasonLabels { reason })
                .inc_by(count);
        }
    }

    /// Counts a fetch on demand.
    pub fn fetch(&self, result: &'static str) {
        let fetches = &self.inner.following.fetches;
        fetches.get_or_create(&ResultLabels { result }).inc();
    }

    /// Tells how many subjects and resources were fetched and are held.
    pub fn fetched(&self, count: usize) {
        self.inner.following.fetched.set(number(count as u64));
    }

    /// Tells how the registry is seen.
    pub fn follows(&self, seen: &Seen) {
        let following = &self.inner.following;
        let age = seen.age.map_or(f64::INFINITY, Span::as_secs_f64);
        following.lag.set(age);
        if let Some(at) = seen.last_contact {
            let since = at - Timestamp::from_micros(0);
            following.last_contact.set(since.as_secs_f64());
        }
        following.sequence.set(number(seen.sequence));
        following.distrusted.set(i64::from(seen.distrusted));
        for (tier, (left, budget)) in Tier::ALL.into_iter().zip(seen.leases) {
            let labels = TierLabels { tier: tier.name() };
            let set = |family: &Family<TierLabels, Gauge<f64, AtomicU64>>, span: Span| {
                family.get_or_create(&labels).set(span.as_secs_f64());
            };
            set(&following.lease, left);
            set(&following.budget, budget);
        }
    }

    /// Everything in the text format of Prometheus, with the gauges as of `now`.
    pub fn text(&self, exceptions: &[&Exception], revision: u64, age: Span, now: Now) -> String {
        let inner = &*self.inner;
        inner.age.set(age.as_secs_f64());
        inner.revision.set(number(revision));
        inner.granted.tell(exceptions, now);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &inner.registry);
        text
    }
}

fn labelled(
    family: &Family<DecisionLabels, Counter>,
    outcome: &'static str,
    surface: Surface,
    control: &str,
) -> Counter {
    family.get_or_create_owned(&DecisionLabels {
        outcome,
        surface: surface.name(),
        control: control.to_owned(),
        mode: "enforce",
    })
}
