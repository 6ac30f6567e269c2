//! A member says too much at once.

use super::hostile_endpoint::{meant_harm, nobody_is_harmed};
use crate::sim::plan::Hostility;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hostile-oversize",
    story: "Somebody who has the key says as much as a record takes, and sends everybody datagrams of any length up to 60 kB that are \
            no gossip, half of them sealed with the key. They are counted and forgotten.",
    class: Class::Quick,
    plan: |cast: &Cast| meant_harm(cast, Hostility::Oversize),
    holds: nobody_is_harmed,
    errors: &[],
};
