//! Many nodes join at once.

use crate::sim::plan::{Fault, Node, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "many-nodes-join",
    story: "An autoscaler adds more workers than there were nodes, within two seconds. All of them are served, \
            and nobody who was there before notices.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 3, 5]);
    let zones = cluster.zones.len();
    let newcomers = cast.count("newcomers", 8, 20);
    let node = |place: usize| Node { name: format!("new-{place}"), zone: place % zones, later: true, ..Node::default() };
    cluster.nodes.extend((0..newcomers).map(node));
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: 50_000 }.step(at, Fault::Join { of: who("new-*") })
}

fn holds(ran: &Ran) -> Vec<String> {
    let new = ran.machines(&who("new-*"));
    let old = everyone(ran).difference(&new).copied().collect();
    let mut broken = served(ran, &old, 5_000, ran.ended);
    // Their clients come up with their agents, which know nothing yet: within this all have found somebody.
    broken.extend(served(ran, &new, ran.last_step() + 8_000, ran.ended));
    broken
}
