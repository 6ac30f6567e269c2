//! A control plane's machine loses its power.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-loses-its-machine",
    story: "A control plane's machine loses its power, agent and apiserver with it, and nobody says a word. Later it boots again.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 10_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(at, lasts, Fault::Machine { of })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let loss = promises.step(0);
    promises.nobody_fails().late_only_at_first(300, 2_000, &loss).reset_within(6_000, &loss);
    promises.ready_everywhere(&loss.endpoints, loss.to + 5_000);
    promises.broken()
}
