//! What a person wrote, once it is valid.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// A configuration that is valid by its types. Nothing downstream checks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster's id, 1 to 64 bytes, bound into every datagram.
    pub cluster: String,
    /// This node's name, 1 to 253 bytes of printable ASCII.
    pub node: String,
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// Where health, metrics and status are served.
    pub admin: Listen,
    /// Gossip; [`None`] when it is off.
    pub gossip: Option<GossipConfig>,
    /// Where others reach this node's apiserver; not empty on control-plane nodes.
    pub apiservers: Vec<SocketAddr>,
    /// Where this node reaches its own apiserver; [`None`] on workers.
    pub local_apiserver: Option<SocketAddr>,
    /// External balancers.
    pub external: Vec<Target>,
    /// Static endpoints.
    pub endpoints: Vec<Target>,
    /// The cluster's CA, PEM. [`None`]: nothing can be verified.
    pub ca: Option<PathBuf>,
    /// The name that apiserver certificates cover.
    pub server_name: String,
    /// How a probe authenticates itself.
    pub probe_credentials: Option<ProbeCredentials>,
    /// Endpoints learnt by gossip must be in one of these; empty: any address that a record may name.
    pub allow: Vec<IpNet>,
    /// Connections at most; [`None`]: from the limit of descriptors.
    pub max_connections: Option<usize>,
    /// Where generation and peer cache are kept.
    pub state_dir: PathBuf,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged: a `tracing` filter.
    pub log: String,
}

/// A listen address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address; port 0 takes a free one.
    pub addr: SocketAddr,
    /// A person wrote it: then it must work. A default one is skipped when the machine lacks its family.
    pub written: bool,
}

/// Gossip's part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipConfig {
    /// Where datagrams are received.
    pub listen: Listen,
    /// Where others send theirs; [`None`]: found out.
    pub advertise: Option<SocketAddr>,
    /// Members to begin with.
    pub seeds: Vec<HostPort>,
    /// The keys.
    pub keyring: PathBuf,
}

/// A host, by name or address, and a port other than 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Name or address.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// A host by address or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address.
    Ip(std::net::IpAddr),
    /// A DNS name.
    Name(String),
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// An endpoint that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub at: HostPort,
    /// The name its certificate must cover, where it is not [`Config::server_name`].
    pub server_name: Option<String>,
}

/// How a probe authenticates itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeCredentials {
    /// A client certificate and its key, PEM.
    Certificate {
        /// The certificate chain.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// A file with a bearer token, read again for each connection.
    Token(PathBuf),
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}
