//! Names, through /etc/hosts and the name servers of /etc/resolv.conf.
//!
//! Not through the C library: its lookups block a thread for as long as a dead name server likes, tell no TTL, and read
//! resolv.conf once. The price is that nsswitch.conf is not honoured: no mDNS, no LDAP, only hosts and DNS.
//!
//! Both files are looked at again when a name is asked for, at most every [`LOOK_AGAIN`]: a node's DHCP client may rewrite
//! them at any time, and a balancer moved by editing /etc/hosts should move.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Files;
use crate::world::{BoxFuture, Lookup, ResolveError, Resolver, Store as _};

/// Between two looks at the files.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Some balancers answer with a TTL of 0; asking more often than this would be a load.
const TTL_LEAST: Duration = Duration::from_secs(5);
/// A name that moves is noticed at least this soon, whatever its TTL.
const TTL_MOST: Duration = Duration::from_secs(3600);
/// What stands in a file may change at any time, and to ask again costs nothing.
const TTL_OF_FILES: Duration = Duration::from_secs(10);
/// /etc/hosts may be a block list of some megabytes.
const HOSTS_BYTES: usize = 16 << 20;
/// resolv.conf has a few lines.
const RESOLV_BYTES: usize = 64 << 10;

/// The machine's names.
pub struct SystemResolver {
    hosts: PathBuf,
    resolv: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    stamps: [Option<Stamp>; 2],
    hosts: Arc<Hosts>,
    dns: Option<Result<Arc<TokioResolver>, String>>,
}

/// Changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Default for SystemResolver {
    fn default() -> SystemResolver {
        SystemResolver::reading("/etc/hosts".into(), "/etc/resolv.conf".into())
    }
}

impl SystemResolver {
    /// A resolver that reads these files instead of the machine's own.
    pub fn reading(hosts: PathBuf, resolv: PathBuf) -> SystemResolver {
        SystemResolver { hosts, resolv, state: Mutex::default() }
    }

    async fn find(&self, name: &str) -> Result<Lookup, String> {
        if let Ok(address) = name.parse() {
            return Ok(Lookup { addrs: vec![address], ttl: TTL_MOST });
        }
        let parsed = Name::from_utf8(name).map_err(|error| format!("not a name: {error}"))?;
        let (hosts, dns) = self.now().await;
        let addrs = in_hosts(&hosts, &parsed);
        if !addrs.is_empty() {
            return Ok(Lookup { addrs, ttl: TTL_OF_FILES });
        }
        if is_localhost(name) {
            let addrs = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Ok(Lookup { addrs, ttl: TTL_MOST });
        }
        ask(&*dns?, name).await
    }

    /// The files as they are now, or were a moment ago.
    async fn now(&self) -> (Arc<Hosts>, Result<Arc<TokioResolver>, String>) {
        let mut state = self.state.lock().await;
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            self.look(&mut state).await;
            state.looked = Some(Instant::now());
        }
        let dns = state.dns.clone().unwrap_or_else(|| Err("not read yet".to_owned()));
        (state.hosts.clone(), dns)
    }

    async fn look(&self, state: &mut State) {
        let stamps = [stamp(&self.hosts).await, stamp(&self.resolv).await];
        let [hosts_changed, resolv_changed] = [0, 1].map(|file: usize| stamps.get(file) != state.stamps.get(file));
        if hosts_changed || state.looked.is_none() {
            state.hosts = Arc::new(read_hosts(&self.hosts).await);
        }
        if resolv_changed || state.looked.is_none() {
            state.dns = Some(read_resolv(&self.resolv).await.map(Arc::new));
        }
        state.stamps = stamps;
    }
}

impl Resolver for SystemResolver {
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Lookup, ResolveError>> {
        Box::pin(async move { self.find(name).await.map_err(|reason| ResolveError { name: name.to_owned(), reason }) })
    }
}

async fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = Files::metadata(path).await.ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

async fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    let read = Files.read(path, HOSTS_BYTES).await.and_then(|bytes| hosts.read_hosts_conf(bytes.as_slice()));
    if let Err(error) = read
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot read all of the hosts file");
    }
    hosts
}

async fn read_resolv(path: &Path) -> Result<TokioResolver, String> {
    let told = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let bytes = Files.read(path, RESOLV_BYTES).await.map_err(|error| told(&error))?;
    let (config, options) = hickory_resolver::system_conf::parse_resolv_conf(bytes).map_err(|error| told(&error))?;
    build(config, options).map_err(|error| told(&error))
}

fn build(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    // One family alone may be broken; whatever answers is used.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    // Whoever asks does so at the TTL: a second cache below would only make answers staler.
    options.cache_size = 0;
    options.try_tcp_on_error = true;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

fn in_hosts(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    let name = name.to_lowercase();
    [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)))
        .flat_map(|found| found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect()
}

/// RFC 6761: these never leave the machine.
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

async fn ask(dns: &TokioResolver, name: &str) -> Result<Lookup, String> {
    let found = dns.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let addrs: Vec<IpAddr> = found.iter().collect();
    if addrs.is_empty() {
        return Err("the name has no address".to_owned());
    }
    let ttl = found.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or_default();
    Ok(Lookup { addrs, ttl: Duration::from_secs(u64::from(ttl)).clamp(TTL_LEAST, TTL_MOST) })
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
