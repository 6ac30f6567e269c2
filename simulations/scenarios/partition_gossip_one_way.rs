//! Gossip from some nodes is lost, and gossip to them is not.

use super::partition_gossip;
use crate::sim::plan::{Fault, Plan};
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Class as Packets;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition-gossip-one-way",
    story: "What some nodes gossip is lost on its way to the others, who are heard by them: perhaps those are control planes. Nobody but \
            gossip suffers: no connection fails and no apiserver is held for down.",
    class: Class::Quick,
    plan,
    holds: partition_gossip::holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let mut from = cast.workers(&cluster, "who is not heard", 0.4);
    if cast.draw.chance("a control plane too", 0.5) {
        from.push(cast.control_plane(&cluster, "which control plane"));
    }
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 15_000, 35_000);
    let fault = Fault::Partition { from, to: Vec::new(), both: false, class: Some(Packets::Gossip) };
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, lasts, fault)
}
