//! An apiserver's certificate has expired.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::{Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "certificate-expired",
    story: "An apiserver's certificate expires, and nothing happens, since whoever has a connection keeps it. When that apiserver is \
            restarted everybody sees it: it comes after all others, and is cut off from nobody; where it is the only one it goes on \
            to serve whoever still believes it. With a new certificate it is as before.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// A restart takes so long.
const RESTART: Ms = 1_500;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let of = || who(cast.control_plane(&cluster, "whose"));
    let restarts = || Fault::Apiserver { of: of(), mode: Mode::Refusing };
    let at = cast.moment("when", 12_000, 15_000);
    let restarted = at + cast.moment("restarted after", 3_000, 8_000);
    let renewed = restarted + cast.moment("renewed after", 12_000, 20_000);
    Plan { cluster: cluster.clone(), steps: Vec::new(), lasts: 75_000 }
        .fault(at, renewed - at, Fault::Expired { of: of() })
        .fault(restarted, RESTART, restarts())
        .fault(renewed, RESTART, restarts())
}

/// What came back is probed by everybody within this, and seen for what it is.
const SEEN: Ms = 4_000;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let (expired, restart, renewal) = (promises.step(0), promises.step(1), promises.step(2));
    let alone = ran.plan.control_planes() == 1;
    promises.nobody_fails().nothing_cut((expired.from, restart.from)).nothing_cut((restart.to, renewal.from));
    promises.carried_everywhere(&expired.endpoints, restart.from - 1);
    promises.draining_everywhere(&expired.endpoints, restart.to + SEEN).leases_kept(20_000);
    if !alone {
        promises.late_at_most(NOT_LATE, expired.from, (expired.from, ran.ended));
        promises.unused(&expired.endpoints, (restart.to + SEEN, renewal.from));
    }
    promises.ready_everywhere(&expired.endpoints, renewal.to + 5_000);
    promises.broken()
}
