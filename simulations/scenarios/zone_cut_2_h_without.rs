//! A zone without a control plane is cut off for two hours: longer than gossip remembers the dead.

use super::zone_cut_2_h::TWO_HOURS;
use super::zone_cut_10_min::cut_for;
use super::zone_cut_10_min_without::alone;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-cut-2-h-without-control-plane",
    story: "For two hours a zone of workers hears nothing of the others, and has nobody to ask: it and they have long forgotten each \
            other. When the way is back everybody finds everybody again.",
    class: Class::Long,
    plan: |cast: &Cast| cut_for(cast, TWO_HOURS, false),
    holds: alone,
    errors: &[],
};
