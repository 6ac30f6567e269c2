//! When a life of the library begins, and when it is ended for another: under another address, or above another generation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::ChitchatId;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::address::{self, Hints};
use super::identity::{self, Finding, Namesake, Ourselves};
use super::inspect::Inspector;
use super::life::{Birth, Life};
use super::record::{NamingRule, Record};
use super::supervise::{Supervisor, Surroundings};
use super::{Heard, unpoisoned};

/// While there is no address to advertise, one is looked for this often.
const ADDRESS_RETRY: Duration = Duration::from_secs(1);

impl Supervisor {
    pub(super) async fn begin_life(&mut self, now: Instant) {
        let Some(addr) = self.find_address() else {
            self.starts.wait(now + ADDRESS_RETRY);
            return;
        };
        let generation = self.generations.next(&*self.world.store, &*self.world.wall, self.floor).await;
        let record = self.voice.record(&unpoisoned(&self.shared.said).clone());
        let Some(text) = record.encode_text() else {
            error!("this node's record does not fit; nothing is published");
            self.starts.failed(now, now);
            return;
        };
        let id = ChitchatId::new(self.shared.node.as_str(), generation, addr);
        let cluster = self.surroundings.cluster.clone();
        let loopback = addr.ip().is_loopback();
        let inspector = Inspector::new(cluster.clone(), id.clone(), loopback, identity::believable(&*self.world.wall));
        let (outgoing, stats) = (self.link.clone(), Arc::clone(&self.shared.stats));
        match Life::begin(Birth { cluster, id, text, inspector, outgoing, stats }).await {
            Ok(life) => self.life_began(life, record),
            Err(error) => {
                warn!("gossip cannot start: {error:#}; trying again");
                self.starts.failed(now, now);
            }
        }
    }

    fn life_began(&mut self, life: Life, record: Record) {
        info!("gossip runs as {} at {}, generation {}", self.shared.node, life.addr, life.generation);
        if self.starts.begun() {
            self.shared.stats.restarts.add(1);
            self.shared.task.restarted();
        }
        self.shared.stats.generation.set(life.generation);
        *unpoisoned(&self.shared.advertised) = Some(life.addr);
        self.voice.wrote(record);
        self.namesakes.begin_life();
        self.contacts.begin_life();
        let mut book = unpoisoned(&self.shared.book);
        book.begin_life(life.began);
        let rule = NamingRule { loopback: life.addr.ip().is_loopback(), allow: self.surroundings.allow.clone() };
        book.rule(rule, &mut self.outbox, &self.shared.stats);
        self.life = Some(life);
    }

    pub(super) fn life_failed(&mut self, why: &str) {
        if let Some(life) = self.life.take() {
            self.shared.task.failed(&format!("gossip has ended: {why}; what was known stays known"));
            self.starts.failed(Instant::now(), life.began);
        }
    }

    fn end_life(&mut self, why: &str) {
        if let Some(life) = self.life.take() {
            info!("gossip starts anew: {why}");
            self.floor = self.floor.max(life.generation);
            self.starts.ended(Instant::now(), life.began);
        }
    }

    fn find_address(&self) -> Option<SocketAddr> {
        let Surroundings { advertise, apiservers, bound, seeds, .. } = &self.surroundings;
        let seeds = seeds.borrow();
        let hints = Hints { flag: *advertise, bound: (*bound)?, apiservers, seeds: &seeds };
        address::find(&*self.world.datagram, &hints)
    }

    pub(super) fn watch_address(&mut self, now: Instant) {
        let Some(addr) = self.life.as_ref().map(|life| life.addr) else { return };
        if self.chores.address_is_due(now) {
            let found = self.find_address().filter(|found| *found != addr);
            if self.chores.address_moved(found) {
                self.end_life("this node has another address");
            }
        }
    }

    pub(super) async fn watch_identity(&mut self, now: Instant) {
        let Some(life) = &self.life else { return };
        let (generation, ours) = (life.generation, life.addr);
        let heard_of_us = unpoisoned(&life.inspector).heard_of_us();
        let (heartbeat, version) = {
            let mut library = life.library().await;
            let own = library.self_node_state();
            (u64::from(own.heartbeat()), own.max_version())
        };
        if identity::forged(heard_of_us, heartbeat, version) {
            warn!("a member tells of this node what it never said");
            return self.end_life("to be heard above what was forged");
        }
        let others: Vec<Namesake> = std::mem::take(&mut self.chores.namesakes);
        match self.namesakes.look(now, Ourselves { generation, session: self.voice.session, addr: ours }, &others) {
            Some(Finding::ContinueAbove(above)) => {
                self.floor = self.floor.max(above);
                self.end_life("the others know this node by a higher generation");
            }
            Some(Finding::Conflict(theirs)) => {
                error!("two machines have the name {}: this one at {ours}, the other at {theirs}; rename one", self.shared.name);
                self.shared.stats.name_conflict.set(1);
                self.outbox.conflict(Heard::Conflict { ours, theirs });
            }
            Some(Finding::ConflictOver) => {
                info!("no other machine has the name {} any more", self.shared.name);
                self.shared.stats.name_conflict.set(0);
                self.outbox.conflict(Heard::ConflictOver);
            }
            None => {}
        }
    }
}
