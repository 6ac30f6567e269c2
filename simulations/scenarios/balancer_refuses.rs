//! The external balancer's process is gone.

use std::collections::BTreeSet;

use crate::sim::plan::{Cluster, Fault, Plan, Who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::{MachineId, Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-refuses",
    story: "The external load balancer in front of the control plane dies while everybody starts, and again later: its port is closed, \
            and what went through it is reset. Who knows the apiservers does not notice; a few nodes know nothing but the balancer, hold \
            their clients, and are served when it is back.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    gone(cast, Mode::Refusing)
}

/// Such a node does not gossip, and is given nothing but the balancer.
pub(super) const ONLY_IT: &str = "gossip-listen: \"off\"\n";

/// Some of the workers, one at least, know the balancer only; `config` says how.
pub(super) fn only_the_balancer(cast: &Cast, cluster: &mut Cluster, config: &str) -> Who {
    let of = cast.workers(cluster, "who knows only the balancer", 0.25);
    let names = Plan { cluster: cluster.clone(), steps: Vec::new(), lasts: 0 }.names();
    for (node, _) in cluster.nodes.iter_mut().zip(names).filter(|(_, name)| of.contains(name)) {
        node.config = config.to_owned();
    }
    of
}

/// Their names.
pub(super) fn depends_on_it(ran: &Ran) -> Who {
    let nodes = ran.plan.cluster.nodes.iter().zip(&ran.names);
    nodes.filter(|(node, _)| node.config.starts_with(ONLY_IT)).map(|(_, name)| name.clone()).collect()
}

/// The balancer stops to serve in this way, and is back later; it did so before, while everybody started.
pub(super) fn gone(cast: &Cast, mode: Mode) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = cast.draw.several("balancer's zone", 1, cluster.zones.len()).first().copied();
    only_the_balancer(cast, &mut cluster, ONLY_IT);
    let early = cast.moment("first", 600, 2_500);
    let at = cast.moment("when", 25_000, 28_000);
    let lasts = cast.moment("for how long", 15_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(early, 12_000, Fault::Balancer { mode }).fault(
        at,
        lasts,
        Fault::Balancer { mode },
    )
}

fn holds(ran: &Ran) -> Vec<String> {
    [felt_where_it_must_be(ran), left(ran, 500)].concat()
}

/// A client is held for so long.
const HELD: Ms = 8_000;
/// What is back is proven within this, while clients are held.
const PROVEN: Ms = 3_000;
/// By then everybody has started, has heard of the apiservers, and needs the balancer no longer.
const KNOWN: Ms = 4_000;

/// Whoever knows the apiservers goes on, and whoever does not is served again when the balancer is back.
pub(super) fn felt_where_it_must_be(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let (early, fault) = (promises.step(0), promises.step(1));
    nobody_else_notices(&mut promises, ran, KNOWN, fault.from);
    // Those who know nothing else fail no sooner than they have to, and no longer.
    promises.held_at_least(HELD, (early.from, ran.ended));
    for (to, next) in [(early.to, fault.from - HELD), (fault.to, Ms::MAX)] {
        promises.nobody_fails_between(to + PROVEN - HELD, next).answered_by(to + PROVEN, (to + PROVEN - HELD, to));
    }
    promises.broken()
}

/// Of those who know the apiservers nobody fails or uses the balancer once they do, and nobody is late.
pub(super) fn nobody_else_notices(promises: &mut Promises<'_>, ran: &Ran, known: Ms, fault: Ms) {
    let only = promises.machines(&depends_on_it(ran));
    let others: BTreeSet<MachineId> = (0..ran.names.len()).filter(|node| !only.contains(node)).collect();
    let balancer = promises.endpoints_of(&[ran.names.len()].into(), 0);
    promises.nobody_of_fails(&others, (0, Ms::MAX)).late_of(&others, NOT_LATE, fault, (fault, ran.ended));
    promises.answered_elsewhere(&others, &balancer, (known, Ms::MAX)).leases_kept_by(&others, 20_000);
}

/// What went through the balancer is gone so long after each fault where there is another way.
pub(super) fn left(ran: &Ran, within: Ms) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let only = promises.machines(&depends_on_it(ran));
    let others = (0..ran.names.len()).filter(|node| !only.contains(node)).collect();
    for fault in [promises.step(0), promises.step(1)] {
        promises.left_within(within, &others, &fault);
    }
    promises.broken()
}
