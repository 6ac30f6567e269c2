//! What this node says of itself, to the others and to its own disk, and how often.

use super::*;

fn control_plane_world() -> (World, Endpoint) {
    let mut world = World::node(Identity { name: "cp-1".into(), advertised: vec![apiserver(1)], seed: 1 });
    let local = address([127, 0, 0, 1]);
    world.site(local, Site::Status(200));
    world.configure(&[(local, Source::Local)]);
    for n in [2, 3] {
        world.site(apiserver(n), Site::Status(200));
        world.record(n, &[apiserver(n)]);
    }
    world.run(secs(40));
    (world, local)
}

#[test]
fn in_quiet_with_noise_a_record_is_written_at_most_every_10_s() {
    let mut world = World::quiet(3, 1);
    world.noise = 0.9;
    let since = world.now;
    for round in 0..600_u32 {
        for n in 1..=3 {
            world.tell(Event::Connections { endpoint: apiserver(n), open: round * 7 % 50 });
        }
        world.run(secs(1));
    }
    let published = world.published(since);
    for pair in published.windows(2) {
        assert!(pair[1].0.since(pair[0].0) >= policy::PUBLISH_INTERVAL);
    }
    assert!(published.iter().all(|(_, (_, urgent))| !urgent));
}

#[test]
fn with_many_endpoints_and_noise_a_record_is_written_at_most_every_10_s_too() {
    let mut world = World::worker(1);
    world.noise = 0.9;
    for n in 1..=18 {
        world.site(apiserver(n), Site::Status(200));
        world.record(n, &[apiserver(n)]);
    }
    world.run(secs(40));
    let since = world.now;
    world.run(secs(60));
    for pair in world.published(since).windows(2) {
        assert!(pair[1].0.since(pair[0].0) >= policy::PUBLISH_INTERVAL);
    }
}

#[test]
fn nothing_new_is_not_written_at_all() {
    let mut world = World::quiet(3, 1);
    world.run(secs(20));
    let since = world.now;
    world.run(secs(600));
    assert!(world.published(since).is_empty());
}

#[test]
fn a_change_of_its_own_apiserver_is_said_at_once_and_urgently() {
    let (mut world, local) = control_plane_world();
    for (site, state, most) in [
        (Site::Status(500), ApiserverState::Draining, ms(310)),
        (Site::Status(200), ApiserverState::Ready, ms(310)),
        (Site::Ends(Outcome::Refused), ApiserverState::Down, ms(1400)),
        (Site::Status(200), ApiserverState::Ready, ms(600)),
    ] {
        world.run(secs(20));
        let since = world.now;
        world.site(local, site);
        world.run(most);
        let urgent: Vec<ApiserverState> = world
            .published(since)
            .into_iter()
            .filter(|(_, (_, urgent))| *urgent)
            .filter_map(|(_, (say, _))| say.apiserver)
            .collect();
        assert_eq!(urgent, [state]);
    }
}

#[test]
fn an_apiserver_that_flips_with_every_probe_is_told_once_a_second_at_most() {
    let (mut world, local) = control_plane_world();
    let since = world.now;
    for flip in 0..200 {
        world.site(local, Site::Status(if flip % 2 == 0 { 500 } else { 200 }));
        world.run(ms(300));
    }
    let published = world.published(since);
    let urgent: Vec<Moment> = published.iter().filter(|(_, (_, urgent))| *urgent).map(|(when, _)| *when).collect();
    assert!(urgent.len() > 20);
    assert!(urgent.windows(2).all(|pair| pair[1].since(pair[0]) >= secs(1)));
    assert!(published.len() < 2 * 60, "{} in a minute", published.len());
}

#[test]
fn a_worker_says_nothing_of_an_apiserver_of_its_own() {
    let world = World::quiet(3, 1);
    assert!(world.published(Moment::START).iter().all(|(_, (say, urgent))| say.apiserver.is_none() && !urgent));
}

#[test]
fn what_it_saw_is_said_nearest_first_and_16_at_most() {
    let mut world = World::worker(1);
    for n in 1..=20 {
        world.site(apiserver(n), Site::Status(200));
        world.distance(apiserver(n), ms(u64::from(n)));
        world.record(n, &[apiserver(n)]);
    }
    world.run(secs(30));
    let (_, (say, _)) = world.published(Moment::START).pop().unwrap();
    let said: Vec<_> = say.observations.iter().map(|seen| seen.endpoint).collect();
    let nearest: Vec<_> = (1..=16).map(|n| apiserver(n).tag()).collect();
    assert_eq!(said, nearest);
}

