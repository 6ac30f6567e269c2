//! chitchat between core members: one start of the library after another, and how its messages travel.
//!
//! Nothing reaches the library that was not sealed with the core key. A core member publishes its signed record,
//! what it sees of endpoints, and the removals that it holds. Who is live, chitchat alone tells.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, FailureDetectorConfig, ListenerHandle,
    NodeState, spawn_chitchat,
};
use tokio::sync::{MutexGuard, Notify, mpsc};
use tokio::time::Instant;

use super::fragment::{Assembler, Splitter};
use super::message::{Introduction, SeenEndpoint};
use super::packet::{Letter, Packet};
use super::stats::{DropReason, Stats};
use super::{GRACE, INTERVAL, codec};
use crate::engine::endpoint::NodeId;
use crate::engine::event::Observation;
use crate::world::BoxFuture;

/// The key of the signed record.
pub(super) const RECORD: &str = "r";
/// The keys of removals begin so.
const REMOVAL: &str = "x";
/// The key of a core member's version and key ids.
pub(super) const INTRODUCTION: &str = "i";
/// The key of what a core member sees of endpoints.
pub(super) const OBSERVATIONS: &str = "o";
/// Elapsed time over the mean interval, above which a member counts as dead: with one exchange in 250 ms a crash is seen in about 2 s,
/// and at 30% loss no living member is taken for dead.
const PHI: f64 = 8.0;
/// Heartbeats of a member whose intervals are kept.
const WINDOW: usize = 100;
/// An interval longer than this is no sample.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// Messages that wait for the library, and for the socket. Beyond that they are lost, as on a network.
const QUEUE: usize = 256;
/// Who has asked this node so lately is not asked by it.
const JUST_ASKED: Duration = INTERVAL.checked_div(4).expect("not zero").saturating_mul(3);
/// Addresses of which it is known when they asked.
const ASKERS: usize = 256;
/// A SYN or SYN-ACK is accepted from one member at most once in this time, so that recorded ones that are sent again cause little
/// traffic.
const TAKEN_APART: Duration = Duration::from_millis(50);
/// What waits too long for its other fragments is swept out this often.
const SWEEP: Duration = Duration::from_secs(1);

/// One start of the library.
pub(super) struct Life {
    handle: ChitchatHandle,
    library: Arc<tokio::sync::Mutex<Chitchat>>,
    changed: Arc<Notify>,
    inbox: mpsc::Sender<Addressed>,
    _listeners: [ListenerHandle; 2],
}

