//! What was seen of the agents from outside, and what their engines answered: what the invariants are judged by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prismesh::engine::event::Verdict;
use prismesh::engine::{Endpoint, Routing};
use serde::{Deserialize, Serialize};

use super::core::RunId;
use super::state::{MachineId, Ms};
use super::tcp::ConnId;

/// Everything that was noted.
#[derive(Debug, Default)]
pub struct Log {
    /// Every connection that a client opened, by its number.
    pub clients: Vec<ClientConn>,
    /// Every connection of a proxy to an upstream that a client's bytes were sent on.
    pub upstreams: BTreeMap<ConnId, UpstreamConn>,
    /// Which connection of the balancer's belongs to which of an agent's.
    relays: BTreeMap<ConnId, ConnId>,
    /// Which apiserver an agent's connection to the balancer went to.
    pub behind: BTreeMap<ConnId, SocketAddr>,
    /// When a process of an agent received something that an upstream sent to one of its clients, [`HEARD_APART`] at least.
    pub heard: BTreeMap<(RunId, SocketAddr), Vec<Ms>>,
    /// Clients' connections by the world's number.
    by_conn: BTreeMap<ConnId, usize>,
    /// When a process of an agent first saw an incarnation of an endpoint answer a probe of its own.
    pub proofs: BTreeMap<(RunId, SocketAddr, u64), Ms>,
    /// Every probe: when sent, by which machine and process, of what, and whether it was answered.
    pub probes: Vec<ProbeSeen>,
    /// Every routing that an engine published.
    pub routes: BTreeMap<RunId, Vec<(Ms, Arc<Routing>)>>,
    /// A process's own probe interval, when it changed.
    pub intervals: BTreeMap<RunId, Vec<(Ms, Duration)>>,
    /// Every change of a verdict.
    pub verdicts: Vec<VerdictChange>,
    /// When each process of an agent began and ended.
    pub runs: BTreeMap<RunId, RunSeen>,
    /// When each node's kubelet renewed its lease.
    pub leases: BTreeMap<MachineId, Vec<Ms>>,
    /// Bytes of gossip sent, with IP and UDP headers, by machine and second.
    pub gossip: BTreeMap<MachineId, Vec<u64>>,
    /// The longest datagram that each machine sent.
    pub longest_datagrams: BTreeMap<MachineId, usize>,
    /// Every connection that a proxy dialled, in order.
    pub dials: Vec<(ConnId, Dialled)>,
    /// When something on a proxy's connection was lost, on which, and how long its sending again was put off, by machine.
    pub retries: BTreeMap<MachineId, Vec<(Ms, ConnId, Ms)>>,
    /// Since when a connection has sent something that its way swallows because of its length.
    pub swallowed: BTreeMap<ConnId, Ms>,
    /// Pairs of clients of which one goes through prismesh and the other one does not.
    pub twins: Vec<Twins>,
    /// When a machine's clients began and ceased to be held.
    pub held: BTreeMap<MachineId, Vec<(Ms, u32)>>,
}

/// A process of an agent.
#[derive(Clone, Copy, Debug)]
pub struct RunSeen {
    /// On which machine.
    pub machine: MachineId,
    /// When it began.
    pub from: Ms,
    /// When it was told to stop, or died.
    pub to: Option<Ms>,
    /// From when on it has nothing to answer for: its drain is over, or it is dead.
    pub gone: Option<Ms>,
}

/// A client's connection.
#[derive(Clone, Debug)]
pub struct ClientConn {
    /// Which node's.
    pub node: MachineId,
    /// What kind of client.
    pub kind: ClientKind,
    /// When it was opened.
    pub opened: Ms,
    /// When its whole ClientHello was sent.
    pub hello: Option<Ms>,
    /// When the first byte came back.
    pub first_byte: Option<Ms>,
    /// Over which of the agent's connections it came.
    pub upstream: Option<ConnId>,
    /// When and how it ended.
    pub ended: Option<(Ms, ClientEnd)>,
    /// The agent let go of it, and whether the client had ended it before.
    pub agent_ended: Option<(Ms, bool)>,
}

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// Opens a connection, asks once, closes.
    Fresh,
    /// Watches and a lease on one connection.
    Kubelet,
    /// One that stays open and is idle.
    Steady,
    /// One exchange that lasts: a watch, an upload, a long request, a connection that is kept.
    Exchange,
    /// Does what such a one does, directly at the endpoint that prismesh chose for that one.
    Twin,
    /// Goes to the external balancer, without prismesh.
    Bypass,
}

impl ClientKind {
    /// Its connections go through prismesh, or what is there in its place.
    pub fn is_carried(self) -> bool {
        !matches!(self, ClientKind::Twin | ClientKind::Bypass)
    }
}

/// Two clients' connections that do the same: one through prismesh, the other one directly at the endpoint that prismesh chose.
#[derive(Clone, Copy, Debug)]
pub struct Twins {
    /// The first one's number.
    pub carried: usize,
    /// The other one's.
    pub direct: usize,
    /// What they do.
    pub what: &'static str,
}

