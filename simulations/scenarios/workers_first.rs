//! There is no control plane yet.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::served;
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "workers-start-first",
    story: "The workers come up and ask for an apiserver, and none of the control planes has power yet. When they have it, who was \
            waiting is served, and everybody else as well.",
    class: Class::Quick,
    plan,
    holds: held_and_served,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let lasts = cast.moment("for how long", 6_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 50_000 }.fault(0, lasts, Fault::Machine { of: who("cp-*") })
}

/// A client is held for so long after its hello.
const HELD: Ms = 8_000;
/// From when an apiserver can answer until every node has met it, proven it, and carried to it: a start, gossip and two probes.
const MET: Ms = 3_000;

/// When the first thing is over that kept the apiservers from serving, all workers are served: those too who had waited for it.
pub(super) fn held_and_served(ran: &Ran) -> Vec<String> {
    let there = ran.plan.steps.first().map_or(0, |step| step.at + step.lasts.unwrap_or(0));
    let mut promises = Promises::of(ran);
    // Whose patience lasts until everybody has met an apiserver is answered then.
    let waiting = (there + MET).saturating_sub(HELD);
    promises.nobody_fails_between(waiting, Ms::MAX).answered_by(there + MET, (waiting, there));
    let workers = promises.machines(&who("worker-*"));
    let mut broken = promises.broken();
    broken.extend(served(ran, &workers, waiting, there + MET));
    broken
}
