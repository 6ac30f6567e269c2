//! `/status`: what a node knows, for `prismesh status`, `peers` and `explain`, and for whoever likes JSON.
//!
//! Fields are only ever added; a reader should ignore those that it does not know.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::engine::event::{AgentState, ApiserverState, Role, Verdict};
use crate::engine::{Endpoint, Source};

/// A node and what it knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub node: String,
    /// Its role.
    pub role: Role,
    /// The cluster's id.
    pub cluster: String,
    /// Nodes, as far as it knows.
    pub cluster_size: u32,
    /// The agent's version.
    pub version: String,
    /// Where clients connect, with real ports.
    pub listen: Vec<SocketAddr>,
    /// Where this is served.
    pub admin: SocketAddr,
    /// Where gossip is received; [`None`] when it is off.
    pub gossip: Option<SocketAddr>,
    /// The seeds of the configuration.
    pub seeds: Vec<String>,
    /// Seconds since the agent started.
    pub started_s_ago: f64,
    /// All endpoints that it knows, in rank order.
    pub upstreams: Vec<UpstreamStatus>,
    /// The other members.
    pub peers: Vec<PeerStatus>,
    /// What a person should know: no CA, a name conflict, an endpoint that was left out.
    pub notes: Vec<String>,
}

/// An endpoint, and why it is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its address.
    pub endpoint: Endpoint,
    /// What the engine holds of it.
    pub verdict: Verdict,
    /// Why it is known.
    pub sources: Vec<Source>,
    /// The estimated round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The connections to it that all members gossip.
    pub load: Option<u32>,
    /// This node's own established connections.
    pub connections: u32,
    /// It is among those that new connections are given to first.
    pub best: bool,
    /// It may carry traffic.
    pub carries: bool,
    /// From which evidence, in words.
    pub reasons: Vec<String>,
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its short id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its agent's state.
    pub agent: AgentState,
    /// What it says of its own apiserver; [`None`] unless it is live.
    pub apiserver: Option<ApiserverState>,
    /// Where its gossip is received.
    pub address: SocketAddr,
    /// Gossip hears of it.
    pub alive: bool,
    /// The round trip to it in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Seconds since something was heard from it.
    pub last_heard_s: Option<f64>,
    /// Which start of its gossip.
    pub generation: u64,
    /// Where it says its apiserver is reached.
    pub endpoints: Vec<Endpoint>,
    /// Its agent's version, of a worker.
    pub version: Option<String>,
    /// The ids of its keys, of a worker: the one that seals first.
    pub keys: Vec<String>,
    /// Whether a worker holds the full keyring, which it does not need.
    pub full_keyring: Option<bool>,
    /// Its connections to all endpoints, as it reports them.
    pub connections: Option<u32>,
    /// Seconds since it was heard last, of one that is not live.
    pub away_s: Option<f64>,
}
