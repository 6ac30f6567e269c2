//! Nothing happens.

use crate::sim::plan::Plan;
use crate::sim::scenario::{Cast, Class, Scenario, nothing_more};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "calm",
    story: "A cluster comes up and nothing happens to it.",
    class: Class::Quick,
    plan,
    holds: nothing_more,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    Plan { cluster: cast.cluster(&[1, 2, 3, 5]), steps: Vec::new(), lasts: 60_000 }
}
