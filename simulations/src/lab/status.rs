//! What an agent says of itself on its admin port.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{ask, get};

/// An agent's answer on loopback takes no longer.
const WITHIN: Duration = Duration::from_secs(2);
/// Nor is it larger.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The role of nodes with an apiserver.
const CONTROL_PLANE: &str = "control-plane";

/// `/status`, as much of it as the lab reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Its role.
    pub role: String,
    /// The cluster's size as the node knows it.
    pub cluster_size: u64,
    /// In rank order.
    pub upstreams: Vec<Upstream>,
    /// The other members.
    pub peers: Vec<Peer>,
}

/// An upstream in `/status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Upstream {
    /// Its address.
    pub endpoint: String,
    /// What the engine holds of it.
    pub verdict: String,
    /// Why it is known.
    pub sources: Vec<String>,
    /// The estimated round trip.
    pub rtt_ms: Option<f64>,
    /// This node's connections to it.
    pub connections: u64,
}

/// Another member in `/status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Its agent's state.
    pub agent: String,
    /// What it says of its own apiserver.
    pub apiserver: Option<String>,
    /// Gossip hears of it.
    pub alive: bool,
}

impl Status {
    /// Asks an agent.
    pub async fn of(admin: SocketAddr) -> Result<Status> {
        let text = page(admin, "/status").await?;
        serde_json::from_str(&text).with_context(|| format!("/status is not what was expected: {text}"))
    }

    /// Control planes whose record the agent has, itself included.
    pub fn core_members(&self) -> usize {
        self.core(|_| true)
    }

    /// Control planes that the agent holds to be live, itself included.
    pub fn live_core_members(&self) -> usize {
        self.core(|peer| peer.alive)
    }

    fn core(&self, counts: impl Fn(&Peer) -> bool) -> usize {
        let others = self.peers.iter().filter(|peer| peer.role == CONTROL_PLANE && counts(peer)).count();
        others + usize::from(self.role == CONTROL_PLANE)
    }

    /// Whether a member is not live, or something else holds of it. The agent says how things are, so one that does not answer
    /// is no proof.
    pub fn gone_or(&self, name: &str, holds: impl Fn(&Peer) -> bool) -> bool {
        self.peers.iter().filter(|peer| peer.name == name).all(|peer| !peer.alive || holds(peer))
    }

    /// What the agent holds of an endpoint.
    pub fn verdict(&self, endpoint: SocketAddr) -> Option<&str> {
        let endpoint = endpoint.to_string();
        self.upstreams.iter().find(|upstream| upstream.endpoint == endpoint).map(|upstream| upstream.verdict.as_str())
    }
}

/// A page of an agent's admin port; an error unless it answers 2xx.
pub async fn page(admin: SocketAddr, path: &str) -> Result<String> {
    let asked = async {
        let stream = TcpStream::connect(admin).await?;
        let mut request = get(path)?;
        request.headers_mut().insert("host", admin.to_string().parse()?);
        ask(stream, request, |body| async {
            let bytes = Limited::new(body, MOST_BYTES).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        })
        .await
    };
    timeout(WITHIN, asked).await.with_context(|| format!("{admin}{path} did not answer"))?
}
