//! Nothing works when the agents start, and the balancer hangs.

use super::workers_first::held_and_served;
use crate::sim::plan::{Fault, Plan, who};
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "nothing-works-at-first",
    story: "When the agents start the external load balancer accepts everything and carries nothing, and the apiservers refuse, hang or \
            cannot be reached. The apiservers get well, the balancer does not for long: whoever is waiting by then is served all the same.",
    class: Class::Quick,
    plan,
    holds: held_and_served,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = Some(0);
    let mode = cast.draw.one_of("the apiservers", &[Mode::Refusing, Mode::Hung, Mode::Dropping]);
    let lasts = cast.moment("for how long", 6_000, 18_000);
    let hangs = lasts + cast.moment("the balancer for longer by", 10_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(0, lasts, Fault::Apiserver { of: who("cp-*"), mode }).fault(
        0,
        hangs,
        Fault::Balancer { mode: Mode::Hung },
    )
}
