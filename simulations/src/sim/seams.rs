//! The six seams as one agent's process sees them in the modelled world.
//!
//! While its machine's agent is stalled every call waits; once the process is dead every call fails, or waits for ever where a
//! failure would only be tried again.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use prismesh::engine::liveness::PeerState;
use prismesh::world::real::carry::carry;
use prismesh::world::{
    BoxFuture, Carried, Datagram, DatagramSocket, Family, Found, Listener, Lookup, Meter, Net, ResolveError, Resolver, Store,
    Stream, WallClock,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::balancer;
use super::core::{Gate, RunId, Sim};
use super::disk::Disk;
use super::state::{MachineId, Ms, Name};
use super::tcp::{ConnId, Owner};

/// A lookup that nobody answers ends after this, as resolvers do.
const DNS_PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer of DNS may be kept.
const DNS_TTL: Duration = Duration::from_secs(30);
/// How long one that takes turns with others is given, and kept.
pub(super) const DNS_TURN: Ms = 10_000;

/// A machine's kernel, as one process sees it.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) sim: Sim,
    pub(super) machine: MachineId,
    /// The agent's process; [`None`] for clients and the like, whom no gate stops.
    pub(super) run: Option<RunId>,
    pub(super) disk: Disk,
}

impl Host {
    /// Whether a call may go on; parks who may not.
    fn gate(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(run) = self.run else { return Poll::Ready(Ok(())) };
        let mut core = self.sim.core();
        match core.gate(run) {
            Gate::Open => Poll::Ready(Ok(())),
            Gate::Dead => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Gate::Stalled => {
                core.park(run, cx.waker());
                Poll::Pending
            }
        }
    }

    pub(super) async fn pass(&self) -> io::Result<()> {
        poll_fn(|cx| self.gate(cx)).await
    }

    fn owner(&self) -> Owner {
        self.run.map_or(Owner::Task, Owner::Agent)
    }

    /// What a name of its configuration resolves to, which is the balancer's, this machine's configuration names.
    fn knows(&self, addrs: &[IpAddr]) {
        let named: Vec<SocketAddr> = addrs.iter().map(|ip| SocketAddr::new(*ip, balancer::PORT)).collect();
        let configured = self.sim.core().state.machines[self.machine].configured.clone();
        if named.iter().any(|addr| !configured.contains(addr)) {
            self.sim.change(|state| state.machines[self.machine].configured.extend(named));
        }
    }

    /// Dials on behalf of whoever `owner` is.
    pub(super) async fn dial(&self, to: SocketAddr, owner: Owner) -> io::Result<SimStream> {
        self.pass().await?;
        let conn = self.sim.core().dial(self.machine, owner, to)?;
        self.sim.rouse();
        let stream = SimStream { host: self.clone(), conn, end: 0 };
        poll_fn(|cx| {
            std::task::ready!(self.gate(cx))?;
            self.sim.core().dialled(conn, cx.waker())
        })
        .await?;
        Ok(stream)
    }

    pub(super) fn bind_listener(&self, addr: SocketAddr) -> io::Result<SimListener> {
        let addr = self.sim.core().listen(self.machine, self.run, addr)?;
        Ok(SimListener { host: self.clone(), addr })
    }
}

impl Net for Host {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            self.pass().await?;
            Ok(Box::new(self.bind_listener(addr)?) as Box<dyn Listener>)
        })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(Box::new(self.dial(to, self.owner()).await?) as Box<dyn Stream>) })
    }

    fn carry(&self, client: Box<dyn Stream>, upstream: Box<dyn Stream>, meter: Arc<Meter>) -> BoxFuture<'static, Carried> {
        Box::pin(carry(client, upstream, meter))
    }
}

/// A listening socket.
pub(super) struct SimListener {
    host: Host,
    addr: SocketAddr,
}

impl SimListener {
    pub(super) async fn next(&self) -> io::Result<(SimStream, SocketAddr)> {
        poll_fn(|cx| match std::task::ready!(self.host.gate(cx)) {
            // An error would only be tried again.
            Err(_) => Poll::Pending,
            Ok(()) => self.host.sim.core().accept(self.host.machine, self.addr.port(), cx.waker()),
        })
        .await
        .map(|(conn, from)| (SimStream { host: self.host.clone(), conn, end: 1 }, from))
    }
}

impl Listener for SimListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.next().await?;
            Ok((Box::new(stream) as Box<dyn Stream>, from))
        })
    }

    fn accept_now(&self) -> io::Result<Option<(Box<dyn Stream>, SocketAddr)>> {
        let next = pin!(self.next()).as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(next) = next else { return Ok(None) };
        let (stream, from) = next?;
        Ok(Some((Box::new(stream), from)))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut core = self.host.sim.core();
        let ours = self.host.run.is_none_or(|run| !matches!(core.gate(run), Gate::Dead));
        if ours {
            core.unlisten(self.host.machine, self.addr.port());
        }
        drop(core);
        self.host.sim.rouse();
    }
}

