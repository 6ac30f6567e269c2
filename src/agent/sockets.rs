//! Where the sockets of a real agent come from: inherited by name or by address, else bound.

use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::config::{Config, Listen};
use crate::service::Inherited;
use crate::world::real::{RealDatagramSocket, RealListener};
use crate::world::{DatagramSocket, Listener, World};

/// A socket could not be had. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {reason}; another address is set by {setting}")]
pub(super) struct SocketError {
    addr: SocketAddr,
    reason: std::io::Error,
    setting: &'static str,
}

const PROXY: &str = "--listen (PRISMESH_LISTEN, `listen:`)";
const ADMIN: &str = "--admin (PRISMESH_ADMIN, `admin:`)";
const GOSSIP: &str = "--gossip-listen (PRISMESH_GOSSIP_LISTEN, `gossip-listen:`)";

/// The proxy's listeners: inherited ones in place of those that the configuration names.
pub(super) async fn proxy(
    world: &World,
    config: &Config,
    inherited: &mut Inherited,
) -> Result<Vec<Box<dyn Listener>>, SocketError> {
    let wanted: Vec<SocketAddr> = config.listen.iter().map(|listen| listen.addr).collect();
    let handed = inherited.take_tcp("proxy", &wanted);
    if !handed.is_empty() {
        let there: Vec<SocketAddr> = handed.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let served = |addr: SocketAddr| there.iter().any(|there| stands_for(*there, addr));
        for listen in config.listen.iter().filter(|listen| listen.written && !served(listen.addr)) {
            tracing::warn!(addr = %listen.addr, "not listened on: the sockets that were handed over stand in its place");
        }
        return handed.into_iter().map(|listener| adopt(listener, wanted[0], PROXY)).collect();
    }
    let mut listeners = Vec::new();
    for listen in &config.listen {
        listeners.extend(bind(world, *listen, PROXY).await?);
    }
    match (listeners.is_empty(), config.listen.first()) {
        (true, Some(listen)) => {
            bind(world, Listen { written: true, ..*listen }, PROXY).await.map(|one| one.into_iter().collect())
        }
        _ => Ok(listeners),
    }
}

/// Whether a socket at this address accepts what is sent to that one.
fn stands_for(socket: SocketAddr, addr: SocketAddr) -> bool {
    let (here, there) = (socket.ip().to_canonical(), addr.ip().to_canonical());
    let any = here.is_unspecified() && (here.is_ipv6() || there.is_ipv4());
    socket.port() == addr.port() && (here == there || any)
}

/// The admin listener.
pub(super) async fn admin(world: &World, config: &Config, inherited: &mut Inherited) -> Result<Box<dyn Listener>, SocketError> {
    let addr = config.admin.addr;
    if let Some(listener) = inherited.take_tcp("admin", &[addr]).into_iter().next() {
        return adopt(listener, addr, ADMIN);
    }
    listen(world, addr, ADMIN).await
}

/// Listens, also at an address that this machine does not have yet: it may come later than this process.
async fn listen(world: &World, addr: SocketAddr, setting: &'static str) -> Result<Box<dyn Listener>, SocketError> {
    let listener = match world.net.listen(addr).await {
        Err(reason) if reason.kind() == ErrorKind::AddrNotAvailable => {
            warn_of_absent(addr, setting);
            world.net.listen_ahead(addr).await
        }
        listener => listener,
    };
    listener.map_err(|reason| SocketError { addr, reason, setting })
}

fn warn_of_absent(addr: SocketAddr, setting: &str) {
    tracing::warn!(%addr, setting, "this machine does not have this address: it is served once it does");
}

/// The gossip socket. Where this machine has no IPv6 the default falls back to IPv4.
pub(super) async fn gossip(
    world: &World,
    listen: Listen,
    inherited: &mut Inherited,
) -> Result<Box<dyn DatagramSocket>, SocketError> {
    let error = |addr| move |reason| SocketError { addr, reason, setting: GOSSIP };
    if let Some(socket) = inherited.take_udp("gossip", &[listen.addr]).into_iter().next() {
        return Ok(Box::new(RealDatagramSocket::from_std(socket).map_err(error(listen.addr))?));
    }
    match world.datagram.bind(listen.addr).await {
        Err(reason) if !listen.written && lacks_family(&reason) => {
            let addr = SocketAddr::from(([0, 0, 0, 0], listen.addr.port()));
            tracing::info!(%addr, "this machine has no IPv6: gossip listens on IPv4 alone");
            world.datagram.bind(addr).await.map_err(error(addr))
        }
        Err(reason) if reason.kind() == ErrorKind::AddrNotAvailable => {
            warn_of_absent(listen.addr, GOSSIP);
            world.datagram.bind_ahead(listen.addr).await.map_err(error(listen.addr))
        }
        bound => bound.map_err(error(listen.addr)),
    }
}

async fn bind(world: &World, listen: Listen, setting: &'static str) -> Result<Option<Box<dyn Listener>>, SocketError> {
    if listen.written {
        return self::listen(world, listen.addr, setting).await.map(Some);
    }
    match world.net.listen(listen.addr).await {
        Ok(listener) => Ok(Some(listener)),
        Err(reason) if lacks_family(&reason) => {
            tracing::info!(addr = %listen.addr, %reason, "default listen address skipped: this machine lacks its family");
            Ok(None)
        }
        Err(reason) => Err(SocketError { addr: listen.addr, reason, setting }),
    }
}

fn adopt(listener: std::net::TcpListener, addr: SocketAddr, setting: &'static str) -> Result<Box<dyn Listener>, SocketError> {
    let listener = RealListener::from_std(listener).map_err(|reason| SocketError { addr, reason, setting })?;
    Ok(Box::new(listener))
}

/// No such family at all, or no address of it.
fn lacks_family(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}
