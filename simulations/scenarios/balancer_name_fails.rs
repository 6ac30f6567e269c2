//! The external balancer's name cannot be resolved.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-name-fails",
    story: "The external load balancer is known by a DNS name, and DNS stops to answer, or answers only errors. Meanwhile agents are restarted and begin without it.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[1, 2, 3, 5]);
    cluster.balancer = Some(0);
    cluster.by_name = true;
    let (one, other) = (cast.worker(&cluster, "who restarts"), cast.control_plane(&cluster, "who else restarts"));
    let at = cast.moment("when", 12_000, 15_000);
    let silent = cast.draw.chance("silent", 0.5);
    let restart = at + cast.moment("restart after", 2_000, 6_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }
        .fault(at, 30_000, Fault::Dns { silent })
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
    promises.broken()
}
