//! What comes, what stays, what goes: the sources table and the caps.

use super::*;

#[test]
fn what_gossip_named_carries_nothing_before_it_has_proven_itself() {
    let mut world = World::worker(1);
    world.record(1, &[apiserver(1)]);
    world.tell(Event::Held(3));
    world.run(secs(30));
    assert!(!world.carries(apiserver(1)));
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(5));
    assert!(world.carries(apiserver(1)));
}

#[test]
fn what_the_cache_named_carries_nothing_before_it_has_proven_itself() {
    let mut world = World::worker(1);
    world.tell(Event::Cached { endpoints: vec![cached(apiserver(1), Some(control_plane(1)), secs(60))], cluster_size: 5 });
    assert!(!world.carries(apiserver(1)));
    world.site(apiserver(1), Site::Status(200));
    world.run(RTT);
    assert!(world.carries(apiserver(1)), "and carries within a round trip of the start once it has");
}

#[test]
fn peers_cannot_prove_an_endpoint_for_this_node() {
    let mut world = World::worker(1);
    world.record(1, &[apiserver(1)]);
    world.word(1, ApiserverState::Ready);
    world.tell(Event::Priors([(apiserver(1).tag(), ms(1))].into()));
    world.peers_report(&[apiserver(1)]);
    world.peers_report(&[]);
    world.run(secs(5));
    assert!(!world.carries(apiserver(1)));
}

#[test]
fn configured_sources_carry_before_proof_ranked_after_every_ready_one() {
    for source in [Source::Local, Source::Static, Source::External] {
        let mut world = World::worker(1);
        world.configure(&[(apiserver(1), source)]);
        assert!(world.carries(apiserver(1)), "{source:?}");
        world.site(apiserver(2), Site::Status(200));
        world.record(2, &[apiserver(2)]);
        world.run(ms(10));
        assert_eq!(world.ranked(), [apiserver(2), apiserver(1)], "{source:?}");
    }
}

#[test]
fn a_configured_endpoint_goes_when_the_configuration_no_longer_has_it() {
    let mut world = World::worker(1);
    for n in 1..=3 {
        world.site(apiserver(n), Site::Status(200));
    }
    world.configure(&[(apiserver(1), Source::Static), (apiserver(2), Source::External), (apiserver(3), Source::Static)]);
    world.run(secs(2));
    world.configure(&[(apiserver(1), Source::Static)]);
    assert_eq!(world.ranked(), [apiserver(1)], "at once");
}

/// A worker that knows two static endpoints, and has connections to the first.
fn static_with_connections() -> World {
    let mut world = World::worker(1);
    for n in 1..=2 {
        world.site(apiserver(n), Site::Status(200));
    }
    world.configure(&[(apiserver(1), Source::Static), (apiserver(2), Source::Static)]);
    world.run(secs(3));
    world.tell(Event::Connections { endpoint: apiserver(1), open: 3 });
    world
}

#[test]
fn an_endpoint_that_is_configured_no_more_is_watched_while_it_has_connections() {
    let mut world = static_with_connections();
    world.configure(&[(apiserver(2), Source::Static)]);
    assert_eq!(world.ranked(), [apiserver(2)], "it gets no new ones");
    let left = world.now;
    world.run(secs(60));
    assert!(world.probes(apiserver(1), left).len() > 20, "it is probed on");
    world.site(apiserver(1), Site::Silent);
    world.run_until(secs(6), |world| world.verdict(apiserver(1)) == Verdict::Down);
    world.tell(Event::Connections { endpoint: apiserver(1), open: 0 });
    assert!(!world.knows(apiserver(1)), "and forgotten with the last one");
}

#[test]
fn an_endpoint_that_is_configured_no_more_waits_for_dials_on_their_way() {
    let mut world = static_with_connections();
    world.tell(Event::Connections { endpoint: apiserver(1), open: 0 });
    world.configure(&[(apiserver(2), Source::Static)]);
    world.run(secs(2));
    world.tell(Event::Connections { endpoint: apiserver(1), open: 1 });
    world.run(secs(60));
    assert!(world.knows(apiserver(1)));
    world.tell(Event::Connections { endpoint: apiserver(1), open: 0 });
    assert!(!world.knows(apiserver(1)));
    let mut world = static_with_connections();
    world.tell(Event::Connections { endpoint: apiserver(1), open: 0 });
    world.configure(&[(apiserver(2), Source::Static)]);
    let took = world.run_until(secs(20), |world| !world.knows(apiserver(1)));
    assert!(took >= policy::DEPARTURE && took <= policy::DEPARTURE + ms(10), "{took:?}");
}

