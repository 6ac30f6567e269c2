//! The stories, each in a file of its own.

use crate::sim::scenario::Scenario;

mod agent_stalls;
mod agents_restart;
mod agents_upgraded;
mod all_reboot;
mod allow_narrowed;
mod apiserver_closes;
mod apiserver_crashes;
mod apiserver_drains;
mod apiserver_drops;
mod apiserver_flaps;
mod apiserver_hangs;
mod apiserver_hangs_long;
mod apiserver_loses_its_machine;
mod apiserver_no_tls;
mod apiserver_not_reading;
mod apiserver_not_reading_long;
mod apiserver_out_of_descriptors;
mod apiserver_overloaded;
mod apiserver_pauses;
mod apiserver_queue_full;
mod apiserver_replaced;
mod apiserver_slow;
mod apiserver_unready;
mod balancer_changes;
mod balancer_drops;
mod balancer_half_works;
mod balancer_hangs;
mod balancer_hides;
mod balancer_moves;
mod balancer_name_fails;
mod balancer_name_takes_turns;
mod balancer_refuses;
mod behind_a_balancer;
mod busy;
mod ca_in_three_steps;
mod ca_lost;
mod ca_rotated;
mod calm;
mod certificate_expired;
mod certificate_unsupported;
mod chaos;
mod chaos_long;
mod churn;
mod clock_jumps;
mod cloned;
mod crash_loops;
mod differential;
mod digest_fills;
mod digest_near_limit;
mod etcd_frozen;
mod etcd_lost;
mod even_again;
mod family_dead;
mod far_zone;
mod far_zone_without;
mod from_10_to_30_ms;
mod gossip_off;
mod herd;
mod hostile_endpoint;
mod hostile_oversize;
mod hostile_storm;
mod hostile_verdicts;
mod hour_of_noise;
mod keys_rotated;
mod latency_noise;
mod list_switched;
mod local_hangs;
mod loss_1;
mod loss_30;
mod loss_5;
mod loss_60;
mod many_join;
mod mtu;
mod nearest_changes;
mod node_moves;
mod node_restarts;
mod nothing_at_first;
mod nothing_known;
mod one_of_three;
mod only_control_plane;
mod only_server_slow;
mod out_of_reach;
mod own_listener;
mod partition_api;
mod partition_from_apiserver;
mod partition_gossip;
mod partition_gossip_one_way;
mod partition_one_way;
mod partition_to_apiserver;
mod path_forbidden;
mod planes_replaced;
mod quorum_late;
mod readyz_late;
mod replaced_idle;
mod replaced_unseen;
mod replaced_unseen_long;
mod rolling_upgrade;
mod same_name;
mod seeds_dead;
mod segment_hole;
mod snapshot_restored;
mod stale_cache;
mod state_lost;
mod stopped_in_turn;
mod storm;
mod suspended;
mod troubles;
mod workers_first;
mod zone_cut_10_min;
mod zone_cut_10_min_without;
mod zone_cut_2_h;
mod zone_cut_2_h_without;
mod zone_cut_with;
mod zone_cut_without;

