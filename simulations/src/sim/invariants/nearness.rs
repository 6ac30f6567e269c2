//! 7, nearness: who has been left in peace for a while uses what is near.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use prismesh::engine::band;

use super::Docket;
use super::conditions::{direct, probe_interval, round_trips, run_at};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{MachineId, Ms, State};

/// Beside five probe intervals.
const SETTLED: Ms = 30_000;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(7, "nearness");
    let bands = bands(ran);
    for client in ran.log.clients.iter().filter(|client| client.kind.is_carried()) {
        let (Some(first), Some(conn)) = (client.first_byte, client.upstream) else { continue };
        let Some(upstream) = ran.log.upstreams.get(&conn) else { continue };
        let n = client.node;
        let Some(run) = run_at(ran, n, client.opened) else { continue };
        let settled = ran.history.quiet_since(first).is_some_and(|since| {
            let from = ran.log.runs.get(&run).map_or(since, |seen| seen.from);
            client.opened >= since.max(from) + SETTLED + 5 * probe_interval(ran, run, first)
        });
        if !settled || !direct(ran.history.at(client.opened), n, upstream.to) {
            continue;
        }
        let seen = bands[n].partition_point(|(at, _)| *at <= client.opened);
        let Some((_, band)) = seen.checked_sub(1).map(|last| &bands[n][last]) else { continue };
        if band.far.is_empty() {
            continue;
        }
        docket.evaluated();
        if let Some(here) = band.far.get(&upstream.to) {
            docket.broken(client.opened, || {
                format!(
                    "{} went to {}, {here} ms away, although the nearest is {} ms away",
                    ran.names[n],
                    ran.name_of(upstream.to),
                    band.lowest
                )
            });
        }
    }
    docket.close()
}

/// What is near to a node while a state of the world lasts.
#[derive(Default)]
struct Near {
    lowest: u32,
    near: BTreeSet<SocketAddr>,
    /// The others that could be used, and how far they are.
    far: BTreeMap<SocketAddr, u32>,
}

/// Each node's band over time, as the world has it.
fn bands(ran: &Ran) -> Vec<Vec<(Ms, Near)>> {
    let advertised = ran.history.advertised();
    let of = |n: MachineId| {
        let mut bands: Vec<(Ms, Near)> = Vec::new();
        for at in ran.history.changes() {
            let before = bands.last().map(|(_, band)| &band.near);
            bands.push((at, near(ran.history.at(at), n, &advertised, before)));
        }
        bands
    };
    (0..ran.names.len()).map(of).collect()
}

fn near(state: &State, n: MachineId, advertised: &BTreeSet<SocketAddr>, before: Option<&BTreeSet<SocketAddr>>) -> Near {
    let trips = round_trips(state, n, advertised);
    let Some(lowest) = trips.values().min().copied() else { return Near::default() };
    let band = band(Duration::from_millis(lowest.into()));
    let is_near = |e: &SocketAddr, trip: u32| {
        let bound = if before.is_some_and(|before| before.contains(e)) { band.leave } else { band.enter };
        Duration::from_millis(trip.into()) <= bound + rounding(state)
    };
    let near = trips.iter().filter(|(e, trip)| is_near(e, **trip)).map(|(e, _)| *e).collect();
    let far = trips.into_iter().filter(|(e, trip)| !is_near(e, *trip)).collect();
    Near { lowest, near, far }
}

/// A packet's time is whole milliseconds: where it is drawn, a round trip of two packets may be one off from what it is on average.
fn rounding(state: &State) -> Duration {
    if state.zones.jitter > 0.0 { Duration::from_millis(1) } else { Duration::ZERO }
}
