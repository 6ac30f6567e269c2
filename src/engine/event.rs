//! What the engine is told, and what it asks for. Both are plain data that can be written to a log and replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, EndpointTag, NodeId, Source};
pub use super::order::{ProbeLimits, ProbeOrder};
use super::selection::Routing;
use super::time::Moment;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Nothing but time has passed: the deadline the engine asked for has come.
    Wake,
    /// The addresses at which this agent's own proxy listens; of a wildcard listener those that are of interest. Replaces what an
    /// earlier one said, and comes before any event that names one of them as an endpoint.
    OwnListeners(BTreeSet<Endpoint>),
    /// This node's name, where it was not known when the engine was made. Told before gossip begins.
    Named(String),
    /// All endpoints that the configuration names now, names already resolved. Replaces what an earlier one said.
    Configured(Vec<Configured>),
    /// What the peer cache on disk held at start. Told first: the engine asks for the cache to be written as soon as it has
    /// something to keep.
    Cached {
        /// Endpoints that had proven themselves to an earlier run.
        endpoints: Vec<CachedEndpoint>,
        /// The cluster size that run had seen last; 0 if unknown.
        cluster_size: u32,
    },
    /// The number of nodes that gossip counts as live, this one included. 1 means that this node hears no other.
    ClusterSize(u32),
    /// A member's record, new or changed. This node's own record is not told.
    Record(MemberRecord),
    /// No record of this member exists any more: its grace has ended.
    Forgotten(NodeId),
    /// An administrator has removed this node from the cluster. New connections no longer go to the endpoints that only it named;
    /// established ones stay. The last verified endpoint stays in use.
    Removed {
        /// The node.
        node: NodeId,
    },
    /// What other nodes report of endpoints' health. Replaces the earlier report.
    PeerReports {
        /// Endpoints that at least [`MIN_REPORTING_NODES`](super::policy::MIN_REPORTING_NODES) other live nodes report as suspect
        /// or down.
        failing: BTreeSet<EndpointTag>,
    },
    /// The median round trip that other nodes report, for endpoints that this node has not measured itself. Replaces the earlier
    /// medians. An endpoint that this node has measured may be in it too: own samples outweigh it.
    Priors(BTreeMap<EndpointTag, Duration>),
    /// All connections that members (this node included) say they hold, by endpoint. Replaces the earlier sums.
    /// Not told where gossip is off.
    Loads(BTreeMap<EndpointTag, u32>),
    /// This node's own established connections to an endpoint, when the number changed.
    Connections {
        /// The endpoint.
        endpoint: Endpoint,
        /// How many there are now.
        open: u32,
    },
    /// A probe has ended.
    Probed(Probed),
    /// The proxy has seen something of an upstream.
    Traffic {
        /// The upstream.
        endpoint: Endpoint,
        /// What was seen.
        saw: Saw,
    },
    /// How many clients are held now.
    Held(u32),
    /// What probes believe has changed. Told of every endpoint that has shown a certificate: what that is worth now.
    TrustChanged(BTreeMap<Endpoint, Reverified>),
    /// Endpoints that gossip or the cache names must be in one of these networks; empty: in any. Told first, and when it changes.
    Allowed(Vec<IpNet>),
}

/// An endpoint from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// Its address.
    pub endpoint: Endpoint,
    /// [`Source::Local`], [`Source::Static`] or [`Source::External`].
    pub source: Source,
    /// It was written as a name, so that a balancer may stand behind it.
    pub by_name: bool,
    /// The name its certificate must cover, where it is not the cluster's ordinary one.
    pub server_name: Option<String>,
}

/// An endpoint from the peer cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedEndpoint {
    /// Its address.
    pub endpoint: Endpoint,
    /// The node it belonged to, if a member's record named it.
    pub node: Option<NodeId>,
    /// How long before the agent's start it was last proven.
    pub age: Duration,
}

/// What a member says of itself, as far as the engine needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Who.
    pub node: NodeId,
    /// The node's name.
    pub name: String,
    /// Which start of that member's gossip; a higher one replaces a lower one whatever their versions.
    pub generation: u64,
    /// Grows with each change within a generation.
    pub version: u64,
    /// Whether it runs an apiserver.
    pub role: Role,
    /// Its agent's state.
    pub agent: AgentState,
    /// What it says of its own apiserver; [`None`] for a worker, and before its first probe.
    pub apiserver: Option<ApiserverState>,
    /// Where others reach its apiserver. Already filtered by what a record may name.
    pub endpoints: Vec<Endpoint>,
}

/// A node's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It runs a kube-apiserver.
    ControlPlane,
    /// It does not.
    Worker,
}

