//! Small files that are read whole, and whether they are others by now.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::{fs::OFlags, process::geteuid};

/// What tells one content of a file from another, without reading it. One that is written over, put in
/// another's place or set back to an older time is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    length: u64,
}

impl Stamp {
    /// That of the file at `path`, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|file| Self::from(&file))
    }
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Self {
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            inode: file.ino(),
            length: file.len(),
        }
    }
}

/// The content of a regular file of at most `most` bytes. It may block.
///
/// # Errors
///
/// What cannot be read, is no regular file, or is longer; without its name.
pub fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let told = |error: io::Error| error.to_string();
    // Whoever opened a pipe would wait for whoever writes to it.
    let at_once = i32::try_from(OFlags::NONBLOCK.bits()).map_err(|error| error.to_string())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(at_once)
        .open(path);
    let file = file.map_err(told)?;
    if !file.metadata().map_err(told)?.is_file() {
        return Err("is no regular file".into());
    }
    let mut content = Vec::new();
    let mut bounded = file.take(most.saturating_add(1));
    bounded.read_to_end(&mut content).map_err(told)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > most {
        return Err(format!("has more than {most} bytes"));
    }
    Ok(content)
}

/// Whether what is in `folder` is put there by this user or by root alone.
///
/// # Errors
///
/// Whose it is else, or who may put something into it.
pub fn ours_alone(folder: &Path) -> Result<(), String> {
    let known = std::fs::symlink_metadata(folder).map_err(|error| error.to_string())?;
    let owner = known.uid();
    if !known.is_dir() || (owner != geteuid().as_raw() && owner != 0) {
        return Err(format!("{} is not this user's folder", folder.display()));
    }
    if known.mode() & 0o022 != 0 {
        return Err(format!("others may write into {}", folder.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_is_seen_whatever_its_time_says() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&path, "one").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        let first = Stamp::of(&path);
        assert_eq!(Stamp::of(&path), first);
        std::fs::write(&other, "two").unwrap();
        let written = std::fs::File::options().write(true).open(&other).unwrap();
        written.set_modified(time).unwrap();
        std::fs::rename(&other, &path).unwrap();
        let second = Stamp::of(&path);
        assert_eq!(
            second.map(|stamp| stamp.modified),
            first.map(|stamp| stamp.modified)
        );
        assert_ne!(second, first);
        assert_eq!(Stamp::of(&other), None);
    }

    #[test]
    fn what_is_no_small_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_small(&path, 5).as_deref(), Ok(&b"12345"[..]));
        assert!(read_small(&path, 4).unwrap_err().contains("more than 4"));
        assert!(
            read_small(folder.path(), 4)
                .unwrap_err()
                .contains("regular")
        );
        assert!(
            read_small(Path::new("/dev/zero"), 4)
                .unwrap_err()
                .contains("regular")
        );
        assert!(read_small(&folder.path().join("none"), 4).is_err());
    }
    #[test]
    fn a_folder_that_others_write_into_is_not_ours() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("a");
        std::fs::create_dir(&folder).unwrap();
        let may = |mode| {
            std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
            ours_alone(&folder)
        };
        assert_eq!(may(0o700), Ok(()));
        assert!(may(0o770).unwrap_err().contains("others may write"));
        assert!(may(0o702).unwrap_err().contains("others may write"));
        assert_eq!(may(0o755), Ok(()));
        let link = scratch.path().join("b");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(ours_alone(&link).unwrap_err().contains("not this user's"));
    }
}
