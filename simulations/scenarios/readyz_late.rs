//! `/readyz` takes its time, and nothing else does.

use crate::sim::plan::{Fault, Plan};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "readyz-late",
    story: "One apiserver, or each of them, answers /readyz late, each time after another while, sometimes with 500, or after a whole \
            minute. Whatever else is asked is answered as ever: nobody is reset, nobody fails, and nobody waits.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// How late, in ms.
const LATE: &[Mode] = &[Mode::LateReadyz(300, 4_000), Mode::LateReadyz(1_300, 1_300), Mode::LateReadyz(60_000, 60_000)];

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster_at_work(&[2, 3, 5]);
    let of = cast.one_or_all(&cluster);
    let mode = cast.draw.one_of("how late", LATE);
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 20_000, 35_000);
    Plan { cluster, steps: Vec::new(), lasts: 70_000 }.fault(at, lasts, Fault::Apiserver { of, mode })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().nothing_cut((0, ran.ended)).exchanges_end_well((0, ran.ended)).leases_kept(15_000);
    promises.late_at_most(NOT_LATE, fault.from, (fault.from, ran.ended));
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
