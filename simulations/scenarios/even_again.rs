//! Established connections even out after whatever happened.

use crate::sim::plan::{Cluster, Fault, Node, Plan, who};
use crate::sim::scenario::{Cast, Class, Scenario, nothing_more};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "even-again",
    story: "Clients keep connections open and renew a tenth of them a minute. An apiserver is gone for a quarter of an hour, and later all \
            control planes are upgraded one after the other: ten minutes after each, all hold about the same again.",
    class: Class::Long,
    plan,
    holds: nothing_more,
    errors: &[],
};

/// Between two events: ten minutes, in which it has to even out, and a few in which it is looked at.
const APART: u64 = 780_000;
/// One is gone for so long that it evens out among the others, and that is looked at.
const ABSENT: u64 = 900_000;

fn plan(cast: &Cast) -> Plan {
    let control_planes = cast.count("control planes that are equal", 3, 5);
    let cluster = cast.cluster_of(control_planes, 6);
    let nodes = cluster.nodes.into_iter().map(|node| Node { zone: 0, ..node }).collect();
    let cluster = Cluster { zones: vec![vec![2]], nodes, jitter: 0.0, steady: 60, fresh_every: 2_000, ..cluster };
    let of = who(cast.control_plane(&cluster, "who is gone"));
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 3 * APART + ABSENT + 180_000 };
    plan = plan.fault(APART, ABSENT, Fault::Apiserver { of, mode: Mode::Refusing });
    for place in 0..control_planes {
        let at = 2 * APART + ABSENT + 30_000 * place as u64;
        plan = plan.fault(at, 20_000, Fault::Drain { of: who(format!("cp-{}", place + 1)) });
    }
    plan
}
