//! An apiserver has too much to do.

use super::apiserver_crashes::one_of_several;
use crate::sim::plan::Plan;
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-overloaded",
    story: "An apiserver has too much to do: it answers late, and 429 when it is asked whether it is ready. New connections go to the \
            others, and those that it has are left to it.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    one_of_several(cast, Mode::Overloaded)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().nothing_cut((0, ran.ended)).late_at_most(400, fault.from, (fault.from, ran.ended));
    promises.unused(&fault.endpoints, (fault.from + 2_500, fault.to));
    promises.ready_everywhere(&fault.endpoints, fault.to + 10_000);
    promises.broken()
}
