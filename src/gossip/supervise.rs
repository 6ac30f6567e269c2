//! The task that holds gossip together: begins a life of the library, publishes, watches, and begins again.

use std::sync::Arc;
use std::time::Duration;

use chitchat::ChitchatId;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, info, warn};

use super::address::{self, Hints};
use super::chores::Chores;
use super::contacts::Contacts;
use super::identity::{self, Finding, Generations, Namesake, Namesakes};
use super::inspect::Inspector;
use super::life::{Birth, Life};
use super::outbox::Outbox;
use super::packet::{Direct, Packet, Received};
use super::peers::{self, Keeper};
use super::record::{NamingRule, Record};
use super::seal::Cipher;
use super::starts::Starts;
use super::transport::{self, Incoming, Outgoing};
use super::voice::{Speak, Voice, until};
use super::{Command, Heard, INTERVAL, Keyring, Say, Settings, Shared, unpoisoned};
use crate::engine::event::{AgentState, Role};
use crate::world::{BoxFuture, World};

/// While there is no address to advertise, one is looked for this often.
const ADDRESS_RETRY: Duration = Duration::from_secs(1);
/// What is still to be written when gossip ends has this long.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Owns everything but the socket.
pub(super) struct Supervisor {
    pub(super) world: World,
    pub(super) shared: Arc<Shared>,
    pub(super) link: mpsc::Sender<Outgoing>,
    pub(super) keeper: Keeper,
    pub(super) outbox: Outbox,
    pub(super) contacts: Contacts,
    pub(super) surroundings: Surroundings,
    pub(super) chores: Chores,
    life: Option<Life>,
    starts: Starts,
    generations: Generations,
    /// The next generation must be above this.
    floor: u64,
    namesakes: Namesakes,
    voice: Voice,
    leaving: Option<Leaving>,
    /// Nobody holds a handle any more, or the socket's task is gone.
    over: bool,
}

/// What the configuration said.
pub(super) struct Surroundings {
    cluster: String,
    advertise: Option<std::net::SocketAddr>,
    apiservers: Vec<std::net::SocketAddr>,
    bound: Option<std::net::SocketAddr>,
    allow: Vec<ipnet::IpNet>,
    seeds: watch::Receiver<Vec<std::net::SocketAddr>>,
}

struct Leaving {
    at: Instant,
    told: Vec<oneshot::Sender<()>>,
}

impl Supervisor {
    /// Runs gossip until the last handle is dropped, or it has left.
    pub(super) async fn run(
        world: World,
        settings: Settings,
        shared: Arc<Shared>,
        mut orders: mpsc::UnboundedReceiver<Command>,
        heard: mpsc::Sender<Heard>,
    ) {
        let (mut this, mut incoming) = Supervisor::prepare(world, settings, shared).await;
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !this.over && !this.has_left() {
            let (bell, ended) = this.signals();
            tokio::select! {
                order = orders.recv() => this.obey(order).await,
                told = incoming.recv() => this.hear(told).await,
                room = heard.reserve(), if !this.outbox.is_empty() => this.hand_out(room),
                () = rung(bell) => this.look().await,
                why = end_of(ended) => this.life_failed(&why),
                () = until(this.voice.next()) => this.speak_again().await,
                _ = tick.tick() => this.tick().await,
            }
        }
        this.finish().await;
    }

    async fn prepare(world: World, settings: Settings, shared: Arc<Shared>) -> (Supervisor, mpsc::Receiver<Incoming>) {
        let Settings { cluster, name, socket, advertise, apiservers, keyring, seeds, allow, state_dir } = settings;
        let now = Instant::now();
        let cache = peers::load(&*world.store, &state_dir, &keyring, &cluster, &shared.stats).await;
        let mut outbox = Outbox::default();
        outbox.cached(cache.event(identity::millis(&*world.wall)));
        let contacts = Contacts::new(now, cache.peers.iter().map(|peer| peer.addr));
        let bound = socket.local_addr().inspect_err(|error| error!("the gossip socket has no address: {error}")).ok();
        let stats = Arc::clone(&shared.stats);
        let (link, incoming) = transport::start(socket, Cipher::for_gossip(&keyring, &cluster), Arc::clone(&stats));
        let keeper = Keeper::start(Arc::clone(&world.store), &state_dir, cluster.clone(), keyring, cache, stats);
        let supervisor = Supervisor {
            world,
            shared,
            link,
            keeper,
            outbox,
            contacts,
            surroundings: Surroundings { cluster, advertise, apiservers, bound, allow, seeds },
            chores: Chores::new(now),
            life: None,
            starts: Starts::new(now),
            generations: Generations::new(&state_dir),
            floor: 0,
            namesakes: Namesakes::default(),
            voice: Voice::new(name),
            leaving: None,
            over: false,
        };
        (supervisor, incoming)
    }

