//! The only apiserver fails its checks, since it has so much to do (k3s 10240).

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::{Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "only-apiserver-fails-checks",
    story: "There is one control plane, and under load it answers so late that its checks fail, or says that it has too much to do. It is \
            all there is: nobody is cut off from it, nobody is refused, and everything takes as long as it takes.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1]);
    let mode = cast.draw.one_of("how", &[Mode::Overloaded, Mode::Slow(600), Mode::Slow(1_200), Mode::Slow(2_500)]);
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 15_000, 30_000);
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }.fault(at, lasts, Fault::Apiserver { of: who("cp-1"), mode })
}

/// Beside its own time for a first byte: a dial that is given up as late once, and begun again.
const AGAIN: Ms = 3_000;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let slow = promises.step(0);
    let Some(Fault::Apiserver { mode, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    promises.nobody_fails().nothing_cut((0, ran.ended)).leases_kept(20_000);
    promises.late_at_most(mode.delay() + AGAIN, slow.from, (slow.from, ran.ended));
    promises.ready_everywhere(&slow.endpoints, slow.to + 5_000);
    promises.broken()
}