#[test]
fn its_own_apiserver_is_named_as_the_others_know_it_and_without_a_round_trip() {
    let (mut world, local) = control_plane_world();
    world.tell(Event::Connections { endpoint: local, open: 40 });
    world.run(secs(20));
    let (_, (say, _)) = world.published(Moment::START).pop().unwrap();
    let own = say.observations.iter().find(|seen| seen.endpoint == apiserver(1).tag()).expect("it is in the report");
    assert_eq!((own.rtt, own.connections), (None, 40));
    assert!(say.observations.iter().all(|seen| seen.endpoint != local.tag()));
}

#[test]
fn reports_give_own_samples_never_what_peers_said() {
    let mut world = World::worker(1);
    world.configure(&[(apiserver(1), Source::Static)]);
    world.tell(Event::Priors([(apiserver(1).tag(), ms(3))].into()));
    world.run(secs(30));
    assert!(world.published(Moment::START).iter().all(|(_, (say, _))| say.observations.iter().all(|seen| seen.rtt.is_none())));
}

#[test]
fn a_change_of_verdict_is_said_within_a_second() {
    let mut world = World::quiet(3, 1);
    world.run(secs(20));
    let since = world.now;
    world.saw(apiserver(1), Saw::Refused);
    let published = world.published(since);
    assert_eq!(published.len(), 1);
    assert!(published[0].1.0.observations.iter().any(|seen| seen.verdict == Verdict::Suspect));
    world.run(secs(1));
    assert_eq!(world.published(since).len(), 2, "that it passed is said a second later");
}

fn remembered(world: &World, since: Moment) -> Vec<(Moment, Vec<Endpoint>)> {
    world.since(since, |effect| match effect {
        Effect::Remember { endpoints, .. } => Some(endpoints.iter().map(|one| one.endpoint).collect()),
        _ => None,
    })
}

#[test]
fn what_was_proven_and_not_configured_is_kept_for_the_next_start() {
    let mut world = World::worker(1);
    for n in 1..=2 {
        world.site(apiserver(n), Site::Status(200));
    }
    world.configure(&[(apiserver(1), Source::Static)]);
    world.record(2, &[apiserver(2)]);
    world.record(3, &[apiserver(3)]);
    world.run(secs(10));
    assert_eq!(remembered(&world, Moment::START).pop().unwrap().1, [apiserver(2)]);
}

#[test]
fn a_start_that_has_proven_nothing_yet_does_not_overwrite_the_cache_with_nothing() {
    let mut world = World::worker(1);
    world.configure(&[(apiserver(1), Source::Static)]);
    world.run(secs(5));
    assert!(remembered(&world, Moment::START).is_empty());
    world.tell(Event::Cached { endpoints: vec![cached(apiserver(2), None, secs(50))], cluster_size: 9 });
    world.run(secs(5));
    assert!(remembered(&world, Moment::START).iter().all(|(_, kept)| kept.contains(&apiserver(2))));
}

#[test]
fn the_cache_is_written_when_it_changes_and_else_every_10_min() {
    let mut world = World::quiet(3, 1);
    world.run(secs(1200));
    let since = world.now;
    world.run(secs(3600));
    let quiet = remembered(&world, since).len();
    assert!((5..=6).contains(&quiet), "{quiet} in an hour");
    world.site(apiserver(4), Site::Status(200));
    world.record(4, &[apiserver(4)]);
    let since = world.now;
    world.run(secs(1));
    assert_eq!(remembered(&world, since).len(), 1);
}

#[test]
fn the_more_nodes_the_farther_apart_one_tells_of_verdicts_up_to_the_ordinary_10_s() {
    for (nodes, apart) in [(3, ms(1_000)), (100, ms(5_000)), (2_000, policy::PUBLISH_INTERVAL)] {
        let mut world = World::quiet(3, 1);
        world.tell(Event::ClusterSize(nodes));
        world.run(secs(120));
        let since = world.now;
        for _ in 0..120 {
            world.saw(apiserver(1), Saw::Refused);
            world.run(ms(500));
        }
        let published = world.published(since);
        assert_eq!(published[0].0, since, "the first at once");
        assert!(published.len() >= 2, "{nodes} nodes");
        assert!(published.windows(2).all(|pair| pair[1].0.since(pair[0].0) >= apart), "{nodes} nodes");
    }
}
