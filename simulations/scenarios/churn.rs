//! Nodes come and go.

use std::collections::BTreeSet;

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "churn",
    story: "Nearly a third of the workers come and go: machines lose their power, agents are killed or restarted, each several times, \
            as chance will have it. The other nodes never notice.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let restless = cast.workers(&cluster, "who comes and goes", 0.3);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 85_000 };
    for name in restless {
        let mut at = cast.moment(&format!("{name} first goes"), 10_000, 15_000);
        for round in 0..4 {
            let draw = |what: &str, from, to| cast.moment(&format!("{name} {what} {round}"), from, to);
            let of = who(name.clone());
            let fault = match draw("goes how", 0, 2) {
                0 => Fault::Machine { of },
                1 => Fault::AgentKilled { of },
                _ => Fault::AgentRestart { of },
            };
            let lasts = draw("is away", 1_000, 5_000);
            plan = plan.fault(at, lasts, fault);
            at += lasts + draw("stays", 1_000, 4_000);
        }
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let of = |fault: &Fault| match fault {
        Fault::Machine { of } | Fault::AgentKilled { of } | Fault::AgentRestart { of } => of.clone(),
        _ => Vec::new(),
    };
    let restless = ran.machines(&ran.plan.steps.iter().flat_map(|step| of(&step.what)).collect::<Vec<_>>());
    let steady: BTreeSet<usize> = (0..ran.names.len()).filter(|node| !restless.contains(node)).collect();
    let mut broken = nobody_failed(ran, &steady, 5_000, ran.ended);
    broken.extend(served(ran, &restless, ran.last_step() + 8_000, ran.ended));
    broken
}
