//! Builds every part, binds every socket, then runs to the end.

use std::{net::SocketAddr, path::Path, sync::Arc};

use envoy_types::ext_authz::v3::pb::AuthorizationServer;
use tokio_util::sync::CancellationToken;
use tonic::{server::NamedService, service::Routes};
use tonic_health::{
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};

use crate::{
    config::{Identity, Origin, Sidecar, Tls},
    engine::Snapshot,
    runtime::{
        clock::Clock,
        listen::{Tcp, Unix, make_room},
        publish::Published,
        serve::{Error, serve_tcp, serve_unix},
        tasks::{End, Tasks},
        tls::{Clients, Keys},
    },
    telemetry::{
        Metrics,
        otlp::{self, Exporter},
    },
    wire::{
        agentgateway::ext_mcp_server::ExtMcpServer,
        signed::{Pin, Trust},
        v1::{self, check_service_server::CheckServiceServer},
    },
};

use super::{
    answering::Answering,
    authzen::{self, AuthZen},
    bundle::Loader,
    check::CheckService,
    decider::{Decider, Loaded, salt},
    direct::Direct,
    evidence::{Counts, Keeping, Limits, Spool},
    ext_authz::ExtAuthz,
    ext_authz_http,
    ext_mcp::ExtMcp,
    follow::{Disk, Following, Keeper},
    journal,
    operations::{Operations, Source, page, routes},
    tokens::Tokens,
};

// reliability §9.3.
const MAX_MESSAGE: usize = 256 << 10;
/// Largest message of a gateway: a list with the schemas of everything in it.
const LISTS: usize = 2 << 20;

type Served = CheckServiceServer<CheckService>;

/// A sidecar whose sockets are bound and that serves nothing yet.
#[derive(Debug)]
pub struct Bound {
    settings: Sidecar,
    tcp: Tcp,
    unix: Option<Unix>,
    operations: Tcp,
    clock: Clock,
    tls: Option<Arc<Keys>>,
    tokens: Option<Arc<Tokens>>,
    otel: otlp::Settings,
}

impl Bound {
    /// Binds every socket, so that a conflict is found before anything starts.
    ///
    /// # Errors
    ///
    /// A socket that cannot be bound, or keys that cannot be read.
    pub async fn bind(settings: Sidecar, clock: Clock) -> Result<Self, Error> {
        let keys = settings.tls.as_ref();
        let otel = otlp::Settings::read(&settings.otel).map_err(Error::Data)?;
        let read = |keys: &Tls| {
            let ca = keys.client_ca.as_deref();
            Keys::read(&keys.certificate, &keys.key, ca, Clients::Certified)
        };
        let tls = match (&settings.workload_api, keys) {
            (Some(endpoint), _) => Some(Keys::workload(endpoint).await),
            (None, keys) => keys.map(read),
        };
        let tls = tls.transpose().map_err(Error::Tls)?.map(Arc::new);
        let tokens = match &settings.identity {
            Identity::Tokens(tokens) => {
                let tokens = Tokens::read((**tokens).clone(), clock.clone());
                Some(Arc::new(tokens.map_err(Error::Data)?))
            }
            _ => None,
        };
        journal::check(&settings.decision_log).map_err(Error::Data)?;
        make_room(2, settings.max_connections);
        let operations = Tcp::bind(settings.operations).await.map_err(Error::Bind)?;
        let tcp = Tcp::bind(settings.listen).await.map_err(Error::Bind)?;
        let unix = match &settings.unix {
            Some(path) => Some(Unix::bind(path).await.map_err(Error::Bind)?),
            None => None,
        };
        Ok(Self {
            settings,
            tcp,
            unix,
            operations,
            clock,
            tls,
            tokens,
            otel,
        })
    }

    /// Where decisions are answered.
    pub fn address(&self) -> SocketAddr {
        self.tcp.address()
    }

