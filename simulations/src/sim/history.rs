//! What was true when: the judge's only source.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::apiserver::REQUEST_TAKES;
use super::state::{Class, MachineId, Mode, Ms, Site, State};

/// An endpoint counts as known to a node if a member that could exchange datagrams with it for this long advertises it.
const HEARD_FOR: Ms = 3_000;

/// Every state the world was in, with when it began.
#[derive(Clone, Debug, Default)]
pub struct History {
    states: Vec<(Ms, Arc<State>)>,
    /// When each machine first reached somebody whom it has as a seed, or who has it as one; follows from `states`.
    met: OnceCell<BTreeMap<MachineId, Ms>>,
}

impl History {
    /// From `at` on the world is so. A second state of the same moment replaces the first.
    pub(super) fn push(&mut self, at: Ms, state: Arc<State>) {
        self.met.take();
        match self.states.last_mut() {
            Some((last, before)) if *last == at => *before = state,
            _ => self.states.push((at, state)),
        }
    }

    /// The state at a moment.
    pub fn at(&self, at: Ms) -> &State {
        let after = self.states.partition_point(|(from, _)| *from <= at);
        &self.states[after.saturating_sub(1)].1
    }

    /// When it changed.
    pub fn changes(&self) -> impl Iterator<Item = Ms> + '_ {
        self.states.iter().map(|(at, _)| *at)
    }

    /// When a machine was there first.
    pub fn came_up(&self, machine: MachineId) -> Option<Ms> {
        self.states.iter().find(|(_, state)| state.machines[machine].up).map(|(at, _)| *at)
    }

    /// When something may have become usable: when the world changed, and when that had been heard of.
    pub fn turns(&self) -> impl Iterator<Item = Ms> + '_ {
        self.changes().flat_map(|at| [at, at + HEARD_FOR])
    }

    /// Every state that was in force at some time from `from` to `to`.
    pub fn during(&self, from: Ms, to: Ms) -> impl Iterator<Item = &State> {
        let first = self.states.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        self.states[first..].iter().take_while(move |(at, _)| *at <= to).map(|(_, state)| &**state)
    }

    /// Whether something held all the time.
    pub fn throughout(&self, from: Ms, to: Ms, held: impl FnMut(&State) -> bool) -> bool {
        self.during(from, to).all(held)
    }

    /// Since when something holds without a break, looking back from `at`; [`None`] if it does not hold then.
    pub fn since(&self, at: Ms, mut holds: impl FnMut(&State) -> bool) -> Option<Ms> {
        let after = self.states.partition_point(|(from, _)| *from <= at);
        let held = self.states[..after].iter().rev().take_while(|(_, state)| holds(state));
        held.last().map(|(from, _)| *from)
    }

    /// No fault was in force, none began or ended, for this long before `at`.
    pub fn quiet_since(&self, at: Ms) -> Option<Ms> {
        let after = self.states.partition_point(|(from, _)| *from <= at);
        let last = &self.states[after.saturating_sub(1)];
        (last.1.faults == 0).then_some(last.0)
    }

    /// The quiet stretches up to `ended`: from when, and when the world changed again.
    pub fn stretches(&self, ended: Ms) -> impl Iterator<Item = (Ms, Ms)> + '_ {
        let ends = self.states.iter().skip(1).map(|(at, _)| *at).chain([ended]);
        let all = self.states.iter().zip(ends);
        all.filter(|((_, state), _)| state.faults == 0).map(|((from, _), to)| (*from, to))
    }

    /// Whether node `n` could have used endpoint `e` throughout `from..=to`; at most `loss` of the packets may be lost.
    ///
    /// It reads nothing of any agent: `n`'s agent runs, `e` accepts, shows a right certificate and answers `/readyz` in time,
    /// packets pass both ways, and `e` is known to `n`, by its configuration or by a member that was up and could exchange
    /// datagrams with it for some seconds before.
    pub fn usable(&self, n: MachineId, e: SocketAddr, (from, to): (Ms, Ms), loss: f64) -> bool {
        self.throughout(from, to, |state| usable_now(state, n, e, loss)) && self.known(n, e, from)
    }

    /// Whether `n` had to know `e` at `at`.
    pub fn known(&self, n: MachineId, e: SocketAddr, at: Ms) -> bool {
        let state = self.at(at);
        if state.machines[n].configured.contains(&e) {
            return true;
        }
        let Some(from) = at.checked_sub(HEARD_FOR) else { return false };
        let tells = |m: MachineId| {
            state.machines[m].advertises.contains(&e)
                && self.throughout(from, at, |state| state.machines[m].advertises.contains(&e) && state.gossips(m, n))
                && self.introduced(m, from)
        };
        self.introduced(n, from) && (0..state.machines.len()).any(tells)
    }

    /// Whether `n` has met somebody by `at` who could tell others of it: two that know nobody in common do not find each other.
    fn introduced(&self, n: MachineId, at: Ms) -> bool {
        let met = self.met.get_or_init(|| {
            let mut met = BTreeMap::new();
            for (at, state) in &self.states {
                for (one, machine) in state.machines.iter().enumerate() {
                    let others = machine.seeds.iter().filter_map(|seed| state.machine_at(seed.ip(), one));
                    for other in others.filter(|other| *other != one && state.gossips(one, *other)) {
                        met.entry(one).or_insert(*at);
                        met.entry(other).or_insert(*at);
                    }
                }
            }
            met
        });
        met.get(&n).is_some_and(|since| *since <= at)
    }

    /// Whatever was advertised at some time. A node has heard of nothing but this and what its configuration names.
    pub fn advertised(&self) -> BTreeSet<SocketAddr> {
        self.states.iter().flat_map(|(_, state)| &state.machines).flat_map(|machine| machine.advertises.iter().copied()).collect()
    }

    /// When an endpoint came to be advertised.
    pub fn named_at(&self, e: SocketAddr) -> Vec<Ms> {
        let named = |state: &State| state.machines.iter().any(|machine| machine.advertises.contains(&e));
        let mut before = false;
        let begins = |(at, state): &(Ms, Arc<State>)| {
            let now = named(state);
            let was = std::mem::replace(&mut before, now);
            (now && !was).then_some(*at)
        };
        self.states.iter().filter_map(begins).collect()
    }

    /// The endpoints that `n` could have used throughout.
    pub fn all_usable(&self, n: MachineId, span: (Ms, Ms), loss: f64) -> BTreeSet<SocketAddr> {
        let sites = self.at(span.0).sites.keys().copied();
        sites.filter(|site| self.usable(n, *site, span, loss)).collect()
    }
}

