//! The cluster's CA is another one.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ca-rotated",
    story: "The apiservers show certificates of a new CA while the agents hold the old one's file: they trust nobody, and carry to nobody. \
            Node by node the new file arrives, and each serves from then on.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let rotated = cast.moment("when", 12_000, 15_000);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 75_000 }.step(rotated, Fault::NewCa);
    for name in plan.names() {
        let given = rotated + cast.moment(&format!("the file reaches {name}"), 3_000, 20_000);
        plan = plan.step(given, Fault::GiveCa { of: who(name), old_too: false });
    }
    plan
}

/// A dial and a handshake, and a probe each half second by which each node finds out.
const UNDER_WAY: u64 = 1_500;
/// With the new file a node proves somebody within this.
const BELIEVED: u64 = 1_000;

fn holds(ran: &Ran) -> Vec<String> {
    let (everyone, over) = (everyone(ran), ran.last_step());
    let rotated = ran.plan.steps.first().map_or(0, |step| step.at);
    let mut promises = Promises::of(ran);
    for step in &ran.plan.steps {
        let Fault::GiveCa { of, .. } = &step.what else { continue };
        let node = ran.machines(of);
        // What was under way when they changed may still arrive; after that nobody is carried to whom this node cannot believe.
        promises.nobody_answered(&node, (rotated + UNDER_WAY, step.at));
        promises.nobody_of_fails(&node, (step.at, ran.ended)).waits_of(&node, BELIEVED, (step.at, ran.ended));
    }
    let mut broken = promises.broken();
    broken.extend(served(ran, &everyone, over + 3_000, ran.ended));
    broken.extend(all_know(ran, &everyone, &ran.endpoints(&everyone, ran.ended), over + 10_000));
    broken
}
