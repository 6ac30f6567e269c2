//! Agents crash again and again.

use std::collections::BTreeSet;

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash-loops",
    story: "On half of the workers the agent crashes every second or two, and is started again at once by its supervisor: each start is a \
            new member as far as gossip can know, and the dead ones are remembered. The other nodes never notice.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// How often each crashes.
const CRASHES: usize = 25;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let crashing = cast.workers(&cluster, "whose agents crash", 0.5);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 85_000 };
    for name in crashing {
        let mut at = cast.moment(&format!("{name} first crashes"), 10_000, 12_000);
        for crash in 0..CRASHES {
            let lasts = cast.moment(&format!("{name} is down {crash}"), 50, 300);
            plan = plan.fault(at, lasts, Fault::AgentKilled { of: who(name.clone()) });
            at += lasts + cast.moment(&format!("{name} runs {crash}"), 800, 1_900);
        }
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let of = |fault: &Fault| if let Fault::AgentKilled { of } = fault { of.clone() } else { Vec::new() };
    let crashing = ran.machines(&ran.plan.steps.iter().flat_map(|step| of(&step.what)).collect::<Vec<_>>());
    let steady: BTreeSet<usize> = (0..ran.names.len()).filter(|node| !crashing.contains(node)).collect();
    let mut broken = nobody_failed(ran, &steady, 5_000, ran.ended);
    broken.extend(served(ran, &crashing, ran.last_step() + 3_000, ran.ended));
    broken
}
