//! Members lie about how apiservers are.

use super::hostile_endpoint::{meant_harm, nobody_is_harmed};
use crate::sim::plan::Hostility;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hostile-forges-verdicts",
    story: "Somebody who has the key joins the gossip as five members, who all say that every apiserver is down. Everybody looks for \
            himself, and goes on as before.",
    class: Class::Quick,
    plan: |cast: &Cast| meant_harm(cast, Hostility::ForgedVerdicts),
    holds: nobody_is_harmed,
    errors: &[],
};
