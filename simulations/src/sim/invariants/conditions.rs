//! What the world knew of the way from a node to an endpoint, over time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::sim::core::RunId;
use crate::sim::history::{in_time, usable_now};
use crate::sim::log::RunSeen;
use crate::sim::run::Ran;
use crate::sim::state::{Class, MachineId, Mode, Ms, State};

/// Loss at which a way is still usable.
pub(super) const LOSS: f64 = 0.05;

/// How an endpoint shows itself to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// It answers.
    Fine,
    /// It refuses, or does not exist.
    Dead,
    /// Nothing comes back from it.
    Silent,
    /// Nothing gets there, though what it sends arrives.
    Deaf,
    /// It accepts and does not answer.
    Hung,
    /// It answers, and too late to be called usable.
    Late,
    /// It refuses new connections, and serves those that are open.
    Closed,
    /// Nothing comes back to new connections, and those that are open are served.
    Full,
    /// It accepts new connections and does not answer on them, and those that are open are served.
    Starved,
    /// Long segments do not get there: new connections get no answer, and of those that are open whoever sends little.
    Narrow,
    /// What answers is no apiserver.
    Foreign,
}

/// How one pair's condition changed.
type Changes = Rc<[(Ms, Shows)]>;

/// The conditions of all pairs, worked out when asked for.
pub(super) struct Conditions<'r> {
    ran: &'r Ran,
    how: fn(&State, MachineId, SocketAddr) -> Shows,
    known: RefCell<BTreeMap<(MachineId, SocketAddr), Changes>>,
}

