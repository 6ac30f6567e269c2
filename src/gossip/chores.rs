//! What is done once an interval or more rarely, beside the library's own rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use chitchat::ChitchatId;
use tokio::time::Instant;
use tracing::warn;

use super::book::Look;
use super::identity::{self, Namesake};
use super::inspect::DIGEST_CEILING;
use super::life::Life;
use super::peers::{Cache, KeptEndpoint, KeptPeer, PEERS};
use super::supervise::Supervisor;
use super::transport::Outgoing;
use super::unpoisoned;
use crate::engine::EndpointTag;
use crate::engine::event::Remembered;
use crate::engine::policy;

/// The advertised address is looked at again this often, and changed when two looks agree.
const ADDRESS_LOOK: Duration = Duration::from_secs(5);
/// Between two sums of all loads.
const LOADS_GAP: Duration = Duration::from_secs(2);
/// Members that are pinged each interval.
const PINGS: usize = 2;
/// A digest above this share of its ceiling, in percent, is worth a warning.
const DIGEST_WARN: usize = 70;
/// Between two looks at which peers to keep on disk.
const PEERS_GAP: Duration = Duration::from_secs(30);
/// A peer that is still heard is written as such only when what is on disk is so much older, to spare the disk.
const HEARD_GRAIN: u64 = 3_600_000;

/// When each was done last, and what it needs to remember.
pub(super) struct Chores {
    /// Others with our name, at the last look.
    pub(super) namesakes: Vec<Namesake>,
    ids: Vec<ChitchatId>,
    address: Instant,
    moved: Option<SocketAddr>,
    loads_at: Instant,
    loads: BTreeMap<EndpointTag, u32>,
    peers: Instant,
    pinged: usize,
    crowded: bool,
}

impl Chores {
    pub(super) fn new(now: Instant) -> Chores {
        Chores {
            namesakes: Vec::new(),
            ids: Vec::new(),
            address: now + ADDRESS_LOOK,
            moved: None,
            loads_at: now,
            loads: BTreeMap::new(),
            peers: now + PEERS_GAP,
            pinged: 0,
            crowded: false,
        }
    }

    /// Keeps from a look at the library what the next round of chores needs.
    pub(super) fn seen(&mut self, look: &Look) {
        self.namesakes.clone_from(&look.namesakes);
        self.ids.clone_from(&look.ids);
    }

    /// Whether it is time to look at the advertised address again.
    pub(super) fn address_is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.address;
        if due {
            self.address = now + ADDRESS_LOOK;
        }
        due
    }

    /// Notes another address that was found; whether it was found twice.
    pub(super) fn address_moved(&mut self, found: Option<SocketAddr>) -> bool {
        let twice = found.is_some() && found == self.moved;
        self.moved = if twice { None } else { found };
        twice
    }
}

impl Supervisor {
    pub(super) async fn do_chores(&mut self, now: Instant, life: &Life) {
        self.settle(now, life);
        self.contact(now, life);
        self.ping().await;
        self.sum_loads(now);
        if now >= self.chores.peers {
            self.chores.peers = now + PEERS_GAP;
            let cache = self.keeper.cache();
            let peers = self.peers_to_keep(now, &cache);
            self.keeper.keep(Cache { peers, ..(*cache).clone() });
        }
    }

    /// Keeps the inspector in step with what the library holds, and watches the digest's size.
    fn settle(&mut self, now: Instant, life: &Life) {
        let mut inspector = unpoisoned(&life.inspector);
        inspector.settle(now, self.chores.ids.iter());
        inspector.believe_generations_to(identity::believable(&*self.world.wall));
        let bytes = inspector.digest_bytes();
        self.shared.stats.digest_bytes.set(bytes as u64);
        let crowded = bytes * 100 > DIGEST_CEILING * DIGEST_WARN;
        if crowded && !self.chores.crowded {
            warn!(
                "gossip knows {} nodes, dead ones included; at {DIGEST_CEILING} bytes of digest (now {bytes}) no more are admitted",
                self.chores.ids.len(),
            );
        }
        self.chores.crowded = crowded;
    }

    fn contact(&mut self, now: Instant, life: &Life) {
        let book = unpoisoned(&self.shared.book);
        let mut known: BTreeSet<SocketAddr> = book.live().map(|(_, addr)| addr).collect();
        let alone = known.is_empty();
        drop(book);
        self.contacts.remember(now, &known);
        known.insert(life.addr);
        for addr in self.contacts.due(now, &self.seeds(), &known, alone) {
            life.contact(addr);
        }
    }

    /// Measures the round trip to the next few members in turn.
    async fn ping(&mut self) {
        let live: Vec<_> = unpoisoned(&self.shared.book).live().collect();
        for _ in 0..PINGS.min(live.len()) {
            self.chores.pinged = (self.chores.pinged + 1) % live.len();
            if let Some((node, addr)) = live.get(self.chores.pinged) {
                self.send(Outgoing::Ping(*node, *addr)).await;
            }
        }
    }

    fn sum_loads(&mut self, now: Instant) {
        if now < self.chores.loads_at {
            return;
        }
        self.chores.loads_at = now + LOADS_GAP;
        let own = unpoisoned(&self.shared.said).report.observations.clone();
        let loads = unpoisoned(&self.shared.book).loads(&own);
        if loads != self.chores.loads {
            self.chores.loads.clone_from(&loads);
            self.outbox.loads(loads);
        }
    }

    /// Keeps these endpoints, and the members as they are now, on disk.
    pub(super) fn remember(&mut self, endpoints: Vec<Remembered>, cluster_size: u32) {
        let before = self.keeper.cache();
        let now = identity::millis(&*self.world.wall);
        let ago = |age: Duration| now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let keep = |kept: Remembered| KeptEndpoint { endpoint: kept.endpoint, node: kept.node, proven: ago(kept.age) };
        let mut kept: Vec<KeptEndpoint> = endpoints.into_iter().map(keep).take(policy::ENDPOINTS).collect();
        // Nothing to remember is no reason to forget: the next start may need what the last one knew.
        if kept.is_empty() {
            kept.clone_from(&before.endpoints);
        }
        let peers = self.peers_to_keep(Instant::now(), &before);
        self.keeper.keep(Cache { endpoints: kept, cluster_size, peers });
    }

    fn peers_to_keep(&self, now: Instant, before: &Cache) -> Vec<KeptPeer> {
        let clock = identity::millis(&*self.world.wall);
        let ago = |age: Duration| clock.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let oldest = ago(policy::CACHED_GONE);
        let known = |addr: SocketAddr| before.peers.iter().find(|peer| peer.addr == addr);
        let mut peers: Vec<KeptPeer> = Vec::new();
        for (addr, heard) in unpoisoned(&self.shared.book).most_useful().into_iter().take(PEERS) {
            let heard = ago(now.saturating_duration_since(heard));
            let fresh = known(addr).map(|peer| peer.heard).filter(|before| heard.abs_diff(*before) < HEARD_GRAIN);
            peers.push(KeptPeer { addr, heard: fresh.unwrap_or(heard) });
        }
        for peer in &before.peers {
            if peers.len() < PEERS && peer.heard >= oldest && !peers.iter().any(|kept| kept.addr == peer.addr) {
                peers.push(peer.clone());
            }
        }
        peers
    }
}
