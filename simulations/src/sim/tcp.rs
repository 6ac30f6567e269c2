//! Modelled TCP: what a socket shows of it, not how it is done.
//!
//! Loss is felt as delay: a lost SYN is repeated after 1, 3 and 7 s, lost data after 200 ms, then twice that, and so on, and
//! what was sent later waits behind it. A partition is silence until the keepalive or the user time-out ends the connection;
//! a dead process answers with a reset; a dead machine is silent. Bandwidth and congestion are not modelled: API traffic
//! is small, and what is tested here is what happens when nothing comes.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

use prismesh::engine::liveness::{PeerState, Unanswered};
use prismesh::engine::policy::{MAX_UPSTREAM_KEEPALIVES, UPSTREAM_KEEPALIVE, UPSTREAM_KEEPALIVE_INTERVAL};
use rand::RngExt;

mod bytes;
mod felt;

use super::core::{Core, Due, RunId};
use super::log::Dialled;
use super::state::{Class, MachineId, Mode, Ms, State, Way};
use super::udp::listens_at;

/// A connection's number.
pub(super) type ConnId = u64;

/// Bytes under way and unread at most, before a writer has to wait.
const WINDOW: usize = 256 * 1024;
/// When a SYN is sent again, counted from the dial's beginning; then the kernel's patience is longer than anybody's here.
const SYN_AGAIN: [Ms; 5] = [1_000, 3_000, 7_000, 15_000, 31_000];
/// The first wait before lost data is sent again, doubled each time.
const RETRY_FIRST: Ms = 200;
/// And at most.
const RETRY_MOST: Ms = 120_000;
/// What the upstream side's keepalive amounts to: an idle connection is given up after this silence.
#[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
const KEEPALIVE_PATIENCE: Ms =
    UPSTREAM_KEEPALIVE.as_millis() as Ms + UPSTREAM_KEEPALIVE_INTERVAL.as_millis() as Ms * MAX_UPSTREAM_KEEPALIVES as Ms;
/// Connections that a kernel completes for a listener that does not accept them; more SYNs are not answered.
const BACKLOG: usize = 4096;
/// Where ports that nobody asked for begin: those of listeners, those of dials, and how many of the latter there are.
const FREE: u16 = 41_000;
const EPHEMERAL: u16 = 32_768;
const EPHEMERAL_COUNT: u64 = 28_232;
/// A kernel asks whether a closed window is still closed after so long, then after twice that, and so on, up to [`RETRY_MOST`].
const WINDOW_PROBE_FIRST: Ms = RETRY_FIRST;
/// How long a kernel tries without one (`tcp_retries2`).
const PATIENCE: Ms = 924_000;
/// A kernel asks this long after the other side has fallen silent whether it is still there: Go's default, and the upstream side's.
const KEEPALIVE: Ms = 15_000;
#[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
const KEEPALIVE_UPSTREAM: Ms = UPSTREAM_KEEPALIVE.as_millis() as Ms;
/// A broken way is looked at this often.
const CHECK: Ms = 1_000;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Tcp {
    pub(super) conns: BTreeMap<ConnId, Conn>,
    listeners: BTreeMap<(MachineId, u16), Listening>,
    next: ConnId,
    pub(super) peak: usize,
}

#[derive(Debug)]
struct Listening {
    run: Option<RunId>,
    /// Where it is bound.
    ip: IpAddr,
    queue: VecDeque<ConnId>,
    acceptor: Option<Waker>,
}

/// One connection: end 0 dialled, end 1 accepted.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) ends: [End; 2],
    flows: [Flow; 2],
    stage: Stage,
    pub(super) to: SocketAddr,
    from: SocketAddr,
    /// Since when its way is broken.
    broken: Option<Ms>,
    /// Since when its way is open, and one end knows nothing of it any more.
    orphan: Option<Ms>,
    /// A look at it is queued.
    watched: bool,
    /// One end is gone, and the other will be asked whether it noticed.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dialling,
    Open,
    Failed(io::ErrorKind),
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) machine: MachineId,
    pub(super) owner: Owner,
    /// Somebody holds it.
    pub(super) held: bool,
    got: VecDeque<u8>,
    eof: bool,
    error: Option<io::ErrorKind>,
    /// Its owner knows of the error.
    told: bool,
    /// It is an agent's upstream side, with the keepalive of those.
    upstream_side: bool,
    /// When something of its peer arrived last.
    heard: Ms,
    /// Its peer has sent data.
    peer_sent: bool,
    finished: bool,
    reset_on_drop: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Who is at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// An agent's process: its proxy.
    Agent(RunId),
    /// An agent's process: a probe.
    Probe(RunId),
    /// A client, or whatever else runs as a task.
    Task,
    /// The modelled apiserver at the dialled address.
    Apiserver,
    /// Nobody yet.
    Nobody,
}