/// One end of a connection.
pub(super) struct SimStream {
    host: Host,
    pub(super) conn: ConnId,
    end: usize,
}

impl SimStream {
    /// Whether something other than the end can be read without waiting, or the other side has ended it.
    pub(super) fn dead(&self) -> bool {
        self.host.sim.core().ended(self.conn, self.end)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.host.gate(cx))?;
        self.host.sim.core().read(self.conn, self.end, cx, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.host.gate(cx))?;
        let written = self.host.sim.core().write(self.conn, self.end, cx, bytes);
        self.host.sim.rouse();
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.host.gate(cx))?;
        self.host.sim.core().shut(self.conn, self.end);
        self.host.sim.rouse();
        Poll::Ready(Ok(()))
    }
}

impl Stream for SimStream {
    fn reset_on_drop(&mut self) {
        self.host.sim.core().reset_on_drop(self.conn, self.end);
    }

    fn peer(&self) -> Option<PeerState> {
        self.host.sim.core().peer(self.conn, self.end)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.host.sim.core().drop_end(self.conn, self.end);
        self.host.sim.rouse();
    }
}

impl Datagram for Host {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        Box::pin(async move {
            self.pass().await?;
            let run = self.run.unwrap_or_default();
            let addr = self.sim.core().udp_bind(self.machine, run, addr)?;
            Ok(Box::new(SimSocket { host: self.clone(), addr }) as Box<dyn DatagramSocket>)
        })
    }

    fn source_towards(&self, to: SocketAddr) -> io::Result<IpAddr> {
        self.sim.core().source_towards(self.machine, to.ip())
    }
}

struct SimSocket {
    host: Host,
    addr: SocketAddr,
}

impl DatagramSocket for SimSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.host.pass().await?;
            let sent = self.host.sim.core().udp_send(self.host.machine, self.addr.port(), to, bytes);
            self.host.sim.rouse();
            sent
        })
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(poll_fn(move |cx| match std::task::ready!(self.host.gate(cx)) {
            // An error would only be tried again.
            Err(_) => Poll::Pending,
            Ok(()) => self.host.sim.core().udp_receive(self.host.machine, self.addr.port(), buffer, cx.waker()),
        }))
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let run = self.host.run.unwrap_or_default();
        self.host.sim.core().udp_close(self.host.machine, run, self.addr.port());
    }
}

impl Resolver for Host {
    fn lookup<'a>(&'a self, name: &'a str, found: Found<'a>) -> BoxFuture<'a, Result<(), ResolveError>> {
        Box::pin(async move {
            let error = |reason: &str| ResolveError { name: name.to_owned(), reason: reason.to_owned() };
            self.pass().await.map_err(|_| error("the process is gone"))?;
            let written = name.trim_end_matches('.').to_lowercase();
            let answer = self.sim.core().state.names.get(&written).cloned();
            let (answer, ttl) = match answer {
                Some(Name::TakesTurns(mut turns)) if !turns.is_empty() => {
                    let turn = self.sim.core().now / DNS_TURN;
                    let turn = usize::try_from(turn).unwrap_or_default() % turns.len();
                    (Some(Name::Is(turns.swap_remove(turn))), Duration::from_millis(DNS_TURN))
                }
                answer => (answer, DNS_TTL),
            };
            match answer {
                Some(Name::Is(addrs)) => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    self.pass().await.map_err(|_| error("the process is gone"))?;
                    self.knows(&addrs);
                    for family in Family::ALL {
                        let addrs = addrs.iter().copied().filter(|addr| Family::of(*addr) == family).collect();
                        found(family, Ok(Lookup { addrs, ttl, complete: false }));
                    }
                    Ok(())
                }
                Some(Name::Silent) => {
                    tokio::time::sleep(DNS_PATIENCE).await;
                    Err(error("no answer"))
                }
                Some(Name::Fails) => Err(error("SERVFAIL")),
                Some(Name::TakesTurns(_)) | None => Err(error("NXDOMAIN")),
            }
        })
    }
}

impl Store for Host {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        Box::pin(async move {
            self.pass().await?;
            self.disk.read(path, most)
        })
    }

    fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.pass().await?;
            self.disk.write(path, bytes)
        })
    }

    fn mode<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
        Box::pin(async move { self.disk.read(path, usize::MAX).map(|_| 0o600) })
    }
}

/// A machine's time of day: the world's, and however wrong it is there.
pub(super) struct SimClock(pub(super) Host);

impl WallClock for SimClock {
    fn now(&self) -> SystemTime {
        let core = self.0.sim.core();
        core.wall(self.0.machine)
    }
}
