//! A machine sleeps for an hour.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "suspended-for-an-hour",
    story: "A machine is suspended for an hour: its processes stand still, nothing gets in or out, and its clock is set afterwards. \
            When it wakes up its clients are served within seconds, and it finds everybody again.",
    class: Class::Long,
    plan,
    holds,
    errors: &[],
};

/// An hour.
const ASLEEP: u64 = 3_600_000;

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3]);
    cluster.fresh_every = 2_000;
    let name = cast.worker(&cluster, "who sleeps");
    let at = cast.moment("when", 12_000, 15_000);
    let cut = Fault::Partition { from: who(name.clone()), to: Vec::new(), both: true, class: None };
    Plan { cluster, steps: Vec::new(), lasts: at + ASLEEP + 90_000 }
        .fault(at, ASLEEP, Fault::Stall { of: who(name.clone()) })
        .fault(at, ASLEEP, cut)
        // Until time is set right it is an hour behind.
        .fault(at, ASLEEP + 2_000, Fault::ClockJump { of: who(name), by: -3_600_000 })
}

fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let mut broken = served(ran, &everyone, ran.last_step() + 3_000, ran.ended);
    broken.extend(all_know(ran, &everyone, &ran.endpoints(&everyone, ran.ended), ran.last_step() + 30_000));
    broken
}
