//! A machine is a copy of another one.

use crate::sim::plan::{Fault, Plan};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "cloned-machine",
    story: "A worker's disk was copied from another one's, state directory and name included, and both run. \
            Both say so as an ERROR, and both serve.",
    class: Class::Quick,
    plan,
    holds,
    errors: &["two machines have the name"],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3]);
    let from = cast.worker(&cluster, "the original");
    let others = cluster.nodes.iter().filter(|node| !node.control_plane).count();
    let first = usize::from(from == "worker-1");
    let of = format!("worker-{}", 1 + cast.draw.number("the copy", first as u64, others as u64 - 1));
    let of = if of == from { "worker-1".to_owned() } else { of };
    let at = cast.moment("when", 15_000, 18_000);
    Plan { cluster, steps: Vec::new(), lasts: 80_000 }.step(at, Fault::Cloned { of, from })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut broken = nobody_failed(ran, &everyone(ran), 5_000, ran.ended);
    broken.extend(served(ran, &everyone(ran), ran.last_step() + 8_000, ran.ended));
    if !ran.complaints.iter().any(|complaint| complaint.contains("two machines have the name")) {
        broken.push("nobody said that two machines have one name".to_owned());
    }
    broken
}
