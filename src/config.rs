//! What a person wrote, once it is valid.
//!
//! Values come as text from four sources, the file, the environment, the command line and the defaults ([`Sources`]), each text with
//! its [`Origin`]. They are merged setting by setting, then parsed once into a [`Config`], whose types leave nothing for anybody
//! downstream to check. Whatever is wrong is told before any port is bound, as one line: where, what, and what would be right.
//!
//! A running agent loads the same sources again, and [`Config::reload`] says what of it can be taken up.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::world::Store;

mod access;
mod bundle;
mod error;
mod file;
mod files;
mod layer;
mod parse;
mod reload;
mod setting;
mod show;
mod snapshot;
mod valid;

pub use bundle::Bundle;
pub use error::{ConfigError, Wrong};
pub use layer::{Entry, Layer, Origin, Sources, Written};
pub use reload::{Reload, restart_needed};
pub use setting::{About, Setting};
pub use snapshot::Snapshot;
pub use valid::reaches_listener;

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
    /// The file that it was read from, if there was one.
    pub file: Option<PathBuf>,
}

/// A configuration and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// Every setting as it was written, defaults included, with its origin.
    pub effective: Layer,
    /// What a person should know although it is no error, a line each.
    pub warnings: Vec<String>,
    /// Files that the configuration names and that are missing, or cannot be read for now.
    pub missing: Vec<Missing>,
}

/// A file that is missing, or cannot be read for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The setting that names it.
    pub setting: Setting,
    /// What is wrong with it.
    pub error: ConfigError,
}

/// The name of a machine that has no name yet.
const PLACEHOLDER: &str = "localhost";

impl Config {
    /// Where kubeadm keeps the cluster's CA: used where none is given and a file is there.
    pub const DEFAULT_CA: &str = files::DEFAULT_CA;

    /// Reads, merges and checks everything that `sources` say, the files that they name included. Nothing is written or bound.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong. Nothing has changed.
    pub async fn load(sources: &Sources, store: &dyn Store) -> Result<Loaded, ConfigError> {
        let (effective, mut warnings) = sources.merge(store).await?;
        let config = valid::config(&effective, sources.file.clone())?;
        let missing = files::check(&config, &effective, store).await?;
        if config.ca.is_none() {
            warnings.push(format!(
                "no CA: what answers cannot be verified, any address that a member names may be taken for an apiserver; \
                 give --ca, or make {} readable",
                files::DEFAULT_CA
            ));
        }
        Ok(Loaded { config, effective, warnings, missing })
    }

    /// Whether this node is a core member of gossip, which signs a record of its own: it runs an apiserver, or was told to be one.
    pub fn is_core(&self) -> bool {
        self.gossip.as_ref().map_or(!self.apiservers.is_empty(), |gossip| gossip.core)
    }

    /// Whether the machine has no name yet, and no other was given: this node cannot be told from others.
    pub fn unnamed(&self) -> bool {
        parse::is_placeholder(&self.node)
    }

    /// Where the agent that these sources configure serves its status: for tools that only want to talk to it, so nothing else is
    /// checked.
    ///
    /// # Errors
    ///
    /// A source cannot be read, or the address is none.
    pub async fn admin_of(sources: &Sources, store: &dyn Store) -> Result<SocketAddr, ConfigError> {
        let (effective, _) = sources.merge(store).await?;
        valid::admin_addr(&effective)
    }
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
    /// A core member even without an apiserver.
    pub core: bool,
    /// Networks whose Reports count; empty: any.
    pub allow: Vec<IpNet>,
    /// Nodes at one address that count for the cluster's size.
    pub names_per_address: usize,
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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)?;
        match &self.server_name {
            Some(name) => write!(f, ",server-name={name}"),
            None => Ok(()),
        }
    }
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

#[cfg(test)]
mod tests;
