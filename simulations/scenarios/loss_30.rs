//! Of all packets nearly a third are lost.

use crate::sim::plan::Plan;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loss-30-percent",
    story: "Everywhere 30 packets in a hundred are lost for a while. What works is luck; seconds after it is over everybody is served.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    super::loss_5::lossy(cast, 0.3)
}

fn holds(ran: &Ran) -> Vec<String> {
    served(ran, &everyone(ran), ran.last_step() + 3_000, ran.ended)
}
