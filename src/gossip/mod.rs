//! chitchat behind one door: what this node says goes in, what the others said comes out.
//!
//! Gossip is how a node finds apiservers when nothing outside the cluster works, so it must not depend on anything that may be
//! missing then: not on DNS (seeds arrive resolved), not on a seed (members are cached on disk and tried again and
//! again), not on the time of day, not on the library's task, which is started again when it ends while the last known
//! records go on serving.
//!
//! ```text
//!   Gossip ──commands──▶ supervise ──▶ chitchat (one life after another)
//!      ▲                 │  ▲  ▲             │ ▲
//!    Heard ◀── outbox ◀──┘  │  └── book      ▼ │ inspect
//!                           └──────────── transport ── seal, sessions, fragment ── UDP
//! ```
//!
//! Two tasks do everything: `transport` owns the socket and never waits for anyone; `supervise` owns the rest. They
//! share nothing but queues that may lose and a table of admitted nodes. If either panics, both are started again with
//! back-off, and what was known of the members stays known.
//!
//! Nothing unsealed reaches the library, and what opens is still judged (`inspect`), since members with the key may be hostile.
//! Under one key for all, what a member says about *others* cannot be told from the truth. What that can do is bounded:
//! it can hide or invent members for a while, never make anyone trust an endpoint; proof is the engine's and the CA's business.
//!
//! The successor of all this is being built beside it, and no agent uses it yet: [`keys`], [`envelope`], [`item`], [`catalog`],
//! [`message`], [`reporter`], [`workers`] and [`exchange`]. In it only control planes, which hold the signing key, speak for
//! themselves, and workers exchange small datagrams with them.
//!
//! It never blocks a thread and takes its time from tokio alone, so a paused clock drives it.

mod address;
mod book;
pub mod catalog;
mod chores;
mod codec;
mod codes;
mod contacts;
mod cookie;
pub mod envelope;
pub mod exchange;
mod exchanges;
mod fragment;
#[doc(hidden)]
pub mod fuzz;
mod identity;
pub mod inspect;
pub mod item;
pub mod keyring;
pub mod keys;
mod life;
mod lives;
pub mod message;
mod outbox;
mod packet;
pub mod peers;
mod recent;
pub mod record;
pub mod reporter;
pub mod seal;
mod sessions;
mod starts;
pub mod stats;
mod supervise;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transport;
mod urgent;
mod voice;
mod wire;
pub mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::keyring::{Keyring, KeyringError};
pub use self::stats::{DropReason, Stats};
use crate::engine::Event;
use crate::engine::endpoint::{Endpoint, NodeId};
use crate::engine::event::{AgentState, ApiserverState, OwnReport, Remembered, Role};
use crate::supervise::Supervised;
use crate::world::{DatagramSocket, World};

/// Between two rounds of gossip.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// A dead member is kept this long by the library. This module's own tests wait for its end more than once, and shorten it.
const GRACE: Duration = if cfg!(test) { Duration::from_secs(60) } else { Duration::from_secs(15 * 60) };
/// A life of the library that has just begun meets everybody within this.
const SETTLE: Duration = Duration::from_secs(5);
/// How long [`Gossip::leave`] takes at most.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// What gossip is started with.
#[derive(Clone)]
pub struct Settings {
    /// The cluster's id.
    pub cluster: String,
    /// This node's name.
    pub name: String,
    /// Already bound; may be inherited. It is never shut down, only dropped.
    pub socket: Arc<dyn DatagramSocket>,
    /// Where others are to send, if a person said so.
    pub advertise: Option<SocketAddr>,
    /// Where others reach this node's apiserver.
    pub apiservers: Vec<SocketAddr>,
    /// The keys.
    pub keyring: Keyring,
    /// Members to begin with, resolved, as they are at any time.
    pub seeds: watch::Receiver<Vec<SocketAddr>>,
    /// Endpoints in records must be in one of these; empty: any that a record may name.
    pub allow: Vec<IpNet>,
    /// Where generation and peer cache are kept.
    pub state_dir: PathBuf,
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
    /// Something for the engine: [`Event::Cached`] (always, and first), [`Event::Members`], [`Event::Record`],
    /// [`Event::Forgotten`], [`Event::PeerRoundTrip`], [`Event::Loads`].
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberStatus {
    /// Its node id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its agent's state.
    pub agent: AgentState,
    /// What it says of its apiserver.
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
    book: Mutex<book::Book>,
    /// What gossip is started with again after a panic: keys and networks as of the last reload.
    settings: Mutex<Settings>,
    /// What was last to be kept on disk, for the same.
    remembered: Mutex<Option<(Vec<Remembered>, u32)>>,
    task: Supervised,
}

impl Gossip {
    /// Starts gossip and returns at once. It waits by itself for an address that can be advertised.
    pub fn start(world: &World, settings: Settings, first: Say, heard: mpsc::Sender<Heard>) -> Gossip {
        let node = NodeId::of(&settings.name);
        let shared = Arc::new(Shared {
            node,
            name: settings.name.clone(),
            stats: Arc::default(),
            advertised: Mutex::new(None),
            said: Mutex::new(first),
            book: Mutex::new(book::Book::new(node)),
            settings: Mutex::new(settings),
            remembered: Mutex::new(None),
            task: Supervised::new("gossip"),
        });
        let (commands, orders) = mpsc::unbounded_channel();
        tokio::spawn(supervise::keep_running(world.clone(), Arc::clone(&shared), orders, heard));
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

    /// Publishes that this agent is leaving, waits two intervals so that it is heard, and ends gossip.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        self.order(Command::Leave(done));
        let _ = tokio::time::timeout(LEAVE_WITHIN, left).await;
    }

    /// All other members whose record this build can read, for people.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.shared.members()
    }

    /// The counters.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
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

impl Shared {
    fn members(&self) -> Vec<MemberStatus> {
        let now = Instant::now();
        let readable = |(node, member): (&NodeId, &book::Member)| {
            let (_, record) = member.record.as_ref()?;
            Some(MemberStatus {
                node: *node,
                name: record.name.clone(),
                role: record.role,
                agent: record.agent,
                apiserver: record.report.apiserver,
                address: member.addr,
                endpoints: record.endpoints.clone(),
                alive: member.alive,
                rtt_ms: member.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                last_heard_s: member.heard.map(|heard| now.saturating_duration_since(heard).as_secs_f64()),
            })
        };
        unpoisoned(&self.book).members.iter().filter_map(readable).collect()
    }
}

/// Locks. A panic elsewhere under the lock left at worst a half-updated table of hearsay, which the next round repairs.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
