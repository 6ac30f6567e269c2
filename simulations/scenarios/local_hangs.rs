//! A control-plane node's own apiserver hangs.

use super::apiserver_crashes::one_of_several;
use crate::sim::plan::Plan;
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "local-apiserver-hangs",
    story: "A control-plane node's own apiserver, which comes before all others there, hangs. The node's own clients go to the other \
            control planes, those with open connections too, and return when it does.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut plan = one_of_several(cast, Mode::Hung);
    // The node's own clients are many, so that whatever goes wrong there shows.
    plan.cluster.fresh_every = 200;
    for step in &mut plan.steps {
        step.lasts = Some(cast.moment("for how long", 12_000, 20_000));
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let hung = promises.step(0);
    let (own, local) = (&hung.machines, &hung.endpoints);
    promises.nobody_fails().late_only_at_first(2_000, 5_000, &hung);
    // Before it the node's own apiserver has all of its clients, in between none, and then all again.
    promises.answered_at(own, local, (8_000, hung.from - 100));
    promises.answered_elsewhere(own, local, (hung.from + 5_000, hung.to));
    promises.left_within(10_000, own, &hung);
    promises.answered_at(own, local, (hung.to + 5_000, ran.ended));
    promises.broken()
}
