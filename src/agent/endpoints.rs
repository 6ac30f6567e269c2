//! From the configuration, and what its names resolve to, to the endpoints that the engine is told; and which addresses lead
//! to this agent's own listeners.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Config, Host, Target};
use crate::engine::event::Configured;
use crate::engine::{Endpoint, Event, Source};
use crate::names::Resolved;
use crate::world::{Datagram, Listener};

/// The endpoints that the configuration names now.
pub(super) fn configured(config: &Config, resolved: &Resolved) -> Vec<Configured> {
    let mut configured = Vec::new();
    if let Some(local) = config.local_apiserver {
        configured.push(Configured { endpoint: local.into(), source: Source::Local, by_name: false, server_name: None });
    }
    for (source, targets) in [(Source::Static, &config.endpoints), (Source::External, &config.external)] {
        for target in targets {
            add(&mut configured, source, target, resolved);
        }
    }
    configured
}

fn add(configured: &mut Vec<Configured>, source: Source, target: &Target, resolved: &Resolved) {
    for addr in resolved.get(&target.at).into_iter().flatten() {
        let endpoint = Endpoint::from(*addr);
        if configured.iter().any(|known| known.endpoint == endpoint && known.source == source) {
            continue;
        }
        let by_name = matches!(target.at.host, Host::Name(_));
        configured.push(Configured { endpoint, source, by_name, server_name: target.server_name.clone() });
    }
}

/// The name under which the configuration has an endpoint.
pub(super) fn name_of(endpoint: Endpoint, config: &Config, resolved: &Resolved) -> Option<String> {
    let leads_there = |target: &&Target| {
        let addrs = resolved.get(&target.at);
        addrs.is_some_and(|addrs| addrs.iter().any(|addr| Endpoint::from(*addr) == endpoint))
    };
    config.endpoints.iter().chain(&config.external).find(leads_there).map(|target| target.at.to_string())
}

/// The endpoints that an event names.
pub(super) fn named_by(event: &Event) -> Vec<Endpoint> {
    match event {
        Event::Configured(all) => all.iter().map(|one| one.endpoint).collect(),
        Event::Cached { endpoints, .. } => endpoints.iter().map(|one| one.endpoint).collect(),
        Event::Record(record) => record.endpoints.clone(),
        _ => Vec::new(),
    }
}

/// Where one of this agent's listeners is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    addr: SocketAddr,
    both_families: bool,
}

impl Bound {
    pub(super) fn of(listener: &dyn Listener) -> std::io::Result<Bound> {
        let addr = listener.local_addr()?;
        Ok(Bound { addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()), both_families: listener.takes_both_families() })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn is_wildcard(&self) -> bool {
        self.addr.ip().is_unspecified()
    }

    /// Whether a dial to `to` arrives here. A wildcard listener answers at every address of this machine: those are the ones
    /// from which this machine would talk to them.
    fn is_reached_by(&self, to: SocketAddr, datagram: &dyn Datagram) -> bool {
        // The kernel takes the unspecified address for this machine.
        let ip = match to.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let of_this_machine = || {
            let to = SocketAddr::new(ip, to.port());
            ip.is_loopback() || datagram.source_towards(to).is_ok_and(|source| source.to_canonical() == ip)
        };
        let family = self.both_families || self.addr.is_ipv4() == ip.is_ipv4();
        self.addr.port() == to.port() && (self.addr.ip() == ip || (self.is_wildcard() && family && of_this_machine()))
    }
}

/// The addresses of endpoints that lead to this agent's own listeners: those of the listeners that are bound to one, and, of
/// wildcard listeners, those that were asked about.
#[derive(Debug)]
pub(super) struct Own {
    bound: Vec<Bound>,
    addresses: BTreeSet<Endpoint>,
    told: bool,
}

impl Own {
    pub(super) fn new(bound: Vec<Bound>) -> Own {
        Own { bound, addresses: BTreeSet::new(), told: false }
    }

    /// Whether it depends on this machine's addresses what leads here.
    pub(super) fn may_change(&self) -> bool {
        self.bound.iter().any(Bound::is_wildcard)
    }

