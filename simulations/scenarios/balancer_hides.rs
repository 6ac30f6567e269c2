//! An apiserver falls silent behind the external balancer.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::everyone;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "balancer-hides-a-silent-apiserver",
    story: "Nodes come up, and some kubelets connect through the external balancer before their agents have heard of any apiserver; there they \
            stay. Then a control plane's machine loses power. The balancer goes on with the others, and says nothing to those it had sent there: \
            they ask, and ask again, until they find out by themselves, as without prismesh; from then on they go straight to an apiserver.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// A kubelet whose connection is silent asks after 30 s whether it is still there, and gives it up 15 s later; a lease is due each 10 s.
const OWN_PATIENCE: u64 = 56_000;

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[2, 3]);
    cluster.balancer = Some(0);
    let of = who(cast.control_plane(&cluster, "which"));
    let at = cast.moment("when", 12_000, 22_000);
    Plan { cluster, steps: Vec::new(), lasts: 90_000 }.fault(at, 60_000, Fault::Machine { of })
}

fn holds(ran: &Ran) -> Vec<String> {
    let Some(Fault::Machine { of }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let others = everyone(ran).difference(&ran.machines(of)).copied().collect();
    let mut promises = Promises::of(ran);
    promises.leases_kept_by(&others, OWN_PATIENCE);
    promises.broken()
}