/// How a client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientEnd {
    /// The client was done.
    Done,
    /// The client was no longer willing to wait.
    GaveUp,
    /// Its certificate is nobody's whom the client knows.
    Distrusts,
    /// It was refused.
    Refused,
    /// It was reset.
    Reset,
    /// It was closed.
    Closed,
    /// The simulation, the node or its client ended.
    Over,
}

/// A dial of a proxy's.
#[derive(Clone, Copy, Debug)]
pub struct Dialled {
    /// When it was begun.
    pub at: Ms,
    /// By which process.
    pub run: RunId,
    /// Where to.
    pub to: SocketAddr,
}

/// A proxy's connection to an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamConn {
    /// The proxy's machine and process.
    pub by: (MachineId, RunId),
    /// The upstream.
    pub to: SocketAddr,
    /// When the first of a client's bytes was sent on it.
    pub bytes: Ms,
    /// The incarnation that these bytes arrived at.
    pub met: Option<u64>,
    /// When the agent let go of it, and whether the other side had ended it before.
    pub ended: Option<(Ms, bool)>,
}

/// A probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSeen {
    /// When it was sent.
    pub at: Ms,
    /// By which machine.
    pub machine: MachineId,
    /// By which process.
    pub run: RunId,
    /// Of what.
    pub endpoint: SocketAddr,
    /// When it ended.
    pub done: Ms,
    /// It was answered, ready or draining.
    pub answered: bool,
    /// Whatever is there sent at least one byte.
    pub byte: bool,
}

/// A change of a verdict.
#[derive(Clone, Copy, Debug)]
pub struct VerdictChange {
    /// When.
    pub at: Ms,
    /// At which machine.
    pub machine: MachineId,
    /// Of which endpoint.
    pub endpoint: Endpoint,
    /// To what.
    pub to: Verdict,
}

/// What an agent receives more often is not noted.
const HEARD_APART: Ms = 250;
/// IPv4 and UDP headers.
const HEADERS: u64 = 28;

impl Log {
    pub(super) fn datagram(&mut self, machine: MachineId, now: Ms, bytes: usize) {
        let longest = self.longest_datagrams.entry(machine).or_default();
        *longest = bytes.max(*longest);
        let seconds = self.gossip.entry(machine).or_default();
        let second = usize::try_from(now / 1_000).unwrap_or(usize::MAX);
        if seconds.len() <= second {
            seconds.resize(second + 1, 0);
        }
        seconds[second] += bytes as u64 + HEADERS;
    }

    pub(super) fn client(&mut self, now: Ms, node: MachineId, kind: ClientKind) -> usize {
        self.clients.push(ClientConn {
            node,
            kind,
            opened: now,
            hello: None,
            first_byte: None,
            upstream: None,
            ended: None,
            agent_ended: None,
        });
        self.clients.len() - 1
    }

    pub(super) fn client_dialled(&mut self, client: usize, conn: ConnId) {
        self.by_conn.insert(conn, client);
    }

    pub(super) fn client_bytes(&mut self, now: Ms, conn: ConnId, by: (MachineId, RunId), to: SocketAddr) {
        self.upstreams.entry(conn).or_insert(UpstreamConn { by, to, bytes: now, met: None, ended: None });
    }

    /// Bytes have arrived at an incarnation of an apiserver.
    pub(super) fn arrived(&mut self, conn: ConnId, incarnation: u64) {
        if let Some(upstream) = self.upstreams.get_mut(&conn) {
            upstream.met.get_or_insert(incarnation);
        }
    }

    /// Bytes of an upstream have arrived at an agent.
    pub(super) fn heard(&mut self, now: Ms, conn: ConnId) {
        if let Some(upstream) = self.upstreams.get(&conn) {
            let heard = self.heard.entry((upstream.by.1, upstream.to)).or_default();
            if heard.last().is_none_or(|last| last + HEARD_APART <= now) {
                heard.push(now);
            }
        }
    }

    pub(super) fn dialled(&mut self, conn: ConnId, dialled: Dialled) {
        self.dials.push((conn, dialled));
    }

    pub(super) fn relayed(&mut self, (back, to): (ConnId, SocketAddr), front: ConnId) {
        self.relays.insert(back, front);
        self.behind.insert(front, to);
    }

    /// The agent's connection behind which a balancer made this one.
    pub(super) fn front(&self, conn: ConnId) -> ConnId {
        self.relays.get(&conn).copied().unwrap_or(conn)
    }

    pub(super) fn agent_ended(&mut self, now: Ms, conn: ConnId, peer_first: bool) {
        if let Some(upstream) = self.upstreams.get_mut(&conn) {
            upstream.ended.get_or_insert((now, peer_first));
        } else if let Some(client) = self.by_conn.remove(&conn).and_then(|client| self.clients.get_mut(client)) {
            client.agent_ended.get_or_insert((now, peer_first));
        }
    }

    /// The endpoints that a process has proven itself.
    pub fn proven_by(&self, run: RunId) -> BTreeSet<SocketAddr> {
        self.proofs.keys().filter(|(by, ..)| *by == run).map(|(_, endpoint, _)| *endpoint).collect()
    }
}
