//! What one apiserver's machine sends to a worker is lost, and not the other way round.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Class as Packets;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition-apiserver-to-worker",
    story: "TCP from one control plane to one worker is lost: the worker's packets arrive there and are answered in vain. \
            Only that worker leaves that apiserver; nobody believes it more than themselves.",
    class: Class::Quick,
    plan,
    holds: super::partition_to_apiserver::holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let to = who(cast.worker(&cluster, "which worker"));
    let from = who(cast.control_plane(&cluster, "which apiserver"));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 10_000, 25_000);
    let fault = Fault::Partition { from, to, both: false, class: Some(Packets::Api) };
    Plan { cluster, steps: Vec::new(), lasts: 70_000 }.fault(at, lasts, fault)
}
