//! Workers lose their CA's file.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ca-file-lost",
    story: "The CA file disappears from the workers. Nothing changes until their agents are restarted; from then on they use only the \
            external balancer, which is configured, and no endpoint known from gossip or the cache alone. When the file is back, they use \
            all endpoints again.",
    class: Class::Quick,
    plan,
    holds,
    errors: &["the CA's file is missing"],
};

/// A worker's agent is gone for so long.
const RESTARTS: u64 = 1_000;
/// With the file a node has verified everybody within this.
const BELIEVED: u64 = 5_000;

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = Some(0);
    cluster.by_name = cast.draw.chance("it is known by name", 0.5);
    let lost = cast.moment("when", 8_000, 10_000);
    let restart = lost + cast.moment("until the restart", 4_000, 8_000);
    let back = restart + cast.moment("for how long", 15_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }
        .step(lost, Fault::LoseCa { of: who("worker-*") })
        .fault(restart, RESTARTS, Fault::AgentKilled { of: who("worker-*") })
        .step(back, Fault::GiveCa { of: who("worker-*"), old_too: false })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let (lost, restart, back) = (promises.step(0), promises.step(1), promises.step(2));
    let workers = promises.machines(&who("worker-*"));
    let control_planes = (0..ran.names.len()).filter(|machine| !workers.contains(machine)).collect();
    let theirs = promises.endpoints_of(&control_planes, lost.from);
    promises.nobody_fails_between(0, restart.from - 1_000).nobody_fails_between(restart.to + 1_000, ran.ended);
    promises.nothing_cut((lost.from, restart.from)).leases_kept(20_000);
    promises.no_hello_from(&workers, &theirs, (restart.to, back.from));
    promises.ready_everywhere(&theirs, back.from + BELIEVED);
    promises.broken()
}
