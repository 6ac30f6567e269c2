//! The task that holds gossip together: it owns the socket, and moves what arrives, what is said and the time through the
//! [`Exchange`](super::exchange::Exchange) and, on a core member, through chitchat.
//!
//! It waits for nobody but the socket and, when it begins a generation, for the disk, for two seconds at most. When it panics
//! it is started again after a pause; what was known stays known.

mod identity;
mod isolated;
mod keeping;
mod look;
mod removing;
mod speaking;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatMessage, Serializable as _};
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tracing::error;

use self::identity::Identity;
use super::cache::{self, Keeper};
use super::contacts::Contacts;
use super::core::{self, Fragments, Life};
use super::envelope::{DATAGRAM, Kind};
use super::exchange::Change;
use super::isolation::Isolation;
use super::item::Record;
use super::keys::Keyring;
use super::naming::NamingRule;
use super::outbox::Outbox;
use super::packet::Letter;
use super::starts::Starts;
use super::stats::DropReason;
use super::{Command, Heard, INTERVAL, Seeds, Settings, Shared, unpoisoned};
use crate::engine::endpoint::NodeId;
use crate::supervise::caught;
use crate::world::{BoxFuture, DatagramSocket, World};

/// What is still to be written when gossip ends has this long.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// After this many receive errors in a row the task pauses, so as not to spin.
const ERRORS_IN_A_ROW: u32 = 16;
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// A worker looks at its seeds and its own address this often; a core member with each round of chitchat.
const WORKER_TICK: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Node {
    world: World,
    shared: Arc<Shared>,
    settings: Fixed,
    socket: Arc<dyn DatagramSocket>,
    fragments: Fragments,
    from_library: mpsc::Receiver<core::Addressed>,
    to_socket: mpsc::Sender<core::Addressed>,
    life: Option<Life>,
    starts: Starts,
    identity: Identity,
    contacts: Contacts,
    keeper: Keeper,
    outbox: Outbox,
    rule: NamingRule,
    /// This core member's record as it was published last.
    published: Option<Record>,
    /// The removals that chitchat was given last: of whom, and up to which generation.
    removals: BTreeSet<(NodeId, u64)>,
    /// When the heartbeat of each core member advanced last, and to what.
    beats: BTreeMap<NodeId, (u64, Option<Instant>)>,
    receive_errors: u32,
    /// The largest number of core members that was told of as too large.
    core_told: usize,
    isolation: Isolation,
    leaving: Option<Leaving>,
    /// Nobody holds a handle any more.
    over: bool,
}

/// What the configuration said and a reload does not change.
struct Fixed {
    cluster: String,
    core: bool,
    advertise: Option<SocketAddr>,
    apiservers: Vec<SocketAddr>,
    bound: Option<SocketAddr>,
    seeds: watch::Receiver<Seeds>,
}

struct Leaving {
    at: Instant,
    told: Vec<oneshot::Sender<()>>,
}

/// Runs gossip until the last handle is dropped or it has left. When it panics it is started again, after a pause.
pub(super) async fn keep_running(
    world: World,
    shared: Arc<Shared>,
    mut orders: mpsc::UnboundedReceiver<Command>,
    heard: mpsc::Sender<Heard>,
) {
    loop {
        let run = Node::run(world.clone(), Arc::clone(&shared), &mut orders, heard.clone());
        let (Err(reason) | Ok(Err(reason))) = caught(run).await else { return };
        shared.task.count_panic();
        let pause = Instant::now() + shared.task.failed(&reason);
        while let Ok(order) = timeout_at(pause, orders.recv()).await {
            match order {
                // Nobody is told that this node leaves: it is as good as gone already.
                None | Some(Command::Leave(_)) => return,
                Some(order) => shared.note(order),
            }
        }
        shared.task.restarted();
    }
}

impl Shared {
    /// Takes in what is asked for while gossip does not run.
    fn note(&self, order: Command) {
        match order {
            Command::Say(say, _) => *unpoisoned(&self.said) = say,
            Command::Remember(endpoints, cluster_size) => *unpoisoned(&self.remembered) = Some((endpoints, cluster_size)),
            Command::Reload(keyring, allow) => self.reload(keyring, allow),
            // Whoever asks is told that gossip does not run.
            Command::Forget(..) | Command::Leave(_) => {}
            #[cfg(test)]
            Command::EndLife => {}
        }
    }

