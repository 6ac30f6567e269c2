//! Which address the others are told to send to.
//!
//! What a person gave wins. Then the address that the socket is bound to, if it is bound to one. Then the source
//! address that this machine would use towards the first of: its own apiserver's address, a seed that is not itself,
//! the default gateway. Nothing is sent to find out. Where none of that gives an address, there is none yet: the network may still
//! be coming up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::world::Datagram;

/// Addresses that are documentation's (RFC 5737, RFC 3849) and so nobody's: the way there is the default one.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What an address may be found from.
pub(super) struct Hints<'a> {
    pub(super) flag: Option<SocketAddr>,
    pub(super) bound: SocketAddr,
    pub(super) apiservers: &'a [SocketAddr],
    pub(super) seeds: &'a [SocketAddr],
}

/// The address to advertise, if one can be told now.
pub(super) fn find(datagram: &dyn Datagram, hints: &Hints<'_>) -> Option<SocketAddr> {
    let port = hints.bound.port();
    if let Some(flag) = hints.flag {
        return Some(SocketAddr::new(flag.ip().to_canonical(), if flag.port() == 0 { port } else { flag.port() }));
    }
    let bound = hints.bound.ip().to_canonical();
    if !bound.is_unspecified() {
        return Some(SocketAddr::new(bound, port));
    }
    let source = |to: SocketAddr| {
        let source = datagram.source_towards(to).ok()?.to_canonical();
        (usable(source) && (source.is_ipv4() || hints.bound.is_ipv6())).then_some(source)
    };
    let to_apiserver = hints.apiservers.iter().find_map(|apiserver| source(*apiserver));
    let to_seed = || {
        let others = hints.seeds.iter().filter_map(|seed| Some((seed, source(*seed)?)));
        others.filter(|(seed, source)| SocketAddr::new(*source, port) != **seed).map(|(_, source)| source).next()
    };
    let to_anywhere = || ANYWHERE.into_iter().filter_map(|ip| source(SocketAddr::new(ip, 9))).find(|ip| !ip.is_loopback());
    to_apiserver.or_else(to_seed).or_else(to_anywhere).map(|ip| SocketAddr::new(ip, port))
}

fn usable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !ip.is_unspecified() && !ip.is_multicast() && !link_local
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::world::{BoxFuture, DatagramSocket};

    /// A machine with a way to 10/8 and, perhaps, a default one.
    struct Routes {
        default: Option<IpAddr>,
    }

    impl Datagram for Routes {
        fn bind(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }

        fn source_towards(&self, to: SocketAddr) -> io::Result<IpAddr> {
            match to.ip() {
                ip if ip.is_loopback() => Ok(ip),
                IpAddr::V4(v4) if v4.octets()[0] == 10 => Ok(IpAddr::from([10, 0, 0, 5])),
                IpAddr::V4(_) => self.default.ok_or(io::ErrorKind::NetworkUnreachable.into()),
                IpAddr::V6(_) => Err(io::ErrorKind::NetworkUnreachable.into()),
            }
        }
    }

    fn found(routes: &Routes, flag: &str, bound: &str, apiserver: &str, seeds: &[&str]) -> Option<String> {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let apiservers: Vec<_> = Some(apiserver).filter(|text| !text.is_empty()).map(parse).into_iter().collect();
        let seeds: Vec<_> = seeds.iter().map(|text| parse(text)).collect();
        let flag = Some(flag).filter(|text| !text.is_empty()).map(parse);
        let hints = Hints { flag, bound: parse(bound), apiservers: &apiservers, seeds: &seeds };
        find(routes, &hints).map(|addr| addr.to_string())
    }

    #[test]
    fn the_flag_wins_then_the_bound_address_then_the_ways_out() {
        let routes = Routes { default: Some(IpAddr::from([203, 0, 113, 7])) };
        let some = |text: &str| Some(text.to_owned());
        let any = "[::]:7447";
        assert_eq!(found(&routes, "198.51.100.1:9000", any, "10.1.1.1:6443", &[]), some("198.51.100.1:9000"));
        assert_eq!(found(&routes, "", "127.0.0.1:7000", "10.1.1.1:6443", &[]), some("127.0.0.1:7000"));
        assert_eq!(found(&routes, "", any, "10.1.1.1:6443", &["198.51.100.9:7447"]), some("10.0.0.5:7447"));
        assert_eq!(found(&routes, "", any, "", &["10.9.9.9:7447"]), some("10.0.0.5:7447"));
        assert_eq!(found(&routes, "", any, "", &[]), some("203.0.113.7:7447"));
    }

    #[test]
    fn a_seed_that_is_ourselves_tells_nothing() {
        let routes = Routes { default: None };
        assert_eq!(found(&routes, "", "[::]:7447", "", &["10.0.0.5:7447"]), None);
    }

    #[test]
    fn without_a_network_there_is_no_address_yet() {
        assert_eq!(found(&Routes { default: None }, "", "0.0.0.0:7447", "", &["198.51.100.9:7447"]), None);
    }
}
