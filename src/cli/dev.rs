//! `exeat dev`: registry and sidecar in one process over a folder.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use crate::{
    config, manifest::Bundle, registry, runtime::clock::Clock, sidecar, telemetry, wire::v1,
};

use super::{
    reach::{Registry, first_token},
    registry_args::Dev,
    run::Exit,
    screen::{BAD, BOLD, DIM, GOOD, Screen, styled},
    serve::stop,
};

/// How long the folder must be quiet before it is applied.
const QUIET: Duration = Duration::from_millis(100);

/// A registry and a sidecar that follows it, running in this process.
pub(super) struct Pair {
    /// Where the registry is.
    pub(super) registry: String,
    /// An administrator's token.
    pub(super) token: String,
    /// The sidecar's Unix socket.
    pub(super) socket: PathBuf,
    pub(super) registry_bound: registry::Bound,
    pub(super) sidecar: SidecarPlan,
}

/// The sidecar that is started once the registry serves.
pub(super) struct SidecarPlan {
    data: PathBuf,
    key: String,
    subject: Option<String>,
    listen: String,
    operations: String,
    unix: String,
}

fn unexpected(error: &dyn std::fmt::Display) -> Exit {
    Exit::Unexpected(error.to_string())
}

impl Pair {
    /// Binds the registry of a data folder.
    pub(super) async fn bind(
        data: &Path,
        subject: Option<String>,
        ports: [String; 3],
        unix: Option<&Path>,
        clock: Clock,
    ) -> Result<Self, Exit> {
        let [registry_port, listen, operations] = ports;
        let folder = data.join("registry");
        let flags = [
            ("data", folder.to_str().map(ToOwned::to_owned)),
            ("listen", Some(registry_port)),
            ("operations", Some("127.0.0.1:0".to_owned())),
            ("drain_timeout", Some("1s".to_owned())),
            // Whoever edits the folder is all the people there are.
            ("weakening", Some("applied".to_owned())),
            ("exceptions", Some("applied".to_owned())),
        ];
        let settings = config::RegistryProcess::load(None, &[], &flags)
            .map_err(|wrong| Exit::Usage(wrong.to_string()))?;
        let bound = registry::Bound::bind(settings, clock)
            .await
            .map_err(|error| unexpected(&error))?;
        let socket = unix.map_or_else(|| data.join("exeat.sock"), Path::to_path_buf);
        Ok(Self {
            registry: bound.address().to_string(),
            token: first_token(&folder)?,
            sidecar: SidecarPlan {
                data: data.to_owned(),
                key: bound.pin(),
                subject,
                listen,
                operations,
                unix: socket.display().to_string(),
            },
            socket,
            registry_bound: bound,
        })
    }
}

impl SidecarPlan {
    /// Binds the sidecar, let in by `registry`.
    pub(super) async fn bind(
        &self,
        registry: &mut Registry,
        address: &str,
        clock: Clock,
    ) -> Result<sidecar::Bound, Exit> {
        let request = v1::GrantRequest {
            identity: "service:dev-sidecar".into(),
            role: v1::Role::Sidecar.into(),
            scope: vec!["*".into()],
        };
        let granted = registry.fleet.grant(request).await;
        let token = granted
            .map_err(|status| unexpected(&status))?
            .into_inner()
            .token;
        let file = self.data.join("sidecar.token");
        std::fs::write(&file, token).map_err(|error| unexpected(&error))?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(|error| unexpected(&error))?;
        let text = |path: &Path| path.to_str().map(ToOwned::to_owned);
        let asserted = self.subject.is_none().then(|| "true".to_owned());
        let flags = [
            ("registry", Some(address.to_owned())),
            ("registry_key", Some(self.key.clone())),
            ("registry_token_file", text(&file)),
            ("data", text(&self.data.join("sidecar"))),
            ("listen", Some(self.listen.clone())),
            ("operations", Some(self.operations.clone())),
            ("unix", Some(self.unix.clone())),
            ("subject", self.subject.clone()),
            ("insecure_asserted_identity", asserted),
            ("drain_timeout", Some("1s".to_owned())),
        ];
        let settings = config::Sidecar::load(None, &[], &flags)
            .map_err(|wrong| Exit::Usage(wrong.to_string()))?;
        sidecar::Bound::bind(settings, clock)
            .await
            .map_err(|error| unexpected(&error))
    }
}

