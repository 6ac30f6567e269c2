//! What real API servers do, met through a load balancer.

use super::balancer_refuses::{ONLY_IT, only_the_balancer};
use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::{Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "behind-a-balancer",
    story: "A few nodes know nothing but a load balancer, by its address or by a name, and the name may lead to the apiservers themselves, \
            one at a time. Behind it /readyz is late, etcd is frozen, a port is closed while its process serves on, uploads are not read, \
            or an accept queue is full: nothing that is established is reset, and nobody fails.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster_at_work(&[2, 3, 5]);
    cluster.balancer = Some(0);
    only_the_balancer(cast, &mut cluster, ONLY_IT);
    let at = cast.moment("when", 20_000, 25_000);
    let lasts = cast.moment("for how long", 20_000, 35_000);
    let (what, lasts) = behind(cast, &cluster, lasts);
    let turns = cluster.by_name && cast.draw.chance("the name leads to the apiservers", 0.5);
    let plan = Plan { cluster, steps: Vec::new(), lasts: 85_000 }.fault(at, lasts, what);
    if turns { plan.fault(1, 84_000, Fault::NameTakesTurns { of: who("cp-*") }) } else { plan }
}

fn behind(cast: &Cast, cluster: &Cluster, lasts: Ms) -> (Fault, Ms) {
    let one = who(cast.control_plane(cluster, "who"));
    let some = cast.one_or_all(cluster);
    let does = |of, mode| (Fault::Apiserver { of, mode }, lasts);
    match cast.draw.number("what", 0, 5) {
        0 => does(some, Mode::LateReadyz(300, 4_000)),
        1 => does(some, Mode::LateReadyz(60_000, 60_000)),
        2 => (Fault::Apiserver { of: who("cp-*"), mode: Mode::EtcdFrozen }, 25_000),
        3 => does(some, Mode::NotReading),
        4 => does(one, Mode::QueueFull),
        _ => (Fault::GracefulStop { of: one, serves_on: lasts }, lasts + 3_000),
    }
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    promises.nobody_fails().nothing_cut((0, ran.ended));
    promises.exchanges_end_well((0, ran.ended));
    promises.broken()
}
