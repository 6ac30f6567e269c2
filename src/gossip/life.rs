//! One life of gossip's library: from a generation that was drawn for it to the end of its task.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use chitchat::{Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ListenerHandle, spawn_chitchat};
use tokio::sync::{MutexGuard, Notify, mpsc};
use tokio::time::{Duration, Instant};

use super::inspect::{Inspector, RECORD_KEY};
use super::stats::Stats;
use super::transport::{Carrier, Outgoing};
use super::{GRACE, INTERVAL};
use crate::world::BoxFuture;

/// Elapsed time over the mean interval, above which a member counts as dead: at 500 ms a crash is seen in 2.3 to 3.6 s.
const PHI: f64 = 8.0;
/// Heartbeats of a member whose intervals are kept. The library's default of 1,000 took 200 nodes to 464 MB.
const WINDOW: usize = 100;
/// An interval longer than this is no sample.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// A running library.
pub(super) struct Life {
    handle: ChitchatHandle,
    library: Arc<tokio::sync::Mutex<Chitchat>>,
    pub(super) inspector: Arc<Mutex<Inspector>>,
    changed: Arc<Notify>,
    pub(super) began: Instant,
    pub(super) generation: u64,
    pub(super) addr: SocketAddr,
    _listener: ListenerHandle,
}

/// What a life begins with.
pub(super) struct Birth {
    pub(super) cluster: String,
    pub(super) id: ChitchatId,
    /// The first record.
    pub(super) text: String,
    pub(super) inspector: Inspector,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) stats: Arc<Stats>,
}

impl Life {
    pub(super) async fn begin(birth: Birth) -> anyhow::Result<Life> {
        let inspector = Arc::new(Mutex::new(birth.inspector));
        let carrier = Carrier { outgoing: birth.outgoing, inspector: Arc::clone(&inspector), stats: birth.stats };
        let first = vec![(RECORD_KEY.to_owned(), birth.text)];
        let handle = spawn_chitchat(config(birth.cluster, birth.id.clone()), first, &carrier).await?;
        let library = handle.chitchat();
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        // Called under the library's lock: it only rings a bell.
        let listener = library.lock().await.subscribe_event(RECORD_KEY, move |_| notify.notify_one());
        Ok(Life {
            handle,
            library,
            inspector,
            changed,
            began: Instant::now(),
            generation: birth.id.generation_id,
            addr: birth.id.gossip_advertise_addr,
            _listener: listener,
        })
    }

    /// Rings when a record has changed.
    pub(super) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Completes when the library's task has ended, and says why.
    pub(super) fn ended(&self) -> BoxFuture<'static, anyhow::Result<()>> {
        Box::pin(self.handle.termination_watcher())
    }

    /// The library, locked.
    pub(super) async fn library(&self) -> MutexGuard<'_, Chitchat> {
        self.library.lock().await
    }

    /// Publishes the record; the version it got.
    pub(super) async fn publish(&self, text: &str) -> u64 {
        let mut library = self.library().await;
        let own = library.self_node_state();
        own.set(RECORD_KEY, text);
        own.get_versioned(RECORD_KEY).map_or(0, |value| value.version)
    }

    /// Asks whoever is at an address.
    pub(super) fn contact(&self, addr: SocketAddr) {
        // Fails only when the library's task has ended, which is noticed elsewhere.
        let _ = self.handle.gossip(addr);
    }

    /// Ends the library's task.
    pub(super) fn end(&self) {
        self.handle.abort();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end();
    }
}

fn config(cluster: String, id: ChitchatId) -> ChitchatConfig {
    ChitchatConfig {
        cluster_id: cluster,
        gossip_interval: INTERVAL,
        listen_addr: id.gossip_advertise_addr,
        chitchat_id: id,
        // Asked by `contacts`: the library would resolve names, one after another, and keeps what it was started with.
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: PHI,
            sampling_window_size: WINDOW,
            max_interval: LONGEST_INTERVAL,
            initial_interval: INTERVAL,
            dead_node_grace_period: GRACE,
        },
        marked_for_deletion_grace_period: GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}
