//! Builds every part, binds, then runs to the end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, routing::get};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    config::RegistryProcess,
    domain::{Schedule, UsageLimits},
    manifest::read_schedule,
    runtime::{
        clock::Clock,
        listen::{Tcp, make_room},
        secret::write_secret,
        serve::{Error, serve_tcp},
        tasks::{End, Tasks},
        tls::{Clients, Keys},
    },
    telemetry::otlp::{self, Exporter},
    wire::{
        encoded,
        signed::{Signer, random},
        v1,
    },
};

use super::{
    access::{AccessRequests, routes as access_routes},
    authn::Guests,
    completions::completions,
    core::{self, Registry},
    files::Folder,
    inbox::{Inbox, events},
    ledger::{NOTE, checkpoints},
    notifications::{Deliveries, Outside, deliver, remind},
    operations::{self, Operations, export},
    pki::{Authority, Issued},
    reporting::{Reporting, reports},
    role::Role,
    rounds::scheduled,
    scope::Scope,
    service::{NotificationCalls, UsageCalls, token},
    services::{Outward, services},
    sign_in::{Doors, Providers, local},
    store::{Access, Sqlite, Store, UsageFile},
    sweep::sweeps,
    usage::Usages,
    way::make_way,
};

/// The file of usage records, beside the store.
const USAGE: &str = "usage.db";

/// A registry whose socket is bound and that serves nothing yet.
#[derive(Debug)]
pub struct Bound {
    settings: RegistryProcess,
    folder: Folder,
    registry: Arc<Registry>,
    store: Sqlite,
    guests: Arc<Guests>,
    usages: Arc<Usages>,
    doors: Arc<Doors>,
    outside: Outside,
    tcp: Tcp,
    operations: Tcp,
    tls: Option<Arc<Keys>>,
    exporter: Option<Arc<Exporter>>,
    /// When reports are made by themselves.
    schedule: Option<Schedule>,
}

impl From<core::Error> for Error {
    fn from(error: core::Error) -> Self {
        Self::Data(error.to_string())
    }
}

/// Opens the store of a data folder, and makes the first of everything where there is nothing.
async fn open(
    folder: &Folder,
    clock: Clock,
    kept: usize,
) -> Result<(Registry, Sqlite, Option<String>), Error> {
    let path = folder.file("registry.db");
    let born = !path.try_exists().unwrap_or(true);
    let signer = folder.signer(born).map_err(Error::Data)?;
    let failed = |error| Error::Data(format!("{}: {error}", path.display()));
    let sqlite = Sqlite::open_with_reserve(&path, folder.file("registry.reserve"));
    let sqlite = sqlite.await.map_err(failed)?;
    let store: Arc<dyn Store> = Arc::new(sqlite.clone());
    let mut registry = Registry::open(Arc::clone(&store), signer, clock, kept).await?;
    let note = folder.file(NOTE);
    registry.remember(&note).await?;
    registry.kept_note = Some(note);
    let mut first = None;
    if store.access().await.map_err(core::Error::Store)?.is_empty() {
        let (token, digest) = token()?;
        let access = Access {
            identity: "user:admin".into(),
            role: "admin".into(),
            scope: "".into(),
            token: Some(digest),
        };
        let file = folder.file("admin.token");
        write_secret(&file, token.as_bytes())
            .map_err(|error| Error::Data(format!("{}: {error}", file.display())))?;
        store.grant(&access).await.map_err(core::Error::Store)?;
        first = Some(token);
    }
    Ok((registry, sqlite, first))
}

