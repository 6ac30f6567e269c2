//! resolv.conf(5), read as glibc reads it.
//!
//! By hand, and not with the `resolv-conf` crate, which refuses a whole line for one byte that is not UTF-8, even in a comment,
//! and a name server whose interface is called `br-lan`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::rr::Name;
use tokio::time::Instant;

use crate::world::Family;

/// glibc uses three; to ask more costs nothing while the first answer.
const SERVERS: usize = 8;
/// Search domains; glibc knows no limit.
const DOMAINS: usize = 32;
/// A name server that did not answer is not waited for, for so long; it is asked all the same.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// glibc's bound.
const NDOTS_MOST: usize = 15;

/// What is in force.
#[derive(Debug)]
pub(super) struct Conf {
    pub(super) servers: Vec<Server>,
    domains: Vec<Name>,
    ndots: usize,
    /// TCP only.
    pub(super) use_vc: bool,
    pub(super) edns0: bool,
    /// IPv6 addresses are not asked for.
    pub(super) no_aaaa: bool,
}

/// A name server.
#[derive(Debug)]
pub(super) struct Server {
    ip: IpAddr,
    /// An interface, by name or number: it may come and go, so it is looked up when it is needed.
    scope: Option<String>,
    port: u16,
    /// It has not answered questions of this family lately: until then it is not waited for.
    silent_until: Mutex<[Option<Instant>; 2]>,
}

impl Server {
    pub(super) fn new(ip: IpAddr, port: u16) -> Server {
        Server { ip, scope: None, port, silent_until: Mutex::default() }
    }

    /// Notes whether it answers questions of a family. There are firewalls that swallow those of IPv6 only.
    pub(super) fn answers(&self, family: Family, answers: bool) {
        let until = (!answers).then(|| Instant::now() + SILENT_FOR);
        self.silent_until.lock().unwrap_or_else(PoisonError::into_inner)[family as usize] = until;
    }

    /// Whether it has not answered questions of a family lately.
    pub(super) fn is_silent(&self, family: Family) -> bool {
        let until = self.silent_until.lock().unwrap_or_else(PoisonError::into_inner)[family as usize];
        until.is_some_and(|until| until > Instant::now())
    }

    /// Where it answers now.
    ///
    /// # Errors
    /// Its interface does not exist.
    pub(super) fn address(&self) -> Result<SocketAddr, String> {
        let (IpAddr::V6(ip), Some(scope)) = (self.ip, &self.scope) else { return Ok(SocketAddr::new(self.ip, self.port)) };
        let index = scope.parse().or_else(|_| index_of(scope))?;
        Ok(SocketAddrV6::new(ip, self.port, 0, index).into())
    }

    /// `IP` or `IP%INTERFACE`.
    fn parse(text: &str, port: u16) -> Option<Server> {
        let Some((ip, scope)) = text.split_once('%') else { return Some(Server::new(text.parse().ok()?, port)) };
        let ip: Ipv6Addr = ip.parse().ok()?;
        (!scope.is_empty()).then(|| Server { scope: Some(scope.to_owned()), ..Server::new(ip.into(), port) })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.scope {
            None => self.ip.fmt(f),
            Some(scope) => write!(f, "{}%{scope}", self.ip),
        }
    }
}

fn index_of(interface: &str) -> Result<u32, String> {
    let any = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    let any = any.map_err(|error| error.to_string())?;
    rustix::net::netdevice::name_to_index(any, interface).map_err(|error| format!("interface {interface}: {error}"))
}

