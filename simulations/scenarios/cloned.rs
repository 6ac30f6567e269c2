//! A machine is a copy of another one.

use std::net::IpAddr;

use super::chaos::TWINS;
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
    errors: TWINS,
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
    if let Some(Fault::Cloned { of, from }) = ran.plan.steps.first().map(|step| &step.what) {
        broken.extend(both_say_so(ran, from, of));
    }
    broken
}

/// Both machines say that there are two of this name, each from where it stands.
pub(super) fn both_say_so(ran: &Ran, name: &str, other: &str) -> Vec<String> {
    let machines = [name, other].map(|who| ran.machine(who));
    let addrs = machines.map(|machine| machine.and_then(|it| ran.history.at(0).machines.get(it)?.addrs.first().copied()));
    let said = |addr: IpAddr| {
        let this = format!("two machines have the name {name}: this one at {addr}:");
        ran.complaints.iter().any(|complaint| complaint.contains(&this))
    };
    let silent = addrs.into_iter().flatten().filter(|addr| !said(*addr));
    silent.map(|addr| format!("the machine at {addr} did not say that another one has its name, {name}")).collect()
}
