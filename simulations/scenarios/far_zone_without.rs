//! One zone is far from the others, and has no control plane.

use super::zone_cut_with::zones;
use crate::sim::plan::Plan;
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-80-ms-away-without-control-plane",
    story: "The last zone is 80 ms from the others and has workers only. All of them go far, since there is nobody near, use all apiservers \
            there are, and wait for nothing but the distance.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// A round trip to the others, in ms.
const FAR: u32 = 80;
/// A dial, a handshake: two round trips, and the jitter of each.
const GREETED: Ms = 2 * (FAR as Ms + FAR as Ms / 10);
/// By then everybody has started, and measured everybody.
const MEASURED: Ms = 15_000;

fn plan(cast: &Cast) -> Plan {
    let (mut cluster, _) = zones(cast, false);
    let far = cluster.zones.len() - 1;
    for near in 0..far {
        cluster.zones[near][far] = FAR;
        cluster.zones[far][near] = FAR;
    }
    // Enough of them that chance alone does not make a share look unfair.
    cluster.fresh_every = 100;
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }
}

fn holds(ran: &Ran) -> Vec<String> {
    let far = ran.plan.cluster.zones.len() - 1;
    let there = (0..ran.names.len()).filter(|node| ran.plan.cluster.nodes[*node].zone == far).collect();
    let mut promises = Promises::of(ran);
    let all = promises.endpoints_of(&(0..ran.names.len()).collect(), 0);
    promises.nobody_fails().waits_at_most(GREETED + NOT_LATE, (MEASURED, ran.ended));
    promises.all_served((MEASURED, ran.ended)).evenly(&there, &all, (MEASURED, ran.ended));
    promises.broken()
}