    /// What people should know of a subject.
    fn set_note(&self, subject: &'static str, note: Option<String>) {
        let mut notes = unpoisoned(&self.notes);
        match note {
            Some(note) => notes.insert(subject, note),
            None => notes.remove(subject),
        };
    }

    fn reload(&self, keyring: Keyring, allow: Vec<IpNet>) {
        let mut settings = unpoisoned(&self.settings);
        (settings.keyring, settings.allow) = (keyring, allow);
    }
}

/// What one turn of the main loop begins with.
enum Turn {
    Received(std::io::Result<(usize, SocketAddr)>),
    Outgoing(SocketAddr, ChitchatMessage),
    Order(Option<Command>),
    Look,
    LifeEnded(String),
    Due,
    Tick,
}

impl Node {
    /// The error says which of its other tasks has panicked.
    async fn run(
        world: World,
        shared: Arc<Shared>,
        orders: &mut mpsc::UnboundedReceiver<Command>,
        heard: mpsc::Sender<Heard>,
    ) -> Result<(), String> {
        let mut this = Node::prepare(world, shared).await;
        let socket = Arc::clone(&this.socket);
        // One byte more than any datagram of ours: what fills it is too long.
        let mut buffer = vec![0; DATAGRAM + 1];
        let mut tick = tokio::time::interval(if this.settings.core { INTERVAL } else { WORKER_TICK });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seeds = this.settings.seeds.clone();
        while !this.over && !this.has_left() {
            let (bell, ended) = (this.life.as_ref().map(Life::bell), this.life.as_ref().map(Life::ended));
            let due = unpoisoned(&this.shared.exchange).next();
            let turn = tokio::select! {
                received = socket.receive(&mut buffer) => Turn::Received(received),
                Some((to, message)) = this.from_library.recv() => Turn::Outgoing(to, message),
                order = orders.recv() => Turn::Order(order),
                reason = this.keeper.panicked() => return Err(format!("writing the peer cache {reason}")),
                room = heard.reserve(), if !this.outbox.is_empty() => {
                    this.hand_out(room);
                    continue;
                }
                () = rung(bell) => Turn::Look,
                why = end_of(ended) => Turn::LifeEnded(why),
                () = until(due) => Turn::Due,
                Ok(()) = seeds.changed() => Turn::Tick,
                _ = tick.tick() => Turn::Tick,
            };
            this.turn(turn, &buffer).await;
            this.take_changes();
            this.send().await;
        }
        this.finish().await;
        Ok(())
    }

    async fn prepare(world: World, shared: Arc<Shared>) -> Node {
        let settings = unpoisoned(&shared.settings).clone();
        let Settings { cluster, name: _, core, socket, advertise, apiservers, keyring, seeds, allow, state_dir, .. } = settings;
        let now = Instant::now();
        let cache = cache::load(&*world.store, &state_dir, &keyring, &cluster, &shared.stats).await;
        let mut outbox = Outbox::default();
        outbox.cached(cache.event(super::identity::millis(&*world.wall)));
        let up_to = {
            let mut exchange = unpoisoned(&shared.exchange);
            exchange.restore(now, &cache.kept());
            exchange.catalog.removed_up_to(shared.node)
        };
        // A node that was removed stays away until its process is started again: a panic of this task is no such start.
        let ran = u64::try_from(shared.stats.generation.get()).unwrap_or(0);
        let removed = ran > 0 && up_to.is_some_and(|up_to| ran <= up_to);
        shared.stats.isolated.set(0);
        shared.set_note(isolated::SUBJECT, None);
        let contacts = Contacts::new(now, cache.leads.iter().copied());
        let bound = socket.local_addr().inspect_err(|error| error!("the gossip socket has no address: {error}")).ok();
        let stats = Arc::clone(&shared.stats);
        let keeper = Keeper::start(Arc::clone(&world.store), &state_dir, cluster.clone(), keyring, cache, stats);
        let (to_socket, from_library) = core::queue();
        let mut node = Node {
            identity: Identity::new(&state_dir, removed),
            settings: Fixed { cluster, core, advertise, apiservers, bound, seeds },
            rule: NamingRule { loopback: false, allow },
            fragments: Fragments::new(now),
            starts: Starts::new(now),
            life: None,
            published: None,
            removals: BTreeSet::new(),
            beats: BTreeMap::new(),
            receive_errors: 0,
            core_told: 0,
            isolation: Isolation::new(now),
            leaving: None,
            over: false,
            world,
            shared,
            socket,
            from_library,
            to_socket,
            contacts,
            keeper,
            outbox,
        };
        node.tell_all();
        // What was on disk may say that this node was removed: it begins above that.
        node.take_changes();
        let remembered = unpoisoned(&node.shared.remembered).take();
        if let Some((endpoints, cluster_size)) = remembered {
            node.remember(endpoints, cluster_size);
        }
        node
    }

