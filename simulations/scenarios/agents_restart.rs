//! Agents are restarted one after the other.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agents-rolling-restart",
    story: "All agents are restarted one after the other, those of the control planes too. That says nothing about any apiserver: \
            nobody holds one for down, and no connection fails.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    rolling(cast, Plan { cluster, steps: Vec::new(), lasts: 85_000 }, |of| Fault::AgentRestart { of })
}

/// Everybody in turn.
pub(super) fn rolling(cast: &Cast, mut plan: Plan, what: impl Fn(Vec<String>) -> Fault) -> Plan {
    let names = plan.names();
    let mut at = cast.moment("when", 12_000, 15_000);
    for place in cast.draw.several("order", names.len(), names.len()) {
        plan = plan.fault(at, 500, what(who(names[place].clone())));
        // The next one begins when this one has stopped, which takes up to its drain, or somewhat later.
        at += cast.moment(&format!("after {}", names[place]), 2_500, 4_500);
    }
    plan
}

pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let mut broken = nobody_failed(ran, &everyone, 5_000, ran.ended);
    broken.extend(never_down(ran, &everyone, &ran.endpoints(&everyone, 0), 5_000, ran.ended));
    broken.extend(served(ran, &everyone, ran.last_step() + 8_000, ran.ended));
    broken
}
