//! Space that is kept for what is taken back: a revocation that cannot be written is none.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::sync::Mutex;

use crate::runtime::simulated::aside;

use super::port::StoreError;

/// As much as is kept where there is room, in bytes.
const WHOLE: u64 = 8 << 20;
/// As much as is given up at once: several removals, of some tens of kilobytes each.
const SLICE: u64 = 256 << 10;
/// What a start takes, at the most, where there is less room than that.
const START: u64 = 4 * SLICE;

/// A file that nothing is in.
#[derive(Clone, Debug)]
pub(super) struct Reserve(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Held by whoever writes with what is given up.
    turn: Mutex<()>,
    /// Less is kept than there should be.
    short: AtomicBool,
}

impl Reserve {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(Arc::new(Kept {
            path,
            turn: Mutex::new(()),
            short: AtomicBool::new(true),
        }))
    }

    /// Makes room to start with, where there is next to none.
    pub(super) async fn begin(&self) {
        let kept = Arc::clone(&self.0);
        let began = aside(move || {
            let folder = kept.path.parent().unwrap_or(Path::new("."));
            let room = statvfs(folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            room.is_ok_and(|room| room < START) && kept.give_up(START)
        });
        if began.await.unwrap_or(false) {
            tracing::error!("the disk is full; beginning with the space that was kept: make room");
        }
    }

    /// Keeps as much as there is room for, if it is less than there should be.
    pub(super) async fn fill(&self) {
        if !self.0.short.load(Ordering::Relaxed) {
            return;
        }
        let kept = Arc::clone(&self.0);
        // Nothing is lost where it fails: it is tried again.
        let _ = aside(move || kept.fill()).await;
    }

    /// Does `write`, which found no room, with what is kept: so much of it as it takes.
    pub(super) async fn with<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        write: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let _turn = self.0.turn.lock().await;
        loop {
            // Whoever had the turn may have left some.
            let written = write().await;
            let kept = Arc::clone(&self.0);
            let full = matches!(written, Err(StoreError::Full(_)));
            if !full || !aside(move || kept.give_up(SLICE)).await.unwrap_or(false) {
                self.fill().await;
                return written;
            }
            tracing::error!(
                "the disk is full; writing with the space that was kept for it what is taken back: make room"
            );
        }
    }
}

impl Kept {
    /// Gives up some of what is kept; whether there was any.
    fn give_up(&self, size: u64) -> bool {
        let given = || -> io::Result<bool> {
            let file = File::options().write(true).open(&self.path)?;
            let held = file.metadata()?.len();
            // First: whoever is stopped in the middle of it has it filled again.
            self.short.store(true, Ordering::Relaxed);
            file.set_len(held.saturating_sub(size))?;
            Ok(held > 0)
        };
        given().unwrap_or(false)
    }

    fn fill(&self) {
        let grown = || -> io::Result<()> {
            let mut made = File::options();
            let file = made
                .write(true)
                .create(true)
                .truncate(false)
                .open(&self.path)?;
            let mut held = file.metadata()?.len();
            while held < WHOLE {
                fallocate(&file, FallocateFlags::empty(), held, SLICE)?;
                held = held.saturating_add(SLICE);
            }
            Ok(())
        };
        match grown() {
            Ok(()) => self.short.store(false, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            Err(error) => {
                let file = self.path.display();
                tracing::warn!(%file, %error, "no space can be kept for what is taken back");
                // It would be the same the next time.
                self.short.store(false, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_is_given_up_than_a_write_takes_and_it_is_kept_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r");
        let held = || std::fs::metadata(&file).map_or(0, |file| file.len());
        let reserve = Reserve::at(file.clone());
        reserve.fill().await;
        assert_eq!(held(), WHOLE);
        for slices in [0, 1, 5] {
            let written = reserve.with(|| async {
                if held() > WHOLE - slices * SLICE {
                    return Err(StoreError::Full("no".into()));
                }
                Ok(())
            });
            written.await.unwrap();
            assert_eq!(held(), WHOLE);
        }
        let never = reserve.with(|| async { Err::<(), _>(StoreError::Full("no".into())) });
        assert!(matches!(never.await, Err(StoreError::Full(_))));
        assert_eq!(held(), WHOLE);
        let other = reserve.with(|| async { Err::<(), _>(StoreError::Failed("no".into())) });
        assert!(matches!(other.await, Err(StoreError::Failed(_))));
    }
}
