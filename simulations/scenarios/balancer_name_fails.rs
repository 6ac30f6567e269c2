//! The external balancer's name cannot be resolved.

use super::balancer_refuses::{ONLY_IT, depends_on_it, only_the_balancer};
use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-name-fails",
    story: "The external load balancer is known by a DNS name, and DNS stops to answer, or answers only errors, for longer than an answer \
            may be kept. Nodes that know nothing but the balancer go on with the address that they had. Meanwhile others' agents are \
            restarted and begin without it.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = Some(0);
    cluster.by_name = true;
    let only = only_the_balancer(cast, &mut cluster, ONLY_IT);
    let workers = cluster.nodes.iter().filter(|node| !node.control_plane).count();
    let others: Vec<String> =
        (1..=workers).map(|number| format!("worker-{number}")).filter(|name| !only.contains(name)).collect();
    let (one, other) = (cast.draw.one_of("who restarts", &others), cast.control_plane(&cluster, "who else restarts"));
    let at = cast.moment("when", 12_000, 15_000);
    let silent = cast.draw.chance("silent", 0.5);
    let restart = at + cast.moment("restart after", 2_000, 6_000);
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }
        .fault(at, 36_000, Fault::Dns { silent })
        .fault(restart, 7_000, Fault::AgentRestart { of: who(one) })
        .fault(restart + 9_000, 7_000, Fault::AgentRestart { of: who(other) })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let (dns, one, other) = (promises.step(0), promises.step(1), promises.step(2));
    promises.nobody_fails().late_at_most(NOT_LATE, dns.from, (dns.from, one.to));
    // A restarted agent serves from its cache, within a second.
    for back in [one.to, other.to] {
        promises.late_at_most(1_000, dns.from, (back, back + 1_000));
    }
    promises.late_at_most(NOT_LATE, dns.from, (one.to + 1_000, other.to)).late_at_most(
        NOT_LATE,
        dns.from,
        (other.to + 1_000, ran.ended),
    );
    let only = promises.machines(&depends_on_it(ran));
    let balancer = promises.endpoints_of(&[ran.names.len()].into(), 0);
    promises.answered_at(&only, &balancer, (dns.from, dns.to)).all_served((dns.to - 5_000, dns.to));
    promises.broken()
}
