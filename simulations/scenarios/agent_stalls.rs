//! An agent's process stands still for a while.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agent-stalls",
    story: "For ten seconds an agent's process does not get on, as when its machine is out of memory or its virtual machine moves. \
            It blames nobody for the time it lost, and nobody blames its apiserver.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let of = who(cast.anybody(&cluster, "who stalls"));
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }.fault(at, 10_000, Fault::Stall { of })
}

/// Also for longer stalls.
pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let mut broken = nobody_failed(ran, &everyone, 5_000, ran.ended);
    broken.extend(never_down(ran, &everyone, &ran.endpoints(&everyone, 0), 5_000, ran.ended));
    broken.extend(served(ran, &everyone, ran.last_step() + 3_000, ran.ended));
    broken
}
