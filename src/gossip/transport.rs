//! The one task that owns the socket: seals what goes out, opens what comes in, and hands each thing to whom it is for.
//!
//! It never waits for anyone but the socket. A queue that is full loses what it cannot take, counted, as the network
//! would; so neither gossip's library nor a slow agent can make it stop answering pings and hellos.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Serializable};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::exchanges::Exchanges;
use super::fragment::{Assembler, Splitter};
use super::inspect::Inspector;
use super::packet::{Direct, Packet, Part, Received};
use super::seal::{Cipher, DATAGRAM};
use super::sessions::{Opened, Parts, Sessions};
use super::stats::{DropReason, Stats};
use super::unpoisoned;
use crate::engine::endpoint::NodeId;
use crate::supervise::caught;
use crate::world::{BoxFuture, DatagramSocket};

/// Messages that wait for gossip's library, and for the socket. Beyond that they are lost, as on a network.
const QUEUE: usize = 256;
/// Pings on their way.
const PINGS: usize = 256;
/// A pong later than this is none.
const PING_WITHIN: Duration = Duration::from_secs(2);
/// How often what waits too long is swept out.
const SWEEP: Duration = Duration::from_secs(1);
/// After this many receive errors in a row the task pauses, so as not to spin.
const ERRORS_IN_A_ROW: u32 = 16;
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What the task is asked to do.
pub(super) enum Outgoing {
    /// Send a message of gossip's library.
    Message(SocketAddr, Vec<u8>),
    /// Measure the round trip to a member.
    Ping(NodeId, SocketAddr),
    /// Send this to each of these.
    Directly(Vec<SocketAddr>, Vec<u8>),
    /// Hand messages to this life of gossip's library from now on.
    Attach(Life),
    /// Use these keys from now on.
    Rekey(Cipher),
}

/// What the task tells.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A member has answered a ping.
    RoundTrip(NodeId, Duration),
    /// A member's record came straight from it.
    Direct(SocketAddr, Direct),
    /// A member has received our record.
    Received(Received),
}

/// One life of gossip's library, as the socket's task sees it.
pub(super) struct Life {
    inspector: Arc<Mutex<Inspector>>,
    inbox: mpsc::Sender<(SocketAddr, ChitchatMessage)>,
}

/// The running task: how it ended, with its panic's words.
pub(super) type Running = AbortOnDropHandle<Result<(), String>>;

/// Starts the task; it ends when the sender returned is dropped.
pub(super) fn start(
    socket: Arc<dyn DatagramSocket>,
    cipher: Cipher,
    stats: Arc<Stats>,
) -> (mpsc::Sender<Outgoing>, mpsc::Receiver<Incoming>, Running) {
    let (outgoing, wanted) = mpsc::channel(QUEUE);
    let (told, incoming) = mpsc::channel(QUEUE);
    let link = Link {
        socket,
        sessions: Sessions::new(cipher, Arc::clone(&stats)),
        splitter: Splitter::new(),
        assembler: Assembler::new(),
        pings: HashMap::new(),
        life: None,
        told,
        stats,
    };
    let running = AbortOnDropHandle::new(tokio::spawn(caught(link.run(wanted))));
    (outgoing, incoming, running)
}

struct Link {
    socket: Arc<dyn DatagramSocket>,
    sessions: Sessions,
    splitter: Splitter,
    assembler: Assembler,
    pings: HashMap<u64, (NodeId, Instant)>,
    life: Option<Life>,
    told: mpsc::Sender<Incoming>,
    stats: Arc<Stats>,
}