impl Bound {
    /// Binds the socket, takes hold of the data folder and opens the store.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from starting.
    pub async fn bind(settings: RegistryProcess, clock: Clock) -> Result<Self, Error> {
        let keys = settings.tls.as_ref();
        let tls = keys
            .map(|keys| {
                let ca = keys.client_ca.as_deref();
                Keys::read(&keys.certificate, &keys.key, ca, Clients::Some).map(Arc::new)
            })
            .transpose()
            .map_err(Error::Tls)?;
        let outside = match &settings.webhooks {
            Some(path) => Outside::read(path).map_err(Error::Data)?,
            None => Outside::default(),
        };
        let schedule = match settings.report_schedule.as_str() {
            "never" => None,
            text => {
                let read = read_schedule(text).map_err(|e| e.under("report_schedule"));
                Some(read.map_err(|error| Error::Data(error.to_string()))?)
            }
        };
        let providers = Providers::read(settings.sign_in.as_deref()).map_err(Error::Data)?;
        let folder = Folder::hold(&settings.data).map_err(Error::Data)?;
        let otel = otlp::Settings::read(&settings.otel).map_err(Error::Data)?;
        make_room(1, settings.max_connections);
        let tcp = Tcp::bind(settings.listen).await.map_err(Error::Bind)?;
        let operations = Tcp::bind(settings.operations).await.map_err(Error::Bind)?;
        let (mut registry, store, first) = open(&folder, clock, settings.kept_changes).await?;
        registry.weakens_at_will = settings.weakens_at_will;
        registry.applies_exceptions = settings.applies_exceptions;
        if first.is_some() {
            tracing::info!(file = %folder.file("admin.token").display(), "the first administrator's token was written");
        }
        let registry = Arc::new(registry);
        let guests = Arc::new(Guests::new(&registry));
        let access = registry.store.access().await.map_err(core::Error::Store)?;
        guests.read(&access).map_err(core::Error::Store)?;
        let usages = Usages::open(&registry, &guests, &folder.file(USAGE)).await;
        let usages = Arc::new(usages.map_err(Error::from)?);
        let salt = random::<8>().map(u64::from_ne_bytes).map_err(Error::Data)?;
        let told = registry.witness.metrics.sending();
        let exporter = Exporter::new(otel, "registry", salt, told, registry.clock.clone())
            .map_err(Error::Data)?;
        let doors = Doors::open(&registry, &guests, store.people(), providers).await;
        let doors = Arc::new(doors.map_err(Error::from)?);
        Ok(Self {
            settings,
            folder,
            registry,
            store,
            guests,
            usages,
            doors,
            outside,
            tcp,
            operations,
            tls,
            exporter,
            schedule,
        })
    }

    /// Where it is served.
    pub fn address(&self) -> SocketAddr {
        self.tcp.address()
    }

    /// Where health and metrics are served.
    pub fn operations(&self) -> SocketAddr {
        self.operations.address()
    }

    /// The key that sidecars pin.
    pub fn pin(&self) -> String {
        self.registry.pin().to_string()
    }

