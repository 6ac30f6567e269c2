//! A machine is put back to what it was.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "restored-from-a-snapshot",
    story: "A machine is restored from a snapshot: its generation is one that everybody has seen before, and its clock is behind too. \
            It goes on above what the others remember.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let name = cast.anybody(&cluster, "who");
    let from = cast.moment("the snapshot", 6_000, 9_000);
    let first = cast.moment("a restart after it", 12_000, 15_000);
    let second = first + cast.moment("restored after", 6_000, 10_000);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 75_000 }
        .fault(first, 500, Fault::AgentKilled { of: who(name.clone()) })
        .fault(second, 2_000, Fault::Machine { of: who(name.clone()) })
        .step(second + 1_000, Fault::StateRestored { of: who(name.clone()), from });
    if cast.draw.chance("the clock is behind too", 0.7) {
        plan = plan.fault(second + 1_000, 40_000, Fault::ClockJump { of: who(name), by: -3_600_000 });
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let back = ran.first_step(|fault| matches!(fault, Fault::StateRestored { .. })).map_or(0, |step| step.at + 1_000);
    let restored = ran.first_step(|fault| matches!(fault, Fault::Machine { .. })).map(|step| &step.what);
    let who = if let Some(Fault::Machine { of }) = restored { ran.machines(of) } else { everyone.clone() };
    let others = everyone.difference(&who).copied().collect();
    let mut broken = nobody_failed(ran, &others, 5_000, ran.ended);
    broken.extend(served(ran, &everyone, back + 8_000, ran.ended));
    broken.extend(all_know(ran, &everyone, &ran.endpoints(&everyone, ran.ended), back + 20_000));
    broken
}
