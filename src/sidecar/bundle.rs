//! The folder of manifests: read whole, published whole, read again when it changes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{RecursiveMode, Watcher};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::Digest,
    manifest::{Bundle, Problem},
    runtime::{clock::Clock, publish::Published},
    telemetry::Metrics,
};

use super::decider::{APART, Loaded};

/// How long the folder must be quiet before it is read: editors and mounts write in steps.
const QUIET: Duration = Duration::from_millis(50);
/// How many times that is waited for.
const PATIENCE: u32 = 20;
/// How often the folder is read without a sign of change: a watch does not follow a folder that is
/// replaced as a whole, nor what links lead to.
const REREAD: Duration = Duration::from_secs(30);
/// How soon after a change the folder is read once more: a file put into a new folder before that
/// is watched as well gives no sign.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// Loads the folder and keeps the last good snapshot published.
#[derive(Debug)]
pub(super) struct Loader {
    folder: PathBuf,
    published: Arc<Published<Loaded>>,
    clock: Clock,
    metrics: Metrics,
    problems: Mutex<Vec<String>>,
}

impl Loader {
    pub(super) fn new(
        folder: PathBuf,
        published: Arc<Published<Loaded>>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            folder,
            published,
            clock,
            metrics,
            problems: Mutex::new(Vec::new()),
        }
    }

    /// What is wrong with the folder as it is now; the last good bundle stays in force.
    pub(super) fn problems(&self) -> Vec<String> {
        self.problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the folder; a bundle that differs from the one in force replaces it.
    pub(super) fn load(&self) {
        let confirmed = self.clock.elapsed();
        let current = self.published.get();
        let known = current
            .as_ref()
            .map(|loaded| loaded.snapshot.digest().clone());
        let before = current.clone();
        let result = read(
            &self.folder,
            known.as_ref(),
            current
                .as_ref()
                .map_or(0, |loaded| loaded.snapshot.revision()),
        );
        let problems = match result {
            Ok(read) => {
                let (snapshot, result) = match (read, current) {
                    (Some(snapshot), _) => {
                        let (controls, subjects, exceptions) = snapshot.counts();
                        tracing::info!(digest = %snapshot.digest(), revision = snapshot.revision(), controls, subjects, exceptions, "bundle in force");
                        (Arc::new(snapshot), "loaded")
                    }
                    (None, Some(current)) => (Arc::clone(&current.snapshot), "unchanged"),
                    (None, None) => return,
                };
                self.metrics.loaded(result);
                let loaded = Loaded::after(before.as_deref(), snapshot, confirmed, APART);
                self.published.publish(Arc::new(loaded));
                Vec::new()
            }
            Err(problems) => {
                self.metrics.loaded("refused");
                let kept = if known.is_some() {
                    "the last good one stays in force"
                } else {
                    "nothing is in force"
                };
                let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
                // Said once, not at every look.
                if self.problems() != told {
                    for problem in &told {
                        tracing::error!("{problem}");
                    }
                    tracing::error!(problems = told.len(), "bundle refused; {kept}");
                }
                told
            }
        };
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// Watches the folder, and SIGHUP, until told to stop.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        let (sender, mut changes) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // A full channel already says what there is to say. Reading is no change.
                if event.map_or(true, |event| !event.kind.is_access()) {
                    let _ = sender.try_send(());
                }
            })
            .map_err(|error| format!("{}: cannot be watched: {error}", self.folder.display()))?;
        watcher
            .watch(&self.folder, RecursiveMode::Recursive)
            .map_err(|error| format!("{}: cannot be watched: {error}", self.folder.display()))?;
        let mut hangups = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
        // What changed between the first reading and the watch is read now.
        self.read_again().await;
        let mut next = REREAD;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangups.recv() => tracing::info!("told to read the bundle again"),
                () = sleep(next) => next = REREAD,
                change = changes.recv() => {
                    next = SECOND_LOOK;
                    if change.is_none() {
                        return Err("the folder's watch ended".into());
                    }
                    // Capped, so that a folder that is never quiet is read all the same.
                    for _ in 0..PATIENCE {
                        if timeout(QUIET, changes.recv()).await.is_err() {
                            break;
                        }
                    }
                }
            }
            self.read_again().await;
        }
    }

    async fn read_again(self: &Arc<Self>) {
        let loader = Arc::clone(self);
        if let Err(error) = spawn_blocking(move || loader.load()).await {
            tracing::error!(%error, "reading the bundle failed");
            let told = vec![format!("reading the bundle failed: {error}")];
            *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = told;
        }
    }
}

/// The folder's snapshot; nothing if it is the one `known`.
fn read(
    folder: &Path,
    known: Option<&Digest>,
    revision: u64,
) -> Result<Option<crate::engine::Snapshot>, Vec<Problem>> {
    let bundle = Bundle::read(folder)?;
    if known == Some(bundle.digest()) {
        return Ok(None);
    }
    bundle.snapshot(revision.saturating_add(1)).map(Some)
}
