//! An apiserver is stopped in an orderly way.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-drains",
    story: "An apiserver is told to stop: for 5 s it serves on and says that it is not ready, then it closes its connections and is gone. Later it is started again.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// The apiserver closes so long after it was told to stop.
const CLOSES_AFTER: u64 = 5_000;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 7_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(at, lasts, Fault::Drain { of })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let drain = promises.step(0);
    promises.nobody_fails().late_at_most(NOT_LATE, drain.from, (drain.from, ran.ended));
    promises.unused(&drain.endpoints, (drain.from + 1_500, drain.from + CLOSES_AFTER));
    promises.nothing_cut((drain.from, drain.from + CLOSES_AFTER));
    promises.ready_everywhere(&drain.endpoints, drain.to + 5_000);
    promises.broken()
}
