//! 4, no needless cut, and 5, no lingering: what becomes of established connections.

use std::net::SocketAddr;

use super::Docket;
use super::conditions::{Conditions, Shows, probe_interval};
use crate::sim::log::{ClientConn, UpstreamConn};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{MachineId, Ms};

/// An upstream that was usable for so long before a cut was cut off for nothing.
const HEALTHY_FOR: Ms = 6_000;
/// Loss at which that still holds.
const LOSS: f64 = 0.01;
/// A probe interval up to which the bounds hold as they are.
const INTERVAL: Ms = 1_200;

/// Judges both.
pub(super) fn judge(ran: &Ran) -> [Judged; 2] {
    let mut cuts = Docket::new(4, "no needless cut");
    let mut lingering = Docket::new(5, "no lingering");
    let conditions = Conditions::new(ran);
    for client in &ran.log.clients {
        let Some(upstream) = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn)) else { continue };
        cut(ran, client, upstream, &mut cuts);
        linger(ran, &conditions, client, upstream, &mut lingering);
    }
    [cuts.close(), lingering.close()]
}

fn cut(ran: &Ran, client: &ClientConn, upstream: &UpstreamConn, docket: &mut Docket) {
    let (n, run) = upstream.by;
    let (Some((at, false)), Some((_, false))) = (client.agent_ended, upstream.ended) else {
        // Somebody else ended it. It could have been cut if something was wrong while it was open.
        let to = client.ended.map_or(ran.ended, |(at, _)| at);
        if ran.history.during(client.opened, to).any(|state| state.faults > 0) {
            docket.evaluated();
        }
        return;
    };
    let stopped = ran.log.runs.get(&run).and_then(|seen| seen.to).is_some_and(|to| to <= at);
    if stopped {
        return;
    }
    docket.evaluated();
    if at >= HEALTHY_FOR && ran.history.usable(n, upstream.to, (at - HEALTHY_FOR, at), LOSS) {
        docket.broken(at, || {
            format!("{} cut a connection to {}, which was usable all the time", ran.names[n], ran.name_of(upstream.to))
        });
    }
}

fn linger(ran: &Ran, conditions: &Conditions<'_>, client: &ClientConn, upstream: &UpstreamConn, docket: &mut Docket) {
    let (n, run) = upstream.by;
    // What stands behind a balancer is the balancer's affair: which of them a connection has nobody here knows.
    if ran.history.at(client.opened).sites.get(&upstream.to).is_some_and(|site| site.backends.is_some()) {
        return;
    }
    let opened = client.first_byte.unwrap_or(client.opened);
    let open_until =
        [client.ended.map(|(at, _)| at), upstream.ended.map(|(at, _)| at)].into_iter().flatten().min().unwrap_or(ran.ended);
    let changes = conditions.of(n, upstream.to);
    for (place, (t0, shows)) in changes.iter().enumerate() {
        let bound = match shows {
            Shows::Dead => 500,
            Shows::Silent => 6_000,
            Shows::Hung => 10_000,
            _ => continue,
        };
        let t1 = changes.get(place + 1).map_or(ran.ended, |(at, _)| *at);
        if *t0 < opened || *t0 > open_until {
            continue;
        }
        let more = if *shows == Shows::Dead { 0 } else { 2 * probe_interval(ran, run, *t0).saturating_sub(INTERVAL) };
        let Some(by) = deadline(ran, n, upstream.to, *t0, bound + more).filter(|by| *by < t1) else { continue };
        docket.evaluated();
        if open_until > by {
            docket.broken(by, || {
                format!(
                    "{} still held a connection to {}, {shows:?} since {t0} ms, at {by} ms; it ended at {open_until} ms",
                    ran.names[n],
                    ran.name_of(upstream.to)
                )
            });
        }
    }
}

/// By when a connection to an endpoint that is dead since `t0` has to be gone: some time after that, or after another one
/// became usable and stayed so; [`None`] if none did.
fn deadline(ran: &Ran, n: MachineId, dead: SocketAddr, t0: Ms, bound: Ms) -> Option<Ms> {
    let others: Vec<SocketAddr> = ran.history.at(t0).sites.keys().copied().filter(|e| *e != dead).collect();
    let starts = std::iter::once(t0).chain(ran.history.changes().filter(|at| *at > t0));
    for from in starts {
        let by = from + bound;
        if by > ran.ended {
            return None;
        }
        if others.iter().any(|e| ran.history.usable(n, *e, (from, by), 0.05)) {
            return Some(by);
        }
    }
    None
}
