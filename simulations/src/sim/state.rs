//! The true state of the modelled world at one moment: who is up, what every apiserver does, which ways packets pass.
//!
//! It is a value. Whatever changes makes a new one, and the old ones are kept ([`History`](super::history::History)), so that a
//! judge can ask afterwards what was true throughout a span without asking any agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Milliseconds since the simulation began: the grain of its clock.
pub type Ms = u64;

/// A machine's place in [`State::machines`].
pub type MachineId = usize;

/// Everything that is true now.
#[derive(Clone, Debug)]
pub struct State {
    /// How far zones are from one another.
    pub zones: Arc<Zones>,
    /// All machines.
    pub machines: Vec<Machine>,
    /// Every address where an apiserver is, was, or something pretends to be one.
    pub sites: BTreeMap<SocketAddr, Site>,
    /// What the network does to packets beside distance.
    pub rules: Vec<Rule>,
    /// What DNS says; a name that is missing does not exist.
    pub names: BTreeMap<String, Name>,
    /// How many faults are in force.
    pub faults: usize,
    /// Who has which address; follows from `machines`.
    pub(super) by_ip: BTreeMap<IpAddr, MachineId>,
}

/// Distances, as whole milliseconds one way.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    /// One way from zone to zone, in ms; at least 1.
    pub one_way: Vec<Vec<u32>>,
    /// How much one packet's time differs from that, as a share of it.
    pub jitter: f64,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name.
    pub name: Arc<str>,
    /// Where it stands.
    pub zone: usize,
    /// Its addresses beside loopback.
    pub addrs: Vec<IpAddr>,
    /// It has power and its kernel answers.
    pub up: bool,
    /// Its agent.
    pub agent: AgentLife,
    /// How far its time of day is off, in ms.
    pub clock_off: i64,
    /// The CAs in its agent's file.
    pub trusts: BTreeSet<u32>,
    /// The networks that its prismesh configuration allows gossip and the cache to name; none: all.
    pub allows: Vec<IpNet>,
    /// What its prismesh configuration names: static, external and local endpoints, by address.
    pub configured: BTreeSet<SocketAddr>,
    /// Whom its prismesh configuration names to gossip with first.
    pub seeds: BTreeSet<SocketAddr>,
    /// What its agent advertises.
    pub advertises: BTreeSet<SocketAddr>,
    /// Its agent gossips: it tells and hears.
    pub gossips: bool,
}

/// An agent as its machine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentLife {
    /// No process.
    Off,
    /// In service.
    Running,
    /// Its process does not get on.
    Stalled,
    /// Told to stop; it drains.
    Stopping,
}

impl AgentLife {
    /// It runs: it serves, hears and is heard.
    pub fn runs(self) -> bool {
        matches!(self, AgentLife::Running | AgentLife::Stopping)
    }
}

/// An address where an apiserver is, was, or is pretended to be.
#[derive(Clone, Debug)]
pub struct Site {
    /// On which machine.
    pub machine: MachineId,
    /// What it does.
    pub mode: Mode,
    /// Grows with each process at this address.
    pub incarnation: u64,
    /// Which CA signed its certificate.
    pub ca: u32,
    /// Its certificate is outside its validity.
    pub expired: bool,
    /// A balancer stands here, not an apiserver, and these stand behind it.
    pub backends: Option<Arc<[SocketAddr]>>,
}

/// What an apiserver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Serves.
    Ready,
    /// Serves, and says 500 when asked whether it is ready.
    Draining,
    /// Its kernel accepts, nobody answers.
    Hung,
    /// Its port is closed.
    Refusing,
    /// Packets to and from it vanish.
    Dropping,
    /// Packets to and from it vanish between machines; its own machine reaches it.
    Unrouted,
    /// Takes this many milliseconds longer for each answer.
    Slow(u32),
    /// Says 429, and takes 300 ms longer for each answer.
    Overloaded,
    /// Serves, and answers `/readyz` late: after between so many and so many milliseconds, drawn each time, and sometimes with 500.
    LateReadyz(u32, u32),
    /// Its etcd does not answer: `/readyz` ends in 500 after a while, what needs etcd is answered when etcd goes on, watches stay
    /// open and are quiet.
    EtcdFrozen,
    /// Its port is closed, and what is open goes on.
    Closed,
    /// Reads nothing more of what is uploaded to it, and serves: the window of that connection closes.
    NotReading,
    /// Its accept queue is full: SYNs are dropped, and what is open goes on.
    QueueFull,
    /// It has no descriptors left: its kernel accepts, it takes nothing of that, and what is open goes on.
    NoDescriptors,
    /// Speaks TLS with a certificate of somebody else's CA.
    WrongCertificate,
    /// Speaks TLS with a certificate of the cluster's CA whose algorithm agents cannot check, and clients can.
    UnsupportedCertificate,
    /// Accepts, and answers with something that is not TLS.
    NotTls,
    /// No process, as [`Mode::Refusing`], but for good.
    Gone,
}

