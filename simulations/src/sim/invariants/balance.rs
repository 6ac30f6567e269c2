//! 9, balance: equals get equal shares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use prismesh::engine::band;

use super::Docket;
use super::conditions::round_trips;
use crate::sim::log::{ClientConn, ClientKind};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{MachineId, Mode, Ms, State};

/// New connections are counted over this.
const WINDOW: Ms = 5_000;
/// Fewer than this an apiserver say nothing.
const ENOUGH: usize = 50;
/// Nobody gets more than this many fair shares of new ones.
const MOST: f64 = 2.0;
/// An apiserver that is back is found within this: an interval, and two successes.
const FOUND: Ms = 2_000;
/// So long after everything that happened the established ones are even.
const SETTLED: Ms = 600_000;
/// They are looked at this often.
const LOOK: Ms = 60_000;
/// And lie between these, as shares of their mean.
const EVEN: std::ops::RangeInclusive<f64> = 0.5..=1.5;
/// Fewer established ones an apiserver say nothing.
const ESTABLISHED: usize = 20;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> [Judged; 2] {
    let (mut new, mut old) = (Docket::new(9, "balance of new"), Docket::new(9, "balance of established"));
    new_ones(ran, &mut new);
    established(ran, &mut old);
    [new.close(), old.close()]
}

/// Workers that truly have the same band, by their band.
type Groups = BTreeMap<BTreeSet<SocketAddr>, Vec<MachineId>>;

fn workers(ran: &Ran) -> Vec<MachineId> {
    let nodes = ran.plan.cluster.nodes.iter().enumerate();
    nodes.filter(|(_, node)| !node.control_plane).map(|(n, _)| n).collect()
}

fn alike(state: &State, workers: &[MachineId], advertised: &BTreeSet<SocketAddr>) -> Groups {
    let mut groups = Groups::new();
    for n in workers.iter().copied() {
        let band = equals(state, n, advertised);
        if band.len() > 1 {
            groups.entry(band).or_default().push(n);
        }
    }
    groups
}

/// Who is near beyond doubt; empty where jitter could decide about somebody.
fn equals(state: &State, n: MachineId, advertised: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    // Who says that it is not ready is no equal of those that are.
    let ready = |e: &SocketAddr| !matches!(state.sites[e].mode, Mode::Draining | Mode::Overloaded);
    let trips = round_trips(state, n, advertised).into_iter().filter(|(e, _)| ready(e));
    let trips: Vec<(SocketAddr, f64)> = trips.map(|(e, trip)| (e, f64::from(trip))).collect();
    let lowest = trips.iter().map(|(_, trip)| *trip).fold(f64::INFINITY, f64::min);
    if !lowest.is_finite() {
        return BTreeSet::new();
    }
    let noise = 1.0 + state.zones.jitter;
    let band = band(Duration::from_secs_f64(lowest / 1e3));
    let surely_in = |trip: f64| trip * noise <= band.enter.as_secs_f64() * 1e3;
    let surely_out = |trip: f64| trip > band.leave.as_secs_f64() * 1e3 * noise;
    if trips.iter().any(|(_, trip)| !surely_in(*trip) && !surely_out(*trip)) {
        return BTreeSet::new();
    }
    trips.into_iter().filter(|(_, trip)| surely_in(*trip)).map(|(e, _)| e).collect()
}

fn new_ones(ran: &Ran, docket: &mut Docket) {
    let (advertised, workers) = (ran.history.advertised(), workers(ran));
    let answered = |client: &ClientConn| {
        let upstream = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn))?;
        Some((client.first_byte?, client.node, upstream.to)).filter(|_| client.kind.is_carried())
    };
    let mut opened: Vec<(Ms, MachineId, SocketAddr)> = ran.log.clients.iter().filter_map(answered).collect();
    opened.sort_unstable();
    // Who is alike changes with the world only.
    let stretches: Vec<(Ms, Groups)> =
        ran.history.changes().map(|at| (at, alike(ran.history.at(at), &workers, &advertised))).collect();
    for (place, (_, groups)) in stretches.iter().enumerate() {
        if place > 0 && stretches[place - 1].1 == *groups {
            continue;
        }
        let other = stretches[place..].iter().find(|(_, later)| later != groups);
        // Whoever is back has to be found before it can have a share.
        let found = if place == 0 { 0 } else { FOUND };
        let until = other.map_or(ran.ended, |(at, _)| *at);
        let span = ((stretches[place].0 + found).min(until), until);
        for (band, workers) in groups {
            let within = opened.partition_point(|(at, ..)| *at < span.0)..opened.partition_point(|(at, ..)| *at < span.1);
            let theirs: Vec<(Ms, SocketAddr)> =
                opened[within].iter().filter(|(_, n, _)| workers.contains(n)).map(|(at, _, e)| (*at, *e)).collect();
            any_five_seconds(ran, &theirs, band, span.1, docket);
        }
    }
}

/// Slides a window over what a group opened: it begins with each connection.
fn any_five_seconds(ran: &Ran, opened: &[(Ms, SocketAddr)], band: &BTreeSet<SocketAddr>, until: Ms, docket: &mut Docket) {
    let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut end = 0;
    for (begin, (from, e)) in opened.iter().enumerate().take_while(|(_, (from, _))| from + WINDOW <= until) {
        while let Some((_, e)) = opened.get(end).filter(|(at, _)| *at < from + WINDOW) {
            *counts.entry(*e).or_default() += 1;
            end += 1;
        }
        let all = end - begin;
        if all >= ENOUGH * band.len() {
            docket.evaluated();
            let fair = all as f64 / band.len() as f64;
            for (e, got) in counts.iter().filter(|(_, got)| **got as f64 > MOST * fair) {
                docket
                    .broken(*from, || format!("{} got {got} new connections in 5 s, where {fair:.0} were fair", ran.name_of(*e)));
            }
        }
        if let Some(count) = counts.get_mut(e) {
            *count -= 1;
        }
    }
}

fn established(ran: &Ran, docket: &mut Docket) {
    let (advertised, workers) = (ran.history.advertised(), workers(ran));
    let mut at = SETTLED;
    while at < ran.ended {
        // Ten minutes after whatever happened last, be it over or not.
        let last = ran.history.changes().take_while(|change| *change <= at).last().unwrap_or(0);
        if at >= last + SETTLED {
            for (band, workers) in alike(ran.history.at(at), &workers, &advertised) {
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
            && client.ended.is_none_or(|(ended, _)| ended > at)
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
