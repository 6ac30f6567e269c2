//! The six seams to the world. Nothing in this crate goes round them: who replaces them runs the agent that ships.
//!
//! Timers are tokio's, so that a paused clock drives everything that waits.
//! The real implementations are in [`real`].

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::event::{ProbeOrder, Probed, ResetReason};
use crate::engine::liveness::{PeerRecord, PeerState};
use crate::engine::{Endpoint, Moment};

pub mod fault;
pub mod real;
#[cfg(test)]
pub(crate) mod testing;

/// A boxed future, as the seams' methods return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The world as one agent sees it.
#[derive(Clone)]
pub struct World {
    /// UDP.
    pub datagram: Arc<dyn Datagram>,
    /// TCP.
    pub net: Arc<dyn Net>,
    /// Probes.
    pub prober: Arc<dyn Prober>,
    /// Names.
    pub resolver: Arc<dyn Resolver>,
    /// Files.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub wall: Arc<dyn WallClock>,
    /// The agent's start on tokio's clock.
    pub clock: Clock,
}

/// Translates between tokio's clock and the engine's [`Moment`]s.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The engine's time now.
    pub fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// The engine's time at an instant of tokio's.
    pub fn moment(&self, at: Instant) -> Moment {
        Moment::START + at.saturating_duration_since(self.start)
    }

    /// Tokio's instant of a moment.
    pub fn instant(&self, at: Moment) -> Instant {
        self.start + at.since(Moment::START)
    }
}

/// Seam: send and receive datagrams.
pub trait Datagram: Send + Sync {
    /// Binds a socket. Port 0 takes a free one. An IPv6 wildcard is dual stack; mapped addresses come out canonical.
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>>;

    /// Binds a socket to an address that this machine does not have yet.
    fn bind_ahead(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        self.bind(addr)
    }

    /// The source address this machine would use towards `to` (nothing is sent).
    fn source_towards(&self, to: SocketAddr) -> io::Result<IpAddr>;
}

/// A bound datagram socket.
pub trait DatagramSocket: Send + Sync {
    /// Where it is bound.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Sends one datagram.
    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>>;

    /// Receives one datagram: its length and sender. A longer one than `buffer` is cut off. Cancel-safe.
    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>>;
}

/// Seam: connect, accept, carry.
pub trait Net: Send + Sync {
    /// Listens for connections. Port 0 takes a free one.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Listens at an address that this machine does not have yet, and serves it once it does.
    fn listen_ahead(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.listen(addr)
    }

    /// Dials. The stream has `TCP_NODELAY` and the upstream side's keepalive.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;

    /// Carries bytes both ways until both ends have closed, one has failed, or [`Meter::end`] was called.
    /// Half-closes and resets are passed on as such. Nothing is buffered beyond need. When [`Meter::look`] was called the upstream's
    /// [`Stream::peer`] is noted.
    fn carry(&self, client: Box<dyn Stream>, upstream: Box<dyn Stream>, meter: Arc<Meter>) -> BoxFuture<'static, Carried>;
}

/// A listening socket.
pub trait Listener: Send + Sync {
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Whether it is bound to the IPv6 wildcard and takes IPv4 connections as well.
    fn takes_both_families(&self) -> bool {
        false
    }

    /// The next connection and who it is from. The stream has `TCP_NODELAY` and the client side's keepalive. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;

    /// The same for a connection that is complete already; [`None`] if there is none. Never waits, and does not depend on what
    /// the runtime knows of the socket.
    fn accept_now(&self) -> io::Result<Option<(Box<dyn Stream>, SocketAddr)>>;
}

/// A byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin + Any {
    /// Makes dropping it a reset instead of an orderly close.
    fn reset_on_drop(&mut self);

    /// What the kernel knows of the peer; [`None`] where there is no kernel to ask.
    fn peer(&self) -> Option<PeerState> {
        None
    }

    /// For a [`Net`] that carries its own streams by other means than reading and writing.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// How [`Net::carry`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Both ends closed in an orderly way.
    Closed,
    /// The client reset or vanished.
    ClientFailed,
    /// The upstream reset or vanished.
    UpstreamFailed,
    /// [`Meter::end`]: both ends were reset.
    Ended,
}

