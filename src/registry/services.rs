//! Every gRPC service, each behind its guard.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::wire::v1::{
    control_service_server::ControlServiceServer, exception_service_server::ExceptionServiceServer,
    explanation_service_server::ExplanationServiceServer,
    finding_service_server::FindingServiceServer, fleet_service_server::FleetServiceServer,
    incident_service_server::IncidentServiceServer, ledger_service_server::LedgerServiceServer,
    notification_service_server::NotificationServiceServer,
    object_service_server::ObjectServiceServer, report_service_server::ReportServiceServer,
    revocation_service_server::RevocationServiceServer,
    session_service_server::SessionServiceServer, sign_in_service_server::SignInServiceServer,
    sync_service_server::SyncServiceServer, usage_service_server::UsageServiceServer,
};
#[cfg(any(test, feature = "testing"))]
use crate::{
    runtime::{clock::Clock, serve::Error},
    wire::signed::Signer,
};

use super::{
    authn::{Guarded, Guests},
    core::Registry,
    publication::Publication,
    reporting::Reporting,
    service::{
        ControlCalls, Exceptions, ExplanationCalls, FindingCalls, Fleet, IncidentCalls,
        LedgerCalls, NotificationCalls, ObjectCalls, ReportCalls, Revocations, SessionCalls,
        SignInCalls, Sync, UsageCalls,
    },
    sign_in::Doors,
};
#[cfg(any(test, feature = "testing"))]
use super::{core, store::Store, way::make_way};

/// Largest request: a bundle of manifests.
const MAX_APPLY: usize = 64 << 20;
/// Largest of anything else.
const MAX_MESSAGE: usize = 1 << 20;
/// Largest of what sidecars say: usage records.
const MAX_SYNC: usize = 4 << 20;

/// Largest that somebody says who is not known yet.
const MAX_SIGN_IN: usize = 64 << 10;

/// What a registry has beyond its store: others whom it tells, and people who come in.
pub(super) struct Outward {
    /// Who is told of what happens.
    pub notifications: NotificationCalls,
    /// Where people come in.
    pub doors: Arc<Doors>,
    /// What became of exceptions.
    pub recording: UsageCalls,
    /// Where access is asked for over HTTP, if it is.
    pub access: Option<Arc<str>>,
}

/// The services of a registry, each behind its guard.
pub(super) fn services(
    registry: &Arc<Registry>,
    guests: &Arc<Guests>,
    stop: &CancellationToken,
    reporting: &Arc<Reporting>,
    outward: Option<Outward>,
) -> Routes {
    let attendants = Arc::clone(&reporting.attendants);
    let sync = Sync {
        registry: Arc::clone(registry),
        publication: Arc::new(Publication::default()),
        attendants: Arc::clone(&attendants),
        guests: Arc::clone(guests),
        stop: stop.clone(),
        deliveries: outward
            .as_ref()
            .map(|outward| outward.notifications.deliveries.clone()),
        recording: outward.as_ref().map(|outward| outward.recording.clone()),
        access: outward.as_ref().and_then(|outward| outward.access.clone()),
    };
    let reports = ReportServiceServer::new(ReportCalls {
        reporting: Arc::clone(reporting),
    })
    .max_decoding_message_size(MAX_MESSAGE)
    .max_encoding_message_size(MAX_APPLY);
    let fleet = Fleet {
        registry: Arc::clone(registry),
        attendants,
        guests: Arc::clone(guests),
    };
    let objects = ObjectServiceServer::new(ObjectCalls(Arc::clone(registry)))
        .max_decoding_message_size(MAX_APPLY)
        .max_encoding_message_size(MAX_APPLY);
    let revocations = RevocationServiceServer::new(Revocations(Arc::clone(registry)))
        .max_decoding_message_size(MAX_MESSAGE);
    let exceptions = ExceptionServiceServer::new(Exceptions::new(Arc::clone(registry)))
        .max_decoding_message_size(MAX_MESSAGE);
    let controls = ControlServiceServer::new(ControlCalls(Arc::clone(registry)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_APPLY);
    let findings = FindingServiceServer::new(FindingCalls(Arc::clone(registry)))
        .max_decoding_message_size(MAX_MESSAGE);
    let incidents = IncidentServiceServer::new(IncidentCalls(Arc::clone(registry)))
        .max_decoding_message_size(MAX_MESSAGE);
    let ledger = LedgerServiceServer::new(LedgerCalls(Arc::clone(registry)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(2 * MAX_APPLY);
    let fleet = FleetServiceServer::new(fleet).max_decoding_message_size(MAX_MESSAGE);
    let sync = SyncServiceServer::new(sync)
        .max_decoding_message_size(MAX_SYNC)
        .max_encoding_message_size(MAX_APPLY);
    let routes = Routes::new(Guarded::new(objects, guests))
        .add_service(Guarded::new(revocations, guests))
        .add_service(Guarded::new(exceptions, guests))
        .add_service(Guarded::new(controls, guests))
        .add_service(Guarded::new(findings, guests))
        .add_service(Guarded::new(incidents, guests))
        .add_service(Guarded::new(ledger, guests))
        .add_service(Guarded::new(reports, guests))
        .add_service(Guarded::new(fleet, guests))
        .add_service(Guarded::new(sync, guests));
    let Some(Outward {
        notifications,
        doors,
        recording,
        access: _,
    }) = outward
    else {
        return routes;
    };
    let notifications =
        NotificationServiceServer::new(notifications).max_decoding_message_size(MAX_MESSAGE);
    let sessions = SessionServiceServer::new(SessionCalls(Arc::clone(&doors)))
        .max_decoding_message_size(MAX_MESSAGE);
    // The only one without a guard: who comes here is not known yet.
    let sign_in =
        SignInServiceServer::new(SignInCalls(doors)).max_decoding_message_size(MAX_SIGN_IN);
    let explanations = ExplanationCalls::new(
        Arc::clone(&recording.registry),
        Arc::clone(&recording.usages),
    );
    let explanations = ExplanationServiceServer::new(explanations)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_APPLY);
    let usage = UsageServiceServer::new(recording)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_APPLY);
    routes
        .add_service(Guarded::new(usage, guests))
        .add_service(Guarded::new(explanations, guests))
        .add_service(Guarded::new(notifications, guests))
        .add_service(Guarded::new(sessions, guests))
        .add_service(sign_in)
}

/// The services of a registry over any store, for simulations.
///
/// # Errors
///
/// A store that cannot be taken up.
#[cfg(any(test, feature = "testing"))]
#[expect(clippy::disallowed_methods, reason = "it ends with its simulation")]
pub async fn simulated(
    store: Arc<dyn Store>,
    signer: Signer,
    clock: Clock,
    kept: usize,
) -> Result<Routes, Error> {
    let mut registry = Registry::open(store, signer, clock, kept).await?;
    registry.applies_exceptions = true;
    let registry = Arc::new(registry);
    let guests = Arc::new(Guests::new(&registry));
    let access = registry.store.access().await.map_err(core::Error::Store)?;
    guests.read(&access).map_err(core::Error::Store)?;
    let reporting = Arc::new(Reporting {
        registry: Arc::clone(&registry),
        attendants: Arc::default(),
        usages: None,
    });
    let stop = CancellationToken::new();
    let way = make_way(Arc::clone(&registry), Arc::clone(&guests), stop.clone());
    tokio::spawn(way);
    Ok(services(&registry, &guests, &stop, &reporting, None))
}
