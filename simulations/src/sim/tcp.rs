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

use prismesh::engine::policy::UPSTREAM_USER_TIMEOUT;
use rand::RngExt;

use super::core::{Core, Due, RunId};
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
/// `TCP_USER_TIMEOUT` of the upstream side, and what its keepalive amounts to.
#[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
const USER_TIMEOUT: Ms = UPSTREAM_USER_TIMEOUT.as_millis() as Ms;
/// Connections that a kernel completes for a listener that does not accept them; more SYNs are not answered.
const BACKLOG: usize = 4096;
/// Where ports that nobody asked for begin: those of listeners, those of dials, and how many of the latter there are.
const FREE: u16 = 41_000;
const EPHEMERAL: u16 = 32_768;
const EPHEMERAL_COUNT: u64 = 28_232;
/// How long a kernel tries without one (`tcp_retries2`).
const PATIENCE: Ms = 924_000;
/// A kernel asks this long after the other side has fallen silent whether it is still there: Go's default, and the upstream side's.
const KEEPALIVE: Ms = 15_000;
const KEEPALIVE_UPSTREAM: Ms = 5_000;
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
    user_timeout: bool,
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
}

/// What travels on a connection.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    Data(Vec<u8>),
    Fin,
    Reset,
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
    fn new(machine: MachineId, owner: Owner, user_timeout: bool) -> End {
        End {
            machine,
            owner,
            held: owner != Owner::Nobody,
            got: VecDeque::new(),
            eof: false,
            error: None,
            told: false,
            user_timeout,
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

/// The way of a connection's packets from one end, which an apiserver that drops packets closes.
fn way(state: &State, conn: &Conn, from: usize) -> Way {
    let mut way = state.way(conn.ends[from].machine, conn.ends[1 - from].machine, Class::Api);
    if state.sites.get(&conn.to).is_some_and(|site| site.mode == Mode::Dropping) {
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
        let before = attempt.checked_sub(1).and_then(|before| SYN_AGAIN.get(usize::try_from(before).ok()?)).copied().unwrap_or(0);
        if attempt > 0 {
            let last = attempt.checked_sub(2).and_then(|last| SYN_AGAIN.get(usize::try_from(last).ok()?)).copied().unwrap_or(0);
            self.note_retry(id, before - last);
        }
        if there.open && !self.lost(there) {
            let delay = self.delay(there.delay, there.jitter);
            self.at(self.now + delay, Due::SynArrives { conn: id });
        }
        let again = usize::try_from(attempt).ok().and_then(|attempt| SYN_AGAIN.get(attempt)).map(|again| again - before);
        match again {
            Some(wait) => self.at(self.now + wait, Due::Syn { conn: id, attempt: attempt + 1 }),
            None => self.syn_answered_with(id, Err(io::ErrorKind::TimedOut)),
        }
    }

    pub(super) fn syn_arrives(&mut self, id: ConnId) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        let (machine, to) = (conn.ends[1].machine, conn.to);
        if !self.state.machines.get(machine).is_some_and(|machine| machine.up) {
            return;
        }
        let accepted = if conn.ends[1].owner != Owner::Nobody || conn.ends[1].held {
            true
        } else if let Some(site) = self.state.sites.get(&to).filter(|site| site.backends.is_none()) {
            let accepts = !matches!(site.mode, Mode::Refusing | Mode::Gone | Mode::Dropping);
            if accepts {
                self.own(id, Owner::Apiserver);
                self.apiserver_accepts(to, id);
            }
            accepts
        } else {
            let refusing = self.state.sites.get(&to).is_some_and(|site| site.mode == Mode::Refusing);
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
        if back.open && !self.lost(back) {
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

/// Bytes.
impl Core {
    /// Hands bytes to the network. The caller has seen that there is room.
    pub(super) fn send(&mut self, id: ConnId, from: usize, piece: Piece) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        if let Piece::Data(bytes) = &piece {
            conn.flows[from].full += bytes.len();
        }
        if piece == Piece::Fin {
            conn.ends[from].finished = true;
        }
        if conn.flows[from].retry.is_some() {
            conn.flows[from].queue.push_back(piece);
            return;
        }
        let way = way(&self.state, conn, from);
        if way.open && !self.lost(way) {
            self.deliver(id, from, [piece], way);
        } else if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.flows[from].queue.push_back(piece);
            self.retry_after(id, from, RETRY_FIRST);
        }
        self.watch(id);
    }

    fn deliver(&mut self, id: ConnId, from: usize, pieces: impl IntoIterator<Item = Piece>, way: Way) {
        let delay = self.delay(way.delay, way.jitter);
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let flow = &mut conn.flows[from];
        flow.last = flow.last.max(self.now + delay);
        let at = flow.last;
        for piece in pieces {
            self.at(at, Due::Piece { conn: id, from, piece });
        }
    }

    fn retry_after(&mut self, id: ConnId, from: usize, wait: Ms) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        conn.flows[from].retry = Some(wait);
        conn.flows[from].stuck.get_or_insert(self.now);
        self.note_retry(id, wait);
        self.at(self.now + wait, Due::Retry { conn: id, from });
    }

    pub(super) fn send_again(&mut self, id: ConnId, from: usize) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let Some(wait) = conn.flows[from].retry.take() else { return };
        let way = way(&self.state, conn, from);
        if way.open && !self.lost(way) {
            let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
            conn.flows[from].stuck = None;
            let pieces = std::mem::take(&mut conn.flows[from].queue);
            self.deliver(id, from, pieces, way);
            return;
        }
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let since = conn.flows[from].stuck.unwrap_or(self.now);
        let patience = if conn.ends[from].user_timeout { USER_TIMEOUT } else { PATIENCE };
        if self.now >= since + patience {
            conn.flows[from].queue.clear();
            self.give_up(id, from);
        } else {
            self.retry_after(id, from, (wait * 2).min(RETRY_MOST));
        }
    }

    /// A kernel has waited long enough.
    fn give_up(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        conn.ends[end].fail(io::ErrorKind::TimedOut);
        if conn.ends[end].owner == Owner::Apiserver {
            self.apiserver_lost(id);
            self.let_go(id, end);
        }
        self.bury(id);
    }

    pub(super) fn piece_arrives(&mut self, id: ConnId, from: usize, piece: Piece) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let to = 1 - from;
        let end = &mut conn.ends[to];
        if !self.state.machines.get(end.machine).is_some_and(|machine| machine.up) {
            self.not_acknowledged(id, from, piece);
            return;
        }
        if piece == Piece::Reset {
            let apiserver = end.owner == Owner::Apiserver;
            end.fail(io::ErrorKind::ConnectionReset);
            if apiserver {
                self.apiserver_lost(id);
                self.let_go(id, to);
            }
            self.bury(id);
            return;
        }
        if !end.held {
            // The process is gone or has closed: its kernel says so, once.
            if let Piece::Data(_) = piece {
                self.send_reset(id, to);
            }
            end_of_flow(&mut self.tcp, id, from, &piece);
            self.bury(id);
            return;
        }
        let owner = end.owner;
        match piece {
            Piece::Data(bytes) if owner == Owner::Apiserver => {
                conn.flows[from].full = conn.flows[from].full.saturating_sub(bytes.len());
                self.apiserver_hears(id, &bytes);
            }
            Piece::Data(bytes) => {
                end.got.extend(bytes);
                if let Some(waker) = end.reader.take() {
                    waker.wake();
                }
            }
            Piece::Fin if owner == Owner::Apiserver => {
                self.apiserver_lost(id);
                self.send(id, to, Piece::Fin);
                self.let_go(id, to);
            }
            Piece::Fin => {
                end.eof = true;
                if let Some(waker) = end.reader.take() {
                    waker.wake();
                }
            }
            Piece::Reset => {}
        }
        self.bury(id);
    }

    /// What arrives at a machine without power is sent again, until somebody answers.
    fn not_acknowledged(&mut self, id: ConnId, from: usize, piece: Piece) {
        let Some(conn) = self.tcp.conns.get_mut(&id).filter(|_| piece != Piece::Reset) else { return };
        if conn.ends[from].held && conn.ends[from].error.is_none() {
            conn.flows[from].queue.push_back(piece);
            if conn.flows[from].retry.is_none() {
                self.retry_after(id, from, RETRY_FIRST);
            }
        }
    }

    /// A reset is tried once: whoever does not get it finds out when it sends.
    fn send_reset(&mut self, id: ConnId, from: usize) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        conn.flows[from].queue.clear();
        conn.flows[from].retry = None;
        let way = way(&self.state, conn, from);
        if way.open && !self.lost(way) {
            self.deliver(id, from, [Piece::Reset], way);
        }
    }

    /// Ends a connection from one end, at once.
    pub(super) fn abort(&mut self, id: ConnId, end: usize) {
        self.send_reset(id, end);
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.ends[end].error = Some(io::ErrorKind::ConnectionReset);
        }
        self.let_go(id, end);
        self.bury(id);
    }

    fn let_go(&mut self, id: ConnId, end: usize) {
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.ends[end].held = false;
            conn.ends[end].got = VecDeque::new();
        }
    }

    /// Forgets a connection that nobody holds and on which nothing is under way.
    fn bury(&mut self, id: ConnId) {
        let over = self.tcp.conns.get(&id).is_some_and(|conn| {
            conn.ends.iter().all(|end| !end.held) || (!conn.ends[0].held && conn.ends[1].owner == Owner::Nobody)
        });
        if over {
            self.tcp.conns.remove(&id);
        } else {
            self.ask_later(id);
        }
    }

    /// The end that is held although the other one is gone: what should have told it may have been lost.
    fn half_open(&self, id: ConnId) -> Option<usize> {
        let conn = self.tcp.conns.get(&id)?;
        (0..2).find(|end| {
            let (here, there) = (&conn.ends[*end], &conn.ends[1 - end]);
            here.held && here.error.is_none() && !there.held && there.owner != Owner::Nobody
        })
    }

    fn ask_later(&mut self, id: ConnId) {
        let Some(end) = self.half_open(id) else { return };
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        if !std::mem::replace(&mut conn.asked, true) {
            let wait = if conn.ends[end].user_timeout { KEEPALIVE_UPSTREAM } else { KEEPALIVE };
            self.at(self.now + wait, Due::Keepalive { conn: id });
        }
    }

    /// A kernel asks whether the other side is still there, and is told that it is not.
    pub(super) fn keepalive(&mut self, id: ConnId) {
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.asked = false;
        }
        if let Some(end) = self.half_open(id) {
            let Some(conn) = self.tcp.conns.get(&id) else { return };
            let there = way(&self.state, conn, end);
            if there.open && !self.lost(there) {
                self.send_reset(id, 1 - end);
            }
            self.ask_later(id);
        }
    }
}

