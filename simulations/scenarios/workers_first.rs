//! There is no control plane yet.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "workers-start-first",
    story: "The workers come up and ask for an apiserver, and none of the control planes has power yet. When they have it, who was \
            waiting is served, and everybody else as well.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let lasts = cast.moment("for how long", 6_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 50_000 }.fault(0, lasts, Fault::Machine { of: who("cp-*") })
}

fn holds(ran: &Ran) -> Vec<String> {
    let there = ran.last_step();
    let workers = ran.machines(&who("worker-*"));
    // Whoever is held when the first control plane answers is served by it.
    let mut broken = nobody_failed(ran, &workers, there, ran.ended);
    broken.extend(served(ran, &workers, there, there + 5_000));
    broken
}
