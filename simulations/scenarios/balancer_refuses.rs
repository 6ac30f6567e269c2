//! The external balancer's process is gone.

use crate::sim::plan::{Fault, Plan};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-refuses",
    story: "The external load balancer in front of the control plane dies: its port is closed, and what went through it is reset. After a while it is back.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    gone(cast, Mode::Refusing)
}

/// The balancer stops to serve in this way, and is back later.
pub(super) fn gone(cast: &Cast, mode: Mode) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = cast.draw.several("balancer's zone", 1, cluster.zones.len()).first().copied();
    let at = cast.moment("when", 15_000, 18_000);
    let lasts = cast.moment("for how long", 15_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(at, lasts, Fault::Balancer { mode })
}

fn holds(ran: &crate::sim::run::Ran) -> Vec<String> {
    nobody_notices(ran)
}

/// Whoever lost what went through the balancer aside, nobody feels that it is gone, or that it comes back.
pub(super) fn nobody_notices(ran: &crate::sim::run::Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().late_at_most(NOT_LATE, fault.from, (fault.from, ran.ended));
    promises.unused(&fault.endpoints, (fault.from, ran.ended)).leases_kept(20_000);
    promises.broken()
}
