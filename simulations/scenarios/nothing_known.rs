//! The list of apiservers is empty, as go-loadbalancer tests its own.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "nothing-known-at-first",
    story: "Gossip is off, and the workers' configuration names no apiserver at all: clients are held. Then one is named, and the \
            configuration is read again: whoever waits is served by it within a tenth of a second.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// A client is held for so long after its hello.
const HELD: Ms = 8_000;
/// From when an endpoint is known until it is proven and has answered: four round trips of at most 10 ms, and some scheduling.
const PICKED_WITHIN: Ms = 100;
/// From the beginning it is named no sooner than this, and no later than the first client's patience ends.
const NAMED: (Ms, Ms) = (4_000, 7_500);

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3]);
    let planes = cluster.nodes.iter().filter(|node| node.control_plane).count();
    let off = "gossip-listen: \"off\"\n";
    let cluster = Cluster { seeds: 0, stagger: 500, config: off.to_owned(), ..cluster };
    // Machines are numbered from 10.0.0.1 on.
    let named = cast.draw.number("which is named", 1, planes as u64);
    let at = cast.moment("when", NAMED.0, NAMED.1);
    let config = format!("endpoint: [\"10.0.0.{named}:6443\"]\n");
    let plan = Plan { cluster, steps: Vec::new(), lasts: 30_000 };
    plan.step(at, Fault::Configure { of: who("worker-*"), config })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let named = promises.step(0);
    let first = named.from + PICKED_WITHIN;
    promises.nobody_fails().answered_by(first, (named.from.saturating_sub(HELD), named.from));
    promises.waits_of(&named.machines, PICKED_WITHIN, (named.from, ran.ended));
    promises.broken()
}
