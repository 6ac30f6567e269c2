//! Nobody gossips.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "gossip-off",
    story: "Gossip is off, and every node's configuration names the apiservers. One of them dies and comes back, and that is found out \
            and survived all the same.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let planes = cluster.nodes.iter().filter(|node| node.control_plane).count();
    // Machines are numbered from 10.0.0.1 on.
    let endpoints: Vec<String> = (1..=planes).map(|number| format!("\"10.0.0.{number}:6443\"")).collect();
    let config = format!("gossip-listen: \"off\"\nendpoint: [{}]\n", endpoints.join(", "));
    let cluster = Cluster { seeds: 0, config, ..cluster };
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    let mode = cast.draw.one_of("does", &[Mode::Refusing, Mode::Dropping]);
    Plan { cluster, steps: Vec::new(), lasts: 50_000 }.fault(at, 15_000, Fault::Apiserver { of, mode })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().late_at_most(300, fault.from, (fault.from, fault.from + 5_000));
    promises.late_at_most(NOT_LATE, fault.from, (fault.from + 5_000, ran.ended));
    promises.ready_everywhere(&fault.endpoints, ran.ended - 1_000);
    promises.broken()
}
