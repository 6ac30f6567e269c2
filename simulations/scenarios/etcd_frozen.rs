//! etcd does not answer for a while.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "etcd-frozen",
    story: "etcd stops answering for 25 s. Every apiserver says 500 when it is asked whether it is ready, and only after a while; what \
            needs etcd is answered when it goes on, and watches are quiet. Nobody is cut off from what would have been answered.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster_at_work(&[1, 3, 5]);
    let at = cast.moment("when", 12_000, 15_000);
    let frozen = Fault::Apiserver { of: who("cp-*"), mode: Mode::EtcdFrozen };
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }.fault(at, 25_000, frozen)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().nothing_cut((0, ran.ended)).exchanges_end_well((0, ran.ended));
    promises.late_at_most(NOT_LATE, fault.from, (fault.from, ran.ended));
    // What was asked for is answered as soon as etcd goes on, and then everything is as before.
    promises.leases_kept(fault.to - fault.from + 12_000);
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
