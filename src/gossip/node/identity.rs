//! Which start of this node's gossip this is, under which address, and who else has its name.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chitchat::ChitchatId;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::super::address::{self, Hints};
use super::super::core::Life;
use super::super::identity::{Finding, Generations, Namesake, Namesakes, Ourselves};
use super::super::item::Record;
use super::super::{Heard, unpoisoned};
use super::{Fixed, Node};

/// While there is no address to advertise, one is looked for this often.
const ADDRESS_RETRY: Duration = Duration::from_secs(1);
/// The advertised address is looked at again this often, and changed when two looks agree.
const ADDRESS_LOOK: Duration = Duration::from_secs(5);
/// A start of chitchat meets everybody within this.
const SETTLE: Duration = Duration::from_secs(5);
/// A namesake that is not heard any more for so long is none.
const OVER: Duration = Duration::from_secs(30);

/// The subject of its note.
const CONFLICT: &str = "conflict";

/// See the module.
pub(super) struct Identity {
    generations: Generations,
    /// The next generation must be above this.
    floor: u64,
    begun: Option<Begun>,
    /// All generations of this process.
    drawn: BTreeSet<u64>,
    namesakes: Namesakes,
    seen: Vec<Namesake>,
    /// A node that is no core member and has our name, and when it was heard last.
    elsewhere: Option<(SocketAddr, Instant)>,
    look: Option<Instant>,
    moved: Option<SocketAddr>,
    kept: Option<Instant>,
    /// An administrator has removed this node.
    removed: bool,
}

#[derive(Clone, Copy)]
struct Begun {
    generation: u64,
    addr: SocketAddr,
    at: Instant,
}

