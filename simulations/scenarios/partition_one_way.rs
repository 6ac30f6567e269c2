//! Whatever a node sends is lost, and whatever it is sent arrives.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition-one-way",
    story: "Of a worker, or of the control plane of its choice, all packets in one direction are lost, gossip and TCP alike. Whoever is \
            at neither end goes on with whom he has, and all are served when the way is back.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let one = cast.anybody(&cluster, "who");
    let plan = Plan { cluster, steps: Vec::new(), lasts: 70_000 };
    let others = plan.names().into_iter().filter(|name| *name != one).collect();
    let (from, to) = if cast.draw.chance("it is not heard", 0.5) { (who(one), others) } else { (others, who(one)) };
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 10_000, 25_000);
    plan.fault(at, lasts, Fault::Partition { from, to, both: false, class: None })
}

fn holds(ran: &Ran) -> Vec<String> {
    let Some(Fault::Partition { from, to, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let one = ran.machines(if from.len() == 1 { from } else { to });
    let others = everyone(ran).difference(&one).copied().collect();
    let theirs = ran.endpoints(&others, 0);
    let mut broken = nobody_failed(ran, &others, 5_000, ran.ended);
    broken.extend(never_down(ran, &others, &theirs, 5_000, ran.ended));
    broken.extend(served(ran, &everyone(ran), ran.last_step() + 2_000, ran.ended));
    broken
}