pub(super) async fn dev(args: Dev, clock: Clock, screen: &mut Screen) -> Result<Exit, Exit> {
    telemetry::start(false, "warn").map_err(Exit::Usage)?;
    let data = args.data.unwrap_or_else(|| args.folder.join(".exeat/dev"));
    std::fs::create_dir_all(&data).map_err(|error| unexpected(&error))?;
    let unix = if args.unix.as_os_str() == "auto" {
        config::default_socket(&config::environment())
    } else {
        args.unix
    };
    let ports = [args.registry_listen, args.listen, args.operations];
    let pair = Pair::bind(&data, args.subject, ports, Some(&unix), clock.clone()).await?;
    let asked = stop().map_err(|error| unexpected(&error))?;
    let (ended, mut end) = watch::channel(false);
    let Pair {
        registry: address,
        token,
        socket,
        registry_bound,
        sidecar,
    } = pair;
    let mut second = end.clone();
    let serving = registry_bound.run(async move {
        // A sender that is gone asks to stop as well.
        let _ = second.wait_for(|ended| *ended).await;
    });
    let work = async {
        let mut registry = Registry::with(&address, None, &token).await?;
        let bound = sidecar.bind(&mut registry, &address, clock).await?;
        screen.say(&format!(
            "{}  decisions {} and {}  registry {address}\n{}",
            styled(BOLD, "exeat dev"),
            socket.display(),
            bound.address(),
            styled(
                DIM,
                &format!(
                    "EXEAT_TOKEN is in {}; change a file in {} and it is applied",
                    data.join("registry/admin.token").display(),
                    args.folder.display()
                )
            )
        ))?;
        let deciding = bound.run(async move {
            let _ = end.wait_for(|ended| *ended).await;
        });
        let reloading = reload(&args.folder, registry, screen);
        tokio::select! {
            () = asked => Ok(()),
            served = deciding => served.map_err(|error| unexpected(&error)),
            reloaded = reloading => reloaded,
        }
    };
    let (served, worked) = tokio::join!(serving, async {
        let worked = Box::pin(work).await;
        ended.send_replace(true);
        worked
    });
    worked?;
    served.map_err(|error| unexpected(&error))?;
    Ok(Exit::Done)
}

/// Applies the folder now and whenever it changes.
async fn reload(folder: &Path, mut registry: Registry, screen: &mut Screen) -> Result<(), Exit> {
    let (sender, mut changes) = mpsc::channel(1);
    let sender = Arc::new(sender);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // A full channel already says what there is to say. Our own data lies below as well.
        let ours = |path: &PathBuf| path.components().any(|part| part.as_os_str() == ".exeat");
        if event.map_or(true, |event| {
            !event.kind.is_access() && !event.paths.iter().all(ours)
        }) {
            let _ = sender.try_send(());
        }
    })
    .map_err(|error| unexpected(&error))?;
    watcher
        .watch(folder, RecursiveMode::Recursive)
        .map_err(|error| unexpected(&error))?;
    loop {
        match Bundle::gather(folder) {
            Err(problems) => {
                for problem in problems {
                    screen.complain(&problem.to_string());
                }
            }
            Ok(files) => {
                let request = v1::ApplyRequest {
                    files: files
                        .into_iter()
                        .map(|(name, content)| v1::ManifestFile { name, content })
                        .collect(),
                    dry_run: false,
                    prune: true,
                    expected: Vec::new(),
                };
                match registry.objects.apply(request).await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        let count = answer
                            .changes
                            .iter()
                            .filter(|change| change.change() != v1::ChangeKind::Unchanged)
                            .count();
                        screen.say(&format!(
                            "{} revision {}: {count} changed",
                            styled(GOOD, "applied"),
                            answer.revision
                        ))?;
                    }
                    Err(status) => {
                        screen.say(&format!("{} {}", styled(BAD, "refused"), status.message()))?;
                    }
                }
            }
        }
        if changes.recv().await.is_none() {
            return Err(Exit::Unexpected("the folder's watch ended".into()));
        }
        while tokio::time::timeout(QUIET, changes.recv()).await.is_ok() {}
    }
}
