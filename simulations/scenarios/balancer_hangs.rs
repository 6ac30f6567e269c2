//! The external balancer hangs.

use super::balancer_refuses::{gone, nobody_notices};
use crate::sim::plan::Plan;
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-hangs",
    story: "The external load balancer hangs: its kernel accepts, nothing is carried. It goes on after a while.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    gone(cast, Mode::Hung)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.reset_within(10_000, &fault);
    [nobody_notices(ran), promises.broken()].concat()
}