    fn signals(&self) -> (Option<Arc<Notify>>, Option<BoxFuture<'static, anyhow::Result<()>>>) {
        (self.life.as_ref().map(Life::bell), self.life.as_ref().map(Life::ended))
    }

    async fn obey(&mut self, command: Option<Command>) {
        match command {
            None => self.over = true,
            Some(command) => self.obey_one(command).await,
        }
    }

    async fn obey_one(&mut self, command: Command) {
        match command {
            Command::Say(say, urgent) => self.say(say, urgent).await,
            Command::Remember(endpoints, cluster_size) => self.remember(endpoints, cluster_size),
            Command::Reload(keyring, allow) => self.reload(keyring, allow).await,
            Command::Leave(done) => self.leave(done).await,
            #[cfg(test)]
            Command::EndLife => {
                if let Some(life) = &self.life {
                    life.end();
                }
            }
        }
    }

    fn hand_out(&mut self, room: Result<mpsc::Permit<'_, Heard>, mpsc::error::SendError<()>>) {
        match (room, self.outbox.next()) {
            (Ok(room), Some(next)) => room.send(next),
            // Nobody listens any more.
            _ => self.outbox = Outbox::default(),
        }
    }

    async fn hear(&mut self, told: Option<Incoming>) {
        let Some(told) = told else {
            error!("the gossip socket's task has ended; this node knows what it knew and hears no more");
            self.over = true;
            return;
        };
        match told {
            Incoming::RoundTrip(node, rtt) => {
                unpoisoned(&self.shared.book).round_trip(node, rtt);
                self.outbox.round_trip(node, rtt);
            }
            Incoming::Direct(from, direct) => {
                if unpoisoned(&self.shared.book).take_direct(&direct, &mut self.outbox, &self.shared.stats) {
                    let Direct { generation, version, .. } = direct;
                    let received = Received { by: self.shared.node, generation, version };
                    self.send(Outgoing::Directly(vec![from], Packet::Received(received).encode())).await;
                }
            }
            Incoming::Received(received) => self.voice.urgent.received(received),
        }
    }

    /// Hands something to the socket's task, which never waits for us.
    pub(super) async fn send(&self, outgoing: Outgoing) {
        // Fails only when that task has ended, which the main loop notices.
        let _ = self.link.send(outgoing).await;
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if self.life.is_none() && self.starts.due(now) {
            self.begin_life(now).await;
        }
        self.look().await;
        self.watch_identity(now).await;
        self.watch_address(now);
        // Out of its place while it is worked with, for the rest of `self` is needed beside it.
        if let Some(life) = self.life.take() {
            self.do_chores(now, &life).await;
            self.life = Some(life);
        }
    }

    /// Reads what the library holds, and takes in what is new.
    async fn look(&mut self) {
        let Some(life) = &self.life else { return };
        let library = life.library().await;
        let mut book = unpoisoned(&self.shared.book);
        let look = book.look(&library);
        drop(library);
        self.chores.seen(&look);
        book.take(Instant::now(), look, &mut self.outbox, &self.shared.stats);
    }
}