#[test]
fn an_endpoint_that_departs_carries_again_when_it_is_named_again() {
    let mut world = static_with_connections();
    world.configure(&[(apiserver(2), Source::Static)]);
    world.run(secs(10));
    world.configure(&[(apiserver(1), Source::Static), (apiserver(2), Source::Static)]);
    assert!(world.carries(apiserver(1)));
    world.configure(&[(apiserver(2), Source::Static)]);
    assert!(!world.carries(apiserver(1)));
    world.record(1, &[apiserver(1)]);
    assert!(world.carries(apiserver(1)), "by a member as well");
}

#[test]
fn an_endpoint_that_departs_carries_again_when_it_is_the_only_one_left() {
    let mut world = static_with_connections();
    world.configure(&[(apiserver(2), Source::Static)]);
    world.run(secs(2));
    world.configure(&[]);
    assert!(!world.ranked().is_empty(), "the set never becomes empty");
    world.run(secs(60));
    assert!(!world.ranked().is_empty());
}

#[test]
fn an_endpoint_that_departs_is_probed_as_what_it_was() {
    let named =
        |n: u8| Configured { server_name: Some("api.example".into()), by_name: true, ..configured(apiserver(n), Source::Static) };
    let mut world = World::worker(1);
    for n in 1..=2 {
        world.site(apiserver(n), Site::Status(200));
    }
    world.tell(Event::Configured(vec![named(1), named(2)]));
    world.run(secs(3));
    world.tell(Event::Connections { endpoint: apiserver(1), open: 3 });
    world.tell(Event::Configured(vec![named(2)]));
    let left = world.now;
    world.run(secs(10));
    for (_, order) in world.probes(apiserver(1), left) {
        assert_eq!(order.server_name.as_deref(), Some("api.example"));
        assert!(!order.keep, "a balancer may stand behind it");
    }
}

#[test]
fn what_nobody_names_any_more_stays_while_it_has_connections() {
    let mut world = World::quiet(3, 1);
    world.tell(Event::Connections { endpoint: apiserver(1), open: 1 });
    world.site(apiserver(1), Site::Silent);
    world.tell(Event::Forgotten(control_plane(1)));
    world.run(secs(600));
    assert!(world.knows(apiserver(1)));
    world.tell(Event::Connections { endpoint: apiserver(1), open: 0 });
    assert!(!world.knows(apiserver(1)));
}

#[test]
fn a_configured_endpoint_that_a_member_names_too_stays_as_that() {
    let mut world = World::worker(1);
    world.site(apiserver(1), Site::Status(200));
    world.configure(&[(apiserver(1), Source::Static), (apiserver(2), Source::Static)]);
    world.record(1, &[apiserver(1)]);
    assert_eq!(world.explained(apiserver(1)).unwrap().sources, [Source::Static, Source::Member]);
    world.configure(&[]);
    assert_eq!(world.explained(apiserver(1)).unwrap().sources, [Source::Member]);
}

#[test]
fn the_last_proven_one_stays_whatever_happens_and_goes_when_another_is_proven() {
    let mut world = World::worker(1);
    world.site(apiserver(1), Site::Status(200));
    world.configure(&[(apiserver(1), Source::Static), (apiserver(2), Source::Static)]);
    world.run(secs(2));
    world.site(apiserver(1), Site::Silent);
    world.run(secs(5));
    world.configure(&[(apiserver(2), Source::Static)]);
    world.run(secs(600));
    assert!(world.carries(apiserver(1)), "proven once, and the only one");
    world.site(apiserver(2), Site::Status(200));
    // A patient probe may be on its way.
    world.run(policy::MAX_PROBE_PHASE + secs(3));
    assert!(!world.knows(apiserver(1)));
}

#[test]
fn a_member_that_moved_leaves_its_old_address_at_once() {
    let mut world = World::quiet(3, 1);
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run_until(secs(2), |world| world.verdict(apiserver(1)) == Verdict::Suspect);
    world.site(apiserver(9), Site::Status(200));
    world.record(1, &[apiserver(9)]);
    assert!(!world.knows(apiserver(1)), "with the record");
    world.run(ms(10));
    assert_eq!(world.best(), [apiserver(2), apiserver(3), apiserver(9)]);
}

#[test]
fn an_old_address_that_carries_connections_stays_until_they_are_over() {
    let mut world = World::busy(3, 1);
    world.site(apiserver(1), Site::Silent);
    world.record(1, &[apiserver(9)]);
    world.run(secs(60));
    assert!(world.knows(apiserver(1)));
    world.tell(Event::Connections { endpoint: apiserver(1), open: 0 });
    assert!(!world.knows(apiserver(1)));
}

