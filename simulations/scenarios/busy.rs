//! So many new connections that shares can be counted.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::scenario::{Cast, Class, Scenario, nothing_more};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "busy",
    story: "Every worker opens fifteen to thirty connections a second, all apiservers are equally near, and one of them is gone for a while: \
            nobody gets more than twice its share, not even while it comes back.",
    class: Class::Quick,
    plan,
    holds: nothing_more,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[3, 5]);
    let workers = cluster.nodes.iter().filter(|node| !node.control_plane).count();
    let cluster = Cluster {
        // One zone: all are alike, and it is the draw that is looked at.
        zones: vec![vec![2]],
        nodes: cluster.nodes.into_iter().map(|node| crate::sim::plan::Node { zone: 0, ..node }).collect(),
        jitter: 0.0,
        fresh_every: if workers < 6 { 33 } else { 66 },
        ..cluster
    };
    let of = who(cast.control_plane(&cluster, "who is gone"));
    let at = cast.moment("when", 15_000, 17_000);
    Plan { cluster, steps: Vec::new(), lasts: 50_000 }.fault(at, 8_000, Fault::Apiserver { of, mode: Mode::Refusing })
}
