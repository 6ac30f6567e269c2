//! Probing costs the apiserver nothing that grows.

use super::*;

/// The most probes of apiserver 1 in any 10 s by nodes side by side, in a second, and the mean, after `from`.
fn together(nodes: impl IntoIterator<Item = World>, from: Duration) -> (f64, f64) {
    let span = secs(120);
    let mut sent: Vec<Moment> = Vec::new();
    for mut world in nodes {
        world.run(from + span - world.now.since(Moment::START));
        sent.extend(world.probes(apiserver(1), at(from)).into_iter().map(|(when, _)| when));
    }
    sent.sort_unstable();
    let peak = sent.iter().enumerate().map(|(first, start)| sent.partition_point(|when| when.since(*start) < secs(10)) - first);
    (peak.max().unwrap() as f64 / 10.0, sent.len() as f64 / span.as_secs_f64())
}

/// A node that learns within four seconds in how large a cluster it is.
fn newcomer(place: u32, nodes: u32) -> World {
    let mut world = World::worker(u64::from(place) + 1);
    world.site(apiserver(1), Site::Status(200));
    world.run(ms(u64::from(place) * 7 % 1000));
    world.record(1, &[apiserver(1)]);
    for known in 1..=4 {
        world.tell(Event::ClusterSize(nodes * known / 4));
        world.run(secs(1));
    }
    world
}

#[test]
fn all_nodes_together_probe_an_endpoint_20_times_a_second_at_most_whatever_their_number() {
    for nodes in [5, 20, 50, 200] {
        let (peak, mean) = together((0..nodes).map(|place| newcomer(place, nodes)), secs(30));
        let budget = f64::from(policy::PROBES_A_SECOND.min(nodes));
        assert!(peak <= budget * 1.1 + 1.0, "{nodes} nodes: {peak} probes a second over the worst 10 s");
        assert!(mean <= budget * 1.03, "{nodes} nodes: {mean} probes a second");
        assert!(mean >= budget * 0.9, "{nodes} nodes: {mean} probes a second");
    }
}

#[test]
fn a_probe_out_of_turn_does_not_move_the_beat_of_the_ordinary_ones() {
    for seed in 0..10 {
        let mut world = World::among(200, seed);
        let from = world.now;
        world.run_until(secs(13), |world| !world.probes(apiserver(1), from).is_empty());
        let beat = world.probes(apiserver(1), from)[0].0;
        world.run(secs(3));
        world.saw(apiserver(1), Saw::Refused);
        world.run(secs(20));
        let sent: Vec<Duration> = world.probes(apiserver(1), from).iter().map(|(when, _)| when.since(beat)).collect();
        assert!(sent[1] < secs(8), "seed {seed}: one out of turn {sent:?}");
        assert!(sent[2] <= secs(10).mul_f64(1.0 + policy::PROBE_JITTER), "seed {seed}: and then the beat {sent:?}");
    }
}

#[test]
fn nodes_that_saw_an_apiserver_fail_together_do_not_go_on_probing_it_together() {
    let nodes = 200;
    let (peak, _) = together(
        (0..nodes).map(|place| {
            let mut world = newcomer(place, nodes);
            world.run(at(secs(40)).since(world.now));
            world.site(apiserver(1), Site::Ends(Outcome::Refused));
            world.saw(apiserver(1), Saw::Refused);
            world.run(secs(12));
            world.site(apiserver(1), Site::Status(200));
            world
        }),
        secs(80),
    );
    assert!(peak <= 22.0, "{peak} probes a second over the worst 10 s");
}

#[test]
fn the_interval_has_no_upper_bound() {
    let mut world = World::quiet(1, 1);
    world.tell(Event::ClusterSize(20_000));
    assert_eq!(world.engine.probe_interval(), secs(1_000));
}

#[test]
fn every_interval_is_within_a_fifth_of_its_length() {
    let mut world = World::quiet(1, 1);
    let since = world.now;
    world.run(secs(300));
    let probes = world.probes(apiserver(1), since);
    for pair in probes.windows(2) {
        let apart = pair[1].0.since(pair[0].0);
        assert!(apart >= ms(800) && apart <= ms(1200), "{apart:?}");
    }
}

#[test]
fn two_nodes_do_not_probe_in_step() {
    let times = |seed| {
        let world = World::quiet(1, seed);
        world.probes(apiserver(1), at(secs(20))).into_iter().map(|(when, _)| when).collect::<Vec<_>>()
    };
    assert_ne!(times(1), times(2));
}

