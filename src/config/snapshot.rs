//! Files as they were when they were read first.
//!
//! A configuration, the keys and the trust that belong to it are read one after another, and each may change meanwhile. What is
//! loaded through one [`Snapshot`] comes from the same bytes as the fingerprint that is made through it
//! ([`Config::fingerprint`](super::Config::fingerprint)), so that a change while it is loaded is seen at the next look.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::world::{Access, BoxFuture, Store};

/// A watched file is read up to this many bytes.
const MAX_WATCHED: usize = 1 << 20;

/// A store that reads each file once.
pub struct Snapshot {
    store: Arc<dyn Store>,
    /// What was read; [`None`] once it is [thawed](Snapshot::thaw).
    read: Mutex<Option<Contents>>,
}

type Contents = BTreeMap<PathBuf, Result<Vec<u8>, Unreadable>>;

/// An error that can be told more than once.
#[derive(Clone)]
struct Unreadable {
    kind: io::ErrorKind,
    text: String,
}

impl Snapshot {
    /// Nothing has been read yet.
    pub fn new(store: Arc<dyn Store>) -> Snapshot {
        Snapshot { store, read: Mutex::new(Some(BTreeMap::new())) }
    }

    /// From now on files are read as they are: for what was loaded through this and reads its file again later.
    pub async fn thaw(&self) {
        *self.read.lock().await = None;
    }

    async fn read_once(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let mut read = self.read.lock().await;
        let Some(known) = read.as_mut() else {
            drop(read);
            return self.store.read(path, most).await;
        };
        if !known.contains_key(path) {
            let content = self.store.read(path, most.max(MAX_WATCHED)).await;
            let content = content.map_err(|error| Unreadable { kind: error.kind(), text: error.to_string() });
            known.insert(path.to_owned(), content);
        }
        match known.get(path) {
            Some(Ok(content)) if content.len() <= most => Ok(content.clone()),
            Some(Ok(_)) | None => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes"))),
            Some(Err(error)) => Err(io::Error::new(error.kind, error.text.clone())),
        }
    }
}

impl Store for Snapshot {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        Box::pin(self.read_once(path, most))
    }

    fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        self.store.write(path, bytes)
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
