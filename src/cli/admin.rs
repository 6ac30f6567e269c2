//! Asks a running agent for its status, over its admin port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::output::Failure;
use crate::config::{Config, Layer, Origin, Setting, Sources};
use crate::world::real;

/// An agent on this machine answers in milliseconds; one that does not within this is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// A status is at most this long, in bytes: some hundred bytes a node, for more nodes than a cluster has.
const STATUS_MOST: usize = 64 * 1024 * 1024;

/// Which agent, and how to print.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Where the agent serves its status [default: as configured, else 127.0.0.1:7446] [env: PRISMESH_ADMIN]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,

    /// The agent's configuration, to find its admin port [env: PRISMESH_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// An agent's status, as far as people are shown it; what else it has is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AgentStatus {
    pub(super) node: String,
    pub(super) role: String,
    pub(super) cluster: String,
    pub(super) cluster_size: u64,
    pub(super) version: String,
    pub(super) listen: Vec<String>,
    pub(super) admin: Option<String>,
    pub(super) gossip: Option<String>,
    pub(super) seeds: Vec<String>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) peers: Vec<Peer>,
    pub(super) notes: Vec<String>,
}

/// An endpoint, in rank order.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Upstream {
    pub(super) endpoint: String,
    pub(super) verdict: String,
    pub(super) sources: Vec<String>,
    pub(super) rtt_ms: Option<f64>,
    pub(super) load: Option<u64>,
    pub(super) connections: u64,
    pub(super) best: bool,
    pub(super) reasons: Vec<String>,
}

/// Another member.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Peer {
    pub(super) node: String,
    pub(super) name: String,
    pub(super) role: String,
    pub(super) agent: Option<String>,
    pub(super) apiserver: Option<String>,
    pub(super) address: Option<String>,
    pub(super) alive: bool,
    pub(super) rtt_ms: Option<f64>,
    pub(super) last_heard_s: Option<f64>,
}

impl AgentStatus {
    /// What to say in place of endpoints where none is known.
    pub(super) fn no_endpoint(&self) -> &'static str {
        if self.seeds.is_empty() {
            "No endpoint is known: give --seed, --external or --endpoint.\n"
        } else {
            "No endpoint is known yet: no control plane was heard.\n"
        }
    }
}

/// What was answered: as it came, and as we read it.
pub(super) struct Answer {
    pub(super) json: serde_json::Value,
    pub(super) status: AgentStatus,
}

impl Asked {
    /// Asks.
    pub(super) fn ask(&self) -> Result<Answer, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        runtime.block_on(async {
            let admin = local(Config::admin_of(&self.sources(), &real::Files).await?);
            let body = match tokio::time::timeout(PATIENCE, get(admin, "/status")).await {
                Ok(body) => body.with_context(|| format!("cannot ask the agent at {admin}")),
                Err(_) => Err(anyhow::anyhow!("the agent at {admin} did not answer within {} s", PATIENCE.as_secs())),
            };
            Ok(read(&body?).with_context(|| format!("what answers at {admin} is not a prismesh agent that we understand"))?)
        })
    }

    fn sources(&self) -> Sources {
        let mut flags = Layer::default();
        if let Some(admin) = &self.admin {
            flags.put(Setting::Admin, &Origin::Flag(Setting::Admin), [admin.as_str()]);
        }
        Sources::of_process(self.config.clone(), flags)
    }
}

pub(super) fn read(body: &[u8]) -> anyhow::Result<Answer> {
    let json: serde_json::Value = serde_json::from_slice(body)?;
    let status = AgentStatus::deserialize(&json)?;
    Ok(Answer { json, status })
}

/// Where a listener on any address is reached from this machine.
fn local(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(admin).await.context("is it running, and is this its admin port (--admin)?")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path).header("host", admin.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        bail!("it answered {}", answer.status());
    }
    let body = Limited::new(answer.into_body(), STATUS_MOST).collect().await;
    driver.abort();
    Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
}
