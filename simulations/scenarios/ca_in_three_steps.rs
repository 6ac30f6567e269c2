//! The cluster's CA is replaced in three steps.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ca-replaced-in-three-steps",
    story: "A new CA is added to the old one's file, node by node; then the apiservers show its certificates, one after the other, without \
            a restart; then the old one is taken from the file, node by node. At no time does anybody notice.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// From one step to the next.
const APART: Ms = 20_000;
/// Each of them reaches everybody within this.
const TAKES: Ms = 12_000;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster_at_work(&[1, 2, 3, 5]);
    let planes = cluster.nodes.iter().filter(|node| node.control_plane).count();
    let begins = cast.moment("when", 10_000, 13_000);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 85_000 }.step(begins, Fault::NextCa);
    let names = plan.names();
    for (turn, old_too) in [(0, true), (2, false)] {
        for name in &names {
            let at = begins + turn * APART + cast.moment(&format!("file {turn} reaches {name}"), 0, TAKES);
            plan = plan.step(at, Fault::GiveCa { of: who(name), old_too });
        }
    }
    for name in &names[..planes] {
        let at = begins + APART + cast.moment(&format!("{name} shows it"), 0, TAKES);
        plan = plan.step(at, Fault::Reissue { of: who(name) });
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let begins = ran.plan.steps.first().map_or(0, |step| step.at);
    let mut promises = Promises::of(ran);
    promises.nobody_fails().nothing_cut((0, ran.ended)).exchanges_end_well((0, ran.ended)).leases_kept(15_000);
    promises.late_at_most(NOT_LATE, begins, (begins, ran.ended));
    promises.broken()
}