impl Site {
    /// Packets between it and this machine vanish, whatever the network does.
    pub fn vanishes_for(&self, machine: MachineId) -> bool {
        self.mode == Mode::Dropping || (self.mode == Mode::Unrouted && machine != self.machine)
    }

    /// Accepts connections of this machine, shows a right certificate, and answers `/readyz` in the end.
    pub fn serves(&self, machine: MachineId) -> bool {
        self.mode.serves() || (self.mode == Mode::Unrouted && machine == self.machine)
    }
}

impl Mode {
    /// How much longer than usual it takes for an answer.
    pub fn delay(self) -> u64 {
        match self {
            Mode::Slow(ms) => ms.into(),
            Mode::Overloaded => 300,
            _ => 0,
        }
    }

    /// How much longer than usual it takes for `/readyz`, at most.
    pub fn readyz_delay(self) -> u64 {
        match self {
            Mode::LateReadyz(_, most) => most.into(),
            Mode::EtcdFrozen => super::apiserver::READYZ_WITHOUT_ETCD.1,
            other => other.delay(),
        }
    }

    /// Accepts connections, shows a right certificate, and answers `/readyz` in the end.
    pub fn serves(self) -> bool {
        let late = matches!(self, Mode::LateReadyz(..) | Mode::EtcdFrozen);
        late || matches!(self, Mode::Ready | Mode::Draining | Mode::Overloaded | Mode::Slow(_) | Mode::NotReading)
    }

    /// New connections get nowhere, and those that are open go on.
    pub fn only_what_is_open(self) -> bool {
        matches!(self, Mode::Closed | Mode::QueueFull | Mode::NoDescriptors)
    }
}

/// A name's addresses, or that nobody answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Its addresses.
    Is(Vec<IpAddr>),
    /// One of these sets of addresses at a time.
    TakesTurns(Vec<Vec<IpAddr>>),
    /// The server says that it failed.
    Fails,
    /// No answer at all.
    Silent,
}

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Gossip's datagrams.
    Gossip,
    /// TCP.
    Api,
}

/// What the network does to packets from some machines to others.
#[derive(Clone, Debug)]
pub struct Rule {
    /// By which it is lifted again.
    pub id: u64,
    /// From these.
    pub from: Arc<BTreeSet<MachineId>>,
    /// To these.
    pub to: Arc<BTreeSet<MachineId>>,
    /// Only this; [`None`]: all.
    pub class: Option<Class>,
    /// What happens to them.
    pub what: Toll,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Toll {
    /// It vanishes.
    Block,
    /// The kernel refuses to begin connections, and says so to a dial.
    Forbid,
    /// It vanishes this often.
    Loss(f64),
    /// It takes this many milliseconds longer.
    Longer(u32),
    /// Its time differs by this share.
    Jitter(f64),
    /// A datagram of more bytes than this vanishes.
    Mtu(usize),
    /// A segment of TCP with more bytes than this vanishes, each time it is sent.
    Segment(usize),
    /// A datagram comes twice this often.
    Twice(f64),
    /// A datagram is overtaken by later ones this often.
    Late(f64),
}

/// One way from a machine to another, now.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Packets pass.
    pub open: bool,
    /// The kernel refuses to begin connections.
    pub forbidden: bool,
    /// How many are lost.
    pub loss: f64,
    /// Milliseconds.
    pub delay: u32,
    /// As a share of the delay.
    pub jitter: f64,
    /// Datagrams longer than this vanish.
    pub mtu: usize,
    /// Segments of TCP longer than this vanish.
    pub segment: usize,
    /// How many datagrams come twice.
    pub twice: f64,
    /// How many are late.
    pub late: f64,
}

