//! The external balancer falls silent.

use super::balancer_refuses::{gone, nobody_notices};
use crate::sim::plan::Plan;
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-drops",
    story: "Packets to the external load balancer vanish without a word, and pass again after a while.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    gone(cast, Mode::Dropping)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.reset_within(6_500, &fault);
    [nobody_notices(ran), promises.broken()].concat()
}
