//! A member lies about where an apiserver is.

use super::troubles::INTRUDER;
use crate::sim::plan::{Fault, Hostility, Node, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hostile-forges-endpoint",
    story: "Somebody who has the key joins the gossip as a control plane, and names its own address, where something answers that the \
            cluster's CA has not signed for, and one where nobody does. No client's byte ever goes there.",
    class: Class::Quick,
    plan: |cast: &Cast| meant_harm(cast, Hostility::ForgedEndpoint),
    holds: nobody_is_harmed,
    errors: &[],
};

/// A cluster into which somebody comes who has the key.
pub(super) fn meant_harm(cast: &Cast, act: Hostility) -> Plan {
    let mut cluster = cast.cluster(&[2, 3, 5]);
    cluster.nodes.push(Node { name: INTRUDER.to_owned(), later: true, ..Node::default() });
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 20_000, 30_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(at, lasts, Fault::Hostile { node: INTRUDER.to_owned(), act })
}

/// Nobody fails, is late, is cut off or doubts an apiserver for long, and nothing goes to the intruder.
pub(super) fn nobody_is_harmed(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let from = ran.plan.steps.first().map_or(0, |step| step.at);
    let intruder = promises.machines(&who(INTRUDER));
    let forged = promises.endpoints_of(&intruder, from + 1_000);
    promises.nobody_fails().nothing_cut((0, ran.ended)).late_at_most(NOT_LATE, from, (from, ran.ended)).leases_kept(15_000);
    promises.no_hello_at(&forged, (0, ran.ended));
    let planes = promises.machines(&who("cp-*"));
    let real = promises.endpoints_of(&planes, from);
    for after in [5_000, 10_000, 15_000] {
        promises.carried_everywhere(&real, from + after);
    }
    promises.broken()
}