/// Beginning and ending lives.
impl Supervisor {
    async fn begin_life(&mut self, now: Instant) {
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
        }
        self.shared.stats.generation.set(life.generation);
        *unpoisoned(&self.shared.advertised) = Some(life.addr);
        self.voice.wrote(life.began, record);
        self.namesakes.begin_life();
        self.contacts.begin_life();
        let mut book = unpoisoned(&self.shared.book);
        book.begin_life(life.began);
        let rule = NamingRule { loopback: life.addr.ip().is_loopback(), allow: self.surroundings.allow.clone() };
        book.rule(rule, &mut self.outbox, &self.shared.stats);
        self.life = Some(life);
    }

    fn life_failed(&mut self, why: &str) {
        if let Some(life) = self.life.take() {
            warn!("gossip has ended: {why}; starting it again, what was known stays known");
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

    fn find_address(&self) -> Option<std::net::SocketAddr> {
        let Surroundings { advertise, apiservers, bound, seeds, .. } = &self.surroundings;
        let seeds = seeds.borrow();
        let hints = Hints { flag: *advertise, bound: (*bound)?, apiservers, seeds: &seeds };
        address::find(&*self.world.datagram, &hints)
    }

    fn watch_address(&mut self, now: Instant) {
        let Some(addr) = self.life.as_ref().map(|life| life.addr) else { return };
        if self.chores.address_is_due(now) {
            let found = self.find_address().filter(|found| *found != addr);
            if self.chores.address_moved(found) {
                self.end_life("this node has another address");
            }
        }
    }

    async fn watch_identity(&mut self, now: Instant) {
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
        match self.namesakes.look(now, (generation, self.voice.session), &others) {
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

/// Speaking and leaving.
impl Supervisor {
    async fn say(&mut self, mut say: Say, urgent: bool) {
        if self.leaving.is_some() {
            say.agent = AgentState::Leaving;
        }
        *unpoisoned(&self.shared.said) = say.clone();
        self.speak(&say, urgent).await;
    }

    async fn speak(&mut self, say: &Say, urgent: bool) {
        let Some(life) = &self.life else { return };
        let now = Instant::now();
        let record = self.voice.record(say);
        let Speak::Now { directly } = self.voice.judge(now, &record, urgent) else { return };
        let Some((text, bytes)) = record.encode_text().zip(record.encode()) else {
            error!("this node's record does not fit; the last one stays published");
            return;
        };
        let version = life.publish(&text).await;
        if directly {
            let to = unpoisoned(&self.shared.book).live().collect();
            let direct = Direct { generation: life.generation, version, record: bytes };
            self.voice.urgent.begin(now, direct, to);
        }
        self.voice.wrote(now, record);
    }

    async fn speak_again(&mut self) {
        if let Some((to, plaintext)) = self.voice.urgent.due(Instant::now()) {
            self.send(Outgoing::Directly(to, plaintext)).await;
        }
        let say = unpoisoned(&self.shared.said).clone();
        self.speak(&say, false).await;
    }

    async fn reload(&mut self, keyring: Keyring, allow: Vec<ipnet::IpNet>) {
        self.send(Outgoing::Rekey(Cipher::for_gossip(&keyring, &self.surroundings.cluster))).await;
        self.keeper.rekey(keyring);
        self.surroundings.allow = allow.clone();
        let loopback = self.life.as_ref().is_some_and(|life| life.addr.ip().is_loopback());
        unpoisoned(&self.shared.book).rule(NamingRule { loopback, allow }, &mut self.outbox, &self.shared.stats);
    }

    async fn leave(&mut self, done: oneshot::Sender<()>) {
        let heard_in = if self.life.is_some() { 2 * INTERVAL } else { Duration::ZERO };
        let leaving = self.leaving.get_or_insert_with(|| Leaving { at: Instant::now() + heard_in, told: Vec::new() });
        leaving.told.push(done);
        let say = unpoisoned(&self.shared.said).clone();
        let urgent = say.role == Role::ControlPlane;
        self.say(say, urgent).await;
    }

    fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| Instant::now() >= leaving.at)
    }

    async fn finish(self) {
        drop(self.life);
        self.keeper.finish(LAST_WRITE).await;
        for told in self.leaving.into_iter().flat_map(|leaving| leaving.told) {
            let _ = told.send(());
        }
    }

    /// The seeds as they are now.
    pub(super) fn seeds(&self) -> Vec<std::net::SocketAddr> {
        self.surroundings.seeds.borrow().clone()
    }
}

async fn rung(bell: Option<Arc<Notify>>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => std::future::pending().await,
    }
}

async fn end_of(ended: Option<BoxFuture<'static, anyhow::Result<()>>>) -> String {
    match ended {
        Some(ended) => ended.await.map_or_else(|error| format!("{error:#}"), |()| "by itself".to_owned()),
        None => std::future::pending().await,
    }
}
