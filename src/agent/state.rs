//! The state directory, watched: whether what must survive a restart can be written.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::world::{Access, BoxFuture, Store};

/// A store that remembers which writes failed. All that an agent writes goes through it.
pub(super) struct WatchedStore {
    store: Arc<dyn Store>,
    /// Files whose last write failed, and why.
    failing: Mutex<BTreeMap<PathBuf, String>>,
    failures: AtomicU64,
}

impl WatchedStore {
    pub(super) fn new(store: Arc<dyn Store>) -> WatchedStore {
        WatchedStore { store, failing: Mutex::default(), failures: AtomicU64::new(0) }
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
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
        let told = |(path, why): (&PathBuf, &String)| {
            format!("cannot write {}: {why}; after a restart this node knows what it wrote last, or nothing", path.display())
        };
        self.failing().iter().map(told).collect()
    }

    fn failed(&self, path: &Path, why: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failing().insert(path.to_owned(), why);
    }

    /// What works for one file of a directory works for the others, which may not be written again for long.
    fn written(&self, path: &Path) {
        self.failing().retain(|failing, _| failing.parent() != path.parent());
    }
}

impl Store for WatchedStore {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        self.store.read(path, most)
    }

    fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let attempt = Attempt { store: self, path, over: false };
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
    over: bool,
}

impl Attempt<'_> {
    fn ended(mut self, written: &io::Result<()>) {
        self.over = true;
        match written {
            Ok(()) => self.store.written(self.path),
            Err(error) => self.store.failed(self.path, error.to_string()),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.store.failed(self.path, "it took too long".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::testing::Nothing;

    #[tokio::test]
    async fn what_cannot_be_written_is_told_until_its_directory_can_be() {
        let watched = WatchedStore::new(Arc::new(Nothing));
        for _ in 0..2 {
            watched.write(Path::new("/state/peers"), b"x").await.unwrap_err();
        }
        watched.write(Path::new("/elsewhere/file"), b"x").await.unwrap_err();
        drop(watched.write(Path::new("/state/never-polled"), b"x"));
        assert_eq!((watched.failures(), watched.is_failing()), (3, true));
        assert!(watched.notes()[1].contains("/state/peers"), "{:?}", watched.notes());
        watched.written(Path::new("/state/generation"));
        assert_eq!(watched.notes().len(), 1);
        assert!(watched.is_failing(), "another directory");
        drop(Attempt { store: &watched, path: Path::new("/state/peers"), over: false });
        assert!(watched.notes().iter().any(|note| note.contains("took too long")));
    }
}
