//! How a node finds apiservers when nothing outside the cluster works: it must not depend on anything that may be missing then,
//! not on DNS (seeds arrive resolved), not on a seed (what was known is kept on disk and asked again and again), not on the
//! time of day, not on the library's task, which is started again when it ends.
//!
//! *Core members*, the control planes, gossip with one another by chitchat, and each signs what it says of itself. *Workers*
//! exchange small datagrams with every core member: a [Report](message::Report) is answered by an
//! [Update](message::Update). What a node believes of a control plane therefore comes only from who holds the signing key,
//! whoever brought it.
//!
//! ```text
//!   Gossip ──commands──▶ node ──────▶ core (chitchat, on core members)
//!      ▲                 │  ▲            │ ▲
//!    Heard ◀── outbox ◀──┘  │            ▼ │ fragment
//!                        exchange ──── envelope ── UDP
//!                 catalog, reporter, workers
//! ```
//!
//! It never blocks a thread and takes its time from tokio alone, so a paused clock drives it.

mod address;
pub mod cache;
pub mod catalog;
mod codec;
mod codes;
mod contacts;
mod cookie;
mod core;
pub mod departed;
pub mod envelope;
pub mod exchange;
mod fragment;
#[doc(hidden)]
pub mod fuzz;
mod identity;
mod isolation;
pub mod item;
pub mod keys;
pub mod message;
mod naming;
mod node;
mod outbox;
mod packet;
pub mod reporter;
mod starts;
pub mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod workers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::exchange::{Exchange, Me};
pub use self::exchange::{ForgetError, Forgotten};
pub use self::keys::{KeyId, Keyring, KeyringError};
pub use self::stats::{DropReason, Stats};
use crate::engine::Event;
use crate::engine::endpoint::{Endpoint, NodeId};
use crate::engine::event::{AgentState, ApiserverState, OwnReport, Remembered, Role};
use crate::supervise::Supervised;
use crate::world::{DatagramSocket, World};

/// Between two rounds of gossip.
pub const INTERVAL: Duration = Duration::from_millis(250);
/// A dead member is kept this long by the library. This module's own tests wait for its end more than once, and shorten it.
const GRACE: Duration = if cfg!(test) { Duration::from_secs(60) } else { Duration::from_secs(15 * 60) };
/// How long [`Gossip::leave`] takes at most.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// What gossip is started with.
#[derive(Clone)]
pub struct Settings {
    /// The cluster's id.
    pub cluster: String,
    /// This node's name.
    pub name: String,
    /// It is a core member: it signs a record, and gossips with the others. Needs a full keyring.
    pub core: bool,
    /// Already bound; may be inherited. It is never shut down, only dropped.
    pub socket: Arc<dyn DatagramSocket>,
    /// Where others are to send, if a person said so.
    pub advertise: Option<SocketAddr>,
    /// Where others reach this node's apiserver.
    pub apiservers: Vec<SocketAddr>,
    /// The keys.
    pub keyring: Keyring,
    /// Members to begin with, as they are at any time.
    pub seeds: watch::Receiver<Seeds>,
    /// Endpoints in records must be in one of these; empty: any that a record may name.
    pub allow: Vec<IpNet>,
    /// Networks whose Reports count on a core member; empty: any.
    pub allow_reports: Vec<IpNet>,
    /// Nodes at one address that count for the cluster's size on a core member.
    pub names_per_address: usize,
    /// Where generation and peer cache are kept.
    pub state_dir: PathBuf,
}

/// Members to begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds {
    /// Whether any is configured.
    pub given: bool,
    /// The addresses that they have.
    pub addrs: Vec<SocketAddr>,
}

/// What this node publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    /// Its role.
    pub role: Role,
    /// Its agent's state.
    pub agent: AgentState,
    /// Where others reach its apiserver.
    pub endpoints: Vec<SocketAddr>,
    /// What it says of its apiserver, and what it saw of others.
    pub report: OwnReport,
}

/// What gossip tells the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Something for the engine: [`Event::Cached`] (always, and first), [`Event::Record`], [`Event::Forgotten`],
    /// [`Event::ClusterSize`], [`Event::PeerReports`], [`Event::Priors`], [`Event::Loads`].
    Event(Event),
    /// Another machine uses this node's name.
    Conflict {
        /// Where this node is.
        ours: SocketAddr,
        /// Where the other one is.
        theirs: SocketAddr,
    },
    /// No other machine uses this node's name any more.
    ConflictOver,
}

/// Another member, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberStatus {
    /// Its node id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its agent's state.
    pub agent: AgentState,
    /// What it says of its apiserver; [`None`] unless it is live.
    pub apiserver: Option<ApiserverState>,
    /// Its gossip address.
    pub address: SocketAddr,
    /// Where it says its apiserver is reached, whether or not a record may name that.
    pub endpoints: Vec<Endpoint>,
    /// Whether it is live.
    pub alive: bool,
    /// The smoothed round trip to it, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Seconds since its heartbeat was last seen to advance; [`None`] while only others told of it.
    pub last_heard_s: Option<f64>,
    /// Which start of its gossip.
    pub generation: u64,
    /// Its agent's version, of a worker that has said it.
    pub version: Option<String>,
    /// The ids of its keys, the one that seals first, of a worker that has said them.
    pub keys: Vec<KeyId>,
    /// Whether a worker holds the full keyring, which it does not need.
    pub full_keyring: Option<bool>,
    /// Its connections to all endpoints, as it reports them.
    pub connections: Option<u32>,
    /// Seconds since it was heard last, of one that is not live.
    pub away_s: Option<f64>,
}

