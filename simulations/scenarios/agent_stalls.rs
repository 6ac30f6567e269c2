//! An agent's process stands still for a while.

use std::collections::BTreeSet;

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed, served};
use crate::sim::state::MachineId;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agent-stalls",
    story: "For ten seconds an agent's process does not get on, as when its machine is out of memory or its virtual machine moves. \
            Nobody else blames an apiserver for it, and afterwards it serves at once.",
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
    // The calls of who stalls are never answered while its clock goes on: to itself it looks as if everybody else were silent.
    let stalled = |n: &MachineId| {
        ran.plan.steps.iter().any(|step| matches!(&step.what, Fault::Stall { of } if of.contains(&ran.names[*n])))
    };
    let others: BTreeSet<MachineId> = everyone.iter().copied().filter(|n| !stalled(n)).collect();
    broken.extend(never_down(ran, &others, &ran.endpoints(&everyone, 0), 5_000, ran.ended));
    broken.extend(served(ran, &everyone, ran.last_step() + 3_000, ran.ended));
    broken
}
