//! API traffic is cut, gossip is not.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed, served};
use crate::sim::state::Class as Packets;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition-api-only",
    story: "Somebody closes the apiservers' port to some workers, while gossip passes. What those workers see is their own affair: \
            the others keep all apiservers. When the port is open again everybody is served within seconds.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let from = cast.workers(&cluster, "who is cut off", 0.4);
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 5_000, 25_000);
    let fault = Fault::Partition { from, to: who("cp-*"), both: true, class: Some(Packets::Api) };
    Plan { cluster, steps: Vec::new(), lasts: 70_000 }.fault(at, lasts, fault)
}

fn holds(ran: &Ran) -> Vec<String> {
    let Some(Fault::Partition { from, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let hit = ran.machines(from);
    let others = everyone(ran).difference(&hit).copied().collect();
    let mut broken = nobody_failed(ran, &others, 5_000, ran.ended);
    broken.extend(never_down(ran, &others, &ran.endpoints(&everyone(ran), 0), 5_000, ran.ended));
    broken.extend(served(ran, &hit, ran.last_step() + 2_000, ran.ended));
    broken
}
