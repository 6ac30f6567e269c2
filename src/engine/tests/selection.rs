//! What counts as best: rank, band, draw and ramp as an engine lives them. The arithmetic is tested beside the code.

use super::*;

/// The share of the draws that start with each endpoint.
fn share_of(world: &World, endpoint: Endpoint) -> f64 {
    let routing = world.engine.routing();
    let total: u64 =
        routing.upstreams.iter().filter(|upstream| upstream.group == 0).map(|upstream| u64::from(upstream.weight)).sum();
    if world.best().contains(&endpoint) { f64::from(world.weight(endpoint)) / total as f64 } else { 0.0 }
}

#[test]
fn the_race_goes_ready_draining_unproven_suspect_down() {
    let mut world = World::worker(1);
    world.configure(&[
        (apiserver(1), Source::Static),
        (apiserver(2), Source::Static),
        (apiserver(3), Source::Static),
        (apiserver(4), Source::Static),
        (apiserver(5), Source::Static),
    ]);
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.site(apiserver(2), Site::Status(200));
    world.site(apiserver(3), Site::Ends(Outcome::LocalError("not tried".into())));
    world.site(apiserver(4), Site::Status(500));
    world.site(apiserver(5), Site::Status(200));
    world.run(secs(5));
    world.saw(apiserver(2), Saw::Refused);
    let verdicts: Vec<Verdict> = world.engine.routing().upstreams.iter().map(|upstream| upstream.verdict).collect();
    assert_eq!(verdicts, [Verdict::Ready, Verdict::Draining, Verdict::Unproven, Verdict::Suspect, Verdict::Down]);
    assert_eq!(world.ranked(), [5, 4, 3, 2, 1].map(apiserver));
}

#[test]
fn the_local_apiserver_is_best_while_it_is_ready_and_again_once_it_returns() {
    let mut world = World::node(Identity { name: "cp-1".into(), advertised: vec![apiserver(1)], seed: 1 });
    let local = address([127, 0, 0, 1]);
    world.site(local, Site::Status(200));
    world.site(apiserver(2), Site::Status(200));
    world.distance(local, ms(8));
    world.configure(&[(local, Source::Local)]);
    world.record(2, &[apiserver(2)]);
    world.run(secs(10));
    assert_eq!(world.best(), [local], "however near another is");
    world.site(local, Site::Status(500));
    world.run(ms(400));
    assert_eq!(world.best(), [apiserver(2)]);
    world.site(local, Site::Status(200));
    world.run(ms(400));
    assert_eq!(world.best(), [local], "at once");
}

#[test]
fn the_direct_way_is_better_than_a_nearer_balancer() {
    let mut world = World::worker(1);
    for n in [1, 2] {
        world.site(apiserver(n), Site::Status(200));
    }
    world.distance(apiserver(2), ms(80));
    world.configure(&[(apiserver(1), Source::External)]);
    world.record(2, &[apiserver(2)]);
    world.run(secs(10));
    assert_eq!(world.ranked(), [apiserver(2), apiserver(1)]);
}

#[test]
fn an_apiserver_20_ms_away_gets_no_new_connection_while_a_near_one_is_ready() {
    let mut world = World::worker(1);
    for (n, rtt) in [(1, ms(20)), (2, Duration::from_micros(300)), (3, ms(1))] {
        world.site(apiserver(n), Site::Status(200));
        world.distance(apiserver(n), rtt);
        world.record(n, &[apiserver(n)]);
    }
    world.run(secs(60));
    assert_eq!(world.best(), [apiserver(2), apiserver(3)]);
    for n in [2, 3] {
        world.site(apiserver(n), Site::Ends(Outcome::Refused));
    }
    world.run(secs(10));
    assert_eq!(world.best(), [apiserver(1)], "and all of them when no near one is");
}

#[test]
fn peers_reports_stand_in_before_there_are_own_samples() {
    let mut world = World::worker(1);
    world.configure(&[(apiserver(1), Source::Static), (apiserver(2), Source::Static)]);
    world.tell(Event::Priors([(apiserver(1).tag(), ms(31)), (apiserver(2).tag(), ms(1))].into()));
    assert_eq!(world.explained(apiserver(1)).unwrap().rtt, Some(ms(31)));
    assert_eq!(world.best(), [apiserver(2)], "before any own probe was answered");
    world.tell(Event::Priors(BTreeMap::new()));
    assert_eq!(world.explained(apiserver(1)).unwrap().rtt, None, "peers report nothing any more");
}