impl Link {
    async fn run(mut self, mut wanted: mpsc::Receiver<Outgoing>) {
        // One byte more than any datagram of ours: what fills it is too long.
        let mut buffer = vec![0; DATAGRAM + 1];
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut errors = 0;
        loop {
            tokio::select! {
                received = self.socket.receive(&mut buffer) => match received {
                    Ok((len, from)) => {
                        errors = 0;
                        self.receive(from, buffer.get(..len).unwrap_or(&buffer)).await;
                    }
                    Err(_) => {
                        self.stats.count_drop(DropReason::Receive);
                        errors += 1;
                        if errors > ERRORS_IN_A_ROW {
                            tokio::time::sleep(ERROR_PAUSE).await;
                        }
                    }
                },
                order = wanted.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    async fn obey(&mut self, order: Outgoing) {
        match order {
            Outgoing::Message(to, message) => match self.splitter.split(&message) {
                Some(parts) => self.send(to, &Parts::from(parts)).await,
                None => self.stats.count_drop(DropReason::Oversized),
            },
            Outgoing::Ping(node, to) => self.ping(node, to).await,
            Outgoing::Directly(to, plaintext) => {
                let parts = Parts::from(vec![plaintext]);
                for to in to {
                    self.send(to, &parts).await;
                }
            }
            Outgoing::Attach(life) => self.life = Some(life),
            Outgoing::Rekey(cipher) => self.sessions.rekey(cipher),
        }
    }

    async fn ping(&mut self, node: NodeId, to: SocketAddr) {
        if self.pings.len() < PINGS {
            let token = rand::random();
            self.pings.insert(token, (node, Instant::now()));
            self.send_once(to, &Packet::Ping(token)).await;
        }
    }

    async fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.stats.datagrams_in.add(1);
        self.stats.bytes_in.add(datagram.len());
        match self.sessions.open(Instant::now(), from, datagram) {
            Ok(Opened::Plaintext { session, plaintext }) => {
                if let Err(reason) = self.take(from, session, &plaintext).await {
                    self.stats.count_drop(reason);
                }
            }
            Ok(Opened::Stranger(hello)) => {
                self.stats.count_drop(DropReason::Stranger);
                self.put(from, hello.into_iter().collect()).await;
            }
            Ok(Opened::Resend(to, datagrams)) => self.put(to, datagrams).await,
            Err(reason) => self.stats.count_drop(reason),
        }
    }

    async fn take(&mut self, from: SocketAddr, session: u64, plaintext: &[u8]) -> Result<(), DropReason> {
        match Packet::decode(plaintext).ok_or(DropReason::Malformed)? {
            Packet::Whole(message) => self.hand_on(from, message),
            Packet::Part(part) => self.take_part(from, session, part),
            Packet::Ping(token) => {
                self.send_once(from, &Packet::Pong(token)).await;
                Ok(())
            }
            Packet::Pong(token) => {
                let (node, sent) = self.pings.remove(&token).ok_or(DropReason::Malformed)?;
                self.tell(Incoming::RoundTrip(node, sent.elapsed()))
            }
            Packet::Direct(direct) => self.tell(Incoming::Direct(from, direct)),
            Packet::Received(received) => self.tell(Incoming::Received(received)),
            Packet::Hello(_) => Err(DropReason::Malformed),
        }
    }

    fn take_part(&mut self, from: SocketAddr, session: u64, part: Part<'_>) -> Result<(), DropReason> {
        match self.assembler.take(Instant::now(), session, part)? {
            Some(message) => self.hand_on(from, &message),
            None => Ok(()),
        }
    }

    /// Hands a message to gossip's library, as far as it may see it.
    fn hand_on(&mut self, from: SocketAddr, message: &[u8]) -> Result<(), DropReason> {
        let Some(life) = &self.life else { return Ok(()) };
        let inspected = unpoisoned(&life.inspector).inspect(Instant::now(), message, &self.stats)?;
        match life.inbox.try_send((from, inspected)) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(DropReason::Congested),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.life = None;
                Ok(())
            }
        }
    }

    fn tell(&self, told: Incoming) -> Result<(), DropReason> {
        self.told.try_send(told).map_err(|_| DropReason::Congested)
    }

    async fn send(&mut self, to: SocketAddr, parts: &Parts) {
        let datagrams = self.sessions.seal(Instant::now(), to, parts);
        self.put(to, datagrams).await;
    }

    async fn send_once(&mut self, to: SocketAddr, packet: &Packet<'_>) {
        let datagrams = self.sessions.seal_once(Instant::now(), to, &[packet.encode()]);
        self.put(to, datagrams).await;
    }

    async fn put(&self, to: SocketAddr, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            match self.socket.send(to, &datagram).await {
                Ok(()) => {
                    self.stats.datagrams_out.add(1);
                    self.stats.bytes_out.add(datagram.len());
                }
                Err(_) => self.stats.count_drop(DropReason::Send),
            }
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.pings.retain(|_, (_, sent)| now < *sent + PING_WITHIN);
        for _ in 0..self.assembler.sweep(now) {
            self.stats.count_drop(DropReason::Incomplete);
        }
    }
}

/// How gossip's library reaches the socket's task.
pub(super) struct Carrier {
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) inspector: Arc<Mutex<Inspector>>,
    pub(super) stats: Arc<Stats>,
}

impl Transport for Carrier {
    fn open<'a, 'b>(&'a self, _: SocketAddr) -> BoxFuture<'b, anyhow::Result<Box<dyn Socket>>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let (inbox, messages) = mpsc::channel(QUEUE);
            let life = Life { inspector: Arc::clone(&self.inspector), inbox };
            self.outgoing.send(Outgoing::Attach(life)).await?;
            let exchanges = Exchanges::new(Instant::now());
            let end = End { outgoing: self.outgoing.clone(), messages, stats: Arc::clone(&self.stats), exchanges };
            Ok(Box::new(end) as Box<dyn Socket>)
        })
    }
}

/// The library's end of its queues.
struct End {
    outgoing: mpsc::Sender<Outgoing>,
    messages: mpsc::Receiver<(SocketAddr, ChitchatMessage)>,
    stats: Arc<Stats>,
    exchanges: Exchanges,
}

impl Socket for End {
    fn send<'a, 'b>(&'a mut self, to: SocketAddr, message: ChitchatMessage) -> BoxFuture<'b, anyhow::Result<()>>
    where
        'a: 'b,
    {
        let bytes = message.serialize_to_vec();
        let may = match message {
            ChitchatMessage::Syn { .. } => self.exchanges.begin(Instant::now(), bytes.len()),
            ChitchatMessage::SynAck { .. } => {
                self.exchanges.answered(Instant::now(), bytes.len());
                true
            }
            _ => true,
        };
        if may && self.outgoing.try_send(Outgoing::Message(to, bytes)).is_err() {
            self.stats.count_drop(DropReason::Congested);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn recv<'a, 'b>(&'a mut self) -> BoxFuture<'b, anyhow::Result<(SocketAddr, ChitchatMessage)>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            // The sender is gone only when another life has begun, or the whole of gossip ends.
            self.messages.recv().await.ok_or_else(|| anyhow::anyhow!("the socket's task serves another life"))
        })
    }
}