    /// Serves until `asked` to stop.
    ///
    /// # Errors
    ///
    /// What ended it, if nobody asked.
    pub async fn run(self, asked: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self {
            settings,
            folder,
            registry,
            store,
            guests,
            usages,
            doors,
            outside,
            tcp,
            operations,
            tls,
            exporter,
            schedule,
        } = self;
        for (key, value, source) in settings.settings.effective() {
            tracing::info!(key, value, source, "setting");
        }
        let view = registry.view();
        tracing::info!(address = %tcp.address(), operations = %operations.address(), tls = tls.is_some(), key = %registry.pin(), era = %view.beginning.era, revision = view.head.revision, data = %folder.file("").display(), version = env!("CARGO_PKG_VERSION"), "listening");
        if let Some(why) = &view.read_only {
            tracing::error!(%why, "read-only");
        }
        let mut tasks = Tasks::new();
        let stop = tasks.stopping();
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let failed = |error: tonic_reflection::server::Error| Error::Failed(error.to_string());
        let Outside {
            endpoints,
            site,
            sources,
        } = outside;
        let inbox = Arc::new(Inbox {
            registry: Arc::clone(&registry),
            outbox: store.outbox(),
            sources,
        });
        let named: Vec<_> = endpoints.iter().map(|known| known.name.clone()).collect();
        let outbox = store.outbox();
        outbox.retire(&named).await.map_err(core::Error::Store)?;
        store.keep_reserve().await;
        let deliveries = Deliveries::new(&registry, store.outbox(), site);
        let notifications = NotificationCalls {
            registry: Arc::clone(&registry),
            deliveries: deliveries.clone(),
            endpoints: endpoints.clone().into(),
        };
        let recording = UsageCalls {
            registry: Arc::clone(&registry),
            usages: Arc::clone(&usages),
            reservations: store.reservations(),
        };
        let outward = Outward {
            notifications,
            doors: Arc::clone(&doors),
            recording,
            access: settings.access_url.clone(),
        };
        let reporting = Arc::new(Reporting {
            registry: Arc::clone(&registry),
            attendants: Arc::default(),
            usages: Some(Arc::clone(&usages)),
        });
        if let Some(schedule) = schedule {
            let kept = folder.file("reports");
            let making = reports(Arc::clone(&reporting), kept, schedule, stop.clone());
            tasks.essential("reports", making);
        }
        let grpc = services(&registry, &guests, &stop, &reporting, Some(outward))
            .add_service(health)
            .add_service(reflection().build_v1().map_err(failed)?)
            .add_service(reflection().build_v1alpha().map_err(failed)?);
        let pages = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(|| async { "ok\n" }))
            .merge(events(inbox));
        let requests = access_routes(AccessRequests {
            registry: Arc::clone(&registry),
            guests: Arc::clone(&guests),
            attendants: Arc::clone(&reporting.attendants),
            base: settings.access_url.clone(),
        });
        let services = Routes::from(grpc.into_axum_router().merge(pages).merge(requests));
        let pages = Operations {
            registry: Arc::clone(&registry),
            usages: Arc::clone(&usages),
        };
        if let Some(exporter) = exporter {
            export(&pages, exporter, &mut tasks);
        }
        let operated = Routes::from(operations::routes(pages));
        // To the very end, so that probes hear what there is to say.
        tasks.outlasting(
            "operations",
            serve_tcp(operated, operations, None, 64, CancellationToken::new()),
        );
        let way = make_way(Arc::clone(&registry), Arc::clone(&guests), stop.clone());
        tasks.essential("making way for revocations", way);
        let timing = completions(Arc::clone(&registry), stop.clone());
        tasks.essential("timing revocations", timing);
        tasks.essential("lifecycle", sweeps(Arc::clone(&registry), stop.clone()));
        tasks.essential("schedule", scheduled(Arc::clone(&registry), stop.clone()));
        tasks.essential("ledger", checkpoints(Arc::clone(&registry), stop.clone()));
        tasks.essential(
            "reminders",
            remind(Arc::clone(&registry), deliveries.clone(), stop.clone()),
        );
        for endpoint in endpoints {
            let sending = deliver(endpoint, deliveries.clone(), stop.clone());
            tasks.essential("notifications", sending);
        }
        let taking = Arc::clone(&usages).run(stop.clone());
        tasks.essential("taking usage records", taking);
        let looking = Arc::clone(&usages).look(stop.clone());
        tasks.essential("looking at usage records", looking);
        tasks.essential("access", look(Arc::clone(&registry), guests, stop.clone()));
        tasks.essential("sessions", doors.sweep(stop.clone()));
        tasks.essential(
            "registry",
            serve_tcp(services, tcp, tls, settings.max_connections, stop),
        );
        let end = tasks.run(asked, settings.drain_timeout).await;
        // What was committed is durable; this tidies the files up.
        usages.file.close().await;
        store.close().await;
        match end {
            End::Asked => {
                tracing::info!("stopped");
                Ok(())
            }
            End::Failed { task, why } => Err(Error::Failed(format!("{task}: {why}"))),
        }
    }
}

