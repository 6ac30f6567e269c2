//! The external balancer sends to the dead.

use super::balancer_refuses::{ONLY_IT, nobody_else_notices, only_the_balancer};
use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-half-works",
    story: "The external load balancer's checks find nothing, so it goes on sending to an apiserver that crashed: every second or third \
            connection through it fails. A few nodes know nothing but the balancer: what failed there is tried again at once, and their clients \
            wait for a few round trips.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[2, 3, 5]);
    cluster.balancer = Some(0);
    only_the_balancer(cast, &mut cluster, ONLY_IT);
    let of = who(cast.control_plane(&cluster, "who crashes"));
    let at = cast.moment("when", 15_000, 18_000);
    let crash = at + cast.moment("blind before", 500, 4_000);
    let lasts = cast.moment("for how long", 15_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(at, lasts + 5_000, Fault::BalancerBlind).fault(
        crash,
        lasts,
        Fault::Apiserver { of, mode: Mode::Refusing },
    )
}

/// By then everybody has started, has heard of the apiservers, and needs the balancer no longer.
const KNOWN: u64 = 4_000;

/// Four dead ends, one after the other, each for two round trips of 20 ms.
const DEAD_ENDS: u64 = 160;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let blind = promises.step(0);
    nobody_else_notices(&mut promises, ran, KNOWN, blind.from);
    promises.nobody_fails().late_at_most(DEAD_ENDS, blind.from, (blind.from, ran.ended));
    promises.broken()
}
