//! What is known of each member, whoever told it: gossip's library, or the member itself.
//!
//! Knowledge is merged by (generation, version) and kept when its teller is gone. The library may end and begin again: what
//! this book holds goes on, and a member is forgotten only when the library had it and let it go, or has not met it again for
//! as long as it would have kept a dead one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use chitchat::{Chitchat, ChitchatId};
use tokio::time::Instant;

use super::identity::Namesake;
use super::inspect::RECORD_KEY;
use super::outbox::Outbox;
use super::packet::Direct;
use super::record::{NamingRule, Record};
use super::stats::{DropReason, Stats};
use super::{GRACE, SETTLE};
use crate::engine::endpoint::{EndpointTag, NodeId};
use crate::engine::event::{Observation, Role};

/// Members in all. The library's digest has room for fewer; those of its former lives are added to them.
const MEMBERS: usize = 4_096;
/// A record that came directly may be so many versions ahead of the library's: more than are written in a minute of
/// changes, and not so many that a forged one would hide its member for long.
const DIRECT_AHEAD: u64 = 64;

/// Which record: a higher one replaces a lower one.
type Edition = (u64, u64);

/// One member.
pub(super) struct Member {
    pub(super) addr: SocketAddr,
    /// The newest generation that the library knows.
    pub(super) generation: u64,
    pub(super) alive: bool,
    /// When its heartbeat was last seen to advance; [`None`] while only others told of it.
    pub(super) heard: Option<Instant>,
    pub(super) rtt: Option<Duration>,
    pub(super) record: Option<(Edition, Record)>,
    /// The library's edition, which a direct one may be somewhat ahead of.
    gossiped: Edition,
    heartbeat: u64,
    /// The last life of the library that knew it.
    life: u64,
}

/// All members but this node.
pub(super) struct Book {
    own: NodeId,
    pub(super) members: BTreeMap<NodeId, Member>,
    rule: NamingRule,
    live: BTreeSet<NodeId>,
    life: u64,
    life_began: Instant,
}

/// What one look at the library gave.
#[derive(Default)]
pub(super) struct Look {
    seen: BTreeMap<NodeId, Seen>,
    /// Others with our own name.
    pub(super) namesakes: Vec<Namesake>,
    /// Our own heartbeat and version.
    pub(super) own: (u64, u64),
    /// Every id the library holds.
    pub(super) ids: Vec<ChitchatId>,
}

struct Seen {
    generation: u64,
    addr: SocketAddr,
    heartbeat: u64,
    alive: bool,
    edition: Edition,
    /// Only where it is news.
    text: Option<String>,
}

impl Book {
    pub(super) fn new(own: NodeId) -> Book {
        Book {
            own,
            members: BTreeMap::new(),
            rule: NamingRule::default(),
            live: BTreeSet::new(),
            life: 0,
            life_began: Instant::now(),
        }
    }

    /// Another life of the library begins: it knows nobody yet.
    pub(super) fn begin_life(&mut self, now: Instant) {
        self.life += 1;
        self.life_began = now;
    }

    /// Reads what the library holds. Called under its lock, so it copies no more than is news.
    pub(super) fn look(&self, library: &Chitchat) -> Look {
        let own_id = library.self_chitchat_id();
        let live: HashSet<&ChitchatId> = library.live_nodes().collect();
        let mut look = Look::default();
        for (id, state) in library.node_states() {
            let Ok(node) = id.node_id.parse::<NodeId>() else { continue };
            let heartbeat = u64::from(state.heartbeat());
            let record = state.get_versioned(RECORD_KEY);
            if id == own_id {
                look.own = (heartbeat, state.max_version());
                continue;
            }
            look.ids.push(id.clone());
            if node == self.own {
                let session = record.and_then(|value| Record::decode_text(&value.value).ok()).map(|record| record.session);
                look.namesakes.push(Namesake {
                    generation: id.generation_id,
                    addr: id.gossip_advertise_addr,
                    heartbeat,
                    session,
                });
                continue;
            }
            let edition = (id.generation_id, record.map_or(0, |value| value.version));
            let news = self.edition(node).is_none_or(|known| edition > known);
            let seen = Seen {
                generation: id.generation_id,
                addr: id.gossip_advertise_addr,
                heartbeat,
                alive: live.contains(id),
                edition,
                text: record.filter(|_| news).map(|value| value.value.clone()),
            };
            look.add(node, seen);
        }
        look
    }

