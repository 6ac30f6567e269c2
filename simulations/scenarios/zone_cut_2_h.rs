//! A zone is cut off for two hours: longer than gossip remembers the dead.

use crate::sim::plan::Plan;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-cut-2-h",
    story: "For two hours a zone, with or without a control plane in it, hears nothing of the others: long after gossip has forgotten \
            them. When the way is back everybody finds everybody again.",
    class: Class::Long,
    plan,
    holds: super::zone_cut_10_min::holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    super::zone_cut_10_min::cut_for(cast, 7_200_000)
}
