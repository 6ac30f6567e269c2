//! An apiserver has no descriptors left.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-without-descriptors",
    story: "An apiserver runs out of file descriptors for a while: its kernel completes new connections and the process does not accept them, \
            as if it hung, while established connections are served as ever. New connections go elsewhere. If a node still receives data on \
            some connection to it, none of that node's connections is reset.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster_at_work(&[2, 3, 5]);
    // Behind a balancer each new connection may fall to it, which no one can tell beforehand.
    cluster.balancer = None;
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 15_000, 30_000);
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }.fault(at, lasts, Fault::Apiserver { of, mode: Mode::NoDescriptors })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().late_only_at_first(2_000, 5_000, &fault).leases_kept(15_000);
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
