//! Space that is kept for what is taken back: a revocation that cannot be written is none.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, MutexGuard, PoisonError,
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

/// The least that is kept in one go.
const LEAST: u64 = 4 << 10;

/// A file that nothing is in.
#[derive(Clone, Debug)]
pub(super) struct Reserve(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Held by whoever writes with what is given up.
    turn: Mutex<()>,
    /// Held while the file changes, by whoever may wait for a disk.
    changing: std::sync::Mutex<()>,
    /// Less is kept than there should be; changed while that is held.
    short: AtomicBool,
}

impl Reserve {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(Arc::new(Kept {
            path,
            turn: Mutex::new(()),
            changing: std::sync::Mutex::new(()),
            short: AtomicBool::new(true),
        }))
    }

    /// Makes room to start with, where there is next to none.
    pub(super) async fn begin(&self) {
        let folder = self.0.path.parent().unwrap_or(Path::new(".")).to_owned();
        let room = aside(move || {
            let room = statvfs(&folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            room.is_ok_and(|room| room < START)
        });
        if room.await.unwrap_or(false) && self.give_up(START, 0).await {
            tracing::error!("the disk is full; beginning with the space that was kept: make room");
        }
    }

    /// Gives up so much to begin with; whether there was any.
    pub(super) async fn begin_with_more(&self) -> bool {
        self.give_up(START, 0).await
    }

    /// Keeps as much as there is room for, if it is less than there should be, and nobody is writing
    /// with it.
    pub(super) async fn fill(&self) {
        if self.0.short.load(Ordering::Relaxed)
            && let Ok(_turn) = self.0.turn.try_lock()
        {
            self.grow().await;
        }
    }

    /// Does `write`, which found no room, with what is kept beyond `floor` bytes: so much of it as it
    /// takes.
    pub(super) async fn with<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        floor: u64,
        write: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let _turn = self.0.turn.lock().await;
        loop {
            // Whoever had the turn may have left some.
            let written = write().await;
            let full = matches!(written, Err(StoreError::Full(_)));
            if !full || !self.give_up(SLICE, floor).await {
                self.grow().await;
                return written;
            }
            tracing::error!(
                "the disk is full; writing with the space that was kept for it what is taken back: make room"
            );
        }
    }

    async fn give_up(&self, size: u64, floor: u64) -> bool {
        let kept = Arc::clone(&self.0);
        let given = aside(move || kept.give_up(size, floor).unwrap_or(false));
        given.await.unwrap_or(false)
    }

    async fn grow(&self) {
        let kept = Arc::clone(&self.0);
        // Nothing is lost where it fails: it is tried again.
        let _ = aside(move || kept.grow()).await;
    }
}

impl Kept {
    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up some of what is kept beyond `floor`; whether there was any.
    fn give_up(&self, size: u64, floor: u64) -> io::Result<bool> {
        let _changing = self.changing();
        let file = File::options().write(true).open(&self.path)?;
        let held = file.metadata()?.len();
        if held <= floor {
            return Ok(false);
        }
        self.short.store(true, Ordering::Relaxed);
        file.set_len(held.saturating_sub(size).max(floor))?;
        Ok(true)
    }

    fn grow(&self) {
        let _changing = self.changing();
        let grown = || -> io::Result<()> {
            let mut made = File::options();
            let made = made.write(true).create(true).truncate(false);
            let file = made.open(&self.path)?;
            let mut held = file.metadata()?.len();
            let mut step = SLICE;
            while held < WHOLE {
                match fallocate(&file, FallocateFlags::empty(), held, step) {
                    Ok(()) => held = held.saturating_add(step),
                    Err(error) if is_full(error) && step > LEAST => step /= 4,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        };
        match grown() {
            Ok(()) => self.short.store(false, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let file = self.path.display();
                tracing::warn!(%file, %error, "no space can be kept for what is taken back");
                self.short.store(false, Ordering::Relaxed);
            }
            // It is tried again.
            Err(_) => {}
        }
    }
}

fn is_full(error: rustix::io::Errno) -> bool {
    [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT].contains(&error)
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
            let written = reserve.with(0, || async {
                if held() > WHOLE - slices * SLICE {
                    return Err(StoreError::Full("no".into()));
                }
                Ok(())
            });
            written.await.unwrap();
            assert_eq!(held(), WHOLE);
        }
        let never = reserve.with(0, || async { Err::<(), _>(StoreError::Full("no".into())) });
        assert!(matches!(never.await, Err(StoreError::Full(_))));
        assert_eq!(held(), WHOLE);
        // A start leaves some of it.
        let start = reserve.with(WHOLE / 2, || async {
            assert!(held() >= WHOLE / 2);
            Err::<(), _>(StoreError::Full("no".into()))
        });
        assert!(matches!(start.await, Err(StoreError::Full(_))));
        let other = reserve.with(0, || async {
            Err::<(), _>(StoreError::Failed("no".into()))
        });
        assert!(matches!(other.await, Err(StoreError::Failed(_))));
    }
}