/// What was under way to an end that is gone is under way no more.
fn end_of_flow(tcp: &mut Tcp, id: ConnId, from: usize, piece: &Piece) {
    if let (Some(conn), Piece::Data(bytes)) = (tcp.conns.get_mut(&id), piece) {
        conn.flows[from].full = conn.flows[from].full.saturating_sub(bytes.len());
    }
}

/// What a task sees of its end.
impl Core {
    pub(super) fn read(
        &mut self,
        id: ConnId,
        end: usize,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())) };
        let it = &mut conn.ends[end];
        if it.got.is_empty() {
            if it.eof || (it.told && it.error.is_some()) {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = it.tell() {
                return Poll::Ready(Err(error.into()));
            }
            it.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, _) = it.got.as_slices();
        let count = front.len().min(buffer.remaining());
        buffer.put_slice(&front[..count]);
        it.got.drain(..count);
        let flow = &mut conn.flows[1 - end];
        let was_full = flow.full >= WINDOW;
        flow.full = flow.full.saturating_sub(count);
        if was_full
            && flow.full < WINDOW
            && let Some(waker) = conn.ends[1 - end].writer.take()
        {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn write(&mut self, id: ConnId, end: usize, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let it = &mut conn.ends[end];
        if let Some(error) = it.tell() {
            return Poll::Ready(Err(error.into()));
        }
        if it.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW.saturating_sub(conn.flows[end].full);
        if room == 0 {
            it.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room);
        self.agent_sends(id, end);
        self.send(id, end, Piece::Data(bytes[..count].to_vec()));
        Poll::Ready(Ok(count))
    }

    pub(super) fn shut(&mut self, id: ConnId, end: usize) {
        let finished = self.tcp.conns.get(&id).is_none_or(|conn| conn.ends[end].finished || conn.ends[end].error.is_some());
        if !finished {
            self.send(id, end, Piece::Fin);
        }
    }

    /// The other side has ended it.
    pub(super) fn ended(&self, id: ConnId, end: usize) -> bool {
        self.tcp.conns.get(&id).is_none_or(|conn| conn.ends[end].eof || conn.ends[end].error.is_some())
    }

    pub(super) fn reset_on_drop(&mut self, id: ConnId, end: usize) {
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.ends[end].reset_on_drop = true;
        }
    }

    /// An end is dropped by whoever held it.
    pub(super) fn drop_end(&mut self, id: ConnId, end: usize) {
        self.agent_drops(id, end);
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        let it = &conn.ends[end];
        if conn.stage == Stage::Dialling || it.error.is_some() {
            self.let_go(id, end);
        } else if it.reset_on_drop || !it.got.is_empty() {
            self.abort(id, end);
        } else {
            self.shut(id, end);
            self.let_go(id, end);
        }
        self.bury(id);
    }
}