/// `/readyz` asked by one machine is answered within this.
const IN_TIME: Ms = 500;

/// Whether it answers `/readyz` in time.
pub fn in_time(state: &State, from: MachineId, site: &Site) -> bool {
    let noise = 1.0 + state.zones.jitter;
    let trip = (f64::from(state.round_trip(from, site.machine)) * noise).ceil();
    trip + (site.mode.readyz_delay() + REQUEST_TAKES) as f64 <= IN_TIME as f64
}

/// The part of *usable* that one state tells.
pub fn usable_now(state: &State, n: MachineId, e: SocketAddr, loss: f64) -> bool {
    let machine = &state.machines[n];
    // A machine without an address of that family has no way there.
    let family = machine.addrs.iter().any(|ip| ip.is_ipv4() == e.is_ipv4());
    let runs = machine.up && machine.agent.runs() && family && state.permits(n, e);
    let serves = |from: MachineId, site: &Site| {
        site.serves(from)
            && in_time(state, from, site)
            && !site.expired
            && machine.trusts.contains(&site.ca)
            && state.both_ways(from, site.machine, Class::Api, loss)
    };
    let Some(site) = state.sites.get(&e).filter(|_| runs) else { return false };
    match &site.backends {
        None => serves(n, site),
        // Which backend a balancer picks is its own affair: it is usable if all of them are.
        Some(behind) => {
            site.mode == Mode::Ready
                && state.both_ways(n, site.machine, Class::Api, loss)
                && !behind.is_empty()
                && behind.iter().all(|backend| state.sites.get(backend).is_some_and(|backend| serves(site.machine, backend)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::state::{Rule, Toll};
    use crate::sim::testing::{api, state, with_apiserver};

    #[test]
    fn who_has_met_nobody_need_not_know_anybody_and_who_once_has_must() {
        let mut there = with_apiserver(state(3), 2);
        there.index();
        there.machines[2].advertises.insert(api(2));
        // Machine 0 names machine 1 to gossip with first, and the two do not reach each other; nor do the others name it.
        let one = *there.machines[0].seeds.iter().nth(1).unwrap();
        let own = *there.machines[0].seeds.iter().next().unwrap();
        there.machines[0].seeds = [one].into();
        [1, 2].into_iter().for_each(|other: MachineId| assert!(there.machines[other].seeds.remove(&own)));
        let cut =
            Rule { id: 1, from: Arc::new([0].into()), to: Arc::new([1].into()), class: Some(Class::Gossip), what: Toll::Block };
        let apart = State { rules: vec![cut], ..there.clone() };
        let mut history = History::default();
        history.push(0, Arc::new(apart.clone()));
        assert!(!history.known(0, api(2), 10_000), "nobody could tell it");
        history.push(20_000, Arc::new(there));
        history.push(21_000, Arc::new(apart));
        assert!(history.known(0, api(2), 30_000), "it was told, and told of");
    }
}
