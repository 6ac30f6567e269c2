//! An apiserver hangs.

use super::apiserver_crashes::one_of_several;
use crate::sim::plan::Plan;
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-hangs",
    story: "An apiserver hangs: its kernel accepts connections, and nobody answers on them. After a while it goes on as if nothing had been.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    one_of_several(cast, Mode::Hung)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().late_only_at_first(2_000, 5_000, &fault);
    if fault.to > fault.from + 10_000 {
        promises.reset_within(10_000, &fault);
    }
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
