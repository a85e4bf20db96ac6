//! Small files that are read whole, and whether they are others by now.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, path::Path};

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
    let file = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // Whoever opened a pipe would wait for whoever writes to it.
    if !file.is_file() {
        return Err("is no regular file".into());
    }
    let longer = || format!("has more than {most} bytes");
    if file.len() > most {
        return Err(longer());
    }
    let content = std::fs::read(path).map_err(|error| error.to_string())?;
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if length > most {
        Err(longer())
    } else {
        Ok(content)
    }
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
}
