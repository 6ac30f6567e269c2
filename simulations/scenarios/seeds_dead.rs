//! Every seed is dead, and every agent starts anew.

use std::collections::BTreeSet;

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, served};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "seeds-dead-restart-from-cache",
    story: "The only seed's machine is lost, and then every other agent is killed and started again. \
            What they knew is in their caches: they find one another and the apiservers that are left.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[2, 3, 5]);
    cluster.seeds = 1;
    let lost = cast.moment("when the seed is lost", 20_000, 23_000);
    let killed = lost + cast.moment("killed after", 3_000, 8_000);
    let down = cast.moment("down for", 500, 4_000);
    Plan { cluster, steps: Vec::new(), lasts: 70_000 }.step(lost, Fault::Machine { of: who("cp-1") }).fault(
        killed,
        down,
        Fault::AgentKilled { of: who("*") },
    )
}

/// Proof from the cache, gossip's first rounds, and a probe.
const SETTLED: Ms = 10_000;

fn holds(ran: &Ran) -> Vec<String> {
    let left: BTreeSet<usize> = everyone(ran).into_iter().filter(|node| ran.names[*node] != "cp-1").collect();
    let from = ran.last_step() + 2_000;
    let mut broken = served(ran, &left, from, ran.ended);
    broken.extend(all_know(ran, &left, &ran.endpoints(&left, ran.ended), from + SETTLED));
    broken
}
