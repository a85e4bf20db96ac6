//! The files of a folder that hold manifests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Problem, document};

/// Largest file read, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// Largest bundle read, in bytes (reliability §9.3).
const MAX_BUNDLE: u64 = 256 << 20;

/// A file as it was read.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) content: String,
}

/// The manifests below `folder`, sorted by name.
pub(super) fn files(folder: &Path) -> Result<Vec<File>, Vec<Problem>> {
    let (mut paths, mut others) = (Vec::new(), Vec::new());
    let shown = folder.display().to_string();
    gather(folder, &mut paths, &mut others, 0)
        .map_err(|error| vec![Problem::whole(&shown, format!("cannot be read: {error}"))])?;
    // A manifest in a file that is taken for something else would be left out without a word.
    for other in others {
        let content = fs::read_to_string(&other).unwrap_or_default();
        let request = is_request(&other.to_string_lossy());
        let wrong = document::split(&content).iter().any(|(_, text)| {
            let says = |start: &str| text.lines().any(|line| line.trim_end().starts_with(start));
            says("apiVersion:") && !(request && says("kind: Request"))
        });
        if wrong {
            let name = other.strip_prefix(folder).unwrap_or(&other);
            return Err(vec![Problem::whole(
                &name.display().to_string(),
                "holds a manifest, and files called `*_test.yaml` are test suites and `*_request.yaml` requests; rename it",
            )]);
        }
    }
    paths.sort();
    let mut files = Vec::with_capacity(paths.len());
    let mut total = 0_u64;
    for path in paths {
        let name = path
            .strip_prefix(folder)
            .unwrap_or(&path)
            .display()
            .to_string();
        let whole = |message: String| vec![Problem::whole(&name, message)];
        let size = fs::metadata(&path)
            .map_err(|error| whole(format!("cannot be read: {error}")))?
            .len();
        total = total.saturating_add(size);
        if size > MAX_FILE || total > MAX_BUNDLE {
            return Err(whole(format!(
                "is too large; files may have {} MiB, a bundle {} MiB",
                MAX_FILE >> 20,
                MAX_BUNDLE >> 20
            )));
        }
        let content = fs::read_to_string(&path)
            .map_err(|error| whole(format!("cannot be read as text: {error}")))?;
        files.push(File { name, content });
    }
    if files.is_empty() {
        return Err(vec![Problem::whole(
            &shown,
            "holds no manifests; put .yaml files there, or run `exeat init`",
        )]);
    }
    Ok(files)
}

/// Whether a file is called as requests are: they are asked with, and not applied.
fn is_request(name: &str) -> bool {
    name.ends_with("_request.yaml")
}

fn gather(
    folder: &Path,
    paths: &mut Vec<PathBuf>,
    others: &mut Vec<PathBuf>,
    depth: usize,
) -> std::io::Result<()> {
    if depth > 16 {
        return Err(std::io::Error::other(
            "folders are nested more than 16 deep",
        ));
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') {
            continue;
        }
        // Links are followed: that is how mounted configuration arrives.
        if fs::metadata(&path)?.is_dir() {
            gather(&path, paths, others, depth.saturating_add(1))?;
        } else if name.ends_with("_test.yaml") || is_request(&name) {
            others.push(path);
        } else if path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml")
            && !(depth == 0 && name == "exeat.yaml")
        {
            paths.push(path);
        }
    }
    Ok(())
}