#[test]
fn a_round_trip_that_was_reported_before_the_endpoint_was_known_counts() {
    let mut world = World::worker(1);
    world.tell(Event::Priors([(apiserver(1).tag(), ms(31))].into()));
    world.configure(&[(apiserver(1), Source::Static)]);
    assert_eq!(world.explained(apiserver(1)).unwrap().rtt, Some(ms(31)));
}

#[test]
fn among_equals_the_draw_is_even_and_load_only_tilts_it() {
    let mut world = World::quiet(3, 1);
    for n in 1..=3 {
        assert!((share_of(&world, apiserver(n)) - 1.0 / 3.0).abs() < 0.01);
    }
    world.tell(Event::Loads([(apiserver(1).tag(), 3000), (apiserver(2).tag(), 100), (apiserver(3).tag(), 100)].into()));
    let loaded = share_of(&world, apiserver(1));
    assert!((loaded - 0.7 / 3.5).abs() < 0.01, "{loaded}");
}

#[test]
fn where_gossip_is_off_own_connections_are_the_load() {
    let mut world = World::quiet(2, 1);
    world.tell(Event::Connections { endpoint: apiserver(1), open: 100 });
    assert!(share_of(&world, apiserver(1)) < 0.4);
    world.tell(Event::Loads([(apiserver(1).tag(), 5), (apiserver(2).tag(), 5)].into()));
    assert!((share_of(&world, apiserver(1)) - 0.5).abs() < 0.01, "gossip knows better");
}

#[test]
fn who_comes_back_gets_at_most_its_fair_share_in_the_first_10_s_and_all_of_it_after_30() {
    for loaded in [false, true] {
        let mut world = World::quiet(3, 1);
        if loaded {
            world.tell(Event::Loads((1..=3).map(|n| (apiserver(n).tag(), if n == 1 { 0 } else { 500 })).collect()));
        }
        world.site(apiserver(1), Site::Ends(Outcome::Refused));
        world.run(secs(10));
        world.site(apiserver(1), Site::Status(200));
        world.run_until(secs(3), |world| world.verdict(apiserver(1)) == Verdict::Ready);
        let mut shares = Vec::new();
        for _ in 0..40 {
            shares.push(share_of(&world, apiserver(1)));
            world.run(secs(1));
        }
        let early = shares[..10].iter().sum::<f64>() / 10.0;
        assert!((0.02..=1.0 / 3.0).contains(&early), "of new connections in the first 10 s: {early}");
        assert!(shares.windows(2).all(|pair| pair[0] <= pair[1]), "it grows step by step: {shares:?}");
        let full = if loaded { 1.4 / 2.8 } else { 1.0 / 3.0 };
        assert!((shares[35] - full).abs() < 0.01, "{}", shares[35]);
    }
}

#[test]
fn a_share_that_grows_needs_nobody_to_wake_the_engine_for_something_else() {
    let mut world = World::quiet(2, 1);
    world.tell(Event::ClusterSize(20_000));
    world.site(apiserver(3), Site::Status(200));
    world.record(3, &[apiserver(3)]);
    world.run(RTT);
    let since = world.now;
    world.run(secs(31));
    let steps = world.since(since, |effect| matches!(effect, Effect::Route(_)).then_some(())).len();
    assert!((28..=34).contains(&steps), "{steps} steps in 30 s");
}

#[test]
fn a_suspicion_that_passes_costs_no_ramp() {
    let mut world = World::quiet(3, 1);
    world.saw(apiserver(1), Saw::Refused);
    world.run(secs(2));
    assert!((share_of(&world, apiserver(1)) - 1.0 / 3.0).abs() < 0.01);
}

#[test]
fn who_returns_from_down_as_suspect_still_has_its_ramp_to_go() {
    let mut world = World::quiet(2, 1);
    world.distance(apiserver(1), ms(100));
    world.distance(apiserver(2), ms(100));
    world.run(secs(10));
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(secs(10));
    world.site(apiserver(1), Site::Status(200));
    let since = world.now;
    world.run_until(secs(3), |world| world.probes(apiserver(1), since).len() == 2);
    world.word(1, ApiserverState::Down);
    world.run(ms(110));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect);
    world.run(secs(2));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
    assert!(share_of(&world, apiserver(1)) < 0.2);
}