/// What the judge wants to know.
impl Core {
    /// Something of a proxy's connection to an upstream was lost, either way.
    fn note_retry(&mut self, id: ConnId, wait: Ms) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        if let Owner::Agent(_) = conn.ends[0].owner {
            self.log.retries.entry(conn.ends[0].machine).or_default().push((self.now, wait));
        }
    }

    /// The first of a client's bytes towards an upstream.
    fn agent_sends(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        if let (0, Owner::Agent(run)) = (end, conn.ends[end].owner) {
            let machine = conn.ends[0].machine;
            self.log.client_bytes(self.now, id, (machine, run), conn.to);
        }
    }

    /// An agent lets go of an end: did the other side end it before?
    fn agent_drops(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        let it = &conn.ends[end];
        if let Owner::Agent(_) = it.owner {
            let peer_first = it.eof || it.error.is_some();
            self.log.agent_ended(self.now, id, peer_first);
        }
    }
}

/// What befalls connections from outside.
impl Core {
    /// A broken way ends connections in the end.
    fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let broken = conn.stage == Stage::Open && !(way(&self.state, conn, 0).open && way(&self.state, conn, 1).open);
        // As after a reboot, or a reset that was lost.
        let dead = |end: usize| !conn.ends[end].held && conn.ends[end].error.is_some();
        let waits = |end: usize| conn.ends[end].held && conn.ends[end].error.is_none();
        let orphan = conn.stage == Stage::Open && !broken && ((dead(0) && waits(1)) || (dead(1) && waits(0)));
        conn.broken = broken.then(|| conn.broken.unwrap_or(self.now));
        conn.orphan = orphan.then(|| conn.orphan.unwrap_or(self.now));
        if !broken && !orphan {
            return;
        }
        if !std::mem::replace(&mut conn.watched, true) {
            self.at(self.now + CHECK, Due::Check { conn: id });
        }
    }

    pub(super) fn check_broken(&mut self, id: ConnId) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        conn.watched = false;
        self.watch(id);
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        if conn.orphan.is_some_and(|since| self.now >= since + KEEPALIVE) {
            let dead = usize::from(conn.ends[0].held);
            self.send_reset(id, dead);
            return;
        }
        let Some(since) = conn.broken else { return };
        for end in 0..2 {
            let patience = match self.tcp.conns.get(&id) {
                Some(conn) if conn.ends[end].user_timeout && conn.ends[end].held => USER_TIMEOUT,
                Some(_) => PATIENCE,
                None => return,
            };
            if self.now >= since + patience {
                self.give_up(id, end);
            }
        }
        // Nobody is left who could wait for the other end.
        let forgotten = self
            .tcp
            .conns
            .get(&id)
            .is_some_and(|conn| self.now >= since + PATIENCE || conn.ends.iter().all(|end| !end.held || end.error.is_some()));
        if forgotten {
            self.bury(id);
        }
    }

    pub(super) fn ways_changed(&mut self) {
        for id in self.tcp.conns.keys().copied().collect::<Vec<_>>() {
            self.watch(id);
        }
    }

    /// A machine has lost its power: what it held is gone without a word.
    pub(super) fn machine_lost(&mut self, machine: MachineId) {
        let runs: Vec<RunId> =
            self.runs.iter().filter(|(_, run)| run.machine == machine && run.alive).map(|(id, _)| *id).collect();
        for id in self.tcp.conns.keys().copied().collect::<Vec<_>>() {
            let mut apiserver = false;
            if let Some(conn) = self.tcp.conns.get_mut(&id) {
                for end in conn.ends.iter_mut().filter(|end| end.machine == machine) {
                    apiserver |= end.owner == Owner::Apiserver;
                    end.fail(io::ErrorKind::ConnectionReset);
                    end.got.clear();
                    end.held = false;
                }
                for end in 0..2 {
                    if conn.ends[end].machine == machine {
                        conn.flows[end].queue.clear();
                        conn.flows[end].retry = None;
                    }
                }
            }
            if apiserver {
                self.apiserver_lost(id);
            }
            self.bury(id);
        }
        self.tcp.listeners.retain(|(at, _), _| *at != machine);
        for run in runs {
            self.end_run(run);
        }
    }

    /// A process is gone: its kernel resets what it held.
    pub(super) fn tcp_run_ended(&mut self, run: RunId) {
        for id in self.tcp.conns.keys().copied().collect::<Vec<_>>() {
            for end in 0..2 {
                let owned =
                    self.tcp.conns.get(&id).is_some_and(|conn| conn.ends[end].owner.run() == Some(run) && conn.ends[end].held);
                if owned {
                    self.agent_drops(id, end);
                    if let Some(conn) = self.tcp.conns.get_mut(&id) {
                        conn.ends[end].fail(io::ErrorKind::ConnectionReset);
                        conn.ends[end].got.clear();
                    }
                    self.abort(id, end);
                }
            }
        }
        let closed: Vec<(MachineId, u16)> =
            self.tcp.listeners.iter().filter(|(_, listening)| listening.run == Some(run)).map(|(at, _)| *at).collect();
        for (machine, port) in closed {
            self.unlisten(machine, port);
        }
    }

    /// The process of an apiserver or of the balancer is gone: its kernel resets what it held.
    pub(super) fn site_ended(&mut self, site: SocketAddr) {
        for id in self.tcp.conns.keys().copied().collect::<Vec<_>>() {
            let owned = self.tcp.conns.get(&id).is_some_and(|conn| {
                conn.to == site && matches!(conn.ends[1].owner, Owner::Apiserver | Owner::Task) && conn.ends[1].held
            });
            if owned {
                self.apiserver_lost(id);
                if let Some(conn) = self.tcp.conns.get_mut(&id) {
                    conn.ends[1].fail(io::ErrorKind::ConnectionReset);
                }
                self.abort(id, 1);
            }
        }
    }
}
