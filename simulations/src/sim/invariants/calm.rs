//! 8, calm: noise moves nothing, and a real change does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use prismesh::engine::event::Verdict;
use prismesh::engine::{Source, band};

use super::Docket;
use super::conditions::probe_interval;
use crate::sim::core::RunId;
use crate::sim::log::RunSeen;
use crate::sim::outcome::Judged;
use crate::sim::plan::Fault;
use crate::sim::run::Ran;
use crate::sim::seams::DNS_TURN;
use crate::sim::state::{MachineId, Ms};

/// One change in this time is allowed.
const WINDOW: Ms = 600_000;
/// To suspect and to down, and a way back and there again.
const CHANGES_IN_A_HOLE: usize = 4;
/// Until everybody has met everybody and measured everything.
const BEGINNING: Ms = 120_000;
/// For how long a story of noise is watched at least.
const WATCHED: Ms = 3_600_000;
/// The least round trip, in ms, at which noise is a share of it ...
const LEAST: u32 = 10;
/// ... and how large a share.
const NOISE: f64 = 0.2;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> [Judged; 4] {
    let (mut noise, mut step) = (Docket::new(8, "calm in noise"), Docket::new(8, "calm after a step"));
    let mut turns = Docket::new(8, "calm while a name's answers take turns");
    let far = ran.plan.cluster.zones.iter().flatten().all(|rtt| *rtt >= LEAST) && ran.plan.cluster.jitter >= NOISE;
    if far && ran.plan.steps.is_empty() && ran.ended >= WATCHED {
        for (run, seen) in &ran.log.runs {
            quiet_nodes_change_nothing(ran, *run, seen.machine, &mut noise);
        }
    }
    for happens in &ran.plan.steps {
        if let Fault::Latency { ms, .. } = happens.what {
            for run in ran.log.runs.keys() {
                a_step_is_followed(ran, *run, happens.at, ms, &mut step);
            }
        }
    }
    for happens in &ran.plan.steps {
        if let (Fault::NameTakesTurns { .. }, Some(lasts)) = (&happens.what, happens.lasts) {
            all_answers_are_kept(ran, (happens.at, (happens.at + lasts).min(ran.ended)), &mut turns);
        }
    }
    let mut hole = Docket::new(8, "calm beside a path MTU hole");
    for happens in &ran.plan.steps {
        if let (Fault::SegmentHole { from, to, .. }, Some(lasts)) = (&happens.what, happens.lasts) {
            let span = (happens.at, (happens.at + lasts).min(ran.ended));
            who_swallows_hellos_is_left_once(ran, (&ran.machines(from), &ran.machines(to)), span, &mut hole);
        }
    }
    [noise.close(), step.close(), turns.close(), hole.close()]
}

/// An endpoint that hellos do not reach is doubted, left, and tried again now and then; it does not come and go.
fn who_swallows_hellos_is_left_once(
    ran: &Ran,
    (from, to): (&BTreeSet<MachineId>, &BTreeSet<MachineId>),
    span: (Ms, Ms),
    docket: &mut Docket,
) {
    let endpoints = ran.endpoints(to, span.0);
    for (n, e) in from.iter().flat_map(|n| endpoints.iter().map(move |e| (*n, *e))) {
        let changes = ran.log.verdicts.iter().filter(|change| change.machine == n && change.endpoint.addr() == e);
        let changes: Vec<Ms> = changes.map(|change| change.at).filter(|at| (span.0..span.1).contains(at)).collect();
        docket.evaluated();
        if let Some(at) = changes.get(CHANGES_IN_A_HOLE) {
            docket.broken(*at, || {
                let (name, endpoint) = (&ran.names[n], ran.name_of(e));
                format!("{name} changed its mind about {endpoint} {} times, which no hello reached", changes.len())
            });
        }
    }
}

type Band = BTreeSet<SocketAddr>;