impl Conf {
    /// Reads the file's text. `own_domain` is the domain of this machine's name, which is searched where the file names none.
    pub(super) fn parse(text: &[u8], own_domain: Option<&str>, port: u16) -> Conf {
        let mut conf = Conf { servers: Vec::new(), domains: Vec::new(), ndots: 1, use_vc: false, edns0: false, no_aaaa: false };
        let mut domains = None;
        for line in text.split(|byte| *byte == b'\n') {
            // What is no UTF-8 can only be in a comment, or in a word that means nothing to us.
            let line = String::from_utf8_lossy(line);
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(|word| Server::parse(word, port))),
                Some("domain") => domains = Some(words.take(1).map(str::to_owned).collect::<Vec<_>>()),
                Some("search") => domains = Some(words.map(str::to_owned).collect()),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(Server::new(Ipv4Addr::LOCALHOST.into(), port));
        }
        conf.servers.truncate(SERVERS);
        let domains = domains.unwrap_or_else(|| own_domain.map(str::to_owned).into_iter().collect());
        // Network managers write `--` for "none".
        let domains = domains.iter().filter(|domain| *domain != "--");
        conf.domains = domains.filter_map(|domain| absolute(domain).ok()).take(DOMAINS).collect();
        conf
    }

    fn option(&mut self, word: &str) {
        match word.split_once(':').unwrap_or((word, "")) {
            ("ndots", dots) => self.ndots = dots.parse().map_or(self.ndots, |dots: usize| dots.min(NDOTS_MOST)),
            ("use-vc", _) => self.use_vc = true,
            ("edns0", _) => self.edns0 = true,
            ("no-aaaa", _) => self.no_aaaa = true,
            // Time-outs and attempts are ours, and no two questions share a socket. `rotate` spreads load that there is none of.
            _ => {}
        }
    }

    /// The names to ask for, in the order in which one that exists is taken.
    pub(super) fn candidates(&self, name: &str) -> Result<Vec<Name>, String> {
        let as_it_is = absolute(name)?;
        if name.ends_with('.') {
            return Ok(vec![as_it_is]);
        }
        let mut candidates: Vec<Name> = Vec::new();
        let searched = self.domains.iter().filter_map(|domain| absolute(&format!("{name}.{domain}")).ok());
        candidates.extend(searched.filter(|searched| *searched != as_it_is));
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let place = if dots >= self.ndots { 0 } else { candidates.len() };
        candidates.insert(place, as_it_is);
        Ok(candidates)
    }
}

/// A name with nothing to be added to it.
fn absolute(name: &str) -> Result<Name, String> {
    let mut parsed = Name::from_str_relaxed(name).map_err(|error| format!("not a name: {error}"))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &[u8]) -> Conf {
        Conf::parse(text, Some("own.example"), 53)
    }

    fn servers(text: &[u8]) -> Vec<String> {
        conf(text).servers.iter().map(ToString::to_string).collect()
    }

    fn candidates(text: &str, name: &str) -> Vec<String> {
        conf(text.as_bytes()).candidates(name).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn name_servers_are_read_whatever_stands_beside_them() {
        assert_eq!(servers(b"nameserver 10.0.0.1\r\nnameserver fd00::1;x\n"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(servers(b"# B\xfcro\nnameserver 10.0.0.1 # B\xfcro\nsearch m\xfcnchen\n"), ["10.0.0.1"]);
        assert_eq!(servers(b"nameserver fe80::1%br-lan.7\nnameserver fe80::1%2"), ["fe80::1%br-lan.7", "fe80::1%2"]);
        assert_eq!(servers(b"nameserver\nnameserver x\nnameserver 10.0.0.1%eth0\nnameserver fe80::1%\n"), ["127.0.0.1"]);
        assert_eq!(servers(b""), ["127.0.0.1"]);
        let many: String = (0..100).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        assert_eq!(servers(many.as_bytes()).len(), SERVERS);
    }

    #[test]
    fn a_scope_is_a_number_or_an_interface_of_this_machine() {
        let address = |scope: &str| Server::parse(&format!("fe80::1%{scope}"), 53).unwrap().address();
        assert_eq!(address("7").unwrap().to_string(), "[fe80::1%7]:53");
        let lo: u32 = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap().trim().parse().unwrap();
        assert_eq!(address("lo").unwrap().to_string(), format!("[fe80::1%{lo}]:53"));
        assert!(address("no-such-one").unwrap_err().contains("no-such-one"));
    }

    #[test]
    fn options_that_mean_something_are_read_and_others_change_nothing() {
        let read = conf(b"options edns0 trust-ad no-such:1\noptions use-vc no-aaaa ndots:99 timeout:x\n");
        assert!(read.use_vc && read.edns0 && read.no_aaaa);
        assert_eq!(read.ndots, NDOTS_MOST);
        assert_eq!(conf(b"options ndots:x ndots: rotate").ndots, 1);
    }

    #[test]
    fn a_name_is_searched_for_in_the_order_of_glibc() {
        let text = "search a.example b.example\n";
        assert_eq!(candidates(text, "api"), ["api.a.example.", "api.b.example.", "api."]);
        assert_eq!(candidates(text, "api.x"), ["api.x.", "api.x.a.example.", "api.x.b.example."]);
        assert_eq!(candidates(text, "api."), ["api."]);
        let more = "search a.example b.example\noptions ndots:2\n";
        assert_eq!(candidates(more, "api.x"), ["api.x.a.example.", "api.x.b.example.", "api.x."]);
        assert_eq!(candidates("search a.example\ndomain b.example c.example\n", "api"), ["api.b.example.", "api."]);
        assert_eq!(candidates("search -- .. c.example .\n", "api"), ["api.c.example.", "api."]);
        assert_eq!(candidates("", "api"), ["api.own.example.", "api."]);
        assert!(conf(b"").candidates(&"x".repeat(300)).unwrap_err().contains("not a name"));
    }
}