/// How often it is looked up who is let in: another process may have issued a certificate.
const LOOK: Duration = Duration::from_secs(2);

async fn look(
    registry: Arc<Registry>,
    guests: Arc<Guests>,
    stop: CancellationToken,
) -> Result<(), String> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(LOOK) => {}
        }
        let _turn = guests.changing.lock().await;
        let read = registry.store.access().await;
        if let Err(error) = read.and_then(|access| guests.read(&access)) {
            tracing::error!(%error, "who is let in cannot be read; what was known goes on");
        }
    }
}

/// Copies the registry of a data folder into a new file, while it may go on.
///
/// # Errors
///
/// A store that cannot be read, or a file that cannot be written.
pub async fn backup(data: &Path, to: &Path) -> Result<(), Error> {
    let path = data.join("registry.db");
    if !path.try_exists().unwrap_or(false) {
        return Err(Error::Data(format!(
            "{}: there is no registry",
            data.display()
        )));
    }
    let sqlite = Sqlite::open_file(&path).await.map_err(core::Error::Store)?;
    sqlite.backup(to).await.map_err(core::Error::Store)?;
    sqlite.close().await;
    let usage = data.join(USAGE);
    if usage.try_exists().unwrap_or(false) {
        let usage = UsageFile::open_file(&usage).await;
        let usage = usage.map_err(core::Error::Store)?;
        let beside = usage.backup(&to.with_extension("usage.db")).await;
        beside.map_err(core::Error::Store)?;
        usage.close().await;
    }
    Ok(())
}

/// Begins a new epoch of the registry of a data folder, beyond revision `seen`; tells which.
///
/// # Errors
///
/// A folder that another process holds, or a store that fails.
pub async fn recover(data: &Path, seen: u64, clock: Clock) -> Result<(u64, u64), Error> {
    let folder = Folder::hold(data).map_err(Error::Data)?;
    let (registry, sqlite, _) = open(&folder, clock, 1).await?;
    // Of a copy that was put back nobody knows what was used since.
    let limited: Vec<_> = registry
        .view()
        .snapshot
        .exceptions()
        .filter(|exception| exception.usage_limits != UsageLimits::default())
        .map(|exception| {
            let id = random().map_err(Error::Data)?;
            Ok((exception.id.clone(), exception.usage_limits, id))
        })
        .collect::<Result<_, Error>>()?;
    let now = registry.clock.now().latest;
    let closed = sqlite.reservations().close(&limited, now).await;
    closed.map_err(core::Error::Store)?;
    let beginning = registry.recover(seen).await?;
    sqlite.close().await;
    Ok((beginning.era.epoch, beginning.base.revision))
}

/// What [`init`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The key that sidecars pin.
    pub pin: String,
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The registry's certificate.
    pub registry: Issued,
    /// A first sidecar's.
    pub sidecar: Issued,
}

/// The folder of a registry's certificates.
const TLS: &str = "tls";

