//! Sessions as they are saved: a file a registry, readable by its owner alone.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{
    config::{environment, state_folder},
    runtime::secret::write_secret,
};

use super::run::Exit;

fn file(registry: &str) -> PathBuf {
    let name = registry.replace(
        |c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-',
        "_",
    );
    state_folder(&environment())
        .join("sessions")
        .join(format!("{name}.token"))
}

fn wrong(path: &Path, error: &io::Error) -> Exit {
    Exit::Unexpected(format!("{}: {error}", path.display()))
}

/// What is shown to a registry, by whoever signed in there.
pub(super) fn session(registry: &str) -> Option<String> {
    let token = std::fs::read_to_string(file(registry)).ok()?;
    Some(token.trim().to_owned())
}

/// Saves what is shown to a registry.
///
/// # Errors
///
/// A folder that cannot be written.
pub(super) fn save(registry: &str, token: &str) -> Result<(), Exit> {
    let path = file(registry);
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| write_secret(&path, token.as_bytes()))
        .map_err(|error| wrong(&path, &error))
}

/// Forgets what is shown to a registry.
///
/// # Errors
///
/// A file that cannot be removed.
pub(super) fn forget(registry: &str) -> Result<(), Exit> {
    let path = file(registry);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(wrong(&path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