#[test]
fn its_own_apiserver_is_probed_every_250_ms_outside_the_budget() {
    let mut world = World::node(Identity { name: "cp-1".into(), advertised: vec![apiserver(1)], seed: 1 });
    let local = address([127, 0, 0, 1]);
    world.site(local, Site::Status(200));
    world.configure(&[(local, Source::Local)]);
    world.tell(Event::ClusterSize(5000));
    world.run(secs(60));
    let probes = world.probes(local, at(secs(10))).len();
    assert!((190..=210).contains(&probes), "{probes} in 50 s");
}

#[test]
fn there_is_at_most_one_probe_on_its_way_to_an_endpoint() {
    let mut world = World::quiet(1, 1);
    world.site(apiserver(1), Site::Silent);
    world.tell(Event::Held(9));
    world.run(secs(30));
    for pair in world.probes(apiserver(1), at(secs(41))).windows(2) {
        assert!(pair[1].0.since(pair[0].0) >= policy::PROBE_PHASE);
    }
}

#[test]
fn a_probe_whose_end_is_never_told_does_not_stop_the_probing() {
    let mut world = World::quiet(1, 1);
    world.distance(apiserver(1), ms(100));
    let since = world.now;
    world.run_until(secs(2), |world| !world.probes(apiserver(1), since).is_empty());
    assert_eq!(world.flying.len(), 1);
    world.flying.clear();
    let lost = world.now;
    world.run(secs(60));
    assert!(world.probes(apiserver(1), lost).len() > 30);
    world.assert_untouched(since);
}

#[test]
fn the_end_of_a_probe_nobody_waits_for_is_ignored() {
    let mut world = World::quiet(1, 1);
    let since = world.now;
    for id in [0, 1, 9999] {
        world.tell(Event::Probed(Probed {
            id,
            endpoint: apiserver(1),
            sent: since,
            fresh: true,
            rtt: None,
            handshake: None,
            hello_bytes: HELLO_BYTES,
            outcome: Outcome::Untrusted("a late lie".into()),
        }));
    }
    world.assert_untouched(since);
}

#[test]
fn a_kept_connection_is_used_while_ready_but_for_one_probe_in_four_and_a_fresh_one_otherwise() {
    let mut world = World::quiet(1, 1);
    let since = world.now;
    world.run(secs(30));
    let probes = world.probes(apiserver(1), since);
    assert!(probes.iter().all(|(_, order)| order.keep));
    let fresh = |four: &[(Moment, ProbeOrder)]| four.iter().filter(|(_, order)| order.fresh).count();
    assert!(probes.windows(4).all(|four| fresh(four) == 1), "{probes:?}");
    for (site, verdict) in [(Site::Status(503), Verdict::Draining), (Site::Ends(Outcome::Refused), Verdict::Down)] {
        world.site(apiserver(1), site);
        world.run_until(secs(5), |world| world.verdict(apiserver(1)) == verdict);
        let then = world.now;
        world.run(secs(10));
        assert!(world.probes(apiserver(1), then).iter().all(|(_, order)| order.fresh), "{verdict:?}");
        world.site(apiserver(1), Site::Status(200));
        world.run(secs(10));
    }
}

#[test]
fn balancers_and_names_are_always_probed_over_fresh_connections() {
    let mut world = World::worker(1);
    let named = Configured { by_name: true, ..configured(apiserver(2), Source::Static) };
    world.tell(Event::Configured(vec![configured(apiserver(1), Source::External), named]));
    for n in [1, 2] {
        world.site(apiserver(n), Site::Status(200));
    }
    world.run(secs(20));
    for n in [1, 2] {
        assert!(world.probes(apiserver(n), Moment::START).iter().all(|(_, order)| order.fresh && !order.keep));
    }
}

#[test]
fn beyond_30_s_connections_are_not_kept_between_probes() {
    for (nodes, keeps) in [(599, true), (700, false)] {
        let mut world = World::quiet(1, 1);
        world.tell(Event::ClusterSize(nodes));
        let since = world.now;
        world.run(secs(200));
        let probes = world.probes(apiserver(1), since);
        assert!(probes.iter().skip(1).all(|(_, order)| order.keep == keeps), "{nodes}");
        assert_eq!(probes.iter().skip(1).all(|(_, order)| order.fresh), !keeps, "{nodes}");
    }
}

#[test]
fn a_name_that_resolves_anew_is_probed_at_once_over_a_fresh_connection() {
    let mut world = World::worker(1);
    world.site(apiserver(1), Site::Status(200));
    let named = |name: &str| Configured { server_name: Some(name.into()), ..configured(apiserver(1), Source::Static) };
    world.tell(Event::Configured(vec![named("a")]));
    world.run(secs(10));
    let since = world.now;
    world.tell(Event::Configured(vec![named("b")]));
    let probes = world.probes(apiserver(1), since);
    assert!(probes.len() == 1 && probes[0].1.fresh, "{probes:?}");
    assert_eq!(probes[0].1.server_name.as_deref(), Some("b"));
}