#[test]
fn being_the_only_suspect_is_no_way_into_the_band() {
    let mut world = World::worker(1);
    for (n, rtt) in [(1, ms(10)), (2, ms(18))] {
        world.site(apiserver(n), Site::Status(200));
        world.distance(apiserver(n), rtt);
        world.record(n, &[apiserver(n)]);
    }
    world.run(secs(30));
    assert_eq!(world.best(), [apiserver(1)]);
    world.saw(apiserver(2), Saw::Refused);
    world.run(secs(5));
    assert_eq!(world.verdict(apiserver(2)), Verdict::Ready);
    assert_eq!(world.best(), [apiserver(1)], "entering asks for 1.5 times the lowest");
}

#[test]
fn the_dial_delays_follow_the_distance_within_their_bounds() {
    for (rtt, second, first_byte) in [(1, 10, 500), (20, 60, 500), (150, 250, 1500), (400, 600, 2000), (1000, 1500, 3000)]
        .map(|(a, b, c)| (ms(a), ms(b), ms(c)))
    {
        let mut world = World::worker(1);
        world.site(apiserver(1), Site::Status(200));
        world.distance(apiserver(1), rtt);
        world.record(1, &[apiserver(1)]);
        world.run(secs(20));
        let upstream = &world.engine.routing().upstreams[0];
        assert_eq!((upstream.second_dial, upstream.first_byte), (second, first_byte), "{rtt:?}");
    }
}

#[test]
fn explain_says_why_each_endpoint_is_where_it_is() {
    let mut world = World::quiet(2, 1);
    world.record(3, &[apiserver(3)]);
    world.run(secs(5));
    let all = world.all_explained();
    assert_eq!(all.iter().map(|one| one.best).collect::<Vec<_>>(), [true, true, false]);
    for one in &all {
        assert!(one.reasons.len() >= 3, "{one:?}");
    }
    assert!(all[2].reasons.iter().any(|reason| reason.contains("before it has proven itself")), "{:?}", all[2].reasons);
}

#[test]
fn ages_are_told_as_of_the_question_and_not_as_of_the_last_event() {
    let world = World::quiet(1, 1);
    let age = |at: Moment| {
        let told = world.engine.explain(at).remove(0).reasons;
        let sent = told.iter().find_map(|reason| reason.strip_prefix("last probe sent ")?.strip_suffix(" s ago")).expect("told");
        sent.parse::<f64>().expect("seconds")
    };
    assert!((age(world.now + secs(30)) - age(world.now) - 30.0).abs() < 0.11);
}

#[test]
fn the_best_are_told_once_when_they_change() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(secs(60));
    let told = world.since(since, |effect| match effect {
        Effect::Notice(Notice::Best { endpoints, .. }) => Some(endpoints.clone()),
        _ => None,
    });
    assert_eq!(told.into_iter().map(|(_, best)| best).collect::<Vec<_>>(), [vec![apiserver(2), apiserver(3)]]);
}

#[test]
fn when_all_are_down_who_answers_again_is_dialled_first_and_who_is_silent_last() {
    let mut world = World::quiet(3, 1);
    for (n, site) in [(1, Site::Silent), (2, Site::Ends(Outcome::Refused)), (3, Site::Ends(Outcome::Refused))] {
        world.site(apiserver(n), site);
    }
    world.distance(apiserver(3), ms(90));
    world.run(secs(20));
    assert_eq!(world.ranked().last(), Some(&apiserver(1)), "it costs a client the first-byte delay");
    world.site(apiserver(3), Site::Status(200));
    world.run_until(secs(3), |world| world.ranked()[0] == apiserver(3));
    assert_eq!(world.verdict(apiserver(3)), Verdict::Down, "one success is not enough to be ready");
}

#[test]
fn of_two_suspects_the_one_that_refused_is_dialled_before_the_one_that_was_silent() {
    let mut world = World::quiet(2, 1);
    world.saw(apiserver(1), Saw::NoFirstByte { deadline: world.now, hello_bytes: HELLO_BYTES });
    world.saw(apiserver(2), Saw::Refused);
    assert_eq!(world.ranked(), [apiserver(2), apiserver(1)]);
}
