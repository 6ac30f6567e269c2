//! The nearest apiserver moves away, as far as packets are concerned.

use std::collections::BTreeSet;

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_use, everyone, nobody_failed, opened_to};
use crate::sim::state::MachineId;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "nearest-changes",
    story: "The way to one control plane grows by 20 to 40 ms, for everybody. Once it has been noticed, only its own node uses it, \
            until the way is short again: then everybody goes where he went before.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    // So many new connections that whoever is used at all is used often.
    let cluster = Cluster { fresh_every: 200, ..cast.cluster(&[2, 3, 5]) };
    let of = who(cast.control_plane(&cluster, "which moves"));
    let ms = u32::try_from(cast.draw.number("one way", 10, 20)).unwrap_or(10);
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: 85_000 }.fault(at, AWAY, Fault::Latency { of, to: Vec::new(), ms })
}

/// For so long it is far.
const AWAY: u64 = 35_000;
/// One in four probes measures how far it is; the share of who is near again grows from little.
const MEASURED_ANEW: u64 = 8_000;

fn holds(ran: &Ran) -> Vec<String> {
    let Some(step) = ran.plan.steps.first() else { return Vec::new() };
    let Fault::Latency { of, .. } = &step.what else { return Vec::new() };
    let far = ran.machines(of);
    let others = everyone(ran).difference(&far).copied().collect();
    let mut broken = nobody_failed(ran, &everyone(ran), 5_000, ran.ended);
    // A smoothed round trip follows within a handful of probes.
    broken.extend(opened_to(ran, &others, &ran.endpoints(&far, 0), step.at + 15_000, ran.last_step()));
    // Who has nobody nearer goes there again.
    let again = who_has_nobody_nearer(ran, &far);
    broken.extend(all_use(ran, &again, &ran.endpoints(&far, 0), ran.last_step() + MEASURED_ANEW, ran.ended));
    broken
}

/// The workers to whom none of the other control planes is as near.
fn who_has_nobody_nearer(ran: &Ran, plane: &BTreeSet<MachineId>) -> BTreeSet<MachineId> {
    let state = ran.history.at(0);
    let (planes, workers): (Vec<MachineId>, Vec<MachineId>) =
        (0..ran.names.len()).partition(|node| ran.plan.cluster.nodes[*node].control_plane);
    let trip = |worker: MachineId, near: bool| {
        let trips = planes.iter().filter(|it| plane.contains(it) == near).map(|it| state.round_trip(worker, *it));
        trips.min().unwrap_or(u32::MAX)
    };
    workers.into_iter().filter(|worker| trip(*worker, true) <= trip(*worker, false)).collect()
}