impl Identity {
    pub(super) fn new(state_dir: &Path, removed: bool) -> Identity {
        Identity {
            generations: Generations::new(state_dir),
            floor: 0,
            begun: None,
            drawn: BTreeSet::new(),
            namesakes: Namesakes::default(),
            seen: Vec::new(),
            elsewhere: None,
            look: None,
            moved: None,
            kept: None,
            removed,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// The generation and the address that this node goes by.
    pub(super) fn begun(&self) -> Option<(u64, SocketAddr)> {
        self.begun.map(|begun| (begun.generation, begun.addr))
    }

    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.begun.map(|begun| begun.addr)
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    pub(super) fn is_ours(&self, generation: u64) -> bool {
        self.drawn.contains(&generation)
    }

    /// Whether chitchat began again, not for the first time, and may not have met everybody yet.
    pub(super) fn is_settling(&self, now: Instant) -> bool {
        self.drawn.len() > 1 && self.begun.is_some_and(|begun| now < begun.at + SETTLE)
    }

    /// Notes who has our name in chitchat.
    pub(super) fn see(&mut self, namesakes: Vec<Namesake>) {
        self.seen = namesakes;
    }

    /// An administrator has removed this node up to a generation: whether that ends what it goes by now.
    pub(super) fn remove(&mut self, generation: u64) -> bool {
        self.floor = self.floor.max(generation);
        let ends = self.begun.is_some_and(|begun| begun.generation <= generation);
        if ends {
            self.removed = true;
            self.begun = None;
        }
        ends
    }

    /// Whether something is to be kept again.
    pub(super) fn keeping_is_due(&mut self, now: Instant, apart: Duration) -> bool {
        let due = now >= *self.kept.get_or_insert(now + apart);
        if due {
            self.kept = Some(now + apart);
        }
        due
    }
}

impl Node {
    pub(super) async fn begin(&mut self, now: Instant) {
        if self.identity.removed {
            return;
        }
        let Some(addr) = self.find_address() else {
            self.starts.wait(now + ADDRESS_RETRY);
            return;
        };
        let floor = self.identity.floor;
        let generation = self.identity.generations.next(&*self.world.store, &*self.world.wall, floor).await;
        self.identity.drawn.insert(generation);
        self.identity.begun = Some(Begun { generation, addr, at: now });
        self.rule.loopback = addr.ip().is_loopback();
        unpoisoned(&self.shared.exchange).begin(now, generation, addr);
        let say = unpoisoned(&self.shared.said).clone();
        self.publish(&say).await;
        if self.settings.core
            && let Err(error) = self.begin_chitchat(generation, addr).await
        {
            warn!("gossip cannot start: {error:#}; trying again");
            self.identity.begun = None;
            self.starts.failed(now, now);
            return;
        }
        info!("gossip runs as {} at {addr}, generation {generation}", self.shared.node);
        if self.starts.begun() {
            self.shared.stats.restarts.add(1);
            self.shared.task.restarted();
        }
        self.shared.stats.generation.set(generation);
        *unpoisoned(&self.shared.advertised) = Some(addr);
        self.tell_all();
    }

    async fn begin_chitchat(&mut self, generation: u64, addr: SocketAddr) -> anyhow::Result<()> {
        let record = unpoisoned(&self.shared.exchange).catalog.own().map(|own| Arc::clone(&own.bytes));
        let record = record.ok_or_else(|| anyhow::anyhow!("this node's record cannot be signed: it needs a full keyring"))?;
        let introduction = unpoisoned(&self.shared.exchange).introduction();
        let id = ChitchatId::new(self.shared.node.as_str(), generation, addr);
        let (cluster, outgoing) = (self.settings.cluster.clone(), self.to_socket.clone());
        self.life = Some(Life::begin(cluster, id, &record, &introduction, outgoing, Arc::clone(&self.shared.stats)).await?);
        self.removals.clear();
        self.identity.namesakes.begin_life();
        self.contacts.begin_life();
        Ok(())
    }

    /// The library has ended by itself.
    pub(super) fn life_failed(&mut self, why: &str) {
        if let Some(begun) = self.identity.begun.take() {
            self.life = None;
            self.shared.task.failed(&format!("gossip has ended: {why}; what was known stays known"));
            self.starts.failed(Instant::now(), begun.at);
        }
    }

    fn begin_again(&mut self, why: &str) {
        if let Some(begun) = self.identity.begun.take() {
            info!("gossip starts anew: {why}");
            self.life = None;
            self.identity.floor = self.identity.floor.max(begun.generation);
            self.starts.ended(Instant::now(), begun.at);
        }
    }

    fn find_address(&self) -> Option<SocketAddr> {
        let Fixed { advertise, apiservers, bound, seeds, .. } = &self.settings;
        let seeds = seeds.borrow();
        let hints = Hints { flag: *advertise, bound: (*bound)?, apiservers, seeds: &seeds.addrs };
        address::find(&*self.world.datagram, &hints)
    }

    pub(super) fn watch_address(&mut self, now: Instant) {
        let Some(addr) = self.identity.addr() else { return };
        if now < *self.identity.look.get_or_insert(now + ADDRESS_LOOK) {
            return;
        }
        self.identity.look = Some(now + ADDRESS_LOOK);
        let found = self.find_address().filter(|found| *found != addr);
        let twice = found.is_some() && found == self.identity.moved;
        self.identity.moved = if twice { None } else { found };
        if twice {
            self.begin_again("this node has another address");
        }
    }

    /// Core members hold this node's own record above what it signed: its disk was restored, or its clock went back.
    pub(super) fn go_on_above(&mut self, record: &Record) {
        let Some((generation, addr)) = self.identity.begun() else {
            self.identity.floor = self.identity.floor.max(record.generation);
            return;
        };
        if !self.settings.core {
            // A control plane has this worker's name.
            return self.namesake(record.gossip.first().copied().unwrap_or(addr));
        }
        // At another address it may be another machine: chitchat shows whether that lives.
        if record.gossip.contains(&addr) && record.generation >= generation {
            self.identity.floor = self.identity.floor.max(record.generation);
            self.begin_again("the others know this node by a higher generation");
        }
    }

    pub(super) fn heard_above(&mut self, generation: u64) {
        if self.identity.begun().is_some_and(|(own, _)| own <= generation) {
            self.identity.floor = self.identity.floor.max(generation);
            self.begin_again(
                "core members have heard more from this node than it sent: its clock went back, or it runs from a snapshot",
            );
        }
    }

    /// A node elsewhere has our name.
    pub(super) fn namesake(&mut self, theirs: SocketAddr) {
        let Some(ours) = self.identity.addr() else { return };
        let now = Instant::now();
        if self.identity.elsewhere.replace((theirs, now)).is_none() {
            self.tell_conflict(ours, theirs);
        }
    }

    fn tell_conflict(&mut self, ours: SocketAddr, theirs: SocketAddr) {
        let name = &self.shared.name;
        let text = format!("two machines have the name {name}: this one at {ours}, the other at {theirs}; rename one");
        error!("{text}");
        self.shared.set_note(CONFLICT, Some(text));
        self.shared.stats.name_conflict.set(1);
        self.outbox.conflict(Heard::Conflict { ours, theirs });
    }

    fn conflict_over(&mut self) {
        info!("no other machine has the name {} any more", self.shared.name);
        self.shared.stats.name_conflict.set(0);
        self.shared.set_note(CONFLICT, None);
        self.outbox.conflict(Heard::ConflictOver);
    }

    pub(super) async fn watch_identity(&mut self, now: Instant) {
        if self.identity.elsewhere.is_some_and(|(_, heard)| now >= heard + OVER) {
            self.identity.elsewhere = None;
            self.conflict_over();
        }
        let Some((generation, addr)) = self.identity.begun().filter(|_| self.life.is_some()) else { return };
        let others = std::mem::take(&mut self.identity.seen);
        match self.identity.namesakes.look(now, Ourselves { generation, addr }, &others) {
            Some(Finding::ContinueAbove(above)) => {
                self.identity.floor = self.identity.floor.max(above);
                self.begin_again("the others know this node by a higher generation");
            }
            Some(Finding::Conflict(theirs)) => self.tell_conflict(addr, theirs),
            Some(Finding::ConflictOver) => self.conflict_over(),
            None => {}
        }
    }
}