/// A handle on gossip, cheap to clone. Gossip ends when the last one is dropped.
#[derive(Clone)]
pub struct Gossip {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

/// What the agent asks for. It is few and ours, so the queue has no bound.
enum Command {
    Say(Say, bool),
    Remember(Vec<Remembered>, u32),
    Reload(Keyring, Vec<IpNet>),
    Forget(Vec<u8>, oneshot::Sender<Result<Forgotten, ForgetError>>),
    Leave(oneshot::Sender<()>),
    #[cfg(test)]
    EndLife,
}

/// What can be read from outside at any time.
struct Shared {
    node: NodeId,
    name: String,
    stats: Arc<Stats>,
    advertised: Mutex<Option<SocketAddr>>,
    said: Mutex<Say>,
    exchange: Mutex<Exchange>,
    /// What gossip is started with again after a panic: keys and networks as of the last reload.
    settings: Mutex<Settings>,
    /// What people should know, by subject.
    notes: Mutex<BTreeMap<&'static str, String>>,
    /// What was last to be kept on disk, for the same.
    remembered: Mutex<Option<(Vec<Remembered>, u32)>>,
    task: Supervised,
}

impl Gossip {
    /// Starts gossip and returns at once. It waits by itself for an address that can be advertised.
    pub fn start(world: &World, settings: Settings, first: Say, heard: mpsc::Sender<Heard>) -> Gossip {
        let node = NodeId::of(&settings.name);
        let stats: Arc<Stats> = Arc::default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let me = Me { node, name: settings.name.clone(), core: settings.core, version };
        let mut exchange = Exchange::new(Instant::now(), me, settings.keyring.clone(), &settings.cluster, Arc::clone(&stats));
        exchange.count_only(settings.names_per_address, settings.allow_reports.clone());
        let shared = Arc::new(Shared {
            node,
            name: settings.name.clone(),
            stats,
            advertised: Mutex::new(None),
            said: Mutex::new(first),
            exchange: Mutex::new(exchange),
            settings: Mutex::new(settings),
            notes: Mutex::default(),
            remembered: Mutex::new(None),
            task: Supervised::new("gossip"),
        });
        let (commands, orders) = mpsc::unbounded_channel();
        tokio::spawn(node::keep_running(world.clone(), Arc::clone(&shared), orders, heard));
        Gossip { commands, shared }
    }

    /// Publishes at once, unless it is what was said last. If `urgent`, or if a control plane's state or addresses change,
    /// every live member is told directly as well. Each write costs every member work: not to say too much is the caller's
    /// business, which has it from the engine.
    pub fn say(&self, say: Say, urgent: bool) {
        self.order(Command::Say(say, urgent));
    }

    /// Keeps these on disk for the next start: at once if it is other endpoints than before, else within seconds.
    pub fn remember(&self, endpoints: Vec<Remembered>, cluster_size: u32) {
        self.order(Command::Remember(endpoints, cluster_size));
    }

    /// Takes other keys and another list of allowed networks. What is on disk is sealed anew at once.
    pub fn reload(&self, keyring: Keyring, allow: Vec<IpNet>) {
        self.order(Command::Reload(keyring, allow));
    }

    /// Takes a removal that an administrator has signed, and tells all others of it.
    pub async fn forget(&self, item: Vec<u8>) -> Result<Forgotten, ForgetError> {
        let (done, answer) = oneshot::channel();
        self.order(Command::Forget(item, done));
        answer.await.unwrap_or(Err(ForgetError::NotRunning))
    }

    /// Publishes that this agent is leaving, waits two intervals so that it is heard, and ends gossip.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        self.order(Command::Leave(done));
        let _ = tokio::time::timeout(LEAVE_WITHIN, left).await;
    }

    /// The other nodes, for people: on a core member all that are heard, on a worker the core members.
    pub fn members(&self) -> Vec<MemberStatus> {
        unpoisoned(&self.shared.exchange).members(Instant::now())
    }

    /// Workers that hold the full keyring without need; [`None`] on a worker, to which none reports.
    pub fn workers_with_full_keyring(&self) -> Option<usize> {
        unpoisoned(&self.shared.exchange).workers_with_full_keyring()
    }

    /// The counters.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// Notes for people: an isolation and its cause, another machine with this node's name, this node's removal.
    pub fn notes(&self) -> Vec<String> {
        unpoisoned(&self.shared.notes).values().cloned().collect()
    }

    /// How the task that gossips fares.
    pub fn task(&self) -> &Supervised {
        &self.shared.task
    }

    /// The address that is advertised; [`None`] while there is none.
    pub fn advertised(&self) -> Option<SocketAddr> {
        *unpoisoned(&self.shared.advertised)
    }

    fn order(&self, command: Command) {
        // Fails only when gossip has ended: then nobody is there to be told.
        let _ = self.commands.send(command);
    }
}

/// Locks. A panic elsewhere under the lock left at worst a half-updated table of hearsay, which the next round repairs.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
