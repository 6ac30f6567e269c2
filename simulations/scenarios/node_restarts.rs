//! A machine restarts, and is the same as before.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "node-restarts",
    story: "A machine, perhaps one of a control plane, restarts and comes back with its address. Everybody has it again.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.anybody(&cluster, "who restarts"));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 2_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, lasts, Fault::Machine { of })
}

/// Also where it comes back elsewhere.
pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let back = ran.last_step();
    let mut broken = served(ran, &everyone, back + 8_000, ran.ended);
    broken.extend(all_know(ran, &everyone, &ran.endpoints(&everyone, ran.ended), back + 20_000));
    broken
}
