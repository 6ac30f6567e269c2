//! A network in memory, machines on it, and what a test wants to know of a node: for this module's tests only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::keys::Keyring;
use super::{Gossip, Heard, Say, Seeds, Settings, unpoisoned};
use crate::engine::Event;
use crate::engine::endpoint::{EndpointTag, NodeId};
use crate::engine::event::{AgentState, MemberRecord, OwnReport, Role};
use crate::world::testing::Nothing;
use crate::world::*;

/// Where every machine's gossip is.
pub(super) const PORT: u16 = 7447;
pub(super) const CLUSTER: &str = "test";
/// Between two looks at a node that says nothing.
const LOOK: Duration = Duration::from_millis(10);

/// A network: delivers at once, unless the way is cut.
#[derive(Clone, Default)]
pub(super) struct Lan(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    sockets: HashMap<SocketAddr, mpsc::UnboundedSender<(SocketAddr, Vec<u8>)>>,
    cut: BTreeSet<(IpAddr, IpAddr)>,
}

impl Lan {
    /// Cuts the ways between all of these and all of those.
    pub(super) fn cut(&self, these: &[IpAddr], those: &[IpAddr]) {
        let ways = these.iter().flat_map(|a| those.iter().flat_map(|b| [(*a, *b), (*b, *a)]));
        unpoisoned(&self.0).cut.extend(ways);
    }

    pub(super) fn mend(&self) {
        unpoisoned(&self.0).cut.clear();
    }

    /// Delivers as if `from` had sent it.
    pub(super) fn inject(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let wires = unpoisoned(&self.0);
        if !wires.cut.contains(&(from.ip(), to.ip()))
            && let Some(socket) = wires.sockets.get(&to)
        {
            let _ = socket.send((from, bytes.to_vec()));
        }
    }

    pub(super) fn bind(&self, addr: SocketAddr) -> LanSocket {
        let (sender, receiver) = mpsc::unbounded_channel();
        unpoisoned(&self.0).sockets.insert(addr, sender);
        LanSocket { lan: self.clone(), addr, receiver: tokio::sync::Mutex::new(receiver) }
    }
}

pub(super) struct LanSocket {
    lan: Lan,
    addr: SocketAddr,
    receiver: tokio::sync::Mutex<mpsc::UnboundedReceiver<(SocketAddr, Vec<u8>)>>,
}

impl DatagramSocket for LanSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        // As on a real machine: bound to any address.
        Ok(SocketAddr::from(([0, 0, 0, 0], self.addr.port())))
    }

    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        self.lan.inject(self.addr, to, bytes);
        Box::pin(std::future::ready(Ok(())))
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move {
            let received = self.receiver.lock().await.recv().await;
            let Some((from, bytes)) = received else { return std::future::pending().await };
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            Ok((len, from))
        })
    }
}

/// Files in memory, and a disk that can be full.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    pub(super) full: Mutex<bool>,
    pub(super) writes: AtomicU64,
}

impl Disk {
    pub(super) fn file(&self, name: &str) -> Option<Vec<u8>> {
        unpoisoned(&self.files).get(&Path::new("/state").join(name)).cloned()
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        unpoisoned(&self.files).insert(Path::new("/state").join(name), bytes);
    }
}

impl Store for Disk {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        let found = unpoisoned(&self.files).get(path).cloned().ok_or(io::ErrorKind::NotFound.into());
        let bytes = found.and_then(|bytes| if bytes.len() > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) });
        Box::pin(std::future::ready(bytes))
    }

    fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        let full = *unpoisoned(&self.full);
        if !full {
            self.writes.fetch_add(1, Ordering::Relaxed);
            unpoisoned(&self.files).insert(path.to_owned(), bytes.to_vec());
        }
        Box::pin(std::future::ready(if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }))
    }

    fn mode<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
        Box::pin(async move { Ok(0o600) })
    }
}

/// The time of day: tokio's, from a date that a test chooses.
pub(super) struct Wall {
    began: Instant,
    pub(super) date: Mutex<Duration>,
}

impl WallClock for Wall {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + *unpoisoned(&self.date) + self.began.elapsed()
    }
}

struct Routes {
    lan: Lan,
    ip: Arc<Mutex<Option<IpAddr>>>,
}

impl Datagram for Routes {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        let socket = self.lan.bind(addr);
        Box::pin(std::future::ready(Ok(Box::new(socket) as Box<dyn DatagramSocket>)))
    }

    fn source_towards(&self, _: SocketAddr) -> io::Result<IpAddr> {
        unpoisoned(&self.ip).ok_or(io::ErrorKind::NetworkUnreachable.into())
    }
}

/// A machine: its disk, clock and address outlive what runs on it.
pub(super) struct Machine {
    pub(super) lan: Lan,
    pub(super) name: String,
    pub(super) ip: Arc<Mutex<Option<IpAddr>>>,
    pub(super) disk: Arc<Disk>,
    pub(super) wall: Arc<Wall>,
    pub(super) role: Role,
}

pub(super) fn ip(host: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, host])
}

pub(super) fn at(host: u8) -> SocketAddr {
    SocketAddr::new(ip(host), PORT)
}

impl Machine {
    pub(super) fn new(lan: &Lan, host: u8, role: Role) -> Machine {
        let wall = Wall { began: Instant::now(), date: Mutex::new(Duration::from_secs(1_800_000_000)) };
        Machine {
            lan: lan.clone(),
            name: format!("node-{host}"),
            ip: Arc::new(Mutex::new(Some(ip(host)))),
            disk: Arc::default(),
            wall: Arc::new(wall),
            role,
        }
    }

