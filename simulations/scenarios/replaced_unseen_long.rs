//! All control planes are replaced while a worker is cut off for so long that gossip has forgotten the old ones, and it.

use super::replaced_unseen::{cut_off, holds};
use crate::sim::plan::{Cluster, Plan};
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "control-planes-replaced-unseen-for-long",
    story: "The control planes are replaced in the course of an hour or two, while a worker is cut off. By its return gossip has long \
            forgotten the first ones that went, and the worker too; and it has forgotten everybody. It finds the new ones all the same.",
    class: Class::Long,
    plan,
    holds,
    errors: &[],
};

/// From one replacement to the next.
const APART: Ms = 18 * 60_000;

fn plan(cast: &Cast) -> Plan {
    let plan = cut_off(cast, APART);
    Plan { cluster: Cluster { fresh_every: 5_000, ..plan.cluster }, ..plan }
}
