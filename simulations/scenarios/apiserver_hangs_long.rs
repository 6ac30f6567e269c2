//! An apiserver hangs for longer than a lease lives.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-hangs-for-a-minute",
    story: "An apiserver hangs for a minute. A kubelet that was left alone with it would find out after 45 s, when its node has long \
            been NotReady; its connection is cut before, and its lease renewed elsewhere.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3]);
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: 85_000 }.fault(at, 60_000, Fault::Apiserver { of, mode: Mode::Hung })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().late_only_at_first(2_000, 5_000, &fault).reset_within(10_000, &fault);
    // An attempt, the time-out of the next one, and what it takes to be cut.
    promises.leases_kept(30_000).ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
