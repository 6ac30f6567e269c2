//! UDP as the kernel gives it.
//!
//! A socket bound to `[::]` is dual stack: it sends to IPv4 addresses as mapped ones and hands out senders in canonical form,
//! so that nobody above ever sees a mapped address. What an earlier datagram met (a closed port, an absent host) is reported
//! by the kernel at the next receive; it says nothing about this socket and ends nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::world::{BoxFuture, Datagram, DatagramSocket};

/// What the kernel may keep for us while we are busy; the default of 208 KiB is about 100 full datagrams as the kernel counts.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// UDP.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDatagram;

impl Datagram for RealDatagram {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        Box::pin(async move { Ok(Box::new(RealDatagramSocket::bind(addr)?) as Box<dyn DatagramSocket>) })
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
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
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
