//! An apiserver's process dies, and comes back.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-crashes",
    story: "An apiserver's process dies, its kernel refuses, and after a while it is started again.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    one_of_several(cast, Mode::Refusing)
}

/// One of several apiservers does this for some time.
pub(super) fn one_of_several(cast: &Cast, mode: Mode) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 8_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(at, lasts, Fault::Apiserver { of, mode })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let crash = promises.step(0);
    promises.nobody_fails().late_at_most(NOT_LATE, crash.from, (crash.from, ran.ended));
    promises.reset_within(500, &crash);
    // Used again within 5 s.
    promises.ready_everywhere(&crash.endpoints, crash.to + 5_000);
    promises.broken()
}
