//! UDP as the kernel gives it.
//!
//! A socket bound to `[::]` is dual stack: it sends to IPv4 addresses as mapped ones and hands out senders in canonical form,
//! so that nobody above ever sees a mapped address. What an earlier datagram met (a closed port, an absent host) is reported
//! by the kernel at the next receive; it says nothing about this socket and ends nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::net::bind_anywhere;
use crate::world::{BoxFuture, Datagram, DatagramSocket};

/// What the kernel may keep for us while we are busy: the Reports of 5,000 workers that start at once. The default of 208 KiB is about
/// 100 full datagrams as the kernel counts.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// UDP.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDatagram;

impl Datagram for RealDatagram {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        Box::pin(async move { Ok(Box::new(RealDatagramSocket::bind(addr)?) as Box<dyn DatagramSocket>) })
    }

    fn bind_ahead(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        Box::pin(async move { Ok(Box::new(RealDatagramSocket::bound(addr, true)?) as Box<dyn DatagramSocket>) })
    }

    fn source_towards(&self, to: SocketAddr) -> io::Result<IpAddr> {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // Connecting a datagram socket only asks the routing table.
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip().to_canonical())
    }
}

/// A bound UDP socket.
#[derive(Debug)]
pub struct RealDatagramSocket {
    socket: UdpSocket,
    v6: bool,
}

impl RealDatagramSocket {
    /// Binds. The IPv6 wildcard takes both families.
    ///
    /// # Errors
    /// The kernel's, such as [`io::ErrorKind::AddrInUse`].
    pub fn bind(addr: SocketAddr) -> io::Result<RealDatagramSocket> {
        RealDatagramSocket::bound(addr, false)
    }

    /// `ahead`: whether this machine has the address or not.
    fn bound(addr: SocketAddr, ahead: bool) -> io::Result<RealDatagramSocket> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if ahead {
            bind_anywhere(&socket, addr)?;
        }
        if addr.is_ipv6() {
            socket.set_only_v6(!addr.ip().is_unspecified())?;
        }
        // The kernel takes what its own limit allows; less is no error.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&addr.into())?;
        RealDatagramSocket::from_std(socket.into())
    }

    /// Takes over a bound socket, for instance an inherited one.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking or registered with the runtime.
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<RealDatagramSocket> {
        socket.set_nonblocking(true)?;
        let v6 = socket.local_addr()?.is_ipv6();
        Ok(RealDatagramSocket { socket: UdpSocket::from_std(socket)?, v6 })
    }

    /// The address as this socket's family writes it.
    fn as_sent(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.v6 => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
            other => other,
        }
    }
}

impl DatagramSocket for RealDatagramSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.socket.send_to(bytes, self.as_sent(to)).await.map(drop) })
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move {
            loop {
                match self.socket.recv_from(buffer).await {
                    Ok((length, from)) => return Ok((length, canonical(from))),
                    Err(error) if of_an_earlier_datagram(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        })
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
        // Kept whole: a link-local address is nothing without its scope.
        _ => addr,
    }
}

/// Each such error is taken from the socket by reporting it, so that trying again ends.
fn of_an_earlier_datagram(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    #[tokio::test]
    async fn a_wildcard_socket_is_dual_stack_and_nobody_sees_a_mapped_address() {
        let Ok(dual) = RealDatagram.bind((Ipv6Addr::UNSPECIFIED, 0).into()).await else { return };
        let other = RealDatagram.bind(LOCAL.into()).await.expect("binds");
        let port = dual.local_addr().expect("bound").port();
        let mut buffer = [0; 16];
        other.send((Ipv4Addr::LOCALHOST, port).into(), b"there").await.expect("sent");
        let (length, from) = dual.receive(&mut buffer).await.expect("received");
        assert_eq!((&buffer[..length], from), (&b"there"[..], other.local_addr().expect("bound")));
        dual.send(from, b"back").await.expect("sent");
        let (length, from) = other.receive(&mut buffer).await.expect("received");
        assert_eq!((&buffer[..length], from), (&b"back"[..], (Ipv4Addr::LOCALHOST, port).into()));
    }

    #[tokio::test]
    async fn what_an_earlier_datagram_met_ends_nothing() {
        let socket = RealDatagram.bind(LOCAL.into()).await.expect("binds");
        let gone = std::net::UdpSocket::bind(LOCAL).expect("binds").local_addr().expect("bound");
        let peer = RealDatagram.bind(LOCAL.into()).await.expect("binds");
        let mut buffer = [0; 4];
        for _ in 0..3 {
            socket.send(gone, b"anyone?").await.expect("sent");
            peer.send(socket.local_addr().expect("bound"), b"longer than that").await.expect("sent");
            assert_eq!(socket.receive(&mut buffer).await.expect("received").0, 4, "cut off at the buffer's end");
        }
    }

    #[test]
    fn the_source_towards_an_address_is_of_this_machine() {
        let source = RealDatagram.source_towards((Ipv4Addr::LOCALHOST, 7447).into()).expect("a route");
        assert_eq!(source, IpAddr::from(Ipv4Addr::LOCALHOST));
        assert!(RealDatagram.source_towards((Ipv4Addr::BROADCAST, 7447).into()).is_err());
    }
}
