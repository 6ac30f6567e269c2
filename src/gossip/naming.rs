//! Which addresses a record may name, and a record as the engine is told it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::item::Record;
use super::stats::{DropReason, Stats};
use crate::engine::endpoint::{Endpoint, NodeId};
use crate::engine::event::MemberRecord;

/// Which addresses a record may name, so that nobody aims a cluster's probes at a third party.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NamingRule {
    /// Our own gossip address is a loopback one: then so may others be.
    pub(super) loopback: bool,
    /// Endpoints must be in one of these; empty: any.
    pub(super) allow: Vec<IpNet>,
}

impl NamingRule {
    /// Whether an endpoint may be taken from a record.
    pub(super) fn permits(&self, endpoint: Endpoint) -> bool {
        let ip = endpoint.addr().ip();
        addressable(endpoint.addr(), self.loopback) && (self.allow.is_empty() || self.allow.iter().any(|net| net.contains(&ip)))
    }

    /// The record without the endpoints that it may not name; those are counted.
    pub(super) fn told(&self, record: &Record, stats: &Stats) -> MemberRecord {
        let mut endpoints = Vec::with_capacity(record.endpoints.len());
        for endpoint in &record.endpoints {
            if !self.permits(*endpoint) {
                stats.count_drop(DropReason::Endpoint);
            } else if !endpoints.contains(endpoint) {
                endpoints.push(*endpoint);
            }
        }
        MemberRecord {
            node: NodeId::of(&record.name),
            name: record.name.clone(),
            generation: record.generation,
            version: record.version,
            role: record.role,
            agent: record.agent,
            apiserver: record.apiserver,
            endpoints,
        }
    }
}

/// Whether datagrams and dials may go to an address that only gossip named.
pub(super) fn addressable(addr: SocketAddr, loopback: bool) -> bool {
    let ip = addr.ip().to_canonical();
    let refused = match ip {
        // 0.0.0.0/8 is "this network" (RFC 1122); Linux takes its first address for the machine itself.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    addr.port() != 0 && !refused && !ip.is_multicast() && (loopback || !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::{AgentState, Role};

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::from(text.parse::<SocketAddr>().unwrap())
    }

    #[test]
    fn a_record_may_not_name_what_is_nobodys_apiserver() {
        let rule = NamingRule::default();
        for refused in [
            "127.0.0.1:6443",
            "[::1]:6443",
            "[::ffff:127.0.0.1]:6443",
            "0.0.0.0:6443",
            "0.1.2.3:6443",
            "[::]:6443",
            "224.0.0.1:6443",
            "[ff02::1]:6443",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:6443",
            "255.255.255.255:6443",
            "10.0.0.1:0",
        ] {
            assert!(!rule.permits(endpoint(refused)), "{refused}");
        }
        assert!(rule.permits(endpoint("10.0.0.1:6443")));
        assert!(rule.permits(endpoint("[fd00::1]:6443")));
        let loopback = NamingRule { loopback: true, allow: Vec::new() };
        assert!(loopback.permits(endpoint("127.0.0.1:6443")));
        let allow = NamingRule { loopback: false, allow: vec!["10.0.0.0/8".parse().unwrap()] };
        assert!(allow.permits(endpoint("10.9.9.9:6443")));
        assert!(!allow.permits(endpoint("203.0.113.1:6443")));
    }

    #[test]
    fn what_may_not_be_named_is_left_out_and_counted() {
        let record = Record {
            name: "cp-1".to_owned(),
            generation: 3,
            version: 4,
            role: Role::ControlPlane,
            agent: AgentState::Running,
            apiserver: None,
            endpoints: vec![endpoint("127.0.0.1:1"), endpoint("10.0.0.1:6443"), endpoint("10.0.0.1:6443")],
            gossip: Vec::new(),
        };
        let stats = Stats::default();
        let told = NamingRule::default().told(&record, &stats);
        assert_eq!(told.endpoints, [endpoint("10.0.0.1:6443")]);
        assert_eq!((told.generation, told.version), (3, 4));
        assert_eq!(stats.dropped(DropReason::Endpoint), 1);
    }
}
