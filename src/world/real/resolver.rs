//! Names, through /etc/hosts and the name servers of /etc/resolv.conf.
//!
//! Not through the C library: its lookups block a thread for as long as a dead name server likes, tell no TTL, and wait for both
//! address families. The price is that nsswitch.conf is not honoured: no mDNS, no LDAP, only hosts and DNS. What glibc resolves
//! with these two files is resolved here, to the same addresses, and sooner where something fails:
//!
//! - Both families are asked for at once, and each is told as soon as its answer is known ([`search`]).
//! - The next name server is asked when the one before fails, or has said nothing for a second ([`servers`]).
//! - Messages are read and written by hickory-proto; sending them is done here ([`exchange`]), because a name server's address may
//!   have a scope (`fe80::1%eth0`), and because a port that is closed should be heard of at once.
//!
//! Both files are looked at again when a name is asked for: a node's DHCP client may rewrite them at any time, and a balancer moved
//! by editing /etc/hosts should move. A file that cannot be read in time costs only what stands in it ([`files`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::world::{BoxFuture, Family, Found, Lookup, ResolveError, Resolver};

mod conf;
mod exchange;
mod files;
mod search;
mod servers;
#[cfg(test)]
mod tests;

use files::{Hosts, ResolvConf};

/// Where name servers answer.
const DNS_PORT: u16 = 53;
/// Some balancers answer with a TTL of 0; asking more often than this would be a load.
const TTL_LEAST: Duration = Duration::from_secs(5);
/// A name that moves is noticed at least this soon, whatever its TTL: others ask each time they dial.
const TTL_MOST: Duration = Duration::from_secs(300);
/// What stands in a file may change at any time, and to ask again costs nothing.
const TTL_OF_FILES: Duration = Duration::from_secs(10);

/// The machine's names.
pub struct SystemResolver {
    hosts: Hosts,
    resolv_conf: ResolvConf,
}

impl Default for SystemResolver {
    fn default() -> SystemResolver {
        SystemResolver::reading("/etc/hosts".into(), "/etc/resolv.conf".into())
    }
}

impl SystemResolver {
    /// A resolver that reads these files instead of the machine's own.
    pub fn reading(hosts: PathBuf, resolv_conf: PathBuf) -> SystemResolver {
        SystemResolver { hosts: Hosts::new(hosts), resolv_conf: ResolvConf::new(resolv_conf, DNS_PORT) }
    }

    async fn find(&self, name: &str, found: Found<'_>) -> Result<(), String> {
        let told = |addrs: &[IpAddr], ttl, complete| {
            for family in Family::ALL {
                let addrs = addrs.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
                found(family, Ok(Lookup { addrs, ttl, complete }));
            }
            Ok(())
        };
        let in_hosts = self.hosts.lookup(name).await;
        if !in_hosts.is_empty() {
            return told(&in_hosts, TTL_OF_FILES, true);
        }
        if is_localhost(name) {
            return told(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], TTL_MOST, true);
        }
        let conf = self.resolv_conf.now().await;
        let candidates = conf.candidates(name)?;
        let tell = |family, answer: Result<Lookup, String>| {
            found(family, answer.map_err(|reason| ResolveError { name: name.to_owned(), reason }));
        };
        search::search(conf, candidates, &tell).await
    }
}

impl Resolver for SystemResolver {
    fn lookup<'a>(&'a self, name: &'a str, found: Found<'a>) -> BoxFuture<'a, Result<(), ResolveError>> {
        Box::pin(async move { self.find(name, found).await.map_err(|reason| ResolveError { name: name.to_owned(), reason }) })
    }
}

/// RFC 6761: these never leave the machine.
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}
