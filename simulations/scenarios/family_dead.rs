//! Every machine has addresses of both families, and one family is dead.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::sim::plan::{Cluster, Fault, Node, Plan, who};
use crate::sim::promises::{NOT_LATE, Played, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one-family-dead",
    story: "All machines have IPv4 and IPv6, and apiservers are advertised at both. Then one family's way to one of them, or to all, \
            is dead: whoever used it goes by the other one, and those who come anew do not wait.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3]);
    let nodes = cluster.nodes.into_iter().map(|node| Node { dual_stack: true, ..node }).collect();
    let cluster = Cluster { nodes, ..cluster };
    let of = if cast.draw.chance("of all", 0.5) { "cp-*".to_owned() } else { cast.control_plane(&cluster, "of whom") };
    let ipv6 = cast.draw.chance("IPv6", 0.5);
    let at = cast.moment("when", 15_000, 18_000);
    let lasts = cast.moment("for how long", 12_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }.fault(at, lasts, Fault::Family { of: who(of), ipv6 })
}

/// What starts is given so long to find everybody.
const STARTED: Ms = 10_000;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    let Some(Fault::Family { ipv6, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let (dead, alive): (BTreeSet<SocketAddr>, BTreeSet<SocketAddr>) =
        fault.endpoints.iter().partition(|endpoint| endpoint.is_ipv6() == *ipv6);
    let dead = Played { endpoints: dead, ..fault };
    promises.nobody_fails().late_at_most(300, dead.from, (dead.from, dead.from + 2_000));
    promises.late_at_most(NOT_LATE, dead.from, (dead.from + 2_000, ran.ended));
    promises.reset_within(6_000, &dead);
    let mut broken = promises.broken();
    // A control plane's own node has its own one by one address, which stands for all.
    let others = everyone(ran).difference(&dead.machines).copied().collect();
    for at in [STARTED, dead.from + 3_000, dead.to - 1, ran.ended - 1] {
        broken.extend(all_know(ran, &others, &alive, at));
    }
    broken.extend(all_know(ran, &others, &dead.endpoints, dead.to + 5_000));
    broken
}