    /// Takes in what was read.
    pub(super) fn take(&mut self, now: Instant, look: Look, outbox: &mut Outbox, stats: &Stats) {
        let present: BTreeSet<NodeId> = look.seen.keys().copied().collect();
        for (node, seen) in look.seen {
            self.take_one(now, node, seen, outbox, stats);
        }
        self.forget(now, &present, outbox);
        self.tell_live(now, outbox);
    }

    fn take_one(&mut self, now: Instant, node: NodeId, seen: Seen, outbox: &mut Outbox, stats: &Stats) {
        if self.members.len() >= MEMBERS && !self.members.contains_key(&node) {
            stats.count_drop(DropReason::Crowded);
            return;
        }
        let member = self.members.entry(node).or_insert_with(|| Member::new(&seen));
        if seen.generation == member.generation && seen.heartbeat > member.heartbeat {
            member.heard = Some(now);
        }
        member.addr = seen.addr;
        member.generation = seen.generation;
        member.heartbeat = seen.heartbeat;
        member.alive = seen.alive;
        member.life = self.life;
        if seen.edition.1 > 0 {
            member.gossiped = member.gossiped.max(seen.edition);
        }
        if let Some(text) = seen.text {
            match Record::decode_text(&text) {
                Ok(record) if record.node() == node => self.write(node, seen.edition, record, outbox, stats),
                Ok(_) => stats.count_drop(DropReason::Record),
                Err(error) => stats.count_drop(error.reason()),
            }
        }
    }

    /// Takes a record that came straight from a member; says whether that member need not send it again.
    pub(super) fn take_direct(&mut self, direct: &Direct, outbox: &mut Outbox, stats: &Stats) -> bool {
        let record = match Record::decode(&direct.record) {
            Ok(record) => record,
            Err(error) => {
                stats.count_drop(error.reason());
                return false;
            }
        };
        let node = record.node();
        let edition = (direct.generation, direct.version);
        // What comes directly is only ahead of the library, never beside it: an invented member or generation would
        // otherwise escape every bound that holds there.
        let known = self.members.get(&node).filter(|member| {
            member.generation == direct.generation
                && member.gossiped.0 == direct.generation
                && direct.version <= member.gossiped.1 + DIRECT_AHEAD
        });
        match known.map(|member| member.record.as_ref().map(|(edition, _)| *edition)) {
            Some(had) if had.is_none_or(|had| edition > had) => {
                self.write(node, edition, record, outbox, stats);
                true
            }
            Some(_) => true,
            None => {
                stats.count_drop(DropReason::Direct);
                false
            }
        }
    }

    fn write(&mut self, node: NodeId, edition: Edition, record: Record, outbox: &mut Outbox, stats: &Stats) {
        if let Some(member) = self.members.get_mut(&node) {
            outbox.record(record.told(edition.0, edition.1, &self.rule, stats));
            member.record = Some((edition, record));
        }
    }

    fn forget(&mut self, now: Instant, present: &BTreeSet<NodeId>, outbox: &mut Outbox) {
        let (life, over) = (self.life, now >= self.life_began + GRACE);
        self.members.retain(|node, member| {
            let keep = present.contains(node) || (member.life != life && !over);
            if !keep {
                outbox.forgotten(*node);
            }
            // Nobody has heard of it since the library began again, so nobody can say that it lives.
            member.alive &= member.life == life || now < self.life_began + SETTLE;
            keep
        });
    }

