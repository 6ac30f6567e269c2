//! The control planes are upgraded, one after the other.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rolling-upgrade",
    story: "All control planes are upgraded, one after the other: each drains, is gone for some seconds, perhaps with its machine, and \
            comes back, soon before the next one's turn. No client notices, and who comes back is not overrun.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// An apiserver closes so long after it was told to stop.
const CLOSES_AFTER: Ms = 5_000;
/// From one control plane's turn to the next one's.
const APART: Ms = 13_000;

fn plan(cast: &Cast) -> Plan {
    let planes = if cast.smallest { 2 } else { cast.draw.one_of("control planes", &[2, 3, 5]) };
    // All are alike and much is asked of them, so that shares can be counted.
    let cluster = Cluster { fresh_every: 50, jitter: 0.0, ..cast.zoned(planes, cast.count("workers", 4, 7), 1) };
    let first = cast.moment("when", 12_000, 14_000);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 0 };
    for place in 1..=planes {
        let at = first + APART * (place as Ms - 1);
        let of = || who(format!("cp-{place}"));
        let gone = cast.moment(&format!("how long cp-{place} is gone"), 1_500, 4_000);
        plan = plan.fault(at, CLOSES_AFTER + gone, Fault::Drain { of: of() });
        plan.lasts = at + APART + 10_000;
        if cast.draw.chance(&format!("cp-{place} is rebooted"), 0.5) {
            plan = plan.fault(at + CLOSES_AFTER + 500, gone - 500, Fault::Machine { of: of() });
        }
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let workers = promises.machines(&who("worker-*"));
    let began = ran.plan.steps.first().map_or(0, |step| step.at);
    promises.nobody_fails().late_at_most(NOT_LATE, began, (began, ran.ended));
    for place in 0..ran.plan.steps.len() {
        let upgrade = promises.step(place);
        if matches!(ran.plan.steps[place].what, Fault::Drain { .. }) {
            promises.unused(&upgrade.endpoints, (upgrade.from + 1_500, upgrade.from + CLOSES_AFTER));
            promises.nothing_cut((upgrade.from, upgrade.from + CLOSES_AFTER));
        }
        // Until the next one's turn, which leaves the more to this one.
        let next = ran.plan.steps.iter().map(|step| step.at).find(|at| *at > upgrade.to).unwrap_or(ran.ended);
        promises.at_most_fair_share(&workers, &upgrade.endpoints, (upgrade.to, next.min(upgrade.to + 10_000)));
        promises.ready_everywhere(&upgrade.endpoints, upgrade.to + 5_000);
    }
    promises.broken()
}
