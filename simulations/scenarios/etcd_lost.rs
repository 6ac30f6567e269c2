//! None is ready, and all serve.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "etcd-loses-quorum",
    story: "etcd has lost its quorum, so that every apiserver answers 500 when it is asked whether it is ready. What they can still \
            serve they go on to serve: nobody is refused, held or cut off.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 3, 5]);
    cluster.balancer = cast.draw.chance("there is a balancer", 0.5).then_some(0);
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 15_000, 30_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(
        at,
        lasts,
        Fault::Apiserver { of: who("cp-*"), mode: Mode::Draining },
    )
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().nothing_cut((0, ran.ended)).leases_kept(15_000);
    promises.late_at_most(NOT_LATE, fault.from, (fault.from, ran.ended));
    promises.broken()
}
