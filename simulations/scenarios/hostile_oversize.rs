//! A member says too much at once.

use prismesh::gossip::DropReason;

use super::hostile_endpoint::{meant_harm, nobody_is_harmed};
use super::troubles::INTRUDER;
use crate::sim::plan::{Hostility, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{counted, everyone};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hostile-oversize",
    story: "Somebody who has the key says as much as a record takes, and sends everybody datagrams of any length up to 60 kB that are \
            no gossip, half of them sealed with the key. They are counted and forgotten.",
    class: Class::Quick,
    plan: |cast: &Cast| meant_harm(cast, Hostility::Oversize),
    holds,
    errors: &[],
};

fn holds(ran: &Ran) -> Vec<String> {
    let members = &everyone(ran) - &ran.machines(&who(INTRUDER));
    let mut broken = nobody_is_harmed(ran);
    broken.extend(counted(ran, &members, DropReason::Oversized));
    broken
}
