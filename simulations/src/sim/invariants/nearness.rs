//! 7, nearness: who has been left in peace for a while uses what is near.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::Docket;
use super::conditions::{probe_interval, run_at};
use crate::sim::core::RunId;
use crate::sim::history::usable_now;
use crate::sim::log::ClientKind;
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{MachineId, Ms, State};

/// Beside five probe intervals.
const SETTLED: Ms = 30_000;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(7, "nearness");
    let advertised = ran.history.advertised();
    let mut was_near: BTreeMap<(RunId, SocketAddr), Ms> = BTreeMap::new();
    for (run, routes) in &ran.log.routes {
        for (at, routing) in routes {
            for upstream in routing.upstreams.iter().filter(|upstream| upstream.group == 0) {
                was_near.entry((*run, upstream.endpoint.addr())).or_insert(*at);
            }
        }
    }
    for client in ran.log.clients.iter().filter(|client| client.kind != ClientKind::Bypass) {
        let (Some(first), Some(conn)) = (client.first_byte, client.upstream) else { continue };
        let Some(upstream) = ran.log.upstreams.get(&conn) else { continue };
        let n = client.node;
        let Some(run) = run_at(ran, n, client.opened) else { continue };
        let settled = ran.history.quiet_since(first).is_some_and(|since| {
            let from = ran.log.runs.get(&run).map_or(since, |seen| seen.from);
            client.opened >= since.max(from) + SETTLED + 5 * probe_interval(ran, run, first)
        });
        let state = ran.history.at(client.opened);
        if !settled || !direct(state, n, upstream.to) {
            continue;
        }
        let Some(lowest) = nearest(state, n, &advertised) else { continue };
        let Some(here) = state.sites.get(&upstream.to).map(|site| f64::from(state.round_trip(n, site.machine))) else { continue };
        let before = was_near.get(&(run, upstream.to)).is_some_and(|at| *at < client.opened);
        docket.evaluated();
        if here > bound(state, lowest, before) {
            docket.broken(client.opened, || {
                format!(
                    "{} went to {}, {here} ms away, although the nearest is {lowest} ms away",
                    ran.names[n],
                    ran.name_of(upstream.to)
                )
            });
        }
    }
    docket.close()
}

/// Neither this machine's own, which comes first wherever it is, nor the external balancer, which comes last.
fn direct(state: &State, n: MachineId, e: SocketAddr) -> bool {
    state.sites.get(&e).is_some_and(|site| site.machine != n && site.backends.is_none())
}

fn nearest(state: &State, n: MachineId, advertised: &BTreeSet<SocketAddr>) -> Option<f64> {
    let named = |e: &SocketAddr| advertised.contains(e) || state.machines[n].configured.contains(e);
    let usable = state.sites.iter().filter(|(e, _)| direct(state, n, **e) && named(e) && usable_now(state, n, **e, 0.05));
    usable.map(|(_, site)| state.round_trip(n, site.machine)).min().map(f64::from)
}

/// How far an upstream of the band may be. What is measured is the model's round trip give or take its jitter.
fn bound(state: &State, lowest: f64, was_near: bool) -> f64 {
    let (factor, slack) = if was_near { (2.0, 2.0) } else { (1.5, 1.0) };
    let noise = 1.0 + 2.0 * state.zones.jitter;
    (lowest * factor).max(lowest + slack) * noise + 1.0
}
