//! `exeat audit tiles`.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use crate::audit::{Note, Tiles};

use super::{
    audit::{checkpoint, leaves},
    reach::Registry,
    run::Exit,
    screen::Screen,
};

/// What is signed about all of it, by which readers begin.
const CHECKPOINT: &str = "checkpoint";

pub(super) async fn write(
    mut registry: Registry,
    folder: &Path,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let at = |path: &str| folder.join(path);
    let failed = |path: &str, error: &dyn std::fmt::Display| {
        Exit::Unexpected(format!("{}: {error}", at(path).display()))
    };
    let before = match fs::read_to_string(at(CHECKPOINT)) {
        Ok(text) => Some(Note::read(&text).map_err(|why| failed(CHECKPOINT, &why))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(CHECKPOINT, &error)),
    };
    let other = |what: &str| {
        Exit::Invalid(format!(
            "{}: {what}; the folder is of another ledger than the registry's, or one of them was changed: nothing is written over; look into it, and write into another folder",
            folder.display()
        ))
    };
    let (note, size) = checkpoint(&mut registry).await?;
    let signed = Note::read(&note).map_err(Exit::Unexpected)?;
    if before.as_ref().is_some_and(|before| before.size > size) {
        return Err(other("it holds more changes than are signed"));
    }
    let mut tiles = Tiles::default();
    let mut written = 0_usize;
    let mut keep = |(path, bytes): (String, Vec<u8>)| {
        match fs::read(at(&path)) {
            Ok(known) if known == bytes => return Ok(()),
            Ok(_) => return Err(other(&format!("{path} says something else"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path, &error)),
        }
        written = written.saturating_add(1);
        put(&at(&path), &bytes).map_err(|error| failed(&path, &error))
    };
    leaves(&mut registry, size, |leaf| {
        tiles.push(&leaf.text).into_iter().try_for_each(&mut keep)?;
        match &before {
            Some(before) if tiles.head() == (before.size, before.root) => Ok(()),
            Some(before) if tiles.head().0 == before.size => {
                Err(other("its checkpoint is of other changes"))
            }
            Some(_) | None => Ok(()),
        }
    })
    .await?;
    if tiles.head() != (signed.size, signed.root) {
        return Err(Exit::Unexpected(
            "the registry's changes are not those that it signed".into(),
        ));
    }
    tiles.partial().into_iter().try_for_each(&mut keep)?;
    // Last: what it speaks of is there by then.
    put(&at(CHECKPOINT), note.as_bytes()).map_err(|error| failed(CHECKPOINT, &error))?;
    screen.say(&format!(
        "{size} changes in {}, {written} files new",
        folder.display()
    ))?;
    for position in &tiles.oversize {
        screen.hint(&format!(
            "change {position} is longer than an entry may be: its digest is there, and the entries of its tile are not"
        ));
    }
    Ok(Exit::Done)
}

/// Writes a file that is there once it is whole.
pub(super) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Of a bare name the parent is there, and empty.
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    // Served by whoever serves the folder.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    // The checkpoint comes last, and after a crash too.
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(folder)?.sync_all()
}
