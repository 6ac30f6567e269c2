//! What a worker sends to one apiserver's machine is lost, and not the other way round.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed};
use crate::sim::state::{Class as Packets, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition-worker-to-apiserver",
    story: "TCP from one worker to one control plane is lost, while everything the other way, and between all others, passes. \
            Only that worker leaves that apiserver; nobody believes it more than themselves.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let from = who(cast.worker(&cluster, "which worker"));
    let to = who(cast.control_plane(&cluster, "which apiserver"));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 10_000, 25_000);
    let fault = Fault::Partition { from, to, both: false, class: Some(Packets::Api) };
    Plan { cluster, steps: Vec::new(), lasts: 70_000 }.fault(at, lasts, fault)
}

/// Also when it is the other way that is broken.
pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let Some(Fault::Partition { from, to, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let hit = ran.machines(&[from.as_slice(), to.as_slice()].concat());
    let others = everyone(ran).difference(&hit).copied().collect();
    let apiservers = ran.endpoints(&everyone(ran), 0);
    let mut broken = nobody_failed(ran, &everyone(ran), 5_000, ran.ended);
    broken.extend(that_worker_leaves(ran));
    broken.extend(never_down(ran, &others, &apiservers, 5_000, ran.ended));
    broken
}

/// An apiserver that is not heard, or hears nothing, gets no new connections after this, and one that is not heard has none any more.
const LEFT_WITHIN: Ms = 6_500;
/// One that hears nothing and goes on sending is noticed by what a client says next: a kubelet asks each 10 s.
const DEAF_LEFT_WITHIN: Ms = 16_500;

/// That worker leaves that apiserver, with what is open and with what is new.
fn that_worker_leaves(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let mut cut = promises.step(0);
    let Some(Fault::Partition { from, to, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let ends = promises.machines(&[from.as_slice(), to.as_slice()].concat());
    let (planes, worker) = ends.into_iter().partition(|node| ran.plan.cluster.nodes[*node].control_plane);
    cut.endpoints = promises.endpoints_of(&planes, 0);
    let deaf = promises.machines(from).is_subset(&worker);
    promises.left_within(if deaf { DEAF_LEFT_WITHIN } else { LEFT_WITHIN }, &worker, &cut);
    promises.answered_elsewhere(&worker, &cut.endpoints, (cut.from + LEFT_WITHIN, cut.to));
    promises.broken()
}
