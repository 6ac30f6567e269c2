//! The modelled world's one queue of what happens next, and everything it happens to.
//!
//! All of it is behind one lock, which nobody holds while waiting; one task, the pump, sleeps until the next thing is due.
//! Things due at the same millisecond happen in the order in which they were queued.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::apiserver::Apiservers;
use super::draw::Draw;
use super::history::History;
use super::log::Log;
use super::state::{AgentLife, MachineId, Ms, State};
use super::tcp::{ConnId, Piece, Tcp};
use super::trace::Trace;
use super::udp::{Packet, Udp};

/// A process of an agent: each start of one has a number of its own.
pub type RunId = u64;

/// The time of day when a simulation begins, since 1970.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// A handle on the world, for everyone in it.
#[derive(Clone)]
pub struct Sim(Arc<Shared>);

struct Shared {
    core: Mutex<Core>,
    pump: Notify,
    start: Instant,
}

/// The world.
pub(super) struct Core {
    /// The present, as of the last look.
    pub(super) now: Ms,
    pub(super) draw: Draw,
    /// Draws of the network's chances.
    pub(super) chance: StdRng,
    pub(super) state: Arc<State>,
    pub(super) history: History,
    pub(super) tcp: Tcp,
    pub(super) udp: Udp,
    pub(super) apiservers: Apiservers,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) trace: Trace,
    pub(super) log: Log,
    due: BinaryHeap<Reverse<(Ms, u64, Due)>>,
    queued: u64,
    /// The most things that ever were in the queue at once.
    pub(super) queue_peak: usize,
    next_run: RunId,
    /// A sabotage: agents are told of a closed window as of silence.
    pub(super) closed_windows_are_silent: bool,
}

/// An agent's process.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) machine: MachineId,
    pub(super) alive: bool,
    /// Who waits until it gets on again.
    pub(super) parked: Vec<Waker>,
}

/// Something that happens at its time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A datagram arrives.
    Datagram(Packet),
    /// A piece of a connection's bytes arrives at the end that is not `from`.
    Piece { conn: ConnId, from: usize, piece: Piece },
    /// A dial's first packet is sent, for the n-th time.
    Syn { conn: ConnId, attempt: u32 },
    /// It arrives.
    SynArrives { conn: ConnId, attempt: u32 },
    /// Its answer arrives: it is open, or refused.
    SynAnswer { conn: ConnId, accepted: bool },
    /// What could not be sent is sent again.
    Retry { conn: ConnId, from: usize },
    /// A connection whose way is broken is looked at.
    Check { conn: ConnId },
    /// A kernel asks whether the other side of a connection is still there.
    Keepalive { conn: ConnId },
    /// An apiserver's answer is ready.
    Answer(super::apiserver::Answer),
    /// Apiservers tell their watches something.
    Watches,
}

/// How an agent's call to the world begins.
pub(super) enum Gate {
    /// Go on.
    Open,
    /// It is stalled: wait.
    Stalled,
    /// The process is dead.
    Dead,
}

impl Sim {
    /// A world that begins now.
    pub(super) fn new(draw: Draw, state: State) -> Sim {
        let mut state = state;
        state.index();
        let state = Arc::new(state);
        let mut history = History::default();
        history.push(0, state.clone());
        let core = Core {
            now: 0,
            draw,
            chance: draw.stream("network"),
            state,
            history,
            tcp: Tcp::default(),
            udp: Udp::default(),
            apiservers: Apiservers::default(),
            runs: BTreeMap::new(),
            trace: Trace::default(),
            log: Log::default(),
            due: BinaryHeap::new(),
            queued: 0,
            queue_peak: 0,
            next_run: 1,
            closed_windows_are_silent: false,
        };
        Sim(Arc::new(Shared { core: Mutex::new(core), pump: Notify::new(), start: Instant::now() }))
    }

    /// Everything, at this moment.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        let mut core = self.0.core.lock().unwrap_or_else(PoisonError::into_inner);
        core.now = self.now();
        super::complaints::tick(core.now);
        core
    }

    /// Milliseconds since the world began.
    pub fn now(&self) -> Ms {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Tokio's instant of a moment.
    pub(super) fn instant(&self, at: Ms) -> Instant {
        self.0.start + Duration::from_millis(at)
    }

    /// Sleeps until a moment.
    pub async fn until(&self, at: Ms) {
        sleep_until(self.instant(at)).await;
    }

    /// Changes the world, and tells whoever it concerns.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut core = self.core();
        core.change(change);
        drop(core);
        self.rouse();
    }

    /// Something may be due earlier than the pump knows.
    pub(super) fn rouse(&self) {
        self.0.pump.notify_one();
    }

    /// Lets happen what is due, for ever.
    pub(super) async fn pump(self) {
        loop {
            let next = {
                let mut core = self.core();
                core.happen();
                core.due.peek().map(|Reverse((at, ..))| *at)
            };
            let roused = self.0.pump.notified();
            match next {
                None => roused.await,
                Some(at) => tokio::select! {
                    biased;
                    () = roused => {}
                    () = sleep_until(self.instant(at)) => {}
                },
            }
        }
    }
}

