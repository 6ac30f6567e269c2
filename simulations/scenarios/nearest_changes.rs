//! The nearest apiserver moves away, as far as packets are concerned.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed, opened_to};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "nearest-changes",
    story: "The way to one control plane grows by 20 to 40 ms, for everybody. Once it has been noticed, only its own node uses it, \
            until the way is short again.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    // So many new connections that whoever is used at all is used often.
    let cluster = Cluster { fresh_every: 200, ..cast.cluster(&[2, 3, 5]) };
    let of = who(cast.control_plane(&cluster, "which moves"));
    let ms = u32::try_from(cast.draw.number("one way", 10, 20)).unwrap_or(10);
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: 85_000 }.fault(at, 35_000, Fault::Latency { of, to: Vec::new(), ms })
}

fn holds(ran: &Ran) -> Vec<String> {
    let Some(step) = ran.plan.steps.first() else { return Vec::new() };
    let Fault::Latency { of, .. } = &step.what else { return Vec::new() };
    let far = ran.machines(of);
    let others = everyone(ran).difference(&far).copied().collect();
    let mut broken = nobody_failed(ran, &everyone(ran), 5_000, ran.ended);
    // A smoothed round trip follows within a handful of probes.
    broken.extend(opened_to(ran, &others, &ran.endpoints(&far, 0), step.at + 15_000, ran.last_step()));
    broken
}
