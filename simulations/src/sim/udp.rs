//! Modelled datagrams: they may be lost, late, doubled, overtaken or too long, and say nothing of it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Poll, Waker};

use rand::RngExt;

use super::core::{Core, Due, RunId};
use super::state::{Class, MachineId};

/// What a datagram over IPv4 can carry: 64 KiB less the headers of IP and UDP.
const LONGEST: usize = 65_507;
/// Where ports that nobody asked for begin.
const FREE: u16 = 40_000;
/// Datagrams that a socket's buffer takes; the kernel's default of 208 KiB holds about so many of ours.
const BUFFER: usize = 256;

/// A datagram under way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// Whose machine it arrives at.
    pub(super) machine: MachineId,
    pub(super) bytes: Vec<u8>,
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Udp {
    sockets: BTreeMap<(MachineId, u16), Socket>,
    /// Datagrams sent, by size class, for the figures.
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) peak: usize,
    /// Datagrams that found a full buffer.
    pub(super) overflowed: u64,
}

#[derive(Debug)]
struct Socket {
    run: RunId,
    /// Where it is bound.
    ip: IpAddr,
    got: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

impl Udp {
    pub(super) fn end_run(&mut self, run: RunId) {
        self.sockets.retain(|_, socket| {
            let ended = socket.run == run;
            if ended && let Some(waker) = socket.reader.take() {
                waker.wake();
            }
            !ended
        });
    }
}

/// Whether a socket bound to this address gets what is for that one.
pub(super) fn listens_at(bound: IpAddr, to: IpAddr) -> bool {
    bound == to || (bound.is_unspecified() && (bound.is_ipv6() || to.is_ipv4()))
}

impl Core {
    pub(super) fn udp_bind(&mut self, machine: MachineId, run: RunId, addr: SocketAddr) -> io::Result<SocketAddr> {
        self.has_address(machine, addr.ip())?;
        let free = || (FREE..).find(|port| !self.udp.sockets.contains_key(&(machine, *port)));
        let port = if addr.port() == 0 { free().ok_or(io::ErrorKind::AddrInUse)? } else { addr.port() };
        if self.udp.sockets.contains_key(&(machine, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.udp.sockets.insert((machine, port), Socket { run, ip: addr.ip(), got: VecDeque::new(), reader: None });
        Ok(SocketAddr::new(addr.ip(), port))
    }

    pub(super) fn udp_close(&mut self, machine: MachineId, run: RunId, port: u16) {
        if self.udp.sockets.get(&(machine, port)).is_some_and(|socket| socket.run == run) {
            self.udp.sockets.remove(&(machine, port));
        }
    }

    /// A socket can be bound to an address that its machine has, and to any.
    pub(super) fn has_address(&self, machine: MachineId, ip: IpAddr) -> io::Result<()> {
        let has = ip.is_unspecified() || ip.is_loopback() || self.state.machines[machine].addrs.contains(&ip);
        if has { Ok(()) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
    }

    /// The address a machine sends from towards another.
    pub(super) fn source_towards(&self, machine: MachineId, to: IpAddr) -> io::Result<IpAddr> {
        if to.is_loopback() {
            return Ok(if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
        }
        let own = self.state.machines[machine].addrs.iter().find(|own| own.is_ipv4() == to.is_ipv4());
        own.copied().ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    pub(super) fn udp_send(&mut self, machine: MachineId, port: u16, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if bytes.len() > LONGEST {
            return Err(io::Error::other("message too long"));
        }
        let bound = self.udp.sockets.get(&(machine, port)).map(|socket| socket.ip).filter(|ip| !ip.is_unspecified());
        let towards = self.source_towards(machine, to.ip())?;
        let from = SocketAddr::new(bound.unwrap_or(towards), port);
        self.udp.sent += 1;
        self.udp.sent_bytes += bytes.len() as u64;
        self.trace.datagram(self.now, from, to, bytes);
        self.log.datagram(machine, self.now, bytes.len());
        let Some(receiver) = self.state.machine_at(to.ip(), machine) else { return Ok(()) };
        let way = self.state.way(machine, receiver, Class::Gossip);
        if !way.open || bytes.len() > way.mtu || (way.loss > 0.0 && self.chance.random_bool(way.loss)) {
            return Ok(());
        }
        let copies = if way.twice > 0.0 && self.chance.random_bool(way.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = self.delay(way.delay, way.jitter);
            if way.late > 0.0 && self.chance.random_bool(way.late) {
                delay += 1 + self.chance.random_range(0..4 * u64::from(way.delay.max(5)));
            }
            let packet = Packet { from, to, machine: receiver, bytes: bytes.to_vec() };
            self.at(self.now + delay, Due::Datagram(packet));
        }
        Ok(())
    }

    /// How long one packet takes.
    pub(super) fn delay(&mut self, base: u32, jitter: f64) -> u64 {
        if base == 0 {
            return 0;
        }
        let factor = if jitter > 0.0 { 1.0 + self.chance.random_range(-jitter..=jitter) } else { 1.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful of milliseconds")]
        let delay = (f64::from(base) * factor).round() as u64;
        delay.max(1)
    }

    pub(super) fn datagram_arrives(&mut self, packet: Packet) {
        if !self.state.machines[packet.machine].up {
            return;
        }
        let Some(socket) = self.udp.sockets.get_mut(&(packet.machine, packet.to.port())) else { return };
        if !listens_at(socket.ip, packet.to.ip()) {
            return;
        }
        if socket.got.len() >= BUFFER {
            self.udp.overflowed += 1;
            return;
        }
        socket.got.push_back((packet.from, packet.bytes));
        self.udp.peak = self.udp.peak.max(socket.got.len());
        if let Some(waker) = socket.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn udp_receive(
        &mut self,
        machine: MachineId,
        port: u16,
        buffer: &mut [u8],
        waker: &Waker,
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let Some(socket) = self.udp.sockets.get_mut(&(machine, port)) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let Some((from, bytes)) = socket.got.pop_front() else {
            socket.reader = Some(waker.clone());
            return Poll::Pending;
        };
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Poll::Ready(Ok((length, from)))
    }
}
