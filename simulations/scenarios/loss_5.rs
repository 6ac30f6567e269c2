//! One packet in twenty is lost.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loss-5-percent",
    story: "Everywhere one packet in twenty is lost for a while. Things take longer, and nothing fails.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    lossy(cast, 0.05)
}

/// Everywhere this share of the packets is lost for a while.
pub(super) fn lossy(cast: &Cast, share: f64) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let at = cast.moment("when", 10_000, 13_000);
    let lasts = cast.moment("for how long", 15_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(at, lasts, Fault::Loss { of: who("*"), share })
}

fn holds(ran: &Ran) -> Vec<String> {
    nobody_failed(ran, &everyone(ran), 5_000, ran.ended)
}