/// The bytes from one end to the other.
#[derive(Debug, Default)]
struct Flow {
    /// What waits to be sent again, and all behind it.
    queue: VecDeque<Piece>,
    retry: Option<Ms>,
    /// Since when something is not acknowledged.
    stuck: Option<Ms>,
    /// Nothing may arrive before this.
    last: Ms,
    /// Bytes under way or unread.
    full: usize,
    /// Since when there is no room for what waits to be sent.
    closed: Option<Ms>,
    /// Bytes that were handed to a way that was open.
    delivered: u64,
}

/// What travels on a connection.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    Data(Vec<u8>),
    Fin,
    Reset,
}

impl Piece {
    fn bytes(&self) -> usize {
        match self {
            Piece::Data(bytes) => bytes.len(),
            Piece::Fin | Piece::Reset => 0,
        }
    }
}

impl Owner {
    fn run(self) -> Option<RunId> {
        match self {
            Owner::Agent(run) | Owner::Probe(run) => Some(run),
            Owner::Task | Owner::Apiserver | Owner::Nobody => None,
        }
    }
}

impl End {
    fn new(machine: MachineId, owner: Owner, upstream_side: bool) -> End {
        End {
            machine,
            owner,
            held: owner != Owner::Nobody,
            got: VecDeque::new(),
            eof: false,
            error: None,
            told: false,
            upstream_side,
            heard: 0,
            peer_sent: false,
            finished: false,
            reset_on_drop: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn fail(&mut self, error: io::ErrorKind) {
        self.error.get_or_insert(error);
        self.wake();
    }

    /// What a call gets for the error: itself once, then that all is over.
    fn tell(&mut self) -> Option<io::ErrorKind> {
        let error = self.error?;
        Some(if std::mem::replace(&mut self.told, true) || self.eof { io::ErrorKind::BrokenPipe } else { error })
    }
}

/// How long a kernel waits for the answer to this SYN before it sends the next one.
fn syn_wait(attempt: u32) -> Option<Ms> {
    let place = usize::try_from(attempt).ok()?;
    let before = place.checked_sub(1).map_or(0, |before| SYN_AGAIN.get(before).copied().unwrap_or(0));
    Some(SYN_AGAIN.get(place)? - before)
}

/// The way of a connection's packets from one end, which an apiserver that drops packets closes.
fn way(state: &State, conn: &Conn, from: usize) -> Way {
    let mut way = state.way(conn.ends[from].machine, conn.ends[1 - from].machine, Class::Api);
    if state.sites.get(&conn.to).is_some_and(|site| site.vanishes_for(conn.ends[0].machine)) {
        way.open = false;
    }
    way
}

/// Listening and dialling.
impl Core {
    pub(super) fn listen(&mut self, machine: MachineId, run: Option<RunId>, addr: SocketAddr) -> io::Result<SocketAddr> {
        self.has_address(machine, addr.ip())?;
        let free = || (FREE..).find(|port| !self.tcp.listeners.contains_key(&(machine, *port)));
        let port = if addr.port() == 0 { free().ok_or(io::ErrorKind::AddrInUse)? } else { addr.port() };
        if self.tcp.listeners.contains_key(&(machine, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listening = Listening { run, ip: addr.ip(), queue: VecDeque::new(), acceptor: None };
        self.tcp.listeners.insert((machine, port), listening);
        Ok(SocketAddr::new(addr.ip(), port))
    }

    /// Closes a listener; who was not accepted yet is reset.
    pub(super) fn unlisten(&mut self, machine: MachineId, port: u16) {
        let Some(closed) = self.tcp.listeners.remove(&(machine, port)) else { return };
        for conn in closed.queue {
            self.abort(conn, 1);
        }
    }

    pub(super) fn accept(&mut self, machine: MachineId, port: u16, waker: &Waker) -> Poll<io::Result<(ConnId, SocketAddr)>> {
        let Some(listening) = self.tcp.listeners.get_mut(&(machine, port)) else { return Poll::Pending };
        let Some(conn) = listening.queue.pop_front() else {
            listening.acceptor = Some(waker.clone());
            return Poll::Pending;
        };
        let owner = listening.run.map_or(Owner::Task, Owner::Agent);
        let from = match self.tcp.conns.get_mut(&conn) {
            Some(open) => {
                open.ends[1].owner = owner;
                open.ends[1].held = true;
                open.from
            }
            None => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        };
        Poll::Ready(Ok((conn, from)))
    }

    /// Begins to dial. End 0 is the caller's.
    pub(super) fn dial(&mut self, machine: MachineId, owner: Owner, to: SocketAddr) -> io::Result<ConnId> {
        let source = self.source_towards(machine, to.ip())?;
        self.tcp.next += 1;
        let id = self.tcp.next;
        let port = EPHEMERAL + u16::try_from(id % EPHEMERAL_COUNT).unwrap_or_default();
        let from = SocketAddr::new(source, port);
        // An address that nobody has is like a machine without power.
        let there = self.state.machine_at(to.ip(), machine).unwrap_or(usize::MAX);
        if self.state.way(machine, there, Class::Api).forbidden {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let conn = Conn {
            ends: [End::new(machine, owner, owner.run().is_some()), End::new(there, Owner::Nobody, false)],
            flows: [Flow::default(), Flow::default()],
            stage: Stage::Dialling,
            to,
            from,
            broken: None,
            orphan: None,
            watched: false,
            asked: false,
        };
        self.tcp.conns.insert(id, conn);
        if let Owner::Agent(run) = owner {
            self.log.dialled(id, Dialled { at: self.now, run, to });
        }
        self.tcp.peak = self.tcp.peak.max(self.tcp.conns.len());
        self.at(self.now, Due::Syn { conn: id, attempt: 0 });
        Ok(id)
    }

    pub(super) fn dialled(&mut self, conn: ConnId, waker: &Waker) -> Poll<io::Result<()>> {
        match self.tcp.conns.get_mut(&conn) {
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(dialling) => match dialling.stage {
                Stage::Open => Poll::Ready(Ok(())),
                Stage::Failed(kind) => Poll::Ready(Err(kind.into())),
                Stage::Dialling => {
                    dialling.ends[0].reader = Some(waker.clone());
                    Poll::Pending
                }
            },
        }
    }

    pub(super) fn send_syn(&mut self, id: ConnId, attempt: u32) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        if conn.stage != Stage::Dialling || !conn.ends[0].held {
            return;
        }
        let there = way(&self.state, conn, 0);
        if self.gets_through(id, attempt, there) {
            let delay = self.delay(there.delay, there.jitter);
            self.at(self.now + delay, Due::SynArrives { conn: id, attempt });
        }
        match syn_wait(attempt) {
            Some(wait) => self.at(self.now + wait, Due::Syn { conn: id, attempt: attempt + 1 }),
            None => self.syn_answered_with(id, Err(io::ErrorKind::TimedOut)),
        }
    }

    /// Whether a SYN or its answer gets through. What is lost is sent again later, which nobody can help; what meets a closed way
    /// meets silence, and that is for the agent to deal with.
    fn gets_through(&mut self, id: ConnId, attempt: u32, way: Way) -> bool {
        let lost = way.open && self.lost(way);
        if lost {
            self.note_retry(id, syn_wait(attempt).unwrap_or(0));
        }
        way.open && !lost
    }

    pub(super) fn syn_arrives(&mut self, id: ConnId, attempt: u32) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        let (machine, to) = (conn.ends[1].machine, conn.to);
        if !self.state.machines.get(machine).is_some_and(|machine| machine.up) {
            return;
        }
        let accepted = if conn.ends[1].owner != Owner::Nobody || conn.ends[1].held {
            true
        } else if let Some(site) = self.state.sites.get(&to).filter(|site| site.backends.is_none()) {
            if site.mode == Mode::QueueFull {
                return;
            }
            let accepts = !matches!(site.mode, Mode::Refusing | Mode::Gone | Mode::Dropping | Mode::Closed);
            if accepts {
                self.own(id, Owner::Apiserver);
                self.apiserver_accepts(to, id);
            }
            accepts
        } else {
            let mode = self.state.sites.get(&to).map(|site| site.mode);
            if mode == Some(Mode::QueueFull) {
                return;
            }
            let refusing = matches!(mode, Some(Mode::Refusing | Mode::Closed));
            let there = |listening: &&mut Listening| !refusing && listens_at(listening.ip, to.ip());
            match self.tcp.listeners.get_mut(&(machine, to.port())).filter(there) {
                Some(listening) if listening.queue.len() >= BACKLOG => return,
                Some(listening) => {
                    listening.queue.push_back(id);
                    if let Some(waker) = listening.acceptor.take() {
                        waker.wake();
                    }
                    self.own(id, Owner::Task);
                    true
                }
                None => false,
            }
        };
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        let back = way(&self.state, conn, 1);
        if self.gets_through(id, attempt, back) {
            let delay = self.delay(back.delay, back.jitter);
            self.at(self.now + delay, Due::SynAnswer { conn: id, accepted });
        }
    }

    fn own(&mut self, id: ConnId, owner: Owner) {
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.ends[1].owner = owner;
            conn.ends[1].held = true;
        }
    }

    pub(super) fn syn_answered(&mut self, id: ConnId, accepted: bool) {
        self.syn_answered_with(id, if accepted { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused) });
    }

    fn syn_answered_with(&mut self, id: ConnId, answer: Result<(), io::ErrorKind>) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        if conn.stage != Stage::Dialling {
            return;
        }
        conn.stage = answer.map_or_else(Stage::Failed, |()| Stage::Open);
        conn.ends[0].heard = self.now;
        conn.ends[0].wake();
        if !conn.ends[0].held {
            // Nobody waits for it any more.
            self.abort(id, 0);
        }
        self.bury(id);
    }

    fn lost(&mut self, way: Way) -> bool {
        way.loss > 0.0 && self.chance.random_bool(way.loss)
    }
}
