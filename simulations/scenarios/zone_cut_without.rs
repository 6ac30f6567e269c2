//! A zone without a control plane is cut off for a moment.

use crate::sim::plan::{Fault, Plan};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed, served};

use super::zone_cut_with::{severed, zones};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-cut-without-control-plane",
    story: "For ten seconds a zone of workers hears nothing of the others. Its clients are held as long as they are willing to wait, \
            nothing is forgotten, and it is served again at once when the way is back.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let (cluster, cut) = zones(cast, false);
    let at = cast.moment("when", 15_000, 18_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, 10_000, severed(cut))
}

/// Also for longer cuts: the others never notice, and it is served again soon after.
pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let Some(Fault::Partition { from, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let others = everyone(ran).difference(&ran.machines(from)).copied().collect();
    let mut broken = nobody_failed(ran, &others, 5_000, ran.ended);
    broken.extend(served(ran, &everyone(ran), ran.last_step() + 2_000, ran.ended));
    broken
}
