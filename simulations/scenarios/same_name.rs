//! Two machines have been given one name.

use super::chaos::TWINS;
use super::cloned::both_say_so;
use crate::sim::plan::{Node, Plan};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "same-name-twice",
    story: "Somebody gave a new worker the name of another one; each has a state directory of its own. Both say so as an ERROR, both \
            serve, and nobody else is confused.",
    class: Class::Quick,
    plan,
    holds,
    errors: TWINS,
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3]);
    let name = cast.worker(&cluster, "whose name");
    cluster.nodes.push(Node { name: "namesake".to_owned(), config: format!("node: {name}\n"), ..Node::default() });
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }
}

/// By then all have started and met.
const STARTED: u64 = 8_000;

fn holds(ran: &Ran) -> Vec<String> {
    let mut broken = nobody_failed(ran, &everyone(ran), STARTED, ran.ended);
    broken.extend(served(ran, &everyone(ran), STARTED, ran.ended));
    let other = ran.plan.cluster.nodes.last().and_then(|node| node.config.trim().strip_prefix("node: ")).unwrap_or_default();
    broken.extend(both_say_so(ran, other, "namesake"));
    broken
}
