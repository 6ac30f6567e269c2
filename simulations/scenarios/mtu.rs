//! Datagrams above a size vanish.

use crate::sim::plan::{Fault, Plan};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "datagrams-above-a-size-vanish",
    story: "A tunnel on the way to some nodes swallows long datagrams and says nothing. Gossip may fall silent there; \
            what is known goes on serving.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let of = cast.workers(&cluster, "behind the tunnel", 0.5);
    let bytes = cast.draw.one_of("bytes", &[1_199, 1_000, 600, 300]);
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 15_000, 30_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, lasts, Fault::Mtu { of, bytes })
}

fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let mut broken = nobody_failed(ran, &everyone, 5_000, ran.ended);
    broken.extend(never_down(ran, &everyone, &ran.endpoints(&everyone, 0), 5_000, ran.ended));
    broken
}
