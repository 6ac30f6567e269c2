//! Asks a running agent for its status, over its admin port, and brings it a signed removal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::output::{Failure, harmless};
use crate::config::{Config, Layer, Origin, Setting, Sources};
use crate::world::real;

/// An agent on this machine answers in milliseconds; one that does not within this is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// A status is at most this long, in bytes: some hundred bytes a node, for more nodes than a cluster has.
const STATUS_MOST: usize = 64 * 1024 * 1024;

/// Which agent.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Where the agent serves its status [default: as configured, else 127.0.0.1:7446] [env: PRISMESH_ADMIN]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,

    /// The agent's configuration, to find its admin port [env: PRISMESH_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Which agent, and how to print.
#[derive(Debug, Args)]
pub(super) struct Asked {
    #[command(flatten)]
    which: Which,

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
    pub(super) generation: Option<u64>,
    pub(super) version: Option<String>,
    pub(super) keys: Vec<String>,
    pub(super) full_keyring: Option<bool>,
    pub(super) endpoints: Vec<String>,
    pub(super) connections: Option<u64>,
    pub(super) away_s: Option<f64>,
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
        runtime()?.block_on(self.which.ask())
    }
}

impl Which {
    /// Asks for the status.
    pub(super) async fn ask(&self) -> Result<Answer, Failure> {
        let admin = self.admin().await?;
        let request = Request::get("/status").body(Full::default()).context("cannot ask")?;
        let (code, body) = send(admin, request).await?;
        if code != StatusCode::OK {
            return Err(anyhow::anyhow!("cannot ask the agent at {admin}: it answered {code}").into());
        }
        Ok(read(&body).with_context(|| format!("what answers at {admin} is not a prismesh agent that we understand"))?)
    }

    /// Brings the agent a signed removal.
    pub(super) async fn forget(&self, removal: &[u8]) -> Result<(), Failure> {
        let admin = self.admin().await?;
        let request = Request::post("/forget").header(CONTENT_TYPE, "application/octet-stream");
        let request = request.body(Full::from(removal.to_vec())).context("cannot ask")?;
        let (code, body) = send(admin, request).await?;
        if code != StatusCode::OK {
            let said = String::from_utf8_lossy(&body);
            return Err(
                anyhow::anyhow!("the agent at {admin} did not take the removal ({code}): {}", harmless(said.trim())).into()
            );
        }
        Ok(())
    }

    async fn admin(&self) -> Result<SocketAddr, Failure> {
        Ok(local(Config::admin_of(&self.sources(), &real::Files).await?))
    }

    /// All that the agent's configuration is made from.
    pub(super) fn sources(&self) -> Sources {
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

/// A runtime for one question.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// What an agent answers, within a bounded time.
async fn send(admin: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
    match tokio::time::timeout(PATIENCE, exchange(admin, request)).await {
        Ok(answer) => answer.with_context(|| format!("cannot ask the agent at {admin}")),
        Err(_) => Err(anyhow::anyhow!("the agent at {admin} did not answer within {} s", PATIENCE.as_secs())),
    }
}

async fn exchange(admin: SocketAddr, mut request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(admin).await.context("is it running, and is this its admin port (--admin)?")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    request.headers_mut().insert(HOST, admin.to_string().parse()?);
    let answer = sender.send_request(request).await?;
    let code = answer.status();
    let body = Limited::new(answer.into_body(), STATUS_MOST).collect().await;
    driver.abort();
    Ok((code, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
}