    async fn turn(&mut self, turn: Turn, buffer: &[u8]) {
        match turn {
            Turn::Received(Ok((len, from))) => {
                self.receive_errors = 0;
                self.receive(from, buffer.get(..len).unwrap_or(buffer));
            }
            Turn::Received(Err(_)) => {
                self.shared.stats.count_drop(DropReason::Receive);
                self.receive_errors += 1;
                if self.receive_errors > ERRORS_IN_A_ROW {
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
            Turn::Outgoing(to, message) => self.send_core(to, &message).await,
            Turn::Order(None) => self.over = true,
            Turn::Order(Some(command)) => self.obey(command).await,
            Turn::Look => self.look().await,
            Turn::LifeEnded(why) => self.life_failed(&why),
            Turn::Due => unpoisoned(&self.shared.exchange).tick(Instant::now()),
            Turn::Tick => self.tick().await,
        }
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let stats = &self.shared.stats;
        stats.datagrams_in.add(1);
        stats.bytes_in.add(datagram.len());
        let now = Instant::now();
        let mut exchange = unpoisoned(&self.shared.exchange);
        let opened = match exchange.envelopes().open(datagram) {
            Ok(opened) => opened,
            Err(refused) => {
                stats.count_drop(refused.reason);
                drop(exchange);
                return self.refused(now, from, refused);
            }
        };
        if opened.kind != Kind::Core {
            let sender = exchange.receive(now, from, &opened, datagram.len());
            drop(exchange);
            if sender.is_some_and(|sender| sender != self.shared.node) {
                self.isolation.opened(now, from);
            }
            return;
        }
        drop(exchange);
        self.isolation.opened(now, from);
        if let Err(reason) = self.take_core(now, from, &opened.plaintext) {
            self.shared.stats.count_drop(reason);
        }
    }

    /// Takes what another core member's library sent. It is answered at the address inside, which must be one that a record names:
    /// the answer to a recorded datagram cannot be directed elsewhere.
    fn take_core(&mut self, now: Instant, from: SocketAddr, plaintext: &[u8]) -> Result<(), DropReason> {
        let Some(whole) = self.fragments.take(now, from, plaintext, &self.shared.stats)? else { return Ok(()) };
        let Letter { sender, record, message } = Letter::decode(&whole).ok_or(DropReason::Malformed)?;
        let mut exchange = unpoisoned(&self.shared.exchange);
        if !record.is_empty() {
            // Where a newer one is held, chitchat tells.
            let _ = exchange.offer(now, record);
        }
        if !exchange.catalog.names_address(sender) {
            return Err(DropReason::UnknownAddress);
        }
        drop(exchange);
        self.life.as_ref().map_or(Ok(()), |life| life.take(sender, message))
    }

    async fn send_core(&mut self, to: SocketAddr, message: &ChitchatMessage) {
        let Some(sender) = self.identity.addr() else { return };
        // A member that is not live yet may not hold this node's record.
        let record = {
            let exchange = unpoisoned(&self.shared.exchange);
            let own = exchange.catalog.own().map(|own| Arc::clone(&own.bytes));
            if exchange.live_core().any(|addr| addr == to) { None } else { own }
        };
        let letter = Letter { sender, record: record.as_deref().unwrap_or_default(), message: &message.serialize_to_vec() };
        let Some(parts) = self.fragments.split(&letter) else {
            return self.shared.stats.count_drop(DropReason::Oversized);
        };
        let datagrams: Vec<Vec<u8>> = {
            let exchange = unpoisoned(&self.shared.exchange);
            parts.iter().filter_map(|part| exchange.envelopes().seal(Kind::Core, part)).collect()
        };
        for datagram in datagrams {
            self.put(to, &datagram).await;
        }
    }

    async fn send(&mut self) {
        let sends = unpoisoned(&self.shared.exchange).take_sends();
        for (to, datagram) in sends {
            self.put(to, &datagram).await;
        }
    }

    async fn put(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self.socket.send(to, datagram).await {
            Ok(()) => {
                self.shared.stats.datagrams_out.add(1);
                self.shared.stats.bytes_out.add(datagram.len());
            }
            Err(error) => {
                self.shared.stats.count_drop(DropReason::Send);
                self.isolation.unsendable(Instant::now(), &error);
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Say(say, urgent) => self.say(say, urgent).await,
            Command::Remember(endpoints, cluster_size) => self.remember(endpoints, cluster_size),
            Command::Reload(keyring, allow) => self.reload(keyring, allow).await,
            Command::Forget(item, done) => self.forget(&item, done),
            Command::Leave(done) => self.leave(done).await,
            #[cfg(test)]
            Command::EndLife => self.life_failed("a test ends it"),
        }
    }

    fn hand_out(&mut self, room: Result<mpsc::Permit<'_, Heard>, mpsc::error::SendError<()>>) {
        match (room, self.outbox.next()) {
            (Ok(room), Some(next)) => room.send(next),
            // Nobody listens any more.
            _ => self.outbox = Outbox::default(),
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let seeds = self.seeds();
        unpoisoned(&self.shared.exchange).set_seeds(seeds);
        if !self.identity.has_begun() && self.starts.due(now) {
            self.begin(now).await;
        }
        self.publish_removals().await;
        self.look().await;
        self.watch_identity(now).await;
        self.watch_address(now);
        self.watch_isolation(now);
        self.contact(now);
        self.keep(now);
    }

    /// What the exchange has found out is told to the agent, or acted upon.
    fn take_changes(&mut self) {
        let changes = unpoisoned(&self.shared.exchange).take_changes();
        for change in changes {
            self.change(change);
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Record(node) => self.tell_record(node),
            Change::Gone(node) => self.outbox.forgotten(node),
            Change::Removed { node, dropped } => self.take_removal(node, dropped),
            Change::Summary => {
                let exchange = unpoisoned(&self.shared.exchange);
                self.outbox.summary(exchange.summary());
            }
            Change::OwnRemoval(generation) => self.removed(generation),
            Change::GoOnAbove(record) => self.go_on_above(&record),
            Change::HeardAbove(generation) => self.heard_above(generation),
            Change::Namesake(theirs) => self.namesake(theirs),
            Change::Conflict(conflict) => {
                error!(
                    "two machines have the name {}: one at {:?}, the other at {:?}; rename one",
                    conflict.held.name, conflict.held.gossip, conflict.other.gossip
                );
            }
        }
    }

    fn tell_record(&mut self, node: NodeId) {
        let exchange = unpoisoned(&self.shared.exchange);
        match exchange.catalog.record(node) {
            Some(record) if node != self.shared.node => self.outbox.record(self.rule.told(record, &self.shared.stats)),
            _ => {}
        }
    }

    fn tell_all(&mut self) {
        let exchange = unpoisoned(&self.shared.exchange);
        let nodes: Vec<NodeId> = exchange.catalog.records().map(|(node, _)| node).collect();
        let removed = exchange.catalog.removals().map(|(node, ..)| node).filter(|node| exchange.catalog.record(*node).is_none());
        let removed: Vec<NodeId> = removed.collect();
        drop(exchange);
        for node in nodes {
            self.tell_record(node);
        }
        for node in removed {
            self.outbox.removed(node);
        }
    }

    /// The seeds as they are now.
    fn seeds(&self) -> Vec<SocketAddr> {
        self.settings.seeds.borrow().addrs.clone()
    }

    fn contact(&mut self, now: Instant) {
        let (Some(life), Some(own)) = (&self.life, self.identity.addr()) else { return };
        let exchange = unpoisoned(&self.shared.exchange);
        let mut known: BTreeSet<SocketAddr> = exchange.live_core().collect();
        let alone = known.is_empty();
        let records: BTreeSet<SocketAddr> = exchange.gossip_addresses().collect();
        drop(exchange);
        self.contacts.remember(now, &known);
        known.insert(own);
        let ask: Vec<SocketAddr> = self.seeds().into_iter().chain(records).collect();
        for addr in self.contacts.due(now, &ask, &known, alone) {
            life.contact(addr);
        }
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

/// A timer that may not be set.
async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
