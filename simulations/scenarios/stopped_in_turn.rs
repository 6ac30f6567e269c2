//! Control planes are stopped in turn, and each time a worker starts, as k0s tests its own balancer.

use std::collections::BTreeSet;

use crate::sim::plan::{Cluster, Fault, Node, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{nobody_failed, served};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "control-planes-stopped-in-turn",
    story: "Each of three control planes is stopped in turn, its whole machine, and while it is away a worker joins. In some clusters \
            all have IPv6 addresses only. Every newcomer is served, whichever of its seeds is away, and nobody else notices.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

const PLANES: usize = 3;
/// From one to the next.
const APART: Ms = 17_000;
/// Whoever connects so shortly before the next one loses power may have it as upstream.
const BEFORE_NEXT: Ms = 100;
/// Who starts knows nothing but its seeds, one of which is away.
const STARTS: Ms = 3_000;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[PLANES]);
    let mut cluster = Cluster { ipv6_only: cast.draw.chance("IPv6 only", 0.5), stagger: 500, ..cluster };
    let new = |place: usize| Node { name: format!("new-{place}"), later: true, ..Node::default() };
    cluster.nodes.extend((1..=PLANES).map(new));
    let first = cast.moment("when", 12_000, 14_000);
    let plan = Plan { cluster, steps: Vec::new(), lasts: first + APART * PLANES as Ms + 5_000 };
    (1..=PLANES).fold(plan, |plan, place| {
        let at = first + APART * (place as Ms - 1);
        let joins = at + cast.moment(&format!("new-{place} joins after"), 500, 3_000);
        let away = cast.moment(&format!("cp-{place} is away for"), 8_000, 11_000);
        plan.fault(at, away, Fault::Machine { of: who(format!("cp-{place}")) })
            .step(joins, Fault::Join { of: who(format!("new-{place}")) })
    })
}

fn holds(ran: &Ran) -> Vec<String> {
    let planes = ran.machines(&who("cp-*"));
    let workers: BTreeSet<usize> = ran.machines(&who("worker-*"));
    let mut broken = nobody_failed(ran, &workers, 5_000, ran.ended);
    let mut promises = Promises::of(ran);
    for (place, step) in ran.plan.steps.iter().enumerate() {
        let played = promises.step(place);
        match &step.what {
            Fault::Machine { .. } => {
                promises.late_of(&workers, 300, played.from, (played.from, played.from + 2_000));
                promises.late_of(&workers, NOT_LATE, played.from, (played.from + 2_000, played.from + APART - BEFORE_NEXT));
                promises.reset_within(6_000, &played).ready_everywhere(&played.endpoints, played.to + 5_000);
            }
            _ => broken.extend(served(ran, &played.machines, played.from + STARTS, ran.ended)),
        }
    }
    broken.extend(served(ran, &planes, ran.last_step() + 2_000, ran.ended));
    broken.extend(promises.broken());
    broken
}