    /// The Unix socket where they are answered as well.
    pub fn socket(&self) -> Option<&Path> {
        self.unix.as_ref().map(Unix::path)
    }

    /// Where health and metrics are served.
    pub fn operations(&self) -> SocketAddr {
        self.operations.address()
    }

    /// Serves until `asked` to stop: then not ready, no new connections, calls under way finish,
    /// and what is left at the deadline is cut.
    ///
    /// # Errors
    ///
    /// What ended it, if nobody asked.
    pub async fn run(self, asked: impl Future<Output = ()> + Send) -> Result<(), Error> {
        self.serve(None, asked).await
    }

    /// Serves one given snapshot instead of a folder.
    ///
    /// # Errors
    ///
    /// What ended it, if nobody asked.
    pub async fn run_fixed(
        self,
        snapshot: Arc<Snapshot>,
        asked: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        self.serve(Some(snapshot), asked).await
    }

    async fn serve(
        self,
        fixed: Option<Arc<Snapshot>>,
        asked: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        let Self {
            settings,
            tcp,
            unix,
            operations,
            clock,
            tls,
            tokens,
            otel,
        } = self;
        announce(
            &settings,
            tcp.address(),
            unix.as_ref(),
            operations.address(),
        );
        let mut tasks = Tasks::new();
        let stop = tasks.stopping();
        let published: Arc<Published<Loaded>> = Arc::default();
        let metrics = Metrics::new();
        let spool = spool(&settings, &metrics).await;
        // To the very end: calls under way wait for it.
        tasks.outlasting("recording uses", Arc::clone(&spool).write());
        tasks.essential(
            "copying records back",
            Arc::clone(&spool).copy(stop.clone()),
        );
        let source = source(&settings, &published, &clock, &metrics, &spool, &mut tasks)?;
        let limits = match &source {
            Source::Registry(_, following) => Limits::Reserved(Arc::clone(&following.purse)),
            Source::Folder(_) => Limits::Here(Counts::default()),
        };
        let start = match &source {
            Source::Registry(_, following) => Some(following.start()),
            Source::Folder(_) => None,
        };
        let salt = salt();
        let exporter = Exporter::new(otel, "sidecar", salt, metrics.sending(), clock.clone())
            .map_err(Error::Data)?;
        let told = (metrics, exporter);
        let starts = (start, salt);
        let decider = Decider::new(Arc::clone(&published), clock, told, spool, limits, starts);
        let decider = Arc::new(decider);
        let idle = Arc::clone(&decider).tell_idle(stop.clone());
        tasks.essential("telling what was not needed", idle);

        let (reporter, health) = tonic_health::server::health_reporter();
        // Known before anything is served, so that no probe is told there is no such service.
        set_health(&reporter, tonic_health::ServingStatus::NotServing).await;
        let answering = Answering {
            decider: Arc::clone(&decider),
            identity: Arc::new(settings.identity.clone()),
            following: match &source {
                Source::Registry(_, following) => Some(Arc::clone(following)),
                Source::Folder(_) => None,
            },
        };
        let fronts = fronts(&answering, &settings);
        let checks = Served::new(CheckService(answering))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(4 << 20);
        if let Some(tokens) = &tokens {
            let following = Arc::clone(tokens).follow(stop.clone());
            tasks.essential("following tokens", following);
        }
        let services = services(checks, fronts, health.clone(), tokens.clone())?;

        let local = operations.address().ip().is_loopback();
        let pages = Operations {
            decider: Arc::clone(&decider),
            source: source.clone(),
            stopping: stop.clone(),
            tokens,
            local,
            values: Arc::clone(&settings.decision_log.values),
        };
        if settings.decision_log.kept {
            let log = settings.decision_log.clone();
            let keeping = journal::keep(Arc::clone(&decider), log, tasks.stopped());
            tasks.closing("logging decisions", keeping);
        }
        export(&pages, &mut tasks);
        let pages = routes(pages);
        let operated = Routes::from(Routes::new(health).into_axum_router().merge(pages));
        // To the very end, so that probes hear "stopping" and not silence.
        tasks.outlasting(
            "operations",
            serve_tcp(operated, operations, None, 64, CancellationToken::new()),
        );
        tasks.essential(
            "health",
            report(reporter, Arc::clone(&published), stop.clone()),
        );
        tasks.essential(
            "decisions over TCP",
            serve_tcp(
                services.clone(),
                tcp,
                tls,
                settings.max_connections,
                stop.clone(),
            ),
        );
        if let Some(unix) = unix {
            tasks.essential(
                "decisions over the Unix socket",
                serve_unix(services, unix, settings.max_connections, stop.clone()),
            );
        }
        match fixed {
            Some(snapshot) => published.publish(Arc::new(Loaded {
                snapshot,
                confirmed: decider.clock.elapsed(),
                earlier: Vec::new(),
                contact: None,
            })),
            None => match source {
                Source::Folder(loader) => tasks.essential("bundle", loader.follow(stop.clone())),
                Source::Registry(_, following) => {
                    let attending = Arc::clone(&following).attend(stop.clone());
                    tasks.essential("attending the registry", attending);
                    let reporting = Arc::clone(&following).report(stop.clone());
                    tasks.essential("reporting to the registry", reporting);
                    let returning = Arc::clone(&following).give_back(stop.clone());
                    tasks.essential("giving uses back", returning);
                    tasks.essential("watching the registry", following.watch(stop.clone()));
                }
            },
        }

        match tasks.run(asked, settings.drain_timeout).await {
            End::Asked => {
                tracing::info!("stopped");
                Ok(())
            }
            End::Failed { task, why } => Err(Error::Failed(format!("{task}: {why}"))),
        }
    }
}