impl Core {
    /// Queues something.
    pub(super) fn at(&mut self, at: Ms, due: Due) {
        self.queued += 1;
        self.due.push(Reverse((at.max(self.now), self.queued, due)));
        self.queue_peak = self.queue_peak.max(self.due.len());
    }

    /// How many things are queued, the apiservers' own heartbeat and the kernels' timers aside of connections that are no more.
    pub(super) fn waiting(&self) -> usize {
        let counts = |due: &Due| match due {
            Due::Watches | Due::Keepalive { .. } => false,
            Due::Answer(answer) => self.tcp.conns.contains_key(&answer.conn()),
            Due::Syn { conn, .. } | Due::Retry { conn, .. } | Due::Check { conn } => self.tcp.conns.contains_key(conn),
            _ => true,
        };
        self.due.iter().filter(|Reverse((.., due))| counts(due)).count()
    }

    fn happen(&mut self) {
        while let Some(Reverse((at, ..))) = self.due.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, due))) = self.due.pop() else { return };
            match due {
                Due::Datagram(packet) => self.datagram_arrives(packet),
                Due::Piece { conn, from, piece } => self.piece_arrives(conn, from, piece),
                Due::Syn { conn, attempt } => self.send_syn(conn, attempt),
                Due::SynArrives { conn, attempt } => self.syn_arrives(conn, attempt),
                Due::SynAnswer { conn, accepted } => self.syn_answered(conn, accepted),
                Due::Retry { conn, from } => self.send_again(conn, from),
                Due::Check { conn } => self.check_broken(conn),
                Due::Keepalive { conn } => self.keepalive(conn),
                Due::Answer(answer) => self.answer_due(answer),
                Due::Watches => self.tell_watches(),
            }
        }
    }

    /// Makes a new state of the world and lets everyone feel it.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut State)) {
        let before = self.state.clone();
        let mut after = (*before).clone();
        change(&mut after);
        after.index();
        self.state = Arc::new(after);
        self.history.push(self.now, self.state.clone());
        self.trace.changed(self.now);
        self.machines_changed(&before);
        self.sites_changed(&before);
        self.ways_changed();
    }

    fn machines_changed(&mut self, before: &State) {
        let after = self.state.clone();
        for (id, machine) in after.machines.iter().enumerate() {
            let was = before.machines.get(id);
            if was.is_some_and(|was| was.up) && !machine.up {
                self.machine_lost(id);
            }
            if was.is_some_and(|was| was.agent == AgentLife::Stalled) && machine.agent != AgentLife::Stalled {
                let parked =
                    self.runs.values_mut().filter(|run| run.machine == id).flat_map(|run| std::mem::take(&mut run.parked));
                for waker in parked.collect::<Vec<_>>() {
                    waker.wake();
                }
            }
        }
    }

    /// The time of day at a machine.
    pub(super) fn wall(&self, machine: MachineId) -> SystemTime {
        let off = self.state.machines[machine].clock_off;
        let right = SystemTime::UNIX_EPOCH + EPOCH + Duration::from_millis(self.now);
        let by = Duration::from_millis(off.unsigned_abs());
        if off < 0 { right - by } else { right + by }
    }

    /// A new process of an agent on a machine.
    pub(super) fn new_run(&mut self, machine: MachineId) -> RunId {
        let run = self.next_run;
        self.next_run += 1;
        self.runs.insert(run, Run { machine, alive: true, parked: Vec::new() });
        run
    }

    /// The process is gone, as after SIGKILL: its connections are reset and its sockets closed.
    pub(super) fn end_run(&mut self, run: RunId) {
        let Some(ended) = self.runs.get_mut(&run) else { return };
        ended.alive = false;
        for waker in std::mem::take(&mut ended.parked) {
            waker.wake();
        }
        self.tcp_run_ended(run);
        self.udp.end_run(run);
    }

    /// Whether an agent's call may go on.
    pub(super) fn gate(&self, run: RunId) -> Gate {
        match self.runs.get(&run) {
            Some(it) if it.alive => match self.state.machines.get(it.machine) {
                Some(machine) if machine.agent == AgentLife::Stalled => Gate::Stalled,
                _ => Gate::Open,
            },
            _ => Gate::Dead,
        }
    }

    /// Wakes this one when the agent gets on again.
    pub(super) fn park(&mut self, run: RunId, waker: &Waker) {
        if let Some(run) = self.runs.get_mut(&run)
            && !run.parked.iter().any(|parked| parked.will_wake(waker))
        {
            run.parked.push(waker.clone());
        }
    }
}
