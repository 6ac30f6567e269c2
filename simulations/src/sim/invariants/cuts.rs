//! 4, no needless cut, and 5, no lingering: what becomes of established connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::Docket;
use super::conditions::{Conditions, Shows, probe_interval, shows};
use crate::sim::log::{ClientConn, UpstreamConn};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{Class, MachineId, Ms, State};

/// An upstream that was usable for so long before a cut was cut off for nothing.
const HEALTHY_FOR: Ms = 6_000;
/// Loss at which that still holds.
const LOSS: f64 = 0.01;
/// A connection to a process that was killed is gone after this ...
const KILLED: Ms = 500;
/// ... to one of which nothing is heard, or that hears nothing, after this ...
const SILENT: Ms = 6_000;
/// ... and to one that hangs after this.
const HUNG: Ms = 10_000;
/// A probe interval up to which the bounds hold as they are.
const INTERVAL: Ms = 1_200;

/// Judges both.
pub(super) fn judge(ran: &Ran) -> [Judged; 2] {
    let mut cuts = Docket::new(4, "no needless cut");
    let mut lingering = Docket::new(5, "no lingering");
    let conditions = Conditions::itself(ran);
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
        // Somebody else ended it. It could have been cut for nothing if something was wrong while it was open.
        let to = client.ended.map_or(ran.ended, |(at, _)| at);
        let wrong = ran.history.during(client.opened, to).any(|state| state.faults > 0);
        if wrong && to >= client.opened + HEALTHY_FOR && ran.history.usable(n, upstream.to, (to - HEALTHY_FOR, to), LOSS) {
            docket.evaluated();
        }
        return;
    };
    let gone = ran.log.runs.get(&run).and_then(|seen| seen.gone).is_some_and(|gone| gone <= at);
    if gone {
        return;
    }
    docket.evaluated();
    // A balancer's connection is as good as what it leads to.
    let behind = client.upstream.and_then(|conn| ran.log.behind.get(&conn));
    let led_on = |state: &State| behind.is_none_or(|e| shows(state, n, *e) == Shows::Fine);
    let from = at.saturating_sub(HEALTHY_FOR);
    let healthy = ran.history.usable(n, upstream.to, (from, at), LOSS) && ran.history.throughout(from, at, led_on);
    if at >= HEALTHY_FOR && healthy {
        docket.broken(at, || {
            format!("{} cut a connection to {}, which was usable all the time", ran.names[n], ran.name_of(upstream.to))
        });
    }
}

fn linger(ran: &Ran, conditions: &Conditions<'_>, client: &ClientConn, upstream: &UpstreamConn, docket: &mut Docket) {
    let (n, run) = upstream.by;
    let opened = client.first_byte.unwrap_or(client.opened);
    let open_until =
        [client.ended.map(|(at, _)| at), upstream.ended.map(|(at, _)| at)].into_iter().flatten().min().unwrap_or(ran.ended);
    for dead in deaths(&conditions.of(n, upstream.to)) {
        if dead.from < opened || dead.from > open_until {
            continue;
        }
        // Jitter included.
        let more = 2 * (probe_interval(ran, run, dead.from) * 6 / 5).saturating_sub(INTERVAL);
        let bound = match dead.bound {
            KILLED if reset_arrives(ran, n, upstream.to, dead.from) => KILLED,
            bound => bound.max(SILENT) + more,
        };
        let Some(by) = deadline(ran, n, upstream.to, dead.from, bound).filter(|by| dead.to.is_none_or(|to| *by < to)) else {
            continue;
        };
        docket.evaluated();
        if open_until > by {
            docket.broken(by, || {
                format!(
                    "{} still held a connection to {}, {:?} since {} ms, at {by} ms; it ended at {open_until} ms",
                    ran.names[n],
                    ran.name_of(upstream.to),
                    dead.shows,
                    dead.from
                )
            });
        }
    }
}

/// A dead process's kernel says so once, and on a way that loses much this may be lost.
fn reset_arrives(ran: &Ran, n: MachineId, e: SocketAddr, at: Ms) -> bool {
    let state = ran.history.at(at);
    state.machine_at(e.ip(), n).is_some_and(|there| state.both_ways(n, there, Class::Api, 0.05))
}

/// A span in which an endpoint was dead, in one way or several.
struct Death {
    from: Ms,
    to: Option<Ms>,
    shows: Shows,
    /// The longest bound of those ways.
    bound: Ms,
}

fn deaths(changes: &[(Ms, Shows)]) -> Vec<Death> {
    let mut deaths: Vec<Death> = Vec::new();
    for (at, shows) in changes {
        let bound = match shows {
            Shows::Dead => Some(KILLED),
            Shows::Silent | Shows::Deaf => Some(SILENT),
            Shows::Hung => Some(HUNG),
            _ => None,
        };
        let under_way = deaths.last_mut().filter(|death| death.to.is_none());
        match (bound, under_way) {
            (Some(bound), Some(death)) => death.bound = death.bound.max(bound),
            (Some(bound), None) => deaths.push(Death { from: *at, to: None, shows: *shows, bound }),
            (None, Some(death)) => death.to = Some(*at),
            (None, None) => {}
        }
    }
    deaths
}

/// By when a connection to an endpoint that is dead since `t0` has to be gone: some time after that, or after another one
/// became usable and stayed so; [`None`] if none did.
fn deadline(ran: &Ran, n: MachineId, dead: SocketAddr, t0: Ms, bound: Ms) -> Option<Ms> {
    let sites = ran.history.during(t0, ran.ended).flat_map(|state| state.sites.keys().copied().collect::<Vec<_>>());
    let others: BTreeSet<SocketAddr> = sites.filter(|e| *e != dead).collect();
    let starts: BTreeSet<Ms> = std::iter::once(t0).chain(ran.history.turns().filter(|at| *at > t0)).collect();
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
