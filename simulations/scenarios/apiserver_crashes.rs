//! An apiserver's process dies, and comes back.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::scenario::{Cast, Class, Scenario, nothing_more};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-crashes",
    story: "An apiserver's process dies, its kernel refuses, and after a while it is started again.",
    class: Class::Quick,
    plan,
    holds: nothing_more,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "who crashes"));
    let at = cast.moment("when", 10_000, 14_000);
    let lasts = cast.moment("for how long", 5_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, lasts, Fault::Apiserver { of, mode: Mode::Refusing })
}
