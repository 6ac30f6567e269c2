//! A machine's state directory is lost.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-directory-lost",
    story: "While an agent is down its machine's state directory is lost: the cache of its peers, and the generation that it had. It \
            begins with its seeds, and goes on above what the others remember of it; perhaps its clock is behind too.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let of = || who(cast.anybody(&cluster, "who"));
    let at = cast.moment("when", 15_000, 18_000);
    let down = cast.moment("down for", 1_000, 8_000);
    let mut plan = Plan { cluster: cluster.clone(), steps: Vec::new(), lasts: 65_000 }
        .fault(at, down, Fault::AgentKilled { of: of() })
        .step(at + 500, Fault::StateLost { of: of() });
    if cast.draw.chance("the clock is behind too", 0.5) {
        plan = plan.fault(at + 500, 35_000, Fault::ClockJump { of: of(), by: -3_600_000 });
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let Some(Fault::AgentKilled { of }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let back = ran.plan.steps[0].at + ran.plan.steps[0].lasts.unwrap_or(0);
    let others = everyone(ran).difference(&ran.machines(of)).copied().collect();
    let mut broken = nobody_failed(ran, &others, 5_000, ran.ended);
    broken.extend(served(ran, &everyone(ran), back + 4_000, ran.ended));
    broken.extend(all_know(ran, &everyone(ran), &ran.endpoints(&everyone(ran), ran.ended), back + 20_000));
    broken
}
