//! Several things go wrong for minutes.

use super::chaos::{Span, TWINS, all_is_well_again, chaos};
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "chaos-for-minutes",
    story: "Three to eight things go wrong within two minutes, each for up to three, and what is healed is watched for ten more.",
    class: Class::Long,
    plan: |cast: &Cast| {
        chaos(cast, Span { begins: 30_000, over: 120_000, shortest: 5_000, longest: 180_000, lasts: 1_060_000, steady: true })
    },
    holds: all_is_well_again,
    errors: TWINS,
};