#[test]
fn what_was_proven_once_is_asked_at_the_ordinary_pace_whatever_stands_there_now() {
    let mut world = World::quiet(2, 1);
    world.site(apiserver(1), Site::Ends(Outcome::Untrusted("another's".into())));
    world.run(secs(120));
    assert!(!world.carries(apiserver(1)));
    world.site(apiserver(1), Site::Status(200));
    let took = world.run_until(secs(10), |world| world.verdict(apiserver(1)) == Verdict::Ready);
    assert!(took <= longest_interval(2) + policy::RECOVERY_GAP + ms(50), "{took:?}");
}

#[test]
fn the_unproven_are_tried_ever_less_often_down_to_every_5_min() {
    let mut world = World::worker(1);
    world.record(1, &[apiserver(1)]);
    world.run(secs(7200));
    let probes = world.probes(apiserver(1), at(secs(3600)));
    assert!((9..=15).contains(&probes.len()), "{} in an hour", probes.len());
}

#[test]
fn what_was_proven_once_is_tried_on_at_the_ordinary_interval() {
    let mut world = World::quiet(1, 1);
    world.site(apiserver(1), Site::Silent);
    world.run(secs(3600));
    assert!(world.probes(apiserver(1), at(secs(3000))).len() > 300);
}

#[test]
fn a_node_that_hears_nobody_keeps_the_last_size_and_for_15_min_after_it_hears_somebody() {
    let mut world = World::worker(1);
    world.tell(Event::Cached { endpoints: Vec::new(), cluster_size: 500 });
    world.run(secs(1));
    world.tell(Event::ClusterSize(1));
    world.run(secs(7200));
    world.tell(Event::ClusterSize(1));
    assert_eq!(world.engine.cluster_size(), 500, "it must not think that it is alone");
    world.tell(Event::ClusterSize(3));
    assert_eq!(world.engine.cluster_size(), 500, "the others are only being found again");
    world.run(secs(901));
    world.tell(Event::Wake);
    assert_eq!(world.engine.cluster_size(), 3);
}

#[test]
fn names_made_up_by_a_crash_loop_slow_nobody_for_longer_than_15_min_and_a_probe() {
    let mut world = World::quiet(1, 1);
    world.tell(Event::ClusterSize(5000));
    world.tell(Event::ClusterSize(5));
    assert_eq!(world.engine.cluster_size(), 5000);
    world.run(secs(900) + longest_interval(5000));
    assert_eq!(world.engine.cluster_size(), 5);
}

#[test]
fn when_an_apiserver_fails_each_node_adds_three_probes_at_most() {
    for seed in 0..10 {
        let (mut world, fault) = World::silent_among(200, seed);
        world.run(secs(100));
        let periodic = 100.0 / 10.0 * 1.25 + 1.0;
        let probes = world.probes(apiserver(1), fault).len() as f64;
        assert!(probes <= periodic + 3.0, "seed {seed}: {probes}");
    }
}

#[test]
fn what_this_node_cannot_even_try_it_tries_no_faster_whatever_was_to_be_confirmed() {
    let (refused, lack) = (Site::Ends(Outcome::Refused), Site::Ends(Outcome::LocalError("no route".into())));
    // A failure that waits for its confirmation, and a recovery that waits for its own.
    for story in [vec![(refused.clone(), ms(1100))], vec![(refused, secs(5)), (Site::Status(200), ms(1100))]] {
        for seed in 0..10 {
            let mut world = World::quiet(2, seed);
            for (site, span) in &story {
                world.site(apiserver(1), site.clone());
                world.run_until(*span + secs(1), |world| world.verdict(apiserver(1)) != Verdict::Ready);
                world.run(ms(100));
            }
            world.site(apiserver(1), lack.clone());
            let since = world.now;
            world.run(secs(20));
            let probes = world.probes(apiserver(1), since).len();
            assert!((15..=30).contains(&probes), "seed {seed}: {probes} probes in 20 s");
        }
    }
}

#[test]
fn what_peers_measured_makes_no_first_probe_impatient() {
    let mut world = World::worker(1);
    world.tell(Event::Priors([(apiserver(1).tag(), ms(1))].into()));
    world.record(1, &[apiserver(1)]);
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(2));
    let limits: Vec<ProbeLimits> = world.probes(apiserver(1), Moment::START).into_iter().map(|(_, order)| order.limits).collect();
    assert_eq!(limits[0], ProbeLimits::of(policy::MAX_PROBE_PHASE), "its own path may be a long one");
    assert!(limits[1].dial < policy::MAX_PROBE_PHASE, "once measured, it is known");
}
