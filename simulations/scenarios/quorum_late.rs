//! Agents start before the control plane has its quorum, as rke2's do (rke2 5364).

use super::workers_first::held_and_served;
use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agents-start-before-quorum",
    story: "A cluster is switched on, and its apiservers have no etcd to speak of yet: they say that they are not ready, or crash, or hang. \
            Those that serve at all are used at once; otherwise clients are held, and who is waiting when the apiservers are well is \
            served by them.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let mode = cast.draw.one_of("until then", &[Mode::Draining, Mode::Refusing, Mode::Hung]);
    let lasts = cast.moment("for how long", 10_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(0, lasts, Fault::Apiserver { of: who("cp-*"), mode })
}

/// What starts has proven the first apiserver by then.
const STARTED: u64 = 4_000;

fn holds(ran: &Ran) -> Vec<String> {
    let unready = matches!(ran.plan.steps.first().map(|step| &step.what), Some(Fault::Apiserver { mode: Mode::Draining, .. }));
    if !unready {
        return held_and_served(ran);
    }
    let mut promises = Promises::of(ran);
    promises.nobody_fails_between(STARTED, ran.ended).nothing_cut((0, ran.ended)).all_served((STARTED, STARTED + 3_000));
    promises.broken()
}
