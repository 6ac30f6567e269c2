//! An apiserver's certificate cannot be checked by this build.

use crate::sim::plan::{Fault, Plan};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "certificate-unsupported",
    story: "An apiserver, or each of them, is restarted with a certificate whose algorithm agents cannot check, and clients can. Where it \
            is configured, as on its own machine and behind the external balancer, it is used if nothing better is available. Nodes that \
            know it from gossip alone send it no client's bytes.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// By then every node has probed it.
const MET: u64 = 2_500;

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster_at_work(&[2, 3, 5]);
    let of = cast.one_or_all(&cluster);
    if of.len() == 1 && of[0].ends_with('*') {
        cluster.balancer = Some(0);
    }
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 20_000, 30_000);
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }.fault(
        at,
        lasts,
        Fault::Apiserver { of, mode: Mode::UnsupportedCertificate },
    )
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails_between(fault.from + MET, ran.ended).leases_kept(20_000);
    promises.unused_by_others(&fault, (fault.from + MET, fault.to));
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