/// What is measured of one carried connection, readable while it is carried, and what its carrier is asked to do.
#[derive(Debug)]
pub struct Meter {
    clock: Clock,
    to_upstream: AtomicU64,
    to_client: AtomicU64,
    last_from_upstream: AtomicU64,
    last_to_upstream: AtomicU64,
    /// When the client first said something to which nothing has come yet; 0 when nothing is open.
    unanswered_since: AtomicU64,
    /// That nothing has come for long was told.
    told_unanswered: AtomicBool,
    peer: Mutex<Option<PeerRecord>>,
    /// The carrier is to look at the peer.
    look: AtomicBool,
    end: OnceLock<Option<ResetReason>>,
    nudge: Notify,
}

impl Meter {
    /// A meter for a connection whose upstream has just sent its first byte.
    pub fn new(clock: Clock) -> Meter {
        Meter {
            clock,
            to_upstream: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            last_from_upstream: AtomicU64::new(clock.now().as_nanos()),
            last_to_upstream: AtomicU64::new(0),
            unanswered_since: AtomicU64::new(0),
            told_unanswered: AtomicBool::new(false),
            peer: Mutex::new(None),
            look: AtomicBool::new(false),
            end: OnceLock::new(),
            nudge: Notify::new(),
        }
    }

    /// Counts bytes that the upstream's socket took, now.
    pub fn count_to_upstream(&self, bytes: usize) {
        self.to_upstream.fetch_add(bytes as u64, Ordering::Relaxed);
        let now = self.clock.now().as_nanos();
        self.last_to_upstream.store(now, Ordering::Relaxed);
        let _ = self.unanswered_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Counts bytes that came from the upstream, now.
    pub fn count_to_client(&self, bytes: usize) {
        self.to_client.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last_from_upstream.store(self.clock.now().as_nanos(), Ordering::Relaxed);
        self.unanswered_since.store(0, Ordering::Relaxed);
        self.told_unanswered.store(false, Ordering::Relaxed);
    }

    /// Bytes carried to the upstream.
    pub fn to_upstream(&self) -> u64 {
        self.to_upstream.load(Ordering::Relaxed)
    }

    /// Bytes carried to the client.
    pub fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }

    /// When the upstream last sent something.
    pub fn last_from_upstream(&self) -> Moment {
        Moment::from_nanos(self.last_from_upstream.load(Ordering::Relaxed))
    }

    /// When the client first said something to which nothing has come yet.
    pub fn unanswered_since(&self) -> Option<Moment> {
        Some(self.unanswered_since.load(Ordering::Relaxed)).filter(|since| *since != 0).map(Moment::from_nanos)
    }

    /// Once for each silence: whether the client has gone on asking for so long and nothing has come.
    pub fn turns_unanswered(&self, after: Duration) -> bool {
        let last = Moment::from_nanos(self.last_to_upstream.load(Ordering::Relaxed));
        self.unanswered_since().is_some_and(|since| last.since(since) >= after)
            && !self.told_unanswered.swap(true, Ordering::Relaxed)
    }

    /// Asks the carrier to look at the upstream's peer soon.
    pub fn look(&self) {
        self.look.store(true, Ordering::Relaxed);
        self.nudge.notify_one();
    }

