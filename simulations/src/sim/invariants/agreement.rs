//! 6, agreement: who has been left in peace for a while knows exactly what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use prismesh::engine::event::Verdict;
use prismesh::engine::{Routing, Source};

use super::Docket;
use super::conditions::{foreign, probe_interval};
use crate::sim::core::RunId;
use crate::sim::history::{History, usable_now};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{AgentLife, MachineId, Ms};

/// Beside four probe intervals.
const SETTLED: Ms = 5_000;
/// An address that a node never proved is probed with growing pauses, up to this.
const NEVER_PROVED: Ms = 300_000;
/// A probe that found a stranger may have been under way for this long.
const FOREIGN: Ms = 1_000;
/// A member that is gone is forgotten by gossip after a quarter of an hour.
const FORGOTTEN: Ms = 960_000;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(6, "agreement");
    let mut proven = Proven::new();
    for ((by, e, _), at) in &ran.log.proofs {
        if let Some(seen) = ran.log.runs.get(by) {
            let first = proven.entry((seen.machine, *e)).or_insert(*at);
            *first = (*first).min(*at);
        }
    }
    for run in ran.log.runs.keys() {
        let routes = ran.log.routes.get(run).map_or(&[][..], Vec::as_slice);
        never_empty_again(ran, *run, routes, &mut docket);
        for stretch in ran.history.stretches(ran.ended) {
            for at in looks(ran, *run, routes, stretch) {
                knows_what_there_is(ran, *run, (at, stretch.0), &proven, &mut docket);
            }
        }
        for at in looks_for_who_left(ran, *run) {
            forgets_who_left(ran, *run, at, &mut docket);
        }
    }
    docket.close()
}

/// When some process of a node first proved an endpoint.
type Proven = BTreeMap<(MachineId, SocketAddr), Ms>;

/// When it is looked in a quiet stretch: as soon as it has to be right, at each routing after that, and at its end.
fn looks(ran: &Ran, run: RunId, routes: &[(Ms, Arc<Routing>)], (since, until): (Ms, Ms)) -> Vec<Ms> {
    let Some(seen) = ran.log.runs.get(&run) else { return Vec::new() };
    let (from, until) = (since.max(seen.from), until.min(seen.to.unwrap_or(Ms::MAX)));
    // The interval grows while a node gets to know its cluster.
    let settled = |interval| from + SETTLED + 4 * interval;
    let first = settled(probe_interval(ran, run, settled(probe_interval(ran, run, from))));
    let after = routes.partition_point(|(at, _)| *at <= first);
    let published = routes[after..].iter().map(|(at, _)| *at);
    let mut looks: Vec<Ms> = std::iter::once(first).chain(published).chain(until.checked_sub(1)).collect();
    looks.retain(|at| (first..until).contains(at) && ran.history.at(*at).machines[seen.machine].agent == AgentLife::Running);
    looks
}

/// Before each change of the world, and at the end.
fn looks_for_who_left(ran: &Ran, run: RunId) -> Vec<Ms> {
    let Some(seen) = ran.log.runs.get(&run) else { return Vec::new() };
    let span = seen.from + FORGOTTEN..seen.to.unwrap_or(ran.ended).min(ran.ended);
    let changes = ran.history.changes().chain(seen.to).chain([ran.ended]);
    changes.filter_map(|at| at.checked_sub(1)).filter(|at| span.contains(at)).collect()
}

