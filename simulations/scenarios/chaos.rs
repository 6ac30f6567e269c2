//! Several things go wrong at the same time.

use std::collections::BTreeSet;

use super::troubles::{INTRUDER, KINDS, Lot};
use crate::sim::plan::{Cluster, Fault, Plan};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed, served};
use crate::sim::state::{MachineId, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "chaos",
    story: "Three to eight things go wrong, of whatever kind, at the same time or while others last: apiservers, machines, agents, \
            the balancer, DNS, files, members who mean harm, the network, clocks. Then all is healed, and everybody agrees again.",
    class: Class::Quick,
    plan: |cast: &Cast| {
        chaos(cast, Span { begins: 12_000, over: 12_000, shortest: 1_000, longest: 20_000, lasts: 88_000, steady: false })
    },
    holds: all_is_well_again,
    errors: TWINS,
};

/// A machine that is a copy of another one has its name, and both have to say so.
pub(super) const TWINS: &[&str] = &["two machines have the name"];

/// When things go wrong, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) begins: Ms,
    pub(super) over: Ms,
    pub(super) shortest: Ms,
    pub(super) longest: Ms,
    pub(super) lasts: Ms,
    /// Clients keep connections too, so that it can be seen how they even out.
    pub(super) steady: bool,
}

pub(super) fn chaos(cast: &Cast, span: Span) -> Plan {
    let mut plan = Plan { cluster: cluster(cast, span), steps: Vec::new(), lasts: span.lasts };
    let mut taken = BTreeSet::new();
    for round in 0..cast.count("faults", 3, 8) {
        let mut attempts = 0..;
        let drawn = attempts.find_map(|attempt| one(cast, span, &mut plan.cluster, &mut taken, format!("{round}.{attempt}")));
        plan.steps.extend(drawn.into_iter().flatten());
    }
    plan
}

/// One that cannot be is drawn again under another name: what befalls the network always can.
fn one(
    cast: &Cast,
    span: Span,
    cluster: &mut Cluster,
    taken: &mut BTreeSet<String>,
    name: String,
) -> Option<Vec<crate::sim::plan::Step>> {
    let at = span.begins + cast.moment(&format!("when {name}"), 0, span.over);
    let lasts = cast.moment(&format!("for how long {name}"), span.shortest, span.longest);
    let kind = cast.draw.one_of(&format!("kind {name}"), KINDS);
    kind(&mut Lot { cast, cluster, taken, name, at, lasts })
}

/// New connections an apiserver in five seconds, and established ones: with fewer nobody could say who has how many.
const NEW: u64 = 70;
const ESTABLISHED: usize = 30;

fn cluster(cast: &Cast, span: Span) -> Cluster {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = cast.draw.chance("there is a balancer", 0.5).then_some(0);
    cluster.by_name = cast.draw.chance("it is known by name", 0.5);
    let dual_stack = cast.draw.chance("both families", 0.25);
    cluster.nodes.iter_mut().for_each(|node| node.dual_stack = dual_stack);
    let planes = cluster.nodes.iter().filter(|node| node.control_plane).count();
    let workers = cluster.nodes.len() - planes;
    if span.steady {
        cluster.steady = (ESTABLISHED * planes).div_ceil(workers);
    } else {
        cluster.fresh_every = 5_000 * workers as Ms / (NEW * planes as Ms);
    }
    cluster
}

/// Some time after the last thing was healed everybody who is still there is served, and nobody fails any more.
pub(super) fn all_is_well_again(ran: &Ran) -> Vec<String> {
    let healed = ran.last_step() + 15_000;
    let gone = |fault: &Fault| if let Fault::Leave { of } = fault { of.clone() } else { Vec::new() };
    let gone: Vec<String> = ran.plan.steps.iter().flat_map(|step| gone(&step.what)).chain([INTRUDER.to_owned()]).collect();
    let there: BTreeSet<MachineId> = everyone(ran).difference(&ran.machines(&gone)).copied().collect();
    let mut broken = nobody_failed(ran, &there, healed, ran.ended);
    broken.extend(served(ran, &there, healed, ran.ended));
    broken
}
