//! A machine restarts, and has another address.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "node-restarts-elsewhere",
    story: "A machine, perhaps one of a control plane, restarts and comes back with another address, as leases of DHCP will have it. \
            Everybody finds it there, although the seeds that the others were given still name the old one.",
    class: Class::Quick,
    plan,
    holds: super::node_restarts::holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.anybody(&cluster, "who moves"));
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.step(at, Fault::Readdress { of })
}
