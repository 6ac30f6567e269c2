//! Files on disk, written whole or not at all.
//!
//! A write goes to a file of its own in the same directory, is flushed to the disk, and only then takes the name: whoever reads,
//! and whoever starts after a power cut, sees the old bytes or the new ones. A full disk costs the new ones only.
//!
//! A link is followed to where it leads and stays a link. When writing, only links that root or this process's user made are
//! followed: another user's could lead to any file that root may write.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::links;
use crate::world::{Access, BoxFuture, Store};

/// Permission bits, set-id and sticky bits included.
const MODE: u32 = 0o7777;

/// The machine's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files;

impl Store for Files {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        let file = path.to_owned();
        Box::pin(elsewhere(path, move || read(&file, most)))
    }

    fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        let file = path.to_owned();
        let bytes = bytes.to_owned();
        Box::pin(elsewhere(path, move || write(&file, &bytes)))
    }

    fn mode<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
        Box::pin(async move { Ok(Files::metadata(path).await?.permissions().mode() & MODE) })
    }

    fn access<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Access>> {
        let file = path.to_owned();
        Box::pin(elsewhere(path, move || {
            let meta = fs::metadata(&file)?;
            Ok(Access { owner: meta.uid(), mode: meta.mode() & MODE, link_owners: links::owners(&file)? })
        }))
    }

    fn user(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }
}

impl Files {
    /// Replaces a file that is there, whole or not at all, and leaves its owner, its group and its mode as they are.
    ///
    /// # Errors
    /// It is not there, or cannot be written, or its owner cannot be kept; what was there stays.
    pub async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (file, bytes) = (path.to_owned(), bytes.to_owned());
        elsewhere(path, move || put(&file, &bytes, Some(&fs::metadata(&file)?))).await
    }

    /// What is said of a file (of a link's target).
    pub(super) async fn metadata(path: &Path) -> io::Result<fs::Metadata> {
        let file = path.to_owned();
        elsewhere(path, move || fs::metadata(&file)).await
    }
}

/// A call that takes longer fails with [`io::ErrorKind::TimedOut`]; its thread may go on waiting.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Calls on one path at the same time, so that a file system that hangs holds few threads, however often it is asked.
const CALLS_PER_PATH: usize = 4;

/// Files have no asynchronous interface worth the name: a slow disk must not hold up a thread that carries traffic.
async fn elsewhere<T: Send + 'static>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let called = async {
        let turn = turns(path).acquire_owned().await.map_err(io::Error::other)?;
        #[expect(clippy::disallowed_methods, reason = "the real seam: blocking work belongs on a thread of its own")]
        let handle = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        handle.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    };
    let late = || format!("the file system has not answered within {} s", ANSWER_WITHIN.as_secs());
    timeout(ANSWER_WITHIN, called).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, late())))
}

/// The turns of a path; those of paths that are not accessed now are forgotten.
fn turns(path: &Path) -> Arc<Semaphore> {
    static PATHS: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());
    let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
    paths.retain(|_, turns| Arc::strong_count(turns) > 1);
    Arc::clone(paths.entry(path.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_PATH))))
}

/// Opens a regular file to read it. Blocks: only for threads that may.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    // Without it, opening a FIFO would wait for a writer for ever.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    let beyond = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(beyond).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes")));
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if let Some(owner) = links::owners(path)?.iter().find(|owner| **owner != 0 && **owner != user) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("a link that belongs to user {owner} leads there")));
    }
    put(path, bytes, None)
}

/// Writes a file of mode 0600, or of the owner, group and mode of one that was there.
fn put(path: &Path, bytes: &[u8], like: Option<&fs::Metadata>) -> io::Result<()> {
    // A link stays a link: its target is what is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // Root may rename a file over anything, `/dev/null` too.
    if fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
        return Err(not_regular());
    }
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file's name"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let draft = Draft(directory.join(format!(".{}.{:016x}.tmp", name.to_string_lossy(), rand::random::<u64>())));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0)?;
    if let Some(like) = like {
        keep_access(&file, like)?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft.0, &path)?;
    // The new file is in place whatever this says; it only makes the name survive a power cut.
    if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
        tracing::debug!(directory = %directory.display(), %error, "cannot flush the directory");
    }
    Ok(())
}

/// Gives a new file, which holds nothing yet, to the owner of an old one.
fn keep_access(file: &File, like: &fs::Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid())).map_err(|error| {
            let (owner, group) = (like.uid(), like.gid());
            io::Error::new(error.kind(), format!("cannot let it belong to user {owner} and group {group} as before: {error}"))
        })?;
    }
    file.set_permissions(like.permissions())
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// A file that is gone when this is dropped, unless it was renamed.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Renamed, or never made: then there is nothing to remove.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_only_its_owner_may() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/file");
        Files.write(&path, b"first").await.unwrap();
        Files.write(&path, b"second").await.unwrap();
        assert_eq!(Files.read(&path, 6).await.unwrap(), b"second");
        assert_eq!(Files.mode(&path).await.unwrap(), 0o600);
        assert_eq!(Files.mode(path.parent().unwrap()).await.unwrap(), 0o700);
        assert_eq!(names_in(path.parent().unwrap()), ["file"], "no litter");
    }

    #[tokio::test]
    async fn a_file_longer_than_asked_for_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        Files.write(&path, b"1234567").await.unwrap();
        assert_eq!(Files.read(&path, 6).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(Files.read(Path::new("/dev/zero"), 6).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn a_fifo_is_refused_instead_of_waited_for_or_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(Files.read(&path, 6).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(Files.write(&path, b"new").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(!fs::metadata(&path).unwrap().is_file());
    }

    #[tokio::test]
    async fn a_failed_write_leaves_what_was_there_and_no_litter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"old").unwrap();
        Files.write(&path, b"new").await.unwrap_err();
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"old");
        assert_eq!(names_in(directory.path()), ["taken"]);
    }

    #[tokio::test]
    async fn a_link_stays_a_link_and_its_targets_mode_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let link = directory.path().join("link");
        fs::write(&target, b"old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert_eq!(Files.mode(&link).await.unwrap(), 0o644);
        Files.write(&link, b"new").await.unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(Files.mode(&link).await.unwrap(), 0o600);
    }

    /// A disk of 64 KiB in a mount namespace of its own, where this machine allows one.
    #[test]
    fn a_full_disk_costs_the_new_bytes_and_not_the_old_ones() {
        let disk = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o size=64k none \"$1\" && cd \"$1\" && FULL=1 exec \"$0\" --exact --ignored --nocapture \
                      world::real::store::tests::on_a_full_disk";
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .args([std::env::current_exe().unwrap().as_os_str(), disk.path().as_os_str()])
            .output();
        match output {
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
                assert!(output.status.success(), "{output:?}");
            }
            refused => println!("skipped: no mount namespace of our own: {refused:?}"),
        }
    }

    #[tokio::test]
    #[ignore = "what the test above starts"]
    async fn on_a_full_disk() {
        if std::env::var_os("FULL").is_none() {
            return;
        }
        let path = Path::new("file");
        Files.write(path, b"old").await.unwrap();
        let error = Files.write(path, &[0; 100_000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(Files.read(path, 3).await.unwrap(), b"old");
        assert_eq!(names_in(Path::new(".")), ["file"]);
    }
}
