//! The peer cache: what a node must know to find its cluster again when every seed is gone and nothing answers.
//!
//! It has the endpoints that had proven themselves, the cluster's size, the signed items that were held, and addresses at
//! which somebody may know the core. It is sealed under a key of its own, bound to the cluster, for a reader of the disk has no
//! business to know the control plane's addresses, and a writer of it none to choose them.
//!
//! The file is replaced whole or not at all. A cache that cannot be read is said so once and is as good as none.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::codec;
use super::envelope::Sealed;
use super::exchange::Kept;
use super::identity::DISK;
use super::keys::{KeyId, Keyring};
use super::message::Cookie;
use super::stats::{DropReason, Stats};
use crate::engine::Event;
use crate::engine::endpoint::{Endpoint, NodeId};
use crate::engine::event::CachedEndpoint;
use crate::engine::policy;
use crate::supervise::caught;
use crate::world::Store;

/// The file, in the state directory.
const FILE: &str = "peers";
/// Bytes of it at most.
pub const FILE_BYTES: usize = 256 * 1024;
/// Addresses that are kept.
pub const LEADS: usize = 64;
/// Signed items that are kept.
pub const ITEMS: usize = 512;
/// The format that this build writes.
pub const FORMAT: u8 = 1;
/// Between two writes, but for a change of the endpoints themselves.
const WRITE_GAP: Duration = Duration::from_secs(5);

const PURPOSE: &str = "cache 1";
const MAGIC: [u8; 8] = *b"prismesh";
const NONCE: usize = 24;
const HEAD: usize = MAGIC.len() + 1 + 4 + NONCE;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Endpoints that had proven themselves.
    pub endpoints: Vec<KeptEndpoint>,
    /// The cluster's size; 0 if unknown.
    pub cluster_size: u32,
    /// Signed items, as they travel.
    pub items: Vec<Vec<u8>>,
    /// Addresses at which somebody may know the core.
    pub leads: Vec<SocketAddr>,
    /// What core members gave to prove this node's address.
    pub cookies: Vec<(SocketAddr, Cookie)>,
}

/// An endpoint that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptEndpoint {
    /// Its address.
    pub endpoint: Endpoint,
    /// The node that named it.
    pub node: Option<NodeId>,
    /// When it was last proven: milliseconds since 1970.
    pub proven: u64,
}

/// Why a cache cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Too short, or not a cache at all.
    #[error("it is not a peer cache, or was cut off")]
    Malformed,
    /// Written by a later build.
    #[error("it is of format version {0}, which this build does not know")]
    Future(u8),
    /// Sealed with a key that is not in the keyring.
    #[error("no key of the keyring opens it")]
    UnknownKey,
    /// The key is there and the seal is broken.
    #[error("it is damaged, or of another cluster")]
    Unauthentic,
}

impl Cache {
    /// Opens a cache file.
    pub fn open(file: &[u8], keyring: &Keyring, cluster: &str) -> Result<Cache, CacheError> {
        let (head, sealed) = file.split_at_checked(HEAD).ok_or(CacheError::Malformed)?;
        let (magic, rest) = head.split_first_chunk::<8>().ok_or(CacheError::Malformed)?;
        let ([format], rest) = rest.split_first_chunk::<1>().ok_or(CacheError::Malformed)?;
        let (key, rest) = rest.split_first_chunk::<4>().ok_or(CacheError::Malformed)?;
        let (nonce, _) = rest.split_first_chunk::<NONCE>().ok_or(CacheError::Malformed)?;
        match *format {
            _ if *magic != MAGIC => return Err(CacheError::Malformed),
            FORMAT => {}
            future => return Err(CacheError::Future(future)),
        }
        let plaintext =
            Sealed::open(keyring, PURPOSE, cluster, KeyId(*key), head, nonce, sealed).map_err(|reason| match reason {
                DropReason::UnknownKey => CacheError::UnknownKey,
                DropReason::Short => CacheError::Malformed,
                _ => CacheError::Unauthentic,
            })?;
        let mut cache: Cache = codec::decode(&plaintext).ok_or(CacheError::Malformed)?;
        cache.bound();
        Ok(cache)
    }

    /// Seals a cache file.
    pub fn seal(&self, keyring: &Keyring, cluster: &str) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD);
        head.extend(MAGIC);
        head.push(FORMAT);
        let mut kept = self.clone();
        kept.bound();
        Sealed::seal(keyring, PURPOSE, cluster, head, &codec::encode(&kept).unwrap_or_default())
    }

    fn bound(&mut self) {
        self.endpoints.truncate(policy::ENDPOINTS);
        self.items.truncate(ITEMS);
        self.leads.truncate(LEADS);
        self.cookies.truncate(LEADS);
    }

    /// What the engine is told of it at the start, at this time of day in milliseconds.
    pub(super) fn event(&self, now: u64) -> Event {
        // A clock that went back makes a proof fresh, never of the future.
        let age = |kept: &KeptEndpoint| Duration::from_millis(now.saturating_sub(kept.proven));
        let told = |kept: &KeptEndpoint| CachedEndpoint { endpoint: kept.endpoint, node: kept.node, age: age(kept) };
        Event::Cached { endpoints: self.endpoints.iter().map(told).collect(), cluster_size: self.cluster_size }
    }

    /// What the exchange begins with.
    pub(super) fn kept(&self) -> Kept {
        let Cache { cluster_size, items, leads, cookies, .. } = self.clone();
        Kept { cluster_size, items, leads, cookies }
    }

    fn same_endpoints(&self, other: &Cache) -> bool {
        let names = |cache: &Cache| cache.endpoints.iter().map(|kept| (kept.endpoint, kept.node)).collect::<Vec<_>>();
        names(self) == names(other)
    }
}

