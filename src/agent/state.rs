//! The state directory, watched: whether what must survive a restart can be written. What could not be is tried again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::supervise::Supervised;
use crate::world::{Access, BoxFuture, Store};

/// Between two attempts to write what could not be written.
const RETRY: Duration = Duration::from_secs(5);

/// A store that remembers which writes failed, and repeats them. All that an agent writes goes through it.
pub(super) struct WatchedStore {
    store: Arc<dyn Store>,
    /// Files whose last write failed.
    failing: Mutex<BTreeMap<PathBuf, Failed>>,
    failures: AtomicU64,
    /// Something has failed.
    failed: Notify,
    /// Held while a file is written, so that nothing old takes the place of something new.
    turn: tokio::sync::Mutex<()>,
    task: Supervised,
}

struct Failed {
    why: String,
    /// What should have been written.
    bytes: Vec<u8>,
}

impl WatchedStore {
    pub(super) fn new(store: Arc<dyn Store>) -> WatchedStore {
        WatchedStore {
            store,
            failing: Mutex::default(),
            failures: AtomicU64::new(0),
            failed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            task: Supervised::new("state"),
        }
    }

    /// The task that writes again.
    pub(super) fn task(&self) -> &Supervised {
        &self.task
    }

    /// Writes again what could not be written, until that works. Never ends.
    pub(super) async fn keep_retrying(self: Arc<WatchedStore>) {
        self.task.keep(|| self.retry()).await;
    }

    async fn retry(&self) {
        loop {
            // Failing already where this began anew after a panic.
            while self.is_failing() {
                sleep(RETRY).await;
                self.write_again().await;
            }
            self.failed.notified().await;
        }
    }

    async fn write_again(&self) {
        let paths: Vec<PathBuf> = self.failing().keys().cloned().collect();
        for path in paths {
            let _turn = self.turn.lock().await;
            // What was written meanwhile is newer.
            let Some(bytes) = self.failing().get(&path).map(|failed| failed.bytes.clone()) else { continue };
            match self.store.write(&path, &bytes).await {
                Ok(()) => self.written(&path),
                Err(error) => self.note(&path, error.to_string(), bytes),
            }
        }
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Failed>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes that failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether something could not be written lately.
    pub(super) fn is_failing(&self) -> bool {
        !self.failing().is_empty()
    }

    /// What could not be written, in words.
    pub(super) fn notes(&self) -> Vec<String> {
        let told = |(path, Failed { why, .. }): (&PathBuf, &Failed)| {
            format!("cannot write {}: {why}; after a restart this node knows what it wrote last, or nothing", path.display())
        };
        self.failing().iter().map(told).collect()
    }

    fn note(&self, path: &Path, why: String, bytes: Vec<u8>) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failing().insert(path.to_owned(), Failed { why, bytes });
        self.failed.notify_one();
    }

    fn written(&self, path: &Path) {
        self.failing().remove(path);
    }
}

impl Store for WatchedStore {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        self.store.read(path, most)
    }

    fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let attempt = Attempt { store: self, path, bytes, over: false };
            let _turn = self.turn.lock().await;
            let written = self.store.write(path, bytes).await;
            attempt.ended(&written);
            written
        })
    }

    fn mode<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
        self.store.mode(path)
    }

    fn access<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Access>> {
        self.store.access(path)
    }

    fn user(&self) -> u32 {
        self.store.user()
    }
}

/// A write that may be given up before it ends.
struct Attempt<'a> {
    store: &'a WatchedStore,
    path: &'a Path,
    bytes: &'a [u8],
    over: bool,
}

impl Attempt<'_> {
    fn ended(mut self, written: &io::Result<()>) {
        self.over = true;
        match written {
            Ok(()) => self.store.written(self.path),
            Err(error) => self.store.note(self.path, error.to_string(), self.bytes.to_owned()),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.store.note(self.path, "it took too long".into(), self.bytes.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// A disk that can be full.
    #[derive(Default)]
    struct Disk {
        full: AtomicBool,
        files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    }

    impl Store for Disk {
        fn read<'a>(&'a self, path: &'a Path, _: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
            let bytes = self.files.lock().expect("whole").get(path).cloned();
            Box::pin(async move { bytes.ok_or(io::ErrorKind::NotFound.into()) })
        }

        fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
            Box::pin(async move {
                if self.full.load(Ordering::SeqCst) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.files.lock().expect("whole").insert(path.to_owned(), bytes.to_owned());
                Ok(())
            })
        }

        fn mode<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_written_is_told_and_tried_again_until_it_is_written() {
        let disk = Arc::new(Disk::default());
        let watched = Arc::new(WatchedStore::new(disk.clone()));
        let retrying = tokio::spawn(watched.clone().keep_retrying());
        let (peers, generation) = (Path::new("/state/peers"), Path::new("/state/generation"));
        disk.full.store(true, Ordering::SeqCst);
        watched.write(peers, b"old").await.unwrap_err();
        watched.write(generation, b"7").await.unwrap_err();
        assert_eq!((watched.failures(), watched.notes().len()), (2, 2));
        assert!(watched.notes()[1].contains("/state/peers"), "{:?}", watched.notes());
        sleep(3 * RETRY).await;
        assert!(watched.is_failing() && watched.failures() > 2);
        disk.full.store(false, Ordering::SeqCst);
        watched.write(peers, b"new").await.unwrap();
        assert!(watched.is_failing(), "the other one is not written yet");
        sleep(2 * RETRY).await;
        assert!(!watched.is_failing());
        assert_eq!(watched.read(peers, 9).await.unwrap(), b"new", "nothing old takes its place");
        assert_eq!(watched.read(generation, 9).await.unwrap(), b"7");
        retrying.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_was_given_up_counts_as_failed() {
        let watched = WatchedStore::new(Arc::new(Disk::default()));
        let turn = watched.turn.lock().await;
        let given_up = tokio::time::timeout(RETRY, watched.write(Path::new("/state/peers"), b"x"));
        assert!(given_up.await.is_err());
        drop(turn);
        assert!(watched.notes()[0].contains("took too long"), "{:?}", watched.notes());
    }
}
