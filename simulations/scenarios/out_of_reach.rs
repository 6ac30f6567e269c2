//! A control plane advertises an address that some, or all others, cannot reach.

use std::collections::BTreeSet;

use crate::sim::plan::{Fault, Plan, Who, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone};
use crate::sim::state::{Class as Packets, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "control-plane-out-of-reach",
    story: "From the beginning a control plane advertises an address that half of the nodes, or nobody but itself, can reach: \
            a firewall or a network of its own is between them, which gossip passes. Who cannot reach it never sends a client there; who can \
            uses it as any other. Later somebody opens the firewall.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// What starts is given so long to find everybody.
const STARTED: Ms = 10_000;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = cast.control_plane(&cluster, "who is out of reach");
    let plan = Plan { cluster, steps: Vec::new(), lasts: 75_000 };
    let others: Who = plan.names().into_iter().filter(|name| *name != of).collect();
    let cut = if cast.draw.chance("for nobody", 0.5) {
        others
    } else {
        cast.draw.several("for half of them", others.len() / 2, others.len()).into_iter().map(|at| others[at].clone()).collect()
    };
    let opened = cast.moment("when it is opened", 22_000, 28_000);
    plan.fault(0, opened, Fault::Partition { from: cut, to: who(of), both: true, class: Some(Packets::Api) })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let cut = promises.step(0);
    let Some(Fault::Partition { to, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let out = promises.machines(to);
    let (unreachable, own) = (promises.endpoints_of(&out, 0), &out);
    let reach: BTreeSet<usize> = (0..ran.names.len()).filter(|node| !cut.machines.contains(node)).collect();
    promises.nobody_fails().late_at_most(NOT_LATE, STARTED, (STARTED, ran.ended));
    // Not one byte of a client goes there where it was never proven; its own node always uses it.
    promises.no_hello_from(&cut.machines, &unreachable, (0, cut.to));
    promises.answered_at(own, &unreachable, (STARTED, ran.ended));
    let mut broken = promises.broken();
    broken.extend(all_know(ran, &reach, &unreachable, STARTED));
    // An address that was never proven is tried with pauses that double.
    broken.extend(all_know(ran, &everyone(ran), &unreachable, 2 * cut.to + 10_000));
    broken
}