/// Reads the cache. What is wrong with it is said here, once.
pub(super) async fn load(store: &dyn Store, state_dir: &Path, keyring: &Keyring, cluster: &str, stats: &Stats) -> Cache {
    let file = state_dir.join(FILE);
    let read = tokio::time::timeout(DISK, store.read(&file, FILE_BYTES)).await;
    let bytes = match read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Cache::default(),
        Err(error) => {
            warn!("cannot read the peer cache {}: {error}; starting without it", file.display());
            return Cache::default();
        }
    };
    Cache::open(&bytes, keyring, cluster).unwrap_or_else(|error| {
        if let CacheError::Future(_) = error {
            stats.count_drop(DropReason::Version);
        }
        warn!("the peer cache {} is ignored: {error}", file.display());
        Cache::default()
    })
}

/// What should be on disk.
#[derive(Clone)]
struct Draft {
    cache: Arc<Cache>,
    keyring: Arc<Keyring>,
    /// Grows when it must not wait.
    urgent: u64,
}

/// Keeps the file up to date, in a task of its own: a slow disk holds up nothing else.
pub(super) struct Keeper {
    draft: watch::Sender<Draft>,
    done: tokio::task::JoinHandle<Result<(), String>>,
}

impl Keeper {
    /// Starts with what is on disk already.
    pub(super) fn start(
        store: Arc<dyn Store>,
        state_dir: &Path,
        cluster: String,
        keyring: Keyring,
        cache: Cache,
        stats: Arc<Stats>,
    ) -> Keeper {
        let (draft, wanted) = watch::channel(Draft { cache: Arc::new(cache), keyring: Arc::new(keyring), urgent: 0 });
        let writer = Writer { store, file: state_dir.join(FILE), cluster, stats, failing: false };
        Keeper { draft, done: tokio::spawn(caught(writer.run(wanted))) }
    }

    /// What is, or is about to be, on disk.
    pub(super) fn cache(&self) -> Arc<Cache> {
        Arc::clone(&self.draft.borrow().cache)
    }

    /// Keeps this from now on.
    pub(super) fn keep(&self, cache: Cache) {
        self.draft.send_if_modified(|draft| {
            if *draft.cache == cache {
                return false;
            }
            draft.urgent += u64::from(!draft.cache.same_endpoints(&cache));
            draft.cache = Arc::new(cache);
            true
        });
    }

    /// Seals with these keys from now on, what is on disk at once.
    pub(super) fn rekey(&self, keyring: Keyring) {
        self.draft.send_modify(|draft| {
            draft.keyring = Arc::new(keyring);
            draft.urgent += 1;
        });
    }

    /// Completes when the task that writes has panicked, and says how. Not to be asked again.
    pub(super) async fn panicked(&mut self) -> String {
        match (&mut self.done).await {
            Ok(Err(panic)) => panic,
            Ok(Ok(())) | Err(_) => "it ended".to_owned(),
        }
    }

    /// Writes what is still to be written, and ends.
    pub(super) async fn finish(self, within: Duration) {
        drop(self.draft);
        let _ = tokio::time::timeout(within, self.done).await;
    }
}

struct Writer {
    store: Arc<dyn Store>,
    file: PathBuf,
    cluster: String,
    stats: Arc<Stats>,
    failing: bool,
}

impl Writer {
    async fn run(mut self, mut wanted: watch::Receiver<Draft>) {
        let mut urgent = 0;
        let mut next = Instant::now();
        while self.is_wanted(&mut wanted).await {
            let due = wanted.wait_for(|draft| draft.urgent > urgent);
            // An error says that nothing more is to come: then this is written too.
            let _ = tokio::time::timeout_at(next, due).await;
            let draft = wanted.borrow_and_update().clone();
            urgent = draft.urgent;
            self.write(&draft).await;
            next = Instant::now() + WRITE_GAP;
        }
    }

    /// Waits for something to write: another draft, or the last one if it could not be written.
    async fn is_wanted(&self, wanted: &mut watch::Receiver<Draft>) -> bool {
        if !self.failing {
            return wanted.changed().await.is_ok();
        }
        tokio::time::timeout(WRITE_GAP, wanted.changed()).await.map_or(true, |changed| changed.is_ok())
    }

    async fn write(&mut self, draft: &Draft) {
        let bytes = draft.cache.seal(&draft.keyring, &self.cluster);
        let result = self.store.write(&self.file, &bytes).await;
        let failed_before = std::mem::replace(&mut self.failing, result.is_err());
        self.stats.cache_failing.set(u64::from(self.failing));
        match result {
            Ok(()) if failed_before => info!("the peer cache {} is written again", self.file.display()),
            Err(error) if !failed_before => {
                warn!("cannot write the peer cache {}: {error}; what is there stays", self.file.display());
            }
            _ => {}
        }
    }
}