#[test]
fn a_member_that_moved_leaves_its_old_address_at_once_even_if_only_the_cache_knew_it() {
    let mut world = World::worker(1);
    world.site(apiserver(9), Site::Status(200));
    world.tell(Event::Cached { endpoints: vec![cached(apiserver(1), Some(control_plane(1)), secs(60))], cluster_size: 5 });
    world.run(secs(3));
    world.record(1, &[apiserver(9)]);
    assert!(!world.knows(apiserver(1)));
}

#[test]
fn an_old_address_that_still_answers_is_asked_at_once_and_goes_with_its_first_failed_probe() {
    let mut world = World::quiet(3, 1);
    world.site(apiserver(1), Site::Silent);
    world.record(1, &[apiserver(9)]);
    let took = world.run_until(secs(3), |world| !world.knows(apiserver(1)));
    assert!(took <= policy::PROBE_PHASE + policy::PROMPT_GAP + ms(50), "{took:?}");
}

#[test]
fn a_forged_move_removes_no_apiserver_that_answers() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    for n in 1..=3 {
        world.record(n, &[apiserver(100 + n)]);
    }
    world.run(secs(30));
    for n in 1..=3 {
        assert!(world.carries(apiserver(n)));
        assert_eq!(world.verdicts(apiserver(n), since), []);
        assert_eq!(world.explained(apiserver(n)).unwrap().sources, [Source::Cached], "no record names it");
    }
    world.record(1, &[apiserver(1)]);
    assert_eq!(world.explained(apiserver(1)).unwrap().sources, [Source::Member], "the true record mends it");
}

#[test]
fn who_claims_anothers_address_and_moves_on_removes_nothing() {
    let mut world = World::quiet(3, 1);
    world.tell(Event::Forgotten(control_plane(1)));
    world.record(66, &[apiserver(1)]);
    world.record(66, &[apiserver(99)]);
    world.site(apiserver(1), Site::PausedUntil(world.now + secs(3)));
    world.run(secs(3));
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(5));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn an_address_two_members_name_stays_while_one_of_them_does() {
    let mut world = World::quiet(2, 1);
    world.record(2, &[apiserver(2), apiserver(1)]);
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(secs(5));
    world.record(1, &[apiserver(9)]);
    assert!(world.knows(apiserver(1)));
    world.record(2, &[apiserver(2)]);
    assert!(!world.knows(apiserver(1)), "now it is the other's, and that one moved too");
}

#[test]
fn a_forgotten_members_endpoint_stays_while_it_answers_and_goes_after_60_s_of_failed_probes() {
    let mut world = World::quiet(3, 1);
    world.tell(Event::Forgotten(control_plane(1)));
    world.run(secs(1800));
    assert!(world.carries(apiserver(1)), "its agent may be gone while its apiserver serves on");
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(secs(58));
    assert!(world.knows(apiserver(1)));
    world.run(secs(5));
    assert!(!world.knows(apiserver(1)));
}

#[test]
fn a_member_whose_record_is_there_keeps_its_endpoint_however_long_it_fails() {
    let mut world = World::quiet(3, 1);
    world.site(apiserver(1), Site::Silent);
    world.run(secs(3600));
    assert!(world.knows(apiserver(1)));
}

#[test]
fn a_cached_endpoint_goes_7_days_after_its_last_proof() {
    let mut world = World::worker(1);
    world.site(apiserver(2), Site::Status(200));
    world.record(2, &[apiserver(2)]);
    let age = secs(7 * 24 * 3600) - secs(3600);
    world.tell(Event::Cached { endpoints: vec![cached(apiserver(1), None, age)], cluster_size: 3 });
    world.run(secs(3500));
    assert!(world.knows(apiserver(1)));
    world.run(secs(500));
    assert!(!world.knows(apiserver(1)));
}

#[test]
fn a_member_has_at_most_8_endpoints_and_all_together_64() {
    let mut world = World::worker(1);
    let many: Vec<Endpoint> = (0..200).map(|n| address([10, 1, 0, n])).collect();
    world.record(1, &many);
    assert_eq!(world.all_explained().len(), policy::ENDPOINTS_A_MEMBER);
    for member in 2..40 {
        let many: Vec<Endpoint> = (0..8).map(|n| address([10, 1, member, n])).collect();
        world.record(member, &many);
    }
    assert_eq!(world.all_explained().len(), policy::ENDPOINTS);
    assert!(world.engine.refused_endpoints() > 0, "and the rest is counted");
}

