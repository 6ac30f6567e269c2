//! How fast every node takes notice of an apiserver that came or went.
//!
//! It is read from the world's history (when it turned) and from the routings that agents published (when they followed), and
//! judged by nobody: what must be known by when is what stories and invariants say.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use prismesh::engine::Routing;
use prismesh::engine::event::Verdict;

use super::log::RunSeen;
use super::outcome::{Learned, Turn};
use super::run::Ran;
use super::state::{MachineId, Ms, State};

/// Turns told of one run; one whose apiserver flaps has many.
const TOLD: usize = 16;

/// The first turns of a run, and who took notice when.
pub(super) fn of(ran: &Ran) -> Vec<Learned> {
    let mut turns: Vec<(Ms, Ms, SocketAddr, Turn)> = sites(ran).into_iter().flat_map(|site| turns(ran, site)).collect();
    turns.sort_by_key(|(at, _, site, _)| (*at, *site));
    turns.truncate(TOLD);
    turns.into_iter().filter_map(|(at, until, site, what)| notice(ran, (at, until), site, what)).collect()
}

/// Every address where an apiserver was at some time.
fn sites(ran: &Ran) -> BTreeSet<SocketAddr> {
    let states = ran.history.during(0, ran.ended);
    let sites = states.flat_map(|state| state.sites.iter().filter(|(_, site)| site.backends.is_none()));
    sites.map(|(addr, _)| *addr).collect()
}

/// When an apiserver began and ceased to serve after the beginning, and until when it remained so.
fn turns(ran: &Ran, site: SocketAddr) -> Vec<(Ms, Ms, SocketAddr, Turn)> {
    let mut turns: Vec<(Ms, Ms, SocketAddr, Turn)> = Vec::new();
    let mut served = serves(ran.history.at(0), site);
    // At its end everybody is told to stop, which is no part of the story.
    for at in ran.history.changes().filter(|at| (1..ran.ended).contains(at)) {
        let now = serves(ran.history.at(at), site);
        if now != served {
            if let Some((_, until, ..)) = turns.last_mut() {
                *until = at;
            }
            turns.push((at, ran.ended - 1, site, if now { Turn::Came } else { Turn::Went }));
            served = now;
        }
    }
    turns
}

fn serves(state: &State, site: SocketAddr) -> bool {
    let Some(site) = state.sites.get(&site) else { return false };
    site.mode.serves() && !site.expired && state.machines.get(site.machine).is_some_and(|machine| machine.up)
}

fn notice(ran: &Ran, (at, until): (Ms, Ms), site: SocketAddr, what: Turn) -> Option<Learned> {
    let who: Vec<MachineId> = match what {
        Turn::Came => ran.in_service(at, until).into_iter().collect(),
        // Who did not use it cannot leave it.
        Turn::Went => {
            ran.in_service(at, until).into_iter().filter(|node| ran.routing(*node, at).is_some_and(|it| uses(it, site))).collect()
        }
    };
    let mut after_ms: Vec<Ms> = who.iter().filter_map(|node| Some(noticed(ran, *node, (at, until), site, what)? - at)).collect();
    after_ms.sort_unstable();
    let whose = ran.name_of(site);
    (!who.is_empty()).then_some(Learned { what, whose, at, nodes: who.len(), after_ms })
}

/// Whether a routing counts on an endpoint.
fn uses(routing: &Routing, site: SocketAddr) -> bool {
    let counts = |verdict| matches!(verdict, Verdict::Ready | Verdict::Draining);
    routing.upstreams.iter().any(|upstream| upstream.endpoint.addr() == site && counts(upstream.verdict))
}

/// When a node's routing first said what is true, from `at` on and before `until`.
fn noticed(ran: &Ran, node: MachineId, (at, until): (Ms, Ms), site: SocketAddr, what: Turn) -> Option<Ms> {
    let right = |routing: &Routing| uses(routing, site) == (what == Turn::Came);
    if ran.routing(node, at).is_some_and(right) {
        return Some(at);
    }
    let of_node = |run: &RunSeen| run.machine == node && run.to.is_none_or(|to| to > at);
    let runs = ran.log.runs.iter().filter(|(_, run)| of_node(run));
    let published = runs.filter_map(|(run, _)| ran.log.routes.get(run)).flatten();
    let first = published.filter(|(when, routing)| (at..=until).contains(when) && right(routing)).map(|(when, _)| *when);
    first.min()
}
