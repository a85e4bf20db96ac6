//! Space that is kept for what is taken back: on a full disk nothing else could be granted anyway,
//! and a revocation that cannot be written is none.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};

use crate::runtime::simulated::aside;

/// As much as is kept where there is room, in bytes: some hundred removals.
const WHOLE: u64 = 8 << 20;
/// The least that is worth keeping.
const LEAST: u64 = 64 << 10;

/// A file that nothing is in.
#[derive(Clone, Debug)]
pub(super) struct Reserve(pub(super) PathBuf);

impl Reserve {
    /// Keeps as much as there is room for.
    pub(super) async fn fill(&self) {
        let file = self.0.clone();
        if let Err(why) = aside(move || fill(&file)).await {
            tracing::error!(why, "no space can be kept for what is taken back");
        }
    }

    /// Gives the space up; whether there was any.
    pub(super) async fn give_up(&self) -> bool {
        let file = self.0.clone();
        aside(move || give_up(&file)).await.unwrap_or(false)
    }
}

fn fill(path: &Path) {
    let mut size = WHOLE;
    while size >= LEAST {
        match keep(path, size) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                give_up(path);
                size /= 2;
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "no space can be kept for what is taken back");
                return;
            }
        }
    }
    tracing::error!(file = %path.display(), "the disk is full, and no space can be kept for what is taken back; make room");
}

fn keep(path: &Path, size: u64) -> io::Result<()> {
    let mut made = File::options();
    let file = made.write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() < size {
        fallocate(&file, FallocateFlags::empty(), 0, size)?;
    }
    Ok(())
}

fn give_up(path: &Path) -> bool {
    let kept = fs::metadata(path).is_ok_and(|file| file.len() > 0);
    kept && fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_kept_once_and_given_up_once() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve(folder.path().join("r"));
        assert!(!reserve.give_up().await);
        reserve.fill().await;
        reserve.fill().await;
        assert_eq!(fs::metadata(&reserve.0).unwrap().len(), WHOLE);
        assert!(reserve.give_up().await && !reserve.give_up().await);
    }
}
