//! Each node's list of endpoints names the node's own agent.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "own-listener-is-named",
    story: "Each agent listens on its node's address as well, and its list of endpoints names that address. An agent does not take its \
            own listener for an endpoint: no connection goes round in a circle, neither while all apiservers serve nor while none does.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// The port at which agents listen.
const PORT: u16 = 7445;

/// Where the agent of the node at this place listens for others.
fn own(place: usize) -> SocketAddr {
    let last = u8::try_from(place + 1).unwrap_or(u8::MAX);
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, last).into(), PORT)
}

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster(&[2, 3, 5]);
    for (place, node) in cluster.nodes.iter_mut().enumerate() {
        node.config = format!("listen: [\"0.0.0.0:{}\"]\nendpoint: [\"{}\"]\n", PORT, own(place));
    }
    let at = cast.moment("when", 12_000, 15_000);
    let refusing = Fault::Apiserver { of: who("cp-*"), mode: Mode::Refusing };
    Plan { cluster, steps: Vec::new(), lasts: 45_000 }.fault(at, 3_000, refusing)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let own: BTreeSet<_> = (0..ran.names.len()).map(own).collect();
    promises.nobody_fails().no_hello_at(&own, (0, ran.ended));
    promises.broken()
}
