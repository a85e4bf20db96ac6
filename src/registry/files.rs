//! What lies in the data folder beside the store: the lock, the key, the first token.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{runtime::secret::write_secret, wire::signed::Signer};

/// A registry's data folder, held by one process.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, readable by its owner alone, and takes hold of it.
    ///
    /// # Errors
    ///
    /// A folder that cannot be made, or that another process holds.
    pub(super) fn hold(path: &Path) -> Result<Self, String> {
        let at = |what: &str, error: &dyn std::fmt::Display| {
            format!("{}: {what}: {error}", path.display())
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| at("cannot be made", &error))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| at("cannot be written", &error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| format!("{}: another registry uses this folder", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The key that statements are signed with; made where there is none. `born` says that there
    /// is no store either: a store without its key is not signed for by another.
    ///
    /// # Errors
    ///
    /// A key that cannot be read, or is missing beside a store.
    pub(super) fn signer(&self, born: bool) -> Result<Signer, String> {
        let path = self.file("registry.key");
        match std::fs::read(&path) {
            Ok(bytes) => Signer::read(&bytes).map_err(|why| format!("{}: {why}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && born => {
                let (signer, bytes) = Signer::generate()?;
                write_secret(&path, &bytes)
                    .map_err(|error| format!("{}: cannot be written: {error}", path.display()))?;
                Ok(signer)
            }
            Err(error) => Err(format!(
                "{}: cannot be read: {error}; it belongs to the store beside it, so put it back from where it is kept safe",
                path.display()
            )),
        }
    }
}