/// Makes a registry with a local certificate authority, a certificate for itself and one for a
/// first sidecar, which is let in; and, if `user` names one with a password, an administrator.
///
/// # Errors
///
/// A folder that cannot be written, or holds an authority already.
pub async fn init(
    data: &Path,
    trust_domain: &str,
    hosts: &[String],
    user: Option<&(String, String)>,
    clock: Clock,
) -> Result<Made, Error> {
    // What will not do is said before anything is made.
    let account = user
        .map(|(identity, password)| local(identity, Role::Admin, password, clock.now().latest))
        .transpose()
        .map_err(|why| Error::Data(why.to_string()))?;
    let folder = Folder::hold(data).map_err(Error::Data)?;
    let tls = folder.file(TLS);
    if tls.join("registry.pem").try_exists().unwrap_or(true) {
        return Err(Error::Data(format!(
            "{}: there is an authority already; use `exeat registry issue` for more certificates",
            tls.display()
        )));
    }
    let authority = Authority::of(&tls, trust_domain, year(&clock)).map_err(Error::Data)?;
    let local = ["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned);
    let hosts: Vec<String> = local.iter().chain(hosts).cloned().collect();
    let registry = authority
        .issue("registry", "registry", &hosts, &tls)
        .map_err(Error::Data)?;
    let ca = authority.certificate();
    let (opened, store, _) = open(&folder, clock, 1).await?;
    let sidecar = let_in(&authority, &store, "local", "*", &tls).await?;
    if let Some(account) = &account {
        let made = store.people().put(account).await;
        if !made.map_err(core::Error::Store)? {
            return Err(Error::Data(format!(
                "`{}` signs in with an issuer",
                account.identity
            )));
        }
    }
    let pin = opened.pin().to_string();
    store.close().await;
    Ok(Made {
        pin,
        ca,
        registry,
        sidecar,
    })
}

/// Issues a certificate for a sidecar and lets it in; a registry that runs sees it at its next
/// look.
///
/// # Errors
///
/// A data folder without an authority.
pub async fn issue(
    data: &Path,
    trust_domain: &str,
    name: &str,
    scope: &str,
    into: &Path,
    clock: &Clock,
) -> Result<Issued, Error> {
    let tls = data.join(TLS);
    if !tls.join("ca.pem").try_exists().unwrap_or(false) {
        return Err(Error::Data(format!(
            "{}: there is no authority; begin with `exeat registry init`",
            tls.display()
        )));
    }
    let authority = Authority::of(&tls, trust_domain, year(clock)).map_err(Error::Data)?;
    let store = Sqlite::open_file(&data.join("registry.db"))
        .await
        .map_err(core::Error::Store)?;
    let issued = let_in(&authority, &store, name, scope, into).await;
    store.close().await;
    issued
}

async fn let_in(
    authority: &Authority,
    store: &Sqlite,
    name: &str,
    scope: &str,
    into: &Path,
) -> Result<Issued, Error> {
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !fits {
        return Err(Error::Data(format!(
            "`{name}` is no name; use letters, digits, `-`, `.` and `_`"
        )));
    }
    let scope = Scope::parse(scope.split_whitespace()).map_err(|e| Error::Data(e.to_string()))?;
    let issued = authority
        .issue(
            &format!("sidecar/{name}"),
            &format!("sidecar-{name}"),
            &[],
            into,
        )
        .map_err(Error::Data)?;
    let access = Access {
        identity: issued.identity.as_str().into(),
        role: Role::Sidecar.name().into(),
        scope: scope.to_string().into(),
        token: None,
    };
    store.grant(&access).await.map_err(core::Error::Store)?;
    Ok(issued)
}

/// Replaces the key that statements are signed with; the old one says so, and sidecars follow.
///
/// # Errors
///
/// A folder that another process holds.
pub async fn rotate(data: &Path, clock: Clock) -> Result<(String, String), Error> {
    let folder = Folder::hold(data).map_err(Error::Data)?;
    let (registry, store, _) = open(&folder, clock, 1).await?;
    let (next, bytes) = Signer::generate().map_err(Error::Data)?;
    let statement = registry.succession(&next);
    // What was accepted under the old key is vouched for by the new one.
    registry.checkpoint_for(&next).await?;
    // The statement first: a key without it nobody would follow.
    store
        .keep_key(&encoded(&statement))
        .await
        .map_err(core::Error::Store)?;
    store.close().await;
    let path = folder.file("registry.key");
    write_secret(&path, &bytes)
        .map_err(|error| Error::Data(format!("{}: {error}", path.display())))?;
    Ok((registry.pin().to_string(), next.pin().to_string()))
}

fn year(clock: &Clock) -> i32 {
    let text = clock.now().latest.to_string();
    text.get(..4)
        .and_then(|year| year.parse().ok())
        .unwrap_or(2026)
}
