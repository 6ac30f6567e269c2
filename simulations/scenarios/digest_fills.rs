//! Agents crash again and again, nearly everywhere.

use super::crash_loops::{crashing, others_never_notice};
use crate::sim::plan::{Plan, Who};
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash-loops-nearly-everywhere",
    story: "On all nodes but one control plane and one worker the agent crashes once or twice a second, and is started again at once by \
            its supervisor: hundreds of members as far as gossip can know. Nothing panics, and the two that stand never notice.",
    class: Class::Quick,
    plan,
    holds: others_never_notice,
    errors: &[],
};

/// How often each crashes.
const CRASHES: usize = 55;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let plan = Plan { cluster, steps: Vec::new(), lasts: 85_000 };
    let who: Who = plan.names().into_iter().filter(|name| name != "cp-1" && name != "worker-1").collect();
    crashing(cast, plan, who, CRASHES, (400, 900))
}
