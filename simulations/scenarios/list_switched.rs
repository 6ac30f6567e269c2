//! The list of apiservers is switched under way, as go-loadbalancer tests its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "list-switched",
    story: "Gossip is off, and of five apiservers the configuration names the first two. Then it is changed to name the other three, \
            and read again: from then on these three share what is new, evenly, and nobody notices.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// Machines are numbered from 10.0.0.1 on.
fn naming(numbers: std::ops::RangeInclusive<usize>) -> String {
    let endpoints: Vec<String> = numbers.map(|number| format!("\"10.0.0.{number}:6443\"")).collect();
    format!("gossip-listen: \"off\"\nendpoint: [{}]\n", endpoints.join(", "))
}

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.zoned(5, cast.count("workers", 4, 7), 1);
    // All are alike, and it is the draw that is looked at.
    let mut cluster = Cluster { seeds: 0, jitter: 0.0, fresh_every: 66, ..cluster };
    for node in cluster.nodes.iter_mut().filter(|node| !node.control_plane) {
        node.config = naming(1..=2);
    }
    for node in cluster.nodes.iter_mut().filter(|node| node.control_plane) {
        node.config = "gossip-listen: \"off\"\n".to_owned();
    }
    let at = cast.moment("when", 15_000, 18_000);
    let switched = Fault::Configure { of: who("worker-*"), config: naming(3..=5) };
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }.step(at, switched)
}

/// A fresh one is proven within a probe.
const PROVEN: Ms = 1_500;
/// Those that joined are given more and more over so long.
const RAMP: Ms = 30_000;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let switch = promises.step(0);
    let of = |names: &[&str]| -> BTreeSet<SocketAddr> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        promises.endpoints_of(&promises.machines(&names), 0)
    };
    let (before, after) = (of(&["cp-1", "cp-2"]), of(&["cp-3", "cp-4", "cp-5"]));
    let workers = promises.machines(&who("worker-*"));
    promises.nobody_fails().late_at_most(NOT_LATE, switch.from, (switch.from, ran.ended));
    promises.answered_at(&workers, &before, (0, switch.from));
    promises.answered_at(&workers, &after, (switch.from + PROVEN, ran.ended));
    promises.evenly(&workers, &after, (switch.from + RAMP, ran.ended));
    promises.broken()
}
