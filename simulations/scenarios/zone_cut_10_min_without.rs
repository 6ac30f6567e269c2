//! A zone without a control plane is cut off for ten minutes.

use super::zone_cut_10_min::{TEN_MINUTES, cut_for, found_again};
use super::zone_cut_without;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-cut-10-min-without-control-plane",
    story: "For ten minutes a zone of workers hears nothing of the others, and has nobody to ask. The others never notice, and when the \
            way is back everybody finds everybody again.",
    class: Class::Long,
    plan: |cast: &Cast| cut_for(cast, TEN_MINUTES, false),
    holds: alone,
    errors: &[],
};

/// Nobody else notices, and those who were alone are found again.
pub(super) fn alone(ran: &Ran) -> Vec<String> {
    [zone_cut_without::holds(ran), found_again(ran)].concat()
}
