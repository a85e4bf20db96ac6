//! The operations port: health and metrics, to this machine unless told otherwise.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    domain::{ExceptionState, Span, Tier, Timestamp},
    runtime::tasks::Tasks,
    telemetry::{Governed, otlp::Exporter},
};

use super::{core::Registry, usage::Usages};

/// Who was answered within it attends.
const LATELY: Span = Span::from_secs(30);

/// What the operations port can see.
#[derive(Clone, Debug)]
pub(super) struct Operations {
    pub(super) registry: Arc<Registry>,
    pub(super) usages: Arc<Usages>,
}

/// The routes of the operations port.
pub(super) fn routes(operations: Operations) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(operations)
}

/// Ready whatever may be changed: what is known is still told, and revoked.
async fn ready(State(operations): State<Operations>) -> String {
    let view = operations.registry.view();
    match operations.registry.closed() {
        None => format!("ok: revision {}\n", view.head.revision),
        Some(why) => format!("ok: revision {}\nchanges: {why}\n", view.head.revision),
    }
}

async fn metrics(State(operations): State<Operations>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], page(&operations)).into_response()
}

/// Every metric as of now.
fn page(operations: &Operations) -> String {
    let Operations { registry, usages } = operations;
    let view = registry.view();
    let snapshot = &view.snapshot;
    let held = snapshot.exceptions();
    let exceptions: Vec<_> = held
        .filter(|exception| !snapshot.takes_back(exception.id.as_str()))
        .map(AsRef::as_ref)
        .collect();
    let waiting = view
        .cases
        .values()
        .filter(|case| case.state == ExceptionState::Pending);
    let pending: Vec<(Tier, Timestamp)> = waiting
        .filter_map(|case| case.terms.as_ref().map(|terms| (terms.tier, case.since)))
        .collect();
    let lately = registry.clock.elapsed().saturating_sub(LATELY);
    let attending = {
        let attendance = registry.attendance();
        let heard = |name: &&str| {
            let known = attendance.of(name);
            attendance.came(name) && known.is_some_and(|(answered, _)| answered >= lately)
        };
        attendance.names().filter(heard).count()
    };
    let witness = &registry.witness;
    if let Some(exporter) = witness.exporter.get() {
        exporter.measure();
    }
    let held = Governed {
        exceptions: &exceptions,
        pending: &pending,
        sidecars: attending,
        gaps: usages.gaps().len(),
        entries: view.ledger.size(),
        revision: view.head.revision,
        read_only: view.read_only.is_some(),
    };
    witness.metrics.text(&held, registry.clock.now())
}

/// Sends what is to be told elsewhere.
pub(super) fn export(operations: &Operations, exporter: Arc<Exporter>, tasks: &mut Tasks) {
    let end = tasks.stopped();
    let witness = &operations.registry.witness;
    let exporter = witness.exporter.get_or_init(|| exporter);
    let events = Arc::clone(exporter).send_events(end.clone());
    tasks.closing("sending events", events);
    let operations = operations.clone();
    let metrics = Arc::clone(exporter).send_metrics(move || page(&operations), end);
    tasks.closing("sending metrics", metrics);
}