impl Way {
    /// A client's hello does not pass.
    pub(super) fn swallows_hellos(&self) -> bool {
        self.segment < super::wire::CLIENT_HELLO_BYTES
    }
}

/// A packet that stays on its machine.
const AT_HOME: Way = Way {
    open: true,
    forbidden: false,
    loss: 0.0,
    delay: 0,
    jitter: 0.0,
    mtu: usize::MAX,
    segment: usize::MAX,
    twice: 0.0,
    late: 0.0,
};

impl State {
    /// Notes who has which address, after addresses have changed.
    pub(super) fn index(&mut self) {
        let addrs = self.machines.iter().enumerate();
        self.by_ip = addrs.flat_map(|(id, machine)| machine.addrs.iter().map(move |ip| (*ip, id))).collect();
    }

    /// The machine that has this address; loopback is the asker's own.
    pub fn machine_at(&self, ip: IpAddr, asker: MachineId) -> Option<MachineId> {
        if ip.is_loopback() {
            return Some(asker);
        }
        self.by_ip.get(&ip).copied()
    }

    /// Whether a machine's configuration names this endpoint, or allows others to.
    pub fn permits(&self, n: MachineId, e: SocketAddr) -> bool {
        let Machine { configured, allows, .. } = &self.machines[n];
        // A balancer is known from the configuration only, be it by a name.
        let balancer = || self.sites.get(&e).is_some_and(|site| site.backends.is_some());
        allows.is_empty() || configured.contains(&e) || allows.iter().any(|network| network.contains(&e.ip())) || balancer()
    }

    /// How packets go from one machine to another.
    pub fn way(&self, from: MachineId, to: MachineId, class: Class) -> Way {
        let (Some(one), Some(other)) = (self.machines.get(from), self.machines.get(to)) else {
            return Way { open: false, ..AT_HOME };
        };
        if from == to {
            return Way { open: one.up, ..AT_HOME };
        }
        let mut way = Way {
            open: one.up && other.up,
            delay: self.zones.one_way[one.zone][other.zone].max(1),
            jitter: self.zones.jitter,
            ..AT_HOME
        };
        for rule in &self.rules {
            if rule.class.is_some_and(|only| only != class) || !rule.from.contains(&from) || !rule.to.contains(&to) {
                continue;
            }
            match rule.what {
                Toll::Block => way.open = false,
                Toll::Forbid => way.forbidden = true,
                Toll::Loss(share) => way.loss = 1.0 - (1.0 - way.loss) * (1.0 - share),
                Toll::Longer(ms) => way.delay += ms,
                Toll::Jitter(share) => way.jitter = way.jitter.max(share),
                Toll::Mtu(bytes) => way.mtu = way.mtu.min(bytes),
                Toll::Segment(bytes) => way.segment = way.segment.min(bytes),
                Toll::Twice(share) => way.twice = way.twice.max(share),
                Toll::Late(share) => way.late = way.late.max(share),
            }
        }
        way
    }

    /// Packets pass both ways, and at most this share of them is lost either way.
    pub fn both_ways(&self, one: MachineId, other: MachineId, class: Class, loss: f64) -> bool {
        // Several tolls make a sum that is not exact.
        let loss = loss + 1e-9;
        [self.way(one, other, class), self.way(other, one, class)]
            .iter()
            .all(|way| way.open && !way.forbidden && way.loss <= loss && !way.swallows_hellos())
    }

    /// Gossip passes between two agents that run.
    pub fn gossips(&self, one: MachineId, other: MachineId) -> bool {
        [one, other].iter().all(|id| self.machines[*id].agent.runs() && self.machines[*id].gossips)
            && self.both_ways(one, other, Class::Gossip, 0.05)
    }

    /// The modelled round trip between two machines, without jitter, in ms.
    pub fn round_trip(&self, one: MachineId, other: MachineId) -> u32 {
        self.way(one, other, Class::Api).delay + self.way(other, one, Class::Api).delay
    }
}
