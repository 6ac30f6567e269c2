//! The repository as a tree of text files.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that are made, not written.
const MADE: [&str; 9] =
    [".git", "target", "node_modules", "corpus", "artifacts", "coverage", "bin", "vendor", "proptest-regressions"];
/// Larger files are data.
const TEXT_MOST: u64 = 1 << 20;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text, by its path from the root of the repository.
#[track_caller]
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a file or directory of this path exists.
pub(crate) fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// The paths of all files below a directory, in order.
pub(crate) fn files(below: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root().join(below), &mut found);
    found.sort();
    found
}

/// All text files, with their paths.
pub(crate) fn texts() -> impl Iterator<Item = (String, String)> {
    let small = |path: &String| fs::metadata(root().join(path)).is_ok_and(|about| about.len() <= TEXT_MOST);
    files("").into_iter().filter(small).filter_map(|path| Some((path.clone(), fs::read_to_string(root().join(&path)).ok()?)))
}

fn collect(directory: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if MADE.iter().any(|made| name == *made) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&path, found),
            Ok(kind) if kind.is_file() => {
                found.extend(path.strip_prefix(root()).ok().and_then(Path::to_str).map(str::to_owned));
            }
            _ => {}
        }
    }
}