    /// What was seen of the peer when it was last looked at.
    pub fn peer(&self) -> Option<PeerRecord> {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the carrier: notes what `upstream` says of its peer, if that was asked for.
    pub fn look_if_asked(&self, upstream: &dyn Stream) {
        if self.look.swap(false, Ordering::Relaxed)
            && let Some(state) = upstream.peer()
        {
            let mut peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
            *peer = Some(PeerRecord::after(*peer, self.clock.now(), state));
        }
    }

    /// Asks the carrier to reset both ends: because the agent stops ([`None`]), or for a reason that the upstream gave.
    pub fn end(&self, reason: Option<ResetReason>) {
        // The first reason counts.
        let _ = self.end.set(reason);
        self.nudge.notify_one();
    }

    /// Why both ends are to be reset; [`None`] while they are not.
    pub fn end_reason(&self) -> Option<Option<ResetReason>> {
        self.end.get().copied()
    }

    /// Completes when [`Meter::end`] was called.
    pub async fn ended(&self) {
        while self.end_reason().is_none() {
            self.nudge.notified().await;
        }
    }

    /// For the carrier: completes after [`Meter::look`] or [`Meter::end`] was called.
    pub async fn nudged(&self) {
        self.nudge.notified().await;
    }
}

/// Seam: one probe, its outcome.
pub trait Prober: Send + Sync {
    /// Makes one probe. Each phase ends within its limit, give or take the scheduler.
    fn probe(&self, order: ProbeOrder) -> BoxFuture<'_, Probed>;

    /// This endpoint is probed no more: whatever is kept for it may go.
    fn forget(&self, _endpoint: Endpoint) {}

    /// When the certificate that each endpoint showed last ends, in seconds since 1970; empty where nobody looks.
    fn certificates(&self) -> BTreeMap<Endpoint, i64> {
        BTreeMap::new()
    }
}

/// Seam: names.
pub trait Resolver: Send + Sync {
    /// Looks a name up in both address families at once. `found` is called with each family's answer as soon as it is known, at
    /// most once a family: the IPv4 addresses do not wait for an IPv6 answer that may never come.
    ///
    /// # Errors
    /// Why the families of which `found` was not told have no answer.
    fn lookup<'a>(&'a self, name: &'a str, found: Found<'a>) -> BoxFuture<'a, Result<(), ResolveError>>;
}

/// Where a look-up tells a family's answer.
pub type Found<'a> = &'a (dyn Fn(Family, Result<Lookup, ResolveError>) + Send + Sync);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// A name's addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// None: the name exists, and has no address of this family.
    pub addrs: Vec<IpAddr>,
    /// Ask again after this.
    pub ttl: Duration,
    /// These are all there are, as in a file. An answer of DNS may be one of several subsets that take turns.
    pub complete: bool,
}

/// A name could not be resolved; what was known of it stays.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot resolve {name}: {reason}")]
pub struct ResolveError {
    /// The name.
    pub name: String,
    /// What the resolver said.
    pub reason: String,
}

/// Seam: files. Each call answers, if need be with an error, within seconds: a file system that hangs must not stop its caller.
pub trait Store: Send + Sync {
    /// Reads a whole file of at most `most` bytes; a longer one is [`io::ErrorKind::FileTooLarge`].
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>>;

    /// Writes a file of mode 0600 whole or not at all: a failed write leaves what was there.
    /// Missing parent directories are made, with mode 0700.
    fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>>;

    /// The permission bits of a file (of a link's target).
    fn mode<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<u32>>;

    /// Who may do what with a file or directory, and who made the links that lead to it.
    fn access<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Access>> {
        Box::pin(async move { Ok(Access { owner: self.user(), mode: self.mode(path).await?, link_owners: BTreeSet::new() }) })
    }

    /// The number of the user that this process runs as; of a store that knows no users, an ordinary one that owns everything.
    fn user(&self) -> u32 {
        1
    }
}

/// Who may do what with a file. Users are told by their numbers; root is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The owner (of a link's target).
    pub owner: u32,
    /// The permission bits (of a link's target), set-id and sticky bits included.
    pub mode: u32,
    /// The owners of all symbolic links on the way to it.
    pub link_owners: BTreeSet<u32>,
}

/// Seam: the time of day.
pub trait WallClock: Send + Sync {
    /// Now.
    fn now(&self) -> SystemTime;
}
