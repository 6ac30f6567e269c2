//! A zone that has a control plane is cut off for two hours: longer than gossip remembers the dead.

use super::zone_cut_10_min::{both_sides_serve, cut_for};
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-cut-2-h-with-control-plane",
    story: "For two hours a zone with a control plane in it hears nothing of the others: each side has long forgotten the other. When the \
            way is back everybody finds everybody again.",
    class: Class::Long,
    plan: |cast: &Cast| cut_for(cast, TWO_HOURS, true),
    holds: both_sides_serve,
    errors: &[],
};

pub(super) const TWO_HOURS: Ms = 7_200_000;