/// The band after each routing.
fn bands(ran: &Ran, run: RunId) -> Vec<(Ms, Band)> {
    let routes = ran.log.routes.get(&run).map_or(&[][..], Vec::as_slice);
    let near = |routing: &prismesh::engine::Routing| {
        // At a control plane its own apiserver is a group by itself, and the band comes after it.
        let others = routing.upstreams.iter().filter(|it| it.verdict == Verdict::Ready && !it.sources.contains(&Source::Local));
        let first = others.clone().next().map(|it| it.group);
        others.filter(|it| Some(it.group) == first).map(|it| it.endpoint.addr()).collect::<Band>()
    };
    let mut bands: Vec<(Ms, Band)> = Vec::new();
    for (at, routing) in routes {
        let band = near(routing);
        if bands.last().is_none_or(|(_, before)| *before != band) {
            bands.push((*at, band));
        }
    }
    bands
}

fn quiet_nodes_change_nothing(ran: &Ran, run: RunId, machine: MachineId, docket: &mut Docket) {
    let bands = bands(ran, run);
    let verdicts = ran.log.verdicts.iter().filter(|change| change.machine == machine).map(|change| change.at);
    let mut changes: Vec<Ms> = bands.iter().map(|(at, _)| *at).chain(verdicts).filter(|at| *at >= BEGINNING).collect();
    changes.sort_unstable();
    // A verdict and the band that changes with it are one change.
    changes.dedup();
    docket.evaluated();
    for pair in changes.windows(2).filter(|pair| pair[1] - pair[0] < WINDOW) {
        docket.broken(pair[1], || format!("{} changed its mind, and had done so at {} ms", ran.names[machine], pair[0]));
    }
}

/// Once each answer was given, no routing lacks what an earlier one had.
fn all_answers_are_kept(ran: &Ran, (at, to): (Ms, Ms), docket: &mut Docket) {
    let from = at + (ran.plan.control_planes() as Ms + 1) * DNS_TURN;
    if from >= to || !ran.history.throughout(at, to, |state| state.faults <= 1) {
        return;
    }
    for (run, seen) in ran.log.runs.iter().filter(|(_, seen)| seen.from <= at && seen.to.is_none_or(|end| end > to)) {
        let mut had = BTreeSet::new();
        docket.evaluated();
        for (when, routing) in ran.log.routes.get(run).into_iter().flatten().filter(|(when, _)| *when <= to) {
            let has: Band = routing.upstreams.iter().map(|upstream| upstream.endpoint.addr()).collect();
            let lost: Vec<_> = had.difference(&has).collect();
            if !lost.is_empty() && *when >= from {
                docket.broken(*when, || format!("{} no longer has {lost:?}", ran.names[seen.machine]));
            }
            had = has;
        }
    }
}

/// Whoever had in its band an upstream that is now clearly farther than another one of the band has it there no longer.
fn a_step_is_followed(ran: &Ran, run: RunId, at: Ms, ms: u32, docket: &mut Docket) {
    let by = at + 5 * probe_interval(ran, run, at);
    let there = |seen: &&RunSeen| seen.from + BEGINNING / 4 <= at && seen.to.is_none_or(|to| to > by);
    let Some(seen) = ran.log.runs.get(&run).filter(there) else { return };
    if by > ran.ended || !ran.history.throughout(at, by, |state| state.faults <= 1) {
        return;
    }
    let bands = bands(ran, run);
    let band_at =
        |at: Ms| bands[..bands.partition_point(|(from, _)| *from <= at)].last().map(|(_, band)| band.clone()).unwrap_or_default();
    let before = band_at(at.saturating_sub(1));
    let after = band_at(by);
    let (then, now) = (ran.history.at(at.saturating_sub(1)), ran.history.at(at));
    let trip = |state: &crate::sim::state::State, e: &SocketAddr| {
        state.sites.get(e).map(|site| state.round_trip(seen.machine, site.machine))
    };
    for e in &before {
        let (Some(was), Some(is)) = (trip(then, e), trip(now, e)) else { continue };
        let nearest = before.iter().filter_map(|other| trip(now, other)).min().unwrap_or(is);
        let leave = band(Duration::from_millis(nearest.into())).leave;
        let clearly = Duration::from_millis(is.into()) > leave.mul_f64(1.0 + ran.plan.cluster.jitter);
        if was >= LEAST && is >= was + ms && clearly {
            docket.evaluated();
            if after.contains(e) {
                docket.broken(by, || {
                    format!("{} still takes {} for near, {is} ms away since {at} ms", ran.names[seen.machine], ran.name_of(*e))
                });
            }
        }
    }
}
