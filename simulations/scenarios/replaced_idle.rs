//! All control planes are replaced while no client asks for anything (rke2 6208).

use std::collections::BTreeSet;

use super::planes_replaced::{known_in_time, replaced_of};
use crate::sim::plan::{Cluster, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::all_know;
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "control-planes-replaced-while-idle",
    story: "All control planes are replaced, at new addresses, while not one client opens a connection. The first that does afterwards \
            is served at once, by those that there are.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// From one replacement to the next.
const APART: Ms = 8_000;

fn plan(cast: &Cast) -> Plan {
    let plan = replaced_of(cast, &[1, 2, 3], APART);
    let done = plan.lasts;
    // A client opens its first connection after half of this at the earliest, and most do before the end.
    let cluster = Cluster { kubelets: false, fresh_every: 2 * done, ..plan.cluster };
    Plan { cluster, lasts: 88_000, ..plan }
}

/// What a client waits for an apiserver that its agent knows: a dial and a handshake.
const AT_ONCE: Ms = 60;

fn holds(ran: &Ran) -> Vec<String> {
    let (workers, new): (_, BTreeSet<usize>) = (ran.machines(&who("worker-*")), ran.machines(&who("new-*")));
    let mut promises = Promises::of(ran);
    let there = promises.endpoints_of(&new, ran.ended);
    promises.nobody_fails().waits_at_most(AT_ONCE, (0, ran.ended));
    promises.answered_at(&workers, &there, (ran.last_step(), ran.ended));
    let mut broken = promises.broken();
    broken.extend(known_in_time(ran, &workers));
    broken.extend(all_know(ran, &workers, &ran.endpoints(&new, ran.ended), ran.ended - 1));
    broken
}
