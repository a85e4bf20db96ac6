//! The decision log: every decision as a line of JSON, to a file that is rotated, or to standard
//! output. It is no evidence: uses of exceptions are recorded elsewhere, before they are answered.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::{config::DecisionLog, telemetry::Metrics};

use super::{decider::Decider, lines::Lines};

/// What only a line that tells of missed decisions holds.
const MISSED: &str = "\"exeat/v1\",\"missed\":";

/// Where lines go.
#[derive(Debug)]
enum Journal {
    Stdout,
    File {
        path: PathBuf,
        file: Option<File>,
        written: u64,
        most: u64,
        files: usize,
    },
}

/// Writes down every decision until stopped, and then those that are left.
pub(super) async fn keep(
    decider: Arc<Decider>,
    settings: DecisionLog,
    stop: CancellationToken,
) -> Result<(), String> {
    let metrics = decider.metrics.clone();
    // From the first on: some may have been made by now.
    let mut lines = Lines::of(decider, u64::MAX, settings.values);
    let mut journal = match settings.to {
        None => Journal::Stdout,
        Some(path) => Journal::File {
            path,
            file: None,
            written: 0,
            most: settings.size,
            files: settings.files,
        },
    };
    let mut failing = false;
    loop {
        let (chunk, missed) = lines.ready();
        metrics.unlogged("missed", missed);
        if chunk.is_empty() {
            if stop.is_cancelled() {
                return Ok(());
            }
            tokio::select! {
                () = lines.wait() => {}
                () = stop.cancelled() => {}
            }
            continue;
        }
        let marks = chunk.lines().filter(|line| line.contains(MISSED)).count();
        let count = chunk.lines().count().saturating_sub(marks) as u64;
        let written = spawn_blocking(move || {
            let written = journal.write(chunk.as_bytes());
            (journal, written)
        });
        let written = written.await.map_err(|error| error.to_string())?;
        journal = written.0;
        tell(&metrics, written.1, count, &mut failing);
    }
}

fn tell(metrics: &Metrics, written: io::Result<()>, count: u64, failing: &mut bool) {
    match written {
        Ok(()) => {
            if *failing {
                tracing::info!("decisions are logged again");
            }
            *failing = false;
        }
        Err(error) => {
            metrics.unlogged("failing", count);
            if !*failing {
                tracing::error!(%error, "decisions cannot be logged; they go on, and what is not logged is counted in exeat_decisions_unlogged_total");
            }
            *failing = true;
        }
    }
}

impl Journal {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File {
                path,
                file,
                written,
                most,
                files,
            } => {
                if file.is_none() {
                    let opened = open(path)?;
                    *written = opened.metadata()?.len();
                    *file = Some(opened);
                }
                if *written > 0 && written.saturating_add(lines.len() as u64) > *most {
                    // Whatever fails from here on, nothing is rotated twice.
                    *file = None;
                    *written = 0;
                    rotate(path, *files)?;
                    *file = Some(open(path)?);
                }
                // What is cut short is cut off again, so that every line is whole.
                let Some(open) = file else { return Ok(()) };
                if let Err(error) = open.write_all(lines) {
                    let _ = open.set_len(*written);
                    *file = None;
                    return Err(error);
                }
                *written = written.saturating_add(lines.len() as u64);
                Ok(())
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(path)?;
    // What a crash cut short is ended, so that the next line is one.
    if file.metadata()?.is_file() && is_cut(path).unwrap_or(false) {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Whether a file ends within a line.
fn is_cut(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let Some(last) = file.metadata()?.len().checked_sub(1) else {
        return Ok(false);
    };
    let mut end = [0];
    file.read_exact_at(&mut end, last)?;
    Ok(end != *b"\n")
}

/// Whether a decision log can be written, before anything is decided.
///
/// # Errors
///
/// Why not, with its path.
pub(super) fn check(settings: &DecisionLog) -> Result<(), String> {
    let Some(path) = settings.to.as_ref().filter(|_| settings.kept) else {
        return Ok(());
    };
    open(path)
        .map(drop)
        .map_err(|error| format!("`decision_log`: {}: {error}", path.display()))
}

/// The `n`-th file before the present one.
pub fn earlier(path: &Path, n: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Makes every file one older; the oldest goes.
fn rotate(path: &Path, files: usize) -> io::Result<()> {
    for n in (1..files).rev() {
        let from = if n == 1 {
            path.to_owned()
        } else {
            earlier(path, n.saturating_sub(1))
        };
        match std::fs::rename(from, earlier(path, n)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if files > 1 {
        return Ok(());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_rotated_and_the_oldest_goes() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("made/decisions.jsonl");
        let mut journal = Journal::File {
            path: path.clone(),
            file: None,
            written: 0,
            most: 10,
            files: 3,
        };
        for n in 0..5 {
            journal.write(format!("line {n}\n").as_bytes()).unwrap();
        }
        let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            [
                text(&path),
                text(&earlier(&path, 1)),
                text(&earlier(&path, 2)),
                text(&earlier(&path, 3))
            ],
            ["line 4\n", "line 3\n", "line 2\n", ""]
        );
        // A line that was cut short is ended.
        std::fs::write(&path, "cut sho").unwrap();
        open(&path).unwrap();
        assert_eq!(text(&path), "cut sho\n");
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