/// Where what is governed comes from, and how it is fetched on demand.
fn source(
    settings: &Sidecar,
    published: &Arc<Published<Loaded>>,
    clock: &Clock,
    metrics: &Metrics,
    spool: &Arc<Spool>,
    tasks: &mut Tasks,
) -> Result<Source, Error> {
    Ok(match &settings.origin {
        Origin::Bundle(folder) => Source::Folder(Arc::new(Loader::new(
            folder.clone(),
            Arc::clone(published),
            clock.clone(),
            metrics.clone(),
        ))),
        Origin::Registry(registry) => {
            let disk = Disk::hold(&registry.data).map_err(Error::Data)?;
            let pin = Pin::parse(&registry.key).map_err(Error::Data)?;
            let keeper = Arc::new(Keeper::new(
                disk,
                Trust::new(pin),
                Arc::clone(published),
                clock.clone(),
                metrics.clone(),
            ));
            let (keeper_, spool) = (Arc::clone(&keeper), Arc::clone(spool));
            let (following, wanted) =
                Following::new((**registry).clone(), keeper_, Some(spool)).map_err(Error::Data)?;
            let following = Arc::new(following);
            let fetching = Arc::clone(&following).fetch(wanted, tasks.stopping());
            tasks.essential("fetching on demand", fetching);
            Source::Registry(keeper, following)
        }
    })
}

/// Sends what is to be told elsewhere, once calls under way are answered for the last time.
fn export(pages: &Operations, tasks: &mut Tasks) {
    let Some(exporter) = &pages.decider.exporter else {
        return;
    };
    let end = tasks.stopped();
    let spans = Arc::clone(exporter).send_spans(end.clone());
    tasks.closing("sending spans", spans);
    let events = Arc::clone(exporter).send_events(end.clone());
    tasks.closing("sending events", events);
    let pages = pages.clone();
    let metrics = Arc::clone(exporter).send_metrics(move || page(&pages), end);
    tasks.closing("sending metrics", metrics);
}

