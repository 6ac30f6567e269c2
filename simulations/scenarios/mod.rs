//! The stories, each in a file of its own.

use crate::sim::scenario::Scenario;

mod apiserver_crashes;
mod apiserver_drains;
mod apiserver_drops;
mod apiserver_hangs;
mod apiserver_loses_its_machine;
mod apiserver_pauses;
mod balancer_drops;
mod balancer_half_works;
mod balancer_hangs;
mod balancer_name_fails;
mod balancer_refuses;
mod calm;

/// All scenarios, in the order in which people read them.
pub const ALL: &[Scenario] = &[
    calm::SCENARIO,
    // The external load balancer.
    balancer_refuses::SCENARIO,
    balancer_drops::SCENARIO,
    balancer_hangs::SCENARIO,
    balancer_half_works::SCENARIO,
    balancer_name_fails::SCENARIO,
    // One apiserver of several.
    apiserver_crashes::SCENARIO,
    apiserver_drops::SCENARIO,
    apiserver_loses_its_machine::SCENARIO,
    apiserver_hangs::SCENARIO,
    apiserver_drains::SCENARIO,
    apiserver_pauses::SCENARIO,
];
