//! Symbolic links on the way to a file, and who made them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// The kernel follows as many.
const MAX_LINKS: usize = 40;

/// The owners of all symbolic links that are followed on the way to a file, which need not be there itself.
pub(super) fn owners(path: &Path) -> io::Result<BTreeSet<u32>> {
    let mut owners = BTreeSet::new();
    let (mut here, mut links) = (PathBuf::new(), 0);
    // What is still to be walked, the next step last.
    let mut rest: Vec<OsString> = steps(path);
    while let Some(step) = rest.pop() {
        let there = here.join(&step);
        let meta = match fs::symlink_metadata(&there) {
            // Nothing is beyond it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(owners),
            meta => meta?,
        };
        if !meta.is_symlink() {
            here = there;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many links lead there"));
        }
        owners.insert(meta.uid());
        rest.extend(steps(&fs::read_link(&there)?));
    }
    Ok(owners)
}

/// A path's components, the last one first. An absolute one begins anew at the root, as joining it to another path does.
fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().filter(|step| !matches!(step, Component::CurDir));
    steps.map(|step| step.as_os_str().to_owned()).rev().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_in_the_middle_and_chains_of_links_are_followed_and_loops_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let user = rustix::process::geteuid().as_raw();
        fs::create_dir_all(at("real/deep")).unwrap();
        fs::write(at("real/deep/file"), "x").unwrap();
        symlink("real", at("relative")).unwrap();
        symlink(at("relative/deep"), at("absolute")).unwrap();
        symlink("../real/deep/file", at("real/up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let plain = owners(&at("real/deep/file")).unwrap();
        for path in ["relative/deep/file", "absolute/file", "real/up", "real/deep/../up", "absolute/missing"] {
            let with_ours: BTreeSet<u32> = plain.iter().copied().chain([user]).collect();
            assert_eq!(owners(&at(path)).unwrap(), with_ours, "{path}");
        }
        assert_eq!(owners(&at("loop")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(owners(&at("missing/file")).unwrap(), plain);
        assert_eq!(owners(&at("real/missing")).unwrap(), plain);
    }
}