    pub(super) fn ip(&self) -> IpAddr {
        unpoisoned(&self.ip).unwrap()
    }

    pub(super) fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), 6443)
    }

    pub(super) fn say(&self) -> Say {
        let endpoints = if self.role == Role::ControlPlane { vec![self.endpoint()] } else { Vec::new() };
        Say { role: self.role, agent: AgentState::Running, endpoints, report: OwnReport::default() }
    }

    pub(super) fn world(&self) -> World {
        World {
            datagram: Arc::new(Routes { lan: self.lan.clone(), ip: Arc::clone(&self.ip) }),
            net: Arc::new(Nothing),
            prober: Arc::new(Nothing),
            resolver: Arc::new(Nothing),
            store: Arc::clone(&self.disk) as Arc<dyn Store>,
            wall: Arc::clone(&self.wall) as Arc<dyn WallClock>,
            clock: Clock::start(),
        }
    }

    pub(super) fn settings(&self, keyring: &Keyring, seeds: &[SocketAddr]) -> Settings {
        Settings {
            cluster: CLUSTER.to_owned(),
            name: self.name.clone(),
            core: self.role == Role::ControlPlane,
            socket: Arc::new(self.lan.bind(SocketAddr::new(self.ip(), PORT))),
            advertise: None,
            apiservers: Vec::new(),
            keyring: keyring.clone(),
            seeds: watch::channel(Seeds { given: !seeds.is_empty(), addrs: seeds.to_vec() }).1,
            allow: Vec::new(),
            allow_reports: Vec::new(),
            names_per_address: 4,
            state_dir: PathBuf::from("/state"),
        }
    }

    pub(super) fn start(&self, keyring: &Keyring, seeds: &[SocketAddr]) -> Node {
        self.start_with(self.settings(keyring, seeds))
    }

    pub(super) fn start_with(&self, settings: Settings) -> Node {
        Node::start(&self.world(), settings, self.say())
    }
}

/// A running node, and all that it has told.
pub(super) struct Node {
    pub(super) gossip: Gossip,
    heard: mpsc::Receiver<Heard>,
    pub(super) all: Vec<Heard>,
    pub(super) records: BTreeMap<NodeId, MemberRecord>,
    pub(super) cluster_size: u32,
    pub(super) failing: BTreeSet<EndpointTag>,
    pub(super) priors: BTreeMap<EndpointTag, Duration>,
    pub(super) loads: BTreeMap<EndpointTag, u32>,
}

impl Node {
    pub(super) fn start(world: &World, settings: Settings, say: Say) -> Node {
        let (sender, heard) = mpsc::channel(16);
        let gossip = Gossip::start(world, settings, say, sender);
        Node {
            gossip,
            heard,
            all: Vec::new(),
            records: BTreeMap::new(),
            cluster_size: 0,
            failing: BTreeSet::new(),
            priors: BTreeMap::new(),
            loads: BTreeMap::new(),
        }
    }

    fn note(&mut self, heard: Heard) {
        if let Heard::Event(event) = &heard {
            match event {
                Event::Record(record) => {
                    self.records.insert(record.node, record.clone());
                }
                Event::ClusterSize(nodes) => self.cluster_size = *nodes,
                Event::Forgotten(node) | Event::Removed { node } => {
                    self.records.remove(node);
                }
                Event::PeerReports { failing } => self.failing.clone_from(failing),
                Event::Priors(priors) => self.priors.clone_from(priors),
                Event::Loads(loads) => self.loads.clone_from(loads),
                _ => {}
            }
        }
        self.all.push(heard);
    }

    /// Takes in what was told so far.
    pub(super) fn catch_up(&mut self) {
        while let Ok(heard) = self.heard.try_recv() {
            self.note(heard);
        }
    }

    /// Listens until this holds; panics if it does not within `within`. Gives the time it took.
    pub(super) async fn until(&mut self, within: Duration, what: &str, mut holds: impl FnMut(&Node) -> bool) -> Duration {
        let began = Instant::now();
        self.catch_up();
        while !holds(self) {
            let left = within.saturating_sub(began.elapsed());
            // Who is live changes without a word where one node takes another's place.
            match tokio::time::timeout(left.min(LOOK), self.heard.recv()).await {
                Ok(Some(heard)) => self.note(heard),
                Ok(None) => panic!("gossip ended before: {what}"),
                Err(_) if left > LOOK => {}
                Err(_) => panic!("not within {within:?}: {what}; {} live, records {:?}", self.cluster_size, self.records),
            }
        }
        began.elapsed()
    }

    /// Lets time pass while listening.
    pub(super) async fn idle(&mut self, span: Duration) {
        let over = Instant::now() + span;
        while let Ok(Some(heard)) = tokio::time::timeout_at(over, self.heard.recv()).await {
            self.note(heard);
        }
        self.catch_up();
    }

    pub(super) fn record(&self, name: &str) -> Option<&MemberRecord> {
        self.records.get(&NodeId::of(name))
    }

    pub(super) fn sees(&self, name: &str) -> bool {
        let (node, shared) = (NodeId::of(name), &self.gossip.shared);
        node == shared.node || unpoisoned(&shared.exchange).is_live(Instant::now(), node)
    }

    /// Whether every control plane's endpoint is known.
    pub(super) fn knows(&self, machines: &[&Machine]) -> bool {
        machines.iter().all(|machine| {
            let record = self.record(&machine.name);
            record.is_some_and(|record| record.endpoints.iter().any(|endpoint| endpoint.addr() == machine.endpoint()))
        })
    }
}