/// What shows no certificate of the CA in a node's file may never be dialled: a routing is empty if that is so of all that it had,
/// and of nothing else.
fn never_empty_again(ran: &Ran, run: RunId, routes: &[(Ms, Arc<Routing>)], docket: &mut Docket) {
    let Some(seen) = ran.log.runs.get(&run) else { return };
    let mut had = BTreeSet::new();
    for pair in routes.windows(2) {
        had.extend(pair[0].1.upstreams.iter().map(|upstream| upstream.endpoint.addr()));
        if !pair[0].1.upstreams.is_empty() && pair[1].1.upstreams.is_empty() {
            let at = pair[1].0;
            // It was seen to be foreign, and not asked again since.
            let asked = at.saturating_sub(FOREIGN + 2 * probe_interval(ran, run, at));
            let shown = |e: &SocketAddr| ran.history.during(asked, at).any(|state| foreign(state, seen.machine, *e));
            let last: BTreeSet<SocketAddr> = pair[0].1.upstreams.iter().map(|upstream| upstream.endpoint.addr()).collect();
            let kept = had.iter().find(|e| (last.contains(*e) || told(&ran.history, seen.machine, **e, at)) && !shown(e));
            if let Some(kept) = kept {
                docket.broken(at, || {
                    format!("{}'s routing became empty, and {} was no stranger", ran.names[seen.machine], ran.name_of(*kept))
                });
            }
        }
    }
}

/// It is configured at the node, or somebody advertises it.
fn told(history: &History, n: MachineId, e: SocketAddr, at: Ms) -> bool {
    let state = history.at(at);
    state.machines[n].configured.contains(&e) || state.machines.iter().any(|machine| machine.advertises.contains(&e))
}

fn routing_at(ran: &Ran, run: RunId, at: Ms) -> Option<&Routing> {
    let routes = ran.log.routes.get(&run)?;
    let before = routes.partition_point(|(from, _)| *from <= at);
    before.checked_sub(1).map(|last| &*routes[last].1)
}

fn knows_what_there_is(ran: &Ran, run: RunId, (at, quiet_since): (Ms, Ms), proven: &Proven, docket: &mut Docket) {
    let n = ran.log.runs[&run].machine;
    let empty = Routing::default();
    let routing = routing_at(ran, run, at).unwrap_or(&empty);
    let state = ran.history.at(at);
    if !state.machines[n].gossips {
        // It knows what its configuration names, and of no member.
        return;
    }
    let own = &state.machines[n].advertises;
    let answering = routing.upstreams.iter().filter(|upstream| {
        matches!(upstream.verdict, Verdict::Ready | Verdict::Draining)
            && upstream.sources.iter().any(|source| matches!(source, Source::Member | Source::Local))
    });
    let knows: BTreeSet<SocketAddr> = answering.map(|upstream| upstream.endpoint.addr()).collect();
    let is_usable = |e: &SocketAddr| usable_now(state, n, *e, 0.05);
    let advertised = state.machines.iter().flat_map(|machine| &machine.advertises);
    for e in advertised.filter(|e| is_usable(e) && ran.history.known(n, **e, at)) {
        let at_home = own.contains(e) && own.iter().any(|own| knows.contains(own));
        let never_proved = proven.get(&(n, *e)).is_none_or(|first| *first + SETTLED > at);
        if at < quiet_since + NEVER_PROVED && never_proved && !at_home {
            continue;
        }
        docket.evaluated();
        if !knows.contains(e) && !at_home {
            docket.broken(at, || format!("{} does not count on {}, which is usable from it", ran.names[n], ran.name_of(*e)));
        }
    }
    for e in knows.iter().filter(|e| !is_usable(e)) {
        docket.broken(at, || format!("{} counts on {}, which is not usable from it", ran.names[n], ran.name_of(*e)));
    }
}

fn forgets_who_left(ran: &Ran, run: RunId, at: Ms, docket: &mut Docket) {
    let n = ran.log.runs[&run].machine;
    let Some(routing) = routing_at(ran, run, at) else { return };
    let Some(from) = at.checked_sub(FORGOTTEN + 2 * probe_interval(ran, run, at)) else { return };
    let answers = routing.upstreams.iter().filter(|upstream| upstream.verdict == Verdict::Ready).count();
    for upstream in routing.upstreams.iter().filter(|upstream| upstream.sources.contains(&Source::Member)) {
        docket.evaluated();
        let e = upstream.endpoint.addr();
        let told = ran.history.during(from, at).any(|state| state.machines.iter().any(|machine| machine.advertises.contains(&e)));
        if !told && (answers > 1 || upstream.verdict != Verdict::Ready) {
            docket.broken(at, || format!("{} still has {} from a member that left", ran.names[n], ran.name_of(e)));
        }
    }
}
