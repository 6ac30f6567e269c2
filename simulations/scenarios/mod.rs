//! The stories, each in a file of its own.

use crate::sim::scenario::Scenario;

mod apiserver_crashes;
mod busy;
mod calm;
mod even_again;
mod hour_of_noise;
mod loss_30;
mod loss_5;
mod loss_60;
mod mtu;
mod partition_api;
mod partition_from_apiserver;
mod partition_gossip;
mod partition_to_apiserver;
mod seeds_dead;
mod stale_cache;
mod zone_cut_10_min;
mod zone_cut_2_h;
mod zone_cut_with;
mod zone_cut_without;

/// All scenarios, in the order in which people read them.
pub const ALL: &[Scenario] = &[
    calm::SCENARIO,
    busy::SCENARIO,
    hour_of_noise::SCENARIO,
    even_again::SCENARIO,
    apiserver_crashes::SCENARIO,
    seeds_dead::SCENARIO,
    stale_cache::SCENARIO,
    partition_to_apiserver::SCENARIO,
    partition_from_apiserver::SCENARIO,
    partition_gossip::SCENARIO,
    partition_api::SCENARIO,
    zone_cut_with::SCENARIO,
    zone_cut_without::SCENARIO,
    zone_cut_10_min::SCENARIO,
    zone_cut_2_h::SCENARIO,
    loss_5::SCENARIO,
    loss_30::SCENARIO,
    loss_60::SCENARIO,
    mtu::SCENARIO,
];
