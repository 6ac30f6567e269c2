//! The task that holds gossip together: it speaks for this node, listens for it, and keeps the library alive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tracing::error;

use super::chores::Chores;
use super::contacts::Contacts;
use super::identity::{self, Generations, Namesakes};
use super::life::Life;
use super::outbox::Outbox;
use super::packet::{Direct, Packet, Received};
use super::peers::{self, Keeper};
use super::record::NamingRule;
use super::seal::Cipher;
use super::starts::Starts;
use super::transport::{self, Incoming, Outgoing};
use super::voice::{Speak, Voice, until};
use super::{Command, Heard, INTERVAL, Keyring, Say, Settings, Shared, unpoisoned};
use crate::engine::event::AgentState;
use crate::supervise::caught;
use crate::world::{BoxFuture, World};

/// What is still to be written when gossip ends has this long.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Owns everything but the socket.
pub(super) struct Supervisor {
    pub(super) world: World,
    pub(super) shared: Arc<Shared>,
    pub(super) link: mpsc::Sender<Outgoing>,
    transport: transport::Running,
    pub(super) keeper: Keeper,
    pub(super) outbox: Outbox,
    pub(super) contacts: Contacts,
    pub(super) surroundings: Surroundings,
    pub(super) chores: Chores,
    pub(super) life: Option<Life>,
    pub(super) starts: Starts,
    pub(super) generations: Generations,
    /// The next generation must be above this.
    pub(super) floor: u64,
    pub(super) namesakes: Namesakes,
    pub(super) voice: Voice,
    leaving: Option<Leaving>,
    /// Nobody holds a handle any more.
    over: bool,
}

/// Runs gossip until the last handle is dropped or it has left. When it panics it is started again, after a pause.
pub(super) async fn keep_running(
    world: World,
    shared: Arc<Shared>,
    mut orders: mpsc::UnboundedReceiver<Command>,
    heard: mpsc::Sender<Heard>,
) {
    loop {
        let run = Supervisor::run(world.clone(), Arc::clone(&shared), &mut orders, heard.clone());
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
            Command::Leave(_) => {}
            #[cfg(test)]
            Command::EndLife => {}
        }
    }

    fn reload(&self, keyring: Keyring, allow: Vec<IpNet>) {
        let mut settings = unpoisoned(&self.settings);
        (settings.keyring, settings.allow) = (keyring, allow);
    }
}

/// What the configuration said.
pub(super) struct Surroundings {
    pub(super) cluster: String,
    pub(super) advertise: Option<SocketAddr>,
    pub(super) apiservers: Vec<SocketAddr>,
    pub(super) bound: Option<SocketAddr>,
    pub(super) allow: Vec<IpNet>,
    pub(super) seeds: watch::Receiver<Vec<SocketAddr>>,
}

struct Leaving {
    at: Instant,
    told: Vec<oneshot::Sender<()>>,
}

impl Supervisor {
    /// Runs gossip until the last handle is dropped, or it has left. The error says which of its other tasks has panicked.
    async fn run(
        world: World,
        shared: Arc<Shared>,
        orders: &mut mpsc::UnboundedReceiver<Command>,
        heard: mpsc::Sender<Heard>,
    ) -> Result<(), String> {
        let (mut this, mut incoming) = Supervisor::prepare(world, shared).await;
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !this.over && !this.has_left() {
            let (bell, ended) = this.signals();
            tokio::select! {
                order = orders.recv() => this.obey(order).await,
                told = incoming.recv() => match told {
                    Some(told) => this.hear(told).await,
                    None => return Err(this.transport_panicked().await),
                },
                reason = this.keeper.panicked() => return Err(format!("writing the peer cache {reason}")),
                room = heard.reserve(), if !this.outbox.is_empty() => this.hand_out(room),
                () = rung(bell) => this.look().await,
                why = end_of(ended) => this.life_failed(&why),
                () = until(this.voice.urgent.next()) => this.repeat_directly().await,
                _ = tick.tick() => this.tick().await,
            }
        }
        this.finish().await;
        Ok(())
    }

    async fn transport_panicked(&mut self) -> String {
        let reason = (&mut self.transport).await.ok().and_then(Result::err);
        format!("the gossip socket's task {}", reason.unwrap_or_else(|| "ended".to_owned()))
    }

    async fn prepare(world: World, shared: Arc<Shared>) -> (Supervisor, mpsc::Receiver<Incoming>) {
        let settings = unpoisoned(&shared.settings).clone();
        let Settings { cluster, name, socket, advertise, apiservers, keyring, seeds, allow, state_dir } = settings;
        let now = Instant::now();
        let cache = peers::load(&*world.store, &state_dir, &keyring, &cluster, &shared.stats).await;
        let mut outbox = Outbox::default();
        outbox.cached(cache.event(identity::millis(&*world.wall)));
        let contacts = Contacts::new(now, cache.peers.iter().map(|peer| peer.addr));
        let bound = socket.local_addr().inspect_err(|error| error!("the gossip socket has no address: {error}")).ok();
        let stats = Arc::clone(&shared.stats);
        let (link, incoming, transport) = transport::start(socket, Cipher::for_gossip(&keyring, &cluster), Arc::clone(&stats));
        let keeper = Keeper::start(Arc::clone(&world.store), &state_dir, cluster.clone(), keyring, cache, stats);
        let mut supervisor = Supervisor {
            world,
            shared,
            link,
            transport,
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
        let remembered = unpoisoned(&supervisor.shared.remembered).take();
        if let Some((endpoints, cluster_size)) = remembered {
            supervisor.remember(endpoints, cluster_size);
        }
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

    async fn hear(&mut self, told: Incoming) {
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
        let record = self.voice.record(say);
        let Speak::Now { directly } = self.voice.judge(&record, urgent) else { return };
        let Some((text, bytes)) = record.encode_text().zip(record.encode()) else {
            error!("this node's record does not fit; the last one stays published");
            return;
        };
        let version = life.publish(&text).await;
        if directly {
            let to = unpoisoned(&self.shared.book).live().collect();
            let direct = Direct { generation: life.generation, version, record: bytes };
            self.voice.urgent.begin(Instant::now(), direct, to);
        }
        self.voice.wrote(record);
    }

    /// Tells those directly who have not answered yet.
    async fn repeat_directly(&mut self) {
        if let Some((to, plaintext)) = self.voice.urgent.due(Instant::now()) {
            self.send(Outgoing::Directly(to, plaintext)).await;
        }
    }

    async fn reload(&mut self, keyring: Keyring, allow: Vec<IpNet>) {
        self.shared.reload(keyring.clone(), allow.clone());
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
        self.say(say, false).await;
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
    pub(super) fn seeds(&self) -> Vec<SocketAddr> {
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