    fn tell_live(&mut self, now: Instant, outbox: &mut Outbox) {
        let alive = self.members.iter().filter(|(_, member)| member.alive).map(|(node, _)| *node);
        let mut live: BTreeSet<NodeId> = alive.chain([self.own]).collect();
        // A library that has just begun again has not met everybody yet.
        if self.life > 1 && now < self.life_began + SETTLE {
            live.extend(self.live.iter().filter(|node| self.members.contains_key(node)));
        }
        if live != self.live {
            self.live.clone_from(&live);
            outbox.members(live);
        }
    }

    /// Changes which endpoints may be named, and tells all records again if that changed.
    pub(super) fn rule(&mut self, rule: NamingRule, outbox: &mut Outbox, stats: &Stats) {
        if rule.allow == self.rule.allow && rule.loopback == self.rule.loopback {
            return;
        }
        self.rule = rule;
        for ((generation, version), record) in self.members.values().filter_map(|member| member.record.as_ref()) {
            outbox.record(record.told(*generation, *version, &self.rule, stats));
        }
    }

    /// The connections that live members and this node say they hold.
    pub(super) fn loads(&self, own: &[Observation]) -> BTreeMap<EndpointTag, u32> {
        let live = self.members.values().filter(|member| member.alive).filter_map(|member| member.record.as_ref());
        let theirs = live.flat_map(|(_, record)| &record.report.observations);
        let mut loads: BTreeMap<EndpointTag, u32> = BTreeMap::new();
        for saw in theirs.chain(own).filter(|saw| saw.connections > 0) {
            let load = loads.entry(saw.endpoint).or_default();
            *load = load.saturating_add(saw.connections);
        }
        loads
    }

    /// The live members and their addresses.
    pub(super) fn live(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> {
        self.members.iter().filter(|(_, member)| member.alive).map(|(node, member)| (*node, member.addr))
    }

    /// Notes a round trip.
    pub(super) fn round_trip(&mut self, node: NodeId, rtt: Duration) {
        if let Some(member) = self.members.get_mut(&node) {
            // Smoothed as TCP does (RFC 6298), for the eyes; the engine does its own arithmetic.
            member.rtt = Some(member.rtt.map_or(rtt, |smooth| (smooth * 7 + rtt) / 8));
        }
    }

    /// Members that this node has heard itself, in the order in which one would ask them for the cluster after a reboot:
    /// where they are, and when they were heard.
    pub(super) fn most_useful(&self) -> Vec<(SocketAddr, Instant)> {
        let heard = self.members.values().filter_map(|member| Some((member, member.heard?)));
        let mut members: Vec<(&Member, Instant)> = heard.collect();
        members.sort_by_key(|(member, heard)| {
            let control_plane = member.record.as_ref().is_some_and(|(_, record)| record.role == Role::ControlPlane);
            (!member.alive, !control_plane, std::cmp::Reverse(*heard))
        });
        members.into_iter().map(|(member, heard)| (member.addr, heard)).collect()
    }

    fn edition(&self, node: NodeId) -> Option<Edition> {
        self.members.get(&node)?.record.as_ref().map(|(edition, _)| *edition)
    }
}

impl Member {
    fn new(seen: &Seen) -> Member {
        Member {
            addr: seen.addr,
            generation: seen.generation,
            alive: seen.alive,
            heard: None,
            rtt: None,
            record: None,
            gossiped: (0, 0),
            heartbeat: seen.heartbeat,
            life: 0,
        }
    }
}

impl Look {
    /// Of the ids of one name the newest counts; the node lives if any of them does.
    fn add(&mut self, node: NodeId, seen: Seen) {
        match self.seen.get_mut(&node) {
            None => {
                self.seen.insert(node, seen);
            }
            Some(other) => {
                let alive = other.alive || seen.alive;
                if (seen.generation, seen.alive) >= (other.generation, other.alive) {
                    *other = seen;
                }
                other.alive = alive;
            }
        }
    }
}
