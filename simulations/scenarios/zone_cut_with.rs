//! A zone that has a control plane is cut off for a moment.

use crate::sim::plan::{Cluster, Fault, Plan, Who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-cut-with-control-plane",
    story: "For ten seconds a zone with a control plane in it hears nothing of the others. Both sides serve with what they have.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let (cluster, cut) = zones(cast, true);
    let at = cast.moment("when", 15_000, 18_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, 10_000, severed(cut))
}

/// A cluster of two or three zones and the names of those in the one that is to be cut off, with a control plane in it or not.
pub(super) fn zones(cast: &Cast, with: bool) -> (Cluster, Who) {
    let planes = if cast.smallest { 2 } else { cast.draw.one_of("control planes", &[2, 3, 5]) };
    let zones = cast.count("zones", 2, 3);
    let mut cluster = cast.zoned(planes, cast.count("workers", 4, 7), zones);
    let last = zones - 1;
    let planes = cluster.nodes.iter_mut().filter(|node| node.control_plane);
    for (place, node) in planes.enumerate() {
        node.zone = match (place, with) {
            (1, true) => last,
            (_, true) => node.zone,
            (_, false) => node.zone % last,
        };
    }
    let plan = Plan { cluster, steps: Vec::new(), lasts: 0 };
    let names = plan.names();
    let inside = plan.cluster.nodes.iter().zip(names).filter(|(node, _)| node.zone == last).map(|(_, name)| name).collect();
    (plan.cluster, inside)
}

/// These are cut off from all others.
pub(super) fn severed(from: Who) -> Fault {
    Fault::Partition { from, to: Vec::new(), both: true, class: None }
}

fn holds(ran: &Ran) -> Vec<String> {
    let Some(step) = ran.plan.steps.first() else { return Vec::new() };
    // Connections that were open or opening when it began may be lost with their upstream; new ones are not.
    let mut broken = served(ran, &everyone(ran), step.at, step.at + step.lasts.unwrap_or(0));
    broken.extend(served(ran, &everyone(ran), ran.last_step(), ran.ended));
    broken
}
