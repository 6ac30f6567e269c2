//! Many see the same thing at the same time.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "many-see-one-fail",
    story: "In a larger cluster one apiserver falls silent, all nodes see it at the same time, and tell one another. That is no reason \
            to overwhelm it, or the others, with probes.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let planes = if cast.smallest { 3 } else { cast.draw.one_of("control planes", &[3, 5]) };
    let cluster = Cluster { fresh_every: 2_000, ..cast.zoned(planes, cast.count("workers", 26, 34), 1) };
    let of = who(cast.control_plane(&cluster, "who"));
    let mode = cast.draw.one_of("does", &[Mode::Dropping, Mode::Hung, Mode::Refusing]);
    let at = cast.moment("when", 42_000, 44_000);
    Plan { cluster, steps: Vec::new(), lasts: 80_000 }.fault(at, 15_000, Fault::Apiserver { of, mode })
}

/// Probes of one endpoint within a second, beside two a node: who sees it fail, and who is told so, each look once.
const STEADY: usize = 26;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().leases_kept(40_000);
    let mut broken = promises.broken();
    for endpoint in &fault.endpoints {
        let probes = ran.log.probes.iter().filter(|probe| probe.endpoint == *endpoint && probe.at >= fault.from);
        let mut seconds = std::collections::BTreeMap::<u64, usize>::new();
        for probe in probes {
            *seconds.entry(probe.at / 1_000).or_default() += 1;
        }
        let most = STEADY + 2 * ran.names.len();
        let stormy = seconds.iter().find(|(_, count)| **count > most);
        broken.extend(stormy.map(|(second, count)| format!("{count} probes in second {second}, more than {most}")));
    }
    broken
}
