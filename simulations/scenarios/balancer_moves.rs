//! The external balancer's name resolves to a new address.

use super::balancer_refuses::{ONLY_IT, depends_on_it, only_the_balancer};
use crate::sim::plan::{Fault, Plan};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-moves",
    story: "The external load balancer is known by a DNS name, which resolves to a new address from one moment to the next; nothing answers \
            at the old one. Whoever knows the apiservers does not notice. Who knows only the balancer finds it when the old answer \
            may no longer be kept, and no restart is needed.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// An answer of DNS may be kept for 30 s; then the new address has to be proven.
const FOUND: Ms = 33_000;

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = Some(0);
    cluster.by_name = true;
    only_the_balancer(cast, &mut cluster, ONLY_IT);
    let at = cast.moment("when", 12_000, 18_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.step(at, Fault::BalancerMoves)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let moved = promises.step(0);
    let only = promises.machines(&depends_on_it(ran));
    let others = (0..ran.names.len()).filter(|node| !only.contains(node)).collect();
    let new = promises.endpoints_of(&[ran.names.len()].into(), ran.ended);
    promises.nobody_of_fails(&others, (0, Ms::MAX)).late_of(&others, NOT_LATE, moved.from, (moved.from, ran.ended));
    promises.nobody_of_fails(&only, (moved.from + FOUND, Ms::MAX));
    promises.answered_at(&only, &new, (moved.from + FOUND, ran.ended)).all_served((moved.from + FOUND, ran.ended));
    promises.left_within(6_500, &only, &moved);
    promises.broken()
}
