//! Nodes that exchange Reports and Updates over a network in memory, in time that only this test moves.

mod hostile;
mod learning;
mod members;
mod pushes;
mod removals;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use super::super::item::Record;
use super::super::keys::Keyring;
use super::super::stats::Stats;
use super::{Change, CoreMember, Exchange, Me};
use crate::engine::endpoint::{Endpoint, NodeId};
use crate::engine::event::{AgentState, ApiserverState, Observation, Role};

pub(super) const CLUSTER: &str = "test";
/// One way through the network.
pub(super) const DELAY: Duration = Duration::from_millis(1);

fn ip(host: usize) -> IpAddr {
    let [high, low] = u16::try_from(host).unwrap().to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

pub(super) fn addr(host: usize) -> SocketAddr {
    SocketAddr::new(ip(host), 7447)
}

pub(super) fn name(host: usize) -> String {
    format!("node-{host}")
}

pub(super) fn node(host: usize) -> NodeId {
    NodeId::of(&name(host))
}

pub(super) fn endpoint(host: usize) -> Endpoint {
    Endpoint::from(SocketAddr::new(ip(host), 6443))
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) struct TestNode {
    pub(super) exchange: Exchange,
    pub(super) record: Option<Record>,
    pub(super) stats: Arc<Stats>,
    pub(super) changes: Vec<Change>,
    pub(super) up: bool,
    pub(super) sent: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Datagram {
    pub(super) at: Duration,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// The network, its nodes by host number, and the time.
pub(super) struct Net {
    pub(super) began: Instant,
    pub(super) now: Instant,
    pub(super) nodes: BTreeMap<usize, TestNode>,
    pub(super) full: Keyring,
    pub(super) reader: Keyring,
    queue: BinaryHeap<Reverse<Datagram>>,
    /// Everything that was sent, where it is kept.
    pub(super) captured: Option<Vec<Datagram>>,
    pub(super) loss: f64,
    pub(super) cut: Vec<(usize, usize)>,
}

impl Net {
    pub(super) fn new() -> Net {
        let full = Keyring::random();
        let reader = Keyring::parse(full.reader_text().as_bytes()).unwrap();
        let now = Instant::now();
        Net {
            began: now,
            now,
            nodes: BTreeMap::new(),
            full,
            reader,
            queue: BinaryHeap::new(),
            captured: None,
            loss: 0.0,
            cut: Vec::new(),
        }
    }

    /// Core members 1 to `core` that know one another, and workers after them, which all have the first core member as seed.
    pub(super) fn cluster(core: usize, workers: usize) -> Net {
        let mut net = Net::new();
        for host in 1..=core {
            net.start_core(host, 1, &[]);
        }
        net.chitchat();
        for host in core + 1..=core + workers {
            net.start_worker(host, 1, &[1]);
        }
        net.run(ms(3_000));
        net
    }

    pub(super) fn start_core(&mut self, host: usize, generation: u64, seeds: &[usize]) {
        let record = Record {
            name: name(host),
            generation,
            version: 1,
            role: Role::ControlPlane,
            agent: AgentState::Running,
            apiserver: Some(ApiserverState::Ready),
            endpoints: vec![endpoint(host)],
            gossip: vec![addr(host)],
        };
        let keyring = self.full.clone();
        self.start(host, true, keyring, generation, seeds);
        let now = self.now;
        let node = self.nodes.get_mut(&host).unwrap();
        node.exchange.publish(now, record.clone()).unwrap();
        node.record = Some(record);
    }

    pub(super) fn start_worker(&mut self, host: usize, generation: u64, seeds: &[usize]) {
        let keyring = self.reader.clone();
        self.start(host, false, keyring, generation, seeds);
    }

    fn start(&mut self, host: usize, core: bool, keyring: Keyring, generation: u64, seeds: &[usize]) {
        let me = Me { node: node(host), name: name(host), core, version: "test".to_owned() };
        let stats = Arc::new(Stats::default());
        let mut exchange = Exchange::new(self.now, me, keyring, CLUSTER, Arc::clone(&stats));
        exchange.set_seeds(seeds.iter().map(|seed| addr(*seed)));
        exchange.begin(self.now, generation, addr(host));
        self.nodes.insert(host, TestNode { exchange, record: None, stats, changes: Vec::new(), up: true, sent: 0 });
    }

    /// Core members hear one another, as they would by chitchat: who is up is live, and all records are known to all of them.
    pub(super) fn chitchat(&mut self) {
        let now = self.now;
        let core: Vec<(usize, Record, bool)> =
            self.nodes.iter().filter_map(|(host, node)| Some((*host, node.record.clone()?, node.up))).collect();
        let signed: Vec<Arc<[u8]>> = self
            .nodes
            .values()
            .filter(|node| node.record.is_some())
            .flat_map(|node| node.exchange.catalog.items().map(|item| Arc::clone(&item.bytes)).collect::<Vec<_>>())
            .collect();
        for (host, _, _) in core.iter().filter(|(.., up)| *up) {
            let members = core.iter().filter(|(other, ..)| other != host).map(|(other, record, up)| {
                let member = CoreMember {
                    generation: record.generation,
                    addr: addr(*other),
                    live: *up,
                    heard: None,
                    observations: Vec::new(),
                    introduction: None,
                };
                (node(*other), member)
            });
            let exchange = &mut self.nodes.get_mut(host).unwrap().exchange;
            for item in &signed {
                exchange.offer(now, item);
            }
            exchange.set_core(now, members.collect(), false);
        }
        self.collect();
    }

    /// A core member changes its record.
    pub(super) fn change(&mut self, host: usize, change: impl FnOnce(&mut Record)) {
        let now = self.now;
        let node = self.nodes.get_mut(&host).unwrap();
        let record = node.record.as_mut().unwrap();
        record.version += 1;
        change(record);
        let record = record.clone();
        node.exchange.publish(now, record).unwrap();
    }

    pub(super) fn observe(&mut self, host: usize, observations: Vec<Observation>) {
        let now = self.now;
        self.nodes.get_mut(&host).unwrap().exchange.observe(now, observations, true);
    }

    pub(super) fn exchange(&self, host: usize) -> &Exchange {
        &self.nodes[&host].exchange
    }

    /// Whether a node holds this core member's record as it is now.
    pub(super) fn knows(&self, host: usize, other: usize) -> bool {
        self.exchange(host).catalog.record(node(other)) == self.nodes[&other].record.as_ref()
    }

    pub(super) fn sees(&self, host: usize, other: usize) -> bool {
        self.exchange(host).is_live(self.now, node(other))
    }

    pub(super) fn hosts(&self) -> Vec<usize> {
        self.nodes.keys().copied().collect()
    }

    fn host(addr: SocketAddr) -> usize {
        match addr.ip() {
            IpAddr::V4(ip) => usize::from(ip.octets()[2]) << 8 | usize::from(ip.octets()[3]),
            IpAddr::V6(_) => 0,
        }
    }

    /// Puts a datagram on the network.
    pub(super) fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.queue.push(Reverse(Datagram { at: self.now - self.began + DELAY, from, to, bytes }));
    }

    fn collect(&mut self) {
        let at = self.now - self.began;
        for (host, node) in &mut self.nodes {
            node.changes.extend(node.exchange.take_changes());
            for (to, bytes) in node.exchange.take_sends() {
                let datagram = Datagram { at: at + DELAY, from: addr(*host), to, bytes };
                node.sent += 28 + datagram.bytes.len() as u64;
                if let Some(captured) = &mut self.captured {
                    captured.push(datagram.clone());
                }
                let cut = self.cut.contains(&(*host, Net::host(to))) || self.cut.contains(&(Net::host(to), *host));
                if node.up && !cut && (self.loss == 0.0 || rand::rng().random_range(0.0..1.0) >= self.loss) {
                    self.queue.push(Reverse(datagram));
                }
            }
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// Lets time pass until this holds. How long that took, or [`None`].
    pub(super) fn run_until(&mut self, within: Duration, holds: impl Fn(&Net) -> bool) -> Option<Duration> {
        let (from, over) = (self.now, self.now + within);
        loop {
            self.collect();
            if holds(self) {
                return Some(self.now - from);
            }
            let timer = self.nodes.values().filter(|node| node.up).filter_map(|node| node.exchange.next()).min();
            let arrival = self.queue.peek().map(|Reverse(datagram)| self.began + datagram.at);
            let Some(next) = timer.into_iter().chain(arrival).min().filter(|next| *next <= over) else {
                self.now = over;
                return None;
            };
            self.now = self.now.max(next);
            while self.queue.peek().is_some_and(|Reverse(datagram)| self.began + datagram.at <= self.now) {
                let Some(Reverse(datagram)) = self.queue.pop() else { break };
                self.deliver(&datagram);
            }
            for node in self.nodes.values_mut().filter(|node| node.up) {
                node.exchange.tick(self.now);
            }
        }
    }

    fn deliver(&mut self, datagram: &Datagram) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&Net::host(datagram.to)).filter(|node| node.up) else { return };
        match node.exchange.envelopes().open(&datagram.bytes) {
            Ok(opened) => {
                node.exchange.receive(now, datagram.from, &opened, datagram.bytes.len());
            }
            Err(refused) => node.stats.count_drop(refused.reason),
        }
    }
}