impl Role {
    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::ControlPlane => "control-plane",
            Role::Worker => "worker",
        }
    }
}

/// An agent's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentState {
    /// In service.
    Running,
    /// About to stop. Says nothing about the node's apiserver.
    Leaving,
}

/// What a control-plane node says of its own apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApiserverState {
    /// It serves.
    Ready,
    /// It is about to stop, or asks for less.
    Draining,
    /// It does not answer.
    Down,
}

/// What a member saw of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Which endpoint.
    pub endpoint: EndpointTag,
    /// The round trip it estimates from its own samples; [`None`] before there are any.
    pub rtt: Option<Duration>,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its own established connections there.
    pub connections: u32,
}

/// What the engine holds of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Answers that it is ready.
    Ready,
    /// Answers, and asks for less.
    Draining,
    /// Has not shown anything yet.
    Unproven,
    /// Something speaks against it.
    Suspect,
    /// Own probes failed, twice.
    Down,
}

impl Verdict {
    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ready => "ready",
            Verdict::Draining => "draining",
            Verdict::Unproven => "unproven",
            Verdict::Suspect => "suspect",
            Verdict::Down => "down",
        }
    }
}

/// A probe's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The number of the [`ProbeOrder`].
    pub id: u64,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// When it was sent.
    pub sent: Moment,
    /// Whether it went over a connection made for it.
    pub fresh: bool,
    /// One network round trip, as well as this probe could tell: a fresh connection's TCP handshake, or request to answer on a kept one.
    pub rtt: Option<Duration>,
    /// From the ClientHello to the end of the TLS handshake; [`None`] on a kept connection, and where it was not completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Duration>,
    /// Bytes of the ClientHello that was sent; 0 on a kept connection.
    #[serde(default)]
    pub hello_bytes: u32,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// An HTTP answer to `GET /readyz` over TLS that passed verification.
    Status {
        /// The HTTP status.
        code: u16,
        /// The chain was right but outside its validity.
        expired: bool,
    },
    /// An HTTP answer over TLS from a server whose certificate this node could not verify, and did not find wrong either.
    Unverified {
        /// The HTTP status.
        code: u16,
        /// What is missing.
        lack: Lack,
    },
    /// TLS was right, what came through it was not HTTP.
    NotHttp,
    /// Connection refused or reset by the other side, or closed before an answer.
    Refused,
    /// The dial was not answered in time: the address is silent, or its accept queue is full.
    DialTimedOut,
    /// Connected, and the TLS handshake was not completed in time.
    HandshakeTimedOut {
        /// The peer's kernel acknowledged the whole hello and nothing came back: the process behind it does not get on.
        /// Otherwise the path loses the hello or the answer.
        hung: bool,
    },
    /// `/readyz` was not answered in time. On a fresh connection the TLS handshake was completed and verified before.
    AnswerTimedOut,
    /// What answered does not speak TLS.
    NotTls,
    /// Not signed by the cluster's CA; the text says what was wrong.
    Untrusted(String),
    /// Signed by the CA, but the name asked for is not covered.
    WrongName(String),
    /// A kept connection ended before its answer: no evidence.
    Stale,
    /// The kernel found no way there, or a rule forbids it; the text names the errno. Evidence against the path only while others
    /// connect.
    Unreachable(String),
    /// This node could not even try (descriptors, ports, memory): no evidence against the endpoint.
    LocalError(String),
}

/// For want of what a certificate could not be verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lack {
    /// This build cannot check signatures of this algorithm.
    Algorithm(String),
    /// There is a CA, or was one, and it cannot be read; the text says why.
    Ca(String),
}

impl Lack {
    /// In words.
    pub fn explain(&self) -> String {
        match self {
            Lack::Algorithm(name) => format!("its certificate cannot be verified: this build cannot check {name}"),
            Lack::Ca(why) => format!("its certificate cannot be verified: {why}"),
        }
    }
}

/// What an endpoint's last certificate is worth to a CA that has just come into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reverified {
    /// It is signed by it, as it should be.
    Verified,
    /// It is not: the endpoint is no apiserver of this cluster, as far as can be told.
    Rejected(String),
    /// That could not be told.
    Unverified,
}

