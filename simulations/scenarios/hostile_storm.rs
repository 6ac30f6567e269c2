//! A member never stops to talk.

use super::hostile_endpoint::{meant_harm, nobody_is_harmed};
use crate::sim::plan::Hostility;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hostile-record-storm",
    story: "Somebody who has the key says something new fifty times a second, and that it is urgent, and comes again and again as one \
            more member. The others have work to do, and do it.",
    class: Class::Quick,
    plan: |cast: &Cast| meant_harm(cast, Hostility::RecordStorm),
    holds: nobody_is_harmed,
    errors: &[],
};