    /// Asks about these endpoints, and about those that were own ones before: this machine may have got or lost an address.
    /// What leads to own listeners now, if that has changed.
    pub(super) fn look(
        &mut self,
        endpoints: impl IntoIterator<Item = Endpoint>,
        datagram: &dyn Datagram,
    ) -> Option<BTreeSet<Endpoint>> {
        let specific = self.bound.iter().filter(|bound| !bound.is_wildcard()).map(|bound| Endpoint::from(bound.addr));
        let own = |endpoint: &Endpoint| self.bound.iter().any(|bound| bound.is_reached_by(endpoint.addr(), datagram));
        let asked = endpoints.into_iter().chain(self.addresses.iter().copied()).filter(own);
        let addresses: BTreeSet<Endpoint> = specific.chain(asked).collect();
        let changed = self.addresses != addresses || !self.told;
        (self.addresses, self.told) = (addresses, true);
        changed.then(|| self.addresses.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::world::{BoxFuture, DatagramSocket};

    /// A machine with these addresses, and a way from the first of them to everywhere else.
    struct Machine(Mutex<Vec<IpAddr>>);

    impl Datagram for Machine {
        fn bind(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }

        fn source_towards(&self, to: SocketAddr) -> io::Result<IpAddr> {
            let own = self.0.lock().expect("whole");
            own.iter().find(|ip| **ip == to.ip()).or(own.first()).copied().ok_or(io::ErrorKind::NetworkUnreachable.into())
        }
    }

    fn machine(addresses: &[&str]) -> Machine {
        Machine(Mutex::new(addresses.iter().map(|ip| ip.parse().expect("an address")).collect()))
    }

    fn bound(addr: &str, both_families: bool) -> Bound {
        Bound { addr: addr.parse().expect("an address"), both_families }
    }

    fn endpoint(addr: &str) -> Endpoint {
        addr.parse::<SocketAddr>().expect("an address").into()
    }

    #[test]
    fn a_dial_arrives_at_our_listener_or_not() {
        let machine = machine(&["10.0.0.1", "fd00::1"]);
        let cases = [
            ("10.0.0.1:7445", false, "10.0.0.1:7445", true),
            ("10.0.0.1:7445", false, "10.0.0.1:6443", false),
            ("10.0.0.1:7445", false, "10.0.0.2:7445", false),
            ("127.0.0.1:7445", false, "127.0.0.1:7445", true),
            ("127.0.0.1:7445", false, "127.0.0.2:7445", false),
            ("127.0.0.1:7445", false, "0.0.0.0:7445", true),
            ("0.0.0.0:7445", false, "10.0.0.1:7445", true),
            ("0.0.0.0:7445", false, "127.3.2.1:7445", true),
            ("0.0.0.0:7445", false, "10.0.0.1:6443", false),
            ("0.0.0.0:7445", false, "10.0.0.2:7445", false),
            ("0.0.0.0:7445", false, "[fd00::1]:7445", false),
            ("[::]:7445", false, "[fd00::1]:7445", true),
            ("[::]:7445", false, "[::1]:7445", true),
            ("[::]:7445", false, "10.0.0.1:7445", false),
            ("[::]:7445", true, "10.0.0.1:7445", true),
            ("[::]:7445", true, "[::ffff:10.0.0.1]:7445", true),
            ("[::]:7445", true, "10.0.0.2:7445", false),
        ];
        for (listener, both, to, arrives) in cases {
            let found = bound(listener, both).is_reached_by(to.parse().expect("an address"), &machine);
            assert_eq!(found, arrives, "{to} at {listener}");
        }
    }

    #[test]
    fn addresses_come_and_go_with_the_machines() {
        let machine = machine(&["10.0.0.1"]);
        let mut own = Own::new(vec![bound("0.0.0.0:7445", false), bound("10.0.0.1:7000", false)]);
        let virtual_ip = endpoint("10.0.0.100:7445");
        assert_eq!(own.look([virtual_ip], &machine), Some([endpoint("10.0.0.1:7000")].into()));
        assert_eq!(own.look([virtual_ip], &machine), None);
        machine.0.lock().expect("whole").push("10.0.0.100".parse().expect("an address"));
        assert_eq!(own.look([virtual_ip], &machine), Some([endpoint("10.0.0.1:7000"), virtual_ip].into()));
        assert_eq!(own.look([], &machine), None, "it is kept");
        machine.0.lock().expect("whole").pop();
        assert_eq!(own.look([], &machine), Some([endpoint("10.0.0.1:7000")].into()));
    }
}