/// The spool of usage records.
async fn spool(settings: &Sidecar, metrics: &Metrics) -> Arc<Spool> {
    // Where a registry is followed it collects them.
    let keeping = match &settings.origin {
        Origin::Bundle(_) => Keeping::Newest,
        Origin::Registry(_) => Keeping::UntilTaken,
    };
    let folder = settings.evidence.clone();
    Arc::new(Spool::open(folder, keeping, settings.evidence_size, metrics.clone()).await)
}

fn announce(settings: &Sidecar, tcp: SocketAddr, unix: Option<&Unix>, operations: SocketAddr) {
    for (key, value, source) in settings.settings.effective() {
        tracing::info!(key, value, source, "setting");
    }
    if settings.identity == Identity::Asserted {
        tracing::warn!(
            "INSECURE: callers are believed to be who they say they are; any process that reaches this port can ask for any subject"
        );
    }
    tracing::info!(decisions = %tcp, unix = unix.map(|unix| unix.path().display().to_string()), %operations, tls = settings.tls.is_some() || settings.workload_api.is_some(), version = env!("CARGO_PKG_VERSION"), "listening");
}

/// The ways in for those who do not speak our own protocol.
struct Fronts {
    envoy: AuthorizationServer<ExtAuthz>,
    envoy_over_http: ExtAuthz,
    gateway: ExtMcpServer<ExtMcp>,
    authzen: AuthZen,
}

fn fronts(answering: &Answering, settings: &Sidecar) -> Fronts {
    let proxies = || Arc::clone(&settings.proxies);
    let envoy = ExtAuthz {
        answering: answering.clone(),
        proxies: proxies(),
        tokens: Arc::clone(&settings.proxy_tokens),
    };
    let gateway = ExtMcp {
        answering: answering.clone(),
        proxies: proxies(),
    };
    Fronts {
        envoy_over_http: envoy.clone(),
        envoy: AuthorizationServer::new(envoy).max_decoding_message_size(MAX_MESSAGE),
        gateway: ExtMcpServer::new(gateway).max_decoding_message_size(LISTS),
        authzen: AuthZen::new(answering.clone(), proxies(), settings.authzen_url.clone()),
    }
}

/// Everything that is answered where decisions are.
fn services(
    checks: Served,
    Fronts {
        envoy,
        envoy_over_http,
        gateway,
        authzen,
    }: Fronts,
    health: HealthServer<impl Health>,
    tokens: Option<Arc<Tokens>>,
) -> Result<Direct<Served>, Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed = |error: tonic_reflection::server::Error| Error::Failed(error.to_string());
    let current = reflection().build_v1().map_err(failed)?;
    // Python's client knows the older name alone.
    let older = reflection().build_v1alpha().map_err(failed)?;
    let others = Routes::new(health)
        .add_service(envoy)
        .add_service(gateway)
        .add_service(current)
        .add_service(older);
    let others = others
        .into_axum_router()
        .merge(authzen::routes(authzen))
        .merge(ext_authz_http::routes(envoy_over_http))
        // Envoy takes any 200 for a yes, as gRPC's own answer to what is not known is; its clients take a
        // 404 for UNIMPLEMENTED.
        .fallback(|| async { (http::StatusCode::NOT_FOUND, "there is nothing here\n") });
    let others = Routes::from(others).prepare();
    Ok(Direct {
        often: checks,
        others,
        tokens,
    })
}

/// Keeps gRPC health in step: serving with a snapshot in force, and not once told to stop.
async fn report(
    reporter: HealthReporter,
    published: Arc<Published<Loaded>>,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut changes = published.changes();
    loop {
        if published.get().is_some() {
            set_health(&reporter, tonic_health::ServingStatus::Serving).await;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = changes.changed() => {}
        }
    }
    set_health(&reporter, tonic_health::ServingStatus::NotServing).await;
    Ok(())
}

/// The one state of the server as a whole and of its service.
async fn set_health(reporter: &HealthReporter, status: tonic_health::ServingStatus) {
    for name in ["", Served::NAME] {
        reporter.set_service_status(name, status).await;
    }
}
