//! Gossip's keys are rotated.

use crate::sim::plan::{Fault, Node, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, never_down, nobody_failed};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "keys-rotated",
    story: "Gossip's key is rotated: added on all nodes, then promoted on all, then the old one retired, node after node in any order. \
            Nobody loses sight of anybody, and a control plane that comes afterwards is found by all.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3]);
    cluster.nodes.push(Node { name: "newcomer".to_owned(), control_plane: true, later: true, ..Node::default() });
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 75_000 };
    let names = plan.names();
    let mut at = cast.moment("when", 12_000, 15_000);
    for step in ["add", "promote", "retire"] {
        for name in &names {
            let when = at + cast.moment(&format!("{step} at {name}"), 0, 6_000);
            plan = plan.step(when, Fault::Keyring { of: who(name.clone()), step: step.to_owned() });
        }
        at += 7_000;
    }
    plan.step(at + 3_000, Fault::Join { of: who("newcomer") })
}

fn holds(ran: &Ran) -> Vec<String> {
    let joined = ran.last_step();
    let there = everyone(ran).into_iter().filter(|node| ran.names[*node] != "newcomer").collect();
    let mut broken = nobody_failed(ran, &there, 5_000, ran.ended);
    broken.extend(never_down(ran, &there, &ran.endpoints(&there, 0), 5_000, ran.ended));
    for at in [joined - 500, joined + 15_000] {
        broken.extend(all_know(ran, &there, &ran.endpoints(&everyone(ran), at), at));
    }
    broken
}
