//! The external balancer hangs.

use super::balancer_refuses::{felt_where_it_must_be, gone, left};
use crate::sim::plan::Plan;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-hangs",
    story: "The external load balancer hangs while everybody starts, and again later: its kernel accepts, nothing is carried. Who knows the \
            apiservers leaves it within seconds and does not notice; a few nodes know nothing but the balancer, hold their clients, and \
            are served when it goes on.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    gone(cast, Mode::Hung)
}

fn holds(ran: &Ran) -> Vec<String> {
    [felt_where_it_must_be(ran), left(ran, 10_000)].concat()
}
