//! Agents are upgraded one after the other, and old and new ones do not read the same records.

use std::collections::BTreeSet;

use prismesh::gossip::DropReason;

use crate::sim::plan::{Fault, Node, Plan, Step, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, counted, everyone, never_down, served};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agents-rolling-upgrade",
    story: "Agents are upgraded one after the other, a control plane's among them, to a build whose records the others cannot read. Nobody \
            fails, and an apiserver that was known before is not given up. A control plane that joins with the new build is a member of \
            whom nobody knows more; when all are put back to the old build, it is known and used.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// Who joins with the later build.
const NEWCOMER: &str = "newcomer";
/// From one agent's turn to the next one's: it stops within its drain, or somewhat later.
const APART: (Ms, Ms) = (2_500, 4_500);

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3]);
    let mut upgraded = cast.workers(&cluster, "who is upgraded", 0.4);
    upgraded.push(cast.control_plane(&cluster, "which control plane"));
    cluster.nodes.push(Node { name: NEWCOMER.to_owned(), control_plane: true, later: true, ..Node::default() });
    let back = cast.moment("all are put back", 52_000, 56_000);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 85_000 };
    let mut at = cast.moment("when", 12_000, 15_000);
    for name in upgraded {
        plan = plan.fault(at, back - at, Fault::Newer { of: who(name.clone()) });
        at += cast.moment(&format!("after {name}"), APART.0, APART.1);
    }
    plan.fault(at, back - at, Fault::Newer { of: who(NEWCOMER) }).step(at + 1, Fault::Join { of: who(NEWCOMER) })
}

/// An agent that was stopped is back, has met everybody, and is read by everybody.
const MET: Ms = 15_000;

fn holds(ran: &Ran) -> Vec<String> {
    let joined = ran.first_step(|fault| matches!(fault, Fault::Join { .. })).map_or(ran.ended, |step| step.at);
    let newcomer = ran.machines(&who(NEWCOMER));
    let there: BTreeSet<usize> = everyone(ran).difference(&newcomer).copied().collect();
    let (known, unknown) = (ran.endpoints(&there, 0), ran.endpoints(&newcomer, joined + 1));
    let mut promises = Promises::of(ran);
    promises.nobody_of_fails(&there, (0, Ms::MAX));
    // Nobody can read where its apiserver is, and nobody makes anything up.
    promises.no_hello_from(&there, &unknown, (0, ran.last_step()));
    let mut broken = promises.broken();
    // Whoever was never upgraded has counted what it could not read.
    let upgraded = |step: &Step| if let Fault::Newer { of } = &step.what { ran.machines(of) } else { BTreeSet::new() };
    let upgraded: BTreeSet<usize> = ran.plan.steps.iter().flat_map(upgraded).collect();
    broken.extend(counted(ran, &there.difference(&upgraded).copied().collect(), DropReason::FutureRecord));
    broken.extend(never_down(ran, &there, &known, 5_000, ran.ended));
    broken.extend(all_know(ran, &there, &known, ran.last_step() - 1));
    broken.extend(all_know(ran, &everyone(ran), &known.union(&unknown).copied().collect(), ran.last_step() + MET));
    broken.extend(served(ran, &everyone(ran), ran.last_step() + MET, ran.ended));
    broken
}
