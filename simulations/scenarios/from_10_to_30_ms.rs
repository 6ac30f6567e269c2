//! One of several that are alike moves away.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed, opened_to};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "from-10-to-30-ms",
    story: "Every apiserver is 10 ms away from everybody. For one of them that becomes 30 ms, for good: within five probes nobody \
            but its own node uses it any more.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// Everybody has measured everybody by then.
const SETTLED: u64 = 35_000;

fn plan(cast: &Cast) -> Plan {
    let cluster =
        Cluster { zones: vec![vec![10]], ..cast.zoned(cast.count("control planes", 2, 3), cast.count("workers", 4, 9), 1) };
    let of = who(cast.control_plane(&cluster, "which moves"));
    let at = SETTLED + cast.moment("when", 0, 3_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.step(at, Fault::Latency { of, to: Vec::new(), ms: 10 })
}

fn holds(ran: &Ran) -> Vec<String> {
    let Some(step) = ran.plan.steps.first() else { return Vec::new() };
    let Fault::Latency { of, .. } = &step.what else { return Vec::new() };
    let far = ran.machines(of);
    let others = everyone(ran).difference(&far).copied().collect();
    let mut broken = nobody_failed(ran, &everyone(ran), 5_000, ran.ended);
    broken.extend(opened_to(ran, &others, &ran.endpoints(&far, 0), step.at + 7_000, ran.ended));
    broken
}
