//! From the configuration, and what its names resolve to, to the endpoints that the engine is told.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, Host, HostPort, Target};
use crate::engine::event::Configured;
use crate::engine::{Endpoint, Source};
use crate::names::Resolved;
use crate::world::Datagram;

/// The endpoints the configuration names now, and those left out because they are our own proxy.
pub(super) struct Naming {
    pub(super) configured: Vec<Configured>,
    pub(super) ourselves: Vec<(HostPort, SocketAddr)>,
}

/// Resolves the configuration's endpoints. An address that is our own listener would make the proxy dial itself.
pub(super) fn naming(config: &Config, resolved: &Resolved, listening: &[SocketAddr], datagram: &dyn Datagram) -> Naming {
    let mut naming = Naming { configured: Vec::new(), ourselves: Vec::new() };
    if let Some(local) = config.local_apiserver {
        naming.configured.push(Configured { endpoint: local.into(), source: Source::Local, by_name: false, server_name: None });
    }
    for (source, targets) in [(Source::Static, &config.endpoints), (Source::External, &config.external)] {
        for target in targets {
            naming.add(source, target, resolved, listening, datagram);
        }
    }
    naming
}

impl Naming {
    fn add(&mut self, source: Source, target: &Target, resolved: &Resolved, listening: &[SocketAddr], datagram: &dyn Datagram) {
        for addr in resolved.get(&target.at).into_iter().flatten() {
            if is_ourselves(*addr, listening, datagram) {
                self.ourselves.push((target.at.clone(), *addr));
                continue;
            }
            let endpoint = Endpoint::from(*addr);
            if self.configured.iter().any(|known| known.endpoint == endpoint && known.source == source) {
                continue;
            }
            self.configured.push(Configured {
                endpoint,
                source,
                by_name: matches!(target.at.host, Host::Name(_)),
                server_name: target.server_name.clone(),
            });
        }
    }
}

/// Whether dialling `addr` would reach one of our own listeners. A wildcard listener answers at each address of this
/// machine: those are the ones from which this machine would talk to them.
fn is_ourselves(addr: SocketAddr, listening: &[SocketAddr], datagram: &dyn Datagram) -> bool {
    let on_this_machine = |ip: IpAddr| ip.is_loopback() || datagram.source_towards(addr).is_ok_and(|source| source == ip);
    listening.iter().any(|own| {
        own.port() == addr.port()
            && (own.ip() == addr.ip()
                || (own.ip().is_unspecified() && own.is_ipv4() == addr.is_ipv4() && on_this_machine(addr.ip())))
    })
}