#[test]
fn a_flood_of_endpoints_evicts_no_proven_one_and_never_keeps_a_true_one_out() {
    let mut world = World::quiet(3, 1);
    for flood in 0..5 {
        for member in 50..90 {
            let many: Vec<Endpoint> = (0..8).map(|n| address([10, flood, member, n])).collect();
            world.record(member, &many);
        }
        world.run(secs(5));
    }
    assert_eq!(world.all_explained().len(), policy::ENDPOINTS);
    for n in 1..=3 {
        assert_eq!(world.verdict(apiserver(n)), Verdict::Ready);
    }
    world.site(apiserver(4), Site::Status(200));
    world.record(4, &[apiserver(4)]);
    world.run(ms(10));
    assert_eq!(world.verdict(apiserver(4)), Verdict::Ready, "it took the place of one that never answered");
}

#[test]
fn what_a_person_wrote_is_known_however_full_it_is() {
    let mut world = World::worker(1);
    for member in 50..90 {
        let many: Vec<Endpoint> = (0..8).map(|n| address([10, 1, member, n])).collect();
        world.record(member, &many);
    }
    world.configure(&[(apiserver(1), Source::Static)]);
    assert!(world.carries(apiserver(1)));
    assert_eq!(world.all_explained().len(), policy::ENDPOINTS);
}

#[test]
fn a_worker_names_no_endpoints() {
    let mut world = World::worker(1);
    let record = MemberRecord { role: Role::Worker, ..world.a_record(1, &[apiserver(1)]) };
    world.tell(Event::Record(record));
    assert!(!world.knows(apiserver(1)));
}

#[test]
fn a_control_plane_node_does_not_learn_its_own_apiserver_from_others() {
    let mut world = World::node(Identity { name: "cp-1".into(), advertised: vec![apiserver(1)], seed: 1 });
    world.configure(&[(address([127, 0, 0, 1]), Source::Local)]);
    world.record(2, &[apiserver(1), apiserver(2)]);
    world.tell(Event::Cached { endpoints: vec![cached(apiserver(1), Some(control_plane(1)), secs(1))], cluster_size: 3 });
    assert!(!world.knows(apiserver(1)));
    assert!(world.knows(apiserver(2)));
}

#[test]
fn its_own_record_is_none_of_its_business() {
    let mut world = World::node(Identity { name: "cp-1".into(), advertised: Vec::new(), seed: 1 });
    world.record(1, &[apiserver(1)]);
    assert!(!world.knows(apiserver(1)));
}

#[test]
fn the_newest_record_counts_by_generation_then_version() {
    let mut world = World::worker(1);
    let record = |world: &mut World, generation, version, last| {
        let record = MemberRecord { generation, version, ..world.a_record(1, &[apiserver(last)]) };
        world.tell(Event::Record(record));
    };
    record(&mut world, 2, 5, 1);
    record(&mut world, 2, 4, 2);
    record(&mut world, 1, 999, 4);
    assert_eq!(world.all_explained().iter().map(|one| one.endpoint).collect::<Vec<_>>(), [apiserver(1)]);
    record(&mut world, 3, 0, 5);
    assert!(world.knows(apiserver(5)), "a higher generation counts whatever its version");
}

#[test]
fn the_same_version_told_otherwise_is_taken_because_what_it_may_name_has_changed_here() {
    let mut world = World::worker(1);
    let record = world.a_record(1, &[apiserver(1)]);
    world.tell(Event::Record(record.clone()));
    world.tell(Event::Record(MemberRecord { endpoints: vec![apiserver(1), apiserver(2)], ..record }));
    assert!(world.knows(apiserver(2)), "an address that is allowed from now on");
}

#[test]
fn the_set_never_becomes_empty() {
    let mut world = World::quiet(2, 1);
    for n in [1, 2] {
        world.site(apiserver(n), Site::Silent);
        world.tell(Event::Forgotten(control_plane(n)));
    }
    world.configure(&[]);
    world.run(secs(3 * 3600));
    assert_eq!(world.engine.routing().upstreams.len(), 1);
}

#[test]
fn a_worker_that_learns_by_gossip_carries_a_round_trip_after_the_first_record() {
    let mut world = World::worker(1);
    for n in 1..=3 {
        world.site(apiserver(n), Site::Status(200));
        world.record(n, &[apiserver(n)]);
    }
    world.run(RTT);
    assert_eq!(world.ranked().len(), 3);
}

#[test]
fn a_node_that_is_named_after_its_start_is_itself_under_that_name() {
    let mut world = World::worker(1);
    world.tell(Event::Named("cp-1".to_owned()));
    world.record(1, &[apiserver(1)]);
    assert!(world.engine.explain(world.now).is_empty(), "its own record is no other's");
    world.record(2, &[apiserver(2)]);
    assert_eq!(world.engine.explain(world.now).len(), 1);
}
