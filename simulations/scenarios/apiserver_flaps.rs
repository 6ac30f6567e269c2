//! An apiserver comes and goes.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-flaps",
    story: "An apiserver crashes every six seconds and is back three seconds later, again and again, as one does that is killed for \
            using too much memory. New connections fail no more than if it stayed away.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, 36_000, Fault::Flap { of, period: 6_000 })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().late_at_most(NOT_LATE, fault.from, (fault.from, ran.ended)).leases_kept(20_000);
    promises.ready_everywhere(&fault.endpoints, fault.to + 10_000);
    promises.broken()
}
