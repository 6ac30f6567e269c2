//! New control planes come, and the old ones go.

use std::collections::BTreeSet;

use crate::sim::plan::{Fault, Node, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, nobody_failed, served};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "control-planes-replaced",
    story: "One after the other a new control plane joins at an address of its own and an old one drains and goes, until none is left \
            that there was at first. Nobody notices. A worker that joins last is given the new ones as seeds, and finds everybody; one \
            that had only the old ones is restarted, and finds everybody too.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// From one replacement to the next, in a cluster that is in a hurry.
const APART: Ms = 9_000;
/// The new one joins so long before the old one is told to go.
const TOGETHER: Ms = 4_000;
/// An apiserver that drains has closed.
const CLOSED: Ms = 6_000;

fn plan(cast: &Cast) -> Plan {
    let mut plan = replaced(cast, APART);
    plan.cluster.nodes.push(Node { name: "late".to_owned(), later: true, ..Node::default() });
    let restarted = cast.worker(&cast.cluster(&[1, 2, 3, 5]), "who is restarted");
    let done = plan.lasts;
    plan.lasts += 22_000;
    plan.step(done + 1_000, Fault::Join { of: who("late") }).fault(done + 2_000, 2_000, Fault::AgentKilled { of: who(restarted) })
}

/// All control planes are replaced, one each so many ms; it ends when the last one has gone.
pub(super) fn replaced(cast: &Cast, apart: Ms) -> Plan {
    replaced_of(cast, &[1, 2, 3, 5], apart)
}

/// The same where there are as many control planes as one of these.
pub(super) fn replaced_of(cast: &Cast, planes: &[usize], apart: Ms) -> Plan {
    let mut cluster = cast.cluster(planes);
    let planes = cluster.nodes.iter().filter(|node| node.control_plane).count();
    let zones = cluster.zones.len();
    let new = |place: usize| Node {
        name: format!("new-{}", place + 1),
        control_plane: true,
        later: true,
        zone: place % zones,
        ..Node::default()
    };
    cluster.nodes.extend((0..planes).map(new));
    let first = cast.moment("when", 12_000, 14_000);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: first + apart * planes as Ms + CLOSED };
    for place in 1..=planes {
        let at = first + apart * (place as Ms - 1);
        let old = || who(format!("cp-{place}"));
        plan = plan
            .step(at, Fault::Join { of: who(format!("new-{place}")) })
            .step(at + TOGETHER, Fault::Drain { of: old() })
            .step(at + TOGETHER + CLOSED, Fault::Leave { of: old() });
    }
    plan
}

/// When each new one joined: it is known to these 3 s later.
pub(super) fn known_in_time(ran: &Ran, who: &BTreeSet<usize>) -> Vec<String> {
    let joins = ran.plan.steps.iter().filter_map(|step| match &step.what {
        Fault::Join { of } if of.iter().all(|name| name.starts_with("new-")) => Some((step.at, ran.machines(of))),
        _ => None,
    });
    let start = ran.plan.cluster.stagger;
    joins.flat_map(|(at, new)| all_know(ran, who, &ran.endpoints(&new, at + 1), at + start + 3_000)).collect()
}

fn holds(ran: &Ran) -> Vec<String> {
    let (workers, late) = (ran.machines(&who("worker-*")), ran.machines(&who("late")));
    let new: BTreeSet<usize> = ran.machines(&who("new-*"));
    let restarted = ran.first_step(|fault| matches!(fault, Fault::AgentKilled { .. })).map_or(ran.ended, |step| step.at);
    let began = ran.plan.steps.first().map_or(0, |step| step.at);
    let mut promises = Promises::of(ran);
    // Who joins and who is restarted at the end has to start first.
    promises.late_at_most(NOT_LATE, began, (began, restarted - 1_000));
    let mut broken = promises.broken();
    broken.extend(nobody_failed(ran, &workers, 5_000, ran.ended));
    broken.extend(served(
        ran,
        &everyone(ran).difference(&ran.machines(&who("cp-*"))).copied().collect(),
        restarted + 4_000,
        ran.ended,
    ));
    broken.extend(known_in_time(ran, &workers));
    let all = workers.union(&late).chain(&new).copied().collect();
    broken.extend(all_know(ran, &all, &ran.endpoints(&new, ran.ended), restarted + 2_000 + 5_000));
    broken
}