impl<'r> Conditions<'r> {
    /// What a new connection finds, behind a balancer too.
    pub(super) fn new(ran: &'r Ran) -> Conditions<'r> {
        Conditions { ran, how: shows, known: RefCell::default() }
    }

    /// What stands at the address itself: behind which of a balancer's backends a connection is nobody here knows.
    pub(super) fn itself(ran: &'r Ran) -> Conditions<'r> {
        Conditions { ran, how: shows_itself, known: RefCell::default() }
    }

    /// How `e` showed itself to `n`: from when on, in order.
    pub(super) fn of(&self, n: MachineId, e: SocketAddr) -> Changes {
        self.known.borrow_mut().entry((n, e)).or_insert_with(|| self.changes(n, e).into()).clone()
    }

    fn changes(&self, n: MachineId, e: SocketAddr) -> Vec<(Ms, Shows)> {
        let mut changes: Vec<(Ms, Shows)> = Vec::new();
        for at in self.ran.history.changes() {
            let shows = (self.how)(self.ran.history.at(at), n, e);
            if changes.last().is_none_or(|(_, before)| *before != shows) {
                changes.push((at, shows));
            }
        }
        changes
    }

    /// How many of these endpoints began to show this to `n` in `from..=to`.
    pub(super) fn began<'e>(
        &self,
        n: MachineId,
        endpoints: impl IntoIterator<Item = &'e SocketAddr>,
        what: impl Fn(Shows) -> bool,
        (from, to): (Ms, Ms),
    ) -> u64 {
        let began = |e: &&SocketAddr| {
            let changes = self.of(n, **e);
            changes.iter().skip(1).any(|(at, shows)| (from..=to).contains(at) && what(*shows))
        };
        endpoints.into_iter().filter(began).count() as u64
    }
}

pub(super) fn shows(state: &State, n: MachineId, e: SocketAddr) -> Shows {
    match (shows_itself(state, n, e), state.sites.get(&e)) {
        (Shows::Fine, Some(site)) => behind(state, site.backends.as_deref(), site.machine),
        (shows, _) => shows,
    }
}

fn shows_itself(state: &State, n: MachineId, e: SocketAddr) -> Shows {
    let Some(site) = state.sites.get(&e) else {
        // A machine that runs no apiserver refuses; an address that nobody has says nothing.
        return if state.machine_at(e.ip(), n).is_some() { Shows::Dead } else { Shows::Silent };
    };
    let out = state.way(n, site.machine, Class::Api);
    let back = state.way(site.machine, n, Class::Api);
    if !back.open || site.vanishes_for(n) {
        return Shows::Silent;
    }
    if !out.open {
        return Shows::Deaf;
    }
    if out.swallows_hellos() && !matches!(site.mode, Mode::Refusing | Mode::Gone | Mode::Hung) {
        return Shows::Narrow;
    }
    match site.mode {
        Mode::Refusing | Mode::Gone => Shows::Dead,
        Mode::Hung => Shows::Hung,
        Mode::Closed => Shows::Closed,
        Mode::QueueFull => Shows::Full,
        Mode::NoDescriptors => Shows::Starved,
        _ if foreign(state, n, e) => Shows::Foreign,
        _ if !in_time(state, n, site) => Shows::Late,
        _ => Shows::Fine,
    }
}

/// What stands there, or behind a balancer there, shows no certificate that the node could trust.
pub(super) fn foreign(state: &State, n: MachineId, e: SocketAddr) -> bool {
    state.sites.get(&e).is_some_and(|site| match &site.backends {
        Some(behind) => behind.iter().any(|backend| foreign(state, n, *backend)),
        None => {
            matches!(site.mode, Mode::WrongCertificate | Mode::UnsupportedCertificate | Mode::NotTls)
                || !state.machines[n].trusts.contains(&site.ca)
        }
    })
}

/// A balancer shows the worst of what stands behind it.
fn behind(state: &State, backends: Option<&[SocketAddr]>, balancer: MachineId) -> Shows {
    let mut worst = Shows::Fine;
    for backend in backends.unwrap_or_default() {
        // Nor is it better served where much is lost on that way, which shows to nobody outside.
        let lossy = state.sites.get(backend).is_some_and(|site| !state.both_ways(balancer, site.machine, Class::Api, LOSS));
        match shows(state, balancer, *backend) {
            Shows::Fine if lossy => worst = Shows::Hung,
            Shows::Fine => {}
            Shows::Dead | Shows::Closed if worst == Shows::Fine => worst = Shows::Dead,
            // Through a balancer that accepts, silence looks like an upstream that hangs.
            Shows::Silent | Shows::Deaf | Shows::Hung | Shows::Late | Shows::Full | Shows::Starved | Shows::Narrow => {
                worst = Shows::Hung;
            }
            other => worst = other,
        }
    }
    worst
}

/// Neither this machine's own, which comes first wherever it is, nor the external balancer, which comes last.
pub(super) fn direct(state: &State, n: MachineId, e: SocketAddr) -> bool {
    state.sites.get(&e).is_some_and(|site| site.machine != n && site.backends.is_none())
}

/// How far from a node those are that it could use directly and has heard of, without jitter, in ms.
pub(super) fn round_trips(state: &State, n: MachineId, advertised: &BTreeSet<SocketAddr>) -> BTreeMap<SocketAddr, u32> {
    let named = |e: &SocketAddr| advertised.contains(e) || state.machines[n].configured.contains(e);
    let usable = state.sites.iter().filter(|(e, _)| direct(state, n, **e) && named(e) && usable_now(state, n, **e, LOSS));
    usable.map(|(e, site)| (*e, state.round_trip(n, site.machine))).collect()
}

/// A process's own probe interval at a moment, in ms.
pub(super) fn probe_interval(ran: &Ran, run: RunId, at: Ms) -> Ms {
    let intervals = ran.log.intervals.get(&run).map_or(&[][..], Vec::as_slice);
    let known = intervals.partition_point(|(from, _)| *from <= at);
    known.checked_sub(1).map_or(1_000, |known| u64::try_from(intervals[known].1.as_millis()).unwrap_or(Ms::MAX))
}

/// The process of `n`'s agent that was in service at a moment; the last one, if one still drains.
pub(super) fn run_at(ran: &Ran, n: MachineId, at: Ms) -> Option<RunId> {
    let serves = |seen: &RunSeen| seen.machine == n && seen.from <= at && seen.to.max(seen.gone).is_none_or(|gone| gone > at);
    let runs = ran.log.runs.iter().filter(|(_, seen)| serves(seen));
    runs.map(|(run, _)| *run).next_back()
}
