//! What the registry tells of what it does: metrics, and events for a receiver of telemetry. It is
//! no evidence, and nothing waits for it; the ledger is the evidence.

use std::sync::{Arc, OnceLock};

use crate::{
    domain::{ExceptionId, ExceptionState, Run, Span, Target, Tier, Timestamp},
    telemetry::{
        Governing,
        otlp::{ControlRun, Exporter, StateChange},
    },
    wire::signed::{hex, sha256},
};

use super::{core::Planned, view::View};

/// Who tells.
#[derive(Debug, Default)]
pub(super) struct Witness {
    pub(super) metrics: Governing,
    /// Where events go, if anybody wants to know.
    pub(super) exporter: OnceLock<Arc<Exporter>>,
}

/// What a transaction moves, told once it is committed.
#[derive(Debug)]
pub(super) struct Moved {
    time: Timestamp,
    actor: String,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    exception: ExceptionId,
    revision: u64,
    tier: Option<Tier>,
    from: Option<ExceptionState>,
    to: ExceptionState,
    /// How long it had waited for this decision.
    waited: Option<Span>,
}

impl Moved {
    /// The exceptions that go from one state to another with what is planned.
    pub(super) fn of(view: &View, planned: &Planned) -> Self {
        let transaction = &planned.transaction;
        let revision = |id: &ExceptionId| {
            let known = planned.snapshot.exception(id.as_str());
            known.map_or(0, |exception| exception.revision)
        };
        let mut steps = Vec::new();
        for case in &planned.cases {
            let before = view.cases.get(case.id.as_str());
            let from = before.map(|before| before.state);
            if from == Some(case.state) {
                continue;
            }
            let decided = [ExceptionState::Approved, ExceptionState::Denied].contains(&case.state);
            let pending =
                before.filter(|before| decided && before.state == ExceptionState::Pending);
            steps.push(Step {
                exception: case.id.clone(),
                revision: revision(&case.id),
                tier: case.terms.as_ref().map(|terms| terms.tier),
                from,
                to: case.state,
                waited: pending.map(|before| transaction.time - before.since),
            });
        }
        // Of those that nobody asked for there is no case.
        for removal in &transaction.removals {
            let Target::Exception(id) = &removal.target else {
                continue;
            };
            if view.cases.get(id.as_str()).is_some() {
                continue;
            }
            let known = view.snapshot.exception(id.as_str());
            steps.push(Step {
                exception: id.clone(),
                revision: known.map_or(0, |exception| exception.revision),
                tier: known.map(|exception| exception.tier),
                from: known.map(|exception| exception.state),
                to: ExceptionState::Revoked,
                waited: None,
            });
        }
        Self {
            time: transaction.time,
            actor: opaque(view, &transaction.principal),
            steps,
        }
    }
}

/// A principal by a reference that is the same in one registry and tells no name.
fn opaque(view: &View, principal: &str) -> String {
    let named = format!("{}\n{principal}", view.beginning.era.log);
    let digest = sha256(named.as_bytes());
    let short: Vec<u8> = digest.iter().copied().take(8).collect();
    format!("actor:{}", hex(&short))
}

impl Witness {
    /// Tells what was committed.
    pub(super) fn committed(&self, moved: &Moved) {
        for step in &moved.steps {
            if let (Some(tier), Some(waited)) = (step.tier, step.waited) {
                self.metrics.decided(tier, waited);
            }
            if let Some(exporter) = self.exporter.get() {
                exporter.state(
                    moved.time,
                    &StateChange {
                        exception: step.exception.as_str(),
                        revision: step.revision,
                        tier: step.tier.map_or("", Tier::name),
                        from: step.from.map_or("", ExceptionState::name),
                        to: step.to.name(),
                        actor: &moved.actor,
                    },
                );
            }
        }
    }

    /// Tells of a control that ran.
    pub(super) fn ran(&self, run: &Run) {
        let failing = run.failed.saturating_add(run.untold);
        self.metrics.ran(&run.control, failing, run.time);
        if let Some(exporter) = self.exporter.get() {
            exporter.run(
                run.time,
                &ControlRun {
                    control: run.control.as_str(),
                    revision: run.control_revision,
                    counts: (run.passed, run.failed, run.untold),
                },
            );
        }
    }
}
