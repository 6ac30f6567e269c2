//! An apiserver closes its port and goes on serving what is open.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-closes-its-port",
    story: "An apiserver that is told to stop, without any delay before that, closes its port at once. Watches and requests that are \
            under way go on for up to a minute, until it ends them in good order. They are not reset before that, and new connections \
            go elsewhere from the first moment on.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster_at_work(&[2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    let serves_on = cast.moment("for how long", 25_000, 60_000);
    let lasts = serves_on + cast.moment("how long it is gone", 2_000, 6_000);
    Plan { cluster, steps: Vec::new(), lasts: 88_000 }.fault(at, lasts, Fault::GracefulStop { of, serves_on })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let stop = promises.step(0);
    let Some(Fault::GracefulStop { serves_on, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let ends = stop.from + serves_on;
    promises.nobody_fails().late_at_most(NOT_LATE, stop.from, (stop.from, ran.ended)).leases_kept(15_000);
    promises.nothing_cut((0, ran.ended)).exchanges_end_well((0, ends));
    // A connection that was open before may say hello a moment later.
    promises.unused(&stop.endpoints, (stop.from + 100, ends));
    promises.ready_everywhere(&stop.endpoints, stop.to + 5_000);
    promises.broken()
}