impl Life {
    /// Begins one. What the library sends comes out of `outgoing`.
    pub(super) async fn begin(
        cluster: String,
        id: ChitchatId,
        record: &[u8],
        introduction: &Introduction,
        outgoing: mpsc::Sender<Addressed>,
        stats: Arc<Stats>,
    ) -> anyhow::Result<Life> {
        let (inbox, messages) = mpsc::channel(QUEUE);
        let carrier = Carrier { outgoing, messages: std::sync::Mutex::new(Some(messages)), stats };
        let introduced = text(&codec::encode(introduction).unwrap_or_default());
        let first = vec![(RECORD.to_owned(), text(record)), (INTRODUCTION.to_owned(), introduced)];
        let handle = spawn_chitchat(config(cluster, id), first, &carrier).await?;
        let library = handle.chitchat();
        let changed = Arc::new(Notify::new());
        let _listeners = {
            let library = library.lock().await;
            [RECORD, REMOVAL].map(|key| {
                let notify = Arc::clone(&changed);
                // Called under the library's lock: it only rings a bell.
                library.subscribe_event(key, move |_| notify.notify_one())
            })
        };
        Ok(Life { handle, library, changed, inbox, _listeners })
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

    /// Publishes the record.
    pub(super) async fn publish(&self, record: &[u8]) {
        self.library().await.self_node_state().set(RECORD, text(record));
    }

    /// Publishes which version and which keys this node has.
    pub(super) async fn introduce(&self, introduction: &Introduction) {
        let text = text(&codec::encode(introduction).unwrap_or_default());
        self.library().await.self_node_state().set(INTRODUCTION, text);
    }

    /// Publishes what this node sees of endpoints.
    pub(super) async fn observe(&self, observations: &[Observation]) {
        let seen: Vec<SeenEndpoint> = observations.iter().map(SeenEndpoint::from).collect();
        let text = text(&codec::encode(&seen).unwrap_or_default());
        let mut library = self.library().await;
        let own = library.self_node_state();
        if own.get(OBSERVATIONS) != Some(&text) {
            own.set(OBSERVATIONS, text);
        }
    }

    /// Publishes these removals and no others.
    pub(super) async fn publish_removals(&self, texts: &BTreeMap<String, String>) {
        let mut library = self.library().await;
        let own = library.self_node_state();
        let published = own.iter_prefix(REMOVAL).map(|(key, _)| key.to_owned());
        let gone: Vec<String> = published.filter(|key| !texts.contains_key(key)).collect();
        for key in gone {
            own.delete(&key);
        }
        for (key, text) in texts {
            own.set(key, text);
        }
    }

    /// Asks whoever is at an address.
    pub(super) fn contact(&self, addr: SocketAddr) {
        // Fails only when the library's task has ended, which is noticed elsewhere.
        let _ = self.handle.gossip(addr);
    }

    /// Hands a message of another core member to the library.
    pub(super) fn take(&self, from: SocketAddr, message: &[u8]) -> Result<(), DropReason> {
        let message = ChitchatMessage::deserialize(&mut &*message).map_err(|_| DropReason::Message)?;
        match self.inbox.try_send((from, message)) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(DropReason::Congested),
            // A closed one has ended, which is noticed elsewhere.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// The key of a removal. It says whom it removes, and up to which generation, so that a known one need not be read.
pub(super) fn removal_key(node: NodeId, generation: u64) -> String {
    format!("{REMOVAL}{node}.{generation}")
}

/// The removals that a core member publishes: of whom, up to which generation as it says, and the item as a text.
pub(super) fn removals(state: &NodeState) -> impl Iterator<Item = (NodeId, u64, &str)> {
    state.iter_prefix(REMOVAL).filter_map(|(key, value)| {
        let (node, generation) = key.strip_prefix(REMOVAL)?.split_once('.')?;
        Some((node.parse().ok()?, generation.parse().ok()?, value.value.as_str()))
    })
}

/// Bytes as a published value.
pub(super) fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a published value.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// What a core member published of its version and keys.
pub(super) fn introduction(text: &str) -> Option<Introduction> {
    codec::decode(&bytes(text)?).filter(Introduction::is_plain)
}

/// What a core member published of what it sees.
pub(super) fn observations(text: &str) -> Vec<Observation> {
    let seen: Vec<SeenEndpoint> = bytes(text).and_then(|bytes| codec::decode(&bytes)).unwrap_or_default();
    seen.into_iter().filter_map(SeenEndpoint::decoded).collect()
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

/// A message of the library, and to whom it goes or from whom it came.
pub(super) type Addressed = (SocketAddr, ChitchatMessage);

/// How the library reaches the socket's task.
struct Carrier {
    outgoing: mpsc::Sender<Addressed>,
    messages: std::sync::Mutex<Option<mpsc::Receiver<Addressed>>>,
    stats: Arc<Stats>,
}

impl Transport for Carrier {
    fn open<'a, 'b>(&'a self, _: SocketAddr) -> BoxFuture<'b, anyhow::Result<Box<dyn Socket>>>
    where
        'a: 'b,
    {
        let messages = super::unpoisoned(&self.messages).take();
        Box::pin(async move {
            let messages = messages.ok_or_else(|| anyhow::anyhow!("a start of the library opens its socket once"))?;
            let (outgoing, stats) = (self.outgoing.clone(), Arc::clone(&self.stats));
            Ok(Box::new(End { outgoing, messages, stats, begun: BTreeMap::new(), replied: BTreeMap::new() }) as Box<dyn Socket>)
        })
    }
}

/// The library's end of its queues.
struct End {
    outgoing: mpsc::Sender<Addressed>,
    messages: mpsc::Receiver<Addressed>,
    stats: Arc<Stats>,
    /// When each other core member began an exchange with this one last.
    begun: BTreeMap<SocketAddr, Instant>,
    /// When each answered this one's last.
    replied: BTreeMap<SocketAddr, Instant>,
}

/// Whether this comes too soon after the last one from there; if not it is noted.
fn too_soon(last: &mut BTreeMap<SocketAddr, Instant>, from: SocketAddr) -> bool {
    if last.get(&from).is_some_and(|last| last.elapsed() < TAKEN_APART) {
        return true;
    }
    if last.len() >= ASKERS {
        last.clear();
    }
    last.insert(from, Instant::now());
    false
}

impl Socket for End {
    fn send<'a, 'b>(&'a mut self, to: SocketAddr, message: ChitchatMessage) -> BoxFuture<'b, anyhow::Result<()>>
    where
        'a: 'b,
    {
        // An exchange tells both sides everything: whoever has just been asked need not ask.
        let just_asked = self.begun.get(&to).is_some_and(|begun| begun.elapsed() < JUST_ASKED);
        let superfluous = just_asked && matches!(message, ChitchatMessage::Syn { .. });
        if !superfluous && self.outgoing.try_send((to, message)).is_err() {
            self.stats.count_drop(DropReason::Congested);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn recv<'a, 'b>(&'a mut self) -> BoxFuture<'b, anyhow::Result<Addressed>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            loop {
                let (from, message) = self.messages.recv().await.ok_or_else(|| anyhow::anyhow!("gossip has ended"))?;
                let too_soon = match message {
                    ChitchatMessage::Syn { .. } => too_soon(&mut self.begun, from),
                    ChitchatMessage::SynAck { .. } => too_soon(&mut self.replied, from),
                    _ => false,
                };
                if !too_soon {
                    return Ok((from, message));
                }
                self.stats.count_drop(DropReason::Limited);
            }
        })
    }
}

/// A queue of what the library sends.
pub(super) fn queue() -> (mpsc::Sender<Addressed>, mpsc::Receiver<Addressed>) {
    mpsc::channel(QUEUE)
}

/// Makes datagrams' plaintexts of the library's messages, and messages of those.
pub(super) struct Fragments {
    splitter: Splitter,
    assembler: Assembler,
    swept: Instant,
}

impl Fragments {
    pub(super) fn new(now: Instant) -> Fragments {
        Fragments { splitter: Splitter::new(), assembler: Assembler::new(), swept: now }
    }

    /// The plaintexts that carry it.
    pub(super) fn split(&mut self, letter: &Letter<'_>) -> Option<Vec<Vec<u8>>> {
        self.splitter.split(&letter.encode()?)
    }

    /// A whole message, where this plaintext completes one.
    pub(super) fn take(
        &mut self,
        now: Instant,
        from: SocketAddr,
        plaintext: &[u8],
        stats: &Stats,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        if now >= self.swept + SWEEP {
            self.swept = now;
            for _ in 0..self.assembler.sweep(now) {
                stats.count_drop(DropReason::Incomplete);
            }
        }
        let mut session = DefaultHasher::new();
        from.hash(&mut session);
        match Packet::decode(plaintext).ok_or(DropReason::Malformed)? {
            Packet::Whole(message) => Ok(Some(message.to_vec())),
            Packet::Part(part) => self.assembler.take(now, session.finish(), part),
        }
    }
}
