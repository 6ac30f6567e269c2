//! The external balancer's name is answered with another apiserver each time.

use super::balancer_refuses::{ONLY_IT, depends_on_it, only_the_balancer};
use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-name-takes-turns",
    story: "The name of the external load balancer is answered with one apiserver's address at a time, the next one each 10 s, as round-robin \
            DNS does that answers in subsets. Nodes that know nothing but this name get to know all of them and keep them: no upstream leaves \
            because an answer left it out.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[3]);
    cluster.balancer = Some(0);
    cluster.by_name = true;
    only_the_balancer(cast, &mut cluster, ONLY_IT);
    let at = cast.moment("when", 12_000, 18_000);
    Plan { cluster, steps: Vec::new(), lasts: 90_000 }.fault(at, 70_000, Fault::NameTakesTurns { of: who("cp-*") })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let turns = promises.step(0);
    let only = promises.machines(&depends_on_it(ran));
    promises.nobody_fails().late_of(&only, NOT_LATE, turns.from, (turns.from, turns.to)).all_served((turns.from, turns.to));
    promises.broken()
}
