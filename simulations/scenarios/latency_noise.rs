//! Round trips waver.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, no_verdict_changes, nobody_failed};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "latency-noise",
    story: "All packets take half to one and a half times as long as usual, each as it likes. Nobody's verdict changes.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[2, 3, 5]);
    cluster.zones = cluster.zones.iter().map(|row| row.iter().map(|trip| trip * 5).collect()).collect();
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, 40_000, Fault::Jitter { of: who("*"), share: 0.5 })
}

fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let mut broken = nobody_failed(ran, &everyone, 5_000, ran.ended);
    broken.extend(no_verdict_changes(ran, 5_000, ran.ended));
    broken
}
