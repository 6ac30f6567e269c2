//! An apiserver says that it is not ready, and serves.

use super::apiserver_crashes::one_of_several;
use crate::sim::plan::Plan;
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-not-ready-but-serving",
    story: "For a while an apiserver answers 500 when it is asked whether it is ready, and serves whoever is connected. New connections \
            go elsewhere, nobody is cut off.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    one_of_several(cast, Mode::Draining)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().nothing_cut((0, ran.ended)).late_at_most(NOT_LATE, fault.from, (fault.from, ran.ended));
    // Its own node says so within a quarter of a second, and gossip carries it.
    promises.unused(&fault.endpoints, (fault.from + 2_000, fault.to));
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