/// What the proxy saw of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Saw {
    /// A dial connected, this long after it was begun.
    Connected(Duration),
    /// The first byte came: a TLS handshake record.
    Answered {
        /// Bytes of the ClientHello that it answers.
        hello_bytes: u32,
    },
    /// A dial was refused or reset.
    Refused,
    /// A dial had not connected when one begun later did: perhaps a single packet was lost.
    Overtaken {
        /// When that was due to be judged.
        deadline: Moment,
    },
    /// A dial had not connected within its stay in the race, in which the kernel repeats a lost packet.
    DialTimedOut {
        /// When its stay ended.
        deadline: Moment,
    },
    /// Connected, hello forwarded whole, and no byte within the first-byte delay.
    NoFirstByte {
        /// When the delay ended.
        deadline: Moment,
        /// Bytes of the ClientHello.
        hello_bytes: u32,
    },
    /// Reset or closed before its first byte.
    ClosedEarly {
        /// Bytes of the ClientHello.
        hello_bytes: u32,
    },
    /// An established connection's own peer left data or keepalives unacknowledged; the connection was reset.
    PeerSilent,
    /// On an established connection a client went on asking for [`policy::UNANSWERED`](super::policy::UNANSWERED), and nothing came back.
    Unanswered,
    /// A whole hello was answered with something that is not TLS.
    NotTls,
    /// The kernel found no way there, or a rule forbids it; the text names the errno.
    Unreachable(String),
    /// This node could not dial (descriptors, ports, memory); the text names the errno.
    LocalError(String),
}

/// What the engine asks its driver to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Probe an endpoint.
    Probe(ProbeOrder),
    /// Publish this routing to the proxy; it replaces the one before.
    Route(Routing),
    /// Reset established connections to an endpoint.
    Reset {
        /// The endpoint.
        endpoint: Endpoint,
        /// Why.
        reason: ResetReason,
        /// Only those that have received no byte since then; [`None`]: all of them.
        silent_since: Option<Moment>,
        /// Spread them over this time.
        over: Duration,
    },
    /// Something answers: let held clients dial again.
    Release,
    /// Gossip this about the node.
    Publish {
        /// What to say.
        say: OwnReport,
        /// The state of this node's own apiserver changed: tell every live member at once.
        urgent: bool,
    },
    /// Keep these on disk for the next start.
    Remember {
        /// The proven endpoints.
        endpoints: Vec<Remembered>,
        /// The cluster's size.
        cluster_size: u32,
    },
    /// A person may want to know.
    Notice(Notice),
}

/// Why the proxy resets an established connection. There are no other reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// This connection's own peer left data or keepalives unacknowledged.
    PeerSilent,
    /// The process behind it hangs: it accepts connections and TLS does not answer, while another apiserver answers.
    Hung,
    /// The configuration no longer trusts what stands there.
    TrustWithdrawn,
}

impl ResetReason {
    /// All of them.
    pub const ALL: [ResetReason; 3] = [ResetReason::PeerSilent, ResetReason::Hung, ResetReason::TrustWithdrawn];

    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            ResetReason::PeerSilent => "peer_silent",
            ResetReason::Hung => "hung",
            ResetReason::TrustWithdrawn => "trust_withdrawn",
        }
    }
}

/// What this node says of itself and of what it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnReport {
    /// The state of its own apiserver, for control-plane nodes.
    pub apiserver: Option<ApiserverState>,
    /// What it saw of the endpoints it knows, nearest first.
    pub observations: Vec<Observation>,
}

/// A proven endpoint for the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its address.
    pub endpoint: Endpoint,
    /// The node that names it.
    pub node: Option<NodeId>,
    /// How long ago it was last proven, at the time of the effect.
    pub age: Duration,
}

/// A change worth a line in the log, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// An endpoint became known.
    Learnt {
        /// The endpoint.
        endpoint: Endpoint,
        /// From where.
        source: Source,
    },
    /// An endpoint is no longer known.
    Left {
        /// The endpoint.
        endpoint: Endpoint,
        /// Why.
        reason: String,
    },
    /// A verdict changed.
    Verdict {
        /// The endpoint.
        endpoint: Endpoint,
        /// Before.
        from: Verdict,
        /// Now.
        to: Verdict,
        /// From which evidence.
        reason: String,
    },
    /// The best upstreams changed.
    Best {
        /// The best now, all equally good; empty when nothing may carry.
        endpoints: Vec<Endpoint>,
        /// Why they are the best.
        reason: String,
    },
    /// A certificate is outside its validity.
    Expired(Endpoint),
    /// An endpoint was refused: it is this agent's own listener.
    OwnListener {
        /// The endpoint.
        endpoint: Endpoint,
        /// From where it became known.
        source: Source,
    },
    /// A certificate cannot be verified, because this build cannot check its algorithm.
    UnsupportedAlgorithm {
        /// The endpoint.
        endpoint: Endpoint,
        /// The algorithm's name.
        algorithm: String,
        /// It carries all the same, because the configuration names it.
        carries: bool,
    },
}
