//! The external balancer comes and goes by the configuration.

use super::balancer_refuses::{depends_on_it, only_the_balancer};
use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-changes",
    story: "An external load balancer is added to the configuration of nodes that know no other way, later it is named by its DNS name \
            instead, and then it is taken out and an apiserver put in its place. Each time the files are read again: who waits for it is \
            served, and after that nobody notices.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// Without the balancer these nodes have nobody.
const NOBODY: &str = "gossip-listen: \"off\"\nexternal: []\n";
/// What a file says takes effect within this.
const READ_WITHIN: Ms = 1_000;

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = Some(0);
    let machine = cluster.nodes.len() + 1;
    let only = only_the_balancer(cast, &mut cluster, NOBODY);
    let configure = |more: String| Fault::Configure { of: only.clone(), config: format!("gossip-listen: \"off\"\n{more}\n") };
    let added = cast.moment("added", 4_000, 7_000);
    let renamed = cast.moment("by name", 18_000, 22_000);
    let removed = cast.moment("taken out", 35_000, 38_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }
        .step(added, configure(format!("external: [\"10.0.0.{machine}:6443\"]")))
        .step(renamed, configure("external: [\"api.cluster.example:6443\"]".to_owned()))
        .step(removed, configure("external: []\nendpoint: [\"10.0.0.1:6443\"]".to_owned()))
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let (added, renamed, removed) = (promises.step(0), promises.step(1), promises.step(2));
    let only = promises.machines(&depends_on_it(ran));
    let balancer = promises.endpoints_of(&[ran.names.len()].into(), 0);
    let first = promises.endpoints_of(&promises.machines(&who("cp-1")), 0);
    promises.nobody_fails().answered_by(added.from + READ_WITHIN, (0, added.from));
    promises.answered_at(&only, &balancer, (added.from, removed.from));
    promises.answered_at(&only, &first, (removed.from + READ_WITHIN, ran.ended));
    for changed in [added.from + READ_WITHIN, renamed.from, removed.from] {
        promises.late_at_most(NOT_LATE, changed + READ_WITHIN, (changed + READ_WITHIN, changed + 10_000));
    }
    promises.broken()
}
