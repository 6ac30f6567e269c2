//! 6, agreement: who has been left in peace for a while knows exactly what there is.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use prismesh::engine::event::Verdict;
use prismesh::engine::{Routing, Source};

use super::Docket;
use super::conditions::{probe_interval, run_at};
use crate::sim::core::RunId;
use crate::sim::history::usable_now;
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{AgentLife, MachineId, Ms};

/// Beside four probe intervals.
const SETTLED: Ms = 5_000;
/// An address that a node never proved is probed with growing pauses, up to this.
const NEVER_PROVED: Ms = 300_000;
/// A member that is gone is forgotten by gossip after a quarter of an hour.
const FORGOTTEN: Ms = 960_000;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(6, "agreement");
    for (run, routes) in &ran.log.routes {
        never_empty_again(ran, *run, routes, &mut docket);
    }
    for at in moments(ran) {
        for n in 0..ran.names.len() {
            if let Some(run) = run_at(ran, n, at).filter(|run| settled(ran, *run, n, at)) {
                docket.evaluated();
                knows_what_there_is(ran, n, run, at, &mut docket);
                forgets_who_left(ran, n, run, at, &mut docket);
            }
        }
    }
    docket.close()
}

fn never_empty_again(ran: &Ran, run: RunId, routes: &[(Ms, std::sync::Arc<Routing>)], docket: &mut Docket) {
    let Some(seen) = ran.log.runs.get(&run) else { return };
    for pair in routes.windows(2) {
        if !pair[0].1.upstreams.is_empty() && pair[1].1.upstreams.is_empty() {
            let at = pair[1].0;
            // What does not show a certificate of the CA in this node's file may never be dialled: if that is so of all, nobody is left.
            let state = ran.history.at(at);
            let trusts = &state.machines[seen.machine].trusts;
            let all_foreign = state.sites.values().all(|site| {
                !trusts.contains(&site.ca)
                    || matches!(site.mode, crate::sim::state::Mode::WrongCertificate | crate::sim::state::Mode::NotTls)
            });
            if !all_foreign {
                docket.broken(at, || format!("{}'s routing became empty", ran.names[seen.machine]));
            }
        }
    }
}

/// The moments at which it is looked: before each change of the world, and at the end.
fn moments(ran: &Ran) -> Vec<Ms> {
    let mut moments: Vec<Ms> = ran.history.changes().filter_map(|at| at.checked_sub(1)).collect();
    moments.push(ran.ended.saturating_sub(1));
    moments
}

fn settled(ran: &Ran, run: RunId, n: MachineId, at: Ms) -> bool {
    let quiet = ran.history.quiet_since(at);
    let running = ran.history.at(at).machines[n].agent == AgentLife::Running;
    let from = ran.log.runs.get(&run).map_or(at, |seen| seen.from);
    quiet.is_some_and(|since| running && at >= since.max(from) + SETTLED + 4 * probe_interval(ran, run, at))
}

fn routing_at(ran: &Ran, run: RunId, at: Ms) -> Option<&Routing> {
    let routes = ran.log.routes.get(&run)?;
    let before = routes.partition_point(|(from, _)| *from <= at);
    before.checked_sub(1).map(|last| &*routes[last].1)
}

fn knows_what_there_is(ran: &Ran, n: MachineId, run: RunId, at: Ms, docket: &mut Docket) {
    let empty = Routing::default();
    let routing = routing_at(ran, run, at).unwrap_or(&empty);
    let state = ran.history.at(at);
    let own = &state.machines[n].advertises;
    let answering = routing.upstreams.iter().filter(|upstream| {
        matches!(upstream.verdict, Verdict::Ready | Verdict::Draining)
            && upstream.sources.iter().any(|source| matches!(source, Source::Member | Source::Local))
    });
    let knows: BTreeSet<SocketAddr> = answering.map(|upstream| upstream.endpoint.addr()).collect();
    let is_usable = |e: &SocketAddr| usable_now(state, n, *e, 0.05);
    let quiet_since = ran.history.quiet_since(at).unwrap_or(at);
    let advertised = state.machines.iter().flat_map(|machine| &machine.advertises);
    for e in advertised.filter(|e| is_usable(e) && ran.history.known(n, **e, at)) {
        let at_home = own.contains(e) && own.iter().any(|own| knows.contains(own));
        let new = !ran.log.proofs.keys().any(|(by, endpoint, _)| *by == run && endpoint == e) && at < quiet_since + NEVER_PROVED;
        if !knows.contains(e) && !at_home && !new {
            docket.broken(at, || format!("{} does not count on {}, which is usable from it", ran.names[n], ran.name_of(*e)));
        }
    }
    for e in knows.iter().filter(|e| !is_usable(e)) {
        docket.broken(at, || format!("{} counts on {}, which is not usable from it", ran.names[n], ran.name_of(*e)));
    }
}

fn forgets_who_left(ran: &Ran, n: MachineId, run: RunId, at: Ms, docket: &mut Docket) {
    let Some(routing) = routing_at(ran, run, at) else { return };
    let Some(from) = at.checked_sub(FORGOTTEN + 2 * probe_interval(ran, run, at)) else { return };
    let answers = routing.upstreams.iter().filter(|upstream| upstream.verdict == Verdict::Ready).count();
    for upstream in routing.upstreams.iter().filter(|upstream| upstream.sources.contains(&Source::Member)) {
        let e = upstream.endpoint.addr();
        let told = ran.history.during(from, at).any(|state| state.machines.iter().any(|machine| machine.advertises.contains(&e)));
        if !told && (answers > 1 || upstream.verdict != Verdict::Ready) {
            docket.broken(at, || format!("{} still has {} from a member that left", ran.names[n], ran.name_of(e)));
        }
    }
}
