//! A loopback /24 of the lab's own, so that every server and node has an address of its own and the ports are the
//! ordinary ones: nothing searches for free ports, and two labs on one machine do not meet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// Whoever listens here, on host 254, has the subnet.
const CLAIM: (u8, u16) = (254, 7400);
/// How many subnets are tried.
const TRIES: usize = 64;

/// A claimed 127.A.B.0/24, free again when dropped.
#[derive(Debug)]
pub struct Subnet {
    network: [u8; 3],
    _claim: TcpListener,
}

impl Subnet {
    /// Claims a subnet that no other lab on this machine has.
    pub fn claim() -> Result<Subnet> {
        for _ in 0..TRIES {
            let network = [127, rand::random_range(1..=254), rand::random_range(0..=254)];
            let [a, b, c] = network;
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(a, b, c, CLAIM.0), CLAIM.1)) {
                return Ok(Subnet { network, _claim: claim });
            }
        }
        bail!("cannot listen on any of {TRIES} loopback addresses (127.A.B.{}): is lo up, is this Linux?", CLAIM.0)
    }

    /// The address of a host of the subnet.
    pub fn host(&self, host: u8) -> IpAddr {
        let [a, b, c] = self.network;
        IpAddr::from([a, b, c, host])
    }

    /// A port of a host of the subnet.
    pub fn at(&self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.host(host), port)
    }

    /// As people write it.
    pub fn cidr(&self) -> String {
        format!("{}/24", self.host(0))
    }
}
