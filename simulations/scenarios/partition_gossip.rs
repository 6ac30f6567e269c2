//! Gossip is cut, API traffic is not.

use crate::sim::plan::{Fault, Plan};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed};
use crate::sim::state::Class as Packets;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition-gossip-only",
    story: "Somebody closes the gossip port between some workers and all others, while TCP passes. Members vanish from one another's \
            sight, and that is all: no connection fails and no apiserver is held for down.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let from = cast.workers(&cluster, "who is cut off", 0.5);
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 15_000, 35_000);
    let fault = Fault::Partition { from, to: Vec::new(), both: true, class: Some(Packets::Gossip) };
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, lasts, fault)
}

/// Also when it is one way only.
pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let mut broken = nobody_failed(ran, &everyone, 5_000, ran.ended);
    broken.extend(never_down(ran, &everyone, &ran.endpoints(&everyone, 0), 5_000, ran.ended));
    broken
}
