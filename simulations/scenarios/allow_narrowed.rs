//! Workers are told that gossip may name fewer networks.

use std::collections::BTreeSet;

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{Played, Promises};
use crate::sim::run::{Ran, address};
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "allow-narrowed",
    story: "The workers' configuration allows gossip and the cache to name one apiserver only. They leave the others at once, with what is open, \
            and do not come back to them when their agents are restarted, for all that the cache says. When everything is allowed again, all is \
            as before.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// A worker's agent is gone for so long.
const RESTARTS: u64 = 1_000;
/// A file that was read is in force after this.
const IN_FORCE: u64 = 500;

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[2, 3, 5]);
    (cluster.ipv6_only, cluster.balancer) = (false, None);
    cluster.nodes.iter_mut().for_each(|node| node.dual_stack = false);
    let planes = cluster.nodes.iter().filter(|node| node.control_plane).count();
    let stays = cast.count("which stays", 1, planes) - 1;
    let of = || who("worker-*");
    let narrowed = cast.moment("when", 12_000, 15_000);
    let restart = narrowed + cast.moment("until the restart", 6_000, 10_000);
    let widened = restart + cast.moment("for how long", 12_000, 18_000);
    let config = format!("allow: [\"{}/32\"]\n", address(stays, 0));
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }
        .step(narrowed, Fault::Configure { of: of(), config })
        .fault(restart, RESTARTS, Fault::AgentKilled { of: of() })
        .step(widened, Fault::Configure { of: of(), config: String::new() })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let (narrowed, restart, widened) = (promises.step(0), promises.step(1), promises.step(2));
    let state = ran.history.at(narrowed.from + IN_FORCE);
    let workers = &narrowed.machines;
    let allows = workers.first().map_or(&[][..], |worker| &state.machines[*worker].allows);
    let all: BTreeSet<_> = state.sites.keys().copied().collect();
    let outside: BTreeSet<_> =
        all.iter().copied().filter(|endpoint| !allows.iter().any(|network| network.contains(&endpoint.ip()))).collect();
    let outside = Played { endpoints: outside, ..narrowed.clone() };
    promises
        .nobody_fails_between(0, restart.from - 1_000)
        .nobody_fails_between(restart.to + 1_000, ran.ended)
        .leases_kept(20_000);
    promises.left_within(IN_FORCE, workers, &outside);
    promises.no_hello_from(workers, &outside.endpoints, (narrowed.from + IN_FORCE, widened.from));
    promises.ready_everywhere(&all, widened.from + 5_000);
    promises.broken()
}
