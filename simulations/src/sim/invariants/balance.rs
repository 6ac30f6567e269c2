//! 9, balance: equals get equal shares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::Docket;
use crate::sim::history::usable_now;
use crate::sim::log::{ClientEnd, ClientKind};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{MachineId, Ms, State};

/// New connections are counted over this.
const WINDOW: Ms = 5_000;
/// Fewer than this an apiserver say nothing.
const ENOUGH: usize = 50;
/// Nobody gets more than this many fair shares of new ones.
const MOST: f64 = 2.0;
/// So long after everything that happened the established ones are even.
const SETTLED: Ms = 600_000;
/// They are looked at this often.
const LOOK: Ms = 60_000;
/// And lie between these, as shares of their mean.
const EVEN: std::ops::RangeInclusive<f64> = 0.5..=1.5;
/// Fewer established ones an apiserver say nothing.
const ESTABLISHED: usize = 20;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(9, "balance");
    new_ones(ran, &mut docket);
    established(ran, &mut docket);
    docket.close()
}

/// The workers that truly have the same band, with the band.
fn alike(state: &State, names: usize, advertised: &BTreeSet<SocketAddr>) -> BTreeMap<BTreeSet<SocketAddr>, Vec<MachineId>> {
    let mut groups: BTreeMap<BTreeSet<SocketAddr>, Vec<MachineId>> = BTreeMap::new();
    for n in 0..names {
        if state.machines[n].advertises.is_empty() {
            let band = band(state, n, advertised);
            if band.len() > 1 {
                groups.entry(band).or_default().push(n);
            }
        }
    }
    groups
}

/// Who is near beyond doubt; empty where jitter could decide about somebody.
fn band(state: &State, n: MachineId, advertised: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    let named = |e: &SocketAddr| advertised.contains(e) || state.machines[n].configured.contains(e);
    let direct = state.sites.iter().filter(|(e, site)| site.backends.is_none() && named(e));
    let usable = direct.filter(|(e, _)| usable_now(state, n, **e, 0.05));
    let trips: Vec<(SocketAddr, f64)> = usable.map(|(e, site)| (*e, f64::from(state.round_trip(n, site.machine)))).collect();
    let lowest = trips.iter().map(|(_, trip)| *trip).fold(f64::INFINITY, f64::min);
    let noise = 1.0 + state.zones.jitter;
    let surely_in = |trip: f64| trip * noise <= (lowest * 1.5).max(lowest + 1.0);
    let surely_out = |trip: f64| trip > (lowest * 2.0).max(lowest + 2.0) * noise;
    if trips.iter().any(|(_, trip)| !surely_in(*trip) && !surely_out(*trip)) {
        return BTreeSet::new();
    }
    trips.into_iter().filter(|(_, trip)| surely_in(*trip)).map(|(e, _)| e).collect()
}

fn new_ones(ran: &Ran, docket: &mut Docket) {
    let advertised = ran.history.advertised();
    let mut windows: BTreeMap<Ms, Vec<(MachineId, SocketAddr)>> = BTreeMap::new();
    for client in ran.log.clients.iter().filter(|client| client.kind == ClientKind::Fresh) {
        let upstream = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn));
        if let (Some(first), Some(upstream)) = (client.first_byte, upstream) {
            windows.entry(first / WINDOW).or_default().push((client.node, upstream.to));
        }
    }
    for (window, opened) in windows {
        let (from, to) = (window * WINDOW, (window + 1) * WINDOW);
        let groups = alike(ran.history.at(from), ran.names.len(), &advertised);
        // Who is alike must be so throughout.
        if ran.history.during(from, to).any(|state| alike(state, ran.names.len(), &advertised) != groups) {
            continue;
        }
        for (band, workers) in groups {
            let of_group: Vec<SocketAddr> = opened.iter().filter(|(n, _)| workers.contains(n)).map(|(_, e)| *e).collect();
            if of_group.len() < ENOUGH * band.len() {
                continue;
            }
            docket.evaluated();
            let fair = of_group.len() as f64 / band.len() as f64;
            for e in &band {
                let got = of_group.iter().filter(|to| *to == e).count() as f64;
                if got > MOST * fair {
                    docket.broken(from, || {
                        format!("{} got {got} new connections in 5 s, where {fair:.0} were fair", ran.name_of(*e))
                    });
                }
            }
        }
    }
}

fn established(ran: &Ran, docket: &mut Docket) {
    let advertised = ran.history.advertised();
    let mut at = SETTLED;
    while at < ran.ended {
        let quiet = ran.history.quiet_since(at).is_some_and(|since| at >= since + SETTLED);
        if quiet {
            for (band, workers) in alike(ran.history.at(at), ran.names.len(), &advertised) {
                even(ran, at, &band, &workers, docket);
            }
        }
        at += LOOK;
    }
}

fn even(ran: &Ran, at: Ms, band: &BTreeSet<SocketAddr>, workers: &[MachineId], docket: &mut Docket) {
    let mut counts: BTreeMap<SocketAddr, usize> = band.iter().map(|e| (*e, 0)).collect();
    let open = ran.log.clients.iter().filter(|client| {
        client.kind == ClientKind::Steady
            && workers.contains(&client.node)
            && client.first_byte.is_some_and(|first| first <= at)
            && client.ended.is_none_or(|(ended, how)| ended > at || how == ClientEnd::Over)
    });
    for upstream in open.filter_map(|client| client.upstream.and_then(|conn| ran.log.upstreams.get(&conn))) {
        if let Some(count) = counts.get_mut(&upstream.to) {
            *count += 1;
        }
    }
    let all: usize = counts.values().sum();
    if all < ESTABLISHED * band.len() {
        return;
    }
    docket.evaluated();
    let mean = all as f64 / band.len() as f64;
    for (e, count) in counts {
        if !EVEN.contains(&(count as f64 / mean)) {
            docket.broken(at, || format!("{} holds {count} connections, where {mean:.0} are the mean", ran.name_of(e)));
        }
    }
}
