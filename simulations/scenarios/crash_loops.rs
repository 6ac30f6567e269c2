//! Agents crash again and again.

use std::collections::BTreeSet;

use crate::sim::plan::{Fault, Plan, Who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{nobody_failed, served};
use crate::sim::state::{MachineId, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash-loops",
    story: "On half of the workers the agent crashes every second or two, and is started again at once by its supervisor: each start is a \
            new member as far as gossip can know, and the dead ones are remembered. The other nodes never notice.",
    class: Class::Quick,
    plan,
    holds: others_never_notice,
    errors: &[],
};

/// How often each crashes.
const CRASHES: usize = 25;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let who = cast.workers(&cluster, "whose agents crash", 0.5);
    crashing(cast, Plan { cluster, steps: Vec::new(), lasts: 85_000 }, who, CRASHES, (800, 1_900))
}

/// The agents of these crash so often, after having run so long.
pub(super) fn crashing(cast: &Cast, mut plan: Plan, who: Who, crashes: usize, runs: (Ms, Ms)) -> Plan {
    for name in who {
        let mut at = cast.moment(&format!("{name} first crashes"), 10_000, 12_000);
        for crash in 0..crashes {
            let lasts = cast.moment(&format!("{name} is down {crash}"), 50, 300);
            plan = plan.fault(at, lasts, Fault::AgentKilled { of: vec![name.clone()] });
            at += lasts + cast.moment(&format!("{name} runs {crash}"), runs.0, runs.1);
        }
    }
    plan
}

/// Nobody fails where nothing crashes, and the others are served again.
pub(super) fn others_never_notice(ran: &Ran) -> Vec<String> {
    let of = |fault: &Fault| match fault {
        Fault::AgentKilled { of } => of.clone(),
        Fault::Hostile { node, .. } => vec![node.clone()],
        _ => Vec::new(),
    };
    let busy = ran.machines(&ran.plan.steps.iter().flat_map(|step| of(&step.what)).collect::<Vec<_>>());
    let steady: BTreeSet<MachineId> = (0..ran.names.len()).filter(|node| !busy.contains(node)).collect();
    let all = (0..ran.names.len()).filter(|node| !ran.plan.cluster.nodes[*node].later).collect();
    let mut broken = nobody_failed(ran, &steady, 5_000, ran.ended);
    broken.extend(served(ran, &all, ran.last_step() + 3_000, ran.ended));
    broken
}
