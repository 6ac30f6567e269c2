//! 4, no needless reset, and 5, no lingering: what becomes of established connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::Docket;
use super::conditions::{Conditions, Shows, probe_interval};
use crate::sim::log::{ClientConn, UpstreamConn};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{Class, MachineId, Ms, State};

/// A connection is reset only when its peer was silent, or the process behind it hung, for so long ...
const SILENT_FOR: Ms = 3_000;
/// ... until at most this long ago: resets are spread.
const RESET_WITHIN: Ms = 1_500;
/// How far back is looked for a loss of packets or of trust, which excuse a reset.
pub(super) const LOOKED_BACK: Ms = 20_000;
/// Loss above which a peer may seem silent.
const LOSS: f64 = 0.05;
/// A connection to a process that was killed is gone after this ...
const KILLED: Ms = 500;
/// ... to one of which nothing is heard after this ...
const SILENT: Ms = 6_000;
/// ... to one that hears nothing and may go on sending 6 s after something was said to it, which a kubelet does each 10 s ...
const DEAF: Ms = 16_500;
/// ... and to one that hangs after this.
const HUNG: Ms = 10_000;
/// The longest probe interval for which the bound of a hang holds as it is: that of 200 nodes.
const LONGEST_INTERVAL: Ms = 12_000;

/// Judges both.
pub(super) fn judge(ran: &Ran) -> [Judged; 2] {
    let mut resets = Docket::new(4, "no needless reset");
    let mut lingering = Docket::new(5, "no lingering");
    let conditions = Conditions::itself(ran);
    for client in &ran.log.clients {
        let Some(upstream) = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn)) else { continue };
        reset(ran, &conditions, client, upstream, &mut resets);
        linger(ran, &conditions, client, upstream, &mut lingering);
    }
    [resets.close(), lingering.close()]
}

fn reset(ran: &Ran, conditions: &Conditions<'_>, client: &ClientConn, upstream: &UpstreamConn, docket: &mut Docket) {
    let (n, run) = upstream.by;
    let (Some((at, false)), Some((_, false))) = (client.agent_ended, upstream.ended) else {
        // Somebody else ended it. It could have been reset for nothing if something was wrong while it was open.
        let to = client.ended.map_or(ran.ended, |(at, _)| at);
        if ran.history.during(client.opened, to).any(|state| state.faults > 0) {
            docket.evaluated();
        }
        return;
    };
    let gone = ran.log.runs.get(&run).and_then(|seen| seen.gone).is_some_and(|gone| gone <= at);
    if gone || !ran.history.during(at.saturating_sub(LOOKED_BACK), at).all(|state| little_is_lost(state, n, upstream.to)) {
        return;
    }
    docket.evaluated();
    let trusted = ran.history.during(at.saturating_sub(LOOKED_BACK), at).all(|state| trusts(state, n, upstream.to));
    // What its way swallows nothing acknowledges.
    let conn = client.upstream.unwrap_or_default();
    let swallowed = ran.log.swallowed.get(&conn).is_some_and(|since| *since + SILENT_FOR <= at);
    if trusted && !swallowed && !led_to_silence(ran, conditions, client, upstream, at) {
        docket.broken(at, || {
            format!("{} reset a connection to {}, whose peer was neither silent nor hung", ran.names[n], ran.name_of(upstream.to))
        });
    }
}

/// Whether what a connection led to was silent or hung: the endpoint, or behind a balancer the apiserver that it had got.
pub(super) fn led_to_silence(
    ran: &Ran,
    conditions: &Conditions<'_>,
    client: &ClientConn,
    upstream: &UpstreamConn,
    at: Ms,
) -> bool {
    let behind = client.upstream.and_then(|conn| ran.log.behind.get(&conn));
    let balancer = ran.history.at(at).sites.get(&upstream.to).map(|site| site.machine);
    let heard = ran.log.heard.get(&(upstream.by.1, upstream.to)).map_or(&[][..], Vec::as_slice);
    let heard = heard.iter().any(|heard| (at.saturating_sub(SILENT_FOR) + 1..at.saturating_sub(RESET_WITHIN)).contains(heard));
    was_silent(&conditions.of(upstream.by.0, upstream.to), heard, at)
        || behind.zip(balancer).is_some_and(|(backend, balancer)| was_silent(&conditions.of(balancer, *backend), heard, at))
}

/// Whether an endpoint was silent or hung for long enough, and until a moment ago. What has no descriptors left looks hung to whoever
/// has not `heard` from it on any connection.
fn was_silent(changes: &[(Ms, Shows)], heard: bool, at: Ms) -> bool {
    let silent = |shows: &Shows| match shows {
        Shows::Silent | Shows::Deaf | Shows::Hung => true,
        Shows::Starved => !heard,
        _ => false,
    };
    let mut since = None;
    let mut spans = Vec::new();
    for (from, shows) in changes.iter().filter(|(from, _)| *from <= at) {
        match (silent(shows), since) {
            (true, None) => since = Some(*from),
            (true, Some(_)) => {}
            (false, Some(began)) => {
                spans.push((began, *from));
                since = None;
            }
            (false, None) => {}
        }
    }
    spans.extend(since.map(|began| (began, at)));
    spans.iter().any(|(from, to)| to - from >= SILENT_FOR && to + RESET_WITHIN >= at)
}

pub(super) fn little_is_lost(state: &State, n: MachineId, e: SocketAddr) -> bool {
    let there = state.machine_at(e.ip(), n);
    there
        .is_none_or(|there| [state.way(n, there, Class::Api), state.way(there, n, Class::Api)].iter().all(|way| way.loss <= LOSS))
}

pub(super) fn trusts(state: &State, n: MachineId, e: SocketAddr) -> bool {
    let verified = |ca| state.machines[n].trusts.contains(ca);
    state.permits(n, e) && state.sites.get(&e).is_none_or(|site| site.backends.is_some() || verified(&site.ca))
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
        let bound = match dead.bound {
            KILLED if reset_arrives(ran, n, upstream.to, dead.from) => KILLED,
            KILLED => SILENT,
            // A silent peer shows on the connection itself, whatever the cluster's size; a hang only to probes. Jitter included.
            HUNG => HUNG + 2 * (probe_interval(ran, run, dead.from) * 6 / 5).saturating_sub(LONGEST_INTERVAL),
            bound => bound,
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
            Shows::Silent => Some(SILENT),
            Shows::Deaf => Some(DEAF),
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