/// All scenarios, in the order in which people read them.
pub const ALL: &[Scenario] = &[
    calm::SCENARIO,
    busy::SCENARIO,
    hour_of_noise::SCENARIO,
    even_again::SCENARIO,
    apiserver_crashes::SCENARIO,
    all_reboot::SCENARIO,
    seeds_dead::SCENARIO,
    stale_cache::SCENARIO,
    partition_to_apiserver::SCENARIO,
    path_forbidden::SCENARIO,
    partition_from_apiserver::SCENARIO,
    partition_gossip::SCENARIO,
    partition_gossip_one_way::SCENARIO,
    partition_api::SCENARIO,
    partition_one_way::SCENARIO,
    family_dead::SCENARIO,
    out_of_reach::SCENARIO,
    zone_cut_with::SCENARIO,
    zone_cut_without::SCENARIO,
    zone_cut_10_min::SCENARIO,
    zone_cut_10_min_without::SCENARIO,
    zone_cut_2_h::SCENARIO,
    zone_cut_2_h_without::SCENARIO,
    loss_1::SCENARIO,
    loss_5::SCENARIO,
    loss_30::SCENARIO,
    loss_60::SCENARIO,
    mtu::SCENARIO,
    segment_hole::SCENARIO,
    // With and without prismesh.
    differential::SCENARIO,
    // The external load balancer.
    balancer_refuses::SCENARIO,
    balancer_drops::SCENARIO,
    balancer_hangs::SCENARIO,
    balancer_half_works::SCENARIO,
    behind_a_balancer::SCENARIO,
    balancer_hides::SCENARIO,
    balancer_name_fails::SCENARIO,
    balancer_name_takes_turns::SCENARIO,
    balancer_changes::SCENARIO,
    balancer_moves::SCENARIO,
    // One apiserver of several.
    apiserver_drops::SCENARIO,
    apiserver_loses_its_machine::SCENARIO,
    apiserver_hangs::SCENARIO,
    apiserver_drains::SCENARIO,
    apiserver_pauses::SCENARIO,
    apiserver_flaps::SCENARIO,
    apiserver_hangs_long::SCENARIO,
    apiserver_no_tls::SCENARIO,
    apiserver_overloaded::SCENARIO,
    apiserver_replaced::SCENARIO,
    apiserver_slow::SCENARIO,
    apiserver_unready::SCENARIO,
    apiserver_closes::SCENARIO,
    apiserver_not_reading::SCENARIO,
    apiserver_not_reading_long::SCENARIO,
    apiserver_queue_full::SCENARIO,
    apiserver_out_of_descriptors::SCENARIO,
    readyz_late::SCENARIO,
    certificate_expired::SCENARIO,
    etcd_lost::SCENARIO,
    etcd_frozen::SCENARIO,
    workers_first::SCENARIO,
    quorum_late::SCENARIO,
    nothing_at_first::SCENARIO,
    nothing_known::SCENARIO,
    own_listener::SCENARIO,
    one_of_three::SCENARIO,
    local_hangs::SCENARIO,
    // All apiservers, or the only one.
    only_control_plane::SCENARIO,
    only_server_slow::SCENARIO,
    rolling_upgrade::SCENARIO,
    stopped_in_turn::SCENARIO,
    planes_replaced::SCENARIO,
    replaced_unseen::SCENARIO,
    replaced_unseen_long::SCENARIO,
    replaced_idle::SCENARIO,
    // Distance.
    nearest_changes::SCENARIO,
    from_10_to_30_ms::SCENARIO,
    latency_noise::SCENARIO,
    far_zone::SCENARIO,
    far_zone_without::SCENARIO,
    many_join::SCENARIO,
    storm::SCENARIO,
    herd::SCENARIO,
    gossip_off::SCENARIO,
    list_switched::SCENARIO,
    churn::SCENARIO,
    crash_loops::SCENARIO,
    digest_fills::SCENARIO,
    digest_near_limit::SCENARIO,
    chaos::SCENARIO,
    chaos_long::SCENARIO,
    node_restarts::SCENARIO,
    node_moves::SCENARIO,
    agents_restart::SCENARIO,
    agents_upgraded::SCENARIO,
    agent_stalls::SCENARIO,
    suspended::SCENARIO,
    clock_jumps::SCENARIO,
    cloned::SCENARIO,
    same_name::SCENARIO,
    snapshot_restored::SCENARIO,
    state_lost::SCENARIO,
    ca_rotated::SCENARIO,
    ca_in_three_steps::SCENARIO,
    ca_lost::SCENARIO,
    certificate_unsupported::SCENARIO,
    allow_narrowed::SCENARIO,
    keys_rotated::SCENARIO,
    // Somebody who has the key and means harm.
    hostile_endpoint::SCENARIO,
    hostile_verdicts::SCENARIO,
    hostile_storm::SCENARIO,
    hostile_oversize::SCENARIO,
];
