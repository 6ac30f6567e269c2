//! An apiserver's address falls silent.

use super::apiserver_crashes::one_of_several;
use crate::sim::plan::Plan;
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-drops",
    story: "Packets to an apiserver's port vanish, as behind a firewall's new rule, while its machine and its agent are well. After a while they pass again.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    one_of_several(cast, Mode::Dropping)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().late_only_at_first(300, 2_000, &fault).reset_within(6_000, &fault);
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
