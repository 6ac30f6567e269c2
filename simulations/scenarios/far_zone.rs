//! One zone is far from the others.

use std::collections::BTreeSet;

use crate::sim::plan::Plan;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed, opened_to};
use crate::sim::state::MachineId;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-80-ms-away",
    story: "The last zone is 80 ms from the others. Where a zone has apiservers of its own or near ones, nobody goes far.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let planes = if cast.smallest { 2 } else { cast.draw.one_of("control planes", &[2, 3, 5]) };
    let zones = cast.count("zones", 2, 3).min(planes);
    let mut cluster = cast.zoned(planes, cast.count("workers", 4, 7), zones);
    for near in 0..zones - 1 {
        cluster.zones[near][zones - 1] = 80;
        cluster.zones[zones - 1][near] = 80;
    }
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }
}

fn holds(ran: &Ran) -> Vec<String> {
    let far = ran.plan.cluster.zones.len() - 1;
    let in_it = |machine: &MachineId| ran.plan.cluster.nodes[*machine].zone == far;
    let (there, here): (BTreeSet<MachineId>, BTreeSet<MachineId>) = everyone(ran).into_iter().partition(in_it);
    let mut broken = nobody_failed(ran, &everyone(ran), 5_000, ran.ended);
    broken.extend(opened_to(ran, &here, &ran.endpoints(&there, 0), 20_000, ran.ended));
    broken.extend(opened_to(ran, &there, &ran.endpoints(&here, 0), 20_000, ran.ended));
    broken
}
